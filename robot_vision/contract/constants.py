"""Numbers of a head that are set after training: by name in the weights and in the graph."""

from __future__ import annotations

import re
from collections.abc import Collection

import torch
from torch import Tensor, nn

_INITIALISER = re.compile(r"network\.heads\.([^.]+)\.constants\.([^.]+)")


class Constants(nn.Module):
    """Buffers of ones, which a head has as `self.constants`.

    In the graph each is the initialiser `constants.HEAD.NAME`, and so it must meet data as it is: the
    exporter folds what it can compute from constants alone, a cast or a square root of one too.

    Args:
        shapes: name to shape.
    """

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_buffer(name, torch.ones(shape))

    def __getitem__(self, name: str) -> Tensor:
        """Returns a constant."""
        return self.get_buffer(name)


def graph_name(name: str) -> str | None:
    """Returns `constants.HEAD.NAME` for the exporter's name of a constant; None for another value's name."""
    found = _INITIALISER.fullmatch(name)
    return f"constants.{found[1]}.{found[2]}" if found else None


def name_in(names: Collection[str], wanted: str) -> str | None:
    """Returns under which name a file has a tensor; None for a constant that it lacks: all ones.

    Files from before there were constants lack them, or have them without the word.
    """
    if wanted in names or ".constants." not in wanted:
        return wanted
    old = wanted.replace(".constants.", ".")
    return old if old in names else None
