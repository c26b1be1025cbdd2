"""`robot-vision data`: what it prints, what it draws, and what it says is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_datasets import image_folder, place_name, seven_scenes, tum, write_image

from robot_vision.charts.paths import ground_axes
from robot_vision.cli import main
from robot_vision.datasets import DATASETS, dataset_options, inspection, open_dataset
from robot_vision.datasets.inspection import nearest_train, overlaps, survey_images, survey_poses
from robot_vision.datasets.pictures import COLOURS, contact_sheet, pose_plot


def inspect(capsys, *arguments):
    status = main(["data", "inspect", *map(str, arguments)])
    return status, capsys.readouterr()


def has_colour(image, colour):
    return bool(np.any(np.all(np.abs(image.astype(int) - colour) < 12, axis=-1)))


def test_inspect_prints_counts_and_writes_a_contact_sheet(tmp_path, capsys):
    image_folder(tmp_path / "set", {"train/cat": 12, "train/dog [b]": 3, "test/cat": 2})
    status, out = inspect(
        capsys,
        "image_folder",
        tmp_path / "set",
        "--output",
        tmp_path / "o",
        "--option",
        "validation=0",
    )
    assert status == 0
    text = " ".join(out.out.split())
    assert "17 samples (15 train, 0 validation, 2 test)" in text
    assert "dog [b] │ 3 │ 0 │ 0 │ 20.0%" in text
    assert "unbalanced: the largest has 4.0 times" in text
    assert "32 x 24 (17)" in text
    assert "no image is in two splits" in text
    sheet = cv2.imread(str(tmp_path / "o/contact_sheet.png"))[..., ::-1]
    assert has_colour(sheet, COLOURS["train"]) and has_colour(sheet, COLOURS["test"])
    assert not (tmp_path / "o/poses.png").exists()


def test_inspect_reports_unreadable_images_and_equal_ones(tmp_path, capsys):
    image_folder(tmp_path, {"train/cat": 4, "train/dog": 4, "test/cat": 2})
    same = tmp_path / "train/dog/2.png"
    (tmp_path / "test/cat/copy.png").write_bytes(same.read_bytes())
    (tmp_path / "train/cat/3.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    status, out = inspect(
        capsys,
        "image_folder",
        tmp_path,
        "--output",
        tmp_path / "o",
        "--option",
        "validation=0",
        "--json",
    )
    assert status == 0
    report = json.loads(out.out)
    assert report["overlap"]["train/test"]["same_content"] == [
        ["train/dog/2.png", "test/cat/copy.png"]
    ]
    assert len(report["images"]["unreadable"]) == 1
    assert "train/cat/3.png" in report["images"]["unreadable"][0]
    assert report["classes"]["cat"] == {"train": 4, "validation": 0, "test": 3}
    _, out = inspect(
        capsys, "image_folder", tmp_path, "--output", tmp_path / "o", "--option", "validation=0"
    )
    assert "1 of 11 images cannot be read" in out.out
    assert "1 image is in train and in test" in out.out


@pytest.mark.slow
def test_inspect_reports_poses(tmp_path, capsys):
    seven_scenes(tmp_path / "lab", 40)
    status, out = inspect(
        capsys, "seven_scenes", tmp_path / "lab", "--output", tmp_path / "o",
        "--option", "block_frames=5", "--option", "validation=0", "--json",
    )  # fmt: skip
    assert status == 0
    report = json.loads(out.out)
    step = np.hypot(0.1, 0.05)
    assert report["poses"]["path_m"] == pytest.approx(39 * step, rel=1e-5)
    np.testing.assert_allclose(report["poses"]["low_m"], [0, 2 - 39 * 0.05, 1.5], atol=1e-6)
    np.testing.assert_allclose(report["poses"]["high_m"], [3.9, 2, 1.5], atol=1e-6)
    # Blocks of five: frames 15 to 19 and 35 to 39 are test; the last has no training block after it.
    steps = [1, 2, 3, 2, 1, 1, 2, 3, 4, 5]
    assert report["nearest_train"]["test"]["median_m"] == pytest.approx(
        np.median(steps) * step, rel=1e-4
    )
    near = np.array(steps) * step <= 0.25
    assert report["nearest_train"]["test"]["within"] == pytest.approx(near.mean())
    assert report["overlap"]["train/test"]["neighbours"] == 3
    gap = open_dataset("seven_scenes", tmp_path / "lab", block_frames=5, validation=0, gap_frames=2)
    assert overlaps(gap)["train", "test"].neighbours == 0
    plot = cv2.imread(str(tmp_path / "o/poses.png"))[..., ::-1]
    assert has_colour(plot, COLOURS["train"]) and has_colour(plot, COLOURS["test"])


def rotations(splits):
    return np.array([s.T_map_camera[:3, :3] for s in splits.samples])


def test_pose_plot_draws_the_map_from_above(tmp_path):
    splits = open_dataset("tum_rgbd", tum(tmp_path / "room", 12), block_frames=2)
    assert ground_axes(rotations(splits)) == (
        0,
        1,
        False,
    )  # cameras stand upright in a map with z up
    plot = pose_plot(splits, "room")
    for name in ("train", "test"):
        assert has_colour(plot, COLOURS[name])
    # The walk goes right and down on the page: x grows, y falls.
    red = np.argwhere(np.all(np.abs(plot.astype(int) - COLOURS["test"]) < 12, axis=-1))
    legend = red[:, 0] < 120
    rows, columns = red[~legend].T
    assert np.corrcoef(rows, columns)[0, 1] > 0.5


def test_ground_axes_follow_the_cameras_up(data_dir):
    # 7-Scenes' y points down: seen from above, x goes right and z away.
    splits = open_dataset("seven_scenes", data_dir / "kitchen")
    assert ground_axes(rotations(splits)) == (0, 2, False)


def test_pictures_hold_without_orientation_labels_or_readable_images(tmp_path):
    for i in range(5):
        write_image(tmp_path / "train/database" / place_name(500000 + i, 4000000 + i, ""), i)
    (tmp_path / "train/database" / place_name(500009, 4000009, "")).touch()
    splits = open_dataset("place_folder", tmp_path)
    assert contact_sheet(splits).shape[2] == 3
    assert pose_plot(splits, "ö") is not None
    assert len(survey_images(splits.samples, None).unreadable) == 1
    assert survey_poses(splits).path_m > 0
    assert nearest_train(splits) is None
    assert overlaps(splits)["train", "test"].neighbours == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image_foldr", "."], "did you mean 'image_folder'"),
        (["image_folder", "absent"], "absent does not exist"),
        (["image_folder", ".", "--option", "validation"], "is not KEY=VALUE"),
        (["image_folder", ".", "--option", "seed=1", "--option", "seed=2"], "seed is given twice"),
        (["image_folder", ".", "--option", "sede=1"], "did you mean 'seed'"),
        (["image_folder", ".", "--sample", "-1"], "--sample is -1"),
    ],
)
def test_inspect_says_in_one_line_what_is_wrong(arguments, message, capsys):
    status, out = inspect(capsys, *arguments)
    assert status == 2
    assert message in out.err and out.err.count("\n") == 1


def test_inspect_refuses_an_impossible_output_before_it_reads(tmp_path, capsys, monkeypatch):
    image_folder(tmp_path / "set", {"a": 3, "b": 3})
    (tmp_path / "file").touch()
    arguments = ["data", "inspect", "image_folder", str(tmp_path / "set")]
    monkeypatch.setattr(inspection, "survey_images", lambda *_: pytest.fail("read images first"))
    assert main([*arguments, "--output", str(tmp_path / "file/x")]) == 2
    assert "file/x cannot be made: Not a directory: name another folder" in capsys.readouterr().err


def test_formats_lists_every_format_and_its_options(capsys):
    assert main(["data", "formats"]) == 0
    listed = capsys.readouterr().out
    assert all(kind in listed for kind in DATASETS)
    assert main(["data", "formats", "rosbag"]) == 0
    assert "label_topic" in capsys.readouterr().out


@pytest.mark.slow
def test_data_sets_need_neither_torch_nor_ros_nor_scipy(tmp_path):
    image_folder(tmp_path, {"cat": 8, "dog": 8})
    script = (
        "import sys\n"
        "for name in ('torch', 'rclpy', 'scipy', 'matplotlib'): sys.modules[name] = None\n"
        "from robot_vision.cli import main\n"
        "import robot_vision.datasets.formats.rosbag, robot_vision.datasets.formats.cambridge\n"
        f"path = {str(tmp_path)!r}\n"
        "sys.exit(main(['data', 'inspect', 'image_folder', path, '--output', path]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_kitchen_is_inspected(data_dir, tmp_path, capsys):
    status, out = inspect(
        capsys, "seven_scenes", data_dir / "kitchen", "--output", tmp_path, "--sample", 8,
        "--option", "validation=0",
    )  # fmt: skip
    assert status == 0
    assert "800 samples (600 train, 0 validation, 200 test)" in out.out
    assert "path 6.0" in out.out and "median 0.061 m" in out.out
    # The recording repeats two frames across the borders of blocks.
    assert "2 images are in train and in test" in out.out


def test_documentation_names_every_format_and_option():
    text = (Path(__file__).parents[2] / "docs/datasets.md").read_text()
    for kind in DATASETS:
        assert f"`{kind}`" in text
        for option in dataset_options(kind):
            assert f"`{option}`" in text, (kind, option)
