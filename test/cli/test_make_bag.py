"""`robot-vision make-bag --data`: a data set as a bag, and the bag as the same data set."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from tiny_datasets import seven_scenes, write_image

from robot_vision.cli import main
from robot_vision.datasets import open_dataset
from robot_vision.datasets.sample import true_values

SIZE = (24, 32)


def messages(bag: Path) -> dict[str, list]:
    """Returns the messages of each topic."""
    found: dict[str, list] = {}
    with AnyReader([bag]) as reader:
        for c, _, data in reader.messages():
            found.setdefault(c.topic, []).append(reader.deserialize(data, c.msgtype))
    return found


def masks(root: Path, count: int = 3) -> Path:
    """Writes images and label images, ids 0 to 2 and 255, and a table that joins and drops some."""
    rng = np.random.default_rng(3)
    for i in range(count):
        write_image(root / "images" / f"{i}.png", i)
        ids = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), SIZE)
        (root / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(root / "masks" / f"{i}.png"), ids)
    (root / "classes.csv").write_text("0 void\n1 floor\n2 wall\n3 floor\n")
    return root


def test_masks_come_back_with_the_names_of_their_classes(tmp_path, capsys):
    before = open_dataset("mask_folder", str(masks(tmp_path / "data")), split="train")
    bag = tmp_path / "bag"
    asked = ["make-bag", "--data", "mask_folder", str(tmp_path / "data"), "--out", str(bag)]
    assert main([*asked, "--rate", "5"]) == 0
    assert "3 frames, 0 poses, 3 images of segmentation" in capsys.readouterr().out
    after = open_dataset("rosbag", str(bag), truth_images="segmentation=/ground_truth/segmentation")
    word = "image:segmentation"
    assert after.labels_of(word) == before.labels_of(word) == ("floor", "wall")
    assert len(after.samples) == 3
    for new, old in zip(after.samples, sorted(before.samples, key=lambda s: s.name), strict=True):
        np.testing.assert_array_equal(new.source.load(), old.source.load())
        pair = [true_values(s.truth[word], "uint8", 255) for s in (new, old)]
        np.testing.assert_array_equal(*pair)
        assert set(np.unique(pair[0])) == {0, 1, 255}
    stamps = [s.stamp_ns for s in after.samples]
    assert np.diff(stamps).tolist() == [200_000_000] * 2


def test_poses_camera_and_depth_come_back(tmp_path, capsys):
    folder = seven_scenes(tmp_path / "scene" / "seq-01", 4)
    rng = np.random.default_rng(5)
    for i in range(3):  # one has none
        depth = rng.integers(300, 5000, SIZE).astype(np.uint16)
        depth[0, 0], depth[1, 1] = 0, 65535
        cv2.imwrite(str(folder / f"frame-{i:06d}.depth.png"), depth)
    before = open_dataset("seven_scenes", str(tmp_path / "scene"), split="train")
    bag = tmp_path / "bag"
    asked = ["make-bag", "--data", "seven_scenes", str(tmp_path / "scene"), "--out", str(bag)]
    assert main(asked) == 0
    assert "4 frames, 4 poses, 3 images of depth" in capsys.readouterr().out
    after = open_dataset(
        "rosbag", str(bag), truth_images="depth=/ground_truth/depth", split="train"
    )
    for new, old in zip(after.samples, before.samples, strict=True):
        np.testing.assert_allclose(new.T_map_camera, old.T_map_camera, atol=1e-9)
        assert ("image:depth" in new.truth) == ("image:depth" in old.truth)
        if "image:depth" in old.truth:
            pair = [true_values(s.truth["image:depth"], "float32", -1) for s in (new, old)]
            np.testing.assert_array_equal(*pair)
            assert pair[0][0, 0] == pair[0][1, 1] == -1
    np.testing.assert_allclose(after.camera_matrix, before.camera_matrix)
    found = messages(bag)
    assert found["/ground_truth/depth"][0].format == "16UC1; png compressed"
    assert len(found["/camera/camera_info"]) == 4


def test_depth_in_another_unit_is_metres(tmp_path):
    for i in range(2):
        write_image(tmp_path / "data" / "images" / f"{i}.png", i)
        depth = np.full(SIZE, 5000 * (i + 1), np.uint16)
        depth[0, 0] = 0
        (tmp_path / "data" / "depth").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "data" / "depth" / f"{i}.png"), depth)
    asked = [
        "make-bag",
        "--data",
        "depth_folder",
        str(tmp_path / "data"),
        "--option",
        "unit_m=0.0002",
    ]
    assert main([*asked, "--out", str(tmp_path / "bag")]) == 0
    first = messages(tmp_path / "bag")["/ground_truth/depth"][0]
    assert first.encoding == "32FC1"
    metres = np.frombuffer(first.data.tobytes(), np.float32).reshape(SIZE)
    assert np.isnan(metres[0, 0]) and np.allclose(metres[1:], 1.0)


def test_labels_and_numbers_hold_for_their_own_image_only(tmp_path, capsys):
    rows = [("a", "red", "0.5"), ("b", "", "1.5"), ("c", "green", "")]
    for i, (name, *_) in enumerate(rows):
        write_image(tmp_path / "data" / f"{name}.png", i)
    with (tmp_path / "data" / "labels.csv").open("w") as file:
        csv.writer(file).writerows(
            [("image", "label", "speed"), *((f"{n}.png", *r) for n, *r in rows)]
        )
    asked = ["make-bag", "--data", "labels_csv", str(tmp_path / "data"), "--option"]
    assert main([*asked, "truth=number:speed", "--out", str(tmp_path / "bag")]) == 0
    out = capsys.readouterr()
    assert "2 labels, 2 numbers of speed" in out.out
    assert "1 image has no speed" in out.err and "number_hold_s" in out.err
    options = {"label_topic": "/ground_truth/label", "numbers": "speed=/ground_truth/speed:data"}
    after = open_dataset("rosbag", str(tmp_path / "bag"), number_hold_s=0.01, **options)
    got = sorted((s.stamp_ns, s.label, s.truth.get("number:speed")) for s in after.samples)
    assert [row[1:] for row in got] == [("red", 0.5), (None, 1.5), ("green", None)]


def test_truth_of_another_size_is_named_and_left_out(tmp_path, capsys):
    data = masks(tmp_path / "data")
    cv2.imwrite(str(data / "masks" / "1.png"), np.ones((5, 6), np.uint8))
    asked = ["make-bag", "--data", "mask_folder", str(data), "--out", str(tmp_path / "bag")]
    assert main(asked) == 1
    out = capsys.readouterr()
    assert "6 x 5 pixels" in out.err and "2 images of segmentation; 1 file left out" in out.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give a folder of images, or a data set"),
        (["folder", "--data", "mask_folder", "x"], "Give a folder of images, or a data set"),
        (["folder", "--split", "test"], "--option and --split belong to a data set"),
        (["folder", "--option", "a=b"], "--option and --split belong to a data set"),
        (["--data", "mask_folder", "DATA", "--split", "test"], "has no test images"),
        (["--data", "mask_folder", "DATA", "--rate", "0"], "--rate is 0"),
        (["--data", "mask_folder", "DATA", "--rate", "nan"], "--rate is nan"),
        (["IMAGES", "--rate", "1e-300"], "--rate is 1e-300"),
        (["IMAGES", "--rate", "1e300"], "--rate is 1e+300"),
        (["IMAGES", "--topic", "a b"], "--topic is 'a b'"),
        (["IMAGES", "--topic", ""], "--topic is ''"),
        (["IMAGES", "--pose-topic", "/a//b"], "--pose-topic is '/a//b'"),
        (["IMAGES", "--pose-topic", "/camera/image_raw"], "are both /camera/image_raw"),
        (["IMAGES", "--camera-info", "nan", "1", "2", "3"], "--camera-info is nan 1 2 3"),
        (["IMAGES", "--camera-info", "-1", "1", "2", "3"], "--camera-info is -1 1 2 3"),
    ],
)
def test_arguments_that_do_not_go_together_are_one_line(tmp_path, capsys, arguments, said):
    data = masks(tmp_path / "data")
    places = {"DATA": str(data), "IMAGES": str(data / "images")}
    asked = [places.get(a, a) for a in arguments]
    assert main(["make-bag", *asked, "--out", str(tmp_path / "bag")]) == 2
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in err and not (tmp_path / "bag").exists()


def test_camvid_becomes_a_bag_of_the_same_masks(data_dir, tmp_path):
    asked = ["make-bag", "--data", "camvid", str(data_dir / "camvid"), "--split", "validation"]
    assert main([*asked, "--limit", "5", "--out", str(tmp_path / "bag")]) == 0
    before = open_dataset("camvid", str(data_dir / "camvid"))
    after = open_dataset(
        "rosbag", str(tmp_path / "bag"), truth_images="segmentation=/ground_truth/segmentation"
    )
    word = "image:segmentation"
    assert after.labels_of(word) == before.labels_of(word)
    for new, old in zip(after.samples, before.validation, strict=False):
        pair = [true_values(s.truth[word], "uint8", 255) for s in (new, old)]
        np.testing.assert_array_equal(*pair)


@pytest.mark.parametrize("stamp", ["nan", "-5", "1e30"])
def test_a_start_that_no_stamp_can_hold_is_refused(tmp_path, capsys, stamp):
    images = masks(tmp_path / "data") / "images"
    asked = ["make-bag", str(images), "--out", str(tmp_path / "bag"), f"--start-stamp={stamp}"]
    with pytest.raises(SystemExit) as refused:
        main(asked)
    assert refused.value.code == 2 and not (tmp_path / "bag").exists()
    assert "it must be from 0 to 2000000000" in capsys.readouterr().err
