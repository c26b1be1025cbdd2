"""Let ROS find an editable install of robot_vision by name.

`pip install -e .` installs no data files, so the package would have no entry in the ament index and
no `share/robot_vision`. This adds both to the virtual environment that runs it, as links into the
source tree: an edited launch file or a newly trained model is what is used next. The executables
are linked to where `ros2 run` and launch files look.
"""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import entry_points
from pathlib import Path

NAME = "robot_vision"
ROOT = Path(__file__).resolve().parents[2]


def link(target: Path, at: Path) -> None:
    """Make `at` a symbolic link to `target`, replacing what stands there."""
    if at.is_dir() and not at.is_symlink():
        shutil.rmtree(at)
    else:
        at.unlink(missing_ok=True)
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(target)


def main() -> int:
    """Link the package into this virtual environment."""
    prefix = Path(sys.prefix)
    if sys.prefix == sys.base_prefix:
        print("error: run this with the Python of a virtual environment", file=sys.stderr)
        return 1
    link(ROOT / "resource" / NAME, prefix / "share/ament_index/resource_index/packages" / NAME)
    share = prefix / "share" / NAME
    for name in ("package.xml", "config", "models"):
        link(ROOT / name, share / name)
    # A folder of links: `ros2 launch` searches share/ with os.walk, which follows no link to a folder.
    launch = share / "launch"
    if launch.is_symlink():
        launch.unlink()
    shutil.rmtree(launch, ignore_errors=True)
    for file in sorted((ROOT / "launch").glob("*.launch.py")):
        link(file, launch / file.name)
    for command in entry_points(group="console_scripts"):
        if command.value.startswith(f"{NAME}."):
            link(prefix / "bin" / command.name, prefix / "lib" / NAME / command.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
