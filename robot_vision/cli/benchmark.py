"""`robot-vision benchmark --compare OLD.json NEW.json`: what changed between two runs of `make bench`."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from robot_vision.errors import ConfigError
from robot_vision.text.console import plain_console

# Better when larger, of names in the JSON: rates and ratios of rates. (at_30_hz names a trial.)
_LARGER = re.compile(
    r"^(?!at_).*_hz$|_gb_s$|_gflops$|^recall|^over$|^usual_over_|^(node|replay|one_batch)_(.+_)?over_"
)
# Better when smaller: times and ratios of times, memory, losses, errors.
_SMALLER = re.compile(
    r"_(ms|s|mib|mb)$|^cpu_ms|^loss$|^median$|^error_|^p99_over_|"
    r"^(engine|pipeline|three_heads|passes|ensemble)_over_"
)
_SETTINGS = ("rate_hz", "at_")  # of a trial at a fixed rate the rate is what was asked for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "--compare",
        nargs=2,
        required=True,
        metavar=("OLD", "NEW"),
        help="two benchmarks.json files, the older one first",
    )
    parser.add_argument(
        "--noise", type=float, default=5.0, metavar="PERCENT",
        help="largest change that is not reported, in percent (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="also show what did not change")


def run(args: argparse.Namespace) -> int:
    """Prints the changes. Exit status 1 if something got worse by more than the noise."""
    old, new = (load(path) for path in args.compare)
    console = plain_console()
    for line in different_conditions(old, new):
        console.print(f"not the same: {line}")
    before, after = dict(_figures(old)), dict(_figures(new))
    table = Table(Column("figure", overflow="fold"), "old", "new", "change", "")
    worse = 0
    for name in (n for n in before if n in after):  # in the order of the file
        change = _change(name, before[name], after[name])
        if abs(change) <= args.noise and not args.all:
            continue
        verdict = "" if abs(change) <= args.noise else _verdict(name, change)
        worse += verdict == "worse"
        unit = "points" if name.endswith("/loss") else "%"
        table.add_row(
            name, f"{before[name]:g}", f"{after[name]:g}", f"{change:+.1f} {unit}", verdict
        )
    console.print(table if table.row_count else f"nothing changed by more than {args.noise:g} %")
    for name in sorted(before.keys() ^ after.keys()):
        console.print(f"only in the {'old' if name in before else 'new'} run: {name}")
    return 1 if worse else 0


def load(path: str) -> dict[str, Any]:
    """Returns what `make bench` has written.

    Raises:
        ConfigError: the file cannot be read, or is something else.
    """
    try:
        data = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a benchmark's JSON: {error}") from error
    if not isinstance(data, dict) or not {"schema", "machine", "input"} <= data.keys():
        raise ConfigError(f"{path} is not a benchmark's JSON: `make bench` writes one")
    return data


def different_conditions(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Yields why the two runs may differ for other reasons than the code."""
    if old["schema"] != new["schema"]:
        yield f"schema: {old['schema']}, {new['schema']}"
    if old["input"]["sha256"] != new["input"]["sha256"]:
        yield f"input: {old['input']['source']}, {new['input']['source']}"
    for key in sorted(old["machine"].keys() | new["machine"].keys()):
        a, b = (data["machine"].get(key) for data in (old, new))
        if a != b and key not in ("commit", "load_before"):
            yield f"{key}: {a}, {b}"


def _figures(data: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yields the measured numbers with their places in the JSON."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key in ("machine", "input", "own_hz", "drops", "answered", "samples"):
                continue
            yield from _figures(value, f"{path}/{key}" if path else str(key))
    elif isinstance(data, (int, float)) and not isinstance(data, bool):
        where, _, name = path.rpartition("/")
        asked = name == _SETTINGS[0] and where.rpartition("/")[2].startswith(_SETTINGS[1])
        if _direction(path) and not asked:
            yield path, float(data)


def _direction(path: str) -> int:
    """Returns 1 where more is better, -1 where less is, 0 for what is no result."""
    for part in reversed(path.split("/")):
        if _LARGER.search(part):
            return 1
        if _SMALLER.search(part):
            return -1
    return 0


def _change(name: str, before: float, after: float) -> float:
    """Returns percent of the old figure; of a loss, which hardly ever is far from 0, percentage points."""
    if name.endswith("/loss"):
        return 100 * (after - before)
    if before:
        return 100 * (after / before - 1)
    return math.inf if after else 0.0


def _verdict(name: str, change: float) -> str:
    return "better" if change * _direction(name) > 0 else "worse"
