"""What code without ROS warns of, in a node's log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any


class _ToNode(logging.Handler):
    def __init__(self, logger: Any) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        # rclpy allows one severity for each place that logs.
        if record.levelno >= logging.ERROR:
            self._logger.error(record.getMessage())
        else:
            self._logger.warning(record.getMessage())


@contextlib.contextmanager
def warnings_in(logger: Any) -> Iterator[None]:
    """Writes this package's warnings to a node's logger, and so to /rosout, instead of the terminal alone."""
    handler, package = _ToNode(logger), logging.getLogger("robot_vision")
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
