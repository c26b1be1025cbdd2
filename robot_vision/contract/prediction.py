"""Results of one frame, as the rest of the world sees them: plain NumPy, no engine, no ROS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from robot_vision.contract.head import Answer
from robot_vision.errors import ConfigError


@dataclass(frozen=True)
class Prediction(Mapping[str, Any]):
    """What the network says of one image: a mapping of heads' names to their answers.

    Attributes:
        answers: head's name to its answer, in the order of `NetworkSpec.heads`; a head that the bundle
            lacks is absent.
    """

    answers: Mapping[str, Answer] = field(default_factory=dict)

    def __getitem__(self, head: str) -> Any:
        """Returns the answer of a head.

        Raises:
            ConfigError: the bundle lacks it; `get` returns None.
        """
        if head not in self.answers:
            known = ", ".join(self.answers)
            raise ConfigError(f"The model has no head {head!r}: it answers with {known}")
        return self.answers[head]

    def __contains__(self, head: object) -> bool:
        return head in self.answers

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)

    def get(self, head: str, default: Any = None) -> Any:
        """Returns the answer of a head, or `default`."""
        return self.answers.get(head, default)

    def not_finite(self) -> str:
        """Returns why nobody may be given this: an answer with NaN or infinity, of a network that overflowed.

        Empty where all is well.
        """
        return next((bad for a in self.answers.values() if (bad := a.not_finite())), "")
