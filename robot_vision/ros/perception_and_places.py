"""The perception node and the place node in one process.

    perception_and_places --perception --ros-args -p model:=demo --places --ros-args -p map:=/maps/home.map

What stands after `--perception` and after `--places` is for that node alone, such as its parameter file; what
stands before is for both. Both share one executor's thread, in which neither does any work that takes long;
each has a worker of its own.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("perception_and_places"))

import functools
import sys
from collections.abc import Sequence

from robot_vision.ros.node.process import run_nodes
from robot_vision.ros.perception.node import PerceptionNode
from robot_vision.ros.places.node import PlaceNode

PERCEPTION, PLACES = "--perception", "--places"


def sections(args: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Returns the arguments for both nodes, for the perception node, and for the place node."""
    found: dict[str, list[str]] = {"": [], PERCEPTION: [], PLACES: []}
    current = ""
    for arg in args:
        if arg in (PERCEPTION, PLACES):
            current = arg
        else:
            found[current].append(arg)
    return found[""], found[PERCEPTION], found[PLACES]


def main(args: Sequence[str] | None = None) -> int:
    """Runs both nodes; returns the exit status."""
    both, perception, places = sections(sys.argv[1:] if args is None else args)
    return run_nodes(
        [
            functools.partial(PerceptionNode, cli_args=perception),
            functools.partial(PlaceNode, cli_args=places),
        ],
        [sys.argv[0], *both],
    )
