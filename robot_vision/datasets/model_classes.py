"""A data set's classes of pixels as a model numbers its own: by their names, whatever the ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.sample import NO_CLASS, PixelClasses, Sample, Splits, TruthImage


@dataclass(frozen=True, slots=True, eq=False)
class Renumbered:
    """A `TruthImage` whose ids are those of a model's classes, and 255 where it has no such class.

    Attributes:
        image: with ids of the data set's classes.
        table: uint8 (256,), the model's id of each.
        none: see `TruthImage`.
        unit: see `TruthImage`.
    """

    image: TruthImage
    table: NDArray[np.uint8]
    none: tuple[float, ...] = (float(NO_CLASS),)
    unit: float = 1.0

    def __str__(self) -> str:
        return str(self.image)

    def load(self) -> NDArray[Any]:
        """See `TruthImage.load`."""
        return np.asarray(self.table[np.minimum(self.image.load(), NO_CLASS)])

    def encoded(self) -> bytes:
        """See `TruthImage.encoded`."""
        return self.image.encoded()


def renumbering(
    theirs: Sequence[str], ours: Sequence[str]
) -> tuple[NDArray[np.uint8], list[str]] | None:
    """Returns our id of each of their ids, uint8 (256,), and their names that are none of ours.

    None where no name is shared.
    """
    lost = [name for name in theirs if name not in ours]
    if len(lost) == len(theirs):
        return None
    table = np.full(NO_CLASS + 1, NO_CLASS, np.uint8)
    for i, name in enumerate(theirs):
        if name in ours:
            table[i] = ours.index(name)
    return table, lost


def left_out(lost: Sequence[str]) -> list[str]:
    """Returns the note on classes that a model does not know, if there are any."""
    names = ", ".join(lost)
    return [f"pixels of classes that the model does not know are left out: {names}"] if lost else []


def none_shared(word: str, theirs: Sequence[str], ours: Sequence[str]) -> str:
    """Returns what is wrong with a data set that has none of a model's classes of pixels."""
    return (
        f"The data set's classes of {word} are {', '.join(theirs[:5])}, and the model's "
        f"{', '.join(ours[:5])}: give the data set that it was trained on, or one of the same classes"
    )


def in_classes_of(splits: Splits, classes: Mapping[str, Sequence[str]]) -> Splits:
    """Returns a data set whose true ids of pixels are those of a model's classes.

    Args:
        splits: the data set.
        classes: the model's, by the word of truth; of a word without, nothing changes.

    Returns:
        The data set, with what was left out in its notes: classes that the model lacks, and the truth of a
        word of which it has none.
    """
    pixel_classes, notes = dict(splits.pixel_classes), list(splits.notes)
    tables: dict[str, NDArray[np.uint8] | None] = {}
    for word, own in splits.pixel_classes.items():
        ours = tuple(classes.get(word, ()))
        if not ours or ours == own.names:
            continue
        found = renumbering(own.names, ours)
        tables[word] = found[0] if found else None
        notes += left_out(found[1]) if found else [none_shared(word, own.names, ours)]
        pixel_classes[word] = PixelClasses(ours)
    if not tables:
        return splits

    def renumbered(sample: Sample) -> Sample:
        truth = dict(sample.truth)
        for word, table in tables.items():
            if table is None:
                truth.pop(word, None)
            elif (image := truth.get(word)) is not None:
                truth[word] = Renumbered(image, table)
        return replace(sample, truth=truth)

    return replace(
        splits,
        train=tuple(map(renumbered, splits.train)),
        validation=tuple(map(renumbered, splits.validation)),
        test=tuple(map(renumbered, splits.test)),
        notes=tuple(notes),
        pixel_classes=pixel_classes,
    )
