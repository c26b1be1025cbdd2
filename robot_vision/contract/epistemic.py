"""Several answers of a head to one image."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.settings.checks import require

MAX_PASSES = 256


MAX_MEMBERS = 32


@dataclass(frozen=True)
class EpistemicSpec:
    """Several answers of classifier and pose head to one run of the backbone.

    Where they disagree, the training data left the answer open.

    Attributes:
        passes: Monte Carlo dropout passes through each head, by masks that are part of the graph; 0 for
            none.
        members: heads on the one backbone, each trained from its own seed; 1 for the head alone.
        seed: of the masks.
    """

    passes: int = 0
    members: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            self.passes == 0 or 2 <= self.passes <= MAX_PASSES,
            "epistemic passes",
            self.passes,
            f"0, or from 2 to {MAX_PASSES}",
        )
        require(
            1 <= self.members <= MAX_MEMBERS,
            "epistemic members",
            self.members,
            f"from 1 to {MAX_MEMBERS}",
        )
        require(
            self.passes > 0 or self.members > 1,
            "epistemic",
            (self.passes, self.members),
            "several passes or several members; leave it out for a single answer",
        )
        require(0 <= self.seed < 2**32, "epistemic seed", self.seed, "from 0 to 2^32 - 1")

    @property
    def samples(self) -> int:
        """How many answers a head gives to an image."""
        return max(self.passes, 1) * self.members
