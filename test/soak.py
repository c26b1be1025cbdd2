"""`make soak`: an hour of faults on the running node; writes docs/reliability_faults.md and its JSON.

Half of the time is the steady run at full rate, the rest is shared by the faults. Interrupting it keeps what
is done: each row is written when its scenario ends.
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

from fault_rig import Rig
from fault_scenarios import SCENARIOS, may_make_networks, suffer
from ros_helpers import ROOT

from benchmarks.machine import describe

PAGE = "reliability_faults"


def page(data: dict[str, Any]) -> str:
    """Returns the table as Markdown."""
    machine = data["machine"]
    lines = [
        "# Faults tried on the running node",
        "",
        "Written by `make soak`; do not edit by hand. Real processes over real DDS: a perception node with "
        "the demo's network, a camera that is broken, a listener that counts. Survived: the same process "
        "answers good frames again (`healed_s` later), without an internal error or a traceback.",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}, "
        f"commit `{machine['commit'][:19]}`, {data['date']}; command `{data['command']}`.",
        "",
        "| fault | what is done | for s | survived | what was lost or measured |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in data["rows"].items():
        lost = row.get("skipped") or row.get("error") or "; ".join(
            f"{key} {value}" for key, value in row["lost"].items()
        )  # fmt: skip
        survived = "left out" if "skipped" in row else "NO" if "error" in row else "yes"
        what = (SCENARIOS[name].__doc__ or "").strip()
        lines.append(f"| {name} | {what} | {row['seconds']:.0f} | {survived} | {lost} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs the scenarios; exit status 1 if one was not survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="in all (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--output", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(100 + os.getpid() % 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    others = [name for name in args.only if name != "steady"]
    whole = args.minutes * 60
    data: dict[str, Any] = {
        "schema": 1,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": "make soak" + ("" if len(sys.argv) == 1 else f" SOAK_ARGS='{' '.join(sys.argv[1:])}'"),
        "machine": describe(),
        "rows": {},
    }  # fmt: skip
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(shutil.copytree(ROOT / "models" / "demo", Path(folder) / "demo"))
        for name in args.only:
            seconds = whole / 2 if name == "steady" else whole / 2 / max(1, len(others))
            print(f"{time.strftime('%H:%M:%S')} {name} for {seconds:.0f} s ...", flush=True)
            row: dict[str, Any] = {"seconds": seconds}
            data["rows"][name] = row
            if name == "network_cut" and not may_make_networks():
                row["skipped"] = "this user may not make network namespaces"
            else:
                rig = Rig(Path(folder), bundle)  # a node of its own: no fault hides behind another
                try:
                    row["lost"] = suffer(name, rig, seconds)
                except Exception as error:
                    failed += 1
                    row["error"] = str(error).splitlines()[0]
                    traceback.print_exc()
                finally:
                    rig.close()
            print(f"  {row.get('lost') or row.get('skipped') or row.get('error')}", flush=True)
            (args.output / f"{PAGE}.json").write_text(json.dumps(data, indent=1) + "\n")
            (args.output / f"{PAGE}.md").write_text(page(data))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
