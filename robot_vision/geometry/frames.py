"""The tree of frames that tf draws: links that are fixed and that move, composed between any two frames.

tf2_ros is a package of its own that not every environment has, and reads no bags.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import inverse

Array = NDArray[np.float64]
L = TypeVar("L")


def plain_frame(frame: str) -> str:
    """Returns a frame's name as tf2 has it, without the leading slash that old bags and drivers send."""
    return str(frame).lstrip("/")


class FrameTree(Generic[L]):
    """Frames by their parents. Filled by one thread and read by others.

    Attributes:
        fixed: parent and `T_parent_child` (4, 4) of frames that do not move on their parent.
        moving: parent and link of the others; a frame that is in both moves.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.fixed: dict[str, tuple[str, Array]] = {}
        self.moving: dict[str, tuple[str, L]] = {}

    def fix(self, parent: str, child: str, T_parent_child: Array) -> None:
        """Adds or replaces the fixed transform of a frame."""
        with self.lock:
            self.fixed[plain_frame(child)] = (plain_frame(parent), T_parent_child)

    def move(self, parent: str, child: str, link: Callable[[], L]) -> L:
        """Returns the link by which a frame moves; `link` makes it where there is none of this parent."""
        parent, child = plain_frame(parent), plain_frame(child)
        with self.lock:
            known = self.moving.get(child)
            if known is None or known[0] != parent:  # a frame that moved to another parent
                known = self.moving[child] = (parent, link())
            return known[1]

    def frames(self) -> list[str]:
        """Returns the names of all frames, in alphabetical order."""
        with self.lock:
            links = [*self.fixed.items(), *self.moving.items()]
            return sorted({frame for child, link in links for frame in (child, link[0])})

    def parent(self, frame: str) -> str | None:
        """Returns the frame that one hangs on; None for a root."""
        edge = self.moving.get(frame) or self.fixed.get(frame)
        return edge[0] if edge else None

    def upwards(self, frame: str) -> list[str]:
        """Returns a frame and all above it; where the links form a loop, up to the loop's end."""
        way = [plain_frame(frame)]
        with self.lock:
            while (parent := self.parent(way[-1])) is not None and parent not in way:
                way.append(parent)
        return way

    def between(self, target: str, source: str) -> tuple[list[str], list[str]] | None:
        """Returns the frames below the nearest common ancestor of two, from each one upwards.

        Returns:
            Those of `source` and those of `target`; None where nothing joins the two.
        """
        up, down = self.upwards(source), self.upwards(target)
        common = next((frame for frame in up if frame in down), None)
        return None if common is None else (up[: up.index(common)], down[: down.index(common)])

    def lookup(
        self, target: str, source: str, at: Callable[[L], Array | None] | None = None
    ) -> Array | None:
        """Returns `T_target_source` (..., 4, 4).

        Args:
            target: the frame into which points are taken.
            source: the frame from which.
            at: gives the transform of a moving link, (4, 4) or (M, 4, 4), or None where it has none;
                without it only fixed links join.

        Returns:
            None where nothing joins the two, or not then.
        """
        with self.lock:
            ways = self.between(target, source)
            if ways is None:
                return None
            up, down = (self._composed(way, at) for way in ways)
        if up is None or down is None:
            return None
        back = inverse(down) if down.ndim == 2 else np.array([inverse(T) for T in down])
        return np.asarray(back @ up)

    def _composed(self, way: list[str], at: Callable[[L], Array | None] | None) -> Array | None:
        transform: Array = np.eye(4)
        for frame in way:
            if frame in self.moving:
                edge = at(self.moving[frame][1]) if at else None
                if edge is None:
                    return None
            else:
                edge = self.fixed[frame][1]
            transform = edge @ transform
        return transform
