"""Maps are enlarged by bilinear interpolation, whichever kernel does it."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from robot_vision.backbones.enlarging import enlarged  # noqa: E402


def interpolated(image, size):
    """Returns an image (h, w) in another size by the definition: weights of the two nearest pixel centres."""
    for axis, count in enumerate(size):
        have = image.shape[axis]
        at = np.clip((np.arange(count) + 0.5) * have / count - 0.5, 0, have - 1)
        low = np.floor(at).astype(int)
        high, share = np.minimum(low + 1, have - 1), at - low
        share = share.reshape((-1, 1) if axis == 0 else (1, -1))
        image = image.take(low, axis) * (1 - share) + image.take(high, axis) * share
    return image


@pytest.mark.parametrize("size", [(10, 14), (5, 7), (10, 13), (17, 9)])  # the first is the double
def test_enlarging_interpolates_between_the_centres_of_pixels(size):
    image = np.random.default_rng(0).normal(size=(5, 7))
    found = enlarged(torch.from_numpy(image)[None, None], size)[0, 0].numpy()
    np.testing.assert_allclose(found, interpolated(image, size), atol=1e-12)
