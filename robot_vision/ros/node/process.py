"""A node's process from start to end: DDS profile, signals, one line for an expected error, exit status."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from robot_vision.errors import RobotVisionError
from robot_vision.ros.node.dds import remove_dead_segments, use_large_image_profile
from robot_vision.ros.node.parameter_files import ignored_sections
from robot_vision.text.address import without_secrets

POLL_S = 0.25  # how long a signal may wait while nothing else happens
# A second signal ends the process at once. One that comes sooner is the first, delivered twice: to the
# process and to its group.
IMPATIENT_S = 0.5


def run_node(create: Callable[[], Any], args: Sequence[str] | None = None) -> int:
    """Runs one node; see `run_nodes`."""
    return run_nodes([create], args)


def run_nodes(creates: Sequence[Callable[[], Any]], args: Sequence[str] | None = None) -> int:
    """Runs nodes in one process, in one executor's thread, until SIGINT, SIGTERM or SIGHUP.

    The signals are handled here and not by rclpy, whose handlers invalidate the context at once: the node
    could then neither finish its transition nor say so.

    Args:
        creates: each makes a node. Its `start()`, if there is one, is called before spinning, and its
            `close()` at the end.
        args: command line; None for the process's own.

    Returns:
        The exit status: 0 after a signal, 2 if a node cannot be made from what the user gave, or if ROS
        refuses the command line.
    """
    stopped = 0.0

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped and time.monotonic() - stopped > IMPATIENT_S:
            # Asked twice: do not wait for a model that takes minutes to load
            os._exit(128 + number)
        stopped = stopped or time.monotonic()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
        signal.signal(signal.SIGHUP, stop)  # a closed terminal
    use_large_image_profile()
    remove_dead_segments()
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    try:
        rclpy.init(
            args=list(args) if args is not None else None,
            signal_handler_options=SignalHandlerOptions.NO,
        )
    except Exception as error:  # rcl's classes for bad arguments differ between distributions
        print("error: " + ": ".join(filter(None, why_no_start(error))), file=sys.stderr)
        return 2
    nodes: list[Any] = []
    try:
        executor = SingleThreadedExecutor()
        for create in creates:
            if stopped:
                break
            nodes.append(create())
            executor.add_node(nodes[-1])
        given = sys.argv if args is None else args
        for line in ignored_sections(given, [node.get_fully_qualified_name() for node in nodes]):
            nodes[0].get_logger().warning(line)
        for node in nodes:
            if hasattr(node, "start") and not stopped:
                node.start()
        while not stopped and rclpy.ok():
            try:
                executor.spin_once(timeout_sec=POLL_S)
            except (RobotVisionError, ExternalShutdownException):
                raise
            except Exception:  # in a callback that rclpy itself makes: the node lives on
                nodes[0].get_logger().error(
                    f"Internal error, please report it:\n{traceback.format_exc()}"
                )
                time.sleep(POLL_S)
    except RobotVisionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ExternalShutdownException:
        pass
    finally:
        for node in reversed(nodes):
            if hasattr(node, "close"):
                node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def why_no_start(error: Exception) -> tuple[str, str]:
    """Returns what ROS says of why it does not start, on one line, and the remedy; empty if none is known."""
    text = without_secrets(" ".join(str(error).split()))  # it quotes an argument
    return text, "set ROS_LOG_DIR to a folder that can be written" if "log" in text else ""
