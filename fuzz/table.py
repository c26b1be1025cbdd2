"""The table of docs/reliability.md, from the JSON that `python -m fuzz` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fuzz import targets

BEGIN, END = "<!-- fuzz table: begin -->", "<!-- fuzz table: end -->"


def render(rows: list[dict[str, Any]]) -> str:
    """Returns the table in Markdown."""
    lines = [
        "| target | what | guided | property-based | a second | limit / memory, last run | failed runs |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: |",
    ]
    for name in targets.names():
        mine = [row for row in rows if row["target"] == name]
        if not mine:
            continue
        guided = [row for row in mine if row["kind"] == "guided"]
        other = [row for row in mine if row["kind"] == "property"]
        seconds = sum(row["seconds"] for row in guided)
        what = (targets.load(name).__doc__ or "").strip().splitlines()[0].rstrip(".")
        peak = guided[-1]["peak_mb"]
        lines.append(
            f"| `{name}` | {what} | {_count(guided):,}{_within(guided)} | "
            f"{_count(other):,}{_within(other)} | "
            f"{_count(guided) / max(seconds, 1):,.0f} | {mine[-1]['allowed_s']:g} s / {peak} MB | "
            f"{sum(row['failed'] for row in mine)} |"
        )
    total = f"**{_count(rows):,}**"
    lines.append(
        f"| all | | {_count([r for r in rows if r['kind'] == 'guided']):,} | "
        f"{_count([r for r in rows if r['kind'] == 'property']):,} | {total} in all | | "
        f"{sum(row['failed'] for row in rows)} |"
    )
    return "\n".join(lines)


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Puts the table between its marks in a document."""
    text = path.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    path.write_text(f"{head}{BEGIN}\n{render(rows)}\n{END}{tail}")


def _within(rows: list[dict[str, Any]]) -> str:
    parts = sum(row.get("parts", 0) for row in rows)
    return f" ({parts:,} messages)" if parts else ""


def _count(rows: list[dict[str, Any]]) -> int:
    return sum(row["executions"] for row in rows)
