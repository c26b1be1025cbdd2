"""True classes of pixels as a model numbers its own: by their names, whatever the ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError

NO_CLASS = 255  # of a pixel, where classes are ids
_UNNAMED = 254  # of ids without a name: no class of a model that has fewer


class ForeignClasses(ConfigError):
    """Data have none of a model's classes of pixels."""


class TrueIds(Protocol):
    """Stored ids, as images of files and messages are."""

    def load(self) -> NDArray[Any]:
        """Returns uint8 or uint16 (H, W)."""

    def encoded(self) -> bytes:
        """Returns what tells two of them apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Renumbered:
    """A true image whose ids are those of a model's classes, and 255 where it has no such class.

    Attributes:
        image: with ids of its own.
        table: uint8 (256,), the model's id of each.
        none: see `TrueImage`.
        unit: see `TrueImage`.
    """

    image: TrueIds
    table: NDArray[np.uint8]
    none: tuple[float, ...] = (float(NO_CLASS),)
    unit: float = 1.0

    def __str__(self) -> str:
        return str(self.image)

    def load(self) -> NDArray[Any]:
        """See `TrueImage.load`."""
        return np.asarray(self.table[np.minimum(self.image.load(), NO_CLASS)])

    def encoded(self) -> bytes:
        """Returns what tells two of them apart."""
        return self.image.encoded()


def renumbering(
    theirs: Mapping[int, str], ours: Sequence[str]
) -> tuple[NDArray[np.uint8], list[str]] | None:
    """Returns our id of each id, uint8 (256,), and the names that are none of ours; those have 255.

    None where no name is shared.
    """
    lost = [name for name in theirs.values() if name not in ours]
    if len(lost) == len(theirs):
        return None
    table = np.full(NO_CLASS + 1, _UNNAMED if len(ours) <= _UNNAMED else NO_CLASS, np.uint8)
    table[NO_CLASS] = NO_CLASS
    for i, name in theirs.items():
        if i < NO_CLASS:
            table[i] = ours.index(name) if name in ours else NO_CLASS
    return table, lost


def left_out(lost: Sequence[str]) -> list[str]:
    """Returns the note on classes that a model does not know, if there are any."""
    names = ", ".join(lost)
    return [f"pixels of classes that the model does not know are left out: {names}"] if lost else []


def none_shared(whose: str, word: str, theirs: Sequence[str], ours: Sequence[str]) -> str:
    """Returns what is wrong with data that have none of a model's classes of pixels."""
    return (
        f"{whose}'s classes of {word} are {', '.join(theirs[:5])}, and the model's "
        f"{', '.join(ours[:5])}: give data of what it was trained on, or of the same classes"
    )
