"""Masks, confidence and points of one network in one run: what Nav2's layers take together, over DDS."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")
pytest.importorskip("torch", reason="torch is not installed")

from nav2_readers import costmap_reads, semantic_layer_reads
from ros_helpers import rgb_message, running, set_header, stamp_ns, wait_until

from robot_vision.contract.spec import NetworkSpec
from robot_vision.heads.depth.spec import DepthSpec
from robot_vision.heads.segmentation.spec import SegmentationSpec
from robot_vision.images.input import InputSpec
from robot_vision.images.window import Window
from robot_vision.pipeline import Pipeline

pytestmark = [pytest.mark.ros, pytest.mark.slow]
CAMERA, SIZE = (64, 80), (24, 32)
LABELS = ("floor", "wall", "person")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from robot_vision.networks.export import export_bundle
    from robot_vision.networks.network import MultiHeadNetwork

    heads = {
        "segmentation": SegmentationSpec(LABELS, height=SIZE[0], width=SIZE[1]),
        "depth": DepthSpec(size=SIZE),
    }
    spec = NetworkSpec("shufflenet_v2_x0_5", InputSpec(96, 128, "letterbox"), heads)
    path = tmp_path_factory.mktemp("nav2") / "bundle"
    images = np.random.default_rng(0).integers(0, 256, (2, *CAMERA, 3), np.uint8)
    export_bundle(MultiHeadNetwork(spec).eval(), path, "two", list(images))
    return path


def test_semantic_and_obstacle_layers_take_what_one_run_says(bundle: Path, tmp_path: Path) -> None:
    from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import CameraInfo, Image, PointCloud2
    from vision_msgs.msg import LabelInfo

    image = np.random.default_rng(1).integers(0, 256, (*CAMERA, 3), np.uint8)
    with Pipeline.load(bundle, "onnx", threads=1) as pipeline:
        said = pipeline([image])[0]
        window = Window.of(CAMERA, pipeline.bundle.spec.input)
    given = {"model": bundle, "engine": "onnx", "threads": 1, "cameras": "[front]"}
    with running(tmp_path, "perception_node", **given) as (node, client):
        kinds = {"segmentation": Image, "segmentation/confidence": Image, "points": PointCloud2}
        heard = {
            name: client.listen(kind, f"/perception/front/{name}", qos_profile_sensor_data)
            for name, kind in kinds.items()
        }
        latched = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        labels = client.listen(LabelInfo, "/perception/segmentation_label_info", latched)
        info = CameraInfo(height=CAMERA[0], width=CAMERA[1], distortion_model="plumb_bob")
        info.k, info.d = [70.0, 0, 40, 0, 70, 32, 0, 0, 1], [0.0] * 5
        stamp = 1_700_000_000_123_456_789
        set_header(info, stamp, "front_optical")

        def send() -> None:
            client.publisher(CameraInfo, "/front/camera_info").publish(info)
            client.publisher(Image, "/front/image_raw").publish(rgb_message(image, stamp))
            time.sleep(0.1)

        def together() -> list[Any] | None:
            found = [[m for m in messages if stamp_ns(m) == stamp] for messages in heard.values()]
            return [messages[-1] for messages in found] if all(found) and labels else None

        what = f"mask, confidence, points and labels; the node said:\n{node.output[-3000:]}"
        mask, confidence, cloud = wait_until(together, what=what, each=send)
    names = {c.class_id: c.class_name for c in labels[-1].class_map}
    assert list(names.values()) == list(LABELS)
    read = semantic_layer_reads(mask, confidence, cloud)
    depth = np.asarray(said["depth"].depth, np.float32)
    known = np.isfinite(depth) & (depth > 0) & window.covered(SIZE)
    assert len(read) == known.sum() > 300
    ids, sure, points = (np.array(column) for column in zip(*read, strict=True))
    np.testing.assert_array_equal(ids, said["segmentation"].class_ids[known])
    np.testing.assert_allclose(sure, said["segmentation"].confidence[known], atol=1)
    np.testing.assert_allclose(points[:, 2], depth[known], rtol=1e-4)
    wanted = (window.pixels(SIZE)[known] - [40, 32]) / 70
    np.testing.assert_allclose(points[:, :2] / points[:, 2:], wanted, atol=1e-5)
    assert set(ids.tolist()) <= set(names) and len(costmap_reads(cloud)) == known.sum()
