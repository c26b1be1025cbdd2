"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def table(heading: list[str], rows: Iterable[list[Any]]) -> str:
    """Returns a table with its heading."""
    lines = ["| " + " | ".join(heading) + " |", "|" + " --- |" * len(heading)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def percentile_table(values: dict[str, dict[str, float]]) -> str:
    """Returns percentiles, a row a name; the rest is in the JSON."""
    rows = [[n, t["p50_ms"], t["p99_ms"]] for n, t in values.items()]
    return table(["what", "p50 ms", "p99 ms"], rows)
