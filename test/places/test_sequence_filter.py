"""The Bayes filter over places, next to hidden Markov models that are written out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.heads.place.probability import PlaceProbability
from robot_vision.places.recognition.cameras import Cameras
from robot_vision.places.recognition.known_places import PlaceTable, learned_speed
from robot_vision.places.recognition.options import RecogniserOptions
from robot_vision.places.recognition.sequence_filter import (
    LEAVE_BLIND,
    Belief,
    Odometry,
    SequenceFilter,
)

SECOND = 1_000_000_000
# Even odds at 0.5; e^10 times as likely for each 0.5 more.
PROBABILITY = PlaceProbability(bias=-10.0, similarity=20.0)
LEVEL = np.array([0.0, 0.0, 0.0, 1.0])


def table(xs: Any) -> PlaceTable:
    """Returns keyframes along x that look the same way, with ids 1, 2, ..."""
    xs = np.asarray(xs, float)
    positions = np.stack([xs, np.zeros(len(xs)), np.zeros(len(xs))], axis=1)
    return PlaceTable(np.arange(1, len(xs) + 1), positions, np.tile(LEVEL, (len(xs), 1)), 1.0)


def at(belief: Belief, keyframe_id: int) -> float:
    """Returns a keyframe's own mass."""
    return float(belief.mass[belief.ids == keyframe_id].sum())


def moved(x: float, stamp_ns: int) -> Odometry:
    """Returns odometry of a camera at x."""
    T = np.eye(4)
    T[0, 3] = x
    return Odometry(stamp_ns, T)


def total(belief: Belief) -> float:
    return float(belief.mass.sum()) + belief.rest + belief.off_map


def test_two_places_follow_the_forward_algorithm_by_hand() -> None:
    """Three states: two places 1.2 m apart and off the map; five images, one a second, no odometry."""
    options = RecogniserOptions(max_speed_m_s=0.4, kidnap_per_s=0.01, enter_per_s=0.2, miss=0.3)
    places, gap = table([0.0, 1.2]), 1.2
    found = SequenceFilter(options, PROBABILITY)
    near = math.exp(-(((gap - 0.4) / 0.5) ** 2) / 2)  # the kernel between the places
    kidnap, enter = 1 - math.exp(-0.01), 1 - math.exp(-0.2)
    reach = 1 + near + LEAVE_BLIND
    stay, go, off = 1 / reach, near / reach, LEAVE_BLIND / reach
    transition = np.array(
        [
            [(1 - kidnap) * stay + kidnap / 2, (1 - kidnap) * go + kidnap / 2, (1 - kidnap) * off],
            [(1 - kidnap) * go + kidnap / 2, (1 - kidnap) * stay + kidnap / 2, (1 - kidnap) * off],
            [enter / 2, enter / 2, 1 - enter],
        ]
    )
    assert transition.sum(axis=1) == pytest.approx([1, 1, 1])
    state = np.array([0.25, 0.25, 0.5])
    images = [(0.55, 0.5), (0.45, 0.5), (0.6, 0.4), (0.3, 0.35), (0.5, 0.5)]
    for second, s in enumerate(images):
        if second:
            state = state @ transition
        similar = np.exp(20 * np.array(s))
        ratio = math.exp(-10 + 20 * max(s))
        likelihood = 0.7 * ratio * similar / similar.mean() + 0.3
        state = state * np.append(likelihood, 1.0)
        state = state / state.sum()
        order = np.argsort(-np.array(s), kind="stable")
        belief = found.observe(places, order, np.array(s)[order], second * SECOND)
        ours = [at(belief, 1), at(belief, 2), belief.off_map]
        assert ours == pytest.approx(state, abs=1e-9)


def test_first_image_gives_the_calibrated_probability() -> None:
    """With the prior that the calibration had, Bayes gives its posterior back."""
    p = PlaceProbability(bias=-6.0, similarity=10.0, share_right=0.6)
    options = RecogniserOptions(in_map=0.6, miss=1e-3)
    places = table(np.arange(0, 100, 5.0))
    for s in (0.3, 0.6, 0.8):
        # All others are so much less similar that the match is all there is to say.
        similarities = np.append(s, np.full(19, -3.0))
        belief = SequenceFilter(options, p).observe(places, np.arange(20), similarities, 0)
        assert at(belief, 1) == pytest.approx(float(p(s)), abs=2e-3)


def test_weak_matches_of_a_drive_become_sure() -> None:
    """Each image alone is likelier wrong than right; ten of them in the order of a drive are not."""
    places = table(np.arange(0, 200, 2.0))
    rng = np.random.default_rng(0)
    found = SequenceFilter(RecogniserOptions(), PROBABILITY)
    for i in range(10):
        similarities = rng.uniform(0.2, 0.44, 100)
        similarities[i] = 0.46  # alone: 31 percent
        order = np.argsort(-similarities)[:20]
        stamp = i * SECOND
        belief = found.observe(places, order, similarities[order], stamp, moved(2.0 * i, stamp))
        if i == 0:
            assert at(belief, 1) < 0.4
    assert at(belief, 10) > 0.95


@pytest.mark.slow
def test_images_of_the_same_view_count_as_one() -> None:
    places = table([0.0, 50.0])
    options = RecogniserOptions(kidnap_per_s=1e-9)
    once, often = (SequenceFilter(options, PROBABILITY) for _ in range(2))
    rows, s = np.array([0, 1]), np.array([0.55, 0.5])
    single = once.observe(places, rows, s, 0)
    second = once.observe(places, rows, s, SECOND // 4)
    for i in range(100):
        belief = often.observe(places, rows, s, i * SECOND // 400)
    assert at(belief, 1) == pytest.approx(at(second, 1), abs=0.01)
    assert at(belief, 1) > at(single, 1)  # the first one and the latest
    # With odometry, a robot that stands learns nothing new however long it looks.
    standing = SequenceFilter(options, PROBABILITY)
    for i in range(100):
        belief = standing.observe(places, rows, s, i * SECOND, moved(0.0, i * SECOND))
    assert at(belief, 1) < 0.9


def test_odometry_tells_look_alikes_apart() -> None:
    """Places 1 and 11 look the same; only one has been driven to from place 0."""
    places = table(np.arange(0, 60, 3.0))
    found = SequenceFilter(RecogniserOptions(), PROBABILITY)
    found.observe(places, np.array([0, 5]), np.array([0.7, 0.3]), 0, moved(0.0, 0))
    alike = np.array([11, 1]), np.array([0.6, 0.6])
    belief = found.observe(places, *alike, 3 * SECOND, moved(3.0, 3 * SECOND))
    assert at(belief, 2) > 0.9
    assert at(belief, 12) < 0.05
    fresh = SequenceFilter(RecogniserOptions(), PROBABILITY).observe(places, *alike, 0)
    assert at(fresh, 2) == pytest.approx(at(fresh, 12))


def test_rotation_of_odometry_turns_the_way_it_goes() -> None:
    """The camera drove 3 m along its own z axis; what map direction that is, the keyframe says."""
    half = math.sqrt(0.5)
    facing = np.array([0.0, half, 0.0, half])  # z along the map's x
    positions = np.array([[0.0, 0, 0], [3.0, 0, 0], [0.0, 0, 3.0]])
    places = PlaceTable(np.array([1, 2, 3]), positions, np.tile(facing, (3, 1)), 1.0)
    found = SequenceFilter(RecogniserOptions(), PROBABILITY)
    found.observe(places, np.array([0]), np.array([0.8]), 0, Odometry(0, np.eye(4)))
    T = np.eye(4)
    T[2, 3] = 3.0
    belief = found.observe(
        places, np.array([1, 2]), np.array([0.5, 0.5]), 3 * SECOND, Odometry(3 * SECOND, T)
    )
    assert at(belief, 2) > 20 * at(belief, 3)


def test_leaving_the_map_is_noticed() -> None:
    places = table(np.arange(0, 100, 2.0))
    found = SequenceFilter(RecogniserOptions(), PROBABILITY)
    for i in range(3):
        belief = found.observe(places, np.array([i, 30]), np.array([0.8, 0.2]), i * 2 * SECOND)
    assert belief.off_map < 0.05
    for i in range(3, 12):
        similarities = np.linspace(0.3, 0.25, 10)  # nothing looks like it
        belief = found.observe(places, np.arange(20, 30), similarities, i * 2 * SECOND)
    assert belief.off_map > 0.8


@pytest.mark.parametrize("scale", [1.0, 0.7, 0.0], ids=["true", "short", "frozen"])
def test_edge_of_the_map_does_not_carry_belief_along(scale: float) -> None:
    """Past its last keyframe, images still look most like that one, and less and less so."""
    places = table(np.arange(0, 20.1, 0.5))
    found = SequenceFilter(RecogniserOptions(), PROBABILITY)
    descriptors = np.eye(90, dtype=np.float32)  # each image has news
    inside = []
    for i in range(80):
        x, stamp = 0.5 * i, i * SECOND
        gap = np.abs(places.positions[:, 0] - x)
        similarities = 0.75 - 0.2 * gap  # as likely right as wrong at 1.25 m
        order = np.argsort(-similarities, kind="stable")[:20]
        odometry = moved(scale * x, stamp)
        belief = found.observe(places, order, similarities[order], stamp, odometry, descriptors[i])
        assert total(belief) == pytest.approx(1)
        assert 0 <= belief.nearby <= belief.off_map + 1e-12
        if 2 <= x <= 20:
            inside.append(1 - belief.off_map)
        elif x >= 22.5:
            assert belief.off_map > 0.9, x
    assert np.mean(inside) > 0.95


@pytest.mark.parametrize("gap_m, sigma_m, turn_deg, sigma_deg", [
    (0.0, 0.1, 0.0, 8.0), (0.2, 0.1, 15.0, 8.0), (0.3, 0.2, 25.0, 12.0), (0.2, 0.0, 19.0, 0.0),
    (0.3, 0.0, 0.0, 0.0), (0.1, 0.0, 21.0, 0.0),
])  # fmt: skip
def test_probability_of_a_place_is_the_share_of_cameras_that_are_drawn_in_it(
    gap_m: float, sigma_m: float, turn_deg: float, sigma_deg: float
) -> None:
    half = np.radians(turn_deg) / 2
    cameras = Cameras(
        np.array([[gap_m, 0.0, 0.0]]),
        np.array([[0.0, 0.0, np.sin(half), np.cos(half)]]),
        np.array([[sigma_m**2, sigma_deg**2]]),
    )
    rng = np.random.default_rng(0)
    away = np.linalg.norm([gap_m, 0, 0] + sigma_m * rng.normal(size=(100_000, 3)), axis=1)
    turn = np.abs(turn_deg + sigma_deg * rng.normal(size=100_000))
    expected = np.mean(away <= 0.25) * np.mean(turn <= 20)
    found = cameras.within(table([0.0, 50.0]), np.array([0, 1]), 0.25, 20.0)
    assert found == pytest.approx(np.array([[expected, 0.0]]), abs=5e-3)


def test_small_steps_add_up_to_where_the_camera_is() -> None:
    """Keyframes 2 m apart: no step of 0.5 m is nearer to the next one, four of them are there."""
    places = table(np.arange(0, 20, 2.0))
    found = SequenceFilter(RecogniserOptions(), PROBABILITY)
    found.observe(places, np.array([3]), np.array([0.9]), 0, moved(0.0, 0))
    for i in range(1, 4):
        stamp = i * SECOND
        nothing = np.arange(10), np.full(10, 0.5)  # images that say nothing
        belief = found.observe(places, *nothing, stamp, moved(0.5 * i, stamp))
    most = int(belief.mass.argmax())
    assert belief.cameras.positions[most, 0] == pytest.approx(7.5, abs=0.3)


def test_kidnapped_camera_is_found_again() -> None:
    places = table(np.arange(0, 100, 2.0))
    found = SequenceFilter(RecogniserOptions(), PROBABILITY)
    for i in range(5):
        stamp = i * SECOND
        found.observe(places, np.array([i]), np.array([0.8]), stamp, moved(2.0 * i, stamp))
    for n in range(1, 8):  # odometry goes on as if nothing had happened
        i = 4 + n
        stamp = i * SECOND
        odometry = moved(2.0 * i, stamp)
        belief = found.observe(places, np.array([30 + n]), np.array([0.8]), stamp, odometry)
        if at(belief, 31 + n) > 0.95:
            break
    assert n <= 5


def test_clock_that_goes_back_begins_anew() -> None:
    places = table([0.0, 50.0])
    options = RecogniserOptions()
    found, fresh = (SequenceFilter(options, PROBABILITY) for _ in range(2))
    for i in range(5):
        found.observe(places, np.array([0, 1]), np.array([0.6, 0.4]), (100 + i) * SECOND)
    assert found.restarts == 0
    belief = found.observe(places, np.array([1, 0]), np.array([0.6, 0.4]), 3 * SECOND)
    other = fresh.observe(places, np.array([1, 0]), np.array([0.6, 0.4]), 3 * SECOND)
    assert found.restarts == 1
    assert at(belief, 2) == at(other, 2)


def test_clock_that_jumps_far_ahead_leaves_no_belief() -> None:
    places = table(np.arange(0, 400, 2.0))
    found = SequenceFilter(RecogniserOptions(), PROBABILITY)
    for i in range(5):
        found.observe(places, np.array([3]), np.array([0.8]), i * SECOND)
    for years in (1, 200):
        later = years * 365 * 24 * 3600 * SECOND
        belief = found.observe(places, np.array([150, 3]), np.array([0.55, 0.55]), later)
        assert total(belief) == pytest.approx(1)
        assert at(belief, 151) == pytest.approx(at(belief, 4), rel=0.01)


@pytest.mark.parametrize("fault", ["old", "nan", "jump", "shape"])
def test_odometry_that_fails_is_counted_and_not_used(fault: str) -> None:
    places = table(np.arange(0, 60, 3.0))
    options = RecogniserOptions(max_speed_m_s=1.0)
    found, without = (SequenceFilter(options, PROBABILITY) for _ in range(2))
    for f in (found, without):
        f.observe(places, np.array([0]), np.array([0.6]), 0, moved(0.0, 0))
    stamp = 3 * SECOND
    T: NDArray[Any] = moved(3.0, 0).T_odom_camera
    if fault == "nan":
        T = np.full((4, 4), np.nan)
    elif fault == "jump":
        T[0, 3] = 1e4
    elif fault == "shape":
        T = np.eye(3)
    odometry = Odometry(0 if fault == "old" else stamp, T)
    match = np.array([1, 11]), np.array([0.5, 0.5])
    belief = found.observe(places, *match, stamp, odometry)
    expected = without.observe(places, *match, stamp)
    assert found.odometry_refused == 1
    assert belief.mass == pytest.approx(expected.mass)


@pytest.mark.slow
def test_keyframes_in_one_spot_weigh_as_one_place() -> None:
    xs = np.append(np.full(10_000, 0.3), 20.3)
    places = table(xs)
    assert places.places == 2
    assert places.prior[-1] == pytest.approx(0.5)
    found = SequenceFilter(RecogniserOptions(), PROBABILITY)
    rows = np.append(np.arange(63), 10_000)
    s = np.full(64, 0.6)
    for i in range(4):  # the spot and the other place look equally similar
        belief = found.observe(places, rows, s, i * SECOND)
        assert total(belief) == pytest.approx(1)
    assert 0.1 < at(belief, 10_001) < 0.9


@pytest.mark.slow
@settings(max_examples=60)
@given(st.data())
def test_belief_is_a_distribution_whatever_comes(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    places = table(rng.uniform(0, 40, n))
    found = SequenceFilter(RecogniserOptions(), PROBABILITY, learned_speed_m_s=1.0)
    stamp = 0
    for _ in range(data.draw(st.integers(1, 8))):
        stamp += data.draw(st.integers(-SECOND, 1000 * SECOND))
        k = data.draw(st.integers(0, n))
        rows = rng.permutation(n)[:k]
        s = np.sort(rng.uniform(-1, 1, k))[::-1]
        odometry = moved(rng.uniform(-50, 50), stamp) if data.draw(st.booleans()) else None
        belief = found.observe(places, rows, s, stamp, odometry)
        assert total(belief) == pytest.approx(1, abs=1e-9)
        assert np.all(belief.mass >= 0) and belief.rest >= 0 and belief.off_map >= 0
        assert len(np.unique(belief.ids)) == len(belief.ids)


def test_appended_keyframes_are_reached_like_those_from_the_start() -> None:
    whole = table([0.0, 0.1, 3.0, 3.2, 6.0])
    grown = table([0.0, 0.1, 3.0])
    grown.append(np.array([4, 5]), whole.positions[3:], whole.quaternions_xyzw[3:])
    assert grown.places == pytest.approx(whole.places, rel=0.2)
    beliefs = []
    for places in (whole, grown):
        found = SequenceFilter(RecogniserOptions(), PROBABILITY)
        found.observe(places, np.array([2]), np.array([0.7]), 0, moved(0.0, 0))
        stamp = 3 * SECOND
        match = np.array([4, 0]), np.array([0.5, 0.5])
        beliefs.append(found.observe(places, *match, stamp, moved(3.0, stamp)))
    assert at(beliefs[1], 5) == pytest.approx(at(beliefs[0], 5), abs=0.05)


def test_speed_is_learned_from_the_map() -> None:
    stamps = np.arange(100) * SECOND // 10
    positions = np.zeros((100, 3))
    positions[:, 0] = np.arange(100) * 0.05  # 0.5 m/s
    streams = np.zeros(100)
    assert learned_speed(stamps, positions, streams) == pytest.approx(0.5)
    # Two drives side by side in the table are not one that leaps between them.
    both = np.concatenate([positions, positions + 100])
    doubled = np.concatenate([stamps, stamps + SECOND // 20])
    assert learned_speed(doubled, both, np.repeat([0, 1], 100)) == pytest.approx(0.5)
    assert learned_speed(stamps[:5], positions[:5], streams[:5]) is None
    assert learned_speed(stamps, np.zeros((100, 3)), streams) is None


@pytest.mark.parametrize(
    ("name", "value"), [("radius_m", 0.0), ("miss", math.nan), ("in_map", 1.0), ("top_k", 0)]
)
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        RecogniserOptions(**{name: value})
