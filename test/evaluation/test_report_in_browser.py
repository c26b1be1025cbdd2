"""The report in a real browser: wide and narrow, light and dark, sorted and enlarged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from evaluation_bags import write_bag
from tiny_bundle import make_tiny_bundle

from robot_vision.cli import main

pytestmark = pytest.mark.slow

# What sticks out of its box, and of the page.
_OVERFLOW = """return [document.documentElement.scrollWidth - innerWidth,
  ...[...document.querySelectorAll('.scroll, .grid > div')].map(e => e.scrollWidth - e.clientWidth)]"""
# Letters of charts that lie outside of their picture.
_CLIPPED = """return [...document.querySelectorAll('svg')].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(t => { const r = t.getBoundingClientRect();
    return r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1
      || r.bottom > box.bottom + 1 }).map(t => t.textContent) })"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    bag = write_bag(folder / "bag", wrong=frozenset({4, 9}), jpeg=True)
    bundle = make_tiny_bundle(folder / "tiny")
    words = ["--bag", str(bag), "--model", str(bundle), "--engine", "onnx"]
    words += ["--place-exclude", "0.35", "--output", str(folder / "out")]
    limits = ["--require", "classification.top1>=0.01", "--require", "pose.median_m<=1e-6"]
    assert main(["evaluate", *words, *limits]) == 3
    assert main(["evaluate", *words, "--compare", str(folder / "out" / "metrics.json")]) == 0
    assert main(["evaluate", *words, *limits]) == 3
    return folder / "out" / "report.html"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off(report: Path, tmp_path: Path, width: int, dark: bool) -> None:
    with Browser(tmp_path, width, dark=dark) as browser:
        browser.open(report)
        assert browser.run("return innerWidth") == width
        assert max(browser.run(_OVERFLOW)) <= 0
        assert browser.run(_CLIPPED) == []
        assert browser.console() == []
        page = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert page == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


def test_missed_requirement_is_seen_without_scrolling(report: Path, tmp_path: Path) -> None:
    with Browser(tmp_path, 390, 844) as browser:
        browser.open(report)
        box = browser.run(
            "const r = document.querySelector('.verdict.missed').getBoundingClientRect();"
            "return [r.top, r.bottom, document.title, document.querySelector('.verdict').innerText]"
        )
    assert 0 < box[0] < box[1] < 844
    assert box[2].startswith("MISSED: ")
    first, second = box[3].index("pose.median_m <= 1e-06"), box[3].index("classification.top1")
    assert first < second, "what failed comes first"


def _rows(browser: Browser) -> Any:
    """The words of a table's rows from top to bottom, as they lie on the screen."""
    return browser.run(
        "const t = document.querySelector('table.sort'); return [...t.querySelectorAll('tbody tr')]"
        ".map(r => [r.getBoundingClientRect().top, [...r.children].map(c => c.innerText)])"
        ".sort((a, b) => a[0] - b[0]).map(r => r[1])"
    )


def _click(browser: Browser, script: str) -> None:
    """Clicks what lies on top at an element's middle, as a pointer does."""
    browser.run(
        f"const e = {script}; e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
        "document.elementFromPoint(r.left + r.width / 2, r.top + r.height / 2).click()"
    )


def test_table_sorts_when_its_header_is_clicked(report: Path, tmp_path: Path) -> None:
    with Browser(tmp_path) as browser:
        browser.open(report)
        before = _rows(browser)
        column = len(before[0]) - 2
        header = f"document.querySelectorAll('table.sort th')[{column}]"
        _click(browser, header)
        down = [float(row[column].split()[0]) for row in _rows(browser)]
        _click(browser, header)
        up = [float(row[column].split()[0]) for row in _rows(browser)]
    assert down == sorted(down, reverse=True) and up == sorted(up) and down[0] != down[-1]
    assert sorted(down) == sorted(float(row[column].split()[0]) for row in before)


def test_frame_is_enlarged_by_a_click_and_made_small_by_another(
    report: Path, tmp_path: Path
) -> None:
    width = "return document.querySelector('figure:not(.pair) img').getBoundingClientRect().width"
    with Browser(tmp_path) as browser:
        browser.open(report)
        small = browser.run(width)
        _click(browser, "document.querySelector('figure:not(.pair) img')")
        large = browser.run(width)
        _click(browser, "document.querySelector('figure:not(.pair) img')")
        again = browser.run(width)
    assert small == again == 240 and large > 600
