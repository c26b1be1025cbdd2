"""The report: one file that loads nothing, well formed, and fine in a real browser."""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluation_bags import write_bag
from tiny_bundle import make_tiny_bundle

from robot_vision.charts.heat import heat_table
from robot_vision.charts.svg import Axis, Chart, number
from robot_vision.cli import main
from robot_vision.evaluation.report.headlines import Number
from robot_vision.evaluation.report.text import summary_line

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    # Names that would break a page that is not escaped.
    bag = write_bag(folder / "a <b> & 'c'", wrong=frozenset({4, 9}), jpeg=True)
    bundle = make_tiny_bundle(folder / "tiny")
    words = [
        "--bag",
        str(bag),
        "--model",
        str(bundle),
        "--engine",
        "onnx",
        "--place-exclude",
        "0.35",
    ]
    assert main(["evaluate", *words, "--output", str(folder / "out")]) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text()


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "link", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_loads_nothing_and_runs_nothing(page: str) -> None:
    seen = Seen()
    seen.feed(re.sub(r"<(rect|line|circle|polyline|path)([^>]*)/>", r"<\1\2></\1>", page))
    assert seen.open == []
    assert not {"script", "iframe", "object", "embed", "form"} & set(seen.tags)
    assert seen.addresses and all(a.startswith("data:") for a in seen.addresses)
    assert not re.search(r"url\((?!#)", page) and "@import" not in page
    assert seen.tags.count("img") >= 6 and seen.tags.count("svg") >= 10


def test_names_are_escaped(page: str) -> None:
    assert "<b> &" not in page and "a &lt;b&gt; &amp;" in page


def test_page_says_numbers_intervals_baselines_hashes_and_command(folder: Path, page: str) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    top1 = Number.of(metrics["classification"]["top1"])
    assert f"<b>{top1.text('%', interval=False)}</b>" in page
    assert f"[{100 * top1.low:.1f}, {100 * top1.high:.1f}]" in page
    assert ("Top-5" in page) == (len(metrics["classification"]["labels"]) > 5)
    for words in ("class prior", "most similar image", "Median position error", "Recall@1", "NEES"):
        assert words in page
    key = metrics["recordings"][0]["meta"]["key"]
    assert key["bag_sha256"] in page and metrics["bundle"]["sha256"] in page
    assert "prefers-color-scheme: dark" in page and "Command" in page


def test_every_chart_is_well_formed(page: str) -> None:
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(charts) >= 10
    for chart in charts:
        root = ElementTree.fromstring(chart)
        numbers = re.findall(r'(?:points|d|x|y|cx|cy|height|width)="([^"]*)"', chart)
        assert root.get("aria-label") and not [n for n in numbers if "nan" in n or "inf" in n]


class _Server(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(f"{self.headers.get('Host')}{self.path}")
        super().do_GET()

    def log_message(self, *_: object) -> None:
        return


def browse(folder: Path, scratch: Path, mode: str = "light") -> tuple[list[str], list[str]]:
    """Opens report.html; returns what was asked of any host, and what the console said.

    The picture of the window is `scratch/page.png`.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no headless browser: install one of {', '.join(BROWSERS)}")
    handler = type("Handler", (_Server,), {"asked": []})
    serve = functools.partial(handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        command = [
            *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update"),
            "--disable-features=NetworkTimeServiceQuerying",
            # Every host is this server, so it hears whatever is asked of whomever.
            *(f"--host-resolver-rules=MAP * 127.0.0.1:{port}", "--enable-logging=stderr"),
            *("--hide-scrollbars", "--window-size=1200,900", f"--user-data-dir={scratch / 'user'}"),
            *(["--force-dark-mode"] if mode == "dark" else []),
            *(f"--screenshot={scratch / 'page.png'}", f"http://127.0.0.1:{port}/report.html"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    # The browser's own housekeeping goes to its maker.
    asked = [
        a
        for a in handler.asked
        if not a.partition("/")[0].endswith((".google.com", ".googleapis.com"))
    ]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return [a.removeprefix(f"127.0.0.1:{port}") for a in asked], console


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_browser_shows_the_page_without_error_or_request(
    mode: str, folder: Path, tmp_path: Path
) -> None:
    assert browse(folder, tmp_path, mode) == (["/report.html"], [])
    image = cv2.imread(str(tmp_path / "page.png"))
    assert image.shape[:2] == (900, 1200)
    background = image[5, 5].mean()
    assert background > 200 if mode == "light" else background < 60
    assert image.std() > 10, "an empty page"


@pytest.mark.slow
def test_browser_would_notice_requests_and_errors(tmp_path: Path) -> None:
    page = "<body><img src='http://example.org/dot.png'><script>console.error('broken')</script>"
    (tmp_path / "report.html").write_text(page)
    asked, console = browse(tmp_path, tmp_path)
    assert "example.org/dot.png" in asked and any("broken" in line for line in console)


def test_the_first_line_says_how_many_frames_a_number_rests_on(folder: Path) -> None:
    metrics = json.loads((folder / "metrics.json").read_text())
    known = metrics["classification"]["frames"]
    assert f"% ({known} frames)" not in summary_line({**metrics, "frames": known})
    line = summary_line({**metrics, "frames": known + 7})
    assert re.search(rf"^{known + 7} frames .* % \({known} frames\)", line), line


# Charts


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 37, False, [0, 10, 20, 30]),
        (-3, 4, False, [-2, 0, 2, 4]),
        (0.02, 30, True, [0.1, 1, 10]),
    ],
)
def test_ticks_are_round_and_within(
    low: float, high: float, log: bool, expected: list[float]
) -> None:
    assert Axis(low, high, 0, 100, log).ticks() == pytest.approx(expected)


def test_ticks_are_those_that_have_texts() -> None:
    axis = Axis(0, 4, 0, 100, False)
    axis.texts = {0.5: "resize", 1.5: "inference"}
    assert axis.ticks() == [0.5, 1.5]


def test_axis_maps_its_ends_and_its_middle() -> None:
    axis = Axis(2, 6, 100, 300, False)
    assert axis([2, 4, 6]).tolist() == [100, 200, 300]
    assert Axis(0.1, 10, 0, 100, True)([0.1, 1, 10]).tolist() == pytest.approx([0, 50, 100])


def test_line_keeps_every_peak_when_it_is_thinned() -> None:
    y = np.zeros(100_000)
    y[54_321] = 7.0
    chart = Chart("t", "x", "y", (0, 100_000), (0, 7))
    chart.line(np.arange(100_000), y)
    shape = re.search(r'points="([^"]*)"', chart.render())
    assert shape is not None
    heights = [float(p.split(",")[1]) for p in shape[1].split()]
    assert len(heights) < 3000 and min(heights) == pytest.approx(44.0)


def test_line_breaks_where_there_is_no_number() -> None:
    chart = Chart("t", "x", "y", (0, 5), (0, 1))
    chart.line([0, 1, 2, 3, 4], [0, 1, float("nan"), 1, 0])
    assert chart.render().count("<polyline") == 2


def test_confusion_cells_name_their_counts() -> None:
    table = heat_table("Confusion", ["cat", "dog"], np.array([[3, 1], [0, 0]]), "predicted", "true")
    assert "cat taken for dog: 1 of 4" in table and "dog taken for dog: 0 of 0" in table
    ElementTree.fromstring(table)


def test_numbers_are_short() -> None:
    assert [number(v) for v in (0, 0.5, 1e-6, 12345.678)] == ["0", "0.5", "1e-6", "1.235e4"]
    assert Number(0.1234, 0.1, 0.2).text("%") == "12.3 [10.0, 20.0] %"
    assert Number(None).text("m") == "-" and Number(1.23456).text("m") == "1.23 m"
