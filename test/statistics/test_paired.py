"""Bounds of a program against float32: exact ones as SciPy has them, and what too few images prove."""

import numpy as np
import pytest
from scipy.stats import beta, binomtest, chi2

from robot_vision.statistics.bootstrap import Resampler, mean
from robot_vision.statistics.exact import count_needed, poisson_interval, upper_share
from robot_vision.statistics.paired import CONFIDENCE, LEAST, PairedEvidence
from robot_vision.statistics.settings import BootstrapSettings


def evidence(count, block=1, resamples=400):
    """Pictures, or a recording at 10 Hz whose frames count as one in blocks."""
    step = 10**8 if block > 1 else 10**12
    stamps = np.arange(count) * step
    drawn = Resampler(
        stamps, [(0, count)], BootstrapSettings(resamples=resamples, block_s=block / 10)
    )
    return PairedEvidence(np.arange(count) // block, drawn)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
@pytest.mark.parametrize(
    "hits, count", [(0, 1), (0, 300), (1, 300), (7, 900), (450, 900), (899, 900)]
)
def test_an_exact_bound_is_that_of_scipy(hits, count, confidence):
    bound = upper_share(hits, count, confidence)
    assert bound == pytest.approx(beta.ppf(confidence, hits + 1, count - hits), rel=1e-10)
    tested = binomtest(hits, count, alternative="less").proportion_ci(confidence, "exact")
    assert bound == pytest.approx(tested.high, rel=1e-6)


def test_all_and_none():
    assert upper_share(0, 0) == upper_share(5, 5) == 1.0


@pytest.mark.parametrize("share, limit", [(0.0, 0.01), (0.0, 0.03), (0.01, 0.02), (0.004, 0.01)])
def test_the_count_that_is_needed_is_enough_and_hardly_more(share, limit):
    count = count_needed(share, limit)
    assert upper_share(int(np.ceil(share * count - 1e-9)), count) <= limit
    smaller = int(0.8 * count)
    assert upper_share(int(np.ceil(share * smaller)), smaller) > limit


def test_no_count_helps_where_the_share_is_at_the_limit():
    assert count_needed(0.02, 0.02) == count_needed(0.5, 0.02) == 0


def test_an_exact_bound_holds_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth, count = 0.02, 400
    lost = rng.binomial(count, truth, 2000)
    bounds = {int(k): upper_share(int(k), count) for k in np.unique(lost)}
    held = np.mean([bounds[int(k)] >= truth for k in lost])
    assert held >= CONFIDENCE - 0.01


def test_pictures_without_a_loss():
    none, every = np.zeros(300, bool), np.ones(300, bool)
    bound = evidence(300).at_most(none, every, 0.01)
    assert bound.passed and bound.count == 300
    assert bound.bound == pytest.approx(beta.ppf(0.95, 1, 300))
    few = evidence(200).at_most(none[:200], every[:200], 0.02)
    assert few.bound < 0.02 and not few.passed and few.needed == LEAST
    assert few.why("lost") == "not enough images: lost needs about 300, and there are 200"


def test_more_images_are_asked_for_where_they_would_do_and_only_there():
    hits, every = np.zeros(400, bool), np.ones(400, bool)
    hits[:4] = True
    near = evidence(400).at_most(hits, every, 0.02)
    assert not near.passed and near.needed == count_needed(0.01, 0.02) > 400
    hits[:12] = True
    over = evidence(400).at_most(hits, every, 0.02)
    assert not over.passed and over.needed == 0
    assert "lost is 0.03, bounded by 0.0482: it must be at most 0.02" in over.why("lost")


def test_only_images_that_count_are_counted():
    hits = np.arange(700) % 2 == 1
    bound = evidence(700).at_most(hits, ~hits, 0.02)
    assert bound.passed and bound.count == 350 and bound.value == 0


def test_frames_of_a_recording_count_by_blocks():
    hits, every = np.zeros(4000, bool), np.ones(4000, bool)
    hits[40:45] = hits[47] = True
    found = evidence(4000, block=20).at_most(hits, every, 0.02)
    assert found.count == 200 and found.value == pytest.approx(6 / 20 / 200)
    assert found.bound == pytest.approx(beta.ppf(0.95, 2, 199))  # 0.3 of a block, rounded up
    assert not found.passed and found.needed >= LEAST


def test_agreement_is_bounded_from_below():
    misses, every = np.zeros(500, bool), np.ones(500, bool)
    misses[:5] = True
    bound = evidence(500).at_least(misses, every, 0.97)
    assert bound.value == pytest.approx(0.99)
    assert bound.bound == pytest.approx(beta.ppf(0.05, 495, 6))
    assert bound.passed


def test_a_ratio_of_means_has_the_bound_of_a_normal_distribution():
    rng = np.random.default_rng(1)
    float32 = rng.gamma(4.0, 0.1, 2000)
    program = float32 * rng.normal(1.01, 0.2, 2000)
    every = np.ones(2000, bool)
    found = evidence(2000).ratio([mean(program), mean(float32)], every, 1.03)
    ratio = program.mean() / float32.mean()
    residual = program - ratio * float32
    deviation = residual.std() / np.sqrt(2000) / float32.mean()
    assert found.value == pytest.approx(ratio)
    assert found.bound == pytest.approx(ratio + 1.645 * deviation, abs=0.2 * deviation)
    assert found.passed and found.count == 2000


def test_errors_of_zero_in_float32_do_not_hide_those_of_the_program():
    float32, program = np.zeros(400), np.full(400, 1e-3)
    float32[0] = program[0] = 100.0  # a third of the draws are without it
    every = np.ones(400, bool)
    found = evidence(400).ratio([mean(program), mean(float32)], every, 1.03)
    assert found.value == pytest.approx(1, abs=0.01)
    assert found.bound == np.inf and not found.passed


def test_alike_frames_widen_the_bound():
    rng = np.random.default_rng(2)
    float32 = np.ones(2000)
    program = 1 + np.repeat(rng.normal(0, 0.3, 100), 20)
    every = np.ones(2000, bool)
    alone, in_blocks = (
        evidence(2000, block).ratio([mean(program), mean(float32)], every, 1.03)
        for block in (1, 20)
    )
    assert in_blocks.bound - in_blocks.value > 3 * (alone.bound - alone.value)


def test_a_short_recording_is_not_enough_whatever_it_shows():
    same = np.ones(1000)
    found = evidence(1000, block=100).ratio([mean(same), mean(same)], same > 0, 1.03)
    assert found.value == found.bound == 1 and not found.passed and found.needed == 3000


def test_what_is_lost_and_what_cannot_be_measured():
    float32, program = np.full(400, 0.9), np.full(400, 0.895)
    every = np.ones(400, bool)
    assert evidence(400).lost([mean(program), mean(float32)], every, 0.01).passed
    program[3] = np.nan
    broken = evidence(400).lost([mean(program), mean(float32)], every, 0.01)
    assert not broken.passed and "cannot be measured on 400 images" in broken.why("mean_iou_lost")
    nothing = evidence(400).ratio([mean(program), mean(float32)], ~every, 1.03)
    assert not nothing.passed and nothing.needed == LEAST


@pytest.mark.parametrize("count", [0, 1, 3, 9, 50, 528])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_poisson_interval_is_that_of_the_chi_square_distribution(
    count: int, confidence: float
) -> None:
    """Garwood's interval in its other form: quantiles of chi-square by SciPy."""
    tail = (1 - confidence) / 2
    low = chi2.ppf(tail, 2 * count) / 2 if count else 0.0
    expected = low, chi2.ppf(1 - tail, 2 * count + 2) / 2
    assert poisson_interval(count, confidence) == pytest.approx(expected, rel=1e-9)
