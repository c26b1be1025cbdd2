"""What the formats with poses have in common: their options, and how their samples become splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.sample import Sample, Splits, labels_of
from robot_vision.datasets.splitting import BlockOptions, Three, divide, missing_note
from robot_vision.errors import SourceError
from robot_vision.images.orientation import upright_size
from robot_vision.recordings.files import some
from robot_vision.recordings.image_formats import look_at, stored_size
from robot_vision.settings.declared import option, parse_camera_matrix
from robot_vision.truth.pose_checks import Skipped

T = TypeVar("T")


@dataclass(frozen=True)
class PosedOptions(BlockOptions):
    """Options of every format with poses."""

    map_frame: str = option("map", "frame of the poses")
    camera_matrix: str = option(
        "", "camera matrix as fx,fy,cx,cy in pixels, if the data set has none"
    )
    bad_poses: str = option(
        "error",
        "what to do with a pose that fails its checks: stop, or skip the frame and count it",
        choices=("error", "skip"),
    )


def checked(
    options: PosedOptions, skipped: Skipped, name: str, read: Callable[..., T], *args: Any
) -> T | None:
    """Returns `read(*args)`; None, counted, where it fails and the options say skip.

    Raises:
        SourceError: it fails and the options say error.
    """
    try:
        return read(*args)
    except SourceError as error:
        report_to(options, skipped)(error, name)
        return None


def report_to(options: PosedOptions, skipped: Skipped) -> Callable[..., None]:
    """Returns what is said of a pose that fails its checks, and of its frame's name where it has one.

    It raises the error, or counts the frame, as the options say.
    """

    def report(error: SourceError, name: str = "") -> None:
        if options.bad_poses == "error":
            of = "" if name in str(error) else f" ({name})"
            raise SourceError(f"{error}{of}; bad_poses=skip leaves such frames out") from error
        skipped.add("whose pose fails its checks", f"{name} ({error})" if name else str(error))

    return report


def several_maps_note(names: Sequence[str]) -> str:
    """Returns the note of several recordings whose format does not say whether their poses share a map."""
    return (
        f"poses of {len(names)} recordings ({some(names)}) are taken as of one map: open recordings of other "
        "rooms or drives one at a time"
    )


def is_turned(size: tuple[int, int], image: Path) -> bool:
    """Whether a camera's (height, width) is that of an image once its EXIF orientation turns it upright."""
    try:
        stored = stored_size(image)
    except Exception:  # an unreadable image is the loader's to count
        return False
    return size != stored and size == upright_size(stored, look_at(image).orientation)


def matrix_for_image(
    K: NDArray[np.float64] | None,
    size: tuple[int, int],
    image: Path,
    what: str,
    notes: list[str],
) -> NDArray[np.float64] | None:
    """Returns K of an image whose camera was calibrated at some size: scaled and noted where it has another.

    Args:
        K: in pixels of `size`; None stays None.
        size: (height, width) that it is for.
        image: one that the camera took.
        what: the camera, for notes and errors.
        notes: where a scaling is noted.

    Raises:
        SourceError: the image is not the same picture scaled: cropped, turned or of another camera.
    """
    if K is None:
        return None
    try:
        height, width = stored_size(image)
    except Exception:  # an unreadable image is the loader's to count
        return K
    if (height, width) == size:
        return K
    y, x = height / size[0], width / size[1]
    # A side that was rounded to whole pixels is up to one off.
    if abs(height - x * size[0]) > 1 and abs(width - y * size[1]) > 1:
        raise SourceError(
            f"{what} is of {size[1]} x {size[0]} pixels, and {image} has {width} x {height}: not the same "
            "picture scaled; give the images that the camera was calibrated for, or set camera_matrix"
        )
    notes.append(
        f"{what} is of {size[1]} x {size[0]} pixels and its images of {width} x {height}: its camera "
        "matrix is scaled to them"
    )
    return np.diag([x, y, 1.0]) @ K


def splits_of(
    samples: Sequence[Sample],
    options: PosedOptions,
    notes: Sequence[str],
    *,
    is_test: Callable[[Sample], bool] | None = None,
    K: NDArray[np.float64] | None = None,
    has_orientation: bool = True,
    parts: Three | None = None,
) -> Splits:
    """Divides samples and adds what the options say.

    Args:
        samples: neighbours in a recording are consecutive.
        options: of the data set.
        notes: for `Splits.notes`.
        is_test: the official split, where it names test samples only; else None.
        K: of all images, in pixels.
        has_orientation: see `Splits`.
        parts: train, validation and test where all are official; then nothing is divided.
    """
    train, validation, test = parts or divide(samples, options, is_test)
    K_given = parse_camera_matrix(options.camera_matrix)
    missing = "" if parts else missing_note(options, validation, test)
    notes = [*notes, missing] if missing else notes
    labels = labels_of(train)
    if len(labels) == 1:
        notes = [*notes, f"there is one class only ({labels[0]}): a classifier needs two or more"]
    return Splits(
        tuple(train),
        tuple(validation),
        tuple(test),
        options.map_frame,
        _shared_matrix(samples, K) if K_given is None else K_given,
        labels,
        tuple(notes),
        has_orientation,
    )


def _shared_matrix(
    samples: Sequence[Sample], K: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    """Returns K, or that of the samples where all have the same."""
    first = samples[0].camera_matrix if samples else None
    if K is not None or first is None:
        return K
    same = (s.camera_matrix is not None and np.array_equal(s.camera_matrix, first) for s in samples)
    return first if all(same) else None
