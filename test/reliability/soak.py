"""`make soak`: the nodes at full rate for an hour, then each fault for a minute; 75 to 80 minutes in all.

Writes docs/reliability_faults.md, its JSON and docs/images/soak.svg after each part, so an interrupted run
keeps what is done. `--only` runs parts again: the rows of others stay if they are of the same commit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fault_disk import may_mount
from fault_maps import MAP_SCENARIOS
from fault_rig import Rig
from fault_scenarios import SCENARIOS, may_make_networks, suffer
from ros_helpers import ROOT
from soak_page import PICTURE, page, picture

from benchmarks.machine import describe
from benchmarks.timing import positive

PAGE = "reliability_faults"
NAMES = (*SCENARIOS, *MAP_SCENARIOS)  # steady comes first: its hour is the longest to lose


def cannot(name: str) -> str:
    """Returns why a scenario cannot be run here, or nothing."""
    if name == "network_cut" and not may_make_networks():
        return "this user may not make network namespaces"
    if name.endswith("disk_full") and not may_mount():
        return "this user may not mount a file system"
    return ""


def run(name: str, folder: Path, bundle: Path, seconds: float) -> dict[str, Any]:
    """Returns what was lost in a scenario, with nodes of its own: no fault hides behind another."""
    if name in MAP_SCENARIOS:
        return MAP_SCENARIOS[name](folder, seconds)
    rig = Rig(folder, bundle)
    try:
        return suffer(name, rig, seconds)
    finally:
        rig.close()


def earlier(path: Path, commit: str) -> dict[str, Any]:
    """Returns the rows of an earlier run of the same commit, none if it had uncommitted changes."""
    if not commit or commit.endswith("+changes"):
        return {}
    try:
        data = json.loads(path.read_text())
        return dict(data["rows"]) if data["machine"]["commit"] == commit else {}
    except (OSError, ValueError, KeyError):
        return {}


def write(data: dict[str, Any], output: Path) -> None:
    """Writes the JSON, the page and the picture."""
    (output / "images").mkdir(parents=True, exist_ok=True)
    (output / f"{PAGE}.json").write_text(json.dumps(data, indent=1) + "\n")
    (output / f"{PAGE}.md").write_text(page(data))
    steady = data["rows"].get("steady", {})
    if "series" in steady.get("lost", {}):
        (output / "images" / PICTURE).write_text(picture(steady))


def main() -> int:
    """Runs the scenarios; exit status 1 if one was not survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=positive, default=60.0, help="of the steady run (%(default)s)"
    )
    parser.add_argument(
        "--fault-seconds", type=positive, default=60.0,
        help="for each fault (%(default)s); from 30 on, all 1,000 transitions are done, however long",
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME",
                        help=f"of {', '.join(NAMES)}")  # fmt: skip
    parser.add_argument("--output", type=Path, default=ROOT / "docs")
    parser.add_argument("--render", action="store_true", help="only write the page, from the JSON")
    args = parser.parse_args()
    if args.render:
        write(json.loads((args.output / f"{PAGE}.json").read_text()), args.output)
        return 0
    os.environ.setdefault("ROS_DOMAIN_ID", str(100 + os.getpid() % 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    machine = describe()
    old = earlier(args.output / f"{PAGE}.json", machine["commit"])
    data: dict[str, Any] = {
        "schema": 2,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": "make soak" + ("" if len(sys.argv) == 1 else f" SOAK_ARGS='{' '.join(sys.argv[1:])}'"),
        "machine": machine,
        "rows": old if len(args.only) < len(NAMES) else {},
    }  # fmt: skip
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(shutil.copytree(ROOT / "models" / "demo", Path(folder) / "demo"))
        for name in args.only:
            seconds = args.minutes * 60 if name == "steady" else args.fault_seconds
            print(f"{time.strftime('%H:%M:%S')} {name} for {seconds:.0f} s ...", flush=True)
            row: dict[str, Any] = {"seconds": seconds, "load": round(os.getloadavg()[0], 2)}
            own = Path(folder) / f"run_{name}"
            own.mkdir()
            try:
                if why := cannot(name):
                    row["skipped"] = why
                else:
                    row["lost"] = run(name, own, bundle, seconds)
            except Exception as error:
                failed += 1
                row["lost"] = getattr(error, "lost", {})  # what was measured all the same
                row["error"] = (str(error) or type(error).__name__).splitlines()[0][:500]
                traceback.print_exc()
            said = {k: v for k, v in row.get("lost", {}).items() if k != "series"}
            print(f"  {said or row.get('skipped') or row.get('error')}", flush=True)
            data["rows"][name] = row
            data["rows"] = {key: data["rows"][key] for key in NAMES if key in data["rows"]}
            write(data, args.output)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
