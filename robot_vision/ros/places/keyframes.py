"""Mapping: turns views into keyframes of the map on disk, and pauses where that is not possible."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, RobotVisionError
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.places.map.base import (
    KeyframeThereError,
    MapBusyError,
    MapError,
    MapFullError,
    MapReadOnlyError,
    PlaceMap,
)
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.keyframe_policy import KeyframePolicy, KeyframeSelector
from robot_vision.places.verification.builder import StructureBuilder
from robot_vision.places.verification.options import VerificationOptions
from robot_vision.places.verification.structure import refuse_other_features
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.places.motion import Located
from robot_vision.text.counts import counted

OFF, ON, PAUSED = "off", "on", "paused"
WAITING = 64  # keyframes that are kept while the map cannot be written


@dataclass(frozen=True, eq=False)
class KeyframeView:
    """A descriptor with where the camera was.

    Attributes:
        stamp_ns: of the image.
        descriptor: float32 (D,), of length 1.
        located: the camera's pose in the frame of the robot's motion.
        image: RGB uint8 (H, W, 3), where images are wanted.
    """

    stamp_ns: int
    descriptor: NDArray[np.float32]
    located: Located
    image: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class _Waiting:
    keyframe: Keyframe
    image: NDArray[np.uint8] | None
    intrinsics: Intrinsics | None


class Mapper:
    """Adds keyframes in a thread of its own, so that a slow or locked disk does not hold recognition up.

    A map that cannot be written to now pauses it: keyframes wait, up to `WAITING` of them, and are tried
    again every `retry_s`. What was added before is safe, and recognition reads through another handle.

    Args:
        open_map: opens the map for writing, or makes it.
        camera: name in new keyframes.
        source: name of the run in new keyframes.
        policy: returns which views become keyframes.
        retry_s: returns the seconds between attempts.
        statistics: counts keyframes and failures.
        warn: throttled log: a key and a line.
        log: takes a line for the operator.
        features: file of XFeat's graph; empty is SIFT.
    """

    def __init__(
        self,
        open_map: Callable[[], PlaceMap],
        camera: str,
        source: str,
        policy: Callable[[], KeyframePolicy],
        retry_s: Callable[[], float],
        statistics: Statistics,
        warn: Callable[[str, str], None],
        log: Callable[[str], None],
        features: str = "",
    ) -> None:
        self._features = features
        self.source = source
        self.state = OFF
        self.why = ""  # it is paused
        # An empty map without a keyframe yet: its first one defines the frame
        self.untouched = False
        self._open = open_map
        self._camera = camera
        self._policy = policy
        self._retry_s = retry_s
        self._statistics = statistics
        self._warn = warn
        self._log = log
        self._map: PlaceMap | None = None
        self._writing = threading.Lock()  # to the map
        self._selector = KeyframeSelector(policy())
        self._builder: StructureBuilder | None = None
        self._waiting: deque[_Waiting] = deque(maxlen=WAITING)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._added = 0

    @property
    def running(self) -> bool:
        """Whether views are taken, be they written now or later."""
        return self.state != OFF

    @property
    def added(self) -> int:
        """Keyframes that are safe on disk, of this run."""
        return self._added

    @property
    def waiting(self) -> int:
        """Keyframes that are not on disk yet."""
        return len(self._waiting)

    def start(self) -> None:
        """Begins to map; opens the map at once, so that the caller learns what is wrong.

        Raises:
            MapError: it cannot be written.
        """
        if self.state != OFF:
            return
        self._map = self._open()
        self.untouched = len(self._map) == 0
        self._selector = KeyframeSelector(self._policy())
        self.state, self.why = ON, ""
        self._thread = threading.Thread(target=self._run, name="place_mapper", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> int:
        """Ends mapping once what waits is written or cannot be; returns how many keyframes were lost."""
        with self._changed:
            self.state = OFF
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
            self._thread = None
        lost = len(self._waiting)
        self._waiting.clear()
        self.why = ""
        with self._writing:
            self._finish()
        if lost:
            self._statistics.count("keyframes_lost", lost)
        return lost

    def _finish(self) -> None:
        if self._map is None:
            return
        if self._builder is not None:
            try:
                for number, content in self._builder.flush().items():
                    self._map.set_structure(number, content)
            except MapError as error:
                self._warn("structure", f"The last keyframes keep provisional features: {error}")
        self._close()

    def release(self) -> None:
        """Closes the map; the next keyframe opens it, or what then has its name."""
        with self._writing:
            self._close()

    def _close(self) -> None:
        if self._map is not None:
            self._map.close()
        self._map = self._builder = None  # which knows keyframes by their numbers in that map

    def jumped(self) -> None:
        """Makes the next view a keyframe: its pose has nothing to do with the last one's."""
        self._selector = KeyframeSelector(self._policy())

    def offer(
        self,
        view: KeyframeView,
        T_map_camera: NDArray[np.float64],
        covariance: NDArray[np.float64] | None,
        thumbnail: bytes | None = None,
        intrinsics: Intrinsics | None = None,
    ) -> bool:
        """Takes a view if it is worth a keyframe, and says whether it did. Nothing is raised.

        Args:
            view: what was seen.
            T_map_camera: pose (4, 4) in the map.
            covariance: of it (6, 6), or None.
            thumbnail: JPEG, or None.
            intrinsics: of the camera, to keep local features of the view's image too.
        """
        if self.state == OFF:
            return False
        if self._selector.policy != self._policy():
            self._selector = KeyframeSelector(self._policy())
        if not self._selector.wants(T_map_camera, view.descriptor):
            return False
        try:
            keyframe = Keyframe.checked(
                stamp_ns=view.stamp_ns,
                camera=self._camera,
                source=self.source,
                T_map_camera=T_map_camera,
                descriptor=view.descriptor,
                covariance=covariance,
                thumbnail=thumbnail,
            )
        except ConfigError as error:
            self._refused(error)
            return False
        self._selector.added(T_map_camera, view.descriptor)
        with self._changed:
            self.untouched = False
            if len(self._waiting) == WAITING:
                self._statistics.count("keyframes_lost")
            kept = None if intrinsics is None else view.image
            self._waiting.append(_Waiting(keyframe, kept, intrinsics))
            self._changed.notify_all()
        return True

    def _refused(self, error: ConfigError) -> None:
        total = self._statistics.count("keyframes_refused")
        self._warn("keyframe", f"Keyframe refused ({total} so far): {error}")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self.state == OFF)
                if not self._waiting:
                    return
                waiting = self._waiting[0]
            try:
                done = self._add(waiting)
            except Exception:
                done = True  # this one is given up: the next may be fine
                self._statistics.count("internal_errors")
                self._warn(
                    "internal", f"Internal error, please report it:\n{traceback.format_exc()}"
                )
            with self._changed:
                if done:
                    if self._waiting and self._waiting[0] is waiting:
                        self._waiting.popleft()
                elif self.state == OFF:
                    return
                else:
                    self._changed.wait_for(lambda: self.state == OFF, self._retry_s())

    def _add(self, waiting: _Waiting) -> bool:
        """Says whether a keyframe is done with, be it added or refused for good."""
        with self._writing:
            return self._add_now(waiting)

    def _add_now(self, waiting: _Waiting) -> bool:
        try:
            if self._map is None:
                self._map = self._open()
            number = self._map.add(waiting.keyframe)
        except KeyframeThereError as error:  # the clock went back: a bag that loops
            total = self._statistics.count("keyframes_there_already")
            self._warn("there", f"Keyframe left out ({total} so far): {error}")
            return True
        except ConfigError as error:
            self._refused(error)
            return True
        except MapError as error:
            self._pause(error)
            return False
        if self.state == PAUSED:
            self._log("Mapping continues: the map accepts keyframes again")
            self.state, self.why = ON, ""
        self._added += 1
        self._statistics.count("keyframes_added")
        if waiting.image is not None and waiting.intrinsics is not None:
            self._add_structure(number, waiting.keyframe, waiting.image, waiting.intrinsics)
        return True

    def _add_structure(
        self,
        number: int,
        keyframe: Keyframe,
        image: NDArray[np.uint8],
        intrinsics: Intrinsics,
    ) -> None:
        """Keeps local features and points; without them the keyframe still serves for recognition."""
        assert self._map is not None
        try:
            if self._builder is None:
                builder = StructureBuilder(VerificationOptions.of_features(self._features))
                refuse_other_features(self._map, builder.extract.kind)
                self._builder = builder
            found = self._builder.add(number, keyframe.T_map_camera, image, intrinsics)
            for other, content in found.items():
                self._map.set_structure(other, content)
                self._statistics.count("structures")
        except RobotVisionError as error:
            total = self._statistics.count("structures_failed")
            self._warn(
                "structure", f"Keyframe {number} has no local features ({total} so far): {error}"
            )

    def _pause(self, error: MapError) -> None:
        if self.state != OFF:
            self.state, self.why = PAUSED, str(error)
        kind = {
            MapFullError: "full",
            MapBusyError: "locked",
            MapReadOnlyError: "read_only",
        }.get(type(error), "unusable")
        total = self._statistics.count(f"map_{kind}")
        self._warn(
            "mapping",
            f"Mapping is paused ({counted(total, 'failure')} so far) and recognition continues: "
            f"{error}. It is tried "
            f"again every {self._retry_s():g} s",
        )
        if kind == "unusable":  # perhaps another file stands there by now
            self._close()
