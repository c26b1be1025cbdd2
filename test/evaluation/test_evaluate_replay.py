"""A replay is the node's pipeline, frame by frame; what is kept of it is kept for these inputs only."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluation_bags import PERIOD, START, write_bag
from ros_helpers import python_path
from tiny_bundle import make_tiny_bundle

from robot_vision.errors import SourceError
from robot_vision.evaluation.predict.cache import Key, bag_sha256, cache_file, load_cached, store
from robot_vision.evaluation.predict.recorded import camera_name
from robot_vision.evaluation.predict.replay import default_batch, replay
from robot_vision.images.decode import to_rgb
from robot_vision.images.resizing import source_size
from robot_vision.messages.types import VISION_MSGS, message_types
from robot_vision.pipeline import Pipeline
from robot_vision.recordings import Frame, RawImage, Source, open_source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with Pipeline.load(make_tiny_bundle(tmp_path_factory.mktemp("m") / "tiny"), "onnx") as pipeline:
        yield pipeline


class Frames(Source):
    """Frames from memory, of which it is known how many were asked for."""

    def __init__(self, messages: list[object], error: Exception | None = None) -> None:
        super().__init__("/memory/drive", ("/front/image_raw",), len(messages))
        self.messages, self.error = messages, error
        self.given = 0

    def __iter__(self) -> Iterator[Frame]:
        for i, message in enumerate(self.messages):
            self.given += 1
            stamp = START + i * PERIOD
            yield Frame(stamp, "/front/image_raw", "front", message, f"drive#{i}", stamp + 1)
        if self.error:
            raise self.error


def noise(i: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    rng = np.random.default_rng(i)
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_replay_equals_the_pipeline_one_frame_at_a_time(pipeline: Pipeline, batch: int) -> None:
    messages: list[object] = [RawImage.of(noise(i), ("rgb8", "bgr8")[i % 2]) for i in range(10)]
    found = replay(pipeline, Frames(messages), batch=batch)
    least = source_size(pipeline.bundle.spec.input)
    expected = [pipeline([to_rgb(m, least)])[0] for m in messages]
    assert np.array_equal(found.stamps_ns, START + PERIOD * np.arange(10))
    assert found.log_ns is not None and np.array_equal(found.log_ns, found.stamps_ns + 1)
    for i, one in enumerate(expected):
        assert np.allclose(found.probabilities[i], one["classifier"].probabilities, atol=1e-6)
        assert np.allclose(found.position[i], one["pose"].position, atol=1e-6)
        assert np.allclose(found.descriptor[i], one["place"].values, atol=1e-6)
    assert len(np.unique(found.position.round(4), axis=0)) == 10, "all alike: nothing was tested"


def test_big_jpegs_are_decoded_as_the_node_does_it(pipeline: Pipeline, tmp_path: Path) -> None:
    from robot_vision.recordings.writing import RecordingWriter

    with RecordingWriter(tmp_path / "bag") as bag:
        for i in range(3):
            ok, data = cv2.imencode(".jpg", noise(i, (480, 640)))
            assert ok
            bag.compressed_image("/c", START + i, "front", data.tobytes(), "jpeg")
    with open_source(tmp_path / "bag") as source:
        found = replay(pipeline, source)
        images = [to_rgb(f.message, source_size(pipeline.bundle.spec.input)) for f in source]
    assert images[0].shape[0] < 480
    expected = [p["pose"].position for p in pipeline(images)]
    assert np.array_equal(found.position, expected)


def test_reading_goes_no_further_ahead_than_it_has_to(pipeline: Pipeline) -> None:
    """A bag of hours must not lie in memory."""
    source = Frames([RawImage.of(noise(0), "rgb8")] * 200)
    ahead: list[int] = []
    done = [0]

    def progress(count: int) -> None:
        done[0] += count
        ahead.append(source.given - done[0])

    replay(pipeline, source, batch=4, progress=progress)
    assert done[0] == 200 and max(ahead) <= 4 * 2 + 2 + 2


def test_limit_stops_reading(pipeline: Pipeline) -> None:
    source = Frames([RawImage.of(noise(0), "rgb8")] * 50)
    assert len(replay(pipeline, source, limit=7)) == 7 and source.given == 7


def test_an_error_of_the_source_is_raised_and_no_thread_stays(pipeline: Pipeline) -> None:
    source = Frames([RawImage.of(noise(0), "rgb8")] * 5, RuntimeError("disk gone"))
    with pytest.raises(RuntimeError, match="disk gone"):
        replay(pipeline, source)
    assert not [t for t in threading.enumerate() if t.name.startswith(("read", "decode"))]


def test_an_interrupt_ends_the_threads(pipeline: Pipeline) -> None:
    def progress(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(pipeline, Frames([RawImage.of(noise(0), "rgb8")] * 500), progress=progress)
    assert not [t for t in threading.enumerate() if t.name.startswith(("read", "decode"))]


def test_nothing_usable_is_an_error_that_says_why(pipeline: Pipeline) -> None:
    with pytest.raises(SourceError, match=r"holds no image"):
        replay(pipeline, Frames([]))
    wrong = RawImage(4, 4, "rgb9", 12, np.zeros(48, np.uint8))
    with pytest.raises(SourceError, match=r"rgb9"):
        replay(pipeline, Frames([wrong]))


def test_batch_is_chosen_by_the_device() -> None:
    assert default_batch("cpu") <= 8 and default_batch("CPU") <= 8
    assert default_batch("cuda:0") == default_batch("tensorrt:0") == 16


# What is kept


def test_kept_predictions_belong_to_their_key(pipeline: Pipeline, tmp_path: Path) -> None:
    found = replay(pipeline, Frames([RawImage.of(noise(i), "rgb8") for i in range(3)]))
    key = Key("bag", "bundle", "/topic", "onnx on cpu", "float32", 0, "1.0")
    file = tmp_path / "kept" / "a.npz"
    store(file, found, key)
    back, note = load_cached(file, key)
    assert back is not None and note == "" and np.array_equal(back.position, found.position)
    for name, other in [
        ("bag_sha256", "x"),
        ("precision", "float16"),
        ("engine", "openvino on cpu"),
    ]:
        changed = Key(**{**key.to_dict(), name: other})
        nothing, note = load_cached(file, changed)
        assert nothing is None and name.replace("_sha256", "'s hash") in note
    assert [p.name for p in file.parent.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x80\x04N."])
def test_damaged_kept_predictions_are_not_used(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    found, note = load_cached(tmp_path / "a.npz", Key("", "", "", "", "", 0, ""))
    assert found is None and "cannot be read" in note


def test_hash_of_a_bag_sees_contents_and_names(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "drive", count=2)
    first = bag_sha256(bag)
    assert bag_sha256(bag) == first
    (file,) = bag.glob("*.db3")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    second = bag_sha256(bag)
    file.rename(file.with_name("other.db3"))
    assert len({first, second, bag_sha256(bag)}) == 3


def test_bags_of_the_same_name_are_kept_apart(tmp_path: Path) -> None:
    files = {cache_file(tmp_path, f"/data/{run}/bag") for run in ("monday", "tuesday")}
    assert len(files) == 2 and all(f.name.startswith("bag-") for f in files)


# Names and types of what is written


@pytest.mark.parametrize(
    ("topic", "name"),
    [
        ("/front/image_raw", "front"),
        ("/front/image_raw/compressed", "front"),
        ("/robot1/rear_left/image_rect", "rear_left"),
        ("/image_raw", "camera"),
        ("/image_raw/compressed", "camera"),
        ("/2d/image_raw", "camera"),
    ],
)
def test_camera_is_named_as_the_node_would(topic: str, name: str) -> None:
    assert camera_name(topic) == name


def test_message_types_have_the_hashes_of_the_installed_packages() -> None:
    import json

    share = pytest.importorskip("ament_index_python").get_package_share_directory
    store = message_types()
    seen = 0
    for name in VISION_MSGS:
        package, _, kind = name.split("/")
        try:
            file = Path(share(package)) / "msg" / f"{kind}.json"
        except LookupError:
            pytest.skip(f"{package} is not installed")
        if not file.exists():
            pytest.skip("ROS 2 has had hashes of types since Iron")
        described = json.loads(file.read_text())
        hashes = {h["type_name"]: h["hash_string"] for h in described["type_hashes"]}
        assert store.hash_rihs01(name) == hashes[name]
        seen += 1
    assert seen == len(VISION_MSGS)


def test_message_types_are_those_of_the_sources_in_tools() -> None:
    for name, text in VISION_MSGS.items():
        file = ROOT / "tools" / "ros_env" / "vision_msgs" / "msg" / f"{name.split('/')[-1]}.msg"
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        assert lines == text.splitlines(), name


# The commands that record


def test_the_record_command_has_output_node_and_extra_topics() -> None:
    import re

    from robot_vision.errors import ConfigError
    from robot_vision.ros.perception.recorded_topics import record_command

    words = record_command("/tmp/out", "/robot/perception", "mcap", ["/truth/pose"])
    assert words[:3] == ["ros2", "bag", "record"] and "/tmp/out" in words
    assert re.fullmatch(words[-1], "/truth/pose")
    assert re.fullmatch(words[-1], "/robot/perception/front/pose")
    with pytest.raises(ConfigError, match="output is empty"):
        record_command("")


@pytest.mark.slow
def test_evaluation_needs_neither_ros_nor_torch_nor_any_extra(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    bag = write_bag(tmp_path / "drive", count=12)
    code = (
        "import sys\n"
        "for name in ('rclpy', 'torch', 'scipy', 'matplotlib', 'sklearn', 'pyarrow', 'onnx', 'faiss'):\n"
        "    sys.modules[name] = None\n"
        "from robot_vision.cli import main\n"
        "sys.exit(main(['evaluate', *sys.argv[1:]]))\n"
    )
    words = ["--bag", str(bag), "--model", str(bundle), "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--engine", "onnx"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": python_path()},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "out" / "results" / "drive" / "metadata.yaml").is_file()
