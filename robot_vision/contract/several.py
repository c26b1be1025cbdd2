"""Several answers of one head brought together: their mean, and what they disagree about.

An answer is a pass through the head with some of its units dropped (Gal and Ghahramani, "Dropout as a
Bayesian Approximation", ICML 2016), or a head of an ensemble (Lakshminarayanan et al., "Simple and Scalable
Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS 2017). S answers are S samples of what the
training data leave open. All of it is arithmetic that ONNX has, so it is part of the exported graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def join_answers(
    answers: Sequence[Mapping[str, Tensor]], samples: Mapping[str, str]
) -> dict[str, Tensor]:
    """Brings the raw outputs of an ensemble's heads together.

    Args:
        answers: of each member, with or without passes of its own.
        samples: what a head computes, to the name of the same of several answers (N, S, ...).

    Returns:
        The first one's, and all answers (N, S, ...).
    """
    raw = dict(answers[0])
    for name, sample in samples.items():
        if name in raw:
            each = [a[sample] if sample in a else a[name].unsqueeze(1) for a in answers]
            raw[sample] = torch.cat(each, dim=1)
    return raw


def dropout_masks(passes: int, units: int, rate: float, seed: int) -> Tensor:
    """Draws which units each pass keeps, once and for all.

    The masks are constants of the graph: the same image gives the same answer on every engine, on the robot
    and on its recording. They are drawn in strata, so that few passes tell as much as many independent
    ones: each unit is dropped in `rate * passes` of the passes, up to the next whole number above or below,
    and is scaled where it is kept so that its mean over the passes is 1. A layer that is linear in the units
    then gives, on the mean of the passes, exactly what it gives without dropout, and the variance over the
    passes (divided by their number) is that of independent dropout in expectation, to first order.

    Args:
        passes: S, at least 2.
        units: C.
        rate: probability that a unit is dropped, in (0, 1).
        seed: of the draw.

    Returns:
        (S, C), float32, on the CPU.
    """
    assert passes >= 2 and 0 < rate < 1
    # Its stream is frozen: NumPy promises that of no Generator
    random = np.random.RandomState(seed)
    expected = rate * passes
    dropped = np.floor(expected) + (random.random_sample(units) < expected % 1.0)
    dropped = np.minimum(dropped, passes - 1)  # each unit is kept at least once
    order = random.random_sample((passes, units)).argsort(axis=0).argsort(axis=0)
    kept = order >= dropped  # (S, C)
    return torch.from_numpy((kept * (passes / (passes - dropped))).astype(np.float32))
