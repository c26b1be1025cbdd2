"""The files of a COLMAP model: cameras and images, binary (little-endian) or text.

An image has the quaternion w x y z and the translation of world to camera.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import SourceError
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import numbers, where
from robot_vision.truth.tables import read_lines

# By COLMAP's number: name, how many parameters, how many of them are focal lengths.
_MODELS = {
    0: ("SIMPLE_PINHOLE", 3, 1),
    1: ("PINHOLE", 4, 2),
    2: ("SIMPLE_RADIAL", 4, 1),
    3: ("RADIAL", 5, 1),
    4: ("OPENCV", 8, 2),
    5: ("OPENCV_FISHEYE", 8, 2),
    6: ("FULL_OPENCV", 12, 2),
    7: ("FOV", 5, 2),
    8: ("SIMPLE_RADIAL_FISHEYE", 4, 1),
    9: ("RADIAL_FISHEYE", 5, 1),
    10: ("THIN_PRISM_FISHEYE", 12, 2),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16, 2),
}
_PINHOLES = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
_BY_NAME = {name: (name, count, focal) for name, count, focal in _MODELS.values()}


@dataclass(frozen=True)
class ColmapCamera:
    """A camera: its model's name, its images' size in pixels, and the model's parameters."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]

    @property
    def matrix(self) -> NDArray[np.float64] | None:
        """K (3, 3) of the pinhole part; None where there is none."""
        if self.model not in _PINHOLES:
            return None
        focal = _BY_NAME[self.model][2]
        fx, fy = self.params[0], self.params[focal - 1]
        cx, cy = self.params[focal : focal + 2]
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    @property
    def is_distorted(self) -> bool:
        """Whether a lens parameter is not zero."""
        return any(self.params[_BY_NAME[self.model][2] + 2 :])


@dataclass(frozen=True)
class Image:
    """An image of the model: where it is in the file, w x y z and translation of world to camera."""

    place: str
    values: tuple[float, ...]
    camera: int
    name: str


def model_folder(root: Path) -> Path:
    """Returns the folder of the only model under a folder.

    Raises:
        SourceError: there is none, or there are several.
    """
    folder = root if root.is_dir() else root.parent
    below = [folder / "sparse", folder / "colmap" / "sparse", folder / "colmap", folder]
    places = [folder, *below[:3], *(p for b in below if b.is_dir() for p in b.iterdir())]
    found = [p for p in dict.fromkeys(places) if _is_model(p)]
    if not found:
        raise SourceError(
            f"{root} has no COLMAP model: cameras.bin and images.bin (or .txt), in the folder itself, in "
            "sparse or in sparse/0"
        )
    if len(found) > 1 and found[0] != folder:
        names = ", ".join(sorted(p.relative_to(folder).as_posix() for p in found))
        raise SourceError(
            f"{root} has {len(found)} models ({names}), each in its own world frame: give the folder of one"
        )
    return found[0]


def _is_model(folder: Path) -> bool:
    return any(
        all((folder / f"{name}{end}").is_file() for name in ("cameras", "images"))
        for end in (".bin", ".txt")
    )


def read_model(folder: Path, notes: list[str]) -> tuple[dict[int, ColmapCamera], list[Image]]:
    """Reads the binary files of a model, or the text files where there are none.

    Args:
        folder: with cameras and images.
        notes: what else is there is noted.

    Raises:
        SourceError: a file is cut off, or holds what is no camera or image, or one of them twice.
    """
    binary = (folder / "images.bin").is_file()
    if binary and (folder / "images.txt").is_file():
        notes.append(f"{folder.name} has the model as .bin and as .txt: the .bin files are read")
    unused = [p.name for p in sorted(folder.glob("points3D.*"))]
    notes += [f"{' and '.join(unused)} is not used"] if unused else []
    end = ".bin" if binary else ".txt"
    cameras = list((_binary_cameras if binary else _text_cameras)(folder / f"cameras{end}"))
    images = list((_binary_images if binary else _text_images)(folder / f"images{end}"))
    _refuse_twice([number for number, _ in cameras], "camera", folder / f"cameras{end}")
    _refuse_twice([image.name for image in images], "image", folder / f"images{end}")
    numbered = dict(cameras)
    for image in images:
        if image.camera not in numbered:
            raise SourceError(
                f"{image.place}: {image.name} is of camera {image.camera}, which is not in cameras{end}"
            )
    return numbered, images


def _refuse_twice(names: Sequence[object], what: str, file: Path) -> None:
    name, count = next(iter(Counter(names).most_common(1)), ("", 1))
    if count > 1:
        raise SourceError(f"{file}: {what} {name} occurs {count} times")


def _camera(
    name: str, width: float, height: float, params: list[float], place: str
) -> ColmapCamera:
    if name not in _BY_NAME:
        raise SourceError(f"{place}: camera model {name} is not known: use {', '.join(_BY_NAME)}")
    if len(params) != _BY_NAME[name][1]:
        raise SourceError(
            f"{place}: {name} has {_BY_NAME[name][1]} parameters, and there are {len(params)}"
        )
    focal = params[: _BY_NAME[name][2]]
    if not np.all(np.isfinite(params)) or min(focal) <= 0 or min(width, height) < 1:
        raise SourceError(f"{place}: {name} of {width:g} x {height:g} with {params}: not a camera")
    return ColmapCamera(name, int(width), int(height), tuple(params))


def _text_cameras(file: Path) -> Iterator[tuple[int, ColmapCamera]]:
    for number, line in enumerate(read_lines(file), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        place = where(file, number)
        if len(words) < 5:
            raise SourceError(f"{place}: a camera is 'id MODEL width height parameters'")
        i, width, height, *params = numbers(
            [words[0], *words[2:]], len(words) - 1, place, "a camera"
        )
        yield int(i), _camera(words[1], width, height, [float(p) for p in params], place)


def _text_images(file: Path) -> Iterator[Image]:
    """Reads two lines an image: its pose, and its points, which may be none."""
    points_line = False
    announced, count = None, 0
    for number, line in enumerate(read_lines(file), 1):
        if line.lstrip().startswith("#"):
            said = re.search(r"Number of images: *(\d+)", line)
            announced = int(said.group(1)) if said else announced
            continue
        words = line.split(maxsplit=9)
        if points_line and (len(words) < 10 or _are_numbers(line)):
            points_line = False
        elif words:  # an editor may have dropped an empty line of points
            place = where(file, number)
            if len(words) < 10:
                raise SourceError(f"{place}: an image is 'id qw qx qy qz tx ty tz camera name'")
            values = numbers(words[:9], 9, place, "an image's id, pose and camera")
            pose = tuple(float(v) for v in values[1:8])
            yield Image(place, pose, int(values[8]), words[9].strip())
            points_line = True
            count += 1
    if announced not in (None, count):
        raise SourceError(
            f"{file} says that it has {counted(announced, 'image')}, and it has {count}"
        )


def _are_numbers(line: str) -> bool:
    try:
        return all(np.isfinite(float(word)) for word in line.split())
    except ValueError:
        return False


class _Bytes:
    """A binary file, read from its beginning; little-endian."""

    def __init__(self, file: Path) -> None:
        self.file, self.at = file, 0
        try:
            self.data = file.read_bytes()
        except OSError as error:
            raise SourceError(f"{file} cannot be read: {error}") from error

    def take(self, layout: str) -> tuple[float, ...]:
        """Returns the next values."""
        start = self.at
        self.skip(struct.calcsize(f"<{layout}"))
        return struct.unpack_from(f"<{layout}", self.data, start)

    def text(self) -> str:
        """Returns the text up to the next zero byte."""
        start, end = self.at, self.data.find(b"\0", self.at)
        self.skip((end if end >= 0 else len(self.data)) + 1 - start)
        return self.data[start:end].decode("utf-8", "surrogateescape")

    def skip(self, size: int) -> None:
        """Goes on."""
        self.at += size
        if self.at > len(self.data):
            raise SourceError(
                f"{self.file} ends at byte {len(self.data)}, in the middle of an entry: it is cut off"
            )

    def end(self) -> None:
        """Checks that nothing is left."""
        if self.at != len(self.data):
            raise SourceError(
                f"{self.file} has {counted(len(self.data) - self.at, 'byte')} more than its entries have"
            )


def _binary_cameras(file: Path) -> Iterator[tuple[int, ColmapCamera]]:
    data = _Bytes(file)
    for _ in range(int(data.take("Q")[0])):
        at = data.at
        number, model, width, height = data.take("iiQQ")
        place = f"{file} (byte {at})"
        if int(model) not in _MODELS:
            raise SourceError(
                f"{place}: camera model number {model} is not known: undistort the images with "
                "colmap image_undistorter"
            )
        name, count, _ = _MODELS[int(model)]
        yield int(number), _camera(name, width, height, list(data.take("d" * count)), place)
    data.end()


def _binary_images(file: Path) -> Iterator[Image]:
    data = _Bytes(file)
    for _ in range(int(data.take("Q")[0])):
        at = data.at
        _, *pose, camera = data.take("i7di")
        name = data.text()
        data.skip(24 * int(data.take("Q")[0]))  # x, y and the number of each point
        yield Image(f"{file} (byte {at})", tuple(pose), int(camera), name)
    data.end()
