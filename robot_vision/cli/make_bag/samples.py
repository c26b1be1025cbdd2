"""The samples of a data set with all that is known of them, for `make-bag --data`.

What is true of an image goes to the topic of its name in `/ground_truth`, where `evaluate` looks for it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.calibration.run import Data
from robot_vision.datasets.sample import Sample, TruthImage, different_size, true_values
from robot_vision.errors import ImageError
from robot_vision.evaluation.predict.samples import SampleSource
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.recordings.bag import names_topic
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.text.counts import counted
from robot_vision.truth.images import REP118_UNIT
from robot_vision.truth.pixel_classes import NO_CLASS

TRUTH = "/ground_truth"
DEFAULT_MAP = "map"


class Samples:
    """Samples as frames of a recording.

    Args:
        data: the data set and its split.
        step_ns: between images that bear no stamps.
        frame_id: of the camera.
        map_frame: of the poses; `map` stands for that of the data set.

    Attributes:
        map_frame: of the poses.
        rate: nothing, since samples have stamps.
        source: gives the frames.
        written: how many messages of each word of truth were written.
        unknown: of how many images no number was known.
        problems: what could not be written, a line each.
    """

    def __init__(self, data: Data, step_ns: int, frame_id: str, map_frame: str) -> None:
        splits = data.splits
        self.map_frame = map_frame if map_frame != DEFAULT_MAP else splits.map_frame
        self.rate = ""
        samples = data.samples
        self.source = SampleSource(data.name, samples, step_ns=step_ns)
        self.written: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.problems: list[str] = []
        self._splits, self._frame_id = data.splits, frame_id
        self._samples = {sample.name: sample for sample in samples}
        self._words = sorted({word for sample in samples for word in sample.truth})
        self._labelled = any(sample.label is not None for sample in samples)

    def pose(self, name: str) -> NDArray[np.float64] | None:
        """Returns `T_map_camera` of an image; None where nothing tells it, or the rotation is not known."""
        return self._samples[name].T_map_camera if self._splits.has_orientation else None

    def camera(self, name: str, size: tuple[int, int]) -> Intrinsics | None:
        """Returns the camera that took an image of a size (height, width)."""
        sample = self._samples[name]
        if sample.intrinsics is not None:
            return sample.intrinsics
        K = sample.camera_matrix if sample.camera_matrix is not None else self._splits.camera_matrix
        return None if K is None else Intrinsics.of_matrix(K, size[1], size[0])

    def write_names(self, bag: RecordingWriter, stamp_ns: int) -> None:
        """Writes the names of the classes of pixels."""
        for word in self._words:
            if word in self._splits.pixel_classes:
                names = self._splits.pixel_classes[word].names
                bag.label_info(names_topic(_topic(word)), stamp_ns, self._frame_id, names)

    def write_truth(
        self, bag: RecordingWriter, name: str, stamp_ns: int, size: tuple[int, int]
    ) -> None:
        """Writes what is true of an image of a size (height, width)."""
        sample = self._samples[name]
        if self._labelled:  # an empty one says that the last label no longer holds
            self._label(bag, "label", stamp_ns, sample.label)
        for word in self._words:
            known, kind = sample.truth.get(word), word.partition(":")[0]
            if kind == "label":
                self._label(bag, word, stamp_ns, known)
            elif kind == "number" and known is not None:
                self.written[word] += 1
                bag.number(_topic(word), stamp_ns, float(known))
            elif kind == "number":
                self.unknown[word] += 1
            elif kind == "image" and known is not None:
                try:
                    self._image(bag, sample, word, stamp_ns, size)
                except ImageError as error:
                    self.problems.append(f"{word} of {name} is left out: {error}")

    def _label(self, bag: RecordingWriter, word: str, stamp_ns: int, label: str | None) -> None:
        self.written[word] += label is not None
        bag.label(_topic(word), stamp_ns, label or "")

    def _image(
        self,
        bag: RecordingWriter,
        sample: Sample,
        word: str,
        stamp_ns: int,
        size: tuple[int, int],
    ) -> None:
        pixels, encoding = _plane(sample.truth[word], word in self._splits.pixel_classes)
        if pixels.shape != size:
            raise ImageError("encoding", different_size(sample, word, pixels.shape, size))
        self.written[word] += 1
        topic = _topic(word)
        if pixels.dtype == np.float32:
            bag.image(topic, stamp_ns, self._frame_id, pixels, encoding)
            return
        png = cv2.imencode(".png", pixels)[1].tobytes()
        form = f"{encoding}; png compressed"
        bag.compressed_image(topic, stamp_ns, self._frame_id, png, form)

    def said(self) -> Iterator[str]:
        """Yields how much of what was written."""
        for word, count in self.written.items():
            kind, _, name = word.partition(":")
            yield f"{counted(count, kind)}" + (f" of {name}" if name else "")
        for word, count in self.unknown.items():
            number = word.partition(":")[2]
            print(
                f"note: {counted(count, 'image has', 'images have')} no {number}, and a topic's number holds "
                "until the next: read it with number_hold_s below the time between images",
                file=sys.stderr,
            )
        strange = [
            w for w in self._words if w.partition(":")[0] not in ("label", "number", "image")
        ]
        for word in strange:
            print(f"note: {word} of the data set is left out: no message has it", file=sys.stderr)


def _topic(word: str) -> str:
    return f"{TRUTH}/{word.partition(':')[2] or word}"


def _plane(truth: TruthImage, of_classes: bool) -> tuple[NDArray[Any], str]:
    """Returns what is true of each pixel as a message has it, (H, W), and the encoding.

    Ids of classes are mono8, 255 for none. Of numbers, whole millimetres are 16UC1 with 0 for none and others
    32FC1 with NaN for none (REP 118); whole numbers without a unit stay what they are.
    """
    if of_classes:
        return true_values(truth, "uint8", NO_CLASS), "mono8"
    stored = truth.load()
    if stored.dtype == np.uint16 and truth.unit == REP118_UNIT:
        return np.where(np.isin(stored, truth.none), 0, stored).astype(np.uint16), "16UC1"
    if stored.dtype.kind == "u" and truth.unit == 1 and not truth.none:
        return stored, "mono8" if stored.dtype == np.uint8 else "mono16"
    return true_values(truth, "float32", np.nan), "32FC1"
