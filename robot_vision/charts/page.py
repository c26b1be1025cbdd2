"""The style of pages with charts, for light and dark screens and for paper."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --page: #fff; --card: #f6f7f9; --text: #1b1f24; --quiet: #5b6570;
  --grid: #e3e6ea; --good: #1a7f37; --bad: #c0262d;
  --blue: #0b6bb5; --orange: #d17200; --green: #16803c; --pink: #b3458f; --gray: #707a85; --pale: #9db0c2; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2228; --text: #e4e8ec;
  --quiet: #9aa5b1; --grid: #323a43; --good: #5bc37a; --bad: #ff8078;
  --blue: #56b0f2; --orange: #f2a13c; --green: #5cc98a; --pink: #e58fc6; --gray: #a3adb8; --pale: #5f7890; } }
.c0 { --c: var(--blue) } .c1 { --c: var(--orange) } .c2 { --c: var(--green) }
.c3 { --c: var(--pink) } .c4 { --c: var(--gray) } .c5 { --c: var(--pale) }
* { box-sizing: border-box } body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 34px 0 10px; } h3 { font-size: 15px; }
.lead { font-size: 16px; margin: 6px 0 18px; } .quiet { color: var(--quiet); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: 0 0 18px; font-size: 14px; }
th, td { padding: 5px 12px; border-bottom: 1px solid var(--grid); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; } td b { font-weight: 600; } td small { color: var(--quiet); }
.good { color: var(--good); } .bad { color: var(--bad); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 470px), 1fr)); gap: 14px; }
.grid > div { background: var(--card); border-radius: 8px; padding: 10px; overflow-x: auto; }
.frames { display: flex; flex-wrap: wrap; gap: 12px; }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: 8px; font-size: 13px;
  max-width: 256px; }
figure.pair { max-width: 504px; } figure img { display: inline-block; width: 240px; height: auto;
  border-radius: 4px; vertical-align: top; } figure.pair img + img { margin-left: 8px; }
figcaption { padding-top: 4px; }
code, pre { font: 12.5px/1.45 ui-monospace, monospace; } pre { background: var(--card); border-radius: 8px;
  padding: 10px 12px; overflow-x: auto; white-space: pre-wrap; word-break: break-all; }
td.hash { font: 12.5px ui-monospace, monospace; white-space: normal; word-break: break-all;
  text-align: left; }
@media (max-width: 560px) { figure.pair img + img { margin: 8px 0 0; } }
@media print { .grid > div, figure { break-inside: avoid; } }
"""
