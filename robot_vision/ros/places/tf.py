"""`/tf` and `/tf_static` over the last seconds: what tf2's buffer does, for one lookup."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.frames import FrameTree, plain_frame
from robot_vision.geometry.pose_buffer import PoseBuffer
from robot_vision.messages.incoming import checked_transforms
from robot_vision.ros.node.transforms import add_static

Array = NDArray[np.float64]


class MovingTransforms(FrameTree[PoseBuffer]):
    """A tree whose moving links are known for the last 20 s, each asked at an image's stamp."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self.stamps_back = 0

    def add_message(self, message: Any, fixed: bool, refuse: Callable[[str], None]) -> None:
        """Adds the transforms of a `tf2_msgs/TFMessage`; `refuse` hears of each that is none, and why."""
        if fixed:
            add_static(self, message, refuse)
        else:
            for t in checked_transforms(message, refuse):
                link = self.move(t.parent, t.child, lambda: PoseBuffer(20.0))
                self.stamps_back += not link.add(t.stamp_ns, t.position, t.xyzw)
        with self._changed:
            self._changed.notify_all()

    def clear(self) -> None:
        """Forgets what moves."""
        with self.lock:
            self.moving.clear()

    def wait(
        self, target: str, source: str, stamp_ns: int, tolerance_s: float, timeout_s: float
    ) -> Array | None:
        """Returns `lookup_at` once every moving link has reached the stamp, or when the time is up."""
        deadline = time.monotonic() + timeout_s
        while True:
            links = self._links(target, source)
            newest = [n for link in (links or {}).values() if (n := link.newest_ns) is not None]
            left = deadline - time.monotonic()
            if left <= 0 or (links is not None and min(newest, default=stamp_ns) >= stamp_ns):
                return self.lookup_at(target, source, stamp_ns, tolerance_s)
            with self._changed:
                self._changed.wait(min(left, 0.02))

    def _links(self, target: str, source: str) -> dict[str, PoseBuffer] | None:
        """Returns the moving links between two frames by their child; None where nothing joins them."""
        with self.lock:
            ways = self.between(target, source)
            if ways is None:
                return None
            return {f: self.moving[f][1] for way in ways for f in way if f in self.moving}

    def lookup_at(
        self, target: str, source: str, stamp_ns: int, tolerance_s: float
    ) -> Array | None:
        """Returns `T_target_source` (4, 4) at a time; None if nothing joins the frames then."""

        def at(link: PoseBuffer) -> Array | None:
            found = link.at(stamp_ns, tolerance_s)
            return found[0] if found else None

        return self.lookup(target, source, at)

    def why(self, target: str, source: str, stamp_ns: int, tolerance_s: float) -> str:
        """Returns why `lookup_at` finds nothing, in words."""
        links = self._links(target, source)
        if links is None:
            return f"nothing joins {plain_frame(source)!r} and {plain_frame(target)!r}"
        for frame, link in links.items():
            if link.at(stamp_ns, tolerance_s) is None:
                return f"of {frame!r} in {self.parent(frame)!r}: {link.why(stamp_ns)}"
        return "it has just come"
