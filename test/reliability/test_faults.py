"""The fault suite's short form: every scenario for a few seconds. `make soak` runs the long one."""

import shutil

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from fault_disk import may_mount
from fault_rig import Rig
from fault_scenarios import SCENARIOS, may_make_networks, suffer
from tiny_bundle import make_tiny_bundle

pytestmark = [pytest.mark.ros, pytest.mark.slow]
SECONDS = {"starved": 1.5, "killed": 0.0, "steady": 6.0, "parameters": 1.5}


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    made = make_tiny_bundle(folder / "tiny")
    bundle = shutil.copytree(made, folder / "bundle")
    rig = Rig(folder, bundle, engine="onnx", threads=1)
    yield rig
    assert rig.close() == 0


@pytest.mark.parametrize("name", SCENARIOS)
def test_node_lives_on(rig, name):
    if name == "network_cut" and not may_make_networks():
        pytest.skip("this user may not make network namespaces, or there is no ip (iproute2)")
    if name == "log_disk_full" and not may_mount():
        pytest.skip("this user may not mount a file system")
    assert suffer(name, rig, SECONDS.get(name, 2.0))
