"""`robot-vision map`: from bags and data sets to maps, and what is done with them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluation_bags import START, write_bag
from place_maps import keyframe, make_map, server, server_uri, unit
from scipy.spatial.transform import Rotation
from tiny_bundle import make_tiny_bundle
from tiny_datasets import camera, seven_scenes

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main
from robot_vision.datasets.colmap_model import read_model
from robot_vision.geometry.rigid import pose_matrix
from robot_vision.pipeline import Pipeline
from robot_vision.places.map.aligning import align_maps
from robot_vision.places.map.base import MapError
from robot_vision.places.map.copying import merge_map
from robot_vision.places.map.opening import create_map, create_map_for, open_map
from robot_vision.places.recognition.known_places import learned_speed
from robot_vision.places.verification.features import LocalFeatures
from robot_vision.places.verification.structure import KeyframeStructure
from robot_vision.recordings.writing import RecordingWriter

__all__ = ["server", "server_uri"]  # fixtures
STEP_M = 0.1
BY_DISTANCE = ("--similarity", "0", "--engine", "onnx")


def drive_bag(path: Path, count: int, start: int = START) -> Path:
    """Writes a camera that moves STEP_M along x in each frame and sees other colours everywhere."""
    with RecordingWriter(path) as bag:
        for i in range(count):
            stamp = start + i * 100_000_000
            bag.camera_pose("/slam/pose", stamp, (STEP_M * i, 1.0, 0.5), (0.0, 0.0, 0.0, 1.0))
            colour = 127 + 100 * np.sin([0.01 * i, 0.023 * i, 0.037 * i + 1])
            bag.image("/front/image", stamp, "front", np.full((32, 48, 3), colour, np.uint8))
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drive_bag(tmp_path_factory.mktemp("bags") / "drive", 40)


def map_verb(*arguments: object) -> int:
    return main(["map", *map(str, arguments)])


def rows(path: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    capsys.readouterr()
    assert map_verb("export", path) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_build_takes_a_keyframe_after_each_distance(
    tmp_path: Path, bundle: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "home.map"
    sigma = ("--sigma", "0.05", "2")
    assert map_verb("build", path, bag, "--model", bundle, *BY_DISTANCE, *sigma) == 0
    assert "14 keyframes added from 40 of 40 images; 14 in the map" in capsys.readouterr().out
    with open_map(path) as places:
        keyframes = list(places.keyframes())
        assert places.info.frame_id == "map" and places.info.bundle_name == "tiny"
    frames = range(0, 40, 3)  # 0.25 m are passed with the third step
    assert [k.stamp_ns for k in keyframes] == [START + i * 100_000_000 for i in frames]
    np.testing.assert_allclose([k.position for k in keyframes], [(0.1 * i, 1, 0.5) for i in frames])
    assert {(k.camera, k.source) for k in keyframes} == {("/front/image", "drive")}
    variances = [0.05**2] * 3 + [np.radians(2) ** 2] * 3
    np.testing.assert_allclose(keyframes[3].covariance, np.diag(variances))
    with Pipeline.load(bundle, engine="onnx") as pipeline:
        colour = 127 + 100 * np.sin([0.01 * 9, 0.023 * 9, 0.037 * 9 + 1])
        seen = pipeline([np.full((32, 48, 3), colour, np.uint8)])[0]["place"].values
    np.testing.assert_allclose(keyframes[3].descriptor, seen, atol=1e-6)
    assert keyframes[3].thumbnail is not None
    picture = cv2.imdecode(np.frombuffer(keyframes[3].thumbnail, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_allclose(picture[16, 24, ::-1], colour, atol=4)


def test_build_reads_a_data_set_and_finds_out_its_format(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = seven_scenes(tmp_path / "scene", 12)
    path = tmp_path / "m"
    options = ("--distance", "0.01", "--dtype", "float16", "--name", "first")
    assert map_verb("build", path, folder, "--model", bundle, *BY_DISTANCE, *options) == 0
    with open_map(path) as places:
        assert len(places) == 12 and places.info.descriptor_dtype == "float16"
        for i, keyframe in enumerate(places.keyframes()):
            point = np.array([4.0, -1.0, 0.5])
            np.testing.assert_allclose(
                camera(i).sees(keyframe.T_map_camera, point),
                camera(i).coordinates(point),
                atol=1e-5,
            )
            assert keyframe.source == "first"


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_stopped_goes_on_to_the_same_map(
    tmp_path: Path, bundle: Path, kill: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    long = drive_bag(tmp_path / "long", 800)
    once, twice = tmp_path / "once", tmp_path / "twice"
    arguments = (long, "--model", bundle, "--engine", "onnx", "--distance", "0.05")
    command = [sys.executable, "-m", "robot_vision.cli", "map", "build", twice, *arguments]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        end = time.monotonic() + 60
        count = 0
        while count < 40 and time.monotonic() < end:
            if twice.exists():
                with open_map(twice, "read") as places:
                    count = len(places)
            time.sleep(0.01)
        process.send_signal(kill)
        said, _ = process.communicate(timeout=60)
    if kill == signal.SIGINT:
        assert process.returncode == 130
        assert "stopped; the same command continues from here" in said
    with open_map(twice) as places:
        stopped_at = len(places)
        places.check()
    assert 40 <= stopped_at < 800, "it was not stopped halfway"
    assert map_verb("build", twice, *arguments) == 0
    assert f"{stopped_at} were there" in capsys.readouterr().out
    assert map_verb("build", once, *arguments) == 0
    assert rows(once, capsys) == rows(twice, capsys)
    with open_map(once) as a, open_map(twice) as b:
        np.testing.assert_array_equal(a.descriptors()[1], b.descriptors()[1])


def moved_scene(folder: Path, count: int, same_start: bool = False) -> Path:
    """Writes other frames of another place, in files of the same names; perhaps from the same pose on."""
    seven_scenes(folder, count)
    for i in range(count):
        image = np.random.default_rng(100 + i).integers(0, 256, (24, 32, 3), np.uint8)
        cv2.imwrite(str(folder / f"frame-{i:06}.color.png"), image)
        if same_start and i == 0:
            continue
        pose = folder / f"frame-{i:06}.pose.txt"
        T = np.loadtxt(pose)
        T[:3, 3] += (20, 5, 1)
        np.savetxt(pose, T)
    return folder


@pytest.mark.parametrize("same_start", [False, True])
def test_two_recordings_of_one_name_are_both_kept(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], same_start: bool
) -> None:
    """Frames without stamps are numbered, so those of both have the same source, camera and number."""
    first = seven_scenes(tmp_path / "monday" / "scene", 3)
    second = moved_scene(tmp_path / "tuesday" / "scene", 3, same_start)
    path, other = tmp_path / "home.map", tmp_path / "other.map"
    options = ("--model", bundle, *BY_DISTANCE, "--distance", "0.01")
    assert map_verb("build", path, first, *options) == 0
    assert map_verb("build", path, second, *options) == 2
    assert "has other keyframes of a recording named 'scene'" in capsys.readouterr().err
    for added, known in ((3, 0), (0, 3)):
        assert map_verb("add", path, second, *options) == 0
        told = capsys.readouterr().out
        assert f"{added} keyframes added" in told and "'scene' is kept as 'scene (2)'" in told
        assert (f"{known} were there" in told) == bool(known)
    assert map_verb("add", path, first, *options) == 0
    assert "0 keyframes added" in capsys.readouterr().out
    assert [row["source"] for row in rows(path, capsys)] == ["scene"] * 3 + ["scene (2)"] * 3

    assert map_verb("build", other, second, *options) == 0
    target = tmp_path / "merged.map"
    assert map_verb("build", target, first, *options) == 0
    capsys.readouterr()
    assert map_verb("merge", target, other, "--dry-run") == 0
    assert "3 of 3 keyframes would be merged" in capsys.readouterr().out
    for added in (3, 0):
        assert map_verb("merge", target, other) == 0
        told = capsys.readouterr().out
        assert f"{added} keyframes added" in told and "'scene' is kept as 'scene (2)'" in told
    assert len(rows(target, capsys)) == 6


def test_poses_that_have_changed_since_are_counted_and_left(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = seven_scenes(tmp_path / "scene", 3), tmp_path / "home.map"
    options = ("--model", bundle, *BY_DISTANCE, "--distance", "0.01")
    assert map_verb("build", path, folder, *options) == 0
    before = rows(path, capsys)
    for pose in folder.glob("*.pose.txt"):
        T = np.loadtxt(pose)
        T[:3, 3] += 1
        np.savetxt(pose, T)
    assert map_verb("build", path, folder, *options) == 0
    told = capsys.readouterr().out
    assert "0 keyframes added" in told and "3 of those that were there have other poses" in told
    assert rows(path, capsys) == before


def test_long_names_that_begin_alike_stay_apart(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "home.map"
    options = ("--model", bundle, *BY_DISTANCE, "--distance", "0.01")
    folder = seven_scenes(tmp_path / "scene", 2)
    for verb, end in (("build", "a"), ("add", "b")):
        assert map_verb(verb, path, folder, *options, "--name", "x" * 250 + end) == 0
    assert len({row["source"] for row in rows(path, capsys)}) == 2


def test_images_without_stamps_teach_no_speed_and_get_no_time(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = seven_scenes(tmp_path / "scene", 30), tmp_path / "home.map"
    tum, geojson = tmp_path / "m.tum", tmp_path / "m.geojson"
    options = ("--model", bundle, *BY_DISTANCE, "--distance", "0.01")
    assert map_verb("build", path, folder, *options) == 0
    table = rows(path, capsys)
    assert {row["stamp_ns"] for row in table} == {""} and len(table) == 30
    with open_map(path) as places:
        poses = places.poses()
        assert np.all(np.diff(poses.stamps_ns) > 0)
        streams = np.array(poses.sources)
        assert learned_speed(poses.stamps_ns, poses.positions, streams) is None
        times = np.arange(30) * 100_000_000
        known = learned_speed(times, poses.positions, streams)
    assert known is not None and known > 0
    assert map_verb("export", path, "--output", tum) == 0
    lines = tum.read_text().splitlines()
    assert lines[1] == "# 30 keyframes of 'scene' have no stamps: they are numbered"
    assert [line.split()[0] for line in lines[2:]] == [f"{i}.000000000" for i in range(1, 31)]
    assert map_verb("export", path, "--output", geojson) == 0
    features = json.loads(geojson.read_text())["features"]
    assert {f["properties"]["stamp_ns"] for f in features} == {None}
    capsys.readouterr()
    assert map_verb("info", path, "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["first_ns"], info["without_stamps"]) == (None, 30)


def test_a_map_with_structure_is_exported_as_a_colmap_model_whose_points_lie_where_they_were_seen(
    tmp_path: Path, bundle: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "home.map", tmp_path / "model"
    export = ("export", path, "--format", "colmap", "--output")
    assert map_verb("build", path, bag, "--model", bundle, *BY_DISTANCE, "--name", "a drive") == 0
    assert map_verb(*export, out) == 2 and "--structure" in capsys.readouterr().err
    world = np.random.default_rng(0).uniform(
        (-1, -1, 3), (1, 1, 5), (30, 3)
    )  # in each camera's view
    with open_map(path, "write") as places:
        kept = list(places.keyframes())[:-1]
        for k in kept:
            points = world.astype(np.float32)
            points[::3] = np.nan
            rays = world[:, :2] / world[:, 2:]
            features = LocalFeatures("sift", rays, np.zeros((30, 128), np.uint8), 500.0)
            sigma = np.full(30, 0.1, np.float32)
            content = KeyframeStructure(features, points, sigma).to_bytes()
            places.set_structure(k.keyframe_id, content)
    for wrong in ("-", path):
        assert map_verb(*export, wrong) == 2
    assert map_verb(*export, out) == 0
    said = capsys.readouterr()
    assert map_verb(*export, out) == 2  # files of another model among these would be read with them
    assert "1 keyframe without structure left out" in said.err and "13 keyframes" in said.out
    cameras, images = read_model(out, [])
    matrix, lines = cameras[1].matrix, (out / "images.txt").read_text().splitlines()
    found = {int(n): np.array(v, float) for n, *v in map(str.split, points_of(out))}
    assert matrix is not None and len(found) == 20 * 13 and len(cameras) == 1
    for k, image, seen in zip(kept, images, lines[2::2], strict=True):
        assert image.name == f"a_drive/front/image/{k.stamp_ns}.jpg"
        T = np.linalg.inv(k.T_map_camera)
        w, x, y, z, *at = image.values
        np.testing.assert_allclose(
            Rotation.from_quat([x, y, z, w]).as_matrix(), T[:3, :3], atol=1e-9
        )
        np.testing.assert_allclose(at, T[:3, 3], atol=1e-9)
        features = np.array(seen.split(), float).reshape(-1, 3)
        assert np.all(
            (features[:, :2] > 0) & (features[:, :2] < (cameras[1].width, cameras[1].height))
        )
        assert (features[::3, 2] == -1).all() and len(features) == 30
        for u, v, number in features[features[:, 2] >= 0]:
            point, track = found[int(number)][:3], found[int(number)][7:]
            pixel = matrix @ (T[:3, :3] @ point + T[:3, 3])
            np.testing.assert_allclose(pixel[:2] / pixel[2], (u, v), atol=0.01)
            assert lines[1:][2 * (int(track[0]) - 1)].endswith(image.name)
            assert tuple(features[int(track[1]), :2]) == (u, v)


def points_of(folder: Path) -> list[str]:
    """Returns the lines of a COLMAP model's points."""
    return (folder / "points3D.txt").read_text().splitlines()[1:]


@pytest.mark.slow
def test_add_refuses_another_model_frame_or_mistake_in_one_line(
    tmp_path: Path, bundle: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "home.map"
    assert map_verb("build", path, bag, "--model", bundle, *BY_DISTANCE) == 0
    other = make_tiny_bundle(tmp_path / "other", name="other-net")
    headless = make_tiny_bundle(tmp_path / "headless", heads=("classifier",), name="headless")
    second = drive_bag(tmp_path / "second", 10, START + 10**12)
    hall = seven_scenes(tmp_path / "hall", 2)
    no_poses = write_bag(tmp_path / "no_poses", 3, poses=False)
    bad = (
        (("add", path, second, "--model", other), "cannot be compared"),
        (("build", tmp_path / "x", second, "--model", headless), "no place head"),
        (("add", tmp_path / "none", second, "--model", bundle), "does not exist"),
        (("build", path, second, "--model", bundle), "use robot-vision map add"),
        (("add", path, hall, "--model", bundle, "--option", "map_frame=hall"), "in frame 'hall'"),
        (
            ("evaluate", path, hall, "--model", bundle, "--option", "map_frame=hall"),
            "pose_source=tf",
        ),
        (("build", tmp_path / "x", no_poses, "--model", bundle), "pose"),
        (
            ("build", tmp_path / "x", bag, "--model", bundle, "--features", "f"),
            "without --structure",
        ),
        (
            ("build", tmp_path / "x", bag, "--model", bundle, "--thumbnail", "-1"),
            "--thumbnail is -1",
        ),
        (
            ("build", tmp_path / "x", bag, "--model", bundle, "--device", "moon"),
            "'moon' is not there",
        ),
        (("build", path, bag, "--model", bundle, "--dtype", "float16"), "descriptors of float32"),
        (("build", tmp_path / "x", tmp_path, "--model", bundle, "--split", "al"), "mean 'all'"),
        (("build", tmp_path / "x", bundle, "--model", bundle), "name its format with --kind"),
        (("add", path, second, "--model", bundle, "--distance", "-1"), "distance_m is -1.0"),
        (("add", path, second, "--model", bundle, "--sigma", "0", "1"), "--sigma"),
        (("add", path, second, "--model", bundle, "--structure"), "camera's matrix"),
    )
    for arguments, message in bad:
        assert map_verb(*arguments) == 2, arguments
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in error, (arguments, error)
    assert not (tmp_path / "x").exists()
    assert map_verb("add", path, second, "--model", bundle, *BY_DISTANCE) == 0
    assert "4 keyframes added" in capsys.readouterr().out
    with open_map(path) as places:
        assert set(places.poses().sources) == {"drive", "second"} and len(places) == 18


def test_info_export_check_and_show_agree(
    tmp_path: Path, bundle: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "home.map"
    map_verb("build", path, bag, "--model", bundle, *BY_DISTANCE)
    capsys.readouterr()
    assert map_verb("info", path, "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert info["keyframes"] == 14 and info["sources"] == {"drive": 14}
    np.testing.assert_allclose(info["extent_m"], [3.9, 0, 0])
    assert map_verb("info", path) == 0 and "tiny" in capsys.readouterr().out
    assert map_verb("check", path) == 0
    assert "14 keyframes, all as they were written" in capsys.readouterr().out

    table = rows(path, capsys)
    tum, geojson = tmp_path / "m.tum", tmp_path / "m.geojson"
    assert map_verb("export", path, "--output", tum) == 0
    assert map_verb("export", path, "--output", geojson) == 0
    file_interface = pytest.importorskip("evo.tools.file_interface")

    trajectory = file_interface.read_tum_trajectory_file(str(tum))
    positions = [[float(row[axis]) for axis in "xyz"] for row in table]
    np.testing.assert_allclose(trajectory.positions_xyz, positions, atol=1e-9)
    np.testing.assert_allclose(trajectory.timestamps, [int(r["stamp_ns"]) / 1e9 for r in table])
    features = json.loads(geojson.read_text())["features"]
    assert [f["geometry"]["coordinates"] for f in features] == positions
    np.testing.assert_allclose(features[0]["properties"]["looks_along"], [0, 0, 1])

    assert map_verb("show", path, "--size", "400") == 0
    picture = cv2.imread(f"{path}.png")
    assert picture.shape == (400, 400, 3)
    blue = np.all(picture[..., ::-1] == (0, 114, 178), axis=-1)
    assert cv2.connectedComponents(blue.astype(np.uint8))[0] - 1 >= 14
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["home.map", "home.map.png", "m.tum", "m.geojson"]
    )
    assert map_verb("show", path, "--output", tmp_path / "a.jpg") == 2
    assert map_verb("export", path, "--output", tmp_path / "home.map" / "x") == 2


def test_an_empty_map_is_shown_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "empty"
    create_map(path, bundle_name="b", bundle_sha256="00", dimension=4).close()
    for verb in ("info", "check", "show", "export"):
        assert map_verb(verb, path) == 0, verb
    for form in ("tum", "geojson"):
        assert map_verb("export", path, "--format", form) == 0
    assert map_verb("prune", path, "--distance", "1") == 0
    assert "0 of 0 keyframes removed" in capsys.readouterr().out


def test_a_damaged_map_is_refused_by_check_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "home.map"
    with make_map(path) as places:
        places.add_many(keyframe(i) for i in range(3))
    path.write_bytes(path.read_bytes().replace(unit(1).tobytes(), unit(2).tobytes()))
    assert map_verb("check", path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "keyframe 2 is not as it was written" in line


@pytest.mark.slow
def test_prune_thins_out_and_removes_recordings(
    tmp_path: Path, bundle: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "home.map"
    second = drive_bag(tmp_path / "second", 40, START + 10**12)
    dense = (*BY_DISTANCE, "--distance", "0.05")
    map_verb("build", path, bag, "--model", bundle, *dense)
    map_verb("add", path, second, "--model", bundle, *dense)
    thin = ("prune", path, "--distance", "0.25", "--similarity", "0")
    before = path.stat().st_size
    assert map_verb(*thin, "--dry-run") == 0
    assert "66 of 80 keyframes would be removed" in capsys.readouterr().out
    assert map_verb(*thin) == 0
    assert "66 of 80 keyframes removed; 14 are left" in capsys.readouterr().out
    assert path.stat().st_size < before
    assert {row["source"] for row in rows(path, capsys)} == {"drive"}

    map_verb("add", path, second, "--model", bundle, *dense)
    assert map_verb(*thin, "--newest") == 0
    capsys.readouterr()
    assert {row["source"] for row in rows(path, capsys)} == {"second"}
    number = rows(path, capsys)[0]["id"]
    assert map_verb("prune", path, "--ids", number) == 0
    assert map_verb("prune", path, "--ids", number) == 2
    assert map_verb("prune", path, "--source", "secnd") == 2
    assert "did you mean 'second'" in capsys.readouterr().err
    assert map_verb("prune", path) == 2
    assert map_verb("prune", path, "--source", "second") == 0
    assert rows(path, capsys) == []


def test_a_copy_by_hand_that_grew_is_merged(
    tmp_path: Path, bundle: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    map_verb("build", a, bag, "--model", bundle, *BY_DISTANCE)
    shutil.copy(a, b)
    second = drive_bag(tmp_path / "second", 40, START + 10**12)
    map_verb("add", b, second, "--model", bundle, *BY_DISTANCE, "--revisits")
    capsys.readouterr()
    assert map_verb("merge", a, b) == 0
    assert "14 keyframes added, 14 were there; 28 in" in capsys.readouterr().out
    (tmp_path / "link").symlink_to(a)
    assert map_verb("merge", a, tmp_path / "link") == 2
    assert "are the same map" in capsys.readouterr().err
    assert map_verb("info", tmp_path) == 2
    assert "is a folder and no map: name the map's file" in capsys.readouterr().err


@pytest.mark.slow
def test_merge_needs_to_know_how_frames_lie(
    tmp_path: Path, bundle: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    second = drive_bag(tmp_path / "second", 40, START + 10**12)
    map_verb("build", a, bag, "--model", bundle, *BY_DISTANCE)
    hall = ("--option", "map_frame=hall", "--option", "pose_topic=/slam/pose")
    folder = seven_scenes(tmp_path / "scene", 12)
    map_verb("build", b, folder, "--model", bundle, *BY_DISTANCE, *hall[:2])
    capsys.readouterr()
    assert map_verb("merge", a, b) == 2
    assert "give --transform, or --align" in capsys.readouterr().err
    assert map_verb("merge", a, b, "--align") == 2
    assert "cannot be aligned" in capsys.readouterr().err
    quarter = np.sqrt(0.5)
    transform = ("--transform", 10, 0, 0, 0, 0, quarter, quarter)
    assert map_verb("merge", a, b, *transform) == 0
    assert "keyframes added" in capsys.readouterr().out
    with open_map(a) as places, open_map(b) as other:
        x, y, z = other.get(1).position
        np.testing.assert_allclose(places.get(15).position, (10 - y, x, z), atol=1e-9)
    assert map_verb("merge", a, b, "--transform", 0, 0, 0, 1, 1, 0, 0) == 2
    assert "quaternion" in capsys.readouterr().err
    c = tmp_path / "c"
    map_verb("build", c, second, "--model", bundle, *BY_DISTANCE)
    assert map_verb("merge", a, c) == 0
    assert "14 keyframes added" in capsys.readouterr().out


@pytest.mark.slow
def test_copy_takes_a_map_to_the_server_and_back(
    tmp_path: Path, bundle: Path, bag: Path, server_uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, back = tmp_path / "home.map", tmp_path / "back.map"
    map_verb("build", path, bag, "--model", bundle, *BY_DISTANCE)
    assert map_verb("copy", path, server_uri, "--server-index") == 0
    assert map_verb("add", server_uri, drive_bag(tmp_path / "b2", 9, START + 10**12),
                    "--model", bundle, *BY_DISTANCE) == 0  # fmt: skip
    assert map_verb("copy", server_uri, back) == 0
    assert "17 keyframes copied" in capsys.readouterr().out
    assert rows(path, capsys) == rows(back, capsys)[:14]
    assert map_verb("info", server_uri) == 0
    assert map_verb("copy", path, back) == 2
    assert map_verb("copy", path, tmp_path / "y", "--server-index") == 2


@pytest.mark.slow
def test_two_maps_of_a_real_kitchen_are_aligned(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two maps of different minutes of one kitchen; the second lies somewhere else altogether."""
    demo = Path(__file__).resolve().parents[2] / "models" / "demo"
    dense = ("--model", demo, "--option", "validation=0", "--distance", "0.1", "--angle", "5")
    for split in ("train", "test"):
        arguments = (data_dir / "kitchen", *dense, "--split", split, "--name", split)
        assert map_verb("build", tmp_path / split, *arguments) == 0
    T = pose_matrix(
        np.array([5.0, -2.0, 1.0]), Rotation.from_euler("zyx", (130, 20, -10), True).as_quat()
    )
    with open_map(tmp_path / "train") as target, open_map(tmp_path / "test") as test:
        info = test.info
        away = create_map(
            tmp_path / "away",
            bundle_name=info.bundle_name,
            bundle_sha256=info.bundle_sha256,
            dimension=info.dimension,
        )
        merge_map(away, test, T)
        found = align_maps(target, away)
        error = found.T_target_source @ T
        turn = Rotation.from_matrix(error[:3, :3]).magnitude()
        assert np.linalg.norm(error[:3, 3]) < 0.05 and np.degrees(turn) < 4
        assert found.agreeing > 0.7 * found.matches and found.error_m < 0.15
        away.close()
        stranger = create_map(
            tmp_path / "stranger",
            bundle_name=info.bundle_name,
            bundle_sha256=info.bundle_sha256,
            dimension=info.dimension,
        )
        rng = np.random.default_rng(0)
        with stranger:
            for keyframe in test.keyframes():  # the same places, strewn about
                T = pose_matrix(rng.uniform(-20, 20, 3), rng.normal(size=4))
                moved = keyframe.__class__.checked(
                    stamp_ns=keyframe.stamp_ns, camera="c", source="s", T_map_camera=T,
                    descriptor=keyframe.descriptor,
                )  # fmt: skip
                stranger.add(moved)
            with pytest.raises(MapError, match="cannot be aligned"):
                align_maps(target, stranger)


@pytest.mark.slow
def test_matrix_that_does_not_fit_is_refused_with_numbers_and_the_right_one_goes_on(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = Path(__file__).resolve().parents[2] / "models" / "demo"
    few = tmp_path / "few"
    few.mkdir()
    for file in sorted((data_dir / "kitchen").iterdir())[: 2 * 120 + 2]:
        os.symlink(file, few / file.name)
    path = tmp_path / "m"
    command = ("build", path, few, "--model", demo, "--structure", "--distance", "0.05", "--option")
    assert map_verb(*command, "camera_matrix=1050,1050,320,240") == 2
    said = capsys.readouterr().err
    assert "matrix does not fit" in said and "0.5 times" in said and "camera_matrix=" in said
    assert map_verb(*command, "camera_matrix=525,525,320,240") == 0
    out = capsys.readouterr().out
    assert "points a keyframe" in out and "of matches fit the poses" in out
    with open_map(path) as places:
        assert places.structure_ids().tolist() == places.poses().ids.tolist()


@pytest.mark.slow
def test_structure_is_kept_for_every_keyframe_of_a_real_recording_and_verifies_its_views(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = Path(__file__).resolve().parents[2] / "models" / "demo"
    few = tmp_path / "few"
    few.mkdir()
    for file in sorted((data_dir / "kitchen").iterdir())[: 2 * 120 + 2]:
        os.symlink(file, few / file.name)
    path = tmp_path / "m"
    assert map_verb("build", path, few, "--model", demo, "--structure", "--distance", "0.05") == 0
    with open_map(path) as places:
        assert len(places) >= 4
        assert places.structure_ids().tolist() == places.poses().ids.tolist()
        blob = places.structure(int(places.structure_ids()[1]))
        assert blob is not None
        structure = KeyframeStructure.from_bytes(blob)
        assert structure.has_point.sum() > 30
    asked = tmp_path / "asked"
    asked.mkdir()
    files = sorted(few.iterdir())
    for k in range(5, 120, 12):  # ten views with their poses
        for file in files[2 * k : 2 * k + 2]:
            os.symlink(file.resolve(), asked / file.name)
    capsys.readouterr()
    assert map_verb("evaluate", path, asked, "--model", demo, "--verify", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    verified = [row for row in found["rows"] if row["verified"]]
    assert found["accepted"] == len(verified) >= 7 and found["images"] == 10
    assert found["median_m"]["value"] < 0.05 and found["median_deg"]["value"] < 2
    refused = sum(n for why, n in found["left_out"].items() if why.startswith("not verified"))
    assert refused == found["images"] - len(verified)


@pytest.mark.slow
def test_evaluate_counts_what_the_map_answers(
    tmp_path: Path, bundle: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "home.map"
    assert map_verb("build", path, bag, "--model", bundle, *BY_DISTANCE) == 0
    capsys.readouterr()
    asked = ("evaluate", path, bag, "--model", bundle, "--engine", "onnx", "--place-radius", "0.25")
    assert map_verb(*asked, "--single", "--json") == 0
    found = json.loads(capsys.readouterr().out)

    with open_map(path, "read") as places, Pipeline.load(bundle, engine="onnx") as pipeline:
        keyframes = list(places.keyframes())
        colours = [127 + 100 * np.sin([0.01 * i, 0.023 * i, 0.037 * i + 1]) for i in range(40)]
        images = [np.full((32, 48, 3), colour, np.uint8) for colour in colours]
        seen = np.stack([prediction["place"].values for prediction in pipeline(images)])
    similarity = seen @ np.stack([k.descriptor for k in keyframes]).T
    away = np.abs(STEP_M * np.arange(40)[:, None] - [k.position[0] for k in keyframes])
    errors = away[np.arange(40), similarity.argmax(axis=1)]
    assert found["images"] == 40 and found["answerable"] == int((away <= 0.25).any(axis=1).sum())
    np.testing.assert_allclose([row["error_m"] for row in found["rows"]], errors, atol=1e-6)
    assert found["recall_at_1"]["value"] == pytest.approx((errors <= 0.25).mean())
    accepted = [row for row in found["rows"] if row["accepted"]]
    assert found["accepted"] == len(accepted)
    assert found["accepted_right"] == sum(row["error_m"] <= 0.25 for row in accepted)

    assert map_verb(*asked) == 0  # with the sequence filter
    printed = capsys.readouterr().out
    assert "sequence filter" in printed and f"40, of which {found['answerable']}" in printed


@pytest.mark.slow
def test_evaluate_takes_images_without_stamps_to_be_a_tenth_of_a_second_apart(
    tmp_path: Path, bundle: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = tmp_path / "home.map", tmp_path / "folder"
    folder.mkdir()
    for i in range(40):  # what `bag` shows, as 7-Scenes
        colour = 127 + 100 * np.sin([0.01 * i, 0.023 * i, 0.037 * i + 1])
        image = np.full((32, 48, 3), colour, np.uint8)
        cv2.imwrite(str(folder / f"frame-{i:06d}.color.png"), image[:, :, ::-1])
        T = np.eye(4)
        T[:3, 3] = STEP_M * i, 1.0, 0.5
        np.savetxt(folder / f"frame-{i:06d}.pose.txt", T)
    assert map_verb("build", path, bag, "--model", bundle, *BY_DISTANCE) == 0
    asked = ("--model", bundle, "--engine", "onnx", "--place-radius", "0.25", "--json")
    capsys.readouterr()
    found = []
    lens = ("--option", "camera_matrix=40,40,24,16")
    for source, option in ((bag, ()), (folder, (*lens, "--option", "map_frame=map"))):
        assert map_verb("evaluate", path, source, *asked, *option) == 0
        out, err = capsys.readouterr()
        found.append(json.loads(out)["rows"])
    assert "note: 40 images without stamps: taken as 0.1 s apart" in err
    assert {row["stamp_ns"] for row in found[1]} == {None}
    for key in ("probability", "rank", "accepted", "error_m"):
        assert [row[key] for row in found[1]] == pytest.approx([row[key] for row in found[0]]), key


def test_evaluate_writes_json_where_a_map_has_no_places(
    tmp_path: Path, bundle: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "empty.map"
    create_map_for(path, ModelBundle.load(bundle), "map").close()
    assert map_verb("evaluate", path, bag, "--model", bundle, "--engine", "onnx", "--json") == 0

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found["answerable"] == found["accepted"] == 0 and found["recall_at_1"]["value"] is None
    assert [row["error_m"] for row in found["rows"]] == [None] * 40


@pytest.mark.slow
def test_evaluate_says_what_verification_lacks(
    tmp_path: Path, bundle: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "home.map"
    assert map_verb("build", path, bag, "--model", bundle, *BY_DISTANCE) == 0
    asked = ("evaluate", path, bag, "--model", bundle, "--engine", "onnx", "--verify")
    capsys.readouterr()
    assert map_verb(*asked) == 2
    assert "home.map has no local features" in capsys.readouterr().err
    matrix = ("--option", "camera_matrix=40,40,24,16")
    assert (
        map_verb("build", path, bag, "--model", bundle, *BY_DISTANCE, "--structure", *matrix) == 0
    )
    assert map_verb(*asked) == 2
    assert "--verify needs the camera's matrix" in capsys.readouterr().err
