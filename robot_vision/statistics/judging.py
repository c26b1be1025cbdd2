"""Whether what was fitted helps images that it was not fitted on, by more than noise.

The same images have a loss before and after: what makes an image hard is then on both sides and cancels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of a normal distribution, 95 % lie below: what does not help is taken for a help in one case of twenty,
# and in far fewer where the fits that are judged are those of the other folds.
SURE = 1.645
LEAST_PROBABILITY = 1e-38  # about float32's smallest: a probability that was rounded to 0 was not 0


@dataclass(frozen=True)
class Judgement:
    """Mean losses of the same images without and with a change.

    Attributes:
        before: as it is.
        after: changed, on images left out.
        noise: standard error of their difference; infinite where there is too little to tell.
    """

    before: float
    after: float
    noise: float

    @property
    def worse(self) -> bool:
        """Whether the change does not help at all."""
        return not self.after < self.before

    @property
    def better(self) -> bool:
        """Whether the change helps by more than noise."""
        return self.after - self.before + SURE * self.noise < 0

    def __str__(self) -> str:
        """Both numbers, and the noise of their difference."""
        return (
            f"{self.after:.4f} on images left out, and {self.before:.4f} without it (difference "
            f"{self.after - self.before:+.4f}, standard error {self.noise:.4f})"
        )


def judge(before: NDArray[Any], after: NDArray[Any], blocks: NDArray[Any]) -> Judgement:
    """Compares losses (n,) of the same images.

    Args:
        before: as it is.
        after: changed, each by a fit that did not see the image.
        blocks: (n,), which images are alike and so count as one: block of time, or the image's number.
    """
    difference = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    which = np.unique(blocks, return_inverse=True)[1].reshape(-1)
    count = int(which.max()) + 1 if len(which) else 0
    noise = np.inf
    if count > 1:
        excess = np.bincount(which, weights=difference - difference.mean())
        noise = float(np.sqrt((excess**2).sum() * count / (count - 1))) / len(difference)
    return Judgement(float(np.mean(before)), float(np.mean(after)), noise)


def log_loss(probability: NDArray[Any]) -> NDArray[np.float64]:
    """Returns minus the logarithm (n,) of the probability that was given to what is true."""
    return -np.log(np.maximum(np.asarray(probability, np.float64), LEAST_PROBABILITY))


def cross_fit(
    folds: NDArray[np.int64], rows: NDArray[np.bool_], make: Callable[[NDArray[np.bool_]], Any]
) -> list[tuple[NDArray[np.bool_], Any]]:
    """Returns for each fold its rows, and what `make` fitted on the rows of the other folds."""
    parts = []
    for number in np.unique(folds[rows]):
        asked = rows & (folds == number)
        seen = rows & (folds != number)
        parts.append((asked, make(seen if seen.any() else rows)))
    return parts
