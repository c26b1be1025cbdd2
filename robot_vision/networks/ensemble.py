"""Networks that answer several times from one run of the backbone: Monte Carlo dropout, ensembles of heads.

`NetworkSpec.epistemic` says how often. Both may be combined: every member then makes every pass.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.networks.network import MultiHeadNetwork


def with_monte_carlo(network: MultiHeadNetwork, passes: int, seed: int = 0) -> MultiHeadNetwork:
    """Returns a copy whose heads make this many passes with dropout, where they can; 0 takes them away.

    Args:
        network: any; it is not changed.
        passes: at least 2, or 0.
        seed: of the masks.

    Raises:
        ConfigError: a head was trained without dropout.
    """
    old = network.spec.epistemic
    members = old.members if old else 1
    return _rebuilt(network, passes, members, seed)


def with_members(
    network: MultiHeadNetwork, others: Sequence[Mapping[str, nn.Module]]
) -> MultiHeadNetwork:
    """Returns a copy that has further heads next to its own, as an ensemble.

    Args:
        network: its heads are the first members; it is not changed.
        others: for each further member, names to trained heads of the same settings;
            a head that one lacks is the network's own.
    """
    old = network.spec.epistemic
    passes, seed = (old.passes, old.seed) if old else (0, 0)
    result = _rebuilt(network, passes, 1 + len(others), seed)
    for member, trained in zip(result.members, others, strict=True):
        _take(member, {**network.heads, **trained})
    return result


def _rebuilt(network: MultiHeadNetwork, passes: int, members: int, seed: int) -> MultiHeadNetwork:
    result = copy.deepcopy(network)
    epistemic = EpistemicSpec(passes, members, seed) if passes or members > 1 else None
    result.spec = replace(network.spec, epistemic=epistemic)
    result.build_epistemic()
    return result.train(network.training)


def _take(member: Any, trained: Mapping[str, nn.Module]) -> None:
    """Puts trained weights into a member; masks are its own."""
    for name, head in member.items():
        state = {k: v for k, v in trained[name].state_dict().items() if k != "masks"}
        head.load_state_dict({**head.state_dict(), **state})
