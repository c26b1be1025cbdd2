"""Scene coordinates from training to poses: a room whose colours say where its points are."""

import cv2
import numpy as np
import pytest
from train_data import configuration

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main
from robot_vision.errors import ConfigError
from robot_vision.pipeline import Pipeline

SIZE, FOCAL = (48, 64), 50.0
ROOM = np.array([2.0, 1.5, 2.0])  # half of its sides, metres


def picture(rng):
    """Returns an RGB picture of a room's walls, depth in millimetres, and T_map_camera."""
    x, y = np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0]))
    rays = np.stack([(x - 31.5) / FOCAL, (y - 23.5) / FOCAL, np.ones(SIZE)], axis=-1)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = cv2.Rodrigues(rng.uniform(-0.3, 0.3, 3))[0], rng.uniform(-0.5, 0.5, 3)
    ahead = rays @ T[:3, :3].T
    depth = ((np.sign(ahead) * ROOM - T[:3, 3]) / ahead).min(axis=-1)
    points = T[:3, 3] + ahead * depth[..., None]
    image = 127 + 110 * points / ROOM + rng.normal(0, 2, points.shape)
    return np.clip(image, 0, 255).astype(np.uint8), np.round(1000 * depth).astype(np.uint16), T


def room(root, count=80, every=1, seed=0):
    """Writes a folder of 7-Scenes; every n-th frame has a depth image."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True)
    for i in range(count):
        image, depth, T = picture(rng)
        cv2.imwrite(str(root / f"frame-{i:06d}.color.png"), image[..., ::-1])
        if i % every == 0:
            cv2.imwrite(str(root / f"frame-{i:06d}.depth.png"), depth)
        np.savetxt(root / f"frame-{i:06d}.pose.txt", T)
    return root


def coordinates(path, output, **groups):
    options = {"camera_matrix": f"{FOCAL},{FOCAL},31.5,23.5"}
    settings = {
        "heads": ["coordinates"],
        "network": {
            "input": {"height": 48, "width": 64},
            "coordinates": {"channels": 32, "blocks": 1, "dropout": 0.0, "strides": [4, 8]},
        },
        "data": {"options": {**options, "split": "blocks", "block_frames": 10, "validation": 0.35}},
        "loop": {"epochs": 40, "batch_size": 12},
        "optimiser": {"learning_rate": 1e-2},
        "baselines": ["mean_pose"],
    }
    return configuration("seven_scenes", path, output, **{**settings, **groups})


@pytest.mark.slow
def test_a_camera_that_saw_the_room_knows_where_it_is(tmp_path, capsys):
    pytest.importorskip("torch")
    from robot_vision.training.run import train

    root = room(tmp_path / "room", 180, every=2)
    config = coordinates(root, tmp_path / "run")
    done = train(config, quiet=True, command="test")
    report = done.report
    assert any(
        "90 images have no image:depth and are left out" in n for n in report["data"]["notes"]
    )
    metrics = report["metrics"]["test"]["coordinates"]
    assert metrics["answered"] > 0.9
    (baseline,) = report["baselines"]["coordinates"].values()
    assert metrics["median_m"] < 0.25 * baseline["median_m"]
    assert metrics["median_deg"] < 0.25 * baseline["median_deg"]
    record = report["calibration"]["coordinates"]
    assert record["on"] == "validation frames" and record["frames"] >= 20
    spec = ModelBundle.load(done.bundle).spec.heads["coordinates"]
    assert spec.position_scale == record["position_scale"] != 1
    other, again = room(tmp_path / "other", 40, seed=5), tmp_path / "again"
    data = ["--data", "seven_scenes", str(other), "--split", "all"]
    assert main(["calibrate", str(done.bundle), *data, "--output", str(again)]) == 0
    assert "95 % ellipsoid" in capsys.readouterr().out
    rng = np.random.default_rng(7)
    with Pipeline.load(done.bundle, "onnx", threads=1) as pipeline:
        errors = []
        for _ in range(10):
            image, _, T = picture(rng)
            errors.append(np.linalg.norm(pipeline([image])[0]["coordinates"].position - T[:3, 3]))
    assert np.nanmedian(errors) < 0.15


@pytest.mark.slow
def test_images_of_which_nobody_knows_camera_or_depth_are_refused(tmp_path):
    pytest.importorskip("torch")
    from robot_vision.training.setup import describe_plan

    root = room(tmp_path / "room", 40, every=100)
    with pytest.raises(ConfigError, match="needs image:depth"):
        describe_plan(coordinates(root, tmp_path / "run"))
    with pytest.raises(ConfigError, match="labels.*makes|untrue"):
        config = coordinates(
            room(tmp_path / "again", 40), tmp_path / "run", augmentation={"name": "labels"}
        )
        from robot_vision.training.run import train

        train(config, quiet=True, command="test")


def test_settings_that_make_no_sense_are_refused_before_the_work(tmp_path):
    pytest.importorskip("torch")
    from robot_vision.training.run import train
    from robot_vision.training.setup import describe_plan

    root = room(tmp_path / "room", 40)
    base = {"channels": 32, "blocks": 1, "dropout": 0.0, "strides": [4, 8]}
    for change, words in (
        ({"size": "30x40"}, "size"),
        ({"lens": "fisheye"}, "give camera as well"),
        ({"distortion": [0.1]}, "give camera as well"),
    ):
        network = {"input": {"height": 48, "width": 64}, "coordinates": {**base, **change}}
        with pytest.raises(ConfigError, match=words):
            describe_plan(coordinates(root, tmp_path / "run", network=network))
    millimetres = {**base, "minimum": 200.0, "maximum": 10000.0}
    network = {"input": {"height": 48, "width": 64}, "coordinates": millimetres}
    with pytest.raises(ConfigError, match="are they in metres"):
        train(coordinates(root, tmp_path / "run", network=network), quiet=True, command="test")
