"""Enlargement of maps, for decoders of heads that answer for each pixel."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def enlarged(x: Tensor, size: Sequence[int]) -> Tensor:
    """Returns (N, C, h, w) in another size (h', w'), by bilinear interpolation between centres of pixels."""
    rows, columns = (int(side) for side in size)
    height, width = (int(side) for side in x.shape[2:])
    if (rows, columns) == (height, width):
        return x
    if (rows, columns) == (2 * height, 2 * width):
        # The same numbers, 3 to 4 times as fast: ONNX Runtime's fast kernel takes a factor, and no size.
        return F.interpolate(x, scale_factor=(2.0, 2.0), mode="bilinear", align_corners=False)
    return F.interpolate(x, size=(rows, columns), mode="bilinear", align_corners=False)
