"""What each head's judge proves of a program, on rows of random recordings."""

from dataclasses import replace

import numpy as np
import pytest
from eval_data import recording

from robot_vision.contract import registry
from robot_vision.contract.metrics import Judge
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.evaluation.measure.metrics import PlaceReference, score_recording
from robot_vision.statistics.bootstrap import Resampler
from robot_vision.statistics.paired import PairedEvidence

pytestmark = pytest.mark.slow
SETTINGS = EvaluationSettings(resamples=100)
COUNT = 700


@pytest.fixture(scope="module")
def drive():
    return recording(n=COUNT)


def bounds(said, other, truth, reference=None):
    """Returns the bounds of `other` against `said` by head; each frame counts as one."""
    scores = [score_recording(p, truth, SETTINGS, reference) for p in (said, other)]
    count = len(scores[0])
    drawn = Resampler(np.arange(count) * 10**12, [(0, count)], SETTINGS)
    evidence = PairedEvidence(np.arange(count), drawn)
    each = zip(*(score.each() for score in scores), strict=True)
    return {
        rows[0].head.name: rows[0].head.judge().certify(*rows, evidence)
        for rows in each
        if rows[0].head.name in scores[0].heads
    }


def test_a_program_that_says_the_same_passes(drive):
    said, truth = drive
    found = bounds(said, said, truth, PlaceReference(said, truth))
    assert list(found) == ["classifier", "pose", "place"]
    assert all(bound.passed for head in found.values() for bound in head.values())
    assert found["classifier"]["agreement"].value == 1
    assert found["pose"]["mean_m_ratio"].bound == 1
    assert [next(iter(h.values())).text or list(h.values())[-1].text for h in found.values()] == [
        "first class agrees on 1.000",
        "mean position error 1.000 times",
        "recall@1 loses 0.000",
    ]


def test_answers_that_change_are_counted_by_whether_they_were_right(drive):
    said, truth = drive
    other = said.probabilities.copy()
    right = np.flatnonzero(
        (said.probabilities.argmax(1) == (np.arange(COUNT) // 25) % 7)
        & ((np.arange(COUNT) // 25) % 7 < 6)
    )
    known = int(((np.arange(COUNT) // 25) % 7 < 6).sum())
    for i in right[:9]:
        other[i] = np.roll(other[i], 1)
    found = bounds(said, replace(said, probabilities=other), truth)["classifier"]
    assert found["lost"].value == pytest.approx(9 / known)
    assert found["lost"].count == known and found["agreement"].count == COUNT
    assert found["agreement"].value == pytest.approx(1 - 9 / COUNT)


def test_what_is_called_unknown_is_lost(drive):
    said, truth = drive
    kept, fewer = np.ones(COUNT), np.ones(COUNT)
    fewer[::2] = 0
    found = bounds(replace(said, kept=kept), replace(said, kept=fewer), truth)["classifier"]
    assert found["agreement"].value == 1
    assert not found["lost"].passed and found["lost"].value > 0.1


def test_places_are_looked_up_in_the_map_of_float32(drive):
    """Descriptors that were all turned agree among themselves, and with no map of float32."""
    said, truth = drive
    turned = replace(said, descriptor=-said.descriptor)
    found = bounds(said, turned, truth, PlaceReference(said, truth))["place"]
    assert not found["recall_at_1_lost"].passed and found["recall_at_1_lost"].value > 0.5


@pytest.mark.parametrize("factor, passed", [(1.01, True), (1.1, False)])
def test_mean_errors_may_hardly_grow(drive, factor, passed):
    said, truth = drive
    true = score_recording(said, truth, SETTINGS)["true_position"]
    other = replace(said, position=true + factor * (said.position - true))
    found = bounds(said, other, truth)["pose"]
    assert found["mean_m_ratio"].value == pytest.approx(factor, rel=1e-6)
    assert found["mean_m_ratio"].passed is passed and found["mean_deg_ratio"].passed


def test_the_covariance_must_keep_covering(drive):
    said, truth = drive
    found = bounds(said, replace(said, covariance=said.covariance / 30), truth)["pose"]
    assert found["mean_m_ratio"].passed and not found["coverage_95_lost"].passed


def test_a_head_that_says_nothing_of_it_proves_nothing():
    class Silent(Judge):
        def score(self, frames, facts):
            return {}

        def sections(self):
            return ()

    assert Silent().certify(None, None, None) == {}
    proving = {
        kind
        for kind in registry.BUILT_IN
        if type(registry.head(kind).judge()).certify is not Judge.certify
    }
    assert proving == set(registry.BUILT_IN)
