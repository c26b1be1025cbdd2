"""Formats with poses: conventions against a camera made of directions, and errors with file and line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from tiny_datasets import (
    POINT,
    cambridge,
    camera,
    place_name,
    seven_scenes,
    transforms,
    tum,
    turn_by_exif,
    twelve_scenes,
    write_image,
)

from robot_vision.datasets import open_dataset
from robot_vision.datasets.inspection import nearest_train
from robot_vision.errors import SourceError


def assert_sees(sample, cam):
    """A known point has the coordinates that it has for the camera; the pose is a true one."""
    T = sample.T_map_camera
    assert T.dtype == np.float64 and T.shape == (4, 4)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(cam.sees(T, POINT), cam.coordinates(POINT), atol=2e-4)


def edit_line(file: Path, number: int, change):
    lines = file.read_text().splitlines()
    lines[number - 1] = change(lines[number - 1])
    file.write_text("\n".join(lines) + "\n")


# Microsoft 7-Scenes: 4 x 4, camera to world, columns right, down, forward


def test_seven_scenes_poses_see_the_point(tmp_path):
    splits = open_dataset("seven_scenes", seven_scenes(tmp_path / "lab", 12), block_frames=2)
    assert len(splits.test) == 2
    for sample in splits.samples:
        assert_sees(sample, camera(int(sample.name[-6:])))
    # The Kinect's is of 640 x 480, and these images are of 32 x 24.
    expected = [[26.25, 0, 16], [0, 26.25, 12], [0, 0, 1]]
    np.testing.assert_array_equal(splits.camera_matrix, expected)
    assert any("camera matrix assumed" in note for note in splits.notes)
    assert any("its camera matrix is scaled" in note for note in splits.notes)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_seven_scenes_honours_its_split_files(suffix, tmp_path):
    for n in (1, 2, 10):
        seven_scenes(tmp_path / f"seq-{n:02}", 4, suffix)
    (tmp_path / "TrainSplit.txt").write_text("sequence1\nsequence10\n")
    (tmp_path / "TestSplit.txt").write_text("sequence2\nsequence7\n")
    splits = open_dataset("seven_scenes", tmp_path, validation=0)
    assert {s.sequence for s in splits.train} == {"seq-01", "seq-10"}
    assert {s.sequence for s in splits.test} == {"seq-02"}
    assert any("TestSplit.txt:2: sequence7 does not exist" in note for note in splits.notes)
    assert not any("too few blocks" in note for note in splits.notes)
    short = open_dataset("seven_scenes", tmp_path, split="blocks")
    assert any("too few blocks of 50 frames for any test images" in note for note in short.notes)
    chosen = open_dataset("seven_scenes", tmp_path, test_sequences="seq-01", validation=0)
    assert {s.sequence for s in chosen.test} == {"seq-01"}
    (tmp_path / "TestSplit.txt").write_text("sequence2\nseconde 3\n")
    with pytest.raises(SourceError, match=r"TestSplit.txt:2: 'seconde 3' is not like sequence1"):
        open_dataset("seven_scenes", tmp_path)
    (tmp_path / "TestSplit.txt").write_text("sequence1\nsequence2")
    with pytest.raises(SourceError, match=r"seq-01 is also in TrainSplit.txt"):
        open_dataset("seven_scenes", tmp_path)


def test_seven_scenes_counts_frames_without_pose(tmp_path):
    seven_scenes(tmp_path, 6)
    (tmp_path / "frame-000002.pose.txt").unlink()
    (tmp_path / "frame-000004.pose.txt").unlink()
    splits = open_dataset("seven_scenes", tmp_path)
    assert len(splits.samples) == 4
    assert any(
        note.startswith("2 frames skipped, which have no pose file") for note in splits.notes
    )


def test_seven_scenes_counts_what_lies_beside_its_frames(tmp_path):
    seven_scenes(tmp_path / "seq-01", 4)
    shutil.copy(
        tmp_path / "seq-01/frame-000000.pose.txt", tmp_path / "seq-01/frame-000009.pose.txt"
    )
    shutil.copy(
        tmp_path / "seq-01/frame-000000.color.png", tmp_path / "seq-01/frame-000000.color.jpg"
    )
    shutil.copy(tmp_path / "seq-01/frame-000000.color.png", tmp_path / "frame-000007.color.png")
    (tmp_path / "seq-02.zip").touch()
    splits = open_dataset("seven_scenes", tmp_path, split="train")
    assert len(splits.train) == 4
    text = "\n".join(splits.notes)
    assert "1 frame skipped, which has a pose and no image: seq-01/frame-000009" in text
    assert "1 frame skipped, as the frame has another image: frame-000000.color" in text
    assert "1 zip file is not unpacked and is left out: seq-02.zip" in text
    assert "1 image is outside the sequences and is left out: frame-000007.color.png" in text


def zero_row(line):
    return "0 0 0 0"


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (2, lambda line: line + " 1", ":2: a row of a pose needs 4 numbers, and there are 5"),
        (3, lambda line: "nan" + line[line.index("\t") :], ":3: .*all must be finite"),
        (1, lambda line: "x" + line[1:], ":1: .*not all are numbers"),
        (2, zero_row, ":1: .* is not a rotation matrix"),
        (4, zero_row, ":1: the last row of a pose"),
        (4, lambda line: "", ":4: a pose has 4 rows, and there are 3"),
    ],
)
def test_seven_scenes_names_file_and_line_when_pose_is_bad(number, change, message, tmp_path):
    seven_scenes(tmp_path, 6)
    edit_line(tmp_path / "frame-000003.pose.txt", number, change)
    with pytest.raises(SourceError, match="frame-000003.pose.txt" + message):
        open_dataset("seven_scenes", tmp_path)
    splits = open_dataset("seven_scenes", tmp_path, bad_poses="skip")
    assert len(splits.samples) == 5
    assert any("1 frame skipped, whose pose fails its checks" in note for note in splits.notes)


@settings(max_examples=30)
@given(st.floats(0, 2e-3), st.integers(0, 2**32 - 1))
def test_seven_scenes_restores_rounded_rotations_and_refuses_wrong_ones(
    tmp_path_factory, size, seed
):
    folder = seven_scenes(tmp_path_factory.mktemp("scene"), 1)
    file = folder / "frame-000000.pose.txt"
    T = np.loadtxt(file)
    off = np.random.default_rng(seed).uniform(-1, 1, (3, 3))
    T[:3, :3] += size * off / np.abs(off).max()
    np.savetxt(file, T)
    try:
        sample = open_dataset("seven_scenes", folder).samples[0]
    except SourceError:
        assert size > 4e-4  # what is published must pass
        return
    np.testing.assert_allclose(np.linalg.det(sample.T_map_camera[:3, :3]), 1, atol=1e-12)
    assert np.abs(sample.T_map_camera - T).max() <= 1e-3 + 1e-9


def test_seven_scenes_refuses_mirrored_axes(tmp_path):
    folder = seven_scenes(tmp_path, 1)
    T = np.loadtxt(folder / "frame-000000.pose.txt")
    T[:3, 1] *= -1
    np.savetxt(folder / "frame-000000.pose.txt", T)
    with pytest.raises(SourceError, match="this one has -1"):
        open_dataset("seven_scenes", folder)


def test_seven_scenes_says_what_to_do_with_zip_files(tmp_path):
    (tmp_path / "seq-01.zip").touch()
    with pytest.raises(SourceError, match="unzip"):
        open_dataset("seven_scenes", tmp_path)


# 12-Scenes: 7-Scenes' frames, the first sequence is test


def test_twelve_scenes_honours_its_split_and_camera(tmp_path):
    folder = twelve_scenes(tmp_path / "apt1/kitchen", 12, 5)
    splits = open_dataset("twelve_scenes", folder, validation=0)
    assert [s.name[-2:] for s in splits.test] == ["00", "01", "02", "03", "04"]
    assert len(splits.train) == 7 and {s.sequence for s in splits.train} == {"sequence1"}
    for sample in splits.samples:
        assert_sees(sample, camera(int(sample.name[-6:])))
    K = splits.camera_matrix
    np.testing.assert_array_equal(K, [[28.6, 0, 16.5], [0, 28.7, 11.5], [0, 0, 1]])
    with pytest.raises(SourceError, match="give one scene, such as apt1/kitchen"):
        open_dataset("twelve_scenes", tmp_path)


def test_twelve_scenes_counts_lost_frames_and_those_of_no_sequence(tmp_path):
    folder = twelve_scenes(tmp_path, 12, 5)
    lost = folder / "data/frame-000007.pose.txt"
    lost.write_text("-1.#INF " * 4 + "\n" + "-inf -inf -inf -inf\n" * 3)
    (folder / "split.txt").write_text(
        "sequence0 [frames=5]  [start=0 ; end=4]\r\nsequence1 [frames=6]  [start=5 ; end=10]\r\n"
    )
    splits = open_dataset("twelve_scenes", folder)
    assert len(splits.samples) == 10
    text = "\n".join(splits.notes)
    assert "1 frame skipped, whose tracking was lost (the pose is not finite)" in text
    assert "1 frame skipped, which is in no sequence of split.txt" in text
    (folder / "split.txt").write_text("sequence0 [frames=5]\n")
    with pytest.raises(SourceError, match=r"split.txt:1: .*is not like 'sequence0"):
        open_dataset("twelve_scenes", folder)
    (folder / "split.txt").unlink()
    assert any("no split.txt" in note for note in open_dataset("twelve_scenes", folder).notes)


@pytest.mark.parametrize("kind", ["seven_scenes", "cambridge"])
def test_marks_and_ends_of_line_of_windows_make_no_difference(tmp_path, kind):
    folder = {"seven_scenes": seven_scenes, "cambridge": cambridge}[kind](
        tmp_path, 4, *([2] * (kind == "cambridge"))
    )
    before = open_dataset(kind, folder)
    for file in folder.glob("*.txt"):
        text = file.read_text()
        file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    after = open_dataset(kind, folder)
    for a, b in zip(after.samples, before.samples, strict=True):
        np.testing.assert_array_equal(a.T_map_camera, b.T_map_camera)


# Cambridge Landmarks: camera centre, quaternion wxyz of world to camera


def test_cambridge_poses_see_the_point(tmp_path):
    splits = open_dataset("cambridge", cambridge(tmp_path, 6, 3), validation=0)
    assert (len(splits.train), len(splits.test)) == (6, 3)
    for sample in splits.samples:
        assert_sees(sample, camera(int(sample.name[-9:-4])))


def test_cambridge_reads_focal_lengths_of_the_reconstruction(tmp_path):
    cambridge(tmp_path, 2, 1)
    names = ["seq1/frame00001.jpg", "seq1/frame00002.jpg", "seq2/frame00001.jpg"]
    rows = [f"{n}\t{1600 + i} 1 0 0 0 0 0 0 0.1 0" for i, n in enumerate(names)]
    (tmp_path / "reconstruction.nvm").write_text("\n".join(["NVM_V3", "", "3", *rows, "", "0"]))
    with pytest.raises(SourceError, match="is of 1920 x 1080 pixels, and .* has 32 x 24"):
        open_dataset("cambridge", tmp_path)
    for i, file in enumerate(sorted(tmp_path.rglob("*.png"))):
        write_image(file, i, (72, 128))
    splits = open_dataset("cambridge", tmp_path, validation=0)
    assert [s.camera_matrix[0, 0] for s in splits.samples] == pytest.approx(
        [1600 / 15, 1601 / 15, 1602 / 15]
    )
    assert splits.samples[0].camera_matrix[:2, 2].tolist() == [64, 36]
    assert sum("1920 x 1080 pixels and its images of 128 x 72" in n for n in splits.notes) == 1


def test_cambridge_takes_the_order_that_its_header_names(tmp_path):
    before = open_dataset("cambridge", cambridge(tmp_path, 4, 2))
    for file in tmp_path.glob("dataset_*.txt"):
        lines = file.read_text().replace("[X Y Z W P Q R]", "[X Y Z P Q R W]").splitlines()
        rows = [line.split() for line in lines[3:]]
        moved = [" ".join([*row[:4], *row[5:], row[4]]) for row in rows]
        file.write_text("\n".join([*lines[:3], *moved]))
    after = open_dataset("cambridge", tmp_path)
    for a, b in zip(after.samples, before.samples, strict=True):
        np.testing.assert_array_equal(a.T_map_camera, b.T_map_camera)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line.rsplit(" ", 1)[0], "needs 7 numbers, and there are 6"),
        (lambda line: line.replace(line.split()[4], "3.5"), "has length .*: it must be 1"),
        (lambda line: line.replace(line.split()[2], "inf"), "all must be finite"),
    ],
)
def test_cambridge_names_file_and_line_when_pose_is_bad(change, message, tmp_path):
    cambridge(tmp_path, 4, 1)
    edit_line(tmp_path / "dataset_train.txt", 5, change)
    with pytest.raises(SourceError, match=f"dataset_train.txt:5: .*{message}"):
        open_dataset("cambridge", tmp_path)


def test_cambridge_refuses_an_image_in_both_lists_and_counts_missing_ones(tmp_path):
    cambridge(tmp_path, 4, 2)
    (tmp_path / "seq1/frame00003.png").unlink()
    splits = open_dataset("cambridge", tmp_path)
    assert any(
        "1 frame skipped, whose image does not exist: seq1/frame00003.png" in n
        for n in splits.notes
    )
    line = (tmp_path / "dataset_train.txt").read_text().splitlines()[3]
    edit_line(tmp_path / "dataset_test.txt", 4, lambda _: line)
    with pytest.raises(
        SourceError, match=r"dataset_test.txt:4: .* is also in .*dataset_train.txt:4"
    ):
        open_dataset("cambridge", tmp_path)


# TUM RGB-D: stamp tx ty tz qx qy qz qw of the optical frame


def test_tum_rgbd_poses_see_the_point(tmp_path):
    folder = tum(tmp_path / "rgbd_dataset_freiburg2_desk", 8)
    splits = open_dataset("tum_rgbd", folder, validation=0, split="train")
    assert len(splits.train) == 8
    for i, sample in enumerate(splits.train):
        assert sample.stamp_ns == 1305031102_000000000 + i * 100_000_000
        cam = camera(i)
        np.testing.assert_allclose(sample.T_map_camera[:3, 3], cam.centre, atol=2e-4)
        np.testing.assert_allclose(
            cam.sees(sample.T_map_camera, POINT), cam.coordinates(POINT), atol=2e-3
        )
        assert sample.camera_matrix[0, 0] == pytest.approx(520.9 / 20)  # 32 of 640 pixels


def test_tum_rgbd_opens_a_folder_of_recordings(tmp_path):
    tum(tmp_path / "fr1_room", 4)
    tum(tmp_path / "fr3_office", 4)
    splits = open_dataset("tum_rgbd", tmp_path, test_sequences="fr3_office", validation=0)
    assert {s.sequence for s in splits.test} == {"fr3_office"}
    focal = sorted({s.camera_matrix[0, 0] for s in splits.samples})
    assert focal == pytest.approx([517.3 / 20, 535.4 / 20])


def test_tum_rgbd_counts_images_without_pose_in_tolerance(tmp_path):
    folder = tum(tmp_path / "room", 8)
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    (folder / "groundtruth.txt").write_text("\n".join(lines[:1] + lines[40:]) + "\n")
    splits = open_dataset("tum_rgbd", folder)
    # Truth begins at line 41: stamps from 0.34 + 0.003 s on, so images at 0 to 0.3 s have none.
    assert [s.name[-10:-4] for s in splits.samples][:1] == ["400000"]
    assert any(
        n.startswith("4 frames skipped, which have no pose within 0.02 s") for n in splits.notes
    )
    exact = open_dataset("tum_rgbd", folder, tolerance_s=0.5)
    assert len(exact.samples) == 8


@pytest.mark.parametrize(
    ("file", "number", "change", "message"),
    [
        ("groundtruth.txt", 9, lambda line: "1" + line[1:].replace("13050", "12050", 1), ""),
        ("groundtruth.txt", 9, lambda line: line.rsplit(" ", 1)[0] + " 9.0", "has length"),
        ("groundtruth.txt", 9, lambda line: line.rsplit(" ", 1)[0], "needs 7 numbers"),
        ("rgb.txt", 5, lambda line: "x" + line[1:], "is not a stamp in seconds"),
        ("rgb.txt", 5, lambda line: line + " more", "a line is 'stamp file'"),
        ("rgb.txt", 5, lambda line: "1205031102.0 rgb/a.png", "is not later than that of line 4"),
    ],
)
def test_tum_rgbd_names_file_and_line_when_a_line_is_bad(file, number, change, message, tmp_path):
    folder = tum(tmp_path / "room", 8)
    edit_line(folder / file, number, change)
    if not message:
        edit_line(folder / file, number, lambda line: "1205031102.0 " + line.split(" ", 1)[1])
        message = "stamps must increase"
    with pytest.raises(SourceError, match=f"{file}:{number}: .*{message}"):
        open_dataset("tum_rgbd", folder)


# transforms.json: OpenGL axes, columns right, up, backward


def test_transforms_json_poses_see_the_point(tmp_path):
    splits = open_dataset("transforms_json", transforms(tmp_path, 6), split="train")
    for i, sample in enumerate(splits.train):
        assert_sees(sample, camera(i))
    np.testing.assert_array_equal(
        splits.train[0].camera_matrix, [[30, 0, 16], [0, 31, 12], [0, 0, 1]]
    )
    np.testing.assert_array_equal(splits.camera_matrix, splits.train[0].camera_matrix)
    doubled = open_dataset("transforms_json", tmp_path / "transforms.json", split="train", scale=2)
    np.testing.assert_allclose(doubled.train[3].T_map_camera[:3, 3], 2 * camera(3).centre)


def test_transforms_json_takes_intrinsics_of_frame_file_or_angle(tmp_path):
    transforms(tmp_path, 3)
    data = json.loads((tmp_path / "transforms.json").read_text())
    data["frames"][1]["fl_x"] = 40.0
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    train = open_dataset("transforms_json", tmp_path, split="train").train
    assert [s.camera_matrix[0, 0] for s in train] == [30, 40, 30]
    assert open_dataset("transforms_json", tmp_path).camera_matrix is None
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        del data[key]
    data["camera_angle_x"] = np.pi / 2
    del data["frames"][1]["fl_x"]
    (tmp_path / "transforms.json").write_text(json.dumps(data))
    train = open_dataset("transforms_json", tmp_path, split="train").train
    # A field of view of 90 degrees over 32 pixels: 16 pixels.
    np.testing.assert_allclose(train[0].camera_matrix, [[16, 0, 16], [0, 16, 12], [0, 0, 1]])


def test_transforms_json_honours_files_and_lists_of_splits(tmp_path):
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        transforms(tmp_path / "nerf", count, f"transforms_{part}.json")
    splits = open_dataset("transforms_json", tmp_path / "nerf")
    assert [len(splits.split(s)) for s in ("train", "validation", "test")] == [4, 2, 3]
    listed = {
        "train_filenames": [f"images/transforms_{i:03}.png" for i in (0, 1, 3)],
        "test_filenames": ["images/transforms_002.png"],
    }
    transforms(tmp_path / "studio", 4, **listed)
    splits = open_dataset("transforms_json", tmp_path / "studio", validation=0)
    assert [s.name[-7:-4] for s in splits.test] == ["002"]


def test_transforms_json_names_file_and_line_when_frame_is_bad(tmp_path):
    transforms(tmp_path, 5)
    file = tmp_path / "transforms.json"
    good = json.loads(file.read_text())
    lines = file.read_text().splitlines()
    number = next(i for i, line in enumerate(lines, 1) if "transforms_003.png" in line)
    for matrix, message in (
        (np.diag([2.0, 2, 2, 1]).tolist(), "not a rotation matrix"),
        ([[1, 2], [3, 4]], "must be a finite 4 x 4 matrix"),
        ("none", "not a matrix of numbers"),
        (None, "must be a finite 4 x 4 matrix"),
    ):
        data = json.loads(json.dumps(good))
        data["frames"][3]["transform_matrix"] = matrix
        file.write_text(json.dumps(data, indent=1))
        with pytest.raises(SourceError, match=f"transforms.json:{number}: .*{message}"):
            open_dataset("transforms_json", tmp_path)
    file.write_text("\n".join(lines[:9]))
    with pytest.raises(SourceError, match=r"transforms.json:\d+: not JSON"):
        open_dataset("transforms_json", tmp_path)


def rewritten(root, **changes):
    """transforms.json with other keys; a function changes what is there."""
    file = root / "transforms.json"
    data = json.loads(file.read_text())
    for key, value in changes.items():
        data[key] = value(data[key]) if callable(value) else value
    file.write_text(json.dumps(data, indent=1))
    return root


def parts_of(root, **options):
    splits = open_dataset("transforms_json", root, **{"validation": 0, **options})
    numbers = {p: [s.name[-7:-4] for s in splits.split(p)] for p in ("train", "validation", "test")}
    return numbers, "\n".join(splits.notes)


@pytest.mark.parametrize(
    "spelling",
    ["./images/{}.png", "images\\{}.png", "images/{}", "{}.png", "/home/me/set/images/{}.png", "{}",
     "images/../images/{}.png", "images/{}.jpg"],
)  # fmt: skip
def test_transforms_json_lists_may_spell_frames_otherwise(tmp_path, spelling):
    names = [spelling.format(f"transforms_{i:03}") for i in range(6)]
    transforms(tmp_path, 7, train_filenames=names[:4], test_filenames=[*names[4:], "gone_9"])
    numbers, notes = parts_of(tmp_path)
    assert numbers == {
        "train": ["000", "001", "002", "003"],
        "validation": [],
        "test": ["004", "005"],
    }
    assert "6 names in lists of transforms.json are spelled otherwise" in notes
    assert "1 frame skipped, as test_filenames names it and no frame does: gone_9" in notes
    assert "1 frame is in no list of transforms.json and left out: images/transforms_006" in notes


def test_transforms_json_takes_no_frame_for_a_name_that_two_have(tmp_path):
    transforms(tmp_path, 4)
    write_image(tmp_path / "left/transforms_000.png", 9)
    frame = json.loads((tmp_path / "transforms.json").read_text())["frames"][1]
    rewritten(
        tmp_path,
        frames=lambda frames: [*frames, {**frame, "file_path": "left/transforms_000.png"}],
        train_filenames=["transforms_000.png", "transforms_001.png"],
        test_filenames=["transforms_002.png"],
    )
    numbers, notes = parts_of(tmp_path)
    assert numbers["train"] == ["001"] and numbers["test"] == ["002"]
    assert "1 frame skipped, as train_filenames names it and no frame does" in notes


def test_transforms_json_with_equal_val_and_test_is_tested_on_them(tmp_path):
    names = [f"images/transforms_{i:03}.png" for i in range(12)]
    held_out = {"val_filenames": names[9:], "test_filenames": names[9:]}
    transforms(tmp_path, 12, train_filenames=names[:9], **held_out)
    numbers, notes = parts_of(tmp_path, validation=0.3, block_frames=3)
    assert numbers["test"] == ["009", "010", "011"]
    assert len(numbers["validation"]) == 3 and len(numbers["train"]) == 6
    assert (
        "3 images are in val and in test: they are test, and validation is drawn from train"
        in notes
    )
    rewritten(tmp_path, val_filenames=names[7:10], train_filenames=names[:7])
    numbers, notes = parts_of(tmp_path)
    assert numbers["validation"] == ["007", "008"] and len(numbers["test"]) == 3
    assert "1 image is in val and in test: it is test, and validation is the others" in notes
    rewritten(tmp_path, train_filenames=names)
    with pytest.raises(SourceError, match="3 images are in train and in test"):
        open_dataset("transforms_json", tmp_path)
    assert len(open_dataset("transforms_json", tmp_path, split="blocks").samples) == 12


def test_transforms_json_files_that_share_images_are_told_apart_from_leaks(tmp_path):
    for part in ("train", "val", "test"):
        transforms(tmp_path, 4, f"transforms_{part}.json")
    shutil.copy(tmp_path / "transforms_test.json", tmp_path / "transforms_val.json")
    splits = open_dataset("transforms_json", tmp_path, block_frames=1)
    assert [len(splits.split(p)) for p in ("train", "validation", "test")] == [3, 1, 4]
    shutil.copy(tmp_path / "transforms_test.json", tmp_path / "transforms_train.json")
    with pytest.raises(SourceError, match="4 images are in train and in test"):
        open_dataset("transforms_json", tmp_path)
    splits = open_dataset("transforms_json", tmp_path, split="train")
    assert len(splits.train) == 4 and any(
        "8 frames have an image of another" in n for n in splits.notes
    )


def test_transforms_json_without_train_list_and_with_other_files_says_so(tmp_path):
    transforms(
        tmp_path, 4, test_filenames=["images/transforms_002.png", "images/transforms_002.png"]
    )
    transforms(tmp_path, 2, "transforms_val.json")
    numbers, notes = parts_of(tmp_path)
    assert numbers["train"] == ["000", "001", "003"] and numbers["test"] == ["002"]
    assert "transforms_val.json: not read, since there is a transforms.json" in notes
    assert "has no train_filenames: the 3 frames of no list are train" in notes
    assert "as test_filenames names it again" in notes


def test_transforms_json_blocks_follow_the_names_and_not_the_file(tmp_path):
    transforms(tmp_path, 40)
    order = np.random.default_rng(0).permutation(40)
    rewritten(tmp_path, frames=lambda frames: [frames[i] for i in order])
    numbers, notes = parts_of(tmp_path, block_frames=5)
    assert numbers["test"] == [f"{i:03}" for i in (15, 16, 17, 18, 19, 35, 36, 37, 38, 39)]
    assert "transforms.json has its frames in another order than their names" in notes


def test_transforms_json_takes_folders_as_recordings(tmp_path):
    transforms(tmp_path, 12)
    for i in range(12):
        file = tmp_path / f"walk_{i % 2}/{i // 2:03}.png"
        file.parent.mkdir(exist_ok=True)
        shutil.move(tmp_path / f"images/transforms_{i:03}.png", file)
    rewritten(
        tmp_path,
        frames=lambda frames: [
            {**f, "file_path": f"walk_{i % 2}/{i // 2:03}.png"} for i, f in enumerate(frames)
        ],
    )
    splits = open_dataset("transforms_json", tmp_path, test_sequences="walk_1")
    assert {s.sequence for s in splits.test} == {"walk_1"} and len(splits.test) == 6
    # Two cameras of a rig are cut at the same times.
    splits = open_dataset("transforms_json", tmp_path, block_frames=1, validation=0)
    assert sorted(s.name for s in splits.test) == ["walk_0/003.png", "walk_1/003.png"]


def test_transforms_json_of_one_line_names_the_frame(tmp_path):
    transforms(tmp_path, 4)
    file = tmp_path / "transforms.json"
    data = json.loads(file.read_text())
    bad = json.loads(json.dumps(data))
    bad["frames"][2]["transform_matrix"][0][0] = 7
    file.write_text(json.dumps(bad))
    with pytest.raises(
        SourceError, match=r"json:1: images/transforms_002.png: .* not a rotation.*bad_poses"
    ):
        open_dataset("transforms_json", tmp_path)
    file.write_text(json.dumps({**data, "frames": data["frames"] * 2}))
    with pytest.raises(
        SourceError, match="transforms_000.png: this file_path .* take one of them out"
    ):
        open_dataset("transforms_json", tmp_path)


def test_transforms_json_without_frames_says_that(tmp_path):
    (tmp_path / "transforms.json").write_text('{"frames": []}')
    with pytest.raises(SourceError, match="json has no frame: its list named frames is empty"):
        open_dataset("transforms_json", tmp_path)


def test_images_of_another_computer_are_missing_with_the_remedy_and_no_other_note(tmp_path):
    transforms(tmp_path, 4)
    rewritten(
        tmp_path,
        frames=lambda fs: [{**f, "file_path": "/home/me/" + f["file_path"]} for f in fs],
    )
    with pytest.raises(
        SourceError, match="4 frames skipped, whose image does not exist.*absolute paths"
    ) as e:
        open_dataset("transforms_json", tmp_path)
    assert "unit" not in str(e.value)


def test_lists_written_on_windows_are_read(tmp_path):
    roots = {"tum_rgbd": tmp_path / "tum", "cambridge": tmp_path / "cambridge"}
    tum(roots["tum_rgbd"], 4), cambridge(roots["cambridge"], 3, 2)
    before = {kind: open_dataset(kind, root) for kind, root in roots.items()}
    for file in (tmp_path / "tum/rgb.txt", *(tmp_path / "cambridge").glob("dataset_*.txt")):
        file.write_text(file.read_text().replace("/", "\\"))
    for kind, splits in before.items():
        after = open_dataset(kind, roots[kind])
        assert [s.name for s in after.samples] == [s.name for s in splits.samples] != []


def test_transforms_json_with_backslashes_is_read(tmp_path):
    transforms(tmp_path, 4)
    rewritten(
        tmp_path,
        frames=lambda frames: [
            {**f, "file_path": f["file_path"].replace("/", "\\")} for f in frames
        ],
    )
    train = open_dataset("transforms_json", tmp_path, split="train").train
    assert [s.name for s in train] == [f"images/transforms_{i:03}.png" for i in range(4)]
    assert train[0].source.load().shape == (24, 32, 3)


def test_transforms_json_scales_its_camera_to_the_images(tmp_path):
    transforms(tmp_path, 3, w=64, h=48, fl_x=60.0, fl_y=62.0, cx=32.0, cy=24.0)
    splits = open_dataset("transforms_json", tmp_path, split="train")
    np.testing.assert_allclose(splits.camera_matrix, [[30, 0, 16], [0, 31, 12], [0, 0, 1]])
    assert sum("64 x 48 pixels and its images of 32 x 24" in note for note in splits.notes) == 1
    for size in ((640, 300), (48, 64)):  # cropped, and turned
        rewritten(tmp_path, w=size[0], h=size[1])
        with pytest.raises(SourceError, match=r"transforms.json.* not the same picture scaled"):
            open_dataset("transforms_json", tmp_path)
    set_by_hand = open_dataset("transforms_json", tmp_path, split="train", camera_matrix="9,9,5,5")
    assert set_by_hand.camera_matrix[0, 0] == 9 and set_by_hand.train[0].camera_matrix is None
    rewritten(tmp_path, w="wide")
    with pytest.raises(SourceError, match="w and h are no size"):
        open_dataset("transforms_json", tmp_path)


def test_transforms_json_refuses_a_camera_that_does_not_fit_and_leaves_a_fisheye_out(tmp_path):
    transforms(tmp_path, 3, cx=320.0, cy=240.0)
    file = tmp_path / "transforms.json"
    data = json.loads(file.read_text())
    del data["w"], data["h"]
    file.write_text(json.dumps(data))
    with pytest.raises(SourceError, match=r"cx, cy = 320, 240 is not inside .* 32 x 24"):
        open_dataset("transforms_json", tmp_path)
    rewritten(tmp_path, camera_model="OPENCV_FISHEYE")
    splits = open_dataset("transforms_json", tmp_path, split="train")
    assert splits.camera_matrix is None
    assert any("OPENCV_FISHEYE: such have no camera matrix" in note for note in splits.notes)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_transforms_json_turns_pictures_only_where_its_size_is_that_of_the_turned_one(
    tmp_path, orientation
):
    transforms(tmp_path, 2)
    turn_by_exif(tmp_path / "images", orientation)
    stored = open_dataset("transforms_json", tmp_path, split="train")
    assert stored.train[0].source.load().shape == (24, 32, 3)
    assert any("2 image files have an EXIF" in n for n in stored.notes) == (orientation != 1)
    if orientation == 6:
        rewritten(tmp_path, w=24, h=32, cx=12.0, cy=16.0)
        turned = open_dataset("transforms_json", tmp_path, split="train")
        assert turned.train[0].source.load().shape == (32, 24, 3)
        assert turned.camera_matrix[0, 2] == 12
        assert any("2 image files lie on their side" in note for note in turned.notes)


# Place recognition folders


def test_place_folder_reads_positions_and_headings(tmp_path):
    for part in ("train", "val", "test"):
        for i, heading in enumerate((0, 90, 225)):
            folder = tmp_path / "images" / part / ("database" if i else "queries")
            write_image(folder / place_name(f"0551234.{i}0", 4180567.25, heading), i)
    splits = open_dataset("place_folder", tmp_path)
    assert [len(splits.split(s)) for s in ("train", "validation", "test")] == [3, 3, 3]
    assert splits.has_orientation
    by_east = sorted(splits.train, key=lambda s: s.T_map_camera[0, 3])
    assert [s.sequence for s in by_east] == ["train/queries", "train/database", "train/database"]
    np.testing.assert_allclose(by_east[1].T_map_camera[:3, 3], [234.1, 567.25, 0])
    # North is +y, east is +x, south-west is both backwards; down is -z.
    s = np.sqrt(0.5)
    for sample, forward in zip(by_east, ([0, 1, 0], [1, 0, 0], [-s, -s, 0]), strict=True):
        T = sample.T_map_camera
        np.testing.assert_allclose(T[:3, 2], forward, atol=1e-12)
        np.testing.assert_allclose(T[:3, 1], [0, 0, -1], atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(T[:3, :3]), 1)
    assert any("easting 551000, northing 4180000" in note for note in splits.notes)


def test_place_folder_has_no_orientation_where_a_heading_is_missing(tmp_path):
    for i, heading in enumerate(("10", "")):
        write_image(tmp_path / "train/database" / place_name(500100 + i, 4000000, heading), i)
    splits = open_dataset("place_folder", tmp_path)
    assert not splits.has_orientation
    assert any("no orientation" in note for note in splits.notes)
    near = nearest_train(open_dataset("place_folder", tmp_path, split="train"), "train")
    assert np.isnan(near.median_deg)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plain.jpg", "must begin with @easting@northing@"),
        ("@x@4000000@10@S@.jpg", "not all are numbers"),
        (place_name(500000, "nan"), "all must be finite"),
        (place_name(500000, 4000000, 400), "the heading is 400"),
    ],
)
def test_place_folder_names_the_file_when_its_name_is_bad(name, message, tmp_path):
    write_image(tmp_path / "train" / place_name(500000, 4000000, 1), 0)
    write_image(tmp_path / "train" / name, 1)
    with pytest.raises(SourceError, match=f"{tmp_path}/train/.*{message}"):
        open_dataset("place_folder", tmp_path)
    assert len(open_dataset("place_folder", tmp_path, bad_poses="skip").samples) == 1


def test_place_folder_of_two_zones_needs_to_know_them_all(tmp_path):
    write_image(tmp_path / place_name(500000, 4000000, zone="10"), 0)
    write_image(tmp_path / place_name(500000, 4000000, zone="11"), 1)
    assert len(open_dataset("place_folder", tmp_path).samples) == 2
    write_image(tmp_path / place_name(500000, 4000000, zone=""), 2)
    with pytest.raises(SourceError, match=r"does not say its UTM zone .*are of several \(10, 11\)"):
        open_dataset("place_folder", tmp_path)


# Real data


@pytest.mark.slow
def test_kitchen_has_the_split_that_is_reported_on(data_dir):
    splits = open_dataset("seven_scenes", data_dir / "kitchen", validation=0)
    assert (len(splits.train), len(splits.test)) == (600, 200)
    numbers = [int(s.name[-6:]) for s in splits.test]
    assert numbers == [i for i in range(800) if (i // 50) % 4 == 3]
    near = nearest_train(splits)
    assert near.median_m == pytest.approx(0.061, abs=5e-4)
    assert near.median_deg == pytest.approx(4.2, abs=0.1)
    assert near.within == pytest.approx(0.94, abs=0.006)
    # The same from the files alone, by SciPy.
    P = np.array([np.loadtxt(f) for f in sorted((data_dir / "kitchen").glob("*.pose.txt"))])
    test = (np.arange(800) // 50) % 4 == 3
    away = np.linalg.norm(P[test][:, None, :3, 3] - P[~test][None, :, :3, 3], axis=2)
    R = Rotation.from_matrix(P[:, :3, :3])
    turn = (R[test].inv() * R[~test][away.argmin(axis=1)]).magnitude()
    assert near.median_m == pytest.approx(np.median(away.min(axis=1)), abs=1e-12)
    assert near.median_deg == pytest.approx(
        np.degrees(np.median(turn)),
        abs=1e-3,  # SciPy 1.8 rounds rotations that are not quite ones
    )


def test_kitchen_validation_is_drawn_in_whole_training_blocks(data_dir):
    splits = open_dataset("seven_scenes", data_dir / "kitchen", validation=0.2, seed=3)
    blocks = {int(s.name[-6:]) // 50 for s in splits.validation}
    assert len(splits.validation) == 50 * len(blocks) == 100
    assert all(block % 4 != 3 for block in blocks)
    assert len(splits.train) == 500 and len(splits.test) == 200
