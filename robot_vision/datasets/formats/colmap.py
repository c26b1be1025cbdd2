"""COLMAP models: cameras, images (and points3D, which is not used) as .bin or .txt.

Conventions: an image has the quaternion **w x y z and the translation of world to camera**, optical axes (x
right, y down, z forward); so `T_map_camera` is the inverse, and the position is not the translation. The
world's axes and unit are the model's: `scale` multiplies positions, which are metres only by chance.

Layouts: the model's files in the folder itself, in sparse, sparse/0 or another folder below; images in
images next to it, or in the folder that `images` names. Folders of images are sequences. There is no
official split.

Cameras: of SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV and FULL_OPENCV the pinhole part is
taken, and distortion is not undone. No pinhole fits fisheyes, FOV and prisms: their images have no K.
Pixels are counted as COLMAP does, the first one's centre at 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.colmap_model import ColmapCamera, Image, model_folder, read_model
from robot_vision.datasets.image_files import FileImage, listed_file, listed_path, unlisted_note
from robot_vision.datasets.posed import (
    PosedOptions,
    checked,
    is_turned,
    matrix_for_image,
    splits_of,
)
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.errors import SourceError
from robot_vision.files.natural_order import natural_key
from robot_vision.geometry.rigid import inverse
from robot_vision.recordings.files import image_notes
from robot_vision.settings.declared import option
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import MISSING_IMAGE, Skipped, rotation_from_quaternion


@dataclass(frozen=True)
class Options(PosedOptions):
    """Options of the format."""

    images: str = option(
        "", "folder of the images; empty: images in the model's folder or above it"
    )
    scale: float = option(1.0, "length of the model's unit, in metres", low=1e-9)


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    model, notes = model_folder(root), list[str]()
    cameras, images = read_model(model, notes)
    base = _images_folder(root, model, images, options)
    skipped = Skipped()
    samples: list[Sample] = []
    files: dict[bool, list[Path]] = {False: [], True: []}
    scaled: dict[str, None] = {}
    used: dict[int, int] = {}
    for image in sorted(
        images, key=lambda i: [natural_key(p) for p in listed_path(i.name).split("/")]
    ):
        name = listed_path(image.name)
        file = listed_file(base, image.name)
        if file is None:
            skipped.add(MISSING_IMAGE, name)
            continue
        camera = cameras[image.camera]
        size = camera.height, camera.width
        turn = is_turned(size, file)
        files[turn].append(file)
        T = checked(options, skipped, name, _pose, image, options.scale)
        if T is None:
            continue
        K = None if options.camera_matrix else camera.matrix
        if not turn:
            said: list[str] = []
            K = matrix_for_image(K, size, file, f"camera {image.camera} ({camera.model})", said)
            scaled.update(dict.fromkeys(said))
        used[image.camera] = used.get(image.camera, 0) + 1
        sequence = name.rpartition("/")[0] or base.name
        samples.append(Sample(name, None, T, None, sequence, FileImage(str(file), turn), K))
    notes = [
        *skipped.notes(),
        *image_notes(files[False], turn=False),
        *image_notes(files[True]),
        *unlisted_note(files[False] + files[True]),
        *notes,
        *scaled,
        *_camera_notes(cameras, used, options),
    ]
    if options.scale == 1:
        notes.append("positions are in the model's unit: set scale where that is not metres")
    return splits_of(samples, options, notes)


def _images_folder(root: Path, model: Path, images: list[Image], options: Options) -> Path:
    if options.images:
        given = Path(options.images).expanduser()
        return given if given.is_absolute() else (root if root.is_dir() else model) / given
    above = [root, model, *list(model.parents)[:3]]
    places = [p for a in above for p in (a / "images", a)]
    for place in places:
        if any(listed_file(place, image.name) for image in images):
            return place
    raise SourceError(
        f"no image of {model} exists, such as {images[0].name if images else 'any'} (looked in "
        f"{places[0]} and above the model): set images to their folder"
    )


def _pose(image: Image, scale: float) -> NDArray[np.float64]:
    if not np.all(np.isfinite(image.values)):
        raise SourceError(
            f"{image.place}: the pose of {image.name} is {image.values}: it must be finite"
        )
    w, x, y, z, *translation = image.values
    T = np.eye(4)
    T[:3, :3] = rotation_from_quaternion(np.array([x, y, z, w]), image.place)
    T[:3, 3] = translation
    T = inverse(T)
    T[:3, 3] *= scale
    return T


def _camera_notes(
    cameras: dict[int, ColmapCamera], used: dict[int, int], options: Options
) -> Iterator[str]:
    if options.camera_matrix:
        return
    for number, count in used.items():
        camera = cameras[number]
        if camera.matrix is None:
            yield (
                f"camera {number} is {camera.model}, which is no pinhole: its "
                f"{counted(count, 'image has', 'images have')} no camera "
                "matrix (undistort them with colmap image_undistorter, or set camera_matrix)"
            )
        elif camera.is_distorted:
            yield f"camera {number} ({camera.model}) has lens distortion, which is not undone"
