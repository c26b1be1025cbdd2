"""Exponential moving average of a network's weights, which is what is evaluated and exported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from robot_vision.errors import ConfigError


class WeightAverage:
    """Keeps `average = d average + (1 - d) weights`, as in Polyak averaging.

    d grows to `decay` as `(1 + step) / (10 + step)`, so that the random start is forgotten and short runs
    are averaged too. Buffers that are not floating point (counters) are copied, and so are weights that
    do not train: an average of equal numbers would drift by rounding.

    Args:
        module: whose weights are averaged.
        decay: in [0, 1): 0.999 averages over about the last 1000 steps.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"average decay is {decay}: it must be in [0, 1)")
        self.decay = decay
        self.step = 0
        self.average = {key: value.detach().clone() for key, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Takes in the weights after a training step."""
        self.step += 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        frozen = {key for key, p in module.named_parameters() if not p.requires_grad}
        floats: tuple[list[Tensor], list[Tensor]] = ([], [])
        for key, value in module.state_dict().items():
            own = self.average[key]
            if own.is_floating_point() and key not in frozen:
                floats[0].append(own)
                floats[1].append(value.detach())
            else:
                own.copy_(value)
        if floats[0]:
            torch._foreach_lerp_(floats[0], floats[1], 1 - decay)

    @contextlib.contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Puts the average into the module for a while."""
        own = {key: value.detach().clone() for key, value in module.state_dict().items()}
        module.load_state_dict(self.average)
        try:
            yield
        finally:
            module.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """Returns the step and the average."""
        return {"step": self.step, "average": dict(self.average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.step = int(state["step"])
        for key, value in state["average"].items():
            self.average[key].copy_(value)
