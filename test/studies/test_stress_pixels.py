from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from toy_heads import SEGMENTS, SegmentsSpec

from robot_vision.contract import registry
from robot_vision.contract.head import plain
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.evaluation.measure.metrics import evaluate_frames, score_recording, summarise
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.images.input import InputSpec
from robot_vision.studies.stress.degradations import DEGRADATIONS, ROLL, generator, roll_of
from robot_vision.studies.stress.measure import ROLLS, StressReference, measure, measure_intervals
from robot_vision.studies.stress.pixels import headlines, titles
from robot_vision.studies.stress.report import charts, tables
from robot_vision.truth.images import ImageTrack
from robot_vision.truth.tracks import Truth

BOUND = ((SEGMENTS, SegmentsSpec()),)
SIZE = (60, 80)
ACCURACY = "toy_segmentation.accuracy"
SCENE = np.zeros(SIZE, np.uint8)
SCENE[10:25, 5:50] = 1


@pytest.fixture(autouse=True)
def built_in(monkeypatch):
    monkeypatch.setitem(registry.BUILT_IN, "toy_segments", "toy_heads:SEGMENTS")


@dataclass
class Stored:
    values: np.ndarray
    none: tuple[float, ...] = ()
    unit: float = 1.0

    def load(self) -> np.ndarray:
        return self.values


def recording(said: np.ndarray, **meta: object) -> tuple[Predictions, StressReference]:
    stamps = (np.arange(len(said)) * 1e8).astype(np.int64)
    found = Predictions(stamps, meta={"input": plain(InputSpec(*SIZE)), **meta}, more={"ids": said})
    truth = Truth(images={"toy_segments": ImageTrack(stamps, [Stored(SCENE)] * len(said))})
    return found, StressReference(found, truth)


def test_numbers_of_pixels_are_those_of_evaluate():
    said = np.stack([np.where(np.arange(60)[:, None] < 4 * i, 1 - SCENE, SCENE) for i in range(9)])
    found, reference = recording(said.astype(np.uint8))
    settings = EvaluationSettings(resamples=50)
    numbers = measure_intervals(found, reference, None, settings, BOUND)
    scores = score_recording(found, reference.truth, settings, bound=BOUND)
    assert numbers[ACCURACY] == summarise(scores, settings)["toy_segmentation"]["accuracy"]
    assert numbers[ACCURACY]["value"] == pytest.approx(1 - np.arange(9).mean() * 4 / 60)
    assert evaluate_frames(found, Truth())["classification"] is None
    assert not measure(found, reference)  # without the model's heads nobody knows them
    assert list(titles(BOUND, reference.truth)) == headlines(BOUND, reference.truth) == [ACCURACY]
    assert not titles(BOUND, Truth())


def test_true_pixels_turn_with_the_frames():
    rolls = [roll_of(10.0, generator(0, ROLL, i)) for i in range(6)]
    assert len(set(rolls)) == 2
    shown = [
        DEGRADATIONS[ROLL].apply(
            np.repeat(255 * SCENE[..., None], 3, axis=2), 10.0, generator(0, ROLL, i)
        )
        for i in range(6)
    ]
    said = np.stack([(image[..., 0] > 127).astype(np.uint8) for image in shown])
    accuracy = {}
    for turned in (True, False):
        found, reference = recording(said, **({ROLLS: rolls} if turned else {}))
        numbers = measure_intervals(found, reference, None, EvaluationSettings(resamples=0), BOUND)
        accuracy[turned] = numbers[ACCURACY]["value"]
    assert accuracy[True] > 0.99 > 0.95 > accuracy[False]  # but for edges, which lie between pixels


def test_tables_and_charts_show_numbers_of_pixels():
    truth = recording(SCENE[None])[1].truth
    numbers = [{"numbers": {ACCURACY: 1 - i / 10}, "intervals": {}} for i in range(6)]
    document = {
        "metrics": titles(BOUND, truth),
        "headlines": headlines(BOUND, truth),
        "conditions": [{"degradation": "dark", **n} for n in numbers],
    }
    text = "\n".join(tables(document))
    assert "Pixel accuracy: of toy_segments, Segments." in text
    assert "| dark | 1, 2, 3, 4, 5 stops | 1.000 | 0.900 | 0.800 |" in text
    (chart,) = charts(document)
    assert "dark: pixels" in chart and "Pixel accuracy" in chart


def test_what_comes_into_view_of_a_turned_camera_has_no_truth():
    turn = cv2.getRotationMatrix2D((39.5, 29.5), 45, 1)
    ones = np.ones(SIZE, np.uint8)
    seen = cv2.warpAffine(ones, turn, SIZE[::-1], None, cv2.INTER_NEAREST)  # 0 in the corners
    found, _ = recording(seen[None], **{ROLLS: [45.0]})
    track = ImageTrack(found.stamps_ns, [Stored(ones)])
    reference = StressReference(found, Truth(images={"toy_segments": track}))
    numbers = measure_intervals(found, reference, None, EvaluationSettings(resamples=0), BOUND)
    assert seen.mean() < 0.9
    assert numbers[ACCURACY]["value"] == pytest.approx(1, abs=0.01)
