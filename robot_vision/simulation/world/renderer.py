"""Renders textured rectangles in perspective with a depth test, on one CPU core and without OpenGL.

A point of a rectangle is o + s r + t d. With K [r d o] = H in camera coordinates, a pixel p = (x, y, 1) sees
it where H (s, t, 1)^T = z p, so H^-1 p = (s/z, t/z, 1/z): all three are linear in the pixel. The depth test
needs 1/z only, in each rectangle's bounding box; s and t are computed once a pixel, for the winner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.simulation.world.surfaces import (
    LEVELS,
    SURFACES,
    Rectangle,
    build_atlas,
    rectangles,
)
from robot_vision.simulation.world.world import Room, World

NEAR_M = 0.05
_SHIFT = 4  # fractional bits of OpenCV's polygon corners


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion; pixel (0, 0) is the centre of the top left pixel."""

    width: int = 320
    height: int = 240
    fx: float = 196.0  # 78 degrees from left to right
    fy: float = 196.0
    cx: float = 159.5
    cy: float = 119.5

    @property
    def k(self) -> NDArray[np.float64]:
        """The 3 x 3 intrinsic matrix."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])


class Renderer:
    """Draws a world, or any rectangles, as one camera sees them.

    Args:
        world: what is drawn.
        camera: intrinsics and image size.
        extra: further rectangles to draw.
    """

    def __init__(
        self, world: World, camera: Camera | None = None, extra: Sequence[Rectangle] = ()
    ) -> None:
        self.camera = camera or Camera()
        self.rectangles = rectangles(world) + list(extra)
        rooms: dict[str, Room] = {room.name: room for room in world.rooms}
        self.room_names = tuple(rooms)
        self._rooms = np.array([self.room_names.index(r.room) for r in self.rectangles])
        surfaces = {name: i for i, name in enumerate(SURFACES)} | {"": 255}
        self._surfaces = np.array([surfaces[r.surface] for r in self.rectangles], np.uint8)
        self._atlas = build_atlas(self.rectangles, rooms)
        # (n, 3, 3): columns right, down, origin; and the four corners (n, 4, 3)
        frame = np.array([[r.right, r.down, r.origin] for r in self.rectangles])
        self._frames = frame.transpose(0, 2, 1).copy()
        right, down, origin = frame.transpose(1, 0, 2)
        self._corners = np.stack([origin, origin + right, origin + right + down, origin + down], 1)
        self._normals = np.array([r.normal for r in self.rectangles])
        self._density = self._atlas.places[:, 2] / np.linalg.norm(right, axis=1)  # texels a metre
        self._xs = np.arange(self.camera.width, dtype=np.float32)
        self._ys = np.arange(self.camera.height, dtype=np.float32)

    def move_extra(self, offsets: NDArray[np.float64]) -> None:
        """Moves the further rectangles (m,) by offsets (m, 3) in metres from where they were given.

        Their light, and the room whose lamp gives it, stay as they were painted.
        """
        moved = self.rectangles[len(self.rectangles) - len(offsets) :]
        for i, (rectangle, offset) in enumerate(
            zip(moved, offsets, strict=True), len(self.rectangles) - len(offsets)
        ):
            origin, right, down = rectangle.origin + offset, rectangle.right, rectangle.down
            self._frames[i, :, 2] = origin
            self._corners[i] = origin, origin + right, origin + right + down, origin + down

    def render(self, T_map_camera: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Returns the RGB uint8 (height, width, 3) image of a camera at a pose (4, 4); black is nothing."""
        image, _ = self.render_with_rooms(T_map_camera)
        return image

    def render_with_rooms(
        self, T_map_camera: NDArray[np.float64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
        """Returns the image and, per pixel, the index in `room_names` of the room seen there, or -1."""
        return self._shade(*self._seen(T_map_camera))

    def truth(
        self, T_map_camera: NDArray[np.float64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Returns what each pixel shows: the index in `SURFACES`, or 255; and how far away, or 0.

        Returns:
            uint8 (height, width), and float32 (height, width): metres along the optical axis.
        """
        ids, inverse_depth, _ = self._seen(T_map_camera)
        depth = np.divide(1, inverse_depth, out=np.zeros_like(inverse_depth), where=ids >= 0)
        return np.where(ids >= 0, self._surfaces[ids], np.uint8(255)), depth

    def _seen(
        self, T_map_camera: NDArray[np.float64]
    ) -> tuple[NDArray[np.int16], NDArray[np.float32], NDArray[np.float32]]:
        """See `_depth_test`."""
        T_map_camera = np.asarray(T_map_camera, dtype=np.float64)
        rotation, position = T_map_camera[:3, :3], T_map_camera[:3, 3]
        front = np.einsum("ij,ij->i", self._normals, position - self._corners[:, 0]) > 1e-4
        corners = (self._corners - position) @ rotation  # (n, 4, 3) in the camera frame
        visible = np.flatnonzero(front & self._in_view(corners))
        return self._depth_test(visible, corners, rotation, position)

    def _in_view(self, corners: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Says which rectangles are not wholly outside one side of the view."""
        c = self.camera
        x, y, z = np.moveaxis(corners, 2, 0)
        px, py = c.fx * x + c.cx * z, c.fy * y + c.cy * z
        inside = [px > -z, px < c.width * z, py > -z, py < c.height * z, z > NEAR_M]
        return np.logical_and.reduce([side.any(axis=1) for side in inside])

    def _depth_test(
        self,
        visible: NDArray[np.intp],
        corners: NDArray[np.float64],
        rotation: NDArray[np.float64],
        position: NDArray[np.float64],
    ) -> tuple[NDArray[np.int16], NDArray[np.float32], NDArray[np.float32]]:
        """Returns per pixel the nearest rectangle (-1: none) and 1/depth, and per rectangle H^-1."""
        c = self.camera
        ids = np.full((c.height, c.width), -1, np.int16)
        inverse_depth = np.zeros((c.height, c.width), np.float32)
        planes = np.zeros((len(self.rectangles), 3, 3), np.float32)
        if not len(visible):
            return ids, inverse_depth, planes
        frames = self._frames[visible].copy()
        frames[:, :, 2] -= position
        planes[visible] = np.linalg.inv(c.k @ rotation.T @ frames)
        mask = np.empty((c.height, c.width), np.uint8)
        for i in visible:
            polygon = self._project(corners[i])
            if polygon is None:
                continue
            x0, y0 = np.maximum(np.floor(polygon.min(axis=0)).astype(int), 0)
            x1, y1 = np.minimum(np.ceil(polygon.max(axis=0)).astype(int) + 1, (c.width, c.height))
            if x0 >= x1 or y0 >= y1:
                continue
            box = (slice(y0, y1), slice(x0, x1))
            inside = mask[: y1 - y0, : x1 - x0]
            inside[:] = 0
            shifted = np.round((polygon - (x0, y0)) * (1 << _SHIFT)).astype(np.int32)
            cv2.fillConvexPoly(inside, shifted, 1, cv2.LINE_8, _SHIFT)
            a, b, offset = planes[i, 2]
            nearer = (a * self._xs[x0:x1] + offset)[None, :] + (b * self._ys[y0:y1])[:, None]
            wins = (nearer > inverse_depth[box]) & inside.view(np.bool_)
            np.copyto(inverse_depth[box], nearer, where=wins)
            np.copyto(ids[box], np.int16(i), where=wins)
        return ids, inverse_depth, planes

    def _project(self, corners: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Returns the pixels of a rectangle's outline, cut at the near plane and near the image."""
        c = self.camera
        if corners[:, 2].min() < NEAR_M:
            corners = _clip(corners, corners[:, 2] - NEAR_M)
            if len(corners) < 3:
                return None
        pixels = corners[:, :2] / corners[:, 2:] * (c.fx, c.fy) + (c.cx, c.cy)
        if np.abs(pixels).max() > 20000:  # far beyond what OpenCV's fixed point holds
            for axis, size in ((0, c.width), (1, c.height)):
                for sign, limit in ((1, 10.0), (-1, size + 10.0)):
                    pixels = _clip(pixels, sign * pixels[:, axis] + (limit if sign < 0 else 10.0))
                    if len(pixels) < 3:
                        return None
        return pixels

    def _shade(
        self,
        ids: NDArray[np.int16],
        inverse_depth: NDArray[np.float32],
        planes: NDArray[np.float32],
    ) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
        c, atlas = self.camera, self._atlas
        at = np.maximum(ids, 0).astype(np.intp)  # none takes any, and is blackened below
        # s/z and t/z, scaled to atlas pixels, as planes over the image; gathered per pixel, a number at a
        # time: rows of several take twice as long
        scaled = planes[:, :2] * atlas.places[:, 2:, None]
        x, y = self._xs[None, :], self._ys[:, None]
        depth = 1 / np.maximum(inverse_depth, 1e-6)
        u, v = (_plane(scaled[:, axis], at, x, y) for axis in (0, 1))
        for axis, place in enumerate((u, v)):
            place *= depth
            np.clip(place, 0, atlas.places[:, 2 + axis].take(at), out=place)
            place += atlas.places[:, axis].take(at)
        texels = self._density.take(at) * depth / c.fx  # texture pixels that one image pixel covers
        level = np.clip(np.log2(np.maximum(texels, 1e-3)) + 0.5, 0, LEVELS - 1).astype(np.int32)
        shrink = np.exp2(-np.arange(LEVELS, dtype=np.float32)).take(level)
        # a texture's left edge is at -0.5 in pixel centres, at every level
        u = u * shrink - 0.5
        v = v * shrink - 0.5 + atlas.rows[level]
        image: NDArray[np.uint8] = cv2.remap(atlas.image, u, v, cv2.INTER_LINEAR)  # type: ignore[assignment]
        empty = ids < 0
        rooms = self._rooms.astype(np.int16)[at]
        if empty.any():
            image[empty] = 0
            rooms[empty] = -1
        return image, rooms


def _plane(
    terms: NDArray[np.float32],
    at: NDArray[np.intp],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Returns a x + b y + c of each pixel, with a, b and c of (n, 3) in the row of (h, w) that it is `at`."""
    found: NDArray[np.float32] = terms[:, 0].take(at) * x
    found += terms[:, 1].take(at) * y
    found += terms[:, 2].take(at)
    return found


def _clip(points: NDArray[np.float64], inside: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keeps the part of a polygon (n, d) where `inside`, a linear function given at its corners, is > 0."""
    kept = []
    for i in range(len(points)):
        j = (i + 1) % len(points)
        if inside[i] > 0:
            kept.append(points[i])
        if (inside[i] > 0) != (inside[j] > 0):
            part = inside[i] / (inside[i] - inside[j])
            kept.append(points[i] + part * (points[j] - points[i]))
    return np.array(kept).reshape(-1, points.shape[1])
