"""The node `camera_player`: a recording as camera topics, on machines with and without `ros2 bag`."""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("camera_player"))

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rclpy.clock import Clock as RosClock
from rclpy.clock import ClockType  # type: ignore[attr-defined]
from rclpy.duration import Duration
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from robot_vision.errors import ConfigError, RobotVisionError, SourceError
from robot_vision.messages import cdr
from robot_vision.messages.stamps import SECOND_NS, nanoseconds, set_stamp
from robot_vision.messages.types import CAMERA_INFO, IMAGE
from robot_vision.recordings import open_source
from robot_vision.recordings.bag import COMPRESSED_IMAGE, BagSource
from robot_vision.ros.node import qos
from robot_vision.ros.node.graph import GraphWatch, check_topics
from robot_vision.ros.node.parameters import NodeParameters
from robot_vision.ros.node.process import run_node
from robot_vision.ros.node.throttle import ThrottledLog
from robot_vision.ros.player.parameters import PlayerParameters
from robot_vision.ros.player.playback import Item, Pacer, Playback, ahead
from robot_vision.text.counts import counted

_TYPES: dict[str, Any] = {
    IMAGE: Image,
    COMPRESSED_IMAGE: CompressedImage,
    CAMERA_INFO: CameraInfo,
}
_AHEAD = 4  # images decoded before their time, so that a slow one does not break the pace
_WAITING_LOG_S = 5.0
_WARN_S = 5.0
_SAID_AT_ONCE = 10
_LAST_NS = (2**31 - 1) * SECOND_NS  # that a message's time can hold
_STAMPS = 32  # recorded stamps whose replacement is remembered, for what comes with an image


class CameraPlayer(Node):
    """Publishes a recording.

    Attributes:
        failed: whether the recording could not be played to its end.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("camera_player", **options)
        self.failed = False
        self._settings = NodeParameters(self, PlayerParameters)
        p = self._settings.current
        if not p.source:
            raise ConfigError(
                "source is empty: set it to a bag, a video, a folder of images or an image"
            )
        source = open_source(
            p.source,
            p.topics or None,
            p.start_s,
            p.duration_s or None,
            p.file_rate_hz,
            distances=True,
        )
        self._playback = Playback(
            source, p.output_topics, p.transport, p.frame_id, self.get_namespace()
        )
        self._now = p.stamps == "now" or (p.stamps == "auto" and not isinstance(source, BagSource))
        if self._now and p.clock_hz > 0:
            raise ConfigError(
                "stamps is now and clock_hz is set: /clock follows the recording, so "
                "set stamps to recorded"
            )

        def warn(text: str) -> None:
            self.get_logger().warning(text)

        kinds = self._playback.topics.kinds
        check_topics(self, "output_topics", [(topic, topic) for topic in kinds], True)
        self._topic_publishers = {
            topic: self.create_publisher(
                _TYPES[kind],
                topic,
                qos.profile(p.reliability, p.depth),
                event_callbacks=qos.publisher_events(self.resolve_topic_name(topic), warn),
            )
            for topic, kind in kinds.items()
        }
        self._clock_publisher = (
            self.create_publisher(Clock, "/clock", 10) if p.clock_hz > 0 else None
        )
        self._stop = threading.Event()
        self._published: Counter[str] = Counter()
        # Recorded stamps to that of now, and the topics that had it.
        self._stamps: dict[int, tuple[int, set[str]]] = {}
        self._said: set[str] = set()
        self._begin = self._last = 0.0
        self._worst_late_s = 0.0
        self._thread = threading.Thread(target=self._run, name="play", daemon=True)
        self._graph = GraphWatch(self)
        self._warn = ThrottledLog(warn, lambda: _WARN_S)
        self.create_timer(1.0, self._watch, clock=RosClock(clock_type=ClockType.STEADY_TIME))

    def start(self) -> None:
        """Begins to play, in a thread of its own."""
        topics = self._playback.topics
        names = ", ".join(self._names(topics.kinds))
        count = self._playback.source.count
        frames = "" if count is None else f" ({counted(count, 'frame')})"
        self.get_logger().info(f"Playing {self._playback.source.name}{frames} on {names}")
        self._say_problems()
        for note in topics.notes:
            self.get_logger().warning(note)
        if topics.others:
            shown, more = (
                ", ".join(topics.others[:_SAID_AT_ONCE]),
                len(topics.others) - _SAID_AT_ONCE,
            )
            rest = f" and {more} more" if more > 0 else ""
            self.get_logger().info(f"Not played, since they are not camera topics: {shown}{rest}")
        self._thread.start()

    def _names(self, topics: Iterable[str]) -> list[str]:
        """Returns topics as they are on the wire, after namespace and remapping."""
        return [self._topic_publishers[topic].topic_name for topic in topics]

    def _watch(self) -> None:
        """Says what plays alongside a camera, or twice."""
        for line in self._graph.doubles():
            self._warn(line.partition(" has ")[0], line)

    def close(self) -> None:
        """Stops playing."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        self._playback.source.close()

    def _run(self) -> None:
        try:
            if self._wait_for_subscribers():
                self._play()
        except RobotVisionError as error:
            self.failed = True
            self.get_logger().error(str(error))
        except Exception as error:  # a thread's traceback would be lost among other output
            if self._stop.is_set() or not self.context.ok():
                return
            self.failed = True
            self.get_logger().fatal(f"The player stopped on a bug: {type(error).__name__}: {error}")
        finally:
            self._report()
            if not self._stop.is_set() and (self.failed or self._settings.current.exit_at_end):
                for publisher in self._topic_publishers.values():
                    publisher.wait_for_all_acked(Duration(seconds=1.0))
                self.context.try_shutdown()

    def _wait_for_subscribers(self) -> bool:
        """Waits; returns False when stopped meanwhile."""
        wanted = self._settings.current.wait_for_subscribers
        images = [t for t, k in self._playback.topics.kinds.items() if k != CAMERA_INFO]
        logged = 0.0
        while wanted and not self._stop.is_set():
            lacking = [
                t for t in images if self._topic_publishers[t].get_subscription_count() < wanted
            ]
            # Files may be raw or compressed: one of the two topics is enough.
            either = not isinstance(self._playback.source, BagSource) and len(lacking) < len(images)
            if not lacking or either:
                break
            if time.monotonic() - logged > _WAITING_LOG_S:
                logged = time.monotonic()
                names = ", ".join(self._names(lacking))
                self.get_logger().info(f"Waiting for {counted(wanted, 'subscriber')} of {names}")
            self._stop.wait(0.02)
        return not self._stop.is_set()

    def _play(self) -> None:
        start: float | None = None
        while not self._stop.is_set():
            start = self._pass(start)
            if not self._settings.current.loop:
                return

    def _pass(self, start: float | None) -> float:
        """Plays once from a time of the monotonic clock; returns when the next pass is to begin."""
        p = self._settings.current
        self._stamps.clear()  # another pass has other times
        pacer = Pacer(p.rate_hz, p.speed)
        images = due = 0.0
        begun = False
        for item in ahead(iter(self._playback), _AHEAD, self._stop.is_set):
            jumps = len(pacer.jumps)
            due = pacer.due(item)
            for number, jump_ns in pacer.jumps[jumps:]:
                self.get_logger().warning(
                    f"The log jumps {jump_ns / 1e9:.0f} s ahead after {counted(number, 'message')}: "
                    "this pause is "
                    "left out"
                )
            if not begun:  # only now is the recording open, and the part that is skipped read
                start = max(start or 0.0, time.monotonic())
                begun = True
            assert start is not None
            if not self._sleep_until(start + due, item):
                return start
            self._worst_late_s = max(self._worst_late_s, time.monotonic() - start - due)
            self._publish(item)
            images += item.is_image
        if not images or start is None:
            if self._stop.is_set():
                return 0.0
            span = ""
            if p.start_s or p.duration_s:
                span = f" from start_s {p.start_s:g}"
                span += f" for duration_s {p.duration_s:g}" if p.duration_s else ""
            raise SourceError(
                f"{p.source} gave no image to play{span}: {self._playback.bad_frames} could not be decoded"
            )
        if p.rate_hz > 0:
            return start + due + 1 / p.rate_hz
        # As far after the last image as images are apart.
        return start + (due * images / (images - 1) if images > 1 and due > 0 else due + 1 / 30)

    def _sleep_until(self, due: float, item: Item) -> bool:
        """Sleeps, and lets /clock run meanwhile; returns False when stopped."""
        p = self._settings.current
        while True:
            left = due - time.monotonic()
            if left <= 0:
                return not self._stop.is_set()
            if self._clock_publisher is None or p.rate_hz > 0:
                step = left
            else:
                step = min(left, 1 / p.clock_hz)
                # Never past the next message, which is logged when `left` is over.
                self._publish_clock(item.log_ns - nanoseconds(left * p.speed))
            if self._stop.wait(step):
                return False

    def _publish(self, item: Item) -> None:
        data = item.data
        if self._now:
            data = cdr.with_stamp(data, self._stamp_of_now(cdr.stamp_of(data), item.topic))
        if self._clock_publisher is not None:
            self._publish_clock(item.log_ns)
        self._topic_publishers[item.topic].publish(data if isinstance(data, bytes) else bytes(data))
        if item.is_image:
            self._last = time.monotonic()
            self._begin = self._begin or self._last
            self._published[item.topic] += 1

    def _stamp_of_now(self, recorded_ns: int, topic: str) -> int:
        """Returns the time, and the same for the messages of one stamp on several topics.

        So an image and its camera_info stay together, and images whose driver repeats a stamp do not.
        """
        if not recorded_ns:  # not set
            return time.time_ns()
        now_ns, topics = self._stamps.get(recorded_ns, (0, {topic}))
        if topic in topics:
            now_ns, topics = time.time_ns(), set()
            self._stamps.pop(recorded_ns, None)
            if len(self._stamps) == _STAMPS:
                del self._stamps[next(iter(self._stamps))]
            self._stamps[recorded_ns] = now_ns, topics
        topics.add(topic)
        return now_ns

    def _publish_clock(self, now_ns: int) -> None:
        assert self._clock_publisher is not None
        message = Clock()
        set_stamp(message.clock, min(max(now_ns, 0), _LAST_NS))
        self._clock_publisher.publish(message)

    def _report(self) -> None:
        took = self._last - self._begin
        for topic, count in self._published.items():
            rate = f" at {(count - 1) / took:.2f} Hz" if took > 0 and count > 1 else ""
            (name,) = self._names([topic])
            self.get_logger().info(f"Published {counted(count, 'image')} on {name}{rate}")
        if self._published:
            self.get_logger().info(
                f"Largest delay behind the pace: {self._worst_late_s * 1e3:.1f} ms"
            )
        self._say_problems()
        if self._playback.bad_frames:
            self.get_logger().warning(
                f"{counted(self._playback.bad_frames, 'image')} could not be decoded"
            )

    def _say_problems(self) -> None:
        """Logs what is new of what the recording lacks, or says wrongly of itself."""
        source, log = self._playback.source, self.get_logger()
        new = [line for line in (*source.problems, *source.notes) if line not in self._said]
        for line in new[:_SAID_AT_ONCE]:
            log.warning(line) if line in source.problems else log.info(line)
        if len(new) > _SAID_AT_ONCE:
            log.warning(
                f"{counted(len(new) - _SAID_AT_ONCE, 'more line')} about what the recording lacks"
            )
        self._said.update(new)


def main(args: Sequence[str] | None = None) -> int:
    """Runs the node; returns the exit status: 1 if the recording could not be played to its end."""
    players: list[CameraPlayer] = []

    def create() -> CameraPlayer:
        players.append(CameraPlayer())
        return players[0]

    status = run_node(create, args)
    return status or int(any(player.failed for player in players))
