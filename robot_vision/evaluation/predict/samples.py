"""The samples of a data set as a recording, with all that is known of them as its truth."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.image_files import FileImage
from robot_vision.datasets.sample import Sample, Splits, TruthImage
from robot_vision.errors import ImageError
from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.recordings.bag_file import BagImage
from robot_vision.recordings.base import DEFAULT_FRAME, Frame, RawImage, Source
from robot_vision.recordings.image_formats import read_image
from robot_vision.truth.images import ImageTrack
from robot_vision.truth.pixel_classes import (
    ForeignClasses,
    Renumbered,
    left_out,
    none_shared,
    renumbering,
)
from robot_vision.truth.tracks import LABEL, LabelTrack, NumberTrack, PoseTrack, Truth

TOPIC = "/samples"
STEP_NS = 100_000_000  # between samples that bear no stamps
_GAP_NS = 10 * 1_000_000_000  # between recordings of a data set


class SampleSource(Source):
    """The samples of a data set as frames of a recording, with the stamps that `stamps` gives them.

    Args:
        name: of the recording.
        samples: in their order.
        only: stamps of the frames that are given; None for all.
        step_ns: between samples that bear no stamps.
    """

    def __init__(
        self,
        name: str,
        samples: Sequence[Sample],
        only: Collection[int] | None = None,
        step_ns: int = STEP_NS,
    ) -> None:
        times = stamps(samples, step_ns).tolist()
        self._chosen = [
            (sample, stamp)
            for sample, stamp in zip(samples, times, strict=True)
            if only is None or stamp in only
        ]
        super().__init__(name, (TOPIC,), len(self._chosen))
        self._samples, self._step_ns = samples, step_ns

    def only(self, stamps_ns: Collection[int]) -> SampleSource:
        """Returns the frames of some stamps."""
        return SampleSource(self.name, self._samples, stamps_ns, self._step_ns)

    def __iter__(self) -> Iterator[Frame]:
        """Yields frames; a sample that cannot be read is a problem."""
        for sample, stamp in self._chosen:
            try:
                message = _message(sample)
            except (ImageError, OSError, ValueError) as error:
                self.problems.append(f"{sample.source}: {error}")
                continue
            yield Frame(stamp, TOPIC, DEFAULT_FRAME, message, sample.name, stamp)


def _message(sample: Sample) -> Any:
    # As stored, where that is possible: by its bytes an image is known that the model was trained on.
    source = sample.source
    if isinstance(source, FileImage):
        return read_image(Path(source.path), source.turn)
    if isinstance(source, BagImage):
        return source.message()
    return RawImage.of(source.load(), "rgb8")


def stamps(samples: Sequence[Sample], step_ns: int = STEP_NS) -> NDArray[np.int64]:
    """Returns stamps (N,) that increase: the samples' own within a sequence, else a frame each 0.1 s.

    Args:
        samples: in their order.
        step_ns: in place of 0.1 s.
    """
    out, now = [], 0
    for i, sample in enumerate(samples):
        before = samples[i - 1] if i else None
        if before is None or before.sequence != sample.sequence:
            now += _GAP_NS
        elif sample.stamp_ns is not None and before.stamp_ns is not None:
            now += max(sample.stamp_ns - before.stamp_ns, 1)
        else:
            now += step_ns
        out.append(now)
    return np.array(out, np.int64)


def sample_truth(
    splits: Splits, samples: Sequence[Sample], classes: Mapping[str, Sequence[str]] | None = None
) -> Truth:
    """Returns what is known of samples at the stamps that `stamps` gives them.

    Args:
        splits: of the data set.
        samples: of one of them.
        classes: the model's classes of pixels, by the word of truth; true ids are made those of these.

    Raises:
        ConfigError: a data set's classes of pixels, none of which is the model's.
    """
    times = stamps(samples)
    words = sorted({word for sample in samples for word in sample.truth})
    notes = list(splits.notes)
    numbers: dict[str, NumberTrack] = {}
    others: dict[str, LabelTrack] = {}
    images: dict[str, ImageTrack] = {}
    for word in words:
        kind, _, name = word.partition(":")
        known = [i for i, sample in enumerate(samples) if sample.truth.get(word) is not None]
        values = [samples[i].truth[word] for i in known]
        if kind == "number":
            numbers[name] = NumberTrack.held(times[known], np.array(values, np.float64), 0)
        elif kind == LABEL:
            others[name] = LabelTrack.held(times[known].tolist(), values, 0)
        elif kind == "image":
            true, lost = _in_classes_of_the_model(splits, word, values, classes or {})
            notes += lost
            images[name] = ImageTrack(times[known], true, 0, "of the data set")
    labels = None
    if any(s.label is not None for s in samples):
        labels = LabelTrack.held(times.tolist(), [s.label or "" for s in samples], 0)
    return Truth(labels, _poses(splits, samples, times), {}, tuple(notes), others, numbers, images)


def _poses(splits: Splits, samples: Sequence[Sample], times: NDArray[np.int64]) -> PoseTrack | None:
    poses = [s.T_map_camera for s in samples]
    known = [p for p in poses if p is not None]
    if len(known) < len(poses):
        return None
    positions = np.array([p[:3, 3] for p in known])
    xyzw = np.array([xyzw_from_matrix(p[:3, :3]) for p in known])
    track = Truth.of_arrays(times, None, positions, xyzw).poses
    return track and replace(track, oriented=splits.has_orientation)


def _in_classes_of_the_model(
    splits: Splits, word: str, images: Sequence[TruthImage], classes: Mapping[str, Sequence[str]]
) -> tuple[Sequence[TruthImage], list[str]]:
    theirs, ours = splits.labels_of(word), tuple(classes.get(word, ()))
    if not ours or not theirs or theirs == ours:
        return images, []
    found = renumbering(dict(enumerate(theirs)), ours)
    if found is None:
        raise ForeignClasses(none_shared("The data set", word, theirs, ours))
    table, lost = found
    return [Renumbered(image, table) for image in images], left_out(lost)
