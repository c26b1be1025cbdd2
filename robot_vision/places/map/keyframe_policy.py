"""Which views become keyframes: those that show something that no keyframe of this run shows yet."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.geometry.rigid import apart

# A view changes without the camera when people walk or light goes on: such a change counts only after this
# share of the distance or angle, or a robot that stands in a corridor would fill its disk.
_MOVED = 0.2
_REMEMBERED = 20_000  # views, 40 MB with descriptors of 512 numbers

_Cell = tuple[int, int, int]


@dataclass(frozen=True)
class KeyframePolicy:
    """How far apart keyframes are.

    The defaults suit a robot that drives indoors with a camera of 60 to 90 degrees: a quarter metre moves
    what is two metres away by an eighth of the picture, and 15 degrees are a fifth of it.

    Attributes:
        distance_m: metres after which there is a keyframe.
        angle_deg: or after such a turn.
        similarity: or when the descriptor's cosine with the last keyframe's falls below this and the
            camera has moved; 0 leaves it out.
        revisits: also take views that an earlier keyframe of this run shows already.
    """

    distance_m: float = 0.25
    angle_deg: float = 15.0
    similarity: float = 0.8
    revisits: bool = False

    def __post_init__(self) -> None:
        for name, high in (("distance_m", 1e6), ("angle_deg", 360.0)):
            value = getattr(self, name)
            if not 0 <= value <= high:
                raise ConfigError(f"Keyframe {name} is {value}: use 0 to {high:g}")
        if not 0 <= self.similarity <= 1:
            raise ConfigError(f"Keyframe similarity is {self.similarity}: use 0 to 1")


class KeyframeSelector:
    """Applies a `KeyframePolicy` to the views of one run, in the order in which they come.

    Args:
        policy: how far apart keyframes are.
        remember: how many of them are looked through for one that shows a view already.
    """

    def __init__(self, policy: KeyframePolicy | None = None, remember: int = _REMEMBERED) -> None:
        self.policy = policy or KeyframePolicy()
        self._remember = remember
        self._last: tuple[NDArray[np.float64], NDArray[np.float32] | None] | None = None
        # By the cell of the grid that it is in, so that a look around reads 27 cells.
        self._known: OrderedDict[int, tuple[_Cell, NDArray[np.float64]]] = OrderedDict()
        self._cells: dict[_Cell, dict[int, NDArray[np.float32] | None]] = {}
        self._count = 0

    def wants(self, T_map_camera: NDArray[Any], descriptor: NDArray[Any] | None = None) -> bool:
        """Returns whether a view should become a keyframe. It is not remembered: call `added` then.

        Args:
            T_map_camera: pose (4, 4).
            descriptor: float32 (D,), L2 norm 1; None: decide by the pose alone.
        """
        if self._last is None:
            return True
        T, before = self._last
        metres, degrees = apart(T, T_map_camera)
        policy = self.policy
        if metres < policy.distance_m and degrees < policy.angle_deg:
            if not self.moved(T_map_camera):
                return False
            if not _differs(before, descriptor, policy.similarity):
                return False
        return policy.revisits or not self.shown(T_map_camera, descriptor)

    def moved(self, T_map_camera: NDArray[Any]) -> bool:
        """Returns whether the camera moved far enough since the last keyframe to need a look at all."""
        if self._last is None:
            return True
        metres, degrees = apart(self._last[0], T_map_camera)
        return (
            metres >= _MOVED * self.policy.distance_m or degrees >= _MOVED * self.policy.angle_deg
        )

    def added(self, T_map_camera: NDArray[Any], descriptor: NDArray[Any] | None = None) -> None:
        """Remembers a view that became a keyframe."""
        T = np.array(T_map_camera, np.float64)
        kept = None if descriptor is None else np.array(descriptor, np.float32)
        self._last = (T, kept)
        if self.policy.revisits:
            return
        cell = self._cell(T)
        self._known[self._count] = (cell, T)
        self._cells.setdefault(cell, {})[self._count] = kept
        self._count += 1
        if len(self._known) > self._remember:
            oldest, (old_cell, _) = self._known.popitem(last=False)
            del self._cells[old_cell][oldest]
            if not self._cells[old_cell]:
                del self._cells[old_cell]

    def shown(self, T_map_camera: NDArray[Any], descriptor: NDArray[Any] | None = None) -> bool:
        """Returns whether a remembered keyframe is as near and as similar as neighbours may be."""
        T = np.asarray(T_map_camera, np.float64)
        x, y, z = self._cell(T)
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                for dz in (-1, 0, 1):
                    for number, known in self._cells.get((x + dx, y + dy, z + dz), {}).items():
                        metres, degrees = apart(self._known[number][1], T)
                        near = metres < self.policy.distance_m and degrees < self.policy.angle_deg
                        if near and not _differs(known, descriptor, self.policy.similarity):
                            return True
        return False

    def _cell(self, T: NDArray[np.float64]) -> _Cell:
        size = max(self.policy.distance_m, 1e-3)
        x, y, z = (math.floor(float(value) / size) for value in T[:3, 3])
        return x, y, z


def _differs(a: NDArray[Any] | None, b: NDArray[Any] | None, similarity: float) -> bool:
    return a is not None and b is not None and float(a @ b) < similarity
