"""The drive that the demo records, and how what the nodes say of it is judged."""

import json
from pathlib import Path

import numpy as np
import pytest
from demo_helpers import truth_of
from rosbags.highlevel import AnyReader
from scipy.spatial.transform import Rotation

from robot_vision.cli import main
from robot_vision.demo.recorded import DriveTruth, read_truth, record_drive
from robot_vision.demo.relocalisation import PlacePose, relocalisation
from robot_vision.demo.scoring import FrameAnswer, KnownPlaces, Score
from robot_vision.demo.wheels import Wheels
from robot_vision.errors import SourceError
from robot_vision.simulation.drive import evaluation_drive, kidnapped_drive
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.renderer import Camera, Renderer
from robot_vision.simulation.world.sensor import Sensor, render_frames
from robot_vision.truth.reading import TruthRequest
from robot_vision.truth.reading import read_truth as read_truth_of

WORLD = default_world()
MODEL = Path(__file__).resolve().parents[2] / "models" / "demo"


# --- the bag and its truth ---------------------------------------------------------------------------


@pytest.mark.slow
def test_recorded_drive_gives_back_images_poses_and_rooms(tmp_path):
    frames = evaluation_drive(WORLD)[:6]
    images = list(render_frames(WORLD, frames, Sensor()))
    start_ns = 1_700_000_000_123_456_789
    assert len(list(record_drive(tmp_path / "bag", frames, images, Camera(), start_ns))) == 6
    truth = read_truth(tmp_path / "bag")
    assert truth.rooms == tuple(frame.room for frame in frames)
    for i, frame in enumerate(frames):
        assert truth.stamps_ns[i] == start_ns + round(frame.stamp_s * 1e9)
        rotation = Rotation.from_quat(truth.orientations_xyzw[i]).as_matrix()
        np.testing.assert_allclose(rotation, frame.T_map_camera[:3, :3], atol=1e-9)
        np.testing.assert_allclose(truth.positions[i], frame.T_map_camera[:3, 3], atol=1e-12)
    with AnyReader([tmp_path / "bag"]) as reader:
        connections = [c for c in reader.connections if c.topic == "/camera/image_raw"]
        stored = [
            reader.deserialize(data, c.msgtype).data for c, _, data in reader.messages(connections)
        ]
    assert all(np.array_equal(a, b.reshape(-1)) for a, b in zip(stored, images, strict=True))


@pytest.mark.slow
def test_recorded_drive_gives_back_what_each_pixel_shows_and_how_far_away_it_is(tmp_path):
    frames, renderer = evaluation_drive(WORLD)[:3], Renderer(WORLD)
    images = render_frames(WORLD, frames, Sensor())
    list(record_drive(tmp_path / "bag", frames, images, Camera(), 10**18, renderer))
    stamps = np.array([10**18 + round(frame.stamp_s * 1e9) for frame in frames])
    wanted = TruthRequest(image_names=("segmentation", "depth"))
    found = read_truth_of(tmp_path / "bag", wanted, "camera_optical_frame").images
    for number, frame in enumerate(frames):
        surfaces, depth = renderer.truth(frame.T_map_camera)
        assert (
            found["segmentation"].at(stamps)[number] == number == found["depth"].at(stamps)[number]
        )
        assert np.array_equal(found["segmentation"].images[number].load(), surfaces)
        said = found["depth"].images[number]
        np.testing.assert_allclose(said.load() * said.unit, depth, atol=5.1e-4)


@pytest.mark.slow
def test_what_is_said_of_pixels_is_judged_with_the_model_and_named_without_it(tmp_path, capsys):
    frames = evaluation_drive(WORLD)[:12]
    images = render_frames(WORLD, frames, Sensor())
    list(record_drive(tmp_path / "bag", frames, images, Camera(), 10**18, Renderer(WORLD)))
    bag = ["--bag", str(tmp_path / "bag"), "--resamples", "0"]
    model = ["--model", str(MODEL)]
    assert main(["evaluate", *bag, *model, "--output", str(tmp_path / "out")]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["segmentation"]["mean_iou"]["value"] > 0.4
    assert metrics["depth"]["abs_rel"]["value"] < 0.3
    recorded = ["--predictions", str(tmp_path / "out" / "results" / "bag")]
    capsys.readouterr()
    assert main(["evaluate", *bag, *recorded, "--output", str(tmp_path / "again")]) == 0
    said = capsys.readouterr()
    for name in ("segmentation", "depth"):
        assert f"{name} is not judged, since that needs its settings" in said.out + said.err
    assert main(["filter", *bag, *model, "--output", str(tmp_path / "filter")]) == 0


@pytest.mark.slow
def test_recorded_drive_has_odometry_that_drifts_and_does_not_notice_that_it_was_carried(tmp_path):
    frames, jump = kidnapped_drive(evaluation_drive(WORLD), WORLD, 10.0)
    wheels = Wheels(frames, 4)
    images = [np.zeros((24, 32, 3), np.uint8)] * len(frames)
    list(record_drive(tmp_path / "bag", frames, images, Camera(), 10**18, wheels=wheels))
    found = {"/odom": [], "/tf": [], "/tf_static": []}
    with AnyReader([tmp_path / "bag"]) as reader:
        connections = [c for c in reader.connections if c.topic in found]
        offered = {c.topic: c.ext.offered_qos_profiles[0].durability.name for c in connections}
        for c, stamp, data in reader.messages(connections):
            found[c.topic].append((stamp, reader.deserialize(data, c.msgtype)))
    assert offered == {"/odom": "VOLATILE", "/tf": "VOLATILE", "/tf_static": "TRANSIENT_LOCAL"}

    def matrix(place, turn):
        T = np.eye(4)
        T[:3, :3] = Rotation.from_quat((turn.x, turn.y, turn.z, turn.w)).as_matrix()
        T[:3, 3] = place.x, place.y, place.z
        return T

    ((_, static),) = found["/tf_static"]
    mount = static.transforms[0]
    names = mount.header.frame_id, mount.child_frame_id
    assert names == ("base_link", "camera_optical_frame")
    T_base_camera = matrix(mount.transform.translation, mount.transform.rotation)
    assert T_base_camera[2, 3] == pytest.approx(1.1)
    odometry = []
    for (stamp, message), (other, tf) in zip(found["/odom"], found["/tf"], strict=True):
        (transform,) = tf.transforms
        assert stamp == other and transform.child_frame_id == message.child_frame_id == "base_link"
        T = matrix(message.pose.pose.position, message.pose.pose.orientation)
        np.testing.assert_allclose(
            T, matrix(transform.transform.translation, transform.transform.rotation)
        )
        odometry.append(T @ T_base_camera)
    assert [stamp for stamp, _ in found["/odom"]] == [
        10**18 + round(frame.stamp_s * 1e9) for frame in frames
    ]
    poses = [frame.T_map_camera for frame in frames]
    steps = [
        (np.linalg.inv(a[i - 1]) @ a[i])[:3, 3]
        for a in (poses, odometry)
        for i in range(1, len(frames))
    ]
    true, said = np.split(np.array(steps), 2)
    drives = np.arange(1, len(frames)) != jump
    assert np.linalg.norm(true[jump - 1]) > 1 > 0.1 > np.linalg.norm(said[jump - 1])
    assert np.abs(true - said)[drives].max() < 0.06  # a step is up to 0.16 m
    ways = [np.linalg.inv(a[0]) @ a[jump - 1] for a in (poses, odometry)]
    assert np.linalg.norm((ways[0] - ways[1])[:3, 3]) > 0.05
    rate = found["/odom"][40][1].twist.twist.linear.x
    assert rate == pytest.approx(1.6, abs=0.5)


def test_truth_of_a_bag_without_poses_is_refused(tmp_path):
    from robot_vision.recordings.writing import RecordingWriter

    with RecordingWriter(tmp_path / "bag") as bag:
        bag.label("/other", 1, "kitchen")
    with pytest.raises(SourceError, match="no recorded drive"):
        read_truth(tmp_path / "bag")


# --- scoring -----------------------------------------------------------------------------------------


def test_score_agrees_with_scipy_on_random_answers():
    rng, count = np.random.default_rng(0), 40
    truth = truth_of(count)
    descriptors = rng.normal(size=(count, 16)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    score = Score(truth, KnownPlaces(descriptors, truth))
    metres, degrees, latencies, rooms = [], [], [], 0
    for i in range(count):
        shift, turn = rng.normal(size=3), rng.normal(size=3)
        rotation = Rotation.from_rotvec(turn) * Rotation.from_quat(truth.orientations_xyzw[i])
        label = "a" if i % 3 else "b"
        answer = FrameAnswer(
            stamp_ns=1000 + i * 50_000_000,
            frame=i,
            received_ns=1000 + i * 50_000_000 + (i + 1) * 1_000_000,
            label=label,
            probability=0.5,
            position=truth.positions[i] + shift,
            orientation_xyzw=-rotation.as_quat(),  # the same rotation
            covariance=np.eye(6),
            descriptor=descriptors[i if i % 4 else (i + 7) % count],
        )
        assert answer.complete
        score.add(answer)
        metres.append(np.linalg.norm(shift))
        degrees.append(np.degrees(Rotation.from_rotvec(turn).magnitude()))
        latencies.append(i + 1)
        rooms += label == truth.rooms[i]
    summary = score.summary(seen=count)
    assert summary.median_error_m == pytest.approx(np.median(metres))
    assert summary.median_error_deg == pytest.approx(np.median(degrees))
    assert summary.latency_p95_ms == pytest.approx(np.percentile(latencies, 95))
    assert summary.room_accuracy == rooms / count
    assert summary.recall_at_1 == 30 / 40  # seven places are 3.5 m away
    assert summary.rate_hz == pytest.approx(39 / (39 * 0.051))
    assert json.loads(json.dumps(summary.to_dict()))["answered"] == count
    score.add(answer)  # once more, of another camera that shows the same
    assert score.answered == count


@pytest.mark.parametrize("missing", ["frame", "label", "position", "descriptor"])
def test_answer_is_incomplete_without_each_part(missing):
    parts = {
        "frame": 0,
        "label": "a",
        "position": np.zeros(3),
        "descriptor": np.ones(4, np.float32),
    }
    assert FrameAnswer(0, **parts).complete
    parts[missing] = None
    assert not FrameAnswer(0, **parts).complete


def test_place_is_right_only_within_radius_and_heading():
    truth = truth_of(9)  # half a metre and 14 degrees apart
    places = KnownPlaces(np.eye(9, dtype=np.float32), truth)
    found = [places.look_up(places.descriptors[i], truth, 0) for i in range(5)]
    assert [int(f["place_match"][0]) for f in found] == [0, 1, 2, 3, 4]
    assert [int(f["place_rank"][0]) == 0 for f in found] == [True, True, True, False, False]
    turned = DriveTruth(
        truth.stamps_ns,
        truth.positions,
        np.roll(truth.orientations_xyzw, 4, axis=0),
        truth.rooms,
    )
    assert places.look_up(places.descriptors[0], turned, 0)["place_rank"][0] != 0


# --- the kidnapped camera ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "count"), [(2, None), (2, 120), (3, None), (7, 60)])
def test_camera_is_carried_once_from_inside_one_room_into_another(seed, count):
    whole = evaluation_drive(WORLD, 10.0, seed)
    frames, at = kidnapped_drive(whole, WORLD, 10.0, count)
    assert at is not None and len(frames) == (count or len(frames)) <= len(whole)
    steps = np.linalg.norm(np.diff([f.T_map_camera[:3, 3] for f in frames], axis=0), axis=1)
    assert np.flatnonzero(steps > 0.5).tolist() == [at - 1], "one jump, and no other"
    assert steps[at - 1] > 2 and frames[at - 1].room != frames[at].room
    assert "corridor" not in (frames[at - 1].room, frames[at].room)
    np.testing.assert_allclose(np.diff([f.stamp_s for f in frames]), 0.1, atol=1e-9)
    poses = {f.T_map_camera.tobytes() for f in whole}
    assert all(f.T_map_camera.tobytes() in poses for f in frames)


def test_drive_that_is_too_short_goes_on_unharmed():
    whole = evaluation_drive(WORLD, 10.0, 2)
    frames, at = kidnapped_drive(whole, WORLD, 10.0, 12)
    assert at is None and len(frames) == 12
    assert all(a is b for a, b in zip(frames, whole, strict=False))
    told = relocalisation(truth_of(9), None, 0, [])
    assert told.lines()[1] == "kidnapped: never, the drive is too short"


def test_recovery_is_the_first_right_pose_after_the_jump():
    truth = truth_of(9)  # half a metre and 14 degrees apart

    def said(frame, metres):
        return PlacePose(
            frame, truth.positions[frame] + [0, 0, metres], -truth.orientations_xyzw[frame]
        )

    poses = [said(0, 0.1), said(3, 0.2), said(5, 4.0), said(7, 0.3), said(8, 0.1)]
    found = relocalisation(truth, 4, 9, poses[::-1])
    assert (found.accepted, found.wrong, found.wrong_before_recovery) == (5, 1, 1)
    assert found.recovered_after == 4 and found.recovery_error_m == pytest.approx(0.3)
    assert found.median_error_m == pytest.approx(0.2)
    assert found.jump_m == pytest.approx(0.5)
    assert "found again after 4 frames, 0.30 m off, after 1 wrong" in found.lines()[1]
    lost = relocalisation(truth, 4, 9, poses[:3])
    assert lost.recovered_after is None and lost.lines()[1].endswith("not found again")
    assert json.loads(json.dumps(found.to_dict()))["kidnapped_at"] == 4
