"""A map with structure as a COLMAP model, for hloc and what else reads one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.geometry import rigid as geometry
from robot_vision.places.map.base import PlaceMap
from robot_vision.places.map.keyframe import number_of, stamped
from robot_vision.places.verification.structure import KeyframeStructure

_HEADS = {
    "cameras": "# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]",
    "images": "# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then X Y POINT3D_ID of each feature",
    "points3D": "# POINT3D_ID X Y Z R G B ERROR, then IMAGE_ID POINT2D_IDX of each image that sees it",
}
_GREY = "128 128 128"  # a map keeps no colours


def colmap_model(places: PlaceMap) -> tuple[dict[str, str], int, int]:
    """Returns cameras.txt, images.txt and points3D.txt, and how many keyframes are in them and left out.

    A map keeps features as undistorted rays, so each camera is a pinhole (COLMAP's SIMPLE_PINHOLE) with the
    focal length of the recorded image, the principal point in the middle, and as large as its features ask.
    Points are in metres in the map's frame, each seen by its own keyframe. Images are called
    `SOURCE/CAMERA/STAMP.jpg` (nanoseconds, or the number of an image without stamp), with `_` for white
    space, at which COLMAP ends a name. Keyframes without structure are left out.

    Raises:
        ConfigError: no keyframe has structure.
        StructureError: that of a keyframe is damaged.
    """
    structured = places.structure_ids().tolist()
    if not structured:
        raise ConfigError(
            f"{places.info.uri} has no structure, from which a COLMAP model has its cameras and points: "
            "build it with map build --structure"
        )
    poses = places.poses()
    row = {number: i for i, number in enumerate(poses.ids.tolist())}
    lenses: dict[tuple[str, float], int] = {}
    reach: dict[int, NDArray[np.float64]] = defaultdict(lambda: np.zeros(2))
    kept = []
    for number in structured:
        i, structure = row[number], _structure(places, number)
        features = structure.features
        lens = lenses.setdefault((poses.cameras[i], features.focal_px), len(lenses) + 1)
        found = features.rays * features.focal_px
        reach[lens] = np.maximum(reach[lens], np.abs(found).max(axis=0, initial=0.0))
        kept.append((i, lens))
    middle = {lens: np.ceil(most) + 1 for lens, most in reach.items()}
    lines = {name: [head] for name, head in _HEADS.items()}
    for (_, focal), lens in lenses.items():
        (x, y), (width, height) = middle[lens], 2 * middle[lens].astype(int)
        lines["cameras"].append(f"{lens} SIMPLE_PINHOLE {width} {height} {focal!r} {x:g} {y:g}")
    points = 0
    for image, (i, lens) in enumerate(kept, 1):
        structure = _structure(places, int(poses.ids[i]))
        T_map_camera = geometry.pose_matrix(poses.positions[i], poses.quaternions_xyzw[i])
        T_camera_map = geometry.inverse(T_map_camera)
        x, y, z, w = geometry.xyzw_from_matrix(T_camera_map[:3, :3]).tolist()
        pose = " ".join(repr(v) for v in (w, x, y, z, *T_camera_map[:3, 3].tolist()))
        stamp = int(poses.stamps_ns[i])
        time = stamp if stamped(stamp) else number_of(stamp)
        name = re.sub(r"\s", "_", f"{poses.sources[i]}/{poses.cameras[i]}/{time}.jpg")
        lines["images"].append(f"{image} {pose} {lens} {re.sub('/+', '/', name).lstrip('/')}")
        numbers = np.full(len(structure.features), -1)
        has = structure.has_point
        numbers[has] = points + 1 + np.arange(has.sum())
        pixels = structure.features.rays * structure.features.focal_px + middle[lens]
        lines["images"].append(" ".join(_seen(pixels, numbers)))
        at = structure.points[has] @ T_map_camera[:3, :3].T + T_map_camera[:3, 3]
        local = structure.points[has].astype(np.float64)
        off = local[:, :2] / local[:, 2:] - structure.features.rays[has]
        for k, point, where, error in zip(
            numbers[has].tolist(),
            np.flatnonzero(has).tolist(),
            at.tolist(),
            (np.linalg.norm(off, axis=1) * structure.features.focal_px).tolist(),
            strict=True,
        ):
            x, y, z = where
            lines["points3D"].append(f"{k} {x!r} {y!r} {z!r} {_GREY} {error:.3f} {image} {point}")
        points += int(has.sum())
    files = {f"{name}.txt": "\n".join(text) + "\n" for name, text in lines.items()}
    return files, len(kept), len(row) - len(kept)


def _structure(places: PlaceMap, number: int) -> KeyframeStructure:
    content = places.structure(number)
    if content is None:
        raise ConfigError(f"{places.info.uri} is being changed by another program: export again")
    return KeyframeStructure.from_bytes(content)


def _seen(pixels: NDArray[np.float64], numbers: NDArray[np.int64]) -> Iterator[str]:
    for (x, y), number in zip(pixels.tolist(), numbers.tolist(), strict=True):
        yield f"{x:.3f} {y:.3f} {number}"
