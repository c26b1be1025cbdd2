"""The bar that shows how far a verb is."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


def progress(*columns: ProgressColumn) -> Progress:
    """Returns a bar for standard error that is gone at its end; nothing where that is no terminal.

    Args:
        columns: shown between a task's count and the time that it still takes.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
