from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval_data import LABELS, QUICK, recording
from evaluation_bags import write_bag

from robot_vision.errors import ConfigError, SourceError
from robot_vision.evaluation.measure.association import associate
from robot_vision.evaluation.measure.metrics import evaluate_frames
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.geometry.rigid import canonical_xyzw, matrix_from_xyzw, rotation_error_deg
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.truth.pose_files import read_pose_file
from robot_vision.truth.reading import TruthRequest, read_truth, spans_track
from robot_vision.truth.tracks import LabelTrack, Truth

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def refuse(error: SourceError) -> None:
    raise error


def pose_at(i: int) -> tuple[np.ndarray, np.ndarray]:
    half = 0.05 * i
    return np.array([0.5 * i, 1.0, -2.0]), np.array([0, 0, np.sin(half), np.cos(half)])


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    path = tmp_path / "drive"
    with RecordingWriter(path) as writer:
        for i in range(30):
            stamp = START + i * SECOND // 10
            writer.camera_pose("/truth/pose", stamp, *pose_at(i))
            writer.camera_pose("/elsewhere/pose", stamp, *pose_at(i))
            writer.label("/truth/room", stamp, LABELS[i // 10])
            writer.image("/camera/image_raw", stamp, "camera", np.zeros((8, 8, 3), np.uint8))
    return path


def at(seconds: list[float]) -> np.ndarray:
    return np.array([START + round(s * SECOND) for s in seconds], np.int64)


def test_topics_that_call_themselves_truth_are_found(bag: Path) -> None:
    truth = read_truth(bag, TruthRequest(), "camera")
    found = associate(Predictions(at([0.0, 0.95, 1.0, 2.85])), truth)
    assert found.labels == (LABELS[0], LABELS[0], LABELS[1], LABELS[2])
    assert found.counts["pose"] == {"found": 4, "missing": {}}
    assert found.positions[1] == pytest.approx([4.75, 1.0, -2.0])
    expected = np.array([0, 0, np.sin(0.475), np.cos(0.475)])
    assert rotation_error_deg(found.xyzw[1], expected) < 1e-6
    assert "/truth/pose" in truth.notes[1] and "/truth/room" in truth.notes[0]


def test_what_is_not_there_is_named(bag: Path) -> None:
    with pytest.raises(ConfigError, match="label topic '/rooms'.*use one of /truth/room"):
        read_truth(bag, TruthRequest(label_topic="/rooms"))
    with pytest.raises(ConfigError, match="pose topic '/poses'.*/elsewhere/pose"):
        read_truth(bag, TruthRequest(pose_topic="poses"))
    with pytest.raises(ConfigError, match="pose_file"):
        TruthRequest(pose_source="file")
    with pytest.raises(ConfigError, match="exclude each other"):
        TruthRequest(label_topic="/a", label_spans="b")
    with pytest.raises(ConfigError, match="base_frame is 'base_link'.*give base_to_camera"):
        TruthRequest(pose_file="poses.txt", base_frame="base_link")
    with pytest.raises(ConfigError, match="value of bad_poses 'ignore'.*error, skip"):
        TruthRequest(bad_poses="ignore")


def test_truth_can_be_left_out(bag: Path) -> None:
    truth = read_truth(bag, TruthRequest(label_source="none", pose_source="none"))
    assert truth.labels is None and truth.poses is None


def test_labels_of_spans_count_from_the_bags_start(bag: Path, tmp_path: Path) -> None:
    file = tmp_path / "spans.yaml"
    file.write_text(
        "- {label: hall, from_s: 0.5, to_s: 1.0}\n- {label: lab, from_s: 1.5, to_s: 9}\n"
    )
    truth = read_truth(bag, TruthRequest(label_spans=str(file), pose_source="none"))
    found = associate(Predictions(at([0.4, 0.5, 0.999, 1.0, 1.5, 2.9])), truth)
    assert found.labels == (None, "hall", "hall", None, "lab", "lab")
    assert found.counts["label"] == {
        "found": 4,
        "missing": {"before the first label": 1, "between labels": 1},
    }
    table = tmp_path / "spans.csv"
    table.write_bytes(b"\xef\xbb\xbflabel;to_s;from_s\r\nliving room;1.0;0.5\r\nlab;9;1.5\r\n")
    assert spans_track(table, 0).names == ("living room", "lab")
    assert spans_track(table, 0).starts_ns.tolist() == [SECOND // 2, 3 * SECOND // 2]
    table.write_text("label,from_s\nhall,1\n")
    with pytest.raises(SourceError, match=r"spans.csv lacks the columns to_s"):
        spans_track(table, 0)
    table.write_text("label,from_s,to_s\nhall,1,2\nlab,3\n")
    with pytest.raises(SourceError, match=r"spans.csv:3: needs label, from_s and to_s"):
        spans_track(table, 0)
    file.write_text("- {label: hall, from_s: 0, to_s: 5}\n- {label: lab, from_s: 3, to_s: 9}\n")
    with pytest.raises(
        SourceError, match=r"spans.yaml:2: 'lab' from 3 s overlaps 'hall' of line 1"
    ):
        spans_track(file, 0)


def test_log_times_count_where_spans_are_of_the_log(tmp_path: Path) -> None:
    file = tmp_path / "spans.yaml"
    file.write_text("- {label: hall, from_s: 0, to_s: 1}\n")
    track = spans_track(file, START)
    late = Predictions(np.array([5, 6], np.int64), np.array([START + 10, START + 2 * SECOND]))
    found = associate(late, Truth(labels=track))
    assert found.labels == ("hall", None)
    assert found.counts["label"]["missing"] == {"after the last label": 1}


def test_labels_hold_until_the_next_or_for_so_long() -> None:
    track = LabelTrack.held([10, 20, 30], ["a", "", "b"])
    assert track.at(np.array([9, 10, 19, 20, 30, 10**9])) == [None, "a", "a", None, "b", "b"]
    track = LabelTrack.held([10, 20, 30], ["a", "", "b"], hold_ns=5)
    assert track.at(np.array([15, 16, 35, 36])) == ["a", None, "b", None]
    found = associate(Predictions(np.array([9, 12, 16, 22, 40])), Truth(labels=track))
    assert found.counts["label"] == {
        "found": 1,
        "missing": {
            "before the first label": 1,
            "between labels": 1,
            "label is empty": 1,
            "after the last label": 1,
        },
    }


def test_poses_are_not_extrapolated_nor_interpolated_over_gaps() -> None:
    stamps = at([0.0, 0.1, 2.0])
    truth = Truth.of_arrays(stamps, None, np.eye(3), np.tile([0.0, 0, 0, 1], (3, 1)), SECOND // 2)
    found = associate(Predictions(at([-0.1, 0.0, 0.05, 0.5, 2.0, 2.1])), truth)
    assert found.has_pose.tolist() == [False, True, True, False, True, False]
    assert found.counts["pose"] == {
        "found": 3,
        "missing": {
            "before the first pose": 1,
            "gap between poses": 1,
            "after the last pose": 1,
        },
    }


def test_unsorted_and_duplicate_stamps_are_sorted_dropped_and_counted() -> None:
    predictions, truth = recording(n=60)
    shuffled = np.random.default_rng(0).permutation(60)
    twice = predictions.take(np.concatenate([shuffled, shuffled[:7]]))
    found = associate(twice, truth)
    assert found.counts["frames"] == 67 and found.counts["duplicate_stamps"] == 7
    assert found.counts["unsorted_stamps"] > 0
    assert np.all(np.diff(found.predictions.stamps_ns) > 0)
    assert np.array_equal(twice.stamps_ns[found.source_index], found.predictions.stamps_ns)
    assert found.source_index.max() < 60, "of frames with the same stamp the first one counts"
    clean, messy = evaluate_frames(predictions, truth, QUICK), evaluate_frames(twice, truth, QUICK)
    for part in ("classification", "pose", "place", "trajectory"):
        assert clean[part] == messy[part], part
    assert messy["association"]["duplicate_stamps"] == 7


def test_truth_of_another_time_is_refused_with_both_spans() -> None:
    predictions, truth = recording(n=20)
    moved = Predictions(predictions.stamps_ns + 10**12)
    with pytest.raises(SourceError, match=r"1700000000\.000 to 1700000001\.900 s.*1700001000\.000"):
        associate(moved, Truth(poses=truth.poses))
    with pytest.raises(SourceError, match="labels.*after the last label.*check the clocks"):
        associate(moved, Truth(labels=truth.labels))


def test_no_frames_at_all_are_no_error() -> None:
    predictions, truth = recording(n=20)
    found = associate(predictions.take(np.arange(0)), truth)
    assert len(found.labels) == 0 and found.counts["frames"] == 0


def test_arrays_of_truth_are_checked() -> None:
    identity = np.tile([0.0, 0, 0, 1], (3, 1))
    with pytest.raises(SourceError, match="row 2, is not later"):
        Truth.of_arrays(np.array([1, 3, 3]), ["a", "b", "c"])
    spoiled = np.zeros((3, 3))
    spoiled[1, 0] = np.nan
    with pytest.raises(SourceError, match="row 1 is .*nan.*finite"):
        Truth.of_arrays(np.array([1, 2, 3]), None, spoiled, identity)
    with pytest.raises(SourceError, match="row 0 is"):
        Truth.of_arrays(np.array([1, 2, 3]), None, np.zeros((3, 3)), identity * 1.1)


def write_poses(tmp_path: Path, form: str) -> tuple[Path, list[tuple[np.ndarray, np.ndarray]]]:
    rng = np.random.default_rng(3)
    poses = [(rng.normal(size=3), canonical_xyzw(rng.normal(size=4))) for _ in range(6)]
    stamps = [START + i * 123_456_789 for i in range(6)]
    if form == "tum":
        rows = ["# timestamp tx ty tz qx qy qz qw"] + [
            f"{s // SECOND}.{s % SECOND:09d} " + " ".join(map(str, [*p, *q]))
            for s, (p, q) in zip(stamps, poses, strict=True)
        ]
    elif form == "euroc":
        rows = ["#timestamp [ns], p_x, p_y, p_z, q_w, q_x, q_y, q_z, v_x"] + [
            f"{s}," + ",".join(map(str, [*p, q[3], *q[:3], 0.25]))
            for s, (p, q) in zip(stamps, poses, strict=True)
        ]
    else:
        rows = [
            " ".join(map(str, np.column_stack([matrix_from_xyzw(q), p]).ravel())) for p, q in poses
        ]
        times = "".join(f"{s // SECOND}.{s % SECOND:09d}\n" for s in stamps)
        (tmp_path / "times.txt").write_text(times)
    file = tmp_path / f"poses.{'csv' if form == 'euroc' else 'txt'}"
    file.write_text("\n".join(rows) + "\n")
    return file, poses


@pytest.mark.parametrize("form", ["tum", "euroc", "kitti"])
def test_pose_files_are_told_apart_and_read_to_the_nanosecond(tmp_path: Path, form: str) -> None:
    file, poses = write_poses(tmp_path, form)
    found = read_pose_file(file, refuse)
    assert found.stamps_ns.tolist() == [START + i * 123_456_789 for i in range(6)]
    assert np.allclose(found.positions, [p for p, _ in poses], atol=1e-12)
    assert rotation_error_deg(found.xyzw, np.array([q for _, q in poses])).max() < 1e-6


@pytest.mark.parametrize("form", ["tum", "euroc", "kitti"])
def test_pose_files_read_as_evo_reads_them(tmp_path: Path, form: str) -> None:
    file_interface = pytest.importorskip("evo.tools.file_interface")
    file, _ = write_poses(tmp_path, form)
    found = read_pose_file(file, refuse, form)
    if form == "kitti":
        other = file_interface.read_kitti_poses_file(file)
    else:
        read: Any = getattr(
            file_interface,
            {"tum": "read_tum_trajectory_file", "euroc": "read_euroc_csv_trajectory"}[form],
        )
        other = read(file)
        assert np.allclose(other.timestamps, found.stamps_ns / 1e9, atol=1e-6)
    assert np.allclose(other.positions_xyz, found.positions, atol=1e-12)
    xyzw = other.orientations_quat_wxyz[:, [1, 2, 3, 0]]
    assert rotation_error_deg(xyzw, found.xyzw).max() < 1e-6


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2.0 nan 0 0 0 0 0 1", r"poses.txt:3: .*all must be finite"),
        ("2.0 0 0 0 0 0 0 0.9", r"poses.txt:3: .*has length 0.9: it must be 1"),
        ("0.5 0 0 0 0 0 0 1", r"poses.txt:3: stamp 0.5 is not later than the one before"),
        (
            "1.0 1 0 0 0 0 0 1",
            r"poses.txt:3: stamp 1.0 is that of line 2, and its pose is another, by 1 m",
        ),
        ("2.0 0 0 0 0 0 1", r"poses.txt:3: .*needs 7 numbers, and there are 6"),
        ("nan 0 0 0 0 0 0 1", r"poses.txt:3: 'nan' is not a stamp in seconds"),
        ("1700000000000000000 0 0 0 0 0 0 1", r"poses.txt:3: .* more than 292 years from 1970"),
        ("two 0 0 0 0 0 0 1", r"poses.txt:3: 'two' is not a stamp in seconds"),
    ],
)
def test_bad_lines_are_named_or_counted(bag: Path, tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "poses.txt"
    file.write_text(f"# truth\n1.0 0 0 0 0 0 0 1\n{line}\n3.0 0 0 0 0 0 0 1\n")
    with pytest.raises(SourceError, match=f"{message}.*bad_poses=skip"):
        read_truth(bag, TruthRequest(pose_file=str(file)))
    truth = read_truth(bag, TruthRequest(pose_file=str(file), bad_poses="skip"))
    assert truth.refused == {"poses": 1}
    assert truth.poses is not None and truth.poses.stamps_ns is not None
    assert truth.poses.stamps_ns.tolist() == [SECOND, 3 * SECOND]
    assert any("pose left out" in note and "poses.txt:3" in note for note in truth.notes)


def test_files_that_hold_no_poses_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "poses.txt"
    file.write_text("# nothing\n\n")
    with pytest.raises(SourceError, match="has no pose"):
        read_pose_file(file, refuse)
    file.write_text("1 2 3\n")
    with pytest.raises(SourceError, match=r"poses.txt:1: 3 numbers a line are no known format"):
        read_pose_file(file, refuse)
    kitti, _ = write_poses(tmp_path, "kitti")
    (tmp_path / "times.txt").write_text("1.0\n2.0\n")
    with pytest.raises(SourceError, match="times.txt has 2 stamps and .* 6 poses"):
        read_pose_file(kitti, refuse)
    with pytest.raises(ConfigError, match="format of poses 'tumm'.*did you mean 'tum'"):
        read_pose_file(kitti, refuse, "tumm")


def test_poses_of_a_base_are_moved_to_the_camera(bag: Path, tmp_path: Path) -> None:
    file = tmp_path / "poses.txt"
    half = np.sqrt(0.5)
    file.write_text(f"0.0 0 0 0 0 0 {half} {half}\n{2 * 10**9}.0 0 0 0 0 0 {half} {half}\n")
    asked = TruthRequest(
        pose_file=str(file), base_to_camera="1,0,0,0,0,0,1", max_gap_s=1e11, label_source="none"
    )
    found = associate(Predictions(at([0.0])), read_truth(bag, asked))
    assert found.positions[0] == pytest.approx([0, 1, 0])  # turned by 90 degrees about z


def test_a_nan_on_the_truth_topic_is_named_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "drive"
    with RecordingWriter(path) as writer:
        for i in range(10):
            position, xyzw = pose_at(i)
            position = position * np.nan if i == 4 else position
            writer.camera_pose("/truth/pose", START + i * SECOND // 10, position, xyzw)
    with pytest.raises(SourceError, match=r"/truth/pose#4: .*all must be finite; bad_poses=skip"):
        read_truth(path, TruthRequest())
    truth = read_truth(path, TruthRequest(bad_poses="skip"))
    assert truth.refused == {"poses": 1}
    found = associate(Predictions(at([0.4])), truth)
    assert found.positions[0] == pytest.approx(pose_at(4)[0])  # from its neighbours


def test_of_a_truncated_bag_what_is_whole_is_read(tmp_path: Path) -> None:
    path = tmp_path / "drive"
    with RecordingWriter(path, storage="mcap") as writer:
        for i in range(60):
            stamp = START + i * SECOND // 10
            writer.camera_pose("/truth/pose", stamp, *pose_at(i))
            writer.label("/truth/room", stamp, LABELS[0])
            noise = np.random.default_rng(i).integers(0, 255, (80, 80, 3), dtype=np.uint8)
            writer.image("/camera/image_raw", stamp, "camera", noise)
    broken = tmp_path / "broken"
    shutil.copytree(path, broken)
    file = next(broken.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    truth = read_truth(broken, TruthRequest(), "camera")
    assert truth.poses is not None and truth.poses.stamps_ns is not None
    assert 10 <= len(truth.poses.stamps_ns) < 60
    assert truth.labels is not None and set(truth.labels.names) == {LABELS[0]}
    assert any(note.startswith("truth: ") and "damaged" in note for note in truth.notes)


def test_what_is_no_bag_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "drive.mcap"
    file.write_bytes(b"not a bag at all")
    with pytest.raises(SourceError, match="drive.mcap cannot be read as a bag"):
        read_truth(file, TruthRequest())


def test_labels_of_a_named_head_come_from_a_topic_or_a_file(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "drive", count=8)
    spans = tmp_path / "lights.yaml"
    spans.write_text("- {label: green, from_s: 0.0, to_s: 0.35}\n")
    request = TruthRequest(labels_of={"lights": str(spans), "door": "/truth/room"})
    truth = read_truth(bag, request)
    assert truth.words == {"label", "pose", "label:lights", "label:door"}
    assert truth.labels is not None and truth.others["door"].names == truth.labels.names
    assert truth.others["lights"].names == ("green",)
    assert any(note.startswith("labels of lights: spans of") for note in truth.notes)
    none = TruthRequest(label_source="none", labels_of={"door": "truth/room"})
    assert read_truth(bag, none).words == {"pose", "label:door"}
    with pytest.raises(SourceError, match="no_such"):
        read_truth(bag, TruthRequest(labels_of={"lights": "no_such.yaml"}))
