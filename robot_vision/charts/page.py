"""Pages with charts: one file that loads and runs nothing, for light and dark screens, phones and paper."""

from __future__ import annotations

from html import escape

from robot_vision.charts.svg import STYLE as CHART_STYLE
from robot_vision.charts.tables import STYLE as TABLE_STYLE

# Nothing but what the file holds may be shown or run.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

STYLE = """
:root { color-scheme: light dark; --page: #fff; --card: #f6f7f9; --text: #1b1f24; --quiet: #5b6570;
  --grid: #e3e6ea; --on: #fff; --good: #1a7f37; --bad: #c0262d;
  --blue: #0b6bb5; --orange: #d17200; --green: #16803c; --pink: #b3458f; --gray: #707a85; --pale: #9db0c2; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2228; --text: #e4e8ec;
  --quiet: #9aa5b1; --grid: #323a43; --on: #14171b; --good: #5bc37a; --bad: #ff8078;
  --blue: #56b0f2; --orange: #f2a13c; --green: #5cc98a; --pink: #e58fc6; --gray: #a3adb8; --pale: #5f7890; } }
.c0 { --c: var(--blue) } .c1 { --c: var(--orange) } .c2 { --c: var(--green) }
.c3 { --c: var(--pink) } .c4 { --c: var(--gray) } .c5 { --c: var(--pale) }
* { box-sizing: border-box } body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; overflow-wrap: break-word; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 34px 0 10px; } h3 { font-size: 15px; }
.lead { font-size: 16px; margin: 6px 0 18px; } .quiet { color: var(--quiet); }
.scroll { overflow-x: auto; margin-bottom: 18px; }
table { border-collapse: collapse; margin: 0; font-size: 14px; }
th, td { padding: 5px 12px; border-bottom: 1px solid var(--grid); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; white-space: normal; } td b { font-weight: 600; } td small { color: var(--quiet); }
.good { color: var(--good); } .bad { color: var(--bad); }
.verdict { border-left: 6px solid var(--good); background: var(--card); border-radius: 8px; margin: 12px 0;
  padding: 10px 16px; } .verdict.missed { border-color: var(--bad); } .verdict b { font-size: 17px; }
.verdict ul { margin: 6px 0 0; padding: 0; list-style: none; }
details { margin: 0 0 10px; } summary { cursor: pointer; padding: 3px 0; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 470px), 1fr)); gap: 14px; }
.grid > div { background: var(--card); border-radius: 8px; padding: 10px; overflow-x: auto; }
.frames { display: flex; flex-wrap: wrap; gap: 12px; }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: 8px; font-size: 13px;
  max-width: 256px; }
figure.pair { max-width: 504px; } figure img { display: inline-block; width: 240px; max-width: 100%;
  height: auto; border-radius: 4px; vertical-align: top; } figure.pair img + img { margin-left: 8px; }
.zoom { cursor: zoom-in; } .zoom input { position: absolute; opacity: 0; }
.zoom:focus-within img { outline: 2px solid var(--blue); }
figure:has(.zoom input:checked) { position: fixed; inset: 0; z-index: 9; max-width: none; border-radius: 0;
  padding: 16px; overflow: auto; font-size: 16px; background: var(--page); text-align: center; }
figure:has(.zoom input:checked) .zoom { cursor: zoom-out; }
figure:has(.zoom input:checked) img { width: min(100%, 960px); max-height: 84vh; object-fit: contain; }
figure.pair:has(.zoom input:checked) img { width: min(calc(50% - 8px), 800px); }
figcaption { padding-top: 4px; }
code, pre { font: 12.5px/1.45 ui-monospace, monospace; } pre { background: var(--card); border-radius: 8px;
  padding: 10px 12px; overflow-x: auto; white-space: pre-wrap; word-break: break-all; }
td.hash { font: 12.5px ui-monospace, monospace; white-space: normal; word-break: break-all;
  text-align: left; }
@media (max-width: 700px) { main { padding: 16px 12px 40px; } table { font-size: 12.5px; }
  th, td { white-space: normal; padding: 4px 3px; } td small { display: block; font-size: 10px; }
  figure.pair img + img, figure.pair:has(.zoom input:checked) img + img { margin: 8px 0 0; }
  figure:has(.zoom input:checked) img, figure.pair:has(.zoom input:checked) img { width: 100%; } }
@media print { .grid > div, figure { break-inside: avoid; } }
"""


def page(title: str, body: str) -> str:
    """Returns a whole page.

    Args:
        title: of it, in the browser's tab.
        body: HTML.
    """
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}{CHART_STYLE}{TABLE_STYLE}</style></head><body><main>",
            body,
            "</main></body></html>\n",
        )
    )
