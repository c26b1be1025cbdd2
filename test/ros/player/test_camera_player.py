"""The camera player in its own process, heard over real DDS."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from ros_helpers import own_environment, python_path  # noqa: E402

from robot_vision.errors import ConfigError
from robot_vision.images.decode import to_rgb
from robot_vision.messages import cdr
from robot_vision.recordings import CompressedImage, RawImage, open_source
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.ros.player.playback import Item, Pacer, Playback

START = 1_700_000_000_000_000_000
PERIOD = 50_000_000
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 24, 32, 3), np.uint8)


def write_bag(path: Path, count: int = 8, storage: str = "sqlite3") -> Path:
    with RecordingWriter(path, storage) as bag:
        for i in range(count):
            stamp = START + i * PERIOD
            K = np.array([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]])
            bag.camera_info("/front/camera_info", stamp, "front", (24, 32), K)
            bag.image("/front/image_raw", stamp, "front", IMAGES[i], "bgr8")
    return path


# Bytes


def deserialize(data: bytes, kind: Any) -> Any:
    from rclpy.serialization import deserialize_message

    return deserialize_message(data, kind)


@pytest.mark.parametrize("frame_id", ["", "a", "abc", "abcd", "camera_optical_frame", "küche"])
@pytest.mark.parametrize("encoding", ["rgb8", "bayer_rggb8", "mono8"])
def test_written_image_bytes_are_what_rclpy_reads(frame_id: str, encoding: str) -> None:
    from sensor_msgs.msg import Image

    pixels = IMAGES[0] if encoding == "rgb8" else np.ascontiguousarray(IMAGES[0, :, :, 0])
    message = deserialize(cdr.image(START + 7, frame_id, RawImage.of(pixels, encoding)), Image)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1_700_000_000, 7)
    assert message.header.frame_id == frame_id and message.encoding == encoding
    assert (message.height, message.width, message.step) == (24, 32, pixels.strides[0])
    assert message.data.tobytes() == pixels.tobytes()


@pytest.mark.parametrize("kind", ["", "png", "jpeg", "bgr8; jpeg compressed bgr8"])
def test_written_compressed_bytes_are_what_rclpy_reads(kind: str) -> None:
    from sensor_msgs.msg import CompressedImage as Message

    data = cdr.compressed_image(START, "front", CompressedImage(kind, b"12345"))
    message = deserialize(data, Message)
    assert message.format == kind and message.data.tobytes() == b"12345"


def test_header_is_changed_and_nothing_else() -> None:
    from sensor_msgs.msg import Image

    data = cdr.image(START, "front", RawImage.of(IMAGES[0], "rgb8"))
    for frame_id in ("", "x", "a_much_longer_frame_than_before"):
        changed = cdr.with_frame_id(cdr.with_stamp(data, START + 123_456_789_012), frame_id)
        message = deserialize(changed, Image)
        assert cdr.stamp_of(changed) == START + 123_456_789_012
        assert message.header.frame_id == frame_id and message.encoding == "rgb8"
        assert message.data.tobytes() == IMAGES[0].tobytes()


def test_big_endian_messages_keep_their_order() -> None:
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_HUMBLE)
    make = types.types
    header = make["std_msgs/msg/Header"](make["builtin_interfaces/msg/Time"](5, 6), "front")
    message = make["sensor_msgs/msg/Image"](header, 1, 2, "mono8", 1, 2, np.array([1, 2], np.uint8))
    big = bytes(types.serialize_cdr(message, message.__msgtype__, little_endian=False))
    assert cdr.stamp_of(big) == 5_000_000_006
    changed = cdr.with_frame_id(cdr.with_stamp(big, START), "other_frame")
    read = types.deserialize_cdr(changed, message.__msgtype__)
    assert read.header.stamp.sec == 1_700_000_000 and read.header.frame_id == "other_frame"
    assert (read.height, read.width, read.data.tolist()) == (1, 2, [1, 2])


# What is played, and when


def test_bytes_of_a_bag_pass_through(tmp_path: Path) -> None:
    playback = Playback(open_source(write_bag(tmp_path / "bag")))
    items = list(playback)
    assert playback.topics.kinds == {
        "/front/image_raw": "sensor_msgs/msg/Image",
        "/front/camera_info": "sensor_msgs/msg/CameraInfo",
    }
    assert [item.is_image for item in items] == [False, True] * 8
    records = open_source(tmp_path / "bag").records({"/front/image_raw"})  # type: ignore[attr-defined]
    assert [i.data for i in items if i.is_image] == [r.data for r in records]


def test_topics_transport_and_frame_are_replaced(tmp_path: Path) -> None:
    from sensor_msgs.msg import CameraInfo
    from sensor_msgs.msg import CompressedImage as Compressed

    source = open_source(write_bag(tmp_path / "bag"))
    playback = Playback(source, ["/cam/image"], "compressed", "optical")
    info, image = list(playback)[:2]
    assert (info.topic, image.topic) == ("/cam/camera_info", "/cam/image/compressed")
    message = deserialize(bytes(info.data), CameraInfo)
    assert message.header.frame_id == "optical" and message.k[0] == 30.0
    packed = deserialize(bytes(image.data), Compressed)
    assert packed.header.frame_id == "optical" and to_rgb(packed).shape == (24, 32, 3)


def test_wrong_number_of_output_topics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="/front/image_raw"):
        Playback(open_source(write_bag(tmp_path / "bag")), ["/a", "/b"])


def test_images_that_cannot_be_converted_are_counted(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), IMAGES[0])
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    playback = Playback(open_source(tmp_path), transport="raw")
    assert len(list(playback)) == 1 and playback.bad_frames == 1


def test_times_count_from_the_start() -> None:
    def item(i: int, topic: str = "/a") -> Item:
        return Item(topic, "sensor_msgs/msg/Image", START + i * PERIOD, b"")

    recorded = Pacer(0.0, 2.0)
    assert [recorded.due(item(i)) for i in (0, 1, 5)] == [0.0, 0.025, 0.125]
    fixed = Pacer(10.0, 1.0)
    dues = [fixed.due(item(i, t)) for i, t in ((0, "/a"), (0, "/b"), (7, "/a"), (9, "/a"))]
    assert dues == [0.0, 0.0, 0.1, 0.2]
    uneven = Pacer(10.0, 1.0)  # of a camera that has fewer images
    dues = [uneven.due(item(0, t)) for t in ("/a", "/b", "/a", "/a", "/b")]
    assert dues == [0.0, 0.0, 0.1, 0.2, 0.2]


def test_jump_of_the_log_is_not_waited_for() -> None:
    def item(log_ns: int) -> Item:
        return Item("/a", "sensor_msgs/msg/Image", log_ns, b"")

    pacer = Pacer(0.0, 2.0)
    times = [0, PERIOD, START, START + PERIOD, START + 3599 * 10**9, 2**63 - 1]
    dues = [pacer.due(item(t)) for t in times]
    period = PERIOD / 1e9 / 2
    assert dues[:4] == pytest.approx([0, period, period + 0.05, 2 * period + 0.05])
    assert dues[4:] == pytest.approx([dues[2] + 3599 / 2, dues[2] + 3599 / 2 + 0.05])
    assert [number for number, _ in pacer.jumps] == [2, 5]


# Over DDS


@contextmanager
def player(*parameters: str, rules: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """Runs the node as users do, with parameters and remapping rules; interrupts it at the end."""
    command = [sys.executable, "-m", "robot_vision.ros.player.node", "--ros-args"]
    for rule in rules:
        command += ["-r", rule]
    for parameter in parameters:
        command += ["-p", parameter]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**own_environment(), "PYTHONPATH": python_path()},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=60)
        except (subprocess.TimeoutExpired, ValueError):
            process.kill()


class Listener:
    """Subscribes and collects (arrival time, message) by topic."""

    def __init__(self, **topics: Any) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import QoSProfile

        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("listener", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard: dict[str, list[tuple[float, Any]]] = {}
        for topic, kind in topics.items():
            name = "/" + topic.replace("__", "/")
            self.heard[name] = []
            self.node.create_subscription(kind, name, self._callback(name), QoSProfile(depth=50))

    def _callback(self, name: str) -> Callable[[Any], None]:
        return lambda message: self.heard[name].append((time.monotonic(), message))

    def until(self, done: Callable[[], bool], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, {k: len(v) for k, v in self.heard.items()}
            self.executor.spin_once(timeout_sec=0.05)

    def messages(self, topic: str) -> list[Any]:
        return [message for _, message in self.heard[topic]]

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    made: list[Listener] = []

    def make(**topics: Any) -> Listener:
        made.append(Listener(**topics))
        return made[-1]

    yield make
    for listener in made:
        listener.close()


def reported_hz(output: str) -> float:
    """Returns the rate that the player says it kept. Arrivals on a busy machine tell less."""
    return float(output.split("images on ")[1].split(" at ")[1].split(" Hz")[0])


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.parametrize("storage", ["sqlite3", pytest.param("mcap", marks=pytest.mark.slow)])
def test_bag_arrives_whole_and_at_its_pace(
    tmp_path: Path, listen: Callable[..., Listener], storage: str
) -> None:
    from sensor_msgs.msg import CameraInfo, Image

    bag = write_bag(tmp_path / "bag", storage=storage)
    listener = listen(front__image_raw=Image, front__camera_info=CameraInfo)
    with player(f"source:={bag}", "wait_for_subscribers:=1", "speed:=0.5") as process:
        listener.until(lambda: len(listener.heard["/front/image_raw"]) == 8)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    images = listener.messages("/front/image_raw")
    assert [stamp_ns(m) for m in images] == [START + i * PERIOD for i in range(8)]
    for message, image in zip(images, IMAGES, strict=True):
        assert (message.encoding, message.header.frame_id) == ("bgr8", "front")
        np.testing.assert_array_equal(to_rgb(message), image[..., ::-1])
    assert "Published 8 images on /front/image_raw at" in output
    assert reported_hz(output) == pytest.approx(10, rel=0.3)  # 20 Hz at half speed
    assert len(listener.messages("/front/camera_info")) >= 7


@pytest.mark.slow
@pytest.mark.ros
def test_in_a_namespace_and_remapped_it_plays_and_names_the_topics_that_it_uses(
    tmp_path: Path, listen: Callable[..., Listener]
) -> None:
    from sensor_msgs.msg import CameraInfo, Image

    bag = write_bag(tmp_path / "bag")
    listener = listen(eye=Image, robot1__front__camera_info=CameraInfo)
    rules = ("__ns:=/robot1", "__node:=front", "front/image_raw:=/eye")  # as its topics begin
    with player(f"source:={bag}", "wait_for_subscribers:=1", rules=rules) as process:
        listener.until(lambda: len(listener.heard["/eye"]) == 8)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "Published 8 images on /eye at" in output and "/front/image_raw" not in output
    assert len(listener.messages("/robot1/front/camera_info")) >= 7


@pytest.mark.slow
@pytest.mark.ros
def test_it_says_that_a_camera_publishes_there_too(
    tmp_path: Path, listen: Callable[..., Listener]
) -> None:
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import Image

    bag = write_bag(tmp_path / "bag", count=2)
    listener = listen(front__image_raw=Image)
    listener.node.create_publisher(Image, "/front/image_raw", 1)
    listener.node.create_publisher(Clock, "/clock", 1)
    settings = ("loop:=true", "speed:=0.2", "clock_hz:=5.0")
    with player(f"source:={bag}", *settings) as process:
        listener.until(lambda: len(listener.heard["/front/image_raw"]) > 13)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    said = "/front/image_raw has 2 publishers, and their messages mix: /camera_player, /listener"
    assert said in output and "/clock has 2 publishers" in output, output


@pytest.mark.slow
@pytest.mark.ros
def test_two_cameras_that_are_remapped_onto_one_topic_are_refused(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "bag") as writer:
        for topic in ("/left/image_raw", "/right/image_raw"):
            writer.image(topic, START, "optical", IMAGES[0])
    rules = ("/left/image_raw:=/eye", "/right/image_raw:=/eye")
    with player(f"source:={tmp_path / 'bag'}", rules=rules) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "/eye for /left/image_raw and for /right" in output, output


@pytest.mark.slow
@pytest.mark.ros
def test_loop_sets_the_clock_back_and_an_interrupt_ends_it(
    tmp_path: Path, listen: Callable[..., Listener]
) -> None:
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import Image

    bag = write_bag(tmp_path / "bag", count=4)
    listener = listen(front__image_raw=Image, clock=Clock)
    with player(
        f"source:={bag}", "wait_for_subscribers:=1", "loop:=true", "clock_hz:=100"
    ) as process:
        listener.until(lambda: len(listener.heard["/front/image_raw"]) >= 21)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in output, output
    stamps = [stamp_ns(m) for m in listener.messages("/front/image_raw")]
    assert [(s - START) // PERIOD for s in stamps[:9]] == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert reported_hz(output) < 24  # no faster than recorded
    # No gap between passes. A busy machine may make one, but not one each time.
    arrived = np.array([when for when, _ in listener.heard["/front/image_raw"][:21]])
    assert np.diff(arrived)[3::4].min() < 1.6e-9 * PERIOD
    clocks = [m.clock.sec * 10**9 + m.clock.nanosec for m in listener.messages("/clock")]
    steps = np.diff(clocks)
    assert (steps < -2 * PERIOD).sum() >= 1  # back at the end of a pass
    assert (steps[steps >= 0] <= 2 * PERIOD).all() and len(clocks) > 20
    assert min(clocks) >= START - PERIOD and max(clocks) <= START + 4 * PERIOD


@pytest.mark.slow
@pytest.mark.ros
def test_loop_is_switched_off_while_playing(
    tmp_path: Path, listen: Callable[..., Listener]
) -> None:
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter
    from sensor_msgs.msg import Image

    bag = write_bag(tmp_path / "bag", count=4)
    listener = listen(front__image_raw=Image)
    client = listener.node.create_client(SetParameters, "/camera_player/set_parameters")
    with player(f"source:={bag}", "wait_for_subscribers:=1", "loop:=true") as process:
        listener.until(lambda: len(listener.heard["/front/image_raw"]) >= 5)
        listener.until(client.service_is_ready)
        changes = [Parameter("speed", value=2.0), Parameter("loop", value=False)]
        for change, allowed in zip(changes, (False, True), strict=True):
            request = SetParameters.Request(parameters=[change.to_parameter_msg()])
            future = client.call_async(request)
            listener.until(future.done)
            assert future.result().results[0].successful == allowed
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


@pytest.mark.slow
@pytest.mark.ros
def test_folder_plays_compressed_at_a_fixed_rate_with_stamps_of_now(
    tmp_path: Path, listen: Callable[..., Listener]
) -> None:
    from sensor_msgs.msg import CompressedImage as Message

    for i, image in enumerate(IMAGES):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image[..., ::-1])
    listener = listen(rear__image__compressed=Message)
    # All are kept for a listener that a busy machine holds up.
    settings = ("rate_hz:=25", "output_topics:=['/rear/image']", "frame_id:=rear", "depth:=20")
    with player(f"source:={tmp_path}", "wait_for_subscribers:=1", *settings) as process:
        listener.until(lambda: len(listener.heard["/rear/image/compressed"]) == 8)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    messages = listener.messages("/rear/image/compressed")
    for message, image in zip(messages, IMAGES, strict=True):
        assert (message.format, message.header.frame_id) == ("png", "rear")
        np.testing.assert_array_equal(to_rgb(message), image)
    stamps = np.array([stamp_ns(m) for m in messages])
    assert abs(stamps[-1] / 1e9 - time.time()) < 30
    assert (stamps[-1] - stamps[0]) / 1e9 == pytest.approx(7 / 25, abs=0.1)


@pytest.mark.ros
@pytest.mark.slow
def test_video_plays_raw(tmp_path: Path, listen: Callable[..., Listener]) -> None:
    from sensor_msgs.msg import Image

    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (80, 60))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no videos")
    for i in range(6):
        writer.write(np.full((60, 80, 3), (40 * i, 0, 250 - 40 * i), np.uint8))
    writer.release()
    listener = listen(camera__image_raw=Image)
    with player(f"source:={path}", "wait_for_subscribers:=1", "stamps:=recorded"):
        listener.until(lambda: len(listener.heard["/camera/image_raw"]) == 6)
    messages = listener.messages("/camera/image_raw")
    assert np.diff([stamp_ns(m) for m in messages]) == pytest.approx(50_000_000, rel=1e-3)
    for i, message in enumerate(messages):
        np.testing.assert_allclose(to_rgb(message)[30, 40], (250 - 40 * i, 0, 40 * i), atol=6)


@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ((), "source is empty"),
        (("source:=/nowhere",), "/nowhere does not exist"),
        (("source:={bag}", "topics:=['/rear']"), "/front/image_raw"),
        (("source:={bag}", "stamps:=now", "clock_hz:=10"), "clock_hz"),
        (("source:={bag}", "speed:=0.0"), "0.01"),
        (("source",), "parse"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    tmp_path: Path, parameters: tuple[str, ...], text: str
) -> None:
    bag = write_bag(tmp_path / "bag", count=1)
    with player(*(p.format(bag=bag) for p in parameters)) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and text in output and "Traceback" not in output, output


@pytest.mark.slow
@pytest.mark.ros
def test_stamps_of_now_still_pair_an_image_with_its_camera_info(
    tmp_path: Path, listen: Callable[..., Listener]
) -> None:
    from sensor_msgs.msg import CameraInfo, Image

    bag = write_bag(tmp_path / "bag")
    listener = listen(front__image_raw=Image, front__camera_info=CameraInfo)
    settings = ("stamps:=now", "loop:=true", "depth:=20")
    with player(f"source:={bag}", "wait_for_subscribers:=1", *settings):
        listener.until(lambda: all(len(heard) >= 12 for heard in listener.heard.values()))
    images = [stamp_ns(m) for m in listener.messages("/front/image_raw")]
    infos = [stamp_ns(m) for m in listener.messages("/front/camera_info")]
    assert len(set(images) & set(infos)) >= 8
    assert (np.diff(images) > 0).all() and abs(images[0] / 1e9 - time.time()) < 60


@pytest.mark.slow
@pytest.mark.ros
def test_images_of_one_stamp_and_of_a_clock_that_was_set_are_played_at_once(
    tmp_path: Path, listen: Callable[..., Listener]
) -> None:
    """The driver repeats stamps, and the first and the last messages were logged at absurd times."""
    from sensor_msgs.msg import Image

    with RecordingWriter(tmp_path / "bag", "mcap") as bag:
        make = bag.types["sensor_msgs/msg/Image"]
        for i in range(20):
            stamp, log = START + i // 5 * PERIOD, START + i * PERIOD // 4
            log = 0 if i < 3 else 2**64 - 1 if i == 19 else log
            header = bag.header(stamp, "front")
            pixels = np.full(24 * 32 * 3, i, np.uint8)
            bag.write("/front/image_raw", log, make(header, 24, 32, "rgb8", 0, 96, pixels))
    listener = listen(front__image_raw=Image)
    settings = ("stamps:=now", "wait_for_subscribers:=1", "depth:=30")
    begin = time.monotonic()
    with player(f"source:={tmp_path / 'bag'}", *settings) as process:
        listener.until(lambda: len(listener.heard["/front/image_raw"]) == 20)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and time.monotonic() - begin < 25, output
    images = listener.messages("/front/image_raw")
    assert [int(m.data[0]) for m in images] == list(range(20))
    assert len({stamp_ns(m) for m in images}) == 20
    assert "s ahead after 3 messages: this pause is left out" in output
    assert "3 messages (3 of /front/image_raw) are logged at 1970-01-01T00:00:00.000Z" in output


@pytest.mark.slow
@pytest.mark.ros
def test_pass_that_begins_late_is_not_played_in_a_burst(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listen: Callable[..., Listener]
) -> None:
    from rclpy.parameter import Parameter
    from sensor_msgs.msg import Image

    from robot_vision.ros.player.node import CameraPlayer

    iterate = Playback.__iter__

    def slow(playback: Playback) -> Iterator[Item]:
        time.sleep(0.5)  # as of a bag with a large index, or of a video of which much is skipped
        return iterate(playback)

    monkeypatch.setattr(Playback, "__iter__", slow)
    listener = listen(front__image_raw=Image)
    values = {"source": str(write_bag(tmp_path / "bag")), "loop": True, "depth": 20}
    settings = [Parameter(name, value=value) for name, value in values.items()]
    node = CameraPlayer(context=listener.context, parameter_overrides=settings)
    node.start()
    try:
        listener.until(lambda: len(listener.heard["/front/image_raw"]) >= 20)
    finally:
        node.close()
        node.destroy_node()
    assert node._worst_late_s < 0.4


@pytest.mark.slow
@pytest.mark.ros
def test_recording_that_is_skipped_whole_says_so(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", count=2)
    with player(f"source:={bag}", "start_s:=100.0") as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "from start_s 100" in output, output


@pytest.mark.slow
@pytest.mark.ros
def test_recording_without_a_playable_image_fails(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with player(f"source:={tmp_path}", "transport:=raw") as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "no image to play" in output, output


@pytest.mark.slow
@pytest.mark.ros
def test_recorded_ros1_bag_plays_with_its_camera_info(
    data_dir: Path, listen: Callable[..., Listener]
) -> None:
    from sensor_msgs.msg import CameraInfo
    from sensor_msgs.msg import CompressedImage as Message

    bag = data_dir / "ros1_bags" / "aruco_images.bag"
    listener = listen(
        raspicam_node__image__compressed=Message, raspicam_node__camera_info=CameraInfo
    )
    with player(f"source:={bag}", "wait_for_subscribers:=1", "rate_hz:=10") as process:
        listener.until(lambda: all(listener.heard.values()))
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    (image,) = listener.messages("/raspicam_node/image/compressed")
    info = listener.messages("/raspicam_node/camera_info")[0]
    assert to_rgb(image).shape == (960, 1280, 3) == (info.height, info.width, 3)
    assert image.header.frame_id == "raspicam" and stamp_ns(image) == 1491682360314066469
    # A calibrated camera: its centre lies near the image's middle, its distortion has five numbers.
    assert abs(info.k[2] - 640) < 100 and abs(info.k[5] - 480) < 100 and len(info.d) == 5
