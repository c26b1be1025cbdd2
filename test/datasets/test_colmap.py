"""COLMAP models against a camera made of directions, and what is wrong with them."""

import re
import shutil

import numpy as np
import pytest
from tiny_datasets import POINT, camera, colmap, turn_by_exif, write_image

from robot_vision.datasets import open_dataset
from robot_vision.errors import SourceError


def test_names_written_on_windows_are_those_of_the_images(tmp_path):
    colmap(tmp_path, 4, "txt")
    file = tmp_path / "sparse/0/images.txt"
    file.write_text(file.read_text().replace("walk/", "walk\\"))
    (sequence,) = {s.sequence for s in open_dataset("colmap", tmp_path, split="train").train}
    assert sequence == "walk"


@pytest.mark.parametrize("form", ["bin", "txt"])
def test_poses_see_the_point_and_cameras_are_read(tmp_path, form):
    colmap(tmp_path, 8, form)
    splits = open_dataset("colmap", tmp_path, split="train")
    assert [s.name for s in splits.train] == [f"walk/{i:03}.png" for i in range(8)]
    for i, sample in enumerate(splits.train):
        cam = camera(i)
        np.testing.assert_allclose(
            cam.sees(sample.T_map_camera, POINT), cam.coordinates(POINT), atol=1e-6
        )
        assert sample.source.load().shape == (24, 32, 3)
    np.testing.assert_array_equal(splits.camera_matrix, [[30, 0, 16], [0, 31, 12], [0, 0, 1]])
    assert splits.notes[-1].startswith("positions are in the model's unit")
    doubled = open_dataset("colmap", tmp_path / "sparse/0", split="train", scale=2)
    np.testing.assert_allclose(doubled.train[3].T_map_camera[:3, 3], 2 * camera(3).centre)
    assert {s.sequence for s in splits.train} == {"walk"}


@pytest.mark.parametrize(
    ("model", "params", "K", "said"),
    [
        (0, (30, 16, 12), [30, 30, 16, 12], None),
        (2, (30, 16, 12, 0.0), [30, 30, 16, 12], None),
        (2, (30, 16, 12, 0.1), [30, 30, 16, 12], r"camera 7 \(SIMPLE_RADIAL\) has lens distortion"),
        (4, (30, 31, 16, 12, 0.1, 0, 0, 0), [30, 31, 16, 12], r"\(OPENCV\) has lens distortion"),
        (
            5,
            (30, 31, 16, 12, 0, 0, 0, 0),
            None,
            "camera 7 is OPENCV_FISHEYE.*its 4 images have no camera",
        ),
    ],
)
@pytest.mark.parametrize("form", ["bin", "txt"])
def test_cameras_are_used_or_refused_by_name(tmp_path, form, model, params, K, said):
    colmap(tmp_path, 4, form, model, params)
    splits = open_dataset("colmap", tmp_path)
    found = splits.camera_matrix
    assert found is None if K is None else [found[i] for i in ((0, 0), (1, 1), (0, 2), (1, 2))] == K
    notes = [note for note in splits.notes if "camera 7" in note]
    assert len(notes) == (said is not None)
    if said:
        assert re.search(said, notes[0])


def test_images_of_another_size_scale_the_camera_or_are_refused(tmp_path):
    colmap(tmp_path, 4)
    for i in range(4):
        write_image(tmp_path / f"images_2/walk/{i:03}.png", i, (48, 64))
    splits = open_dataset("colmap", tmp_path, images="images_2")
    np.testing.assert_array_equal(splits.camera_matrix, [[60, 0, 32], [0, 62, 24], [0, 0, 1]])
    assert any("32 x 24 pixels and its images of 64 x 48" in note for note in splits.notes)
    for i in range(4):
        write_image(tmp_path / f"cropped/walk/{i:03}.png", i, (24, 24))
    with pytest.raises(SourceError, match="32 x 24 pixels, and .*000.png has 24 x 24"):
        open_dataset("colmap", tmp_path, images="cropped")


def test_phone_pictures_are_turned_where_the_camera_is_of_the_turned_size(tmp_path):
    colmap(tmp_path, 4, "txt")
    turn_by_exif(tmp_path / "images/walk")
    stored = open_dataset("colmap", tmp_path)
    assert stored.samples[0].source.load().shape == (24, 32, 3)
    assert any(
        "4 image files have an EXIF orientation, which is not applied" in n for n in stored.notes
    )
    cameras = tmp_path / "sparse/0/cameras.txt"
    cameras.write_text("7 PINHOLE 24 32 30 31 12 16\n")
    turned = open_dataset("colmap", tmp_path)
    assert turned.samples[0].source.load().shape == (32, 24, 3)
    np.testing.assert_array_equal(turned.camera_matrix, [[30, 0, 12], [0, 31, 16], [0, 0, 1]])
    assert any("4 image files lie on their side" in note for note in turned.notes)


def test_what_the_model_or_the_folder_lacks_is_counted(tmp_path):
    colmap(tmp_path, 6)
    (tmp_path / "images/walk/002.png").rename(tmp_path / "images/walk/extra.png")
    splits = open_dataset("colmap", tmp_path)
    assert len(splits.samples) == 5
    assert any(
        "1 frame skipped, whose image does not exist: walk/002.png" in n for n in splits.notes
    )
    assert any(
        n.startswith("1 image is in the folders of the listed images but in no list")
        for n in splits.notes
    )
    assert "points3D.bin is not used" in splits.notes
    shutil.copytree(tmp_path / "sparse/0", tmp_path / "sparse/1")
    with pytest.raises(
        SourceError, match=r"2 models \(sparse/0, sparse/1\).*give the folder of one"
    ):
        open_dataset("colmap", tmp_path)
    assert len(open_dataset("colmap", tmp_path / "sparse/1").samples) == 5


@pytest.mark.parametrize("file", ["cameras.bin", "images.bin"])
def test_a_cut_or_strange_binary_file_is_named(tmp_path, file):
    colmap(tmp_path, 3)
    whole = (tmp_path / "sparse/0" / file).read_bytes()
    for size in (0, 7, 9, len(whole) - 60, len(whole) - 1):
        (tmp_path / "sparse/0" / file).write_bytes(whole[:size])
        with pytest.raises(SourceError, match=f"{file} ends at byte {size}"):
            open_dataset("colmap", tmp_path)
    (tmp_path / "sparse/0" / file).write_bytes(whole + b"\0\0")
    with pytest.raises(SourceError, match=f"{file} has 2 bytes more"):
        open_dataset("colmap", tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("cameras.txt", "PINHOLE", "HOLE", "cameras.txt:2: camera model HOLE is not known"),
        ("cameras.txt", " 31 ", " ", "cameras.txt:2: PINHOLE has 4 parameters, and there are 3"),
        ("cameras.txt", "7 P", "8 P", "images.txt:.* is of camera 7, which is not in cameras.txt"),
        ("images.txt", " 7 walk/001.png", "", "images.txt:.*an image is 'id qw"),
        ("images.txt", "\n2 0.", "\n2 9.", "images.txt:.*has length 9"),
        ("images.txt", "\n2 0.", "\n2 nan 0.", "images.txt:.*all must be finite"),
    ],
)
def test_a_bad_line_is_named(tmp_path, file, old, new, message):
    colmap(tmp_path, 3, "txt")
    path = tmp_path / "sparse/0" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SourceError, match=message):
        open_dataset("colmap", tmp_path)


def test_text_without_its_empty_lines_and_of_windows_loses_no_image(tmp_path):
    colmap(tmp_path, 6, "txt")
    path = tmp_path / "sparse/0/images.txt"
    lines = [line for line in path.read_text().splitlines() if line]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert len(open_dataset("colmap", tmp_path).samples) == 6


def test_what_is_there_twice_or_not_at_all_is_named(tmp_path):
    colmap(tmp_path, 3, "txt")
    file = tmp_path / "sparse/0/images.txt"
    text = file.read_text()
    file.write_text(text.replace("walk/001", "walk/002"))
    with pytest.raises(SourceError, match="image walk/002.png occurs 2 times"):
        open_dataset("colmap", tmp_path)
    file.write_text("# Number of images: 4, mean observations per image: 2\n" + text)
    with pytest.raises(SourceError, match="says that it has 4 images, and it has 3"):
        open_dataset("colmap", tmp_path)
