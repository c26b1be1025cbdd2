"""The filter of class probabilities against chains worked out by hand, SciPy and brute force."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from robot_vision.errors import ConfigError, MeasurementError
from robot_vision.filters import markov_chain
from robot_vision.filters.class_filter import ClassBelief, ClassFilter, ClassModel, from_hypotheses

S = 1_000_000_000
RAIN = ("rain", "dry")


def plain(labels=RAIN, **settings_):
    """A model whose filter is the forward recursion of a hidden Markov model."""
    return ClassModel(
        labels, **{"correlation_time_s": 0.0, "memory": 1.0, "unknown_prior": 0.0, **settings_}
    )


# The chain


@pytest.mark.slow
@given(
    st.integers(1, 5).flatmap(
        lambda k: st.lists(st.floats(0, 3), min_size=k * k, max_size=k * k).map(
            lambda v: np.array(v).reshape(k, k)
        )
    ),
    st.floats(0, 50),
)
@example(np.array([[0.0, 0.0], [2.2250738585e-313, 0.0]]), 1.0)
@example(np.array([[0.0, 6e-310], [1e-312, 0.0]]), 50.0)
@settings(max_examples=100)
def test_transition_is_the_matrix_exponential(rates, dt_s):
    Q = markov_chain.generator(rates)
    np.testing.assert_allclose(markov_chain.transition(Q, dt_s), expm(Q * dt_s), atol=1e-10)


@pytest.mark.slow
@given(
    st.integers(1, 5).flatmap(
        lambda k: st.lists(st.floats(0, 3), min_size=k * k, max_size=k * k).map(
            lambda v: np.array(v).reshape(k, k)
        )
    ),
    st.one_of(st.floats(0, 1), st.floats(0, 200)),
)
@example(np.array([[0.0, 0.0], [2.2250738585e-313, 0.0]]), 1.0)
@settings(max_examples=60)
def test_row_moved_by_rates_is_its_product_with_the_matrix_exponential(rates, dt_s):
    Q = markov_chain.generator(rates)
    p = np.arange(1.0, len(Q) + 1)
    moved = markov_chain.RateChain(Q).moved(p, dt_s)
    np.testing.assert_allclose(moved, p @ expm(Q * dt_s), atol=1e-10)


@pytest.mark.slow
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.floats(0.1, 100), st.floats(0, 50))
@settings(max_examples=60)
def test_row_moved_by_jumps_is_its_product_with_the_matrix_exponential(share, dwell_s, dt_s):
    share = np.array(share) / np.sum(share)
    p = np.linspace(2.0, 0.0, len(share))
    expected = p @ expm(markov_chain.jump_generator(share, dwell_s) * dt_s)
    chain = markov_chain.JumpChain(share, dwell_s)
    np.testing.assert_allclose(chain.moved(p, dt_s), expected, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("given_rates", [False, True])
def test_thousand_classes_at_irregular_stamps_take_milliseconds(given_rates):
    """420 ms a step it was, for a matrix of each interval; then 49 ms, for copies of Q.

    Held in products of such a matrix with a vector, which suffer from a busy machine as much.
    """
    rng = np.random.default_rng(0)
    K = 1000
    rates = rng.uniform(0, 0.2 / K, (K, K)) if given_rates else None
    filter_ = ClassFilter(ClassModel(tuple(map(str, range(K))), rates=rates))
    matrix = rng.uniform(size=(K, K))
    stamp, steps, products = 0, [], []
    for p in rng.dirichlet(np.ones(K), 25):
        stamp += int(1e8 + rng.integers(0, 1e7))
        begin = time.process_time()
        filter_.update(stamp, p)
        steps.append(time.process_time() - begin)
        begin = time.process_time()
        p @ matrix
        products.append(time.process_time() - begin)
    assert np.median(steps) < 25 * max(np.median(products), 2e-4)


@pytest.mark.parametrize("dt_s", [0.03, 1.0, 40.0, 3000.0])
@pytest.mark.parametrize("kind", ["mixing", "sticky"])
def test_row_of_many_classes_moves_as_by_the_matrix_exponential_in_few_products(kind, dt_s):
    rng = np.random.default_rng(1)
    K = 60
    rates = rng.uniform(0, 2 / K, (K, K))
    if kind == "sticky":  # two halves between which a change is rare, and one state that is fast
        rates[: K // 2, K // 2 :] *= 1e-6
        rates[K // 2 :, : K // 2] *= 1e-6
        rates[0] *= 20
    Q = markov_chain.generator(rates)
    p = rng.dirichlet(np.ones(K))
    chain = markov_chain.RateChain(Q)
    np.testing.assert_allclose(chain.moved(p, dt_s), p @ expm(Q * dt_s), atol=1e-12, rtol=1e-9)
    if kind == "mixing":
        assert not chain._long


def test_prediction_is_not_kept_past_a_change_of_the_memory():
    """Two cameras whose frames enter the memory at one time."""
    model = ClassModel(("a", "b"), correlation_time_s=0.0, memory=1.0)
    kept, plain = ClassFilter(model), ClassFilter(model)
    for second in range(1, 6):
        for camera, p in (("left", 0.7), ("right", 0.4)):
            ours = kept.update(second * 10**9, np.array([p, 1 - p]), camera=camera)
            plain._prediction = None
            real = plain.update(second * 10**9, np.array([p, 1 - p]), camera=camera)
            plain._prediction = None
            assert ours.probabilities == pytest.approx(real.probabilities, abs=1e-12)


def test_matrices_of_long_intervals_are_few():
    chain = markov_chain.RateChain(markov_chain.generator(np.ones((3, 3))))
    for i in range(50):
        chain.moved(np.ones(3), 1000.0 + i)
    assert len(chain._long) <= 4


def test_transition_of_years_is_the_stationary_distribution():
    Q = markov_chain.generator(np.array([[0, 2.0], [1.0, 0]]))
    P = markov_chain.transition(Q, 1e9)
    np.testing.assert_allclose(P, [[1 / 3, 2 / 3]] * 2, atol=1e-12)
    np.testing.assert_allclose(markov_chain.stationary(Q, np.array([1.0, 0])), [1 / 3, 2 / 3])


def test_jump_generator_stays_as_long_as_asked():
    share = np.array([0.5, 0.3, 0.2])
    Q = markov_chain.jump_generator(share, 10.0)
    np.testing.assert_allclose(share @ Q, 0, atol=1e-15)  # what it tends to
    # Changes a second, over the states as frequent as they are: one in ten seconds.
    assert share @ -np.diagonal(Q) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "rates", [np.ones((2, 3)), np.array([[0, -1.0], [0, 0]]), np.full((2, 2), np.nan)]
)
def test_bad_rates_are_refused(rates):
    with pytest.raises(ConfigError, match="rate"):
        markov_chain.generator(rates)


# The recursion


def test_two_state_model_by_hand():
    """Russell and Norvig's umbrella world: stay 0.7 a day, umbrella 0.9 in rain and 0.2 in the dry."""
    day = math.log(2.5) / 2  # of the rate at which P(one day) is 0.7 and 0.3: (1 + e^-2r) / 2 = 0.7
    rates = np.array([[0, day], [day, 0]])
    np.testing.assert_allclose(
        markov_chain.transition(markov_chain.generator(rates), 1.0), [[0.7, 0.3], [0.3, 0.7]]
    )
    umbrella = np.array([0.9, 0.2])
    filter_ = ClassFilter(plain(rates=rates))
    first = filter_.update(0, umbrella / umbrella.sum())
    assert first.probabilities == pytest.approx([0.9 / 1.1, 0.2 / 1.1])  # 0.818
    # 0.627 = 0.7 * 0.818 + 0.3 * 0.182 before the second umbrella, 0.883 with it.
    second = filter_.update(S, umbrella / umbrella.sum())
    assert second.probabilities[0] == pytest.approx(0.883, abs=5e-4)
    rain = 0.9 * (0.7 * 9 / 11 + 0.3 * 2 / 11)
    dry = 0.2 * (0.3 * 9 / 11 + 0.7 * 2 / 11)
    assert second.probabilities[0] == pytest.approx(rain / (rain + dry), rel=1e-9)


def brute_force(model, stamps_s, posteriors):
    """Sums over every path of states: P(state of the last frame | all frames)."""
    Q = model.generator()[:-1, :-1] if model.unknown_prior == 0 else model.generator()
    k = len(model.labels)
    likelihood = posteriors / model.training_prior
    moved = [None, *(expm(Q * d) for d in np.diff(stamps_s))]
    total = np.zeros(k)
    for path in itertools.product(range(k), repeat=len(stamps_s)):
        weight = model.prior[path[0]] * likelihood[0, path[0]]
        for i in range(1, len(path)):
            weight *= moved[i][path[i - 1], path[i]] * likelihood[i, path[i]]
        total[path[-1]] += weight
    return total / total.sum()


@pytest.mark.parametrize("seed", range(5))
def test_irregular_frames_give_the_sum_over_all_paths(seed):
    rng = np.random.default_rng(seed)
    stamps_s = np.cumsum(rng.integers(1, 400, 6)) * 0.01
    posteriors = rng.dirichlet([0.7] * 3, 6).clip(1e-3)
    posteriors /= posteriors.sum(axis=1, keepdims=True)
    model = plain(
        ("a", "b", "c"),
        prior=rng.dirichlet([2, 2, 2]),
        training_prior=rng.dirichlet([5, 5, 5]),
        dwell_s=3.0,
    )
    filter_ = ClassFilter(model)
    for stamp, p in zip(stamps_s, posteriors, strict=True):
        belief = filter_.update(round(stamp * S), p)
    np.testing.assert_allclose(
        belief.probabilities, brute_force(model, stamps_s, posteriors), rtol=1e-6
    )


def test_posterior_is_divided_by_the_training_prior():
    """Nine in ten training images were of a: a frame that says 0.9 a says nothing."""
    model = plain(("a", "b"), training_prior=np.array([9, 1]), prior=np.array([0.5, 0.5]))
    belief = ClassFilter(model).update(0, np.array([0.9, 0.1]))
    assert belief.probabilities == pytest.approx([0.5, 0.5])


def test_class_that_does_not_exist_is_never_believed():
    filter_ = ClassFilter(ClassModel(("a", "b", "c"), prior=np.array([1, 1, 0])))
    for i in range(30):
        belief = filter_.update(i * S // 2, np.array([0.05, 0.05, 0.9]))
    assert belief.probabilities[2] == 0 and belief.known.sum() == pytest.approx(1)


# Frames that are alike


def test_first_frame_is_the_classifier_itself():
    p = np.array([0.7, 0.2, 0.1])
    belief = ClassFilter(ClassModel(("a", "b", "c"), unknown_prior=0)).update(5, p)
    assert belief.probabilities == pytest.approx(p)


@pytest.mark.parametrize("count", [2, 5, 40])
@pytest.mark.parametrize("apart_s", [0.05, 0.2, 2.0])
def test_same_frame_again_adds_what_the_best_average_of_correlated_frames_is_worth(count, apart_s):
    """Generalised least squares: n frames with covariance C are worth 1' C^-1 1; the class never changes."""
    model = ClassModel(("a", "b"), unknown_prior=0, correlation_time_s=2.0, memory=1, dwell_s=1e12)
    filter_ = ClassFilter(model)
    for i in range(count):
        belief = filter_.update(round(i * apart_s * S), np.array([0.55, 0.45]))
    lags = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    worth = np.linalg.inv(np.exp(-lags * apart_s / 2.0)).sum()
    odds = math.log(belief.probabilities[0] / belief.probabilities[1])
    assert odds == pytest.approx(math.log(0.55 / 0.45) * worth, rel=1e-6)


def test_frame_one_correlation_time_later_adds_what_two_correlated_frames_are_worth():
    """Frames of correlation rho are worth 2 / (1 + rho), e.g. 1.46 at 1 / e; the class never changes."""
    filter_ = ClassFilter(
        ClassModel(("a", "b"), unknown_prior=0, correlation_time_s=2.0, memory=1, dwell_s=1e12)
    )
    filter_.update(0, np.array([0.8, 0.2]))
    belief = filter_.update(2 * S, np.array([0.8, 0.2]))
    odds = math.log(belief.probabilities[0] / belief.probabilities[1])
    assert odds == pytest.approx(math.log(4) * 2 / (1 + math.exp(-1)), rel=1e-6)


def test_without_memory_it_is_the_classifier_itself():
    rng = np.random.default_rng(0)
    filter_ = ClassFilter(ClassModel(("a", "b", "c"), unknown_prior=0, memory=0))
    for i, p in enumerate(rng.dirichlet([0.5] * 3, 50).clip(1e-5)):
        belief = filter_.update(i * S // 10, p)
        assert belief.probabilities == pytest.approx(p / p.sum())


@pytest.mark.parametrize("memory", [0.15, 0.5])
def test_memory_tilts_a_frame_by_what_its_trust_allows(memory):
    """A minute of certainty of a, then one frame: the odds move by trust K / (1 - trust) + 1, not more."""
    filter_ = ClassFilter(ClassModel(("a", "b", "c"), unknown_prior=0, memory=memory, dwell_s=1e12))
    for i in range(600):
        filter_.update(i * S // 10, np.array([0.998, 0.001, 0.001]))
    belief = filter_.update(60 * S, np.array([0.2, 0.7, 0.1]))
    odds = belief.probabilities[0] / belief.probabilities[1]
    assert odds == pytest.approx(2 / 7 * (1 + 3 * memory / (1 - memory)), rel=1e-6)


def test_door_costs_no_more_than_the_trust_allows():
    """The class changes for good, and the classifier says so at once: no frame after it loses more."""
    model = ClassModel(tuple("abcdefghi"), unknown_prior=0)
    said = np.full((2, 9), 0.002)
    said[0, 0] = said[1, 1] = 0.984
    filter_ = ClassFilter(model)
    for i in range(300):
        filter_.update(i * S // 10, said[0])
    bound = 0.002 / 0.984 * (1 + 9 * model.memory / (1 - model.memory))
    losses = []
    for i in range(300, 330):
        p = filter_.update(i * S // 10, said[1]).probabilities
        losses.append(1 - p[1])
        assert p[0] / p[1] <= bound
    assert losses[-1] < 1 - 0.984 < losses[0]  # at first worse than the frame alone, soon better


def test_belief_does_not_depend_on_the_rate_of_the_frames():
    beliefs = []
    for rate in (5, 10, 50):
        filter_ = ClassFilter(ClassModel(("a", "b"), unknown_prior=0))
        for i in range(10 * rate + 1):
            belief = filter_.update(i * S // rate, np.array([0.8, 0.2]))
        beliefs.append(belief.probabilities[0])
    assert np.ptp(beliefs) < 1e-3 and 0.8 < beliefs[0] < 0.99


def test_a_wrong_second_does_not_become_a_certainty():
    """Ten frames in a row that are wrong: the plain model is certain of them, this one is not."""
    said = [np.array([0.95, 0.05])] * 100 + [np.array([0.1, 0.9])] * 10
    worst = {}
    for name, model in {
        "tempered": ClassModel(("a", "b"), unknown_prior=0, correlation_time_s=1.0),
        "plain": plain(("a", "b")),
    }.items():
        filter_ = ClassFilter(model)
        beliefs = [filter_.update(i * S // 10, p).probabilities[0] for i, p in enumerate(said)]
        worst[name] = beliefs[-1]
    assert worst["plain"] < 2e-3 and worst["tempered"] > 0.1


# Unknown


def test_refused_images_make_it_unknown_and_others_bring_it_back():
    filter_ = ClassFilter(ClassModel(("a", "b")))
    for i in range(50):
        belief = filter_.update(i * S // 10, np.array([0.55, 0.45]), refused=True)
    assert belief.top_k(2)[0].label == "unknown" and len(belief.top_k(2)) == 3
    assert belief.probabilities.sum() + belief.unknown == pytest.approx(1)
    for i in range(50, 80):
        belief = filter_.update(i * S // 10, np.array([0.97, 0.03]))
    assert [h.label for h in belief.top_k(2)] == ["a", "b"] and belief.unknown < 0.05


def test_refusal_weighs_as_the_shares_of_refused_images_say():
    model = ClassModel(("a", "b"), unknown_prior=0.2, refused_known=0.05, refused_unknown=0.6)
    belief = ClassFilter(model).update(0, np.array([0.5, 0.5]), refused=True)
    assert belief.unknown == pytest.approx(0.2 * 0.6 / (0.2 * 0.6 + 0.8 * 0.05))


# Several cameras


def test_independent_cameras_multiply_and_identical_ones_do_not():
    p, q = np.array([0.7, 0.3]), np.array([0.6, 0.4])
    for correlation, expected in ((0.0, 0.42 / (0.42 + 0.12)), (1.0, None)):
        model = ClassModel(("a", "b"), unknown_prior=0, camera_correlation=correlation)
        filter_ = ClassFilter(model)
        filter_.update(S, p, camera="front")
        belief = filter_.update(S, q, camera="rear")
        odds = math.sqrt(0.7 / 0.3 * 0.6 / 0.4)
        assert belief.probabilities[0] == pytest.approx(expected or odds / (1 + odds))


def test_camera_that_stopped_is_forgotten():
    filter_ = ClassFilter(ClassModel(("a", "b"), unknown_prior=0))
    alone = ClassFilter(ClassModel(("a", "b"), unknown_prior=0))
    filter_.update(0, np.array([0.01, 0.99]), camera="rear")
    for i in range(1, 600):
        belief = filter_.update(i * S // 10, np.array([0.7, 0.3]), camera="front")
        other = alone.update(i * S // 10, np.array([0.7, 0.3]), camera="front")
    assert belief.probabilities == pytest.approx(other.probabilities, abs=1e-3)


def test_cameras_that_see_the_same_remember_no_more_than_one_of_them():
    """Errors that all cameras share: three are one, at each time and in what is remembered."""
    model = ClassModel(("a", "b"), unknown_prior=0, camera_correlation=1.0, memory=0.9)
    one, three = ClassFilter(model), ClassFilter(model)
    for i in range(40):
        p = np.array([0.7, 0.3]) if i < 30 else np.array([0.3, 0.7])
        alone = one.update(i * S // 10, p, camera="0")
        for camera in "012":
            belief = three.update(i * S // 10, p, camera=camera)
        # While a new time's frames come in, those of the other cameras are still those of the time before.
        assert belief.probabilities == pytest.approx(alone.probabilities, abs=0.02)


def test_camera_that_is_always_late_counts_by_its_own_rate():
    """A second behind the other, ten times a second: worth what a punctual one is, near enough."""
    model = ClassModel(("a", "b"), unknown_prior=0, memory=1.0)
    beliefs = []
    for late_ns in (0, S // 2):
        filter_ = ClassFilter(model)
        for i in range(10, 60):
            filter_.update(i * S // 10, np.array([0.5, 0.5]), camera="front")
            belief = filter_.update(i * S // 10 - late_ns, np.array([0.6, 0.4]), camera="rear")
        beliefs.append(belief.probabilities[0])
    assert beliefs[1] == pytest.approx(beliefs[0], abs=0.03) and beliefs[0] > 0.7


def test_late_frame_of_another_camera_counts_at_the_newest_time():
    filter_ = ClassFilter(ClassModel(("a", "b"), unknown_prior=0))
    filter_.update(10 * S, np.array([0.5, 0.5]), camera="front")
    belief = filter_.update(10 * S - S // 20, np.array([0.9, 0.1]), camera="rear")
    assert belief.stamp_ns == 10 * S and belief.probabilities[0] > 0.7


# Faults


def test_bad_probabilities_are_refused_and_change_nothing():
    filter_ = ClassFilter(ClassModel(("a", "b")))
    before = filter_.update(0, np.array([0.7, 0.3])).probabilities
    for bad, reason in (
        ([np.nan, 1], "non_finite"),
        ([-0.1, 1.1], "non_finite"),
        ([0, 0], "non_finite"),
        ([1], "shape"),
    ):
        with pytest.raises(MeasurementError) as error:
            filter_.update(S, np.array(bad, float))
        assert error.value.reason == reason
    np.testing.assert_array_equal(filter_.at(0).probabilities, before)


def test_stamp_that_repeats_is_refused_and_one_that_jumps_back_starts_anew():
    filter_ = ClassFilter(ClassModel(("a", "b"), unknown_prior=0))
    for i in range(100):
        filter_.update(100 * S + i * S // 10, np.array([0.95, 0.05]))
    with pytest.raises(MeasurementError) as error:
        filter_.update(100 * S + 99 * S // 10, np.array([0.5, 0.5]))
    assert error.value.reason == "out_of_order" and filter_.resets == 0
    belief = filter_.update(S, np.array([0.4, 0.6]))
    assert filter_.resets == 1 and belief.probabilities == pytest.approx([0.4, 0.6])


def test_camera_that_lags_by_seconds_does_not_make_the_others_forget():
    filter_ = ClassFilter(ClassModel(("a", "b"), unknown_prior=0, memory=1.0))
    for i in range(100):
        filter_.update(i * S // 10, np.array([0.8, 0.2]), camera="front")
        if i > 40:
            late = filter_.update(i * S // 10 - 3 * S, np.array([0.5, 0.5]), camera="rear")
            # Its first frame may as well be a clock that went back.
            assert i == 41 or late.stamp_ns == i * S // 10
    assert filter_.resets == 1
    assert filter_.newest.probabilities[0] > 0.9


def test_certain_classifier_can_be_contradicted():
    filter_ = ClassFilter(ClassModel(("a", "b"), unknown_prior=0))
    for i in range(100):
        filter_.update(i * S // 10, np.array([1.0, 0.0]))
    belief = filter_.update(10 * S, np.array([0.0, 1.0]))
    assert belief.probabilities[1] > 0.9


def test_prior_from_outside_moves_the_belief_and_what_it_tends_to():
    model = ClassModel(("a", "b"), unknown_prior=0, dwell_s=5)
    filter_ = ClassFilter(model)
    filter_.update(0, np.array([0.5, 0.5]))
    filter_.change(replace(model, prior=np.array([0.9, 0.1])))
    assert filter_.at(0).probabilities == pytest.approx([0.9, 0.1])
    assert filter_.at(1000 * S).probabilities == pytest.approx([0.9, 0.1])
    with pytest.raises(ConfigError, match="prior"):
        filter_.change(replace(model, prior=np.array([0.0, 0.0])))


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"labels": ()}, "labels"),
        ({"labels": ("a", "a")}, "labels"),
        ({"prior": np.ones(3)}, "prior"),
        ({"training_prior": np.array([1.0, 0])}, "training_prior"),
        ({"dwell_s": 0.0}, "dwell_s"),
        ({"correlation_time_s": -1.0}, "correlation_time_s"),
        ({"memory": 1.5}, "memory"),
        ({"camera_correlation": 1.5}, "camera_correlation"),
        ({"unknown_prior": float("nan")}, "unknown_prior"),
        ({"rates": np.ones((3, 3))}, "rates"),
    ],
)
def test_bad_models_are_refused_by_name(values, word):
    with pytest.raises(ConfigError, match=word):
        ClassModel(**{"labels": ("a", "b"), **values})


def test_words_of_a_belief_are_one_distribution_in_falling_order():
    rng = np.random.default_rng(0)
    labels = tuple("abcde")
    for _ in range(200):
        p = rng.dirichlet(np.full(6, 0.5))
        belief = ClassBelief(0, labels, p[:5], p[5])
        for k in (1, 3, 5):
            said = belief.top_k(k)
            scores = [h.score for h in said]
            assert scores == sorted(scores, reverse=True) and sum(scores) <= 1 + 1e-9
            assert said[0].score == p.max()
            assert (said[0].label == "unknown") == (p[5] > p[:5].max())
            if k == 5 and said[0].label == "unknown":
                read, refused = from_hypotheses(labels, [(h.label, h.score) for h in said])
                assert read == pytest.approx(belief.known) and refused


def test_classification_of_the_best_few_is_completed():
    labels = ("a", "b", "c", "d")
    p, refused = from_hypotheses(labels, [("b", 0.6), ("a", 0.2)])
    assert p == pytest.approx([0.2, 0.6, 0.1, 0.1]) and not refused
    p, refused = from_hypotheses(labels, [("unknown", 0.4), ("b", 0.6), ("a", 0.4)])
    assert p == pytest.approx([0.4, 0.6, 0, 0]) and refused
    # As it is now, one distribution; and in any order.
    said = [("unknown", 0.6), ("b", 0.2), ("a", 0.1)]
    for results in (said, said[::-1]):
        p, refused = from_hypotheses(labels, results)
        assert p == pytest.approx([0.25, 0.5, 0.125, 0.125]) and refused
    # The filter's own words, where `unknown` is not the most probable.
    p, refused = from_hypotheses(labels, [("b", 0.5), ("unknown", 0.3), ("a", 0.2)])
    assert p == pytest.approx([2 / 7, 5 / 7, 0, 0]) and not refused
    p, refused = from_hypotheses(labels, [("unknown", 1.0)])
    assert p == pytest.approx([0.25] * 4) and refused
    for results in (
        [],
        [("x", 0.5)],
        [("a", float("nan"))],
        [("a", 0.5), ("a", 0.4)],
        [("unknown", 1.5), ("a", 0.5)],
        [("a", 0.9), ("b", 0.8)],
        [(label, 0.0) for label in labels],
    ):
        with pytest.raises(MeasurementError):
            from_hypotheses(labels, results)
