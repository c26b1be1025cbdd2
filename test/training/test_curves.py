"""The curves of a training: one thing a panel, with named axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest

from robot_vision.contract.metrics import Metric
from robot_vision.training.fit.record import curves, draw_curves

SHOWN = {
    "room": {
        "top1": Metric("top1", "Top-1 accuracy", "%"),
        "ece": Metric("ece", "ECE", "%", False),
    },
    "pose": {"median_m": Metric("median_m", "Median position error", "m", False)},
}


def _history() -> list[dict[str, Any]]:
    return [
        {
            "stage": "heads" if n < 2 else "fine",
            "train": {"loss": 3.0 - n, "room": 2.0 - n, "pose": 1.0},
            # Validated every second epoch, and never for ECE.
            "validation": {"room": {"top1": 0.5 + 0.1 * n}, "pose": {"median_m": 1.0}}
            if n % 2
            else {},
        }
        for n in range(4)
    ]


def test_each_panel_has_one_thing_and_says_its_unit() -> None:
    panels = curves(_history(), SHOWN)
    assert [(title, unit) for title, unit, *_ in panels] == [
        ("training: loss", "loss"),
        ("training: loss of room", "loss"),
        ("training: loss of pose", "loss"),
        ("validation: room, Top-1 accuracy", "%"),
        ("validation: pose, Median position error", "m"),
    ]
    assert panels[0][2:] == ([1, 2, 3, 4], [3.0, 2.0, 1.0, 0.0])
    assert panels[3][2] == [2, 4] and panels[3][3] == pytest.approx([60.0, 80.0])


@pytest.mark.slow
def test_picture_has_room_for_all_panels(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert draw_curves(_history(), tmp_path / "curves.png", SHOWN)
    image = cv2.imread(str(tmp_path / "curves.png"))
    assert image.shape[:2] == (580, 1260)  # two rows of three
    assert (image[300:] < 100).any() and (image[:, 900:] < 100).any()
