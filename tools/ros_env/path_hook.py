"""Let ROS find the packages of this virtual environment by name, with nothing sourced.

Installed into the environment and run by a `.pth` file at the start of its Python: the environment
is put at the front of `AMENT_PREFIX_PATH`, as a sourced `setup.bash` would do. Child processes
inherit it.
"""

import os
import sys


def _add_prefix() -> None:
    entries = [part for part in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if part]
    if sys.prefix not in entries:
        os.environ["AMENT_PREFIX_PATH"] = os.pathsep.join([sys.prefix, *entries])


_add_prefix()
