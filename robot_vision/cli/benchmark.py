"""`robot-vision benchmark --compare OLD.json NEW.json`: what changed between two runs of `make bench`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from robot_vision.errors import ConfigError

# Better when larger; of times, memory and losses less is better.
_LARGER = ("_hz", "_over_engine", "_over_pipeline", "_over_todays", "_over_single_runs", "recall")
_SMALLER = ("_ms", "_s", "_mib", "_mb", "loss", "median", "_over_limit")
_SETTINGS = ("rate_hz", "at_")  # of a trial at a fixed rate the rate is what was asked for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "--compare", nargs=2, required=True, metavar=("OLD", "NEW"), help="two benchmarks.json"
    )
    parser.add_argument(
        "--noise", type=float, default=5.0, metavar="PERCENT",
        help="changes up to this are not worth a line (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="show what did not change too")


def run(args: argparse.Namespace) -> int:
    """Prints the changes. Exit status 1 if something got worse by more than the noise."""
    old, new = (_load(path) for path in args.compare)
    console = Console()
    for line in _different_conditions(old, new):
        console.print(f"not the same: {line}", highlight=False)
    before, after = dict(_figures(old)), dict(_figures(new))
    table = Table("figure", "old", "new", "change", "")
    worse = 0
    for name in (n for n in before if n in after):  # in the order of the file
        if not before[name]:
            continue
        change = 100 * (after[name] / before[name] - 1)
        if abs(change) <= args.noise and not args.all:
            continue
        verdict = "" if abs(change) <= args.noise else _verdict(name, change)
        worse += verdict == "worse"
        table.add_row(name, f"{before[name]:g}", f"{after[name]:g}", f"{change:+.1f} %", verdict)
    console.print(table if table.row_count else f"nothing changed by more than {args.noise:g} %")
    for name in sorted(before.keys() ^ after.keys()):
        console.print(f"only in the {'old' if name in before else 'new'} run: {name}")
    return 1 if worse else 0


def _load(path: str) -> dict[str, Any]:
    try:
        data = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a benchmark's JSON: {error}") from error
    if not isinstance(data, dict) or "machine" not in data or "schema" not in data:
        raise ConfigError(f"{path} is not a benchmark's JSON: `make bench` writes one")
    return data


def _different_conditions(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
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
        if part.startswith("p99_over_p50") or part.endswith(_SMALLER):
            return -1
        if part.endswith(_LARGER) or part.startswith(_LARGER[-1]):
            return 1
    return 0


def _verdict(name: str, change: float) -> str:
    return "better" if change * _direction(name) > 0 else "worse"
