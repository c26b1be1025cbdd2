"""What the running node publishes is what an evaluation of the same recording computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from ros_helpers import Client, NodeProcess, stamp_ns, wait_until

from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.evaluation.predict.recorded import read_results, write_results
from robot_vision.evaluation.predict.replay import replay
from robot_vision.geometry.published_covariance import covariance_numbers
from robot_vision.geometry.rigid import rotation_error_deg
from robot_vision.heads.classifier.hypotheses import from_hypotheses
from robot_vision.pipeline import Pipeline
from robot_vision.recordings import open_source
from robot_vision.recordings.writing import RecordingWriter

pytestmark = [pytest.mark.ros, pytest.mark.slow]
DEMO = Path(__file__).resolve().parents[3] / "models" / "demo"
START = 1_700_000_000_000_000_000
PERIOD = 200_000_000
FRAMES = 10
IMAGES = ("descriptor", "segmentation", "segmentation/confidence", "depth", "depth_deviation")


def scene(i: int) -> np.ndarray:
    """Returns a picture with structure at all scales, RGB uint8 (480, 640, 3): another for every i."""
    rng = np.random.default_rng(i)
    image = np.zeros((480, 640, 3))
    for cells in (3, 9, 27, 81):
        noise = rng.uniform(0, 255, (cells, cells, 3))
        image += cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC) / 4
    return np.clip(image, 0, 255).astype(np.uint8)


def write_bag(path: Path, transport: str) -> Path:
    with RecordingWriter(path) as bag:
        for i in range(FRAMES):
            stamp = START + i * PERIOD
            if transport == "raw":
                bag.image("/front/image_raw", stamp, "front_optical", scene(i))
            else:
                ok, data = cv2.imencode(".jpg", scene(i)[..., ::-1])
                assert ok
                topic = "/front/image_raw/compressed"
                bag.compressed_image(topic, stamp, "front_optical", data.tobytes(), "jpeg")
    return path


class Live:
    """The node, and a client that listens to all its results."""

    def __init__(self, folder: Path, transport: str) -> None:
        from geometry_msgs.msg import PoseWithCovarianceStamped
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from sensor_msgs.msg import Image
        from vision_msgs.msg import Classification, LabelInfo, VisionInfo

        self.client = Client()
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.heard = {
            "front/classification": self.client.listen(
                Classification, "/perception/front/classification"
            ),
            "front/pose": self.client.listen(PoseWithCovarianceStamped, "/perception/front/pose"),
        }
        for name in IMAGES:
            self.heard[f"front/{name}"] = self.client.listen(Image, f"/perception/front/{name}")
        self.latched = {
            **{
                name: self.client.listen(LabelInfo, f"/perception/{name}", latched)
                for name in ("label_info", "segmentation_label_info")
            },
            "vision_info": self.client.listen(VisionInfo, "/perception/vision_info", latched),
        }
        self.node = NodeProcess(
            folder / "node.txt",
            "robot_vision.ros.perception.node",
            "--ros-args",
            *("-p", f"model:={DEMO}", "-p", "engine:=onnx", "-p", "threads:=1"),
            *("-p", "precision:=float32"),
            *("-p", "cameras:=[front]", "-p", "image_topics:=[/front/image_raw]"),
            *("-p", f"transport:={transport}", "-p", "top_k:=100"),
            *("-p", "subscribe_reliability:=reliable", "-p", "subscribe_depth:=10"),
        )

    def play(self, folder: Path, bag: Path) -> None:
        """Plays a bag, again where a frame was lost, until every frame has all its results."""
        player = NodeProcess(
            folder / "player.txt",
            "robot_vision.ros.player.node",
            "--ros-args",
            *("-p", f"source:={bag}", "-p", "wait_for_subscribers:=1", "-p", "loop:=true"),
            *("-p", "stamps:=recorded"),
        )
        wanted = {START + i * PERIOD for i in range(FRAMES)}
        try:
            wait_until(
                lambda: all(
                    wanted <= {stamp_ns(m) for m in list(messages)}
                    for messages in self.heard.values()
                ),
                60,
                f"results of all frames; the node said:\n{self.node.output[-3000:]}",
            )
        finally:
            player.stop()

    def record(self, path: Path) -> Path:
        """Writes what was heard as `ros2 bag record` does: the bytes as they were published.

        Of a frame that was played again, because another one was lost, the last results.
        """
        from rclpy.serialization import serialize_message

        with RecordingWriter(path, "mcap") as bag:
            for name, messages in {**self.latched, **self.heard}.items():
                for message in by_stamp(messages).values():
                    module, kind = type(message).__module__.split("."), type(message).__name__
                    bag.write_cdr(
                        f"/perception/{name}",
                        stamp_ns(message),
                        f"{module[0]}/msg/{kind}",
                        serialize_message(message),
                    )
        return path

    def close(self) -> None:
        status = self.node.stop()
        self.client.close()
        assert status == 0, self.node.output


@pytest.fixture(scope="module", params=["raw", "compressed"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Predictions, dict[str, list[Any]], Path, Path]]:
    """Gives the replayed predictions, what was heard, its recording, and the results' bag."""
    if not (DEMO / "bundle.yaml").is_file():
        pytest.skip("models/demo is not there")
    folder = tmp_path_factory.mktemp(request.param)
    bag = write_bag(folder / "bag", request.param)
    with (
        Pipeline.load(DEMO, "onnx", precision="float32", threads=1) as pipeline,
        open_source(bag) as source,
    ):
        offline = replay(pipeline, source, batch=4)
        write_results(folder / "results", offline, pipeline.bundle)
    live = Live(folder, request.param)
    try:
        live.play(folder, bag)
        yield offline, live.heard, live.record(folder / "recording"), folder / "results"
    finally:
        live.close()


def by_stamp(messages: list[Any]) -> dict[int, Any]:
    return {stamp_ns(message): message for message in list(messages)}


def test_every_frame_has_the_same_classes_live_and_offline(both):
    offline, heard, *_ = both
    messages = by_stamp(heard["front/classification"])
    assert len(offline) == FRAMES
    for stamp, row in zip(offline.stamps_ns, offline.probabilities, strict=True):
        results = [(r.class_id, r.score) for r in messages[int(stamp)].results]
        assert from_hypotheses(offline.labels, results)[0] == pytest.approx(row, abs=2e-6)
    assert len(np.unique(np.round(offline.probabilities, 4), axis=0)) > 1, "frames all look alike"


def test_every_frame_has_the_same_descriptor_live_and_offline(both):
    offline, heard, *_ = both
    messages = by_stamp(heard["front/descriptor"])
    for stamp, row in zip(offline.stamps_ns, offline.descriptor, strict=True):
        live = np.frombuffer(messages[int(stamp)].data, "<f4")
        assert np.allclose(live, row, atol=2e-6)
    likeness = offline.descriptor @ offline.descriptor.T
    assert likeness[~np.eye(FRAMES, dtype=bool)].max() < 0.999, "frames all look alike"


def test_every_frame_has_the_same_pose_live_and_offline(both):
    offline, heard, *_ = both
    messages = by_stamp(heard["front/pose"])
    for i, stamp in enumerate(offline.stamps_ns):
        pose = messages[int(stamp)].pose
        p, q = pose.pose.position, pose.pose.orientation
        assert np.allclose([p.x, p.y, p.z], offline.position[i], atol=2e-5)
        live = np.array([q.x, q.y, q.z, q.w])
        assert rotation_error_deg(live, offline.orientation_xyzw[i]) < 1e-3
        expected = covariance_numbers(offline.covariance[i])
        assert np.allclose(pose.covariance, expected, rtol=2e-4, atol=1e-7)
    assert np.ptp(offline.position, axis=0).max() > 0.01, "frames all look alike"


def test_every_frame_has_the_same_mask_and_depth_live_and_offline(both):
    offline, heard, *_ = both
    masks, depths = by_stamp(heard["front/segmentation"]), by_stamp(heard["front/depth"])
    for i, stamp in enumerate(offline.stamps_ns):
        ids, depth = offline.columns["class_ids"][i], offline.columns["depth"][i]
        live = np.frombuffer(masks[int(stamp)].data, np.uint8).reshape(ids.shape)
        assert (live == ids).mean() > 0.99 and len(np.unique(ids)) > 1
        live = np.frombuffer(depths[int(stamp)].data, "<f4").reshape(depth.shape)
        assert np.allclose(live, depth, rtol=2e-3, equal_nan=True)  # kept with half precision


def test_recording_of_the_node_reads_as_the_replay(both):
    """The road of `evaluate --predictions`: both give the same columns to the same metrics."""
    offline, _, recording, _ = both
    live = read_results(recording)
    assert np.array_equal(live.stamps_ns, offline.stamps_ns) and live.labels == offline.labels
    assert np.allclose(live.probabilities, offline.probabilities, atol=2e-6)
    assert np.allclose(live.descriptor, offline.descriptor, atol=2e-6)
    assert np.allclose(live.position, offline.position, atol=2e-5)
    assert [n for n in live.meta["problems"] if not n.startswith("known scores are not")] == []


def test_results_bag_has_the_node_s_topics_types_and_headers(both):
    from rclpy.serialization import deserialize_message
    from rosbags.rosbag2 import Reader

    _, heard, recording, results = both
    contents = []
    for path in (recording, results):
        with Reader(path) as reader:
            contents.append({c.topic: c.msgtype for c in reader.connections})
    assert contents[0] == contents[1]
    kinds = {f"/perception/{name}": type(messages[0]) for name, messages in heard.items()}
    seen = 0
    with Reader(results) as reader:
        for connection, _, data in reader.messages():
            if connection.topic in kinds:
                message = deserialize_message(bytes(data), kinds[connection.topic])
                live = by_stamp(heard[connection.topic.removeprefix("/perception/")])
                assert message.header == live[stamp_ns(message)].header
                seen += 1
    assert seen == len(heard) * FRAMES == 7 * FRAMES
