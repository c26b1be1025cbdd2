"""EuRoC and KITTI as posed data: the camera's pose from that of an IMU, or of another camera."""

import numpy as np
import pytest
from tiny_datasets import POINT, camera, euroc, kitti, write_image

from robot_vision.datasets import open_dataset
from robot_vision.errors import ConfigError, SourceError


def assert_sees(samples, index_of, atol=1e-5):
    for sample in samples:
        cam = camera(index_of(sample))
        np.testing.assert_allclose(
            cam.sees(sample.T_map_camera, POINT), cam.coordinates(POINT), atol=atol
        )


def test_euroc_moves_the_imus_poses_to_the_camera(tmp_path):
    euroc(tmp_path / "V1_01", 8)
    for place in ("V1_01", "V1_01/mav0", ""):
        splits = open_dataset("euroc", tmp_path / place, split="train")
        assert [s.sequence for s in splits.train] == ["V1_01"] * 8
        first = splits.train[0].stamp_ns
        assert_sees(splits.train, lambda s: (s.stamp_ns - first) / 50_000_000)  # noqa: B023
        np.testing.assert_array_equal(splits.camera_matrix, [[30, 0, 16], [0, 31, 12], [0, 0, 1]])
    assert any("moved to cam0" in note for note in splits.notes)
    euroc(tmp_path / "MH_01", 8)
    (tmp_path / "MH_01/mav0/cam1").mkdir()
    (tmp_path / "MH_01/mav0/cam1/data.csv").write_text("#timestamp [ns],filename\n")
    notes = "\n".join(open_dataset("euroc", tmp_path).notes)
    assert "MH_01: cam1 is not used (set camera)" in notes
    assert "poses of 2 recordings (MH_01, V1_01) are taken as of one map" in notes
    assert any(
        "lens distortion (radial-tangential), which is not undone" in n for n in splits.notes
    )


def test_euroc_leaves_out_a_repeated_line_and_refuses_another_image_of_its_stamp(tmp_path):
    euroc(tmp_path, 8)
    file = tmp_path / "mav0/cam0/data.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:4], *lines[3:]]))
    splits = open_dataset("euroc", tmp_path)
    assert len(splits.samples) == 8
    assert any("data.csv:5: 1 line repeats the line above it: left out" in n for n in splits.notes)
    other = lines[3].replace(",", ",x")
    file.write_text("\n".join([*lines[:4], other, *lines[4:]]))
    with pytest.raises(SourceError, match="data.csv:5: .*not later than that of line 4: sort"):
        open_dataset("euroc", tmp_path)
    file.write_text("\n".join([*lines[:4], lines[2], *lines[4:]]))
    with pytest.raises(SourceError, match="data.csv:5: .*not later than that of line 4: sort"):
        open_dataset("euroc", tmp_path)


def test_euroc_counts_images_outside_the_truth_and_needs_the_cameras_place(tmp_path):
    euroc(tmp_path, 8)
    truth = tmp_path / "mav0/state_groundtruth_estimate0/data.csv"
    truth.write_text("\n".join(truth.read_text().splitlines()[:50]))
    splits = open_dataset("euroc", tmp_path)
    assert len(splits.samples) == 4
    assert any("4 frames skipped, which have no poses within 0.1 s" in n for n in splits.notes)
    sensor = tmp_path / "mav0/cam0/sensor.yaml"
    text = sensor.read_text()
    sensor.write_text("%YAML:1.0\n" + text.replace("radial-tangential", "equidistant"))
    splits = open_dataset("euroc", tmp_path)
    assert splits.camera_matrix is None
    assert any("cam0 is pinhole with equidistant distortion" in note for note in splits.notes)
    sensor.write_text(text.replace("T_BS", "T_SB"))
    with pytest.raises(SourceError, match="sensor.yaml has no T_BS: set base_to_camera"):
        open_dataset("euroc", tmp_path)
    assert open_dataset("euroc", tmp_path, base_to_camera="identity").samples
    with pytest.raises(SourceError, match="no cam1/data.csv: set camera to one of cam0"):
        open_dataset("euroc", tmp_path, camera="cam1")
    truth.unlink()
    with pytest.raises(SourceError, match="no ground truth with orientations"):
        open_dataset("euroc", tmp_path)


def test_kitti_moves_camera_0s_poses_to_the_colour_camera(tmp_path):
    kitti(tmp_path, 8)
    for place in ("", "sequences/00"):
        splits = open_dataset("kitti", tmp_path / place, split="train")
        assert [s.name for s in splits.train] == [f"00/image_2/{i:06}.png" for i in range(8)]
        assert_sees(splits.train, lambda s: int(s.name[-10:-4]))
    assert [s.stamp_ns for s in splits.train][:3] == [0, 100_000_000, 200_000_000]
    np.testing.assert_array_equal(splits.camera_matrix, [[30, 0, 16], [0, 30, 12], [0, 0, 1]])


def test_kitti_counts_what_has_no_pose_or_no_image(tmp_path):
    kitti(tmp_path, 6)
    kitti(tmp_path, 4, "11")
    (tmp_path / "poses/11.txt").unlink()
    (tmp_path / "sequences/00/image_2/000002.png").unlink()
    write_image(tmp_path / "sequences/00/image_2/000006.png", 6)
    splits = open_dataset("kitti", tmp_path)
    assert len(splits.samples) == 5
    assert_sees(splits.samples, lambda s: int(s.name[-10:-4]))
    text = "\n".join(splits.notes)
    assert "1 sequence has no poses and is left out: 11" in text
    assert "1 frame skipped, beyond the 6 lines of 00.txt: 00/image_2/000006.png" in text
    assert "1 of 6 poses has no image in image_2" in text
    with pytest.raises(SourceError, match="no poses of 11: put poses/11.txt"):
        open_dataset("kitti", tmp_path / "sequences/11")
    with pytest.raises(SourceError, match="no image_3: set camera to one of 2"):
        open_dataset("kitti", tmp_path, camera="3")
    with pytest.raises(ConfigError, match="one sequence"):
        open_dataset("kitti", tmp_path, poses="a.txt")
