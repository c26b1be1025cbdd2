"""Frames, each made worse on its way to the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from robot_vision.errors import ImageError
from robot_vision.images.decode import to_rgb
from robot_vision.recordings.base import Frame, RawImage, Source
from robot_vision.studies.stress.degradations import ROLL, Degradation, generator, roll_of


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
