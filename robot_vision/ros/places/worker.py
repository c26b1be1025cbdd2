"""The thread that turns descriptors into places: recognise, verify, publish, relocalise, map, close loops."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from std_msgs.msg import Header

from robot_vision.errors import ImageError, MeasurementError
from robot_vision.geometry.camera_pose import CameraPose, base_pose
from robot_vision.geometry.pose_buffer import BACK_S
from robot_vision.messages.incoming import checked_stamp_ns
from robot_vision.ros.node.mailbox import Mailbox, RateLimiter
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.node.status import header_message
from robot_vision.ros.places.images import Images, thumbnail
from robot_vision.ros.places.keyframes import KeyframeView, Mapper
from robot_vision.ros.places.loops import Loops
from robot_vision.ros.places.messages import read_descriptor
from robot_vision.ros.places.motion import Located, Motion
from robot_vision.ros.places.origin import Origin
from robot_vision.ros.places.outputs import PlaceOutputs
from robot_vision.ros.places.parameters import PlaceParameters
from robot_vision.ros.places.recognition import LiveMap, PlaceAnswer
from robot_vision.text.counts import counted

KEY = "descriptor"
IDLE_S = 0.1  # between two looks at the map and at deadlines while nothing comes


class PlaceWorker:
    """Works on the newest descriptor until it is stopped; no bad message or failure ends it.

    Args:
        parameters: returns the current snapshot.
        recognition: the map; used by this thread only while it runs.
        motion: where the camera was.
        origin: of the motion's frame in the map.
        images: the last images; None if nothing is done with them.
        mapper: writes keyframes.
        loops: of the running session; None if nobody wants them.
        outputs: publishers.
        statistics: of the node.
        warn: throttled log: a key and a line.
    """

    def __init__(
        self,
        parameters: Callable[[], PlaceParameters],
        recognition: LiveMap,
        motion: Motion,
        origin: Origin,
        images: Images | None,
        mapper: Mapper,
        loops: Loops | None,
        outputs: PlaceOutputs,
        statistics: Statistics,
        warn: Callable[[str, str], None],
    ) -> None:
        self.mailbox: Mailbox[tuple[Any, float]] = Mailbox([KEY])
        self.dimension = 0  # of the last good descriptor
        self.since = time.monotonic()  # the last descriptor came, or this was made
        self.seen = False
        self._start = self.since
        self._parameters = parameters
        self._recognition = recognition
        self._motion = motion
        self._origin = origin
        self._images = images
        self._mapper = mapper
        self._loops = loops
        self._outputs = outputs
        self._statistics = statistics
        self._warn = warn
        self._rate = RateLimiter()
        self._lock = threading.Lock()
        self._relocalise: tuple[float, Callable[[bool, str], None]] | None = None
        self._reset = False
        self._unmounted = ""  # camera that was recognised, and is nowhere on the robot
        self._last_stamp_ns: int | None = None
        self._motion_jumps = motion.jumps
        self._thread = threading.Thread(target=self._run, name="place_worker", daemon=True)

    @property
    def age_s(self) -> float:
        """Seconds since this was made."""
        return time.monotonic() - self._start

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 60.0) -> bool:
        """Ends the thread after the descriptor that it works on; says whether it ended in time."""
        self.mailbox.close()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        self._answer_relocalise(False, "the node was deactivated")
        return not self._thread.is_alive()

    def put(self, message: Any) -> None:
        """Takes a descriptor message; one that nobody took yet is replaced."""
        self.since, self.seen = time.monotonic(), True
        self._statistics.count("received")
        self._statistics.mark("received")
        if not self._rate.allows(self._parameters().max_rate_hz, self.since):
            self._statistics.count("limited")
        elif self.mailbox.put(KEY, (message, self.since)):
            self._statistics.count("replaced")

    def relocalise(self, done: Callable[[bool, str], None]) -> None:
        """Forgets where the robot was thought to be; the next accepted match goes to `initialpose_topic`.

        Args:
            done: called once, from any thread, with success and a line of text.
        """
        self._answer_relocalise(False, "another call of relocalise replaced it")
        with self._lock:
            until = time.monotonic() + self._parameters().relocalise_timeout_s
            self._relocalise, self._reset, self._unmounted = (until, done), True, ""

    def _answer_relocalise(self, success: bool, text: str) -> None:
        with self._lock:
            waiting, self._relocalise = self._relocalise, None
        if waiting is not None:
            waiting[1](success, text)

    def _run(self) -> None:
        while not self.mailbox.closed:
            taken = self.mailbox.take(IDLE_S)
            try:
                self._recognition.follow()
                if KEY in taken:
                    message, received = taken[KEY]
                    self._statistics.sample("wait", time.monotonic() - received)
                    start = time.monotonic()
                    self._process(message)
                    self._statistics.sample("work", time.monotonic() - start)
                self._check_deadline()
            except Exception:
                self._statistics.count("internal_errors")
                self._warn(
                    "internal", f"Internal error, please report it:\n{traceback.format_exc()}"
                )

    def _check_deadline(self) -> None:
        with self._lock:
            waiting = self._relocalise
        if waiting is None or time.monotonic() < waiting[0]:
            return
        p = self._parameters()
        why = (
            self._recognition.problem or "no place of the map was recognised with enough confidence"
        )
        if self._unmounted:
            why = (
                f"a place was recognised, but where {self._unmounted!r} is on {p.base_frame!r} is not known: "
                "publish it on /tf_static, or set camera_to_base"
            )
        if self._statistics.rate("received") == 0:
            why = f"no descriptor came on {p.descriptors}"
        self._answer_relocalise(False, f"Not within {p.relocalise_timeout_s:g} s: {why}")

    # One descriptor

    def _process(self, message: Any) -> None:
        descriptor = self._read(message)
        if descriptor is None:
            return
        header, p = header_message(message.header), self._parameters()
        try:
            stamp_ns = checked_stamp_ns(header)
        except MeasurementError as error:
            self._refuse(error.reason, str(error))
            return
        if not self._in_order(stamp_ns):
            return
        located = self._locate(stamp_ns, header.frame_id)
        image = self._images.of(stamp_ns) if self._images is not None else None
        answer = self._recognition.observe(
            descriptor, stamp_ns, None if located is None else located.T_fixed_camera
        )
        if answer is not None:
            if p.verify and self._images is not None:
                camera = None if image is None else self._images.intrinsics(image)
                why = "" if camera is not None else self._images.why
                answer = self._recognition.verified(answer, image, camera, why)
            self._publish(header, answer, located, p)
        if located is not None:
            view = KeyframeView(stamp_ns, descriptor, located, image)
            self._map(view)
            if self._loops is not None:
                self._loops.look(view, p)
        self._draw(header, p)

    def _refuse(self, reason: str, text: str) -> None:
        total = self._statistics.count(f"refused_{reason}")
        self._statistics.mark("refused")
        self._warn(f"descriptor {reason}", f"Descriptor refused ({total} so far): {text}")

    def _read(self, message: Any) -> Any:
        try:
            descriptor = read_descriptor(message)
        except ImageError as error:
            self._refuse(error.reason, str(error))
            return None
        self.dimension = len(descriptor)
        refusal = self._recognition.refusal(self.dimension)
        if refusal:
            total = self._statistics.count("refused_dimension")
            self._statistics.mark("refused")
            self._warn("descriptor dimension", f"Descriptor refused ({total} so far): {refusal}")
            return None
        return descriptor

    def _in_order(self, stamp_ns: int) -> bool:
        """Says whether a descriptor is to be used; starts again after a jump of the clock."""
        last, jumps = self._last_stamp_ns, self._motion.jumps
        back_s = 0.0 if last is None else (last - stamp_ns) * 1e-9
        if 0 < back_s <= BACK_S:
            self._statistics.count("late")
            return False
        self._last_stamp_ns = stamp_ns
        if back_s > BACK_S:
            total = self._statistics.count("stamps_back")
            self._warn(
                "stamps",
                f"Descriptors' stamps went back by {back_s:.1f} s ({counted(total, 'time')} so far): "
                "the sequence "
                "of images starts again. The cause is a bag that loops, or a clock that was set",
            )
        with self._lock:
            reset, self._reset = self._reset, False
        if reset or back_s > BACK_S or jumps != self._motion_jumps:
            self._recognition.reset()
        if back_s > BACK_S or jumps != self._motion_jumps:
            self._motion_jumps = jumps
            self._mapper.jumped()
            self._origin.forget()
            if self._mapper.running and self._mapper.untouched:
                self._origin.define()
            if self._loops is not None:
                self._loops.forget()
        return True

    def _locate(self, stamp_ns: int, frame: str) -> Located | None:
        located = self._motion.at(stamp_ns, frame)
        if located is None and self._motion.source != "none":
            total = self._statistics.count("no_pose")
            self._warn(
                "no pose",
                f"No pose for the image from {self._motion.topic} ({counted(total, 'time')} so far), "
                f"{self._motion.why}: places are recognised without the robot's motion, and nothing is "
                "mapped meanwhile",
            )
        return located

    def _publish(
        self, header: Header, answer: PlaceAnswer, located: Located | None, p: PlaceParameters
    ) -> None:
        frame = self._recognition.frame_id
        self._outputs.places(
            header, frame, answer.hypotheses, answer.accepted, answer.probability_in_map, p
        )
        self._statistics.count("answered")
        if not answer.accepted:
            return
        pose = answer.hypotheses[0].pose
        self._statistics.count("accepted")
        self._statistics.mark("accepted")
        if located is not None and not located.in_map:
            self._origin.match(pose, located)
        moved: CameraPose | None = pose
        if p.base_frame:
            T_base_camera = self._motion.mounting(p.base_frame, header.frame_id)
            moved = None if T_base_camera is None else base_pose(pose, T_base_camera)
        if moved is None:
            self._unmounted = header.frame_id
            return
        self._outputs.pose(header, frame, moved, p)
        with self._lock:
            # Not by a belief of before the call, which the next descriptor forgets.
            wanted = self._relocalise is not None and not self._reset
        if wanted and p.base_frame:
            topic, listeners = self._outputs.initial_pose(header.stamp, frame, moved, p)
            x, y, z = moved.position
            best = answer.hypotheses[0]
            done = (
                f"Published {topic} to {counted(listeners, 'subscriber')}"
                if listeners
                else f"Nothing subscribes to {topic}: start the localiser, or set initialpose_topic. Found"
            )
            self._answer_relocalise(
                listeners > 0,
                f"{done}: place {best.place} with probability {best.probability:.2f}, at "
                f"({x:.2f}, {y:.2f}, {z:.2f}) in {frame}",
            )

    def _map(self, view: KeyframeView) -> None:
        if not self._mapper.running:
            return
        placed = self._origin.placed(view.located)
        if placed is None:
            self._statistics.count("keyframes_without_origin")
            self._warn(
                "origin",
                "Mapping waits for an accepted match: the map has keyframes of earlier runs, and where this "
                "run's odometry began in it is not known yet",
            )
            return
        p = self._parameters()
        picture = thumbnail(view.image) if p.thumbnails and view.image is not None else None
        intrinsics = None
        if self._images is not None and p.verify and view.image is not None:
            intrinsics = self._images.intrinsics(view.image)
        self._mapper.offer(view, *placed, picture, intrinsics)

    def _draw(self, header: Header, p: PlaceParameters) -> None:
        if not self._outputs.drawn_on:
            return
        loops = self._loops
        self._outputs.keyframes(
            header.stamp,
            self._recognition.frame_id or p.map_frame,
            self._recognition.revision,
            self._recognition.positions,
            loops,
        )
