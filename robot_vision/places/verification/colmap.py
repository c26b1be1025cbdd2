"""A map with structure as a COLMAP model, for hloc and what else reads one."""

from __future__ import annotations

import re
from collections import defaultdict

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
    poses = places.poses()
    lenses: dict[tuple[str, float], int] = {}
    reach: dict[int, NDArray[np.float64]] = defaultdict(lambda: np.zeros(2))
    kept = []
    for i, number in enumerate(poses.ids.tolist()):
        content = places.structure(number)
        if content is None:
            continue
        structure = KeyframeStructure.from_bytes(content)
        focal = structure.features.focal_px
        lens = lenses.setdefault((poses.cameras[i], focal), len(lenses) + 1)
        found = structure.features.rays * focal
        reach[lens] = np.maximum(reach[lens], np.abs(found).max(axis=0, initial=0.0))
        kept.append((i, lens, focal, found, structure.points.astype(np.float64)))
    if not kept:
        raise ConfigError(
            f"{places.info.uri} has no structure, from which a COLMAP model has its cameras and points: "
            "build it with map build --structure"
        )
    middle = {lens: np.ceil(most) + 1 for lens, most in reach.items()}
    lines = {name: [head] for name, head in _HEADS.items()}
    for (_, focal), lens in lenses.items():
        (x, y), (width, height) = middle[lens], 2 * middle[lens].astype(int)
        lines["cameras"].append(f"{lens} SIMPLE_PINHOLE {width} {height} {focal!r} {x:g} {y:g}")
    points = 0
    for image, (i, lens, focal, found, local) in enumerate(kept, 1):
        T_map_camera = geometry.pose_matrix(poses.positions[i], poses.quaternions_xyzw[i])
        T_camera_map = geometry.inverse(T_map_camera)
        x, y, z, w = geometry.xyzw_from_matrix(T_camera_map[:3, :3]).tolist()
        pose = " ".join(repr(v) for v in (w, x, y, z, *T_camera_map[:3, 3].tolist()))
        stamp = int(poses.stamps_ns[i])
        time = stamp if stamped(stamp) else number_of(stamp)
        name = re.sub(r"\s", "_", f"{poses.sources[i]}/{poses.cameras[i]}/{time}.jpg")
        lines["images"].append(f"{image} {pose} {lens} {re.sub('/+', '/', name).lstrip('/')}")
        has = np.isfinite(local[:, 2])
        numbers = np.full(len(found), -1)
        numbers[has] = points + 1 + np.arange(has.sum())
        seen = zip((found + middle[lens]).tolist(), numbers.tolist(), strict=True)
        lines["images"].append(" ".join(f"{u:.3f} {v:.3f} {k}" for (u, v), k in seen))
        known = local[has]
        off = np.linalg.norm(known[:, :2] / known[:, 2:] * focal - found[has], axis=1)
        at = known @ T_map_camera[:3, :3].T + T_map_camera[:3, 3]
        for k, point, where, error in zip(
            numbers[has].tolist(),
            np.flatnonzero(has).tolist(),
            at.tolist(),
            off.tolist(),
            strict=True,
        ):
            x, y, z = where
            lines["points3D"].append(f"{k} {x!r} {y!r} {z!r} {_GREY} {error:.3f} {image} {point}")
        points += int(has.sum())
    files = {f"{name}.txt": "\n".join(text) + "\n" for name, text in lines.items()}
    return files, len(kept), len(poses.ids) - len(kept)
