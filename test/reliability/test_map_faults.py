"""The short form of what `make soak` does to the place node while it maps."""

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")
pytest.importorskip("faiss")

from fault_disk import may_mount
from fault_maps import MAP_SCENARIOS

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.mark.parametrize("name", MAP_SCENARIOS)
def test_map_keeps_what_was_reported_as_added(name, tmp_path):
    if name == "map_disk_full" and not may_mount():
        pytest.skip("this user may not mount a file system")
    assert MAP_SCENARIOS[name](tmp_path, 1.0)
