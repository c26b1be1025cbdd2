"""Tables and charts of pages: what a reader sees, from their HTML and SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from robot_vision.charts.heat import heat_table
from robot_vision.charts.page import page
from robot_vision.charts.sheet import sheet
from robot_vision.charts.svg import WIDTH, Chart, ramp
from robot_vision.charts.tables import html_table

_SVG = "{http://www.w3.org/2000/svg}"


def _parsed(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(
        chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    )


def _orders(table: str, column: int) -> list[int]:
    return [int(n) for n in re.findall(rf"--o{column}:(\d+)", table)]


def test_ranks_go_by_number_and_words_and_leave_empty_cells_last() -> None:
    rows = [["b", "9.5 %"], ["A", "10.0 [8.0, 11.0] %"], ["c", "-"], ["d", "-2 m"], ["e", ""]]
    table = html_table(["class", "IoU"], rows, sort=True)
    assert _orders(table, 0) == [2, 1, 3, 4, 5]
    assert _orders(table, 1) == [2, 3, 4, 1, 4]
    assert table.count('type="radio"') == 4 and 'aria-label="sort by IoU, most first"' in table


def test_table_of_two_rows_cannot_be_sorted() -> None:
    table = html_table(["a"], [["1"], ["2"]], sort=True)
    assert "radio" not in table and "--o0" not in table


def test_interval_behind_a_number_becomes_small_and_a_name_in_brackets_does_not() -> None:
    table = html_table(
        ["a"], [["1.0 [0.5, 1.5] m"], ["0.4 (0.1 to 0.9)"], ["front [left]"], ["7 [days]"]]
    )
    assert "1.0 m <small>[0.5, 1.5]</small>" in table
    assert "0.4 <small>(0.1 to 0.9)</small>" in table
    assert "<td>front [left]</td>" in table


def test_page_allows_no_script_and_no_address() -> None:
    whole = page("<title>", "<p>text</p>")
    assert "default-src 'none'" in whole and "&lt;title&gt;" in whole
    assert "<script" not in whole and "http" not in whole.replace("http-equiv", "")


def test_long_title_takes_lines_and_room_of_its_own() -> None:
    title = "Position error over the map: " + "recording_with_a_long_name " * 4
    short, long = (_parsed(Chart(t, "x", "y", (0, 1), (0, 1)).render()) for t in ("Short", title))
    lines = [t for t in long.iter(f"{_SVG}text") if t.get("class") == "title"]
    assert len(lines) == 3 and max(len(t.text or "") for t in lines) <= 62
    assert " ".join(t.text or "" for t in lines) == title.strip()
    assert int(long.get("height", 0)) == int(short.get("height", 0)) + 2 * 17


def test_legend_wraps_within_the_chart_and_looks_as_what_it_names() -> None:
    chart = Chart("t", "x", "y", (0, 1), (0, 1))
    x = np.array([0.2, 0.8])
    chart.line(x, x, "c0", "a line with a rather long name")
    chart.line(x, x, "c1", "another line with a long name", "dashed")
    chart.points(x, x, "c2", "points that have a name, too")
    chart.bars(np.array([0.0, 0.5, 1.0]), x, "c3", "bars")
    svg = chart.render()
    root = _parsed(svg)
    places = {t.text: float(t.get("y", 0)) for t in root.findall(f"{_SVG}text")}
    assert places["points that have a name, too"] > places["a line with a rather long name"]
    for text in root.findall(f"{_SVG}text"):
        if text.get("class") != "title" and text.text:
            assert float(text.get("x", 0)) + 6.3 * len(text.text) <= WIDTH + 1
    # Of the legend itself, outside of the group that is plotted.
    assert len(root.findall(f"{_SVG}circle")) == 1 and len(root.findall(f"{_SVG}rect")) == 1
    assert len(root.findall(f"{_SVG}line")) == 2


def test_colours_have_a_bar_from_end_to_end() -> None:
    chart = Chart("t", "x", "y", (0, 1), (0, 1))
    chart.colours("0", "0.8 m or more", "error")
    svg = chart.render()
    assert ramp(0.0) in svg and ramp(1.0) in svg
    assert ">0<" in svg and ">0.8 m or more<" in svg and ">error<" in svg


def test_confusion_says_what_its_colours_mean_and_of_how_many_frames_rows_are() -> None:
    table = heat_table("Confusion", ["cat", "dog"], np.array([[3, 1], [0, 6]]), "said", "true")
    assert "cat (4)" in table and "dog (6)" in table
    assert "blue: right, orange: wrong" in table
    root = _parsed(table)
    wide = float(root.get("width", 0))
    assert all(6.0 * len(t.text or "") <= wide for t in root.findall(f"{_SVG}text"))


def test_sheet_gives_a_higher_chart_more_room() -> None:
    low = Chart("t", "x", "y", (0, 1), (0, 1)).render()
    high = Chart("long title " * 15, "x", "y", (0, 1), (0, 1)).render()
    tops = [float(y) for y in re.findall(r'<svg x="0" y="(\d+)"', sheet([high, low, low]))]
    assert tops == [0, 300 + 2 * 17 + 12]
