"""What is done to the place node while it writes a map, and what must be in that map afterwards."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fault_disk import SmallDisk
from fault_rig import kill
from place_robot import PlaceRobot, base_pose, describe, make_map, mounting, set_pose, square
from ros_helpers import set_header, wait_until

from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.opening import open_map

RUN = "this run"
STEP_M = 0.3  # more than keyframe_distance_m: each view becomes a keyframe
OPTIONS = (
    *("-p", "pose_source:=pose", "-p", "pose_topic:=/where", "-p", f"source:='{RUN}'"),
    *("-p", "diagnostics_period_s:=0.1"),
)  # fmt: skip
Lost = dict[str, Any]


class Drive:
    """Goes straight on, 30 views a second, and remembers where each was taken."""

    def __init__(self, robot: PlaceRobot) -> None:
        self.robot = robot
        self.poses: dict[int, np.ndarray] = {}  # stamp: T_map_camera

    def step(self) -> None:
        """Publishes the next pose, and the descriptor of what is seen there."""
        from geometry_msgs.msg import PoseStamped

        robot = self.robot
        robot.clock_ns += 100_000_000
        T = base_pose(20 + STEP_M * len(self.poses))
        message = PoseStamped()
        set_header(message, robot.clock_ns, "map")
        set_pose(message.pose, T)
        robot.send(PoseStamped, "/where", message, wait=False)
        robot.descriptor(describe(T @ mounting()), robot.clock_ns, wait=False)
        self.poses[robot.clock_ns] = T @ mounting()
        time.sleep(1 / 30)

    def until(self, condition: Callable[[], Any], what: str, timeout_s: float = 60) -> None:
        """Drives until something is so."""
        wait_until(condition, timeout_s, what, self.step)

    def added(self) -> int:
        """Returns how many keyframes the node's running process says are safe."""
        return int(self.robot.counter("keyframes_added", "mapping"))

    def found(self, path: Path, folder: Path) -> dict[int, Keyframe]:
        """Returns this run's keyframes in a copy of a map that nobody writes now, by stamp.

        The copy is what a backup has, and the map stays as its writer left it.

        Raises:
            AssertionError: SQLite finds damage, or a keyframe is not what was sent.
        """
        copy = folder / "copy.map"
        for old in folder.glob("copy.map*"):
            old.unlink()
        for end in ("", "-wal"):
            if Path(f"{path}{end}").exists():
                shutil.copy(f"{path}{end}", f"{copy}{end}")
        db = sqlite3.connect(copy)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.close()
        with open_map(copy, "read") as places:
            places.check()
            kept = {k.stamp_ns: k for k in places.keyframes() if k.source == RUN}
        for stamp, keyframe in kept.items():
            T = self.poses[stamp]
            np.testing.assert_allclose(keyframe.T_map_camera, T, atol=1e-6)
            np.testing.assert_allclose(keyframe.descriptor, describe(T), atol=1e-6)
        return kept


def map_killed(folder: Path, seconds: float) -> Lost:
    """The place node is killed (SIGKILL) while it maps, and started again, over and over."""
    path = folder / "killed.map"
    robot = PlaceRobot(folder, "-p", f"map:={path}", "-p", "mapping:=true", *OPTIONS)
    choose, drive = random.Random(0), Drive(robot)
    end, kills, promised, lost, longest = time.monotonic() + seconds, 0, 0, 0, 0.0
    kept: dict[int, Keyframe] = {}
    try:
        while True:
            started = time.monotonic()
            robot.publish_model()
            drive.until(drive.added, "a keyframe; the node said:\n" + robot.process.output[-2000:])
            if kills:
                longest = max(longest, time.monotonic() - started)
            if kills >= 2 and time.monotonic() > end:
                break
            moment = time.monotonic() + choose.uniform(0.0, 1.5)
            drive.until(lambda: time.monotonic() > moment, "the moment")  # noqa: B023 (called here)
            time.sleep(choose.uniform(0.0, 1 / 30))
            safe = drive.added()
            kill(robot.process)
            kills += 1
            now = drive.found(path, folder)
            promised += safe
            lost += max(0, safe - (len(now) - len(kept))) + len(kept.keys() - now.keys())
            kept = now
            assert "Traceback" not in robot.process.output, robot.process.output[-3000:]
            time.sleep(0.3)  # what the dead one said last
            robot.client.received["/diagnostics"].clear()
            robot.start()
        assert robot.counter("internal_errors") == 0
    finally:
        robot.stop()
    whole = drive.found(path, folder)
    lost += len(kept.keys() - whole.keys())
    assert lost == 0, f"{lost} keyframes that were reported as added are gone"
    return {
        "kills": kills,
        "keyframes_reported_added": promised,
        "of_these_lost": lost,
        "keyframes_in_map": len(whole),
        "longest_recovery_s": round(longest, 2),
    }


def map_disk_full(folder: Path, seconds: float) -> Lost:
    """No room is left on the map's disk: places are known all the same, and mapping goes on when there is."""
    home = make_map(folder / "full.map", poses=square()[:16])
    # SQLite's log alone may grow to 4 MB before it goes into the map (wal_autocheckpoint).
    disk = SmallDisk(folder / "disk", kib=8192)
    robot = PlaceRobot(
        folder,
        *("-p", f"map:={disk.folder / home.name}", *OPTIONS),
        prefix=disk.prefix(home),
    )
    drive, pid = Drive(robot), robot.process.process.pid
    path = disk.seen(pid) / home.name
    try:
        robot.publish_model()
        robot.look_around(base_pose(1.0))
        wait_until(lambda: robot.status()[2]["model"] != "", what="the model's name")
        success, text = robot.trigger("start_mapping")
        assert success, text
        drive.until(lambda: drive.added() >= 5, "keyframes")
        disk.fill(pid)
        full_at = time.monotonic()
        drive.until(lambda: robot.counter("map_full", "mapping"), "a pause")
        level, text, _ = robot.status("mapping")
        assert level == 2 and "paused" in text and "no room" in text, text
        answers = len(robot.places)
        drive.until(
            lambda: (
                robot.counter("keyframes_lost", "mapping") >= 5
                and time.monotonic() > full_at + seconds
            ),
            "more keyframes than can wait",
            60 + seconds,
        )
        answered = len(robot.places) - answers
        robot.look_around(base_pose(2.0))  # what was mapped before is still recognised
        assert disk.free(pid) < 4096
        disk.make_room(pid)
        room_at = time.monotonic()
        wait_until(lambda: robot.status("mapping")[2]["state"] == "on", what="mapping to go on")
        recovery = time.monotonic() - room_at
        before = drive.added()
        drive.until(lambda: drive.added() > before + 5, "keyframes once there was room")
        wait_until(lambda: robot.status("mapping")[2]["waiting"] == "0", what="all to be written")
        assert robot.trigger("stop_mapping")[0]
        _, _, values = robot.status("mapping")
        added, lost = int(values["keyframes_added"]), int(values["keyframes_lost"])
        kept = drive.found(path, folder)
        with open_map(folder / "copy.map", "read") as places:
            assert len(places) == 16 + len(kept), "what was there before has changed"
        assert len(kept) == added, f"{added} reported as added, {len(kept)} in the map"
        missing = [s for s in drive.poses if min(kept) < s < max(kept) and s not in kept]
        left_out = sum(robot.counter(name) for name in ("no_pose", "late", "replaced"))
        assert len(missing) <= lost + left_out, f"{len(missing)} views missing, {lost} counted"
        assert robot.counter("internal_errors") == 0
    finally:
        robot.stop()
    assert "Mapping is paused" in robot.process.output
    assert "Mapping continues" in robot.process.output
    return {
        "full_s": round(room_at - full_at, 1),
        "answered_meanwhile": answered,
        "keyframes_added": added,
        "keyframes_lost_and_counted": lost,
        "of_those_added_lost": added - len(kept),
        "recovery_s": round(recovery, 2),
    }


MAP_SCENARIOS: dict[str, Callable[[Path, float], Lost]] = {
    f.__name__: f for f in (map_killed, map_disk_full)
}
