"""The console of commands, which prints text as it is."""

from __future__ import annotations

from typing import Any

from rich.console import Console


def plain_console(**settings: Any) -> Console:
    """Returns a console without rich's markup, emoji and highlighting.

    Labels, names and paths may hold what rich would take for them: `[red]` would vanish, and `:cat:` become a
    picture.

    Args:
        settings: others of `rich.console.Console`.
    """
    return Console(markup=False, emoji=False, highlight=False, **settings)
