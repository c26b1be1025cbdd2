"""Several nodes in one process: the perception node, the place node and the filter node, or two of them.

    composed_nodes --perception --ros-args -p model:=demo --places --ros-args -p map:=/maps/home.map --filters

What stands after a node's option is for that node alone, such as its parameter file; what stands before the
first is for all. They share one executor's thread, in which none does any work that takes long; those that
compute have a worker of their own. The gate and the driver are no part of it: what stops the robot must not
end with what sees.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("composed_nodes"))

import functools
import importlib
import sys
from collections.abc import Sequence

from robot_vision.errors import ConfigError
from robot_vision.ros.node.process import run_nodes

# In the order in which they start.
NODES = {
    "--perception": ("robot_vision.ros.perception.node", "PerceptionNode"),
    "--places": ("robot_vision.ros.places.node", "PlaceNode"),
    "--filters": ("robot_vision.ros.filters.node", "FilterNode"),
}


def sections(args: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Returns the arguments for all nodes, and those of each that is to run, by its option.

    Raises:
        ConfigError: no node is named, or one twice.
    """
    everyone: list[str] = []
    found: dict[str, list[str]] = {}
    current = everyone
    for arg in args:
        if arg not in NODES:
            current.append(arg)
        elif arg in found:
            raise ConfigError(f"{arg} is given twice: a process runs one such node")
        else:
            current = found[arg] = []
    if not found:
        raise ConfigError(f"no node is named: give two or more of {' '.join(NODES)}")
    return everyone, found


def main(args: Sequence[str] | None = None) -> int:
    """Runs the nodes; returns the exit status."""
    try:
        everyone, found = sections(sys.argv[1:] if args is None else args)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    creates = []
    for option, (module, name) in NODES.items():
        if option in found:
            node = getattr(importlib.import_module(module), name)
            creates.append(functools.partial(node, cli_args=found[option]))
    return run_nodes(creates, [sys.argv[0], *everyone])
