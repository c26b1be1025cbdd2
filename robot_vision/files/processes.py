"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1  # of Linux's prctl
_LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Lets this process get SIGTERM when the one that started it ends: a `preexec_fn`."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
