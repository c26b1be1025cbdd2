"""Tables of pages that need no script: style sheets sort their rows, and they fit on phones.

A column's header holds two radio buttons, upwards and downwards; each row knows its rank in every column,
and the button that is chosen sets the rows' `order`. Browsers without `:has` show the table as it is.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from html import escape, unescape

_MOST_COLUMNS = 12  # that can be sorted by
_LEAST_ROWS = 3
# Columns; tables of more are in small print on phones, or have intervals below
_WIDE, _DENSE = (4, 6)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_INTERVAL = re.compile(r"\s*(\[[^\]]*\]|\([-+.\de]+ to [-+.\de]+\))")

_RULES = "".join(
    f"table.sort:has(th:nth-child({i + 1}) .{way} input:checked) tr {{ order: {order} }}\n"
    for i in range(_MOST_COLUMNS)
    for way, order in (("up", f"var(--o{i})"), ("down", f"calc(0 - var(--o{i}))"))
)

STYLE = f"""
table.dense td small {{ display: block; }}
table.sort label {{ display: none; }}
@supports (grid-template-columns: subgrid) and selector(:has(a)) {{
table.sort {{ display: grid; grid-template-columns: repeat(var(--columns), auto); justify-content: start; }}
table.sort thead, table.sort tbody {{ display: contents; }}
table.sort tr {{ display: grid; grid-template-columns: subgrid; grid-column: 1 / -1; }}
table.sort thead tr {{ order: -9999 !important; }}
table.sort th {{ position: relative; cursor: pointer; padding-right: 18px; }}
table.sort th::after {{ content: "\\2195"; position: absolute; right: 3px; color: var(--quiet); }}
table.sort th:has(.up input:checked)::after {{ content: "\\2191"; color: var(--text); }}
table.sort th:has(.down input:checked)::after {{ content: "\\2193"; color: var(--text); }}
table.sort th:focus-within {{ outline: 2px solid var(--blue); }}
table.sort label {{ display: block; position: absolute; inset: 0; cursor: pointer; }}
table.sort label:has(input:checked) {{ visibility: hidden; }}
table.sort label input {{ position: absolute; opacity: 0; visibility: visible; pointer-events: none;
  width: 0; height: 0; margin: 0; }}
{_RULES}@media (max-width: 700px) {{
table.sort th {{ padding-right: 2px; }}
table.sort th::after {{ position: static; display: block; line-height: 1; }}
}} }}
@media (max-width: 700px) {{ table.wide {{ font-size: 11px; }}
table.wide th, table.wide td {{ padding: 4px 2px; }}
table.wide td small {{ font-size: 9.5px; }} }}
"""


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], sort: bool = False) -> str:
    """Returns a table in a box that scrolls only where nothing else helps.

    Args:
        header: HTML of the first row.
        rows: HTML of the cells; an interval behind a number, in brackets, becomes small.
        sort: whether readers may sort the rows, where there are three or more.
    """
    sort = sort and len(rows) >= _LEAST_ROWS and len(header) <= _MOST_COLUMNS
    name = f"sort{zlib.crc32(repr((header, rows)).encode()):x}" if sort else ""
    heads = "".join(f"<th>{cell}{_buttons(name, cell) if sort else ''}</th>" for cell in header)
    ranks = [_ranks([row[i] for row in rows]) for i in range(len(header))] if sort else []
    body = []
    for i, row in enumerate(rows):
        places = ";".join(f"--o{c}:{column[i]}" for c, column in enumerate(ranks))
        cells = "".join(f"<td>{_with_small_interval(cell)}</td>" for cell in row)
        body.append(f"<tr{f' style={chr(34)}{places}{chr(34)}' if sort else ''}>{cells}</tr>")
    kinds = " ".join(
        ["sort"] * sort + ["wide"] * (len(header) > _WIDE) + ["dense"] * (len(header) > _DENSE)
    )
    look = f' class="{kinds}" style="--columns:{len(header)}"' if kinds else ""
    return (
        f'<div class="scroll"><table{look}><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _buttons(name: str, cell: str) -> str:
    title = escape(_text(cell) or "the first column", quote=True)
    # The one on top is clicked: downwards first, and then the one that is not chosen.
    return "".join(
        f'<label class="{way}"><input type="radio" name="{name}" '
        f'aria-label="sort by {title}, {words}"></label>'
        for way, words in (("up", "least first"), ("down", "most first"))
    )


def _ranks(cells: Sequence[str]) -> list[int]:
    """Returns each cell's place in ascending order: numbers, then words, then what is empty."""

    def key(cell: str) -> tuple[int, float, str]:
        text = _text(cell)
        if not text or text == "-":
            return 2, 0.0, ""
        number = _NUMBER.match(text)
        return (0, float(number[0]), "") if number else (1, 0.0, text.casefold())

    keys = [key(cell) for cell in cells]
    order = sorted(set(keys))
    return [order.index(k) + 1 for k in keys]


def _text(cell: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", cell)).strip()


def _with_small_interval(cell: str) -> str:
    if "<small" in cell:
        return cell
    found = _INTERVAL.search(cell)
    if not found or not _NUMBER.match(_text(cell)):
        return cell
    rest = cell[: found.start()] + cell[found.end() :]
    return f"{rest} <small>{found[1]}</small>"
