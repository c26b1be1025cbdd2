"""Cross-entropy with weights, smoothing and soft targets, against its formula and torch's own."""

import numpy as np
import pytest
import torch
from loss_oracles import loss_names, make_loss
from torch.nn import functional as F

from robot_vision.errors import ConfigError
from robot_vision.heads.classifier.loss import class_weights

N, K = 7, 4
WEIGHTS = (0.5, 1.0, 2.0, 0.7)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def formula(logits, targets, weights, smoothing):
    top, bottom = 0.0, 0.0
    for z, t in zip(logits, targets, strict=True):
        p = np.exp(z - z.max())
        p /= p.sum()
        for k in range(len(z)):
            q = (1 - smoothing) * t[k] + smoothing / len(z)
            top -= weights[k] * q * np.log(p[k])
            bottom += weights[k] * t[k]
    return top / bottom


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_hard_labels_are_the_formula_and_torchs_own(rng, weights, smoothing):
    logits, label = (
        torch.from_numpy(rng.normal(size=(N, K))),
        torch.from_numpy(rng.integers(0, K, N)),
    )
    loss = make_loss(
        "classifier", "cross_entropy", class_weights=weights, label_smoothing=smoothing
    )
    ours = float(loss({"logits": logits}, {"label": label}).total)
    targets = np.eye(K)[label.numpy()]
    assert ours == pytest.approx(formula(logits.numpy(), targets, weights or [1] * K, smoothing))
    w = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    theirs = F.cross_entropy(logits, label, w, label_smoothing=smoothing)
    assert ours == pytest.approx(float(theirs), rel=1e-6)


def test_soft_labels_are_the_formula(rng):
    logits, soft = rng.normal(size=(N, K)), rng.dirichlet(np.ones(K), N)
    loss = make_loss("classifier", "cross_entropy", class_weights=WEIGHTS, label_smoothing=0.05)
    batch = {"label": torch.zeros(N, dtype=torch.int64), "soft_label": torch.from_numpy(soft)}
    ours = float(loss({"logits": torch.from_numpy(logits)}, batch).total)
    assert ours == pytest.approx(formula(logits, soft, WEIGHTS, 0.05), rel=1e-6)


def test_soft_labels_of_one_class_each_are_hard_labels(rng):
    logits, label = (
        torch.from_numpy(rng.normal(size=(N, K))),
        torch.from_numpy(rng.integers(0, K, N)),
    )
    label[2] = -1
    soft = F.one_hot(label.clamp(min=0), K).double() * (label >= 0)[:, None]
    loss = make_loss("classifier", "cross_entropy", class_weights=WEIGHTS)
    hard = loss({"logits": logits}, {"label": label}).total
    torch.testing.assert_close(
        loss({"logits": logits}, {"label": label, "soft_label": soft}).total, hard
    )


def test_gradients_are_those_of_finite_differences(rng):
    logits = torch.from_numpy(rng.normal(size=(N, K))).requires_grad_()
    loss = make_loss("classifier", "cross_entropy", class_weights=WEIGHTS, label_smoothing=0.1)
    batch = {"label": torch.tensor([0, 1, 2, 3, -1, 0, 1])}
    assert torch.autograd.gradcheck(lambda z: loss({"logits": z}, batch).total, (logits,))


def test_unlabelled_samples_change_nothing_and_alone_give_zero_with_a_graph(rng):
    logits = torch.from_numpy(rng.normal(size=(N, K)))
    label = torch.tensor([0, 1, 2, 3, 1, -1, -1])
    loss = make_loss("classifier", "cross_entropy")
    expected = loss({"logits": logits[:5]}, {"label": label[:5]}).total
    logits[5:] = torch.nan
    torch.testing.assert_close(loss({"logits": logits}, {"label": label}).total, expected)
    logits = torch.full((2, K), torch.inf, requires_grad=True)
    value = loss({"logits": logits}, {"label": label[5:]})
    value.total.backward()
    assert float(value.total.detach()) == 0 and torch.equal(logits.grad, torch.zeros(2, K))


def test_accuracy_is_logged_and_half_precision_is_not_computed_in(rng):
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [5.0, 1.0]], dtype=torch.bfloat16)
    value = make_loss("classifier", "cross_entropy")(
        {"logits": logits}, {"label": torch.tensor([0, 1, 1])}
    )
    assert float(value.parts["accuracy"]) == pytest.approx(2 / 3)
    assert value.total.dtype == torch.float32


def test_class_weights_follow_their_rules():
    counts = np.array([10, 40, 50])
    inverse = np.array(class_weights(counts, "inverse"))
    np.testing.assert_allclose(inverse * counts, inverse[0] * 10)  # all classes count alike
    assert (inverse * counts).sum() / counts.sum() == pytest.approx(1)
    half = np.array(class_weights(counts, "sqrt_inverse"))
    np.testing.assert_allclose(half**2 * counts, half[0] ** 2 * 10)
    b = 1 - 1 / 100
    effective = (1 - b) / (1 - b**counts)
    ours = np.array(class_weights(counts, "effective"))
    np.testing.assert_allclose(ours / ours[0], effective / effective[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing": 1.0}, r"in \[0, 1\)"),
        ({"class_weights": [1.0, 0.0]}, "positive"),
        ({"label_smothing": 0.1}, "did you mean 'label_smoothing'"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_loss("classifier", "cross_entropy", **settings)


def test_wrong_number_of_class_weights_is_named():
    loss = make_loss("classifier", "cross_entropy", class_weights=[1.0, 2.0])
    with pytest.raises(ConfigError, match="2 numbers for 4 classes"):
        loss({"logits": torch.zeros(2, 4)}, {"label": torch.zeros(2, dtype=torch.int64)})


def test_empty_classes_and_unknown_rules_are_named():
    with pytest.raises(ConfigError, match="at least one training sample"):
        class_weights([3, 0])
    with pytest.raises(ConfigError, match="did you mean 'inverse'"):
        class_weights([3, 1], "invers")


def test_names_are_listed():
    assert loss_names("classifier") == ("cross_entropy",)
