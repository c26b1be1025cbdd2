"""Pictures say what their colours and lengths mean: the map from above, the demo's drive."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from place_maps import keyframe, make_map

from robot_vision.demo.picture import _JUMP, _PAPER, FloorPlan
from robot_vision.places.map.picture import _COLOURS, _COVER, draw_map
from robot_vision.simulation.world.home import default_world


def test_map_has_a_legend_of_recordings_and_of_what_is_seen(tmp_path: Path) -> None:
    with make_map(tmp_path / "house.map") as places:
        for number in range(8):
            places.add(keyframe(number, source=f"drive {number % 2}"))
        picture = draw_map(places)
    legend = picture[30:120, 8:44]
    for colour in (*_COLOURS[:2], _COVER):
        assert (legend == colour).all(axis=2).sum() > 20, colour
    patch = (legend == _COVER).all(axis=2)
    assert patch.sum() == 14 * 28, "one patch, and no map behind it"


@pytest.mark.slow
def test_scale_bar_of_the_demo_is_as_long_as_it_says() -> None:
    plan = FloorPlan(default_world(), pixels_per_m=50.0)
    before = plan.image.copy()
    plan.scale_bar(2)
    changed = (plan.image != before).any(axis=2)
    y = plan.image.shape[0] - 12
    dark = np.flatnonzero((plan.image[y] < 60).all(axis=1) & changed[y])
    assert 100 <= dark[-1] - dark[0] <= 102


@pytest.mark.slow
def test_kidnapped_stands_on_paper() -> None:
    plan = FloorPlan(default_world())
    low, high = default_world().bounds()
    start, end = low + 0.3 * (high - low), low + 0.7 * (high - low)
    plan.jump(start, end)
    ink = (np.abs(plan.image.astype(int) - _JUMP).max(axis=2) < 40).astype(np.uint8)
    _, _, boxes, _ = cv2.connectedComponentsWithStats(cv2.dilate(ink, np.ones((3, 9))))
    x, y, w, h = max((b[:4] for b in boxes[1:]), key=lambda b: b[2])
    around = plan.image[y : y + h, x : x + w].astype(int)
    near_paper = (np.abs(around - _PAPER).max(axis=2) < 40).mean()
    assert w > 60 and near_paper > 0.45, "letters, and paper between them"
