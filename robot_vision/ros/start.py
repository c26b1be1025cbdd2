"""Starts a node's process: signals are heeded before the imports, which take a second, and ROS may be absent.

The installed executables and `python -m` with an executable's module both begin here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import signal
import sys
from types import FrameType

from robot_vision.ros import EXECUTABLES
from robot_vision.ros.node.dds import DOMAIN_REMEDY, absent_middleware, bad_domain


def start(executable: str) -> int:
    """Imports an executable's module and runs its `main`.

    Until the node handles signals itself there is nothing to finish, so SIGINT, SIGTERM and SIGHUP end the
    process at once, with the status of a node that was asked to stop.

    Args:
        executable: its name in `EXECUTABLES`.

    Returns:
        The exit status; 2 where ROS 2, or the middleware that is asked for, is not installed, or there is no
        such domain.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:
            signal.signal(number, _end)
    if absent := absent_middleware():
        print(f"error: {absent}; unset it, set one of these, or install it", file=sys.stderr)
        return 2
    if domain := bad_domain():
        print(f"error: {domain}: {DOMAIN_REMEDY}", file=sys.stderr)
        return 2
    load_messages_alone()
    try:
        module = importlib.import_module(EXECUTABLES[executable])
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if not (name in ("rclpy", "tf2_ros") or name.endswith(("_msgs", "_interfaces"))):
            raise
        print(
            f"error: {executable} needs ROS 2 ({error}): source one that has it, such as "
            ". /opt/ros/DISTRO/setup.bash, or run make setup, which brings it",
            file=sys.stderr,
        )
        return 2
    status: int = module.main()
    return status


def load_messages_alone() -> None:
    """Imports what loads types of messages, without what generates them: no node does, and it takes 40 ms.

    The first message that a node makes would import both. The package does without the generator where its
    parser and its templates are not installed, and here they look so while it is imported.
    """
    _defer_what_generates()
    absent = [name for name in ("em", "lark") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        with contextlib.suppress(ImportError):  # it is imported as usual then, by what needs it
            importlib.import_module("rosidl_generator_py")
    finally:
        for name in absent:
            del sys.modules[name]


def _defer_what_generates() -> None:
    """Loads `rosidl_pycommon` when more is wanted than the base classes that messages have since Lyrical."""
    name = "rosidl_pycommon"
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    loader, package = spec.loader, importlib.util.module_from_spec(spec)

    def load(attribute: str) -> object:
        del package.__getattr__  # type: ignore[attr-defined]
        loader.exec_module(package)
        return getattr(package, attribute)

    package.__getattr__ = load  # type: ignore[method-assign]
    sys.modules[name] = package


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


# The entry points of setup.py.
globals().update({name: functools.partial(start, name) for name in EXECUTABLES})
