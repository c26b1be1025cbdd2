"""Rounds a convolution's weights to 8 bits, so that no pair of products overflows 16 bits.

CPUs without VNNI multiply unsigned activations by signed weights and add two neighbouring products in 16
bits, which saturate (vpmaddubsw). At the worst both inputs are 255, so that two neighbouring weights of one
sign may be 128 together. Weights of 7 bits keep to it each by itself, but most pairs leave room.

What rounding one weight costs is given back by those that are rounded after it, as far as their inputs go
together.

Source: Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", algorithm 1; Intel's manual of instructions, PMADDUBSW.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LARGEST = 127
PAIR = 32767 // 255  # two weights of one sign together
_TOGETHER = 4  # inputs that kernels keep side by side, whichever two of them they add
_SHARES = np.geomspace(1, 0.45, 9)
_DAMPING = 0.01
_MOST = 1024  # weights whose inputs' moments are looked at together
# How many of them get an error at once; the others get the errors of these in one product
_SOON = 32

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]


def blocks_of(inputs: int, window: int) -> list[tuple[int, int]]:
    """Returns first and end of inputs (channels) that are looked at together.

    Args:
        inputs: of an output.
        window: weights for each.
    """
    size = max(_TOGETHER, _MOST // window // _TOGETHER * _TOGETHER)
    return [(start, min(start + size, inputs)) for start in range(0, inputs, size)]


def round_weights(
    weights: Array, moments: Sequence[Array], least: Array, pairs: bool
) -> tuple[NDArray[np.int8], Array]:
    """Returns weights as integers, (G, R, K), and the scale of each output, (G, R).

    Args:
        weights: (G, R, C, kh, kw): of each group of a convolution its outputs and their inputs.
        moments: (G, k, k) for each block of inputs (`blocks_of`), mean products of what weights are
            multiplied by; their k add up to K = C * kh * kw.
        least: (G, R), scales that are too small for something else.
        pairs: keep pairs from overflowing.
    """
    flat = weights.reshape(*weights.shape[:2], -1)
    mates = neighbours(*weights.shape[2:]) if pairs else [np.empty(0, np.int64)] * flat.shape[2]
    power = np.concatenate([np.einsum("gkk->gk", block) for block in moments], axis=1)
    scale = _best_scale(flat, power, least, mates, pairs)
    found = np.zeros_like(flat)
    start = 0
    for block in moments:
        damping = np.maximum(_DAMPING * np.einsum("gkk->g", block) / block.shape[1], 1e-12)
        inverse = np.linalg.inv(block + damping[:, None, None] * np.eye(block.shape[1]))
        upper = np.linalg.cholesky(inverse).transpose(0, 2, 1)
        left = flat[:, :, start : start + block.shape[1]].copy()
        for first in range(0, block.shape[1], _SOON):
            end = min(first + _SOON, block.shape[1])
            errors = np.empty((*scale.shape, end - first))
            for k in range(first, end):
                low, high = _limits(found, mates[start + k][None])
                whole = np.clip(np.rint(left[:, :, k] / scale), low[:, :, 0], high[:, :, 0])
                error = (left[:, :, k] - whole * scale) / upper[:, None, k, k]
                left[:, :, k + 1 : end] -= error[:, :, None] * upper[:, None, k, k + 1 : end]
                errors[:, :, k - first] = error
                found[:, :, start + k] = whole
            left[:, :, end:] -= errors @ upper[:, first:end, end:]
        start += block.shape[1]
    return found.astype(np.int8), scale


def neighbours(inputs: int, height: int, width: int) -> list[Numbers]:
    """Returns for each weight of an output those before it that a kernel may add to it, by their numbers.

    Kernels keep four channels of one pixel together, or write the window out as a row, channels first or
    last, and take four of it together.
    """
    order = np.arange(inputs * height * width).reshape(inputs, height * width)
    rows = [*order.T, order.T.reshape(-1), order.reshape(-1)]
    found: list[set[int]] = [set() for _ in range(order.size)]
    for row in rows:
        for start in range(0, len(row), _TOGETHER):
            four = row[start : start + _TOGETHER].tolist()
            for i in four:
                found[i].update(j for j in four if j < i)
    return [np.array(sorted(those), np.int64) for those in found]


def _limits(found: Array, mates: Numbers) -> tuple[Array, Array]:
    """Returns the least and the largest integers (G, R, n) that weights may be next to their mates (n, m)."""
    if not mates.shape[1]:
        size = (*found.shape[:2], len(mates))
        return np.full(size, -float(LARGEST)), np.full(size, float(LARGEST))
    around = found[:, :, mates]
    return (
        np.maximum(-LARGEST, -PAIR - np.minimum(around.min(axis=3), 0)),
        np.minimum(LARGEST, PAIR - np.maximum(around.max(axis=3), 0)),
    )


def _best_scale(
    flat: Array, power: Array, least: Array, mates: Sequence[Numbers], pairs: bool
) -> Array:
    """Returns the scales (G, R) whose rounding errors, weighted by the inputs' power, are the least."""
    # Weights that can be rounded at once: all of whose mates were rounded before.
    depth = np.zeros(len(mates), np.int64)
    for k, those in enumerate(mates):
        depth[k] = depth[those].max() + 1 if len(those) else 0
    kinds: dict[tuple[int, int], list[int]] = {}
    for k, those in enumerate(mates):
        kinds.setdefault((int(depth[k]), len(those)), []).append(k)
    largest = np.abs(flat).max(axis=2) / LARGEST
    widest = 2 * LARGEST / PAIR * largest if pairs else largest  # no pair can overflow
    best = np.full(largest.shape, np.inf)
    scale = np.ones_like(best)
    for share in _SHARES:
        tried = np.maximum(widest * share, least)
        tried = np.where(tried > 0, tried, 1)
        found = np.rint(flat / tried[:, :, None])
        for _, together in sorted(kinds.items()):
            low, high = _limits(found, np.stack([mates[k] for k in together]))
            found[:, :, together] = np.clip(found[:, :, together], low, high)
        error = ((flat - found * tried[:, :, None]) ** 2 * power[:, None]).sum(axis=2)
        scale = np.where(error < best, tried, scale)
        best = np.minimum(error, best)
    return scale
