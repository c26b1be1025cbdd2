"""Bad input and bad maps while the place node runs: a warning, a counter, and it lives on."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")
pytest.importorskip("faiss")

from place_robot import (
    DIMENSION,
    NODE,
    SHA,
    PlaceRobot,
    base_pose,
    describe,
    elsewhere,
    make_map,
    mounting,
    square,
)
from ros_helpers import set_header, stamp_ns, wait_until

from robot_vision.places.map.opening import open_map

pytestmark = pytest.mark.ros
OK, WARN, ERROR = 0, 1, 2


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaceRobot]:
    folder = tmp_path_factory.mktemp("places")
    robot = PlaceRobot(folder, "-p", f"map:={make_map(folder / 'home.map')}")
    robot.good = folder / "home.map"
    robot.look_around(base_pose(1.0))
    yield robot
    robot.stop()


def lives_on(robot: PlaceRobot) -> None:
    """Asserts that the node still knows a place."""
    assert robot.process.alive
    robot.look_around(base_pose(4.0))


# Descriptors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "counter"),
    [
        ({"values": np.ones(7) / np.sqrt(7)}, "refused_dimension"),
        ({"values": np.full(DIMENSION, np.nan)}, "refused_non_finite"),
        ({"values": np.full(DIMENSION, np.inf)}, "refused_non_finite"),
        ({"values": np.zeros(DIMENSION)}, "refused_size"),
        ({"values": np.full(DIMENSION, 3.0)}, "refused_size"),
        ({"encoding": "mono8"}, "refused_encoding"),
        ({"height": 2}, "refused_size"),
        ({"width": 4 * DIMENSION}, "refused_data_length"),
    ],
    ids=lambda v: v if isinstance(v, str) else "-".join(v),
)
def test_bad_descriptor_is_refused_and_counted(robot, change, counter):
    from ros_helpers import descriptor_message
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    before = robot.counter(counter)
    values = np.asarray(change.pop("values", elsewhere()), np.float32)
    message = descriptor_message(Header(), values)
    robot.clock_ns += 100_000_000
    set_header(message, robot.clock_ns, "front_optical")
    for name, value in change.items():
        setattr(message, name, value)
    robot.send(Image, "/perception/front/descriptor", message)
    wait_until(lambda: robot.counter(counter) == before + 1, what=f"{counter} in /diagnostics")
    assert not [m for m in robot.places if stamp_ns(m) == robot.clock_ns]
    assert "Descriptor refused" in robot.process.output
    level, text, _ = robot.status()
    assert level == WARN and "refused" in text


@pytest.mark.slow
def test_after_bad_descriptors_places_are_known_as_before(robot):
    lives_on(robot)


# Clocks


@pytest.mark.slow
def test_clock_that_jumps_back_and_forth_does_no_harm(robot):
    now, before = robot.clock_ns, robot.counter("stamps_back")
    robot.clock_ns -= 3_600_000_000_000
    lives_on(robot)
    wait_until(lambda: robot.counter("stamps_back") == before + 1, what="stamps_back")
    robot.clock_ns = now + 3_600_000_000_000
    lives_on(robot)
    late = robot.counter("late")
    robot.descriptor(describe(base_pose(1.0) @ mounting()), robot.clock_ns - 200_000_000)
    wait_until(lambda: robot.counter("late") == late + 1, what="a late message is left out")
    lives_on(robot)


# Odometry


@pytest.mark.slow
def test_odometry_that_stops_is_reported_and_recognition_goes_on(robot):
    path = make_map(robot.folder / "odometry.map")
    robot.reconfigure(map=str(path), pose_source="odometry")
    robot.publish_model()
    way = [base_pose(0.1 * i) for i in range(12)]
    robot.drive(way)
    wait_until(lambda: robot.status()[0] == OK, each=lambda: robot.drive(way))
    before = robot.counter("no_pose")
    lives_on(robot)  # these views come without odometry
    wait_until(lambda: robot.counter("no_pose") > before, what="no_pose")

    def stopped():
        level, text, _ = robot.status()
        return level == WARN and "/odom stopped" in text

    wait_until(stopped, what="a warning", each=lambda: robot.descriptor(elsewhere(3)))
    # ... and when it comes back it is taken up again.
    wait_until(lambda: robot.status()[0] == OK, each=lambda: robot.drive(way))


@pytest.mark.slow
def test_odometry_with_nan_or_a_clock_that_goes_back_is_counted(robot):
    robot.reconfigure(map=str(robot.good), pose_source="odometry")
    robot.drive([base_pose(0.1 * i) for i in range(3)])
    broken = base_pose(float("nan"))
    robot.odometry(broken, robot.clock_ns + 1)
    wait_until(lambda: robot.counter("pose_refused") >= 1, what="pose_refused")
    robot.odometry(base_pose(0.0), robot.clock_ns - 60_000_000_000)
    wait_until(lambda: robot.counter("poses_back") >= 1, what="poses_back")
    lives_on(robot)


@pytest.mark.slow
def test_odometry_that_begins_at_its_origin_again_is_said_and_counted(robot):
    """Its driver was restarted: what is kept of the motion before is of another frame."""
    robot.reconfigure(map=str(robot.good), pose_source="odometry")
    before = robot.counter("odometry_jumps")
    for i, x in enumerate([7.5, 7.6, 7.7, 7.8, 7.9, 8.0, 0.0]):
        robot.clock_ns += 2_000_000_000 if i == 6 else 100_000_000
        pose = np.eye(4)
        pose[0, 3] = x
        robot.odometry(pose, robot.clock_ns)
    wait_until(lambda: robot.counter("odometry_jumps") > before, what="odometry_jumps")
    assert "earlier poses are forgotten" in robot.process.output
    lives_on(robot)


@pytest.mark.slow
def test_poses_in_another_frame_are_refused_by_name(robot):
    from geometry_msgs.msg import PoseStamped

    robot.reconfigure(map=str(robot.good), pose_source="pose", pose_topic="/where")
    message = PoseStamped()
    set_header(message, robot.clock_ns, "odom")
    message.pose.orientation.w = 1.0
    robot.send(PoseStamped, "/where", message)
    wait_until(lambda: robot.counter("pose_refused_frame") == 1, what="pose_refused_frame")
    assert "in frame 'odom' and the map is in 'map'" in robot.process.output
    lives_on(robot)


# Maps


def truncated(robot):
    path = robot.folder / "truncated.map"
    path.unlink(missing_ok=True)
    make_map(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path, "damaged"


def newer(robot):
    path = make_map(robot.folder / "newer.map")
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    return path, "version 99"


def no_map_at_all(robot):
    path = robot.folder / "letter.map"
    path.write_text("Dear robot, " * 1000)
    return path, "letter.map"


def other_model(robot):
    return make_map(robot.folder / "other.map", sha="cd" * 32), "was made by model fourier (cdcd"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [truncated, newer, no_map_at_all, other_model])
def test_map_that_cannot_be_used_is_named_and_taken_when_it_is_put_right(robot, kind):
    path, words = kind(robot)
    robot.reconfigure(map=str(path), pose_source="none", pose_topic="")
    robot.publish_model()

    def reported():
        level, text, values = robot.status("map")
        return level == ERROR and words in text and int(values["failures"]) > 0

    wait_until(reported, what=f"an error with {words!r}; {robot.process.output[-1500:]}")
    assert robot.client.state(NODE) == "active"
    stamp = robot.descriptor(describe(base_pose(1.0) @ mounting()))
    time.sleep(0.3)
    assert not [m for m in robot.places if stamp_ns(m) == stamp], "nothing may be made up"
    good = robot.folder / "copy.map"
    shutil.copy(robot.good, good)
    good.replace(path)
    wait_until(lambda: robot.status("map")[0] == OK, what="the good map to be opened")
    lives_on(robot)


@pytest.mark.slow
def test_map_that_comes_later_is_opened(robot):
    path = robot.folder / "later.map"
    robot.reconfigure(map=str(path), pose_source="none")
    level, text, _ = robot.status("map")
    assert level == WARN and "does not exist" in text
    make_map(path)
    wait_until(lambda: robot.status("map")[0] == OK, what="the map to be opened")
    lives_on(robot)


@pytest.mark.slow
def test_empty_map_answers_unknown_and_says_that_it_is_empty(robot):
    path = make_map(robot.folder / "empty.map", poses=[])
    robot.reconfigure(map=str(path))
    stamp = robot.descriptor(describe(base_pose(1.0) @ mounting()))
    answer = robot.answer(stamp)
    assert answer.id == "" and [r.hypothesis.class_id for r in answer.results] == ["unknown"]
    level, text, _ = robot.status("map")
    assert (level, "empty" in text) == (WARN, True), text


@pytest.mark.slow
def test_what_another_process_adds_is_recognised(robot):
    path = make_map(robot.folder / "shared.map", poses=square()[:8])
    robot.reconfigure(map=str(path))
    robot.look_around(base_pose(1.0))
    more = robot.folder / "more.map"
    make_map(more, poses=square()[8:40])
    with open_map(more, "read") as source, open_map(path) as target:
        from robot_vision.places.map.copying import merge_map

        added = merge_map(target, source).added
    places = str(8 + added)
    wait_until(lambda: robot.status("map")[2]["places"] == places, what="the added places")
    robot.look_around(base_pose(8.0, 1.5, np.pi / 2))


@pytest.mark.slow
def test_ten_thousand_keyframes_in_one_spot_are_one_place(robot):
    spot = [base_pose(2.0)] * 10_000
    path = make_map(robot.folder / "spot.map", poses=[*spot, *square()])
    robot.reconfigure(map=str(path))
    pose = robot.look_around(base_pose(8.0, 4.0, np.pi / 2))
    assert abs(pose.pose.pose.position.x - 8.0) < 0.5
    robot.clock_ns += 60_000_000_000
    robot.look_around(base_pose(2.0))
    assert float(robot.status()[2]["work_ms_p99"]) < 1000


# Mapping


def begin(robot: PlaceRobot, path) -> None:
    robot.reconfigure(map=str(path), pose_source="odometry", pose_topic="", source="run")
    robot.publish_model()
    robot.drive([base_pose(-1.0)])
    wait_until(lambda: robot.status()[2]["model"] != "", what="the model's name")


@pytest.mark.slow
def test_mapping_into_a_map_that_cannot_be_written_is_refused_with_the_reason(robot):
    for words, path in (
        ("was made by model", make_map(robot.folder / "foreign.map", sha="cd" * 32)),
        ("damaged", truncated(robot)[0]),
        ("cannot be written", "/proc/nowhere/home.map"),
    ):
        begin(robot, path)
        success, text = robot.trigger("start_mapping")
        assert not success and words in text, text
    assert robot.process.alive


@pytest.mark.slow
def test_full_disk_pauses_mapping_says_so_and_loses_nothing(robot):
    """The disk is full for the node alone: its files may not grow beyond a limit (RLIMIT_FSIZE)."""
    path = make_map(robot.folder / "full.map", poses=square()[:8])
    begin(robot, path)
    robot.look_around(base_pose(1.0))  # says where the odometry began
    robot.drive([base_pose(0.05 * i) for i in range(40)], noise=0.02)
    success, text = robot.trigger("start_mapping")
    assert success, text
    process = psutil.Process(robot.process.process.pid)
    largest = max(f.stat().st_size for f in robot.folder.glob("full.map*"))
    unlimited = process.rlimit(psutil.RLIMIT_FSIZE)
    log = (robot.folder / "log.txt").stat().st_size + (1 << 18)
    process.rlimit(psutil.RLIMIT_FSIZE, (max(largest, log), unlimited[1]))
    try:
        far = [base_pose(20 + 0.3 * i) for i in range(4000)]
        sent = 0

        def paused():
            nonlocal sent
            robot.drive(far[sent : sent + 40], noise=0.0)
            sent += 40
            return robot.status("mapping")[2]["state"] == "paused"

        wait_until(paused, 60, "a pause; " + robot.process.output[-1500:])
        level, text, values = robot.status("mapping")
        assert level == ERROR and "paused" in text and "no room" in text
        assert "Mapping is paused" in robot.process.output
        robot.look_around(base_pose(1.0))  # recognition goes on
        acknowledged = int(values["keyframes_added"])
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, unlimited)
    wait_until(lambda: robot.status("mapping")[2]["state"] == "on", what="mapping to go on")
    assert "Mapping continues" in robot.process.output
    assert robot.trigger("stop_mapping")[0]
    with open_map(path, "read") as places:
        places.check()
        own = sum(source == "run" for source in places.poses().sources)
        assert own >= acknowledged > 0


@pytest.mark.slow
def test_map_locked_by_another_process_pauses_mapping_until_it_is_free(robot):
    path = make_map(robot.folder / "locked.map", poses=[])
    begin(robot, path)
    success, text = robot.trigger("start_mapping")
    assert success, text
    robot.drive([base_pose(0.3 * i) for i in range(5)])

    def all_written():
        _, _, values = robot.status("mapping")
        return values["waiting"] == "0" and float(values["keyframes_added"])

    added = wait_until(all_written, what="keyframes")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        robot.drive([base_pose(3 + 0.3 * i) for i in range(5)])
        wait_until(
            lambda: robot.status("mapping")[2]["state"] == "paused", 30, "a pause while locked"
        )
        assert "locked by another process" in robot.process.output
        robot.drive([base_pose(6.0)])
        _, _, values = robot.status("mapping")
        assert float(values["keyframes_added"]) == added and float(values["waiting"]) >= 3
    finally:
        other.execute("ROLLBACK")
        other.close()
    lost = values["keyframes_lost"]
    assert wait_until(all_written, 30, "what had waited") >= added + 3
    assert robot.status("mapping")[2]["keyframes_lost"] == lost
    assert robot.trigger("stop_mapping")[0]


@pytest.mark.slow
@pytest.mark.parametrize("removed", [False, True])
def test_map_that_is_replaced_or_removed_while_it_grows_loses_nothing_more(robot, removed):
    path = make_map(robot.folder / f"under_{removed}.map", poses=[])
    begin(robot, path)
    success, text = robot.trigger("start_mapping")
    assert success, text
    robot.drive([base_pose(0.3 * i) for i in range(8)])
    wait_until(lambda: robot.status("mapping")[2]["waiting"] == "0", what="keyframes on disk")
    wait_until(lambda: robot.status("map")[2]["places"] not in ("0", "-1"), what="recognition")
    other = make_map(robot.folder / f"other_{removed}.map", [base_pose(-20 - i) for i in range(99)])
    path.rename(robot.folder / f"kept_{removed}.map")
    if not removed:
        other.rename(path)
    robot.odom_offset = np.eye(4)
    robot.drive([base_pose(4 + 0.3 * i) for i in range(8)])

    def written() -> bool:
        _, _, values = robot.status("mapping")
        return values["state"] == "on" and values["waiting"] == "0" and path.exists()

    wait_until(written, what="mapping to go on in the new file")
    robot.drive([base_pose(8 + 0.3 * i) for i in range(4)])
    time.sleep(0.3)
    assert robot.trigger("stop_mapping")[0]
    with open_map(path, "read") as places:
        places.check()
        new = [k for k in places.keyframes() if k.source != "first run"]
        assert len(places) - len(new) == (0 if removed else 99) and len(new) >= 6
    with open_map(robot.folder / f"kept_{removed}.map", "read") as kept:
        kept.check()
        assert len(kept) >= 6


@pytest.mark.slow
def test_end_of_the_node_keeps_every_keyframe_that_was_taken(robot):
    path = robot.folder / "end.map"
    robot.reconfigure(map=str(path), pose_source="odometry", pose_topic="", mapping=True)
    robot.publish_model()
    wait_until(
        lambda: robot.status("mapping")[2]["state"] == "on",
        what="mapping to begin by itself",
        each=lambda: robot.drive([base_pose(0.0)]),
    )
    robot.drive([base_pose(4 + 0.3 * i) for i in range(12)])
    time.sleep(0.3)  # until the last view is a keyframe, on disk or not
    robot.process.process.send_signal(signal.SIGINT)
    assert robot.process.process.wait(20) == 0
    with open_map(path, "read") as places:
        places.check()
        assert places.info.bundle_sha256 == SHA
        xs = places.poses().positions[:, 0]
        assert xs.max() == pytest.approx((base_pose(7.3) @ mounting())[0, 3])
