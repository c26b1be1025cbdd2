import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from network_helpers import distinct_batch, small_network, torch
from scipy.special import logsumexp, softmax

from robot_vision.heads.classifier.network import ClassifierHead
from robot_vision.heads.classifier.spec import ClassifierSpec

LABELS = tuple("abcde")


def head(**settings):
    torch.manual_seed(0)
    return ClassifierHead(ClassifierSpec(LABELS, **settings), 8).eval()


@pytest.mark.slow
@given(st.integers(0, 10_000), st.floats(0.05, 50))
def test_probabilities_are_softmax_with_temperature(seed, temperature):
    logits = np.random.default_rng(seed).normal(0, 10, (3, 5)).astype(np.float32)
    out = head(temperature=temperature).decode({"logits": torch.from_numpy(logits)})
    expected = softmax(logits.astype(np.float64) / temperature, axis=1)
    np.testing.assert_allclose(out["probabilities"], expected, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(out["probabilities"].sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_known_score_is_the_one_named(temperature):
    logits = np.random.default_rng(1).normal(0, 3, (4, 5))
    raw = {"logits": torch.from_numpy(logits).float()}
    scores = {
        "max_probability": softmax(logits / temperature, axis=1).max(1),
        "max_logit": logits.max(1),
        "energy": temperature * logsumexp(logits / temperature, axis=1),
    }
    for score, expected in scores.items():
        known = head(score=score, temperature=temperature).decode(raw)["known_score"]
        assert known.shape == (4,)
        np.testing.assert_allclose(known, expected, rtol=1e-5)


def test_huge_logits_stay_finite():
    out = head(score="energy").decode({"logits": torch.tensor([[3e38, -3e38, 0, 1, 2]])})
    assert all(value.isfinite().all() for value in out.values())
    assert out["probabilities"][0].tolist() == [1, 0, 0, 0, 0]


def test_feature_map_is_averaged():
    features = torch.randn(2, 8, 3, 4)
    module = head()
    by_hand = module.linear(features.mean((2, 3)))
    assert torch.allclose(module(features)["logits"], by_hand, atol=1e-6)
    assert torch.equal(module(features)["logits"], module(features.mean((2, 3)))["logits"])


def test_dropout_acts_while_training_only():
    module, features = head(dropout=0.5), torch.ones(64, 8)
    assert torch.equal(module(features)["logits"][0], module(features)["logits"][1])
    module.train()
    logits = module(features)["logits"]
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.slow
def test_one_batch_is_overfit():
    spec = ClassifierSpec(tuple("abc"), tap="layer2")
    network = small_network(size=32, classifier=spec, pose=None, place=None)
    images, labels = distinct_batch(6), torch.tensor([0, 1, 2, 2, 1, 0])
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(25):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            network.raw(images)["classifier"]["logits"], labels
        )
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.05
    assert network(images)["probabilities"].argmax(1).equal(labels)
