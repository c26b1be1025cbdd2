"""Small charts as SVG text: no library, no script, and colours that follow the page's light or dark mode.

Colours are CSS classes `c0` to `c5`, which the page defines for both modes (`STYLE`). Points are
thinned where there are more than a screen shows.
"""

from __future__ import annotations

import math
import textwrap
import zlib
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 14, 44, 44  # left: ticks of six signs next to the label
_MOST_POINTS = 1500

STYLE = """
svg { font: 12px system-ui, sans-serif; max-width: 100%; height: auto; }
svg text { fill: var(--text); }
svg .quiet { fill: var(--quiet); }
svg .title { font-weight: 600; font-size: 13px; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .axis { stroke: var(--quiet); stroke-width: 1; }
svg .line { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; }
svg .dashed { stroke-dasharray: 5 4; stroke-width: 1.3; }
svg .thin { stroke-width: 0.8; stroke-opacity: 0.45; }
svg .fill { fill: var(--c); }
svg .band { fill: var(--c); fill-opacity: 0.18; }
svg .on { fill: var(--on); }
"""

_TITLE_LETTERS, _LETTER = 62, 6.3  # of a line of the title; pixels of one of the legend
_ROW = 17  # pixels of a further line of title or legend
_SWATCH, _BAR, _GAP = 18, 84, 16  # of a legend


class Axis:
    """One axis: values to pixels, and its ticks."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool) -> None:
        if log:
            low = max(low, 1e-9)
            high = max(high, low * 10)
        elif not high > low:
            low, high = low - 0.5, low + 0.5
        self.low, self.high, self.log = low, high, log
        self.texts: dict[float, str] = {}  # the ticks and their words, in place of round numbers
        self._start, self._end = start, end

    def __call__(self, value: Any) -> NDArray[np.float64]:
        """Returns the pixels of values."""
        values = np.asarray(value, np.float64)
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.log(np.maximum(values, 1e-12) / self.low) / math.log(
                    self.high / self.low
                )
        else:
            share = (values - self.low) / (self.high - self.low)
        return np.asarray(self._start + share * (self._end - self._start))

    def ticks(self) -> list[float]:
        """Returns round values, or those that have texts."""
        if self.texts:
            return list(self.texts)
        if self.log:
            first, last = (
                math.ceil(math.log10(self.low) - 1e-9),
                math.floor(math.log10(self.high) + 1e-9),
            )
            steps = (1, 2, 5) if self.high < 100 * self.low else (1,)
            every = [m * 10.0**e for e in range(first - 1, last + 1) for m in steps]
            return [v for v in every if self.low * (1 - 1e-9) <= v <= self.high * (1 + 1e-9)]
        raw = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
        count = math.floor((self.high + 1e-9 * step) / step) - math.ceil(self.low / step - 1e-9)
        first = math.ceil(self.low / step - 1e-9)
        return [(first + i) * step for i in range(count + 1)]


class Chart:
    """A chart with two axes.

    Args:
        title: above it.
        x: label of the x axis, with its unit.
        y: label of the y axis.
        x_range: least and greatest value.
        y_range: the same for y.
        x_log: logarithmic x axis.
        equal: one unit is as long on both axes (maps).
        height: in pixels.
    """

    def __init__(
        self,
        title: str,
        x: str,
        y: str,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        x_log: bool = False,
        equal: bool = False,
        height: int = HEIGHT,
    ) -> None:
        self._title, self._x_label, self._y_label = title, x, y
        self._height = height
        left, right, top, bottom = _LEFT, WIDTH - _RIGHT, _TOP, height - _BOTTOM
        if equal:
            x_range, y_range = _equal(x_range, y_range, (right - left) / (bottom - top))
        self.x = Axis(*x_range, left, right, x_log)
        self.y = Axis(*y_range, bottom, top, False)
        self._box = left, right, top, bottom
        self._shapes: list[str] = []
        self._legend: list[tuple[str, str, str]] = []  # how it looks, label, colour

    def line(
        self,
        x: Sequence[float] | NDArray[Any],
        y: Sequence[float] | NDArray[Any],
        colour: str = "c0",
        label: str = "",
        style: str = "",
    ) -> None:
        """Draws a line, broken where a value is not finite."""
        xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
        for a, b in _finite_runs(xs, ys):
            px, py = _thinned(self.x(xs[a:b]), self.y(ys[a:b]))
            path = " ".join(f"{u:.1f},{v:.1f}" for u, v in zip(px, py, strict=True))
            self._shapes.append(f'<polyline class="line {colour} {style}" points="{path}"/>')
        if label:
            self._legend.append((style or "solid", label, colour))

    def band(
        self, x: NDArray[Any], low: NDArray[Any], high: NDArray[Any], colour: str = "c0"
    ) -> None:
        """Fills what lies between two lines, broken where one is not finite."""
        xs, lows, highs = (np.asarray(v, np.float64) for v in (x, low, high))
        for a, b in _finite_runs(xs, lows + highs):
            u = [*self.x(xs[a:b]), *self.x(xs[a:b])[::-1]]
            v = [*self.y(lows[a:b]), *self.y(highs[a:b])[::-1]]
            path = " ".join(f"{s:.1f},{t:.1f}" for s, t in zip(u, v, strict=True))
            self._shapes.append(f'<polygon class="band {colour}" points="{path}"/>')

    def steps(self, x: NDArray[Any], y: NDArray[Any], colour: str = "c0", label: str = "") -> None:
        """Draws a staircase: y holds from its x to the next."""
        self.line(np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1], colour, label)

    def points(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        colour: str = "c0",
        label: str = "",
        fills: Sequence[str] | None = None,
        radius: float = 2.2,
    ) -> None:
        """Draws dots; `fills` are colours of each."""
        keep = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        keep = keep[:: max(1, math.ceil(len(keep) / _MOST_POINTS))]
        for i in keep:
            u, v = float(self.x(x[i])), float(self.y(y[i]))
            look = f'style="fill:{fills[int(i)]}"' if fills else f'class="fill {colour}"'
            self._shapes.append(f'<circle cx="{u:.1f}" cy="{v:.1f}" r="{radius}" {look}/>')
        if label:
            self._legend.append(("dot", label, colour))

    def colours(self, low: str, high: str, label: str) -> None:
        """Adds a bar of the colours of `ramp` to the legend, with what its ends stand for."""
        self._legend.append(("ramp", f"{low}|{high}|{label}", ""))

    def segments(
        self, a: NDArray[Any], b: NDArray[Any], colour: str = "c1", label: str = ""
    ) -> None:
        """Draws thin lines from points a (N, 2) to b (N, 2)."""
        keep = np.flatnonzero(np.isfinite(a).all(1) & np.isfinite(b).all(1))
        keep = keep[:: max(1, math.ceil(len(keep) / _MOST_POINTS))]
        parts = []
        for i in keep:
            (u, v), (s, t) = (self.x(a[i, 0]), self.y(a[i, 1])), (self.x(b[i, 0]), self.y(b[i, 1]))
            parts.append(f"M{u:.1f},{v:.1f}L{s:.1f},{t:.1f}")
        self._shapes.append(f'<path class="line thin {colour}" d="{"".join(parts)}"/>')
        if label:
            self._legend.append(("solid", label, colour))

    def bars(
        self,
        edges: NDArray[Any],
        heights: NDArray[Any],
        colour: str = "c0",
        label: str = "",
        titles: Sequence[str] | None = None,
        opacity: float = 0.75,
    ) -> None:
        """Draws bars between edges (N + 1,); `titles` show when the pointer rests on one."""
        base = float(self.y(max(0.0, self.y.low)))
        for i, height in enumerate(np.asarray(heights, np.float64)):
            if not np.isfinite(height) or height == 0:
                continue
            u, v, top = float(self.x(edges[i])), float(self.x(edges[i + 1])), float(self.y(height))
            tip = f"<title>{escape(titles[i])}</title>" if titles else ""
            self._shapes.append(
                f'<rect class="fill {colour}" fill-opacity="{opacity}" x="{u + 0.5:.1f}" y="{top:.1f}" '
                f'width="{max(v - u - 1, 0.5):.1f}" height="{max(base - top, 0):.1f}">{tip}</rect>'
            )
        if label:
            self._legend.append(("bar", label, colour))

    def render(self) -> str:
        """Returns the SVG element; long titles and legends take further lines, and it is higher then."""
        left, right, top, bottom = self._box
        title = textwrap.wrap(self._title, _TITLE_LETTERS, max_lines=3, placeholder=" …") or [""]
        legend, rows = self._legend_shapes(34 + _ROW * (len(title) - 1))
        more = _ROW * (len(title) + rows - 2)
        out = [
            f'<svg viewBox="0 0 {WIDTH} {self._height + more}" width="{WIDTH}" '
            f'height="{self._height + more}" role="img" aria-label="{escape(self._title)}">',
            *(
                f'<text class="title" x="6" y="{16 + _ROW * i}">{escape(line)}</text>'
                for i, line in enumerate(title)
            ),
            *legend,
            f'<g transform="translate(0,{more})">',
        ]
        for value in self.x.ticks():
            u = float(self.x(value))
            out.append(f'<line class="grid" x1="{u:.1f}" y1="{top}" x2="{u:.1f}" y2="{bottom}"/>')
            out.append(
                f'<text class="quiet" x="{u:.1f}" y="{bottom + 16}" text-anchor="middle">'
                f"{escape(self.x.texts.get(value) or number(value))}</text>"
            )
        for value in self.y.ticks():
            v = float(self.y(value))
            out.append(f'<line class="grid" x1="{left}" y1="{v:.1f}" x2="{right}" y2="{v:.1f}"/>')
            out.append(
                f'<text class="quiet" x="{left - 6}" y="{v + 4:.1f}" text-anchor="end">'
                f"{number(value)}</text>"
            )
        clip = f"clip{zlib.crc32(self._title.encode()):x}"
        out.append(
            f'<clipPath id="{clip}"><rect x="{left - 10}" y="{top - 10}" width="{right - left + 20}" '
            f'height="{bottom - top + 20}"/></clipPath><g clip-path="url(#{clip})">'
        )
        out += [*self._shapes, "</g>"]
        out.append(f'<line class="axis" x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>')
        out.append(
            f'<text x="{(left + right) / 2}" y="{self._height - 8}" text-anchor="middle">'
            f"{escape(self._x_label)}</text>"
        )
        middle = (top + bottom) / 2
        out.append(
            f'<text transform="translate(12,{middle}) rotate(-90)" text-anchor="middle">'
            f"{escape(self._y_label)}</text>"
        )
        return "".join([*out, "</g></svg>"])

    def _legend_shapes(self, y: float) -> tuple[list[str], int]:
        """Returns the shapes, the first line's text at y, and how many lines there are."""
        out, x, rows = [], 6.0, 1
        for look, label, colour in self._legend:
            low, high, text = label.split("|") if look == "ramp" else ("", "", label)
            swatch = _SWATCH + 5.0
            if look == "ramp":
                swatch = _BAR + _LETTER * (len(low) + len(high)) + 20
            wide = swatch + _LETTER * len(text) + _GAP
            if x > 6 and x + wide - _GAP > WIDTH:
                x, y, rows = 6.0, y + _ROW, rows + 1
            if look == "ramp":
                out.append(_ramp_bar(x, y, low, high))
            elif look == "dot":
                out.append(f'<circle class="fill {colour}" cx="{x + 9}" cy="{y - 4}" r="4"/>')
            elif look == "bar":
                out.append(
                    f'<rect class="fill {colour}" x="{x + 3}" y="{y - 10}" width="12" height="11"/>'
                )
            else:
                style = look.replace("solid", "")
                out.append(
                    f'<line class="line {colour} {style}" x1="{x}" y1="{y - 4}" x2="{x + _SWATCH}" '
                    f'y2="{y - 4}" stroke-width="3"/>'
                )
            out.append(f'<text x="{x + swatch:.1f}" y="{y}">{escape(text)}</text>')
            x += wide
        return out, rows


def _ramp_bar(x: float, y: float, low: str, high: str) -> str:
    start = x + _LETTER * len(low) + 4
    step = _BAR / 14
    parts = [f'<text x="{x:.1f}" y="{y}">{escape(low)}</text>']
    parts += [
        f'<rect style="fill:{ramp(i / 13)}" x="{start + i * step:.1f}" y="{y - 10}" '
        f'width="{step + 0.5:.1f}" height="11"/>'
        for i in range(14)
    ]
    return "".join([*parts, f'<text x="{start + _BAR + 4:.1f}" y="{y}">{escape(high)}</text>'])


def number(value: float) -> str:
    """Returns a number with at most four digits that count."""
    if value == 0:
        return "0"
    text = f"{value:.4g}"
    return text.replace("e-0", "e-").replace("e+0", "e")


def ramp(share: float) -> str:
    """Returns a colour from good (0) through middling to bad (1), seen on light and dark alike."""
    stops = np.array([[40, 150, 200], [120, 190, 90], [235, 170, 40], [215, 60, 50]], float)
    at = float(np.clip(share, 0, 1)) * (len(stops) - 1)
    i = min(int(at), len(stops) - 2)
    r, g, b = (stops[i] + (at - i) * (stops[i + 1] - stops[i])).round().astype(int)
    return f"rgb({r},{g},{b})"


def _equal(
    x: tuple[float, float], y: tuple[float, float], aspect: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    wide = max(x[1] - x[0], (y[1] - y[0]) * aspect, 1e-6)
    tall = wide / aspect
    cx, cy = (x[0] + x[1]) / 2, (y[0] + y[1]) / 2
    return (cx - wide / 2, cx + wide / 2), (cy - tall / 2, cy + tall / 2)


def _finite_runs(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[tuple[int, int]]:
    fine = np.concatenate([[False], np.isfinite(x) & np.isfinite(y), [False]])
    edges = np.flatnonzero(np.diff(fine.astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _thinned(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Keeps the least and greatest y of each stretch, so that no peak is lost."""
    if len(x) <= _MOST_POINTS:
        return x, y
    keep: list[int] = []
    for part in np.array_split(np.arange(len(x)), _MOST_POINTS // 2):
        keep += sorted({int(part[y[part].argmin()]), int(part[y[part].argmax()])})
    return x[keep], y[keep]
