"""What every data set gives: samples in three splits.

A sample is light (no pixels), can be pickled to a worker process, and loads its image when asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, ImageError, unknown
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.truth.images import TrueImage

SPLIT_NAMES = ("train", "validation", "test")


class ImageSource(Protocol):
    """Where a sample's pixels are: a file, or a message of a bag. Can be pickled; `str` names it."""

    def load(self, min_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Returns RGB uint8 (H, W, 3), contiguous and writable.

        Args:
            min_size: (height, width) that the caller needs at least; a JPEG may then come back at a
                half, quarter or eighth of its size, decoded in a fraction of the time.

        Raises:
            ImageError: it cannot be read or decoded; the message names it.
        """

    def encoded(self) -> bytes:
        """Returns the bytes as stored: what tells two images apart, without decoding.

        Raises:
            ImageError: they cannot be read.
        """


class TruthImage(TrueImage, Protocol):
    """What is true of each pixel of an image: a file, or a bag's message. Can be pickled; `str` names it."""

    def encoded(self) -> bytes:
        """Returns what tells two of them apart, without decoding.

        Raises:
            ImageError: it cannot be read.
        """


def true_values(truth: TruthImage, dtype: str, none: float) -> NDArray[Any]:
    """Returns the truth of all pixels in its unit, (H, W) of `dtype`, with `none` where there is none.

    Raises:
        ImageError: it cannot be read or decoded.
    """
    stored = truth.load()
    said = np.isfinite(stored) if stored.dtype.kind == "f" else np.ones(stored.shape, bool)
    for value in truth.none:
        said &= stored != value
    values = stored if truth.unit == 1 else stored * np.float32(truth.unit)
    if np.dtype(dtype).kind == "f":
        values = values.astype(np.float32)  # float16 may not hold what stands for none
    return np.where(said, values, np.asarray(none, values.dtype)).astype(dtype)


def different_size(
    sample: Sample, word: str, truth: tuple[int, ...], image: tuple[int, ...]
) -> str:
    """Returns what is wrong with truth of another size (H, W) than its image."""
    return (
        f"{sample.of(word)} has {truth[1]} x {truth[0]} pixels, and its image {sample.source} {image[1]} x "
        f"{image[0]}: they must be the same pixels"
    )


@dataclass(frozen=True)
class PixelClasses:
    """Classes of pixels, by their ids from 0.

    Attributes:
        names: of each.
        colours: of each, RGB; empty where nothing says them.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image of a data set.

    Attributes:
        name: unique in the set.
        label: its class, or None.
        T_map_camera: float64 (4, 4), metres, camera in optical axes (x right, y down, z forward); or None.
        stamp_ns: when it was taken, or None; comparable within a sequence.
        sequence: the recording that it belongs to; neighbours of a sequence are consecutive in the list.
        source: where the image is.
        camera_matrix: float64 (3, 3) in pixels of the image as loaded, where it differs from image to
            image; else None, and `Splits.camera_matrix` holds.
        intrinsics: of the camera with its lens and the size of its images, where the recording tells them.
        truth: what else is known of the image, by words such as `label:lights`; under words that begin with
            `image:` a `TruthImage`.
    """

    name: str
    label: str | None
    T_map_camera: NDArray[np.float64] | None
    stamp_ns: int | None
    sequence: str
    source: ImageSource
    camera_matrix: NDArray[np.float64] | None = None
    intrinsics: Intrinsics | None = None
    truth: Mapping[str, Any] = field(default_factory=dict)

    def of(self, word: str) -> Any:
        """Returns what a word of truth says of this image, None where nothing does."""
        known = {"label": self.label, "pose": self.T_map_camera}
        return known[word] if word in known else self.truth.get(word)

    @property
    def stratum(self) -> Hashable:
        """Which samples are alike to a draw: those with the same labels."""
        more = [(w, v) for w, v in sorted(self.truth.items()) if w.startswith("label:")]
        return (self.label, *more) if more else self.label


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set, divided.

    Attributes:
        train: to fit weights on.
        validation: to choose by (early stopping, thresholds); may be empty.
        test: to report on; may be empty.
        map_frame: frame of the poses.
        camera_matrix: float64 (3, 3), pixels of the images as loaded, or None.
        labels: of the training samples, sorted.
        notes: what was skipped, counted or assumed, one line each.
        has_orientation: False where positions are known and rotations are not (they are then the
            identity's stand-in and no loss or mining may use them).
        pixel_classes: of each word of truth that is a class of every pixel.
        datum: `latitude,longitude` of the map's origin where x is east and y is north; `earth` for positions
            from its middle; empty where nobody knows it.
    """

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    map_frame: str = "map"
    camera_matrix: NDArray[np.float64] | None = None
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    has_orientation: bool = True
    pixel_classes: Mapping[str, PixelClasses] = field(default_factory=dict)
    datum: str = ""
    _contents: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False, repr=False)

    def labels_of(self, word: str) -> tuple[str, ...]:
        """Returns the classes that a word of truth has among the training samples, sorted; of pixels all."""
        if word in self.pixel_classes:
            return self.pixel_classes[word].names
        return self.labels if word == "label" else labels_of(self.train, word)

    def split(self, name: str) -> tuple[Sample, ...]:
        """Returns a split by its name.

        Raises:
            ConfigError: there is no split of that name.
        """
        if name not in SPLIT_NAMES:
            raise ConfigError(unknown("split", name, SPLIT_NAMES))
        samples: tuple[Sample, ...] = getattr(self, name)
        return samples

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples: train, validation, test."""
        return self.train + self.validation + self.test

    def contents(self, split: str) -> tuple[str, ...]:
        """Returns the content hash of each of a split's images, in order: equal for equal bytes.

        The first call reads every image once, a second per gigabyte of a warm disk; later ones remember.
        """
        if split not in self._contents:
            self._contents[split] = tuple(content_hash(sample) for sample in self.split(split))
        return self._contents[split]

    def content_hashes(self, split: str) -> frozenset[str]:
        """Returns `contents` as a set; two splits share images where these meet."""
        return frozenset(self.contents(split))

    def fingerprint(self, split: str) -> str:
        """Returns sha256 over content, label and pose of a split's samples, whatever their order.

        The same images under other names, in another folder, or (as JPEG or PNG) inside a bag have the same
        fingerprint; another label, pose or one image more or less changes it. Costs what
        `content_hashes` costs.
        """
        lines = []
        for sample, content in zip(self.split(split), self.contents(split), strict=True):
            pose = sample.T_map_camera
            # Rounded, so that a pose that went through a file's decimals stays the same.
            text = (
                ""
                if pose is None
                else ",".join(f"{v + 0.0:.4f}" for v in pose[:3].ravel().round(4))
            )
            more = "".join(
                f" {word}={_truth_hash(word, value)}"
                for word, value in sorted(sample.truth.items())
            )
            lines.append(f"{content} {sample.label!r} {text}{more}")
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def content_hash(sample: Sample) -> str:
    """Returns the sha256 of a sample's image as stored; without a byte to read it counts by its name."""
    try:
        data = sample.source.encoded()
    except ImageError:
        data = b""
    data = data or f"unreadable {sample.name}".encode()
    return hashlib.sha256(data).hexdigest()


def _truth_hash(word: str, value: Any) -> str:
    """Returns what tells two truths of a word apart: of images their content, scale and missing values."""
    if not word.startswith("image:"):
        return repr(value)
    try:
        data = value.encoded()
    except ImageError:
        data = f"unreadable {value}".encode()
    return f"{hashlib.sha256(data).hexdigest()} {value.unit!r} {value.none!r}"


def labels_of(samples: Iterable[Sample], word: str = "label") -> tuple[str, ...]:
    """Returns the labels that occur under a word of truth, sorted; none under one of poses or numbers."""
    if word.partition(":")[0] != "label":
        return ()
    found = (sample.of(word) for sample in samples)
    return tuple(sorted({label for label in found if label is not None}))
