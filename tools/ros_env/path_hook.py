"""Let ROS find the packages of this virtual environment by name, with nothing sourced.

Installed into the environment and run by a `.pth` file at the start of its Python: the environment
is put on `AMENT_PREFIX_PATH`, as a sourced `setup.bash` would do. It stands before an installed ROS
and behind the colcon workspaces that were sourced on top of it: what someone builds there is what they
want to run. Child processes inherit it.
"""

import os
import sys


def _paths(variable: str) -> "list[str]":
    return [part for part in os.environ.get(variable, "").split(os.pathsep) if part]


def _add_prefix() -> None:
    entries = _paths("AMENT_PREFIX_PATH")
    if sys.prefix in entries:
        return
    # What colcon names is an install folder; packages lie in it, or each in a folder of its own.
    workspaces = {os.path.realpath(path) for path in _paths("COLCON_PREFIX_PATH")}
    behind = 0
    for entry in map(os.path.realpath, entries):
        if entry not in workspaces and os.path.dirname(entry) not in workspaces:
            break
        behind += 1
    entries.insert(behind, sys.prefix)
    os.environ["AMENT_PREFIX_PATH"] = os.pathsep.join(entries)


_add_prefix()
