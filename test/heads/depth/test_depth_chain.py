"""The depth head from training to topics: pictures that are brighter where nearer."""

import json

import cv2
import numpy as np
import pytest
from train_data import configuration

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main
from robot_vision.errors import ConfigError
from robot_vision.messages.types import message_types
from robot_vision.pipeline import Pipeline
from robot_vision.recordings.writing import RecordingWriter

SIZE = (96, 128)
NONE = 65535
FOCAL = 100.0
LOW, HIGH = 0.6, 6.0
SETTINGS = {"minimum": 0.5, "maximum": 8.0, "channels": 16, "dropout": 0.0, "strides": [4, 8]}


def picture(rng):
    """Returns an RGB picture of two walls and a ceiling without truth, and its depth in millimetres."""
    edge = int(rng.integers(40, 88))
    metres = np.exp(rng.uniform(np.log(LOW), np.log(HIGH), 2))
    depth = np.where(np.arange(SIZE[1]) < edge, *metres)[None].repeat(SIZE[0], axis=0)
    grey = 30 + 200 * np.log(HIGH / depth) / np.log(HIGH / LOW)
    image = np.clip(grey[..., None] + rng.normal(0, 6, (*SIZE, 3)), 0, 255).astype(np.uint8)
    stored = np.round(1000 * depth).astype(np.uint16)
    stored[:8] = NONE
    return image, stored


def walls(root, count=120, seed=0, every=1, wrong=0.0):
    """Writes a folder of 7-Scenes; every n-th frame has a depth image, whose logarithm is as wrong."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True)
    for i in range(count):
        image, depth = picture(rng)
        cv2.imwrite(str(root / f"frame-{i:06d}.color.png"), image[..., ::-1])
        depth[8:] = depth[8:] * np.exp(wrong * rng.normal())
        if i % every == 0:
            cv2.imwrite(str(root / f"frame-{i:06d}.depth.png"), depth)
        np.savetxt(root / f"frame-{i:06d}.pose.txt", np.eye(4))
    return root


def drive(path, count=24, seed=5):
    """Writes a bag of pictures, their depth and the camera's calibration."""
    types, rng = message_types().types, np.random.default_rng(seed)
    K = np.array([[FOCAL, 0, 63.5], [0, FOCAL, 47.5], [0, 0, 1]])
    with RecordingWriter(path) as bag:
        for i in range(count):
            ns = 1_700_000_000 * 10**9 + i * 10**8
            image, depth = picture(rng)
            bag.image("/camera/image_raw", ns, "camera", image)
            bag.camera_info("/camera/camera_info", ns, "camera", SIZE, K)
            message = types["sensor_msgs/msg/Image"](
                bag.header(ns, "camera"),
                *SIZE,
                "16UC1",
                0,
                2 * SIZE[1],
                depth.view(np.uint8).reshape(-1),
            )
            bag.write("/depth/image_raw", ns, message)
    return path


def depth(path, output, **groups):
    settings = {
        "heads": ["depth"],
        "network": {
            "input": {"height": 64, "width": 64},
            "depth": SETTINGS,
        },
        "data": {"options": {"split": "blocks", "block_frames": 10, "validation": 0.25}},
        "loop": {"epochs": 20, "batch_size": 12, "threads": 1, "accelerator": "cpu"},
        "baselines": ["constant", "median"],
    }
    return configuration("seven_scenes", path, output, **{**settings, **groups})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("torch")
    from robot_vision.training.run import train

    folder = tmp_path_factory.mktemp("depth")
    config = depth(walls(folder / "walls"), folder / "run", variants=["int8", "float16"])
    return train(config, quiet=True, command="test")


@pytest.mark.slow
def test_depth_is_learned_better_than_baselines_and_its_intervals_are_true(trained):
    metrics = trained.report["metrics"]["test"]["depth"]
    assert metrics["abs_rel"] < 0.15 and metrics["delta_1"] > 0.85
    baselines = trained.report["baselines"]["depth"]
    assert set(baselines) == {"constant", "median"}
    assert all(metrics["abs_rel"] < 0.5 * b["abs_rel"] for b in baselines.values())
    assert metrics["surest_70"] < 1.0
    assert abs(metrics["coverage_90"] - 0.9) < 0.08
    spec = ModelBundle.load(trained.bundle).spec.heads["depth"]
    assert tuple(spec.size) == (16, 16)


@pytest.mark.slow
def test_frames_without_depth_are_left_out_and_said(tmp_path):
    pytest.importorskip("torch")
    from robot_vision.training.run import train

    config = depth(walls(tmp_path / "walls", 40, every=2), tmp_path / "run", loop={"epochs": 1})
    report = train(config, quiet=True, command="test").report
    assert any(
        "20 images have no image:depth and are left out" in n for n in report["data"]["notes"]
    )
    assert report["metrics"]["test"]["depth"]["images"] == 5


@pytest.mark.slow
def test_without_validation_frames_blocks_held_out_in_turn_say_how_sure_it_is(tmp_path):
    pytest.importorskip("torch")
    from robot_vision.training.run import train

    config = depth(
        walls(tmp_path / "walls", 80),
        tmp_path / "run",
        network={"freeze": ["all"]},
        data={"options": {"split": "blocks", "block_frames": 10, "validation": 0}},
        loop={"epochs": 8},
        depth={"folds": 2},
    )
    found = train(config, quiet=True, command="test").report
    record = found["calibration"]["depth"]
    assert record["on"] == "training frames, held out in 2 folds" and record["scale"] != 1
    assert record["frames"] == 60
    assert 0.75 < found["metrics"]["test"]["depth"]["coverage_90"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("copies", [0, 2])
def test_heads_of_held_out_blocks_learn_from_augmented_images_too(tmp_path, monkeypatch, copies):
    pytest.importorskip("torch")
    from robot_vision.training.fit import loop
    from robot_vision.training.run import train

    seen = {}
    batches = loop._batches

    def recorded(train, *others):
        for batch in batches(train, *others):
            truth = train.samples.maps["image:depth"][batch["index"]]
            same = np.isclose(batch["image:depth"], truth.flip(2), equal_nan=True)
            seen.setdefault(len(train), []).append(same.mean())
            yield batch

    monkeypatch.setattr(loop, "_batches", recorded)
    config = depth(
        walls(tmp_path / "walls", 80),
        tmp_path / "run",
        network={"freeze": ["all"]},
        data={"options": {"split": "blocks", "block_frames": 10, "validation": 0}},
        loop={"epochs": 2, "augmented_copies": copies},
        depth={"folds": 2},
        augmentation={
            "name": "labels",
            "crop_scale": 1,
            "crop_ratio": 1,
            "rotation_deg": 0,
            "flip": 1,
        },
    )
    train(config, quiet=True, command="test")
    assert set(seen) == {60, 50, 10}  # of blocks of 50, in two folds
    # All but the column of an edge, which may be taken from either side.
    assert all(min(shares) > 0.9 for shares in seen.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"network": {}}, "without a frozen backbone"),
        ({"augmentation": {"name": "none"}}, "without an augmentation"),
        ({"loop": {"augmented_copies": 3, "cache_features": False}}, "cache_features: true"),
    ],
)
def test_copies_that_nothing_would_be_trained_on_are_refused(tmp_path, groups, message):
    pytest.importorskip("torch")
    from robot_vision.training.setup import describe_plan

    settings = {
        "network": {"freeze": ["all"]},
        "loop": {"augmented_copies": 3},
        "augmentation": {"name": "labels", "crop_scale": 1, "crop_ratio": 1},
    }
    root = walls(tmp_path / "walls", 40)
    assert describe_plan(depth(root, tmp_path / "run", **settings))
    with pytest.raises(ConfigError, match=f"augmented_copies is 3, .*{message}"):
        describe_plan(depth(root, tmp_path / "run", **{**settings, **groups}))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["", "int8", "float16"])
def test_every_variant_says_the_depth_of_a_new_picture(trained, variant):
    bundle = (
        trained.bundle
        if not variant
        else trained.bundle.with_name(f"{trained.bundle.name}-{variant}")
    )
    image, stored = picture(np.random.default_rng(77))
    with Pipeline.load(bundle, "onnx", threads=1) as pipeline:
        answer = pipeline([image])[0]["depth"]
    assert answer.depth.shape == answer.deviation.shape == (16, 16)
    assert answer.depth.dtype == answer.deviation.dtype == np.float32
    for column in (2, 13):  # of both walls
        true = stored[48, 8 * column] / 1000
        assert np.median(answer.depth[4:, column]) == pytest.approx(true, rel=0.3)


@pytest.mark.slow
def test_infer_writes_numbers_arrays_and_pictures(trained, tmp_path, capsys):
    image, stored = picture(np.random.default_rng(78))
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    out, drawn = tmp_path / "out.jsonl", tmp_path / "drawn"
    arguments = ["infer", "--model", str(trained.bundle), str(tmp_path / "a.png")]
    assert (
        main(
            [
                *arguments,
                "--output",
                str(out),
                "--annotate",
                str(drawn),
                "--attach",
                str(tmp_path / "files"),
            ]
        )
        == 0
    )
    said = json.loads(out.read_text())["depth"]
    array, deviation = (np.load(tmp_path / said[word]) for word in ("npy", "deviation_npy"))
    assert array.shape == deviation.shape == (16, 16)
    assert said["median_m"] == pytest.approx(float(np.nanmedian(array)), rel=1e-5)
    assert said["from_m"] <= said["median_m"] <= said["to_m"] and said["answered"] == 1.0
    # Small pictures are drawn on enlarged.
    shown = cv2.resize(cv2.imread(str(next(drawn.iterdir()))), SIZE[::-1])[40:60]
    near, far = sorted((slice(0, 30), slice(100, 128)), key=lambda s: stored[48, s].mean())
    assert shown[:, near].mean() > shown[:, far].mean() + 30
    assert " m" in capsys.readouterr().out


@pytest.mark.slow
def test_a_bag_is_judged_live_and_as_it_was_recorded(trained, tmp_path, capsys):
    bag, out = drive(tmp_path / "drive"), tmp_path / "out"
    common = ["--bag", str(bag), "--model", str(trained.bundle), "--resamples", "30"]
    common += ["--format", "json"]
    # The images come from the other topic, since this one is named as truth.
    common += ["--truth-image", "depth=/depth/image_raw"]
    capsys.readouterr()
    assert main(["evaluate", *common, "--output", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["depth"]["frames"] == 24 and found["depth"]["silent_pixels"] == 0
    assert found["depth"]["abs_rel"]["value"] < 0.15
    assert (
        found["depth"]["baselines"]["constant"]["rmse_log"]["value"]
        > found["depth"]["rmse_log"]["value"]
    )
    assert found["depth_scaled"]["frames"] == found["depth_uncertainty"]["frames"] == 24
    assert len(found["depth_uncertainty"]["sparsification"]["removed"]) == 20
    assert "Errors of the surest pixels" in (out / "report.html").read_text()
    again = [
        "--predictions",
        str(out / "results/drive"),
        *common,
        "--output",
        str(tmp_path / "again"),
    ]
    assert main(["evaluate", *again]) == 0
    recorded = json.loads(capsys.readouterr().out)
    for section, metric in (("depth", "abs_rel"), ("depth_uncertainty", "coverage_90")):
        assert recorded[section][metric]["value"] == pytest.approx(
            found[section][metric]["value"], abs=2e-3
        )


@pytest.mark.slow
def test_stress_measures_depth_by_a_topic_that_is_named(trained, tmp_path, capsys):
    words = [
        "--bag",
        str(drive(tmp_path / "drive")),
        "--model",
        str(trained.bundle),
        "--format",
        "json",
    ]
    words += ["--degradations", "dark", "--limit", "6", "--resamples", "0"]
    capsys.readouterr()
    assert main(["stress", *words, "--output", str(tmp_path / "without")]) == 0
    assert "warning: nothing was measured" in capsys.readouterr().err
    words += ["--truth-image", "depth=/depth/image_raw", "--output", str(tmp_path / "out")]
    assert main(["stress", *words]) == 0
    conditions = json.loads(capsys.readouterr().out)["conditions"]
    errors = [c["numbers"]["depth.abs_rel"] for c in conditions]
    assert len(errors) == 6 and errors[0] < 0.15 < errors[-1]
    other = [w.replace("depth=/depth", "pixels=/depth") for w in words]
    assert main(["stress", *other]) == 2
    assert "name of --truth-image 'pixels'" in capsys.readouterr().err


@pytest.mark.slow
def test_calibrate_makes_the_intervals_true_on_other_images(trained, tmp_path, capsys):
    pytest.importorskip("onnx")
    from robot_vision.bundle.onnx_graph import OnnxGraph

    out = tmp_path / "calibrated"
    data = [
        "--data",
        "seven_scenes",
        str(walls(tmp_path / "more", 60, 9, wrong=0.2)),
        "--split",
        "all",
    ]
    assert main(["calibrate", str(trained.bundle), *data, "--output", str(out)]) == 0
    before, after = (OnnxGraph(ModelBundle.load(p).graph) for p in (trained.bundle, out))
    record = ModelBundle.load(out).calibration["depth"]
    scale = after.constants("depth")["scale"] / before.constants("depth")["scale"]
    assert float(scale) == pytest.approx(record["scale"], rel=1e-4)
    assert float(scale) > 1.2 and record["before"]["coverage_90"][0] < 0.8
    assert abs(record["after"]["coverage_90"][0] - 0.9) < 0.05
