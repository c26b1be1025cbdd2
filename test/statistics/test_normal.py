"""Functions of the normal distribution, held against SciPy."""

import numpy as np
from scipy.special import ndtr

from robot_vision.statistics.normal import normal_cdf


def test_normal_distribution_function_is_scipys():
    x = np.concatenate([np.linspace(-36, 9, 20001), np.random.default_rng(0).normal(size=1000)])
    np.testing.assert_allclose(normal_cdf(x), ndtr(x), rtol=2e-7)
    np.testing.assert_allclose(normal_cdf(np.array([-np.inf, 0.0, np.inf])), [0, 0.5, 1], atol=1e-7)
    assert normal_cdf(x[:21000].reshape(3, 7000)).shape == (3, 7000)
