"""`robot-vision doctor`: checks this machine, its ROS 2 and the running graph, and says what to change."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Console

from robot_vision.cli.arguments import number
from robot_vision.doctor.finding import ERROR, OK, WARNING, Finding
from robot_vision.doctor.machine import machine_findings
from robot_vision.ros.node.dds import absent_middleware
from robot_vision.text.console import plain_console
from robot_vision.text.counts import counted

_MARKS = {OK: ("ok", "green"), WARNING: ("warning", "yellow"), ERROR: ("ERROR", "red")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "--seconds",
        type=number(float, 0, 3600),
        default=3.0,
        metavar="S",
        help="time for which all image topics of the running graph are subscribed, in seconds; 0 does not "
        "look at the graph (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")


def run(args: argparse.Namespace) -> int:
    """Prints what was found. Exit status: 1 if something will not work, else 0."""
    found = []
    console = plain_console()
    for finding in _findings(args.seconds):
        found.append(finding)
        if not args.json:
            _print(console, finding)
    if args.json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        counts = {level: sum(f.level == level for f in found) for level in (ERROR, WARNING)}
        console.print(
            f"{counted(len(found), 'check')}: {counted(counts[ERROR], 'error')}, "
            f"{counted(counts[WARNING], 'warning')}",
            style="bold",
        )
    return 1 if any(finding.level == ERROR for finding in found) else 0


def _findings(seconds: float) -> Iterator[Finding]:
    yield from machine_findings()
    if absent := absent_middleware():
        yield Finding("ROS 2", absent, ERROR, "unset it, set one of these, or install it")
        return
    try:
        from robot_vision.ros import graph_checks
    except ImportError as error:
        yield Finding(
            "ROS 2",
            f"cannot be imported ({error}): evaluation, training and `infer` work, nodes do not",
            WARNING,
            "source one, such as . /opt/ros/DISTRO/setup.bash, or run make setup, which brings it",
        )
        return
    yield from graph_checks.ros_findings()
    if seconds:
        yield from graph_checks.graph_findings(seconds)


def _print(console: Console, finding: Finding) -> None:
    mark, style = _MARKS[finding.level]
    console.print(f"{mark:8}", style=style, end="")
    console.print(f"{finding.subject}: {finding.text}", soft_wrap=True)
    if finding.remedy:
        console.print(f"{'':8}-> {finding.remedy}", soft_wrap=True)
