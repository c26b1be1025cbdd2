"""What the perception node publishes of cells, over DDS, to subscribers with the QoS of RViz's displays."""

import numpy as np
import pytest

from robot_vision.contract import registry
from robot_vision.contract.spec import NetworkSpec
from robot_vision.images.input import InputSpec
from robot_vision.pipeline import Pipeline

HEAD = registry.head("cells")


@pytest.mark.slow
@pytest.mark.ros
def test_node_publishes_a_grid_in_the_map_and_all_probabilities(tmp_path):
    pytest.importorskip("rclpy")
    pytest.importorskip("torch")
    from nav_msgs.msg import OccupancyGrid
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
    from ros_helpers import rgb_message, running, stamp_ns, wait_until
    from sensor_msgs.msg import Image, PointCloud2

    from robot_vision.networks.export import export_bundle
    from robot_vision.networks.network import MultiHeadNetwork

    corners = (0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 2.0, 1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 8.0, 4.0)
    spec = HEAD.Spec(corners, (3, 3, 4, 5))
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    network = MultiHeadNetwork(
        NetworkSpec("shufflenet_v2_x0_5", InputSpec(48, 64), {"cells": spec})
    )
    bundle = export_bundle(network.eval(), tmp_path / "bundle", "cells", [image])
    with Pipeline.load(bundle.path, "onnx", threads=1) as pipeline:
        expected = pipeline([image])[0]["cells"]
    given = {"model": bundle.path, "engine": "onnx", "cameras": "[front]", "map_frame": "site"}
    with running(tmp_path, "perception_node", **given) as (_, client):
        # RViz's default, of the Map display too; not what it is set to for /map.
        rviz = QoSProfile(
            depth=5, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE
        )
        heard = {
            name: client.listen(kind, f"/perception/front/{name}", rviz)
            for name, kind in (("cells", OccupancyGrid), ("cell_points", PointCloud2))
        }
        stamp = 1_700_000_000_123_456_789

        def send():
            client.publisher(Image, "/front/image_raw").publish(rgb_message(image, stamp))

        wait_until(lambda: all(heard.values()), what="both topics of cells", each=send)
        said = {name: messages[-1] for name, messages in heard.items()}
    assert {m.header.frame_id for m in said.values()} == {"site"}
    assert {stamp_ns(m) for m in said.values()} == {stamp}
    info = said["cells"].info
    assert (info.width, info.height, info.resolution) == (8, 4, 1.0)
    grid = np.array(said["cells"].data).reshape(4, 8)
    areas = np.array([1, 1, 4, 16])
    density = expected.probabilities / areas
    scaled = np.rint(100 * density / density.max())
    assert [grid[0, 0], grid[0, 1], grid[2, 1], grid[3, 7]] == pytest.approx(scaled, abs=1)
    assert (grid[:, 2:4] == -1).all() and grid[3, 0] == -1 and (grid[:, 4:] >= 0).all()
    points = np.frombuffer(bytes(said["cell_points"].data), "<f4").reshape(-1, 5)
    np.testing.assert_allclose(points[:, 4], expected.probabilities, rtol=1e-4)
    np.testing.assert_allclose(
        points[:, :4], [[0.5, 0.5, 0, 1], [1.5, 0.5, 0, 1], [1, 2, 0, 2], [6, 2, 0, 4]]
    )
