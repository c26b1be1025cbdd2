"""Frames of a bag or a data set, each made worse on its way to the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.sample import Sample
from robot_vision.errors import ImageError
from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.images.decode import to_rgb
from robot_vision.recordings.base import DEFAULT_FRAME, Frame, RawImage, Source
from robot_vision.studies.stress.degradations import ROLL, Degradation, generator, roll_of
from robot_vision.truth.tracks import Truth

_STEP_NS = 100_000_000  # between samples that bear no stamps
_GAP_NS = 10 * 1_000_000_000  # between recordings of a data set


class SampleSource(Source):
    """The samples of a data set as frames of a recording, with the stamps that `stamps` gives them."""

    forms = ("raw",)

    def __init__(self, name: str, samples: Sequence[Sample]) -> None:
        super().__init__(name, ("/samples",), len(samples))
        self._samples = samples
        self._stamps = stamps(samples)

    def __iter__(self) -> Iterator[Frame]:
        """Yields frames; a sample that cannot be read is a problem."""
        for sample, stamp in zip(self._samples, self._stamps.tolist(), strict=True):
            try:
                image = sample.source.load()
            except ImageError as error:
                self.problems.append(str(error))
                continue
            message = RawImage.of(image, "rgb8")
            yield Frame(stamp, "/samples", DEFAULT_FRAME, message, sample.name, stamp)


def stamps(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Returns stamps (N,) that increase: the samples' own within a sequence, else a frame each 0.1 s."""
    out, now = [], 0
    for i, sample in enumerate(samples):
        before = samples[i - 1] if i else None
        if before is None or before.sequence != sample.sequence:
            now += _GAP_NS
        elif sample.stamp_ns is not None and before.stamp_ns is not None:
            now += max(sample.stamp_ns - before.stamp_ns, 1)
        else:
            now += _STEP_NS
        out.append(now)
    return np.array(out, np.int64)


def sample_truth(samples: Sequence[Sample], oriented: bool = True) -> Truth:
    """Returns labels and poses of samples at the stamps that `stamps` gives them."""
    times = stamps(samples)
    labels = [s.label for s in samples] if any(s.label is not None for s in samples) else None
    poses = [s.T_map_camera for s in samples]
    known = [p for p in poses if p is not None]
    if len(known) < len(poses) or not oriented:
        return Truth.of_arrays(times, labels)
    positions = np.array([p[:3, 3] for p in known])
    return Truth.of_arrays(
        times, labels, positions, np.array([xyzw_from_matrix(p[:3, :3]) for p in known])
    )


class DegradedSource(Source):
    """Another source's frames, made worse.

    Args:
        source: of good frames.
        degradation: one that changes images.
        strength: of it.
        seed: of what is random.

    Attributes:
        rolls: stamp to the degrees by which the frame was turned about the optical axis.
    """

    forms = ("raw",)

    def __init__(
        self, source: Source, degradation: Degradation, strength: float, seed: int
    ) -> None:
        super().__init__(source.name, source.topics, source.count)
        self._source = source
        self._degradation, self._strength, self._seed = degradation, strength, seed
        self.rolls: dict[int, float] = {}
        self.problems, self.notes = source.problems, source.notes

    def __iter__(self) -> Iterator[Frame]:
        """Yields frames; one that cannot be decoded goes on as it is, to be counted as such."""
        apply = self._degradation.apply
        assert apply is not None
        for number, frame in enumerate(self._source):
            try:
                image = to_rgb(frame.message)
            except ImageError:
                yield frame
                continue
            name = self._degradation.name
            if name == ROLL:
                self.rolls[frame.stamp_ns] = roll_of(
                    self._strength, generator(self._seed, name, number)
                )
            worse = apply(image, self._strength, generator(self._seed, name, number))
            yield replace(frame, message=RawImage.of(worse, "rgb8"))

    def close(self) -> None:
        """Closes the good source."""
        self._source.close()
