"""Ctrl-C ends a benchmark in one line: once, at any moment, with all that it has started."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

# The terminal may also be closed, and a supervisor sends SIGTERM.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_held = False
_pending = False


def end_quietly() -> None:
    """Lets the first signal raise KeyboardInterrupt, which prints no traceback; later ones do nothing."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    sys.excepthook = _without_traceback


@contextmanager
def held() -> Iterator[None]:
    """Keeps a signal until the end of the block, as between the start of a process and the note of it."""
    global _held
    _held = True
    try:
        yield
    finally:
        _held = False
        if _pending:
            raise KeyboardInterrupt


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    global _pending
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # so that ending our processes is not interrupted
    _pending = True
    if not _held:
        raise KeyboardInterrupt


def _without_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
