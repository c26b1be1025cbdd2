"""The tree of `/tf` and `/tf_static` over the last seconds: what tf2's buffer does, for one lookup.

tf2_ros is a package of its own that not every environment has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.pose_buffer import PoseBuffer
from robot_vision.geometry.rigid import inverse, pose_matrix
from robot_vision.ros.node.incoming import checked_transforms, plain_frame

Array = NDArray[np.float64]


class MovingTransforms:
    """Fixed and moving transforms. Filled by one thread and read by another.

    Frames are joined through their nearest common ancestor, each moving edge at the asked time.

    Args:
        length_s: how far back it reaches.
    """

    def __init__(self, length_s: float = 20.0) -> None:
        self._length_s = length_s
        self._lock = threading.Lock()
        self._fixed: dict[str, tuple[str, Array]] = {}
        self._moving: dict[str, tuple[str, PoseBuffer]] = {}
        self._changed = threading.Condition()
        self.stamps_back = 0

    def add_message(self, message: Any, fixed: bool, refuse: Callable[[str], None]) -> None:
        """Adds the transforms of a `tf2_msgs/TFMessage`; `refuse` hears of each that is none, and why."""
        for t in checked_transforms(message, refuse):
            with self._lock:
                if fixed:
                    self._fixed[t.child] = (t.parent, pose_matrix(t.position, t.xyzw))
                    continue
                known = self._moving.get(t.child)
                if known is None or known[0] != t.parent:  # a frame that moved to another parent
                    known = self._moving[t.child] = (t.parent, PoseBuffer(self._length_s))
                self.stamps_back += not known[1].add(t.stamp_ns, t.position, t.xyzw)
        with self._changed:
            self._changed.notify_all()

    def clear(self) -> None:
        """Forgets what moves."""
        with self._lock:
            self._moving.clear()

    def wait(
        self, target: str, source: str, stamp_ns: int, tolerance_s: float, timeout_s: float
    ) -> Array | None:
        """Returns `lookup` once every moving edge has reached the stamp, or when the time is up."""
        deadline = time.monotonic() + timeout_s
        while True:
            newest = self._newest(target, source)
            left = deadline - time.monotonic()
            if left <= 0 or (newest is not None and newest >= stamp_ns):
                return self.lookup(target, source, stamp_ns, tolerance_s)
            with self._changed:
                self._changed.wait(min(left, 0.02))

    def _newest(self, target: str, source: str) -> int | None:
        """Returns the least of the newest stamps of the moving edges between two frames."""
        with self._lock:
            ups, downs = self._chain(plain_frame(source)), self._chain(plain_frame(target))
            common = next((f for f in ups if f in downs), None)
            if common is None:
                return None
            edges = ups[: ups.index(common)] + downs[: downs.index(common)]
            stamps = [self._moving[f][1].newest_ns for f in edges if f in self._moving]
        known = [s for s in stamps if s is not None]
        return min(known) if known else 1 << 62

    def lookup(self, target: str, source: str, stamp_ns: int, tolerance_s: float) -> Array | None:
        """Returns `T_target_source` (4, 4) at a time; None if nothing joins the frames then."""
        with self._lock:
            up = self._to_ancestors(plain_frame(source), stamp_ns, tolerance_s)
            down = self._to_ancestors(plain_frame(target), stamp_ns, tolerance_s)
        common = next((frame for frame in up if frame in down), None)
        if common is None:
            return None
        return np.asarray(inverse(down[common]) @ up[common])

    def why(self, target: str, source: str, stamp_ns: int, tolerance_s: float) -> str:
        """Returns why `lookup` finds nothing, in words."""
        with self._lock:
            ups, downs = self._chain(plain_frame(source)), self._chain(plain_frame(target))
            common = next((frame for frame in ups if frame in downs), None)
            if common is None:
                return f"nothing joins {plain_frame(source)!r} and {plain_frame(target)!r}"
            for frame in ups[: ups.index(common)] + downs[: downs.index(common)]:
                if frame in self._moving:
                    parent, buffer = self._moving[frame]
                    if buffer.at(stamp_ns, tolerance_s) is None:
                        return f"of {frame!r} in {parent!r}: {buffer.why(stamp_ns)}"
        return "it has just come"

    def _chain(self, frame: str) -> list[str]:
        found = [frame]
        while (edge := self._moving.get(frame) or self._fixed.get(frame)) is not None:
            frame = edge[0]
            if frame in found:  # two publishers made a loop
                break
            found.append(frame)
        return found

    def _to_ancestors(self, frame: str, stamp_ns: int, tolerance_s: float) -> dict[str, Array]:
        transform = np.eye(4)
        found = {frame: transform}
        while True:
            if frame in self._moving:
                frame, buffer = self._moving[frame]
                edge = buffer.at(stamp_ns, tolerance_s)
                if edge is None:
                    return found
                T_parent_child = edge[0]
            elif frame in self._fixed:
                frame, T_parent_child = self._fixed[frame]
            else:
                return found
            if frame in found:
                return found
            transform = T_parent_child @ transform
            found[frame] = transform
