"""docs/results.md: what trained models are worth on public data, each figure by a user's own commands.

    ROBOT_VISION_DATA=... python -m benchmarks.results [--only NAME ...]

benchmarks/results.yaml has the commands. What one has made under runs/results is not made again, so that an
interrupted run goes on. Sections that were not asked for keep their figures, from docs/results.json.
"""

from __future__ import annotations

# Before the imports below, which take seconds in which Ctrl-C may come.
if __name__ == "__main__":
    from benchmarks.interrupts import end_quietly

    end_quietly()

import argparse
import json
import os
import resource
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from benchmarks import machine
from benchmarks.tables import table
from robot_vision.errors import ConfigError
from robot_vision.files.folders import make_folder
from robot_vision.files.whole import write_whole

ROOT = Path(__file__).resolve().parent.parent
DATA = "ROBOT_VISION_DATA"
WORK = "runs/results"
WORDS = {
    "$WORK": WORK,
    "$DATA": f"${DATA}",
    "$BLOCKS": "--option split=blocks --option validation=0",
    "$DEPTH": "--option depth=../kitchen_depth --option depth_camera=585,585,320,240,-0.025",
}
TIMES = "processor_s.json"
ABOUT = f"""# Results on public data

Written by `python -m benchmarks.results` together with [results.json](results.json); do not edit by hand.
The command makes all of it from the data that `{DATA}` names, and `--only NAME` one section. Seed 0.
In brackets: intervals of 95 % by a bootstrap over blocks of time. What others published stands next to it
where the data are the same. Their splits are not: it says where a number lies, not who is better. Nothing
was chosen on what is reported here: [training_results.md](training_results.md) says what was.
"""


def sections() -> dict[str, dict[str, Any]]:
    """Returns what is measured, by name."""
    text = (ROOT / "benchmarks" / "results.yaml").read_text()
    return dict(yaml.safe_load(text))


def written(command: str) -> str:
    """Returns a command as a user types it."""
    for word, value in WORDS.items():
        command = command.replace(word, value)
    return command


def make(section: dict[str, Any], work: Path) -> dict[str, Any]:
    """Runs the steps that are left, and returns the figures.

    Raises:
        ConfigError: a step failed, or a figure is not in what it made.
    """
    for step in section["steps"]:
        # A map that is half built exists too: only what ended well is made.
        if step["makes"] not in _times(work) or not (work / step["makes"]).exists():
            _run(written(step["run"]), work / step["makes"], step.get("printed", False), work)
    times, about = _times(work), machine.describe()
    return {
        "figures": {name: _figure(work, of) for name, of in section["figures"].items()},
        "processor_s": round(sum(times.get(step["makes"], 0.0) for step in section["steps"])),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "processor": about["processor"],
        "commit": about["commit"],
    }


def _run(command: str, made: Path, printed: bool, work: Path) -> None:
    if command.startswith("robot-vision train") and (made.parent.parent / "config.yaml").exists():
        command += " --resume"
    print(f"$ {command}", flush=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    before = _processor_s()
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE if printed else None,
        check=False,
    )
    if done.returncode:
        raise ConfigError(f"`{command}` ended with status {done.returncode}")
    if printed:
        write_whole(made, done.stdout)
    name, times = str(made.relative_to(work)), _times(work)
    times[name] = times.get(name, 0.0) + _processor_s() - before
    write_whole(work / TIMES, json.dumps(times, indent=1))


def _times(work: Path) -> dict[str, float]:
    """Returns the processor time of each step that ended well, by what it makes."""
    file = work / TIMES
    return dict(json.loads(file.read_text())) if file.exists() else {}


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _figure(work: Path, of: dict[str, Any]) -> dict[str, Any]:
    node = json.loads((work / of["file"]).read_text())
    for key in of["keys"].split("/"):
        if not isinstance(node, dict) or node.get(key) is None:
            raise ConfigError(f"{work / of['file']} has no {of['keys']}")
        node = node[key]
    return (
        {k: node[k] for k in ("value", "low", "high")}
        if isinstance(node, dict)
        else {"value": node}
    )


def page(found: dict[str, Any]) -> str:
    """Returns the page of the sections that were measured."""
    parts = [ABOUT]
    for name, section in sections().items():
        if name not in found:
            continue
        made, figures = found[name], section["figures"]
        heading, others = ["figure", "measured"], any("others" in of for of in figures.values())
        heading += ["published"] if others else []
        rows = [
            [figure, _text(made["figures"][figure], of.get("digits", 3))]
            + ([of.get("others", "")] if others else [])
            for figure, of in figures.items()
        ]
        commands = [
            written(step["run"]) + (f" > {WORK}/{step['makes']}" if step.get("printed") else "")
            for step in section["steps"]
        ]
        parts += [
            f"## {section['title']}\n",
            section["text"] + "\n",
            table(heading, rows),
            f"{made['processor_s'] / 60:.1f} minutes of processor time ({made['processor']}); "
            f"{made['date']}, commit `{machine.short_commit(made['commit'], 8)}`; `--only {name}`:\n",
            "".join(f"    {command}\n" for command in commands),
        ]
    return "\n".join(parts)


def _text(figure: dict[str, Any], digits: int) -> str:
    if figure["value"] is None:
        return "-"
    text = f"{figure['value']:.{digits}f}"
    if figure.get("low") is not None:
        text += f" [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"
    return text


def main() -> int:
    """Measures, and writes the page after each section; returns the exit status."""
    known = sections()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=list(known), metavar="NAME", help=f"some of {', '.join(known)}"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder of the page")
    args = parser.parse_args()
    if not os.environ.get(DATA):
        parser.error(f"{DATA} is not set: name the folder of the data")
    try:
        make_folder(args.output)  # before the hours of work
    except ConfigError as error:
        parser.error(str(error))
    file = args.output / "results.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    for name in args.only or known:
        try:
            found[name] = make(known[name], ROOT / WORK)
        except ConfigError as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            return 1
        write_whole(file, json.dumps(found, indent=1) + "\n")
        write_whole(args.output / "results.md", page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
