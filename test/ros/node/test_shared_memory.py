"""What killed processes leave in shared memory is given back; what lives is left alone."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
from ros_helpers import own_environment

from robot_vision.ros.node.dds import FAST_DDS, FOLDER, remove_dead_segments

SEGMENT = "fastdds_0123456789abcdef"
# Says which segments it has, and talks to itself through them for as long as it lives.
TALKER = """
import itertools, os, re, sys
from robot_vision.ros.node.dds import use_large_image_profile
use_large_image_profile()
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("talker")
got = []
node.create_subscription(Image, "/large", got.append, 5)
publisher = node.create_publisher(Image, "/large", 5)
message = Image(height=480, width=640, encoding="mono8", step=640, data=bytes(640 * 480))
for line in itertools.chain([""], sys.stdin):
    got.clear()
    while not got:
        publisher.publish(message)
        rclpy.spin_once(node, timeout_sec=0.1)
    files = [os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")]
    locks = [f for f in files if re.match("/dev/shm/fast(dds|rtps)_[0-9a-f]{16}_el", f)]
    print(*{os.path.basename(f).removesuffix("_el") for f in locks}, flush=True)
"""


def put(folder: Path, name: str = SEGMENT, size: int = 4096) -> tuple[Path, Path]:
    segment, lock = folder / name, folder / f"{name}_el"
    segment.write_bytes(bytes(size))
    lock.touch()
    return segment, lock


@pytest.mark.parametrize("name", [SEGMENT, "fastrtps_00ff00ff00ff00ff"])
def test_a_segment_without_an_owner_is_removed(tmp_path: Path, name: str) -> None:
    segment, lock = put(tmp_path, name)
    assert remove_dead_segments(tmp_path, older_than_s=0) == 4096
    assert not segment.exists() and not lock.exists()


def test_what_is_locked_young_or_of_others_stays(tmp_path: Path) -> None:
    segment, lock = put(tmp_path)
    assert remove_dead_segments(tmp_path) == 0  # its process may be about to lock it
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert remove_dead_segments(tmp_path, older_than_s=0) == 0
    others = [*put(tmp_path, "fastdds_port7400"), *put(tmp_path, "psm_0123456789abcdef")]
    precious = tmp_path / "precious"
    precious.touch()
    link = tmp_path / "fastdds_ffffffffffffffff_el"
    link.symlink_to(precious)
    assert remove_dead_segments(tmp_path, older_than_s=0) == 4096
    assert precious.exists() and link.is_symlink() and all(p.exists() for p in others)
    assert not segment.exists()


def test_no_shared_memory_is_no_error(tmp_path: Path) -> None:
    assert remove_dead_segments(tmp_path / "absent") == 0


@pytest.mark.slow
@pytest.mark.ros
def test_a_killed_process_leaves_nothing_and_a_living_one_talks_on() -> None:
    pytest.importorskip("rclpy")
    from rclpy.utilities import get_rmw_implementation_identifier

    if get_rmw_implementation_identifier() not in FAST_DDS:
        pytest.skip("another middleware")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TALKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=own_environment(),
        )
        for _ in range(2)
    ]
    try:
        segments = []
        for process in processes:
            assert process.stdout is not None
            segments.append(set(process.stdout.readline().split()))
        dead, alive = processes
        # By the locks that they hold: each also maps segments of others in the same domain.
        only_dead, only_alive = segments
        assert only_dead and only_alive and not only_dead & only_alive
        dead.kill()
        dead.wait()
        assert all((FOLDER / s).exists() for s in only_dead), "Fast DDS now cleans up by itself"
        assert remove_dead_segments(older_than_s=0) > 0
        assert not any((FOLDER / s).exists() for s in only_dead)
        assert all((FOLDER / s).exists() for s in only_alive)
        assert alive.stdin is not None and alive.stdout is not None
        alive.stdin.write("once more\n")
        alive.stdin.flush()
        assert alive.stdout.readline()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
