"""Adaptive average pooling as two matrix products, which ONNX can express for every size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def pooling_matrix(size: int, bins: int) -> Tensor:
    """Returns (bins, size): row i averages the inputs from floor(i s / b) to ceil((i + 1) s / b)."""
    matrix = torch.zeros(bins, size)
    for i in range(bins):
        start, stop = i * size // bins, -(-(i + 1) * size // bins)
        matrix[i, start:stop] = 1.0 / (stop - start)
    return matrix


class ExactPool(nn.Module):
    """`nn.AdaptiveAvgPool2d` for one input size: rows @ x @ columns."""

    rows: Tensor
    columns: Tensor

    def __init__(self, size: tuple[int, int], bins: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("rows", pooling_matrix(size[0], bins[0]), persistent=False)
        self.register_buffer("columns", pooling_matrix(size[1], bins[1]).T, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Pools (N, C, H, W) to (N, C, *bins)."""
        return self.rows @ x @ self.columns


@contextlib.contextmanager
def exact_pooling(network: nn.Module, images: Tensor) -> Iterator[None]:
    """Replaces, for a while, the adaptive poolings that ONNX has no operator for.

    ONNX can pool to one value, or to bins that divide the input evenly. AlexNet pools to 6 x 6 and VGG to
    7 x 7 whatever comes in, so at other sizes than 224 x 224 it cannot.

    Args:
        network: its inputs' sizes at each pooling are found by running it once.
        images: what to run it on.
    """
    sizes: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}

    def remember(name: str, module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        sizes[name] = (tuple(args[0].shape[-2:]), tuple(out.shape[-2:]))  # type: ignore[assignment]

    handles = [
        module.register_forward_hook(lambda m, a, o, n=name: remember(n, m, a, o))
        for name, module in network.named_modules()
        if isinstance(module, nn.AdaptiveAvgPool2d)
    ]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    uneven = {n: s for n, s in sizes.items() if any(i % b for i, b in zip(*s, strict=True))}
    originals = {name: network.get_submodule(name) for name in uneven}
    try:
        for name, (size, bins) in uneven.items():
            _replace(network, name, ExactPool(size, bins))
        yield
    finally:
        for name, original in originals.items():
            _replace(network, name, original)


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
