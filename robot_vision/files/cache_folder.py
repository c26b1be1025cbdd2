"""Where this account keeps what can be made again, and what nobody else may have put there."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Returns the folder, which need not exist: `$XDG_CACHE_HOME/robot_vision`, by default in `~/.cache`.

    Raises:
        RuntimeError: the account has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "robot_vision"
