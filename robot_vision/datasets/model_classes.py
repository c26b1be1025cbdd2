"""A data set's classes of pixels as a model numbers its own: by their names, whatever the ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.sample import PixelClasses, Sample, Splits
from robot_vision.truth.pixel_classes import Renumbered, left_out, none_shared, renumbering


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
        found = renumbering(dict(enumerate(own.names)), ours)
        tables[word] = found[0] if found else None
        notes += (
            left_out(found[1]) if found else [none_shared("The data set", word, own.names, ours)]
        )
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
