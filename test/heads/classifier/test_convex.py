"""A classifier's head at the minimum of its loss, with scikit-learn as the judge."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from robot_vision.heads.classifier.convex import STRENGTHS, fit_softmax, solve_softmax


def drawn(count, classes=3, features=8, seed=0, apart=1.0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = rng.normal(size=(classes, features)) * apart
    x = centres[labels] + rng.normal(size=(count, features))
    return torch.from_numpy(x), torch.from_numpy(labels)


def test_minimum_is_the_one_of_scikit_learn():
    x, y = drawn(90)
    found = fit_softmax(x, y, 3, 0.3, F.cross_entropy)
    expected = LogisticRegression(C=0.3, tol=1e-10, max_iter=5000).fit(x.numpy(), y.numpy())
    ours = torch.softmax(x @ found.weight.T + found.bias, dim=1).numpy()
    np.testing.assert_allclose(ours, expected.predict_proba(x.numpy()), atol=1e-4)


@pytest.mark.slow
def test_weights_are_those_of_the_features_as_they_are():
    x, y = drawn(60)
    folds = np.arange(60) % 5
    there, left_out, strength = solve_softmax(x, y, 3, folds, F.cross_entropy)
    units = torch.tensor([1e-3, 5.0, 1.0, 40.0, 1.0, 1.0, 0.2, 7.0], dtype=torch.float64)
    scaled, same, again = solve_softmax(x * units + 3, y, 3, folds, F.cross_entropy)
    assert strength == again and strength in STRENGTHS
    logits = (x @ there.weight.T + there.bias, (x * units + 3) @ scaled.weight.T + scaled.bias)
    torch.testing.assert_close(*(torch.softmax(z, dim=1) for z in logits), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        *(torch.softmax(z, dim=1) for z in (left_out, same)), atol=1e-3, rtol=0
    )


@pytest.mark.slow
def test_images_left_out_tell_noise_from_classes():
    folds = np.arange(120) % 5
    x, y = drawn(120, apart=2.0)
    _, left_out, _ = solve_softmax(x, y, 3, folds, F.cross_entropy)
    assert float((left_out.argmax(dim=1) == y).double().mean()) > 0.9
    noise, y = drawn(120, features=60, apart=0.0)
    _, left_out, strength = solve_softmax(noise, y, 3, folds, F.cross_entropy)
    assert float((left_out.argmax(dim=1) == y).double().mean()) < 0.5  # a third is chance
    assert strength <= 1e-2
