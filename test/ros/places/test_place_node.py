"""The place node in its own process, over real DDS, with a real map file: when all is well."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")
pytest.importorskip("faiss")

from place_maps import server, server_uri
from place_robot import (
    ACTIVATE,
    CLEANUP,
    CONFIGURE,
    DEACTIVATE,
    DIMENSION,
    FRAME,
    NODE,
    SHA,
    PlaceRobot,
    base_pose,
    camera_pose,
    describe,
    elsewhere,
    make_map,
    matrix,
    mounting,
    set_pose,
    square,
)
from ros_helpers import coloured_image, rgb_message, running, set_header, stamp_ns, wait_until
from scipy.spatial.transform import Rotation

from robot_vision.places.map.opening import open_map

pytestmark = [pytest.mark.ros, pytest.mark.slow]
__all__ = ["server", "server_uri"]  # fixtures


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaceRobot]:
    folder = tmp_path_factory.mktemp("places")
    robot = PlaceRobot(folder, "-p", f"map:={make_map(folder / 'home.map')}")
    yield robot
    robot.stop()


def accepted_by_nav2(message) -> None:
    """Asserts what nav2_util::validateMsg asks of a PoseWithCovarianceStamped, and AMCL of its frame."""
    p, q = message.pose.pose.position, message.pose.pose.orientation
    covariance = np.array(message.pose.covariance)
    assert message.header.frame_id == "map" and stamp_ns(message) > 0
    assert np.all(np.isfinite([p.x, p.y, p.z, q.x, q.y, q.z, q.w]))
    assert abs(q.x**2 + q.y**2 + q.z**2 + q.w**2 - 1) < 1e-4
    assert np.all(np.isfinite(covariance)) and np.all(covariance >= 0)
    assert np.all(np.diagonal(covariance.reshape(6, 6)) > 0)
    np.testing.assert_allclose(covariance.reshape(6, 6), covariance.reshape(6, 6).T)


def showing(robot: PlaceRobot, descriptor: np.ndarray):
    """Shows a view again and again, as a camera does; returns the timer."""
    return robot.client.node.create_timer(0.1, lambda: robot.descriptor(descriptor, wait=False))


def test_known_place_is_accepted_with_the_stamp_and_the_pose_of_the_robot(robot):
    there = base_pose(3.0)
    pose = robot.look_around(there)
    assert pose.header.frame_id == "map"
    error = matrix(pose.pose.pose)[:3, 3] - there[:3, 3]
    assert np.linalg.norm(error) < 0.3, "the nearest keyframe is at most 0.13 m away"
    yaw = Rotation.from_matrix(matrix(pose.pose.pose)[:3, :3]).as_euler("zyx")
    np.testing.assert_allclose(yaw, 0, atol=0.1)
    answer = robot.answer(stamp_ns(pose))
    assert answer.header.frame_id == "map"
    scores = [r.hypothesis.score for r in answer.results]
    assert min(scores) >= 0 and max(scores) <= 1 and scores[0] > 0.9 * max(scores)
    assert answer.results[0].hypothesis.class_id == answer.id
    # Places are those of the camera, whatever the pose is of.
    camera = matrix(answer.results[0].pose.pose)
    np.testing.assert_allclose(
        camera @ np.linalg.inv(mounting()), matrix(pose.pose.pose), atol=1e-6
    )


def test_view_of_no_place_is_unknown_and_gives_no_pose(robot):
    for seed in range(3):
        robot.clock_ns += 2_000_000_000
        stamp = robot.descriptor(elsewhere(seed), robot.clock_ns)
        answer = robot.answer(stamp)
    assert answer.id == ""
    first = answer.results[0].hypothesis
    assert first.class_id == "unknown" and first.score > 0.5
    assert robot.pose_of(stamp) is None


def test_places_are_at_most_top_k_live(robot):
    assert robot.client.set_parameters(NODE, top_k=2).successful
    robot.look_around(base_pose(5.0))
    assert len(robot.places[-1].results) == 2
    assert robot.client.set_parameters(NODE, top_k=5).successful


def test_relocalise_publishes_a_pose_that_nav2_takes(robot):
    there = base_pose(8.0, 4.0, np.pi / 2)
    robot.initial.clear()
    stop = showing(robot, describe(there @ mounting(), 0.05))
    success, text = robot.trigger("relocalise")
    robot.client.node.destroy_timer(stop)
    assert success, text
    assert "Published /initialpose to 1 subscriber:" in text
    (message,) = wait_until(lambda: list(robot.initial), what="/initialpose")
    accepted_by_nav2(message)
    T = matrix(message.pose.pose)
    assert np.linalg.norm(T[:3, 3] - there[:3, 3]) < 0.3
    assert abs(Rotation.from_matrix(T[:3, :3]).as_euler("zyx")[0] - np.pi / 2) < 0.1


def test_relocalise_fails_where_nobody_subscribes(robot):
    """A behaviour tree that reads success would drive on with a localiser that was not started."""
    from geometry_msgs.msg import PoseWithCovarianceStamped

    robot.client.ignore("/initialpose")
    stop = showing(robot, describe(base_pose(8.0, 4.0, np.pi / 2) @ mounting(), 0.05))
    success, text = robot.trigger("relocalise")
    robot.client.node.destroy_timer(stop)
    robot.initial = robot.client.listen(PoseWithCovarianceStamped, "/initialpose", 10)
    assert not success and "Nothing subscribes to /initialpose: start the localiser" in text
    assert "Found: place" in text


def test_relocalise_without_an_accepted_match_says_so_and_publishes_nothing(robot):
    assert robot.client.set_parameters(NODE, relocalise_timeout_s=1.0).successful
    robot.answer(robot.descriptor(elsewhere(5)))  # what was shown before is through
    robot.initial.clear()
    stop = showing(robot, elsewhere(5))
    success, text = robot.trigger("relocalise")
    robot.client.node.destroy_timer(stop)
    assert not success and "Not within 1 s" in text and "recognised" in text
    assert not robot.initial


def test_snapshot_is_a_whole_map_beside_the_map(robot):
    success, text = robot.trigger("save_snapshot")
    assert success, text
    path = text.rpartition(" to ")[2]
    with open_map(path, "read") as copy, open_map(robot.folder / "home.map", "read") as original:
        copy.check()
        assert len(copy) == len(original) == 128
        np.testing.assert_array_equal(copy.descriptors()[1], original.descriptors()[1])


def test_markers_show_the_keyframes_to_whom_watches(robot):
    from visualization_msgs.msg import MarkerArray

    markers = robot.client.listen(MarkerArray, f"{NODE}/markers")
    robot.look_around(base_pose(1.0))

    def named(name):
        return [m for a in list(markers) for m in a.markers if m.ns == name]

    wait_until(
        lambda: named("map") and named("match"), each=lambda: robot.look_around(base_pose(1.0))
    )
    keyframes = named("map")[-1]
    assert len(keyframes.points) == 128 and keyframes.header.frame_id == "map"
    assert keyframes.points[4].x == pytest.approx(camera_pose(1.0)[0, 3])
    robot.client.ignore(f"{NODE}/markers")


def test_services_of_a_node_that_is_not_active_say_so(robot):
    client = robot.client
    assert client.change_state(NODE, DEACTIVATE)
    success, text = robot.trigger("relocalise")
    assert not success and "activate" in text
    assert client.change_state(NODE, CLEANUP) and client.change_state(NODE, CONFIGURE)
    assert client.change_state(NODE, ACTIVATE)
    robot.look_around(base_pose(2.0))


# Mapping


def test_driving_with_odometry_makes_a_map_that_is_recognised_afterwards(robot):
    path = robot.folder / "new.map"
    robot.reconfigure(map=str(path), pose_source="odometry", source="run 1")
    robot.publish_model()
    assert robot.status("map")[0] == 1  # not there yet: a warning
    way = [base_pose(0.05 * i) for i in range(80)]
    robot.drive(way[:1])
    success, text = robot.trigger("start_mapping")
    assert success, text
    stamps = robot.drive(way)
    wait_until(lambda: robot.counter("keyframes_added", "mapping") >= 14, what="keyframes")
    success, text = robot.trigger("stop_mapping")
    assert success and "keyframes added" in text
    with open_map(path, "read") as places:
        assert places.info.bundle_sha256 == SHA and places.info.frame_id == "map"
        for keyframe in places.keyframes():
            assert keyframe.source == "run 1" and keyframe.camera == "front"
            i = stamps.index(keyframe.stamp_ns)  # each is of a view that was driven through
            np.testing.assert_allclose(keyframe.T_map_camera, way[i] @ mounting(), atol=1e-6)
            np.testing.assert_allclose(keyframe.descriptor, describe(way[i] @ mounting(), 0, i))
        positions = places.poses().positions
        steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        assert (
            steps.min() > 0.2 and steps.max() < 0.35
        )  # every quarter metre; some views are skipped
    wait_until(lambda: robot.status("map")[2]["places"] not in ("0", "-1"), what="the map to open")


def test_stop_mapping_ends_what_the_parameter_began_until_it_is_set_again(robot):
    path = robot.folder / "stopped.map"
    robot.reconfigure(map=str(path), pose_source="odometry", source="run 1", mapping=True)
    robot.publish_model()
    wait_until(
        lambda: robot.status("mapping")[2]["state"] == "on",
        what="mapping to begin by itself",
        each=lambda: robot.drive([base_pose(0.0)]),
    )
    success, text = robot.trigger("stop_mapping")
    assert success and "Mapping ended" in text
    time.sleep(1.0)  # three retry periods
    assert robot.status("mapping")[2]["state"] == "off"
    assert robot.client.set_parameters(NODE, mapping=False).successful
    assert robot.client.set_parameters(NODE, mapping=True).successful
    assert robot.status("mapping")[2]["state"] == "on"
    assert robot.client.set_parameters(NODE, mapping=False).successful


def test_mapping_makes_a_map_on_a_server_and_nobody_sees_its_password(robot, server_uri):
    secret = "Geheim"
    uri = f"{server_uri}&password={secret}"  # the server trusts everybody
    robot.reconfigure(map=uri, pose_source="odometry", source="run 1")
    robot.publish_model()
    assert robot.status("map")[0] == 1 and "does not exist yet" in robot.status("map")[1]
    way = [base_pose(0.1 * i) for i in range(30)]
    wait_until(lambda: robot.trigger("start_mapping")[0], each=lambda: robot.drive(way[:1], False))
    robot.drive(way)
    wait_until(lambda: robot.counter("keyframes_added", "mapping") >= 4, what="keyframes")
    success, text = robot.trigger("stop_mapping")
    assert success and secret not in text
    with open_map(uri, "read") as places:
        assert len(places) >= 4 and places.info.bundle_sha256 == SHA
    wait_until(lambda: robot.status("map")[2]["places"] not in ("0", "-1"), what="the map to open")
    assert robot.status("map")[2]["map"].endswith("&...")
    success, text = robot.trigger("save_snapshot")
    assert not success and secret not in text
    told = robot.process.output + str(robot.client.received["/diagnostics"])
    assert "does not exist yet" in told and secret not in told


def test_mounting_counts_for_an_odometry_that_names_no_child(robot):
    from nav_msgs.msg import Odometry

    path = robot.folder / "nameless.map"
    robot.reconfigure(map=str(path), pose_source="odometry", source="run 1")
    robot.publish_model()
    way = [base_pose(0.1 * i) for i in range(20)]
    wait_until(lambda: robot.trigger("start_mapping")[0], each=lambda: robot.drive(way[:1], False))
    stamps = []
    for i, T in enumerate(way):
        robot.clock_ns += 100_000_000
        message = Odometry()
        set_header(message, robot.clock_ns, "odom")
        set_pose(message.pose.pose, T)
        robot.send(Odometry, "/odom", message)
        stamps.append(robot.descriptor(describe(T @ mounting(), 0, i), robot.clock_ns))
        time.sleep(0.012)
    wait_until(lambda: robot.counter("keyframes_added", "mapping") >= 4, what="keyframes")
    assert robot.trigger("stop_mapping")[0]
    with open_map(path, "read") as places:
        for keyframe in places.keyframes():
            T = way[stamps.index(keyframe.stamp_ns)] @ mounting()
            np.testing.assert_allclose(keyframe.T_map_camera, T, atol=1e-6)


def test_second_run_is_put_into_the_frame_of_the_first(robot):
    """Its odometry began elsewhere; an accepted match says where."""
    path = make_map(robot.folder / "grown.map")
    robot.reconfigure(map=str(path), pose_source="odometry", source="run 2")
    robot.publish_model()
    robot.odom_offset = base_pose(-3.0, 7.0, 2.0)
    success, text = robot.trigger("start_mapping")
    assert success, text
    way = [base_pose(1 + 0.05 * i) for i in range(60)]  # along the first side, which is known
    robot.drive(way, noise=0.02)
    wait_until(lambda: robot.counter("keyframes_added", "mapping") >= 3, what="keyframes")
    assert robot.trigger("stop_mapping")[0]
    robot.odom_offset = np.eye(4)
    with open_map(path, "read") as places:
        added = [k for k in places.keyframes() if k.source == "run 2"]
        assert added
        for keyframe in added:
            base = keyframe.T_map_camera @ np.linalg.inv(mounting())
            assert abs(base[1, 3]) < 0.4 and 0.5 < base[0, 3] < 4.5
            assert keyframe.covariance is not None and np.trace(keyframe.covariance) > 0


@pytest.mark.parametrize("source", ["tf", "pose", "pose_with_covariance"])
def test_mapping_with_poses_in_the_map_frame(robot, source):
    from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped, TransformStamped
    from tf2_msgs.msg import TFMessage

    path = robot.folder / f"{source}.map"
    robot.reconfigure(map=str(path), pose_source=source, pose_topic=f"/{source}", source="tour")
    robot.publish_model()
    way = [base_pose(0.1 * i, 0.0, 0.02 * i) for i in range(25)]

    def tell(T: np.ndarray, stamp: int) -> None:
        if source == "tf":
            moving, fixed = TransformStamped(child_frame_id="base_link"), TransformStamped()
            fixed.child_frame_id = FRAME
            for m, parent, A in ((moving, "map", T), (fixed, "base_link", mounting())):
                set_header(m, stamp, parent)
                q = Rotation.from_matrix(A[:3, :3]).as_quat()
                t, r = m.transform.translation, m.transform.rotation
                t.x, t.y, t.z = (float(v) for v in A[:3, 3])
                r.x, r.y, r.z, r.w = (float(v) for v in q)
            robot.send(TFMessage, "/tf", TFMessage(transforms=[moving, fixed]))
            return
        kind = PoseStamped if source == "pose" else PoseWithCovarianceStamped
        message = kind()
        set_header(message, stamp, "map")
        set_pose(message.pose if source == "pose" else message.pose.pose, T)
        if source != "pose":
            message.pose.covariance = np.diag([0.04] * 3 + [0.01] * 3).reshape(36)
        robot.send(kind, f"/{source}", message)

    stamps = []
    for i, T in enumerate(way):
        robot.clock_ns += 100_000_000
        tell(T, robot.clock_ns)
        stamps.append(robot.descriptor(describe(T @ mounting(), 0, i), robot.clock_ns))
        if i == 0:
            time.sleep(0.3)
            assert robot.trigger("start_mapping")[0]
        time.sleep(0.012)
    wait_until(lambda: robot.counter("keyframes_added", "mapping") >= 6, what="keyframes")
    assert robot.trigger("stop_mapping")[0]
    with open_map(path, "read") as places:
        for keyframe in places.keyframes():
            i = stamps.index(keyframe.stamp_ns)
            np.testing.assert_allclose(keyframe.T_map_camera, way[i] @ mounting(), atol=1e-6)
            if source == "pose_with_covariance":
                # The camera is 0.55 m from the base: the rotation's variance reaches its position.
                assert keyframe.covariance[0, 0] > 0.04
                assert keyframe.covariance[5, 5] == pytest.approx(0.01)


# Loop closures


def test_coming_back_closes_a_loop_with_both_stamps_and_no_other(robot):
    once = square(0.2)
    # A view that a busy machine dropped would leave a gap in what can be come back to.
    for _ in range(5):
        robot.reconfigure(map="", pose_source="odometry", pose_topic="", loop_exclude_s=5.0)
        robot.loops.clear()
        dropped = robot.status()[2].get("replaced", "0")
        robot.drive(once, noise=0.02)
        time.sleep(0.5)
        assert not robot.loops, "nothing was seen twice yet"
        if robot.status()[2].get("replaced", "0") == dropped:
            break
    else:
        pytest.fail("the machine was too busy for five drives")
    again = robot.drive(once[:30], noise=0.02)
    wait_until(lambda: robot.loops, what="a loop closure; " + robot.process.output[-2000:])
    time.sleep(0.3)
    for message in list(robot.loops):
        earlier, now = message.detections
        assert message.header.frame_id == "odom" and stamp_ns(now) == stamp_ns(message)
        assert stamp_ns(now) in again
        assert stamp_ns(now) - stamp_ns(earlier) >= 5_000_000_000
        i = again.index(stamp_ns(now))
        T_earlier = matrix(earlier.results[0].pose.pose)
        apart = np.linalg.norm(T_earlier[:3, 3] - (once[i] @ mounting())[:3, 3])
        assert apart < 0.5, "the earlier view is where the robot is now"
        np.testing.assert_allclose(matrix(now.results[0].pose.pose), T_earlier, atol=1e-9)
        covariance = np.array(now.results[0].pose.covariance).reshape(6, 6)
        assert np.all(np.linalg.eigvalsh(covariance) > 0)
        assert now.results[0].hypothesis.score >= 0.9
    assert len({stamp_ns(m.detections[0]) for m in robot.loops}) > 1


# With images


def test_verified_pose_is_exact_where_the_nearest_keyframe_is_not(robot):
    """Rendered images of a room: the map has local features, the query is between keyframes."""
    from sensor_msgs.msg import CameraInfo, Image

    from robot_vision.geometry.intrinsics import Intrinsics
    from robot_vision.places.map.keyframe import Keyframe
    from robot_vision.places.map.opening import create_map
    from robot_vision.places.verification.builder import StructureBuilder
    from robot_vision.simulation.drive import look
    from robot_vision.simulation.world.home import default_world
    from robot_vision.simulation.world.renderer import Camera, Renderer

    camera = Camera()
    renderer = Renderer(default_world(), camera)
    intrinsics = Intrinsics.of_matrix(camera.k, camera.width, camera.height)
    views = [look((5.6 + 0.2 * i, 1.9, 1.1), 0.7 + 0.02 * i, -0.05) for i in range(12)]
    path = robot.folder / "office.map"
    builder = StructureBuilder(provisional=False)
    with create_map(path, bundle_name="fourier", bundle_sha256=SHA, dimension=DIMENSION) as places:
        for i, T in enumerate(views):
            number = places.add(
                Keyframe.checked(
                    stamp_ns=i, camera="front", source="run", T_map_camera=T, descriptor=describe(T)
                )
            )
            builder.add(number, T, renderer.render(T), intrinsics)
        for number, content in builder.flush().items():
            places.set_structure(number, content)
    robot.reconfigure(map=str(path), verify=True, base_frame="", pose_source="none")
    truth = look((6.7, 1.93, 1.12), 0.79, -0.03)
    image = renderer.render(truth)
    info = CameraInfo(width=camera.width, height=camera.height, distortion_model="plumb_bob")
    info.k, info.d = camera.k.reshape(9), [0.0] * 5
    robot.send(CameraInfo, "/front/camera_info", info)
    verified = robot.counter("verified")

    def shown() -> bool:
        robot.clock_ns += 500_000_000
        robot.send(CameraInfo, "/front/camera_info", info)
        robot.send(Image, "/front/image_raw", rgb_message(image, robot.clock_ns, FRAME))
        time.sleep(0.05)
        robot.answer(robot.descriptor(describe(truth, 0.02), robot.clock_ns))
        return robot.counter("verified") > verified

    wait_until(shown, what="a verified match; " + robot.process.output[-1500:])
    pose = robot.poses[-1]
    T = matrix(pose.pose.pose)
    assert np.linalg.norm(T[:3, 3] - truth[:3, 3]) < 0.03
    turn = Rotation.from_matrix(T[:3, :3].T @ truth[:3, :3]).magnitude()
    assert np.degrees(turn) < 1
    nearest = min(np.linalg.norm(v[:3, 3] - truth[:3, 3]) for v in views)
    assert nearest > 0.03, "the nearest keyframe alone would not do"
    assert np.sqrt(pose.pose.covariance[0]) < 0.1
    # Another picture with the same descriptor is refused.
    refused = robot.counter("verification_refused")
    robot.clock_ns += 500_000_000
    blank = np.full_like(image, 90)
    robot.send(Image, "/front/image_raw", rgb_message(blank, robot.clock_ns, FRAME))
    time.sleep(0.1)
    answer = robot.answer(robot.descriptor(describe(truth, 0.02), robot.clock_ns))
    assert answer.id == "" and answer.results[0].hypothesis.class_id == "unknown"
    wait_until(lambda: robot.counter("verification_refused") > refused, what="a refusal")
    robot.reconfigure(verify=False, base_frame="base_link")


def test_pose_that_cannot_be_verified_is_held_back_and_diagnostics_say_why(robot):
    """With verify, anyone who reads ~/pose takes it for verified."""
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image

    def shown(images: bool = False) -> None:
        for i in range(6):
            robot.clock_ns += 400_000_000
            if images:
                picture = coloured_image((90, 60, 30), (96, 96))
                robot.send(Image, "/front/image_raw", rgb_message(picture, robot.clock_ns, FRAME))
                time.sleep(0.05)
            T = base_pose(3.0) @ mounting()
            stamp = robot.descriptor(describe(T, 0.05, i), robot.clock_ns)
            assert robot.answer(stamp).id == ""

    def said(words: str) -> None:
        def found() -> bool:
            level, text, _ = robot.status()
            return level == 1 and words in text

        wait_until(found, what=f"{words!r}; {robot.status()}")

    home = str(robot.folder / "home.map")
    robot.reconfigure(map=home, verify=True, image_topic="/front/imag_raw", pose_source="none")
    poses, before = len(robot.poses), robot.counter("not_verifiable")
    shown()
    said("no pose is published: no image on /front/imag_raw (0 publishers)")
    assert robot.counter("not_verifiable") == before + 6

    robot.client.publisher(CompressedImage, "/rear/image_raw/compressed", 1)
    robot.reconfigure(image_topic="/rear/image_raw")
    shown()
    said("is published on /rear/image_raw/compressed: set transport to compressed")
    robot.reconfigure(image_topic="/front/image_raw")

    info = CameraInfo(width=640, height=480, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [525.0, 0.0, 320.0, 0.0, 525.0, 240.0, 0.0, 0.0, 1.0]
    shown(images=True)
    said("no camera_info on /front/camera_info")
    robot.send(CameraInfo, "/front/camera_info", info)
    shown(images=True)  # binning changed the images, and the camera_info says nothing of it
    said("Images on /front/image_raw are 96 x 96 and their camera_info is of 640 x 480")
    assert robot.counter("camera_info_refused") >= 1
    info.width = info.height = 96
    info.k = [100.0, 0.0, 48.0, 0.0, 100.0, 48.0, 0.0, 0.0, 1.0]
    robot.send(CameraInfo, "/front/camera_info", info)
    shown(images=True)
    said("the map has no local features there")
    shown()  # the image of these descriptors was lost
    said("no image with the stamp of the descriptor")
    assert len(robot.poses) == poses, "none went out"
    robot.reconfigure(verify=False, image_topic="")
    robot.look_around(base_pose(3.0))


def test_both_nodes_in_one_process_say_where_an_image_was_taken(tmp_path):
    from tiny_bundle import make_tiny_bundle
    from vision_msgs.msg import Detection3D

    from robot_vision.bundle.bundle import ModelBundle
    from robot_vision.pipeline import Pipeline
    from robot_vision.places.map.keyframe import Keyframe
    from robot_vision.places.map.opening import create_map_for

    bundle = make_tiny_bundle(tmp_path / "tiny")
    image = coloured_image((20, 220, 20))
    with Pipeline.load(bundle, "onnx", threads=1) as pipeline:
        descriptor = pipeline([image])[0]["place"].values
    with create_map_for(tmp_path / "tiny.map", ModelBundle.load(bundle)) as places:
        places.add(
            Keyframe.checked(
                stamp_ns=1, camera="eye", source="run", T_map_camera=camera_pose(1.0),
                descriptor=descriptor,
            )
        )  # fmt: skip
    words = (
        *("--ros-args", "--log-level", "info"),
        *("--perception", "--ros-args", "-r", "__node:=eyes", "-p", f"model:={bundle}"),
        *("-p", "engine:=onnx", "-p", "cameras:=[eye]"),
        *("--places", "--ros-args", "-r", "__node:=spots", "-p", f"map:={tmp_path / 'tiny.map'}"),
        *("-p", "camera:=eye", "-p", "descriptor_topic:=eyes/eye/descriptor"),
    )
    with running(tmp_path, "composed_nodes", *words) as (process, client):
        answers = client.listen(Detection3D, "/spots/places")
        publisher = client.publisher(type(rgb_message(image, 0)), "/eye/image_raw")
        wait_until(
            lambda: answers,
            what="an answer; " + process.output,
            each=lambda: publisher.publish(rgb_message(image, time.time_ns())),
        )
        assert "1" in [r.hypothesis.class_id for r in answers[-1].results]

        def model() -> str:  # the perception node says which
            found = client.diagnostics("spots")
            return found[2]["model"] if found else ""

        wait_until(lambda: model().startswith("tiny"), what="the model's name")
        assert client.state("/eyes") == client.state("/spots") == "active"
