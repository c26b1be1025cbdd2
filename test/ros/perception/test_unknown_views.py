"""A pose of a view that the model does not know is withheld, counted and said by the real node over DDS."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from network_helpers import tiny_network, torch
from ros_helpers import rgb_message, running, stamp_ns, wait_until

from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.networks.export import export_bundle, prepare_images
from robot_vision.pipeline import Pipeline

pytestmark = [pytest.mark.ros, pytest.mark.slow]
NODE, TOPIC = "/perception", "/perception/front/pose"
COUNT, BELOW = 40, 0.97


def picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(10, 250, (6, 8, 3)), np.ones((10, 10, 1))).astype(np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with a pose head alone that knows its pictures: each is kept three times."""
    spec = PoseSpec(tap="layer2", hidden=16, views=3 * COUNT, unknown_threshold=BELOW)
    network = tiny_network(classifier=None, place=None, pose=spec)
    seen = [picture(i) for i in range(COUNT)]
    head: Any = network.heads["pose"]
    with torch.no_grad():
        batch = torch.from_numpy(prepare_images(seen, network.spec.input))
        head.views.keep(head.read(*network.forward_features(batch)["pose"]))
    head.constants["view_growth"].fill_(50.0)
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    export_bundle(network, folder, "views", seen[:4])
    return folder


def test_unknown_view_is_withheld_said_and_published_with_its_covariance_on_demand(
    bundle: Path, tmp_path: Path
) -> None:
    from geometry_msgs.msg import PoseWithCovarianceStamped

    pipeline = Pipeline.load(bundle, "onnx", threads=1)
    candidates = [picture(1000 + i) for i in range(40)]
    answers = [p["pose"] for p in pipeline(candidates)]
    least = int(np.argmin([a.known_view for a in answers]))
    known, new = picture(3), candidates[least]
    assert answers[least].known_view < BELOW < pipeline(known)["pose"].known_view

    given = {"model": bundle, "engine": "onnx", "threads": 1, "cameras": "[front]"}
    often = {"diagnostics_period_s": 0.2, "diagnostics_window_s": 2.0, "warn_period_s": 0.1}
    with running(tmp_path, "perception_node", **given, **often) as (node, client):
        poses = client.listen(PoseWithCovarianceStamped, TOPIC)

        def send(image: np.ndarray) -> int:
            stamp = time.time_ns()
            message = rgb_message(image, stamp)
            client.publisher(type(message), "/front/image_raw").publish(message)
            time.sleep(0.1)
            return stamp

        sent: set[int] = set()
        wait_until(lambda: poses, what="pose of a known view", each=lambda: send(known))
        status = wait_until(
            lambda: (
                (d := client.diagnostics("camera front"))
                and d[1].startswith("unknown view: withheld at")
                and d
            ),
            what="unknown view in the diagnostics",
            each=lambda: sent.add(send(new)),
        )
        assert status[0] == 1  # WARN: it is no fault of the camera that the view is new
        assert client.count("camera front", "unknown_view") > 0
        assert "unknown view: its known-view score" in node.output
        assert not sent & {stamp_ns(pose) for pose in poses}

        assert client.set_parameters(NODE, unknown_view_threshold=0.0).successful
        later: set[int] = set()
        wait_until(
            lambda: later & {stamp_ns(pose) for pose in poses},
            what="pose of an unknown view",
            each=lambda: later.add(send(new)),
        )
        pose = next(p for p in reversed(poses) if stamp_ns(p) in later)
        found = np.asarray(pose.pose.covariance).reshape(6, 6)
        np.testing.assert_allclose(np.diag(found), np.diag(answers[least].covariance), rtol=1e-4)
        ordinary = pipeline(known)["pose"].covariance
        assert (np.diag(found) > 1.001 * np.diag(ordinary)).all()
