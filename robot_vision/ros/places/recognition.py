"""The map as the running node sees it: opened when it can be, kept in step, and asked for each view."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import RobotVisionError
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.places.map.base import (
    MapError,
    MapInfo,
    MapMissingError,
    MapReplacedError,
    PlaceMap,
)
from robot_vision.places.map.opening import open_map
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.places.hypotheses import hypotheses_of
from robot_vision.ros.places.map_file import Model, file_identity, refuse_model
from robot_vision.ros.places.messages import PlaceHypothesis
from robot_vision.ros.places.parameters import PlaceParameters
from robot_vision.text.address import is_server, shown
from robot_vision.text.counts import counted

MANY = 500  # added keyframes, from which on all are asked at once
FOLLOW_S = 1.0  # between two looks for what others did to the map


@dataclass(frozen=True)
class PlaceAnswer:
    """What the map says of one view.

    Attributes:
        hypotheses: most probable first.
        accepted: whether the first is to be believed.
        probability_in_map: that the view is of any place of the map.
    """

    hypotheses: tuple[PlaceHypothesis, ...]
    accepted: bool
    probability_in_map: float


class LiveMap:
    """Asks the map where a view was taken. Everything but `problem` and `unverified` is for one thread.

    `unverified` says why the last match could not be verified; it is empty where it could.

    Args:
        parameters: returns the current snapshot.
        model: returns who makes the descriptors, once that is known.
        source: returns the name that this session's keyframes bear.
        leaves_out_own: says whether they are no answers now: the last one always looks most like the view.
        statistics: counts failures.
        warn: throttled log: a key and a line.
        log: takes a line for the operator.
        release: makes the writer of the map close it, before another file of its name is opened: SQLite
            keeps one log for a name.
    """

    def __init__(
        self,
        parameters: Callable[[], PlaceParameters],
        model: Callable[[], Model | None],
        source: Callable[[], str],
        leaves_out_own: Callable[[], bool],
        statistics: Statistics,
        warn: Callable[[str, str], None],
        log: Callable[[str], None],
        release: Callable[[], None],
    ) -> None:
        self.problem = ""
        self.missing = False
        self.unverified = ""
        self._parameters = parameters
        self._model = model
        self._source = source
        self._leaves_out_own = leaves_out_own
        self._own: set[int] = set()
        self._statistics = statistics
        self._warn = warn
        self._log = log
        self._release = release
        self._wanted_anew = False
        self._asking: threading.Thread | None = None  # a server for the map's revision
        self._news: int | RobotVisionError | None = None  # what it said
        self._map: PlaceMap | None = None
        self._index: Any = None
        self._recogniser: Any = None
        self._verifier: Any = None
        self._identity: tuple[int, int] | None = None
        self._next = 0.0

    @property
    def frame_id(self) -> str:
        """Frame of the map; the parameter's while there is none."""
        info = self.info
        return self._parameters().map_frame if info is None else info.frame_id

    @property
    def info(self) -> MapInfo | None:
        """Of the open map."""
        places = self._map  # another thread may ask while this one closes it
        return None if places is None else places.info

    @property
    def revision(self) -> int:
        """Of what is recognised; -1 while no map is open."""
        index = self._index
        return -1 if index is None else int(index.revision)

    @property
    def size(self) -> int:
        """Places that can be recognised."""
        index = self._index
        return 0 if index is None else len(index)

    def outdated(self) -> bool:
        """Says whether another file, or none, has the name of the open map; it is then closed soon."""
        if self._map is None or file_identity(self._parameters().map) == self._identity:
            return False
        self._wanted_anew = True
        return True

    def positions(self) -> NDArray[np.float64]:
        """Returns the positions (N, 3) of the map's keyframes, in the map's frame."""
        return np.zeros((0, 3)) if self._map is None else self._map.poses().positions

    def open(self) -> None:
        """Opens the map that the parameters name, with its index.

        Raises:
            MapError: it does not exist, or cannot be used.
        """
        from robot_vision.places.index.index_cache import open_index
        from robot_vision.places.recognition.recogniser import Recogniser

        p = self._parameters()
        start = time.perf_counter()
        places = open_map(p.map, "read")
        try:
            refuse_model(places.info, self._model())
            index = open_index(places)
            recogniser = Recogniser(places, index, p.recogniser)
        except BaseException:
            places.close()
            raise
        self._identity = file_identity(p.map)
        self._wanted_anew = False
        self._map, self._index, self._recogniser = places, index, recogniser
        self._own = set()
        self._note_own(None)
        info = places.info
        self._log(
            f"Map {info.uri}: {counted(len(index), 'place')} of model {info.bundle_name} in frame "
            f"{info.frame_id}, "
            f"open after {time.perf_counter() - start:.2f} s"
        )

    def try_open(self) -> bool:
        """Opens the map if it can be, and notes in `problem` why not."""
        p = self._parameters()
        self._next = time.monotonic() + p.retry_period_s
        try:
            self.open()
        except MapMissingError:  # no failure: mapping makes it, or somebody copies it here
            if not self.missing:
                self._log(
                    f"Map {shown(p.map)} does not exist yet: nothing is recognised until it does"
                )
            self.missing = True
            self.problem = f"{shown(p.map)} does not exist yet: start mapping, or build one"
            return False
        except RobotVisionError as error:
            self._fail(error)
            return False
        except ModuleNotFoundError as error:
            self._fail(
                MapError(f"{error.name} is not installed: pip install 'robot_vision[places]'")
            )
            return False
        self.problem, self.missing = "", False
        self._next = time.monotonic() + FOLLOW_S
        return True

    def _fail(self, error: RobotVisionError) -> None:
        self.missing = False
        self.problem = str(error)
        self._statistics.count("map_failures")
        self._warn("map", f"No place is recognised: {error}")

    def follow(self) -> None:
        """Opens the map when it is time to, or takes in what was added and removed. Nothing is raised."""
        if time.monotonic() < self._next or not self._parameters().map:
            return
        if self._map is None:
            self.try_open()
            return
        self._next = time.monotonic() + FOLLOW_S
        identity = file_identity(self._parameters().map)
        # One that was removed goes on to be recognised, unless a new one is to be made in its place.
        if identity != self._identity and (identity is not None or self._wanted_anew):
            what = "removed" if identity is None else "replaced by another file: opening that"
            self._log(f"Map {shown(self._parameters().map)} was {what}")
            self.close()
            self._release()
            self.try_open()
            return
        try:
            refuse_model(self._map.info, self._model())
        except MapError as error:
            self.close()
            self._next = time.monotonic() + self._parameters().retry_period_s
            self._fail(error)
            return
        self._refresh()

    def _refresh(self) -> None:
        from robot_vision.places.index.index_cache import refresh

        assert self._map is not None
        try:
            if self._revision_of_map() in (None, self._index.revision):
                return
            changes = refresh(self._index, self._map)
            if len(changes.added) or len(changes.removed):
                self._recogniser.refresh()
                self._note_own(changes.added)
        except MapReplacedError as error:
            self._log(f"{error}: opening it")
            self.close()
            self._release()
            self.try_open()
        except RobotVisionError as error:
            # Locked, or the server is away: what is known still serves.
            total = self._statistics.count("map_failures")
            self._warn(
                "map",
                f"Changes of the map cannot be read ({counted(total, 'failure')} so far): {error}",
            )

    def _revision_of_map(self) -> int | None:
        """Returns the map's revision; None while a server is asked, which may be out of reach."""
        places = self._map
        assert places is not None
        if not is_server(self._parameters().map):
            return places.revision
        if self._asking is not None and self._asking.is_alive():
            return None
        news, self._news = self._news, None

        def ask() -> None:
            try:
                self._news = places.revision
            except RobotVisionError as error:
                self._news = error

        self._asking = threading.Thread(target=ask, name="place_map_news", daemon=True)
        self._asking.start()
        if isinstance(news, RobotVisionError):
            raise news
        return news

    def _note_own(self, added: NDArray[np.int64] | None) -> None:
        """Notes which of the added keyframes (None: of all) are of the running session."""
        assert self._map is not None
        source, camera = self._source(), self._parameters().camera
        if added is None or len(added) > MANY:
            poses = self._map.poses()
            self._own.update(
                int(i)
                for i, s, c in zip(poses.ids, poses.sources, poses.cameras, strict=True)
                if (s, c) == (source, camera)
            )
            return
        self._own.update(
            int(i)
            for i, k in zip(added, self._map.keyframes(added), strict=True)
            if (k.source, k.camera) == (source, camera)
        )

    def refusal(self, dimension: int) -> str:
        """Returns why a descriptor of this many numbers cannot be looked for; empty if it can."""
        info = self.info
        if info is None or info.dimension == dimension:
            return ""
        return (
            f"it has {dimension} numbers and those of {info.uri} have {info.dimension}: use model "
            f"{info.bundle_name}, which the map was made with"
        )

    def observe(
        self,
        descriptor: NDArray[np.float32],
        stamp_ns: int,
        odometry: NDArray[np.float64] | None,
    ) -> PlaceAnswer | None:
        """Returns what the map says of a view; None while there is no map, or it cannot be asked.

        Args:
            descriptor: float32 (D,), of length 1.
            stamp_ns: of the image.
            odometry: pose (4, 4) of the camera in any frame that is fixed over seconds, or None.
        """
        if self._recogniser is None:
            self._statistics.count("no_map")
            return None
        from robot_vision.places.recognition.recogniser import Odometry

        moved = None if odometry is None else Odometry(stamp_ns, odometry)
        exclude = self._own if self._leaves_out_own() else ()
        try:
            found = self._recogniser.observe(descriptor, stamp_ns, moved, exclude)
        except RobotVisionError as error:
            total = self._statistics.count("recognition_failures")
            self._warn("recognition", f"LiveMap failed ({counted(total, 'time')} so far): {error}")
            return None
        if found.aliased:
            self._statistics.count("aliased")
        p = self._parameters()
        accepted = bool(found.candidates) and found.probability >= p.accept_probability
        return PlaceAnswer(hypotheses_of(found.candidates, p), accepted, found.probability_in_map)

    def verified(
        self,
        answer: PlaceAnswer,
        image: NDArray[np.uint8] | None,
        intrinsics: Intrinsics | None,
        why: str,
    ) -> PlaceAnswer:
        """Returns the answer after the best places were compared with the image.

        A place whose features fit is accepted, with the pose that they give. Where they do not fit, or cannot
        be compared, nothing is accepted: a user who asks for verified poses drives on them.

        Args:
            answer: of recognition.
            image: RGB uint8 (H, W, 3), or None where there is none.
            intrinsics: of the image; None where they are not known.
            why: the image or its intrinsics are not there.
        """
        from robot_vision.places.verification.options import VerificationOptions
        from robot_vision.places.verification.verifier import COMPARED, Verifier, candidates_of

        if not answer.hypotheses or self._map is None:
            return answer
        if image is None or intrinsics is None:
            return self._not_verifiable(answer, why)
        try:
            if self._verifier is None:
                options = VerificationOptions.of_features(self._parameters().features)
                self._verifier = Verifier(options)
            ids = [h.place for h in answer.hypotheses[:COMPARED]]
            found = self._verifier.verify(image, candidates_of(self._map, ids), intrinsics)
        except RobotVisionError as error:
            return self._not_verifiable(answer, str(error))
        if found.reason == "no_structure":
            return self._not_verifiable(
                answer,
                "the map has no local features there: build it with them, or set verify false",
            )
        self.unverified = ""
        if not found.accepted:
            self._statistics.count("verification_refused")
            self._statistics.count(f"verification_{found.reason}")
            return replace(answer, accepted=False)
        self._statistics.count("verified")
        best = next(h for h in answer.hypotheses if h.place == found.keyframe_id)
        others = tuple(h for h in answer.hypotheses if h is not best)
        if found.pose is not None:
            best = replace(best, pose=found.pose)
        return replace(answer, hypotheses=(best, *others), accepted=True)

    def _not_verifiable(self, answer: PlaceAnswer, why: str) -> PlaceAnswer:
        self.unverified = why
        total = self._statistics.count("not_verifiable")
        self._warn(
            "verification",
            f"No pose is published, since verify is set and a match could not be verified ({total} so far): "
            f"{why}",
        )
        return replace(answer, accepted=False)

    def reset(self) -> None:
        """Forgets where the camera was thought to be."""
        if self._recogniser is not None:
            self._recogniser.reset()

    def close(self) -> None:
        """Closes the map; calling it again does nothing."""
        places, self._map = self._map, None
        self._index = self._recogniser = self._news = None
        if places is not None:
            places.close()
