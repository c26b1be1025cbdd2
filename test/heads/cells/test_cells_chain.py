"""Cells from images with poses to answers: two rooms that look alike are two peaks."""

import json

import cv2
import numpy as np
import pytest
import yaml

from robot_vision.cli import main
from robot_vision.pipeline import Pipeline
from robot_vision.recordings.writing import RecordingWriter

pytestmark = pytest.mark.slow
STARTS = {"left": 0.0, "right": 10.0, "own": 20.0}  # x of the rooms, m; left and right look alike


def wall(seed):
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 255, (6, 16, 3)).astype(np.uint8)
    return cv2.resize(blocks, (16 * 24, 6 * 16), interpolation=cv2.INTER_CUBIC)


def make_rooms(root, passes=3, frames=20, seed=0):
    """A camera that goes along one wall in each of three rooms, 2 m; two rooms have equal walls."""
    rng, i = np.random.default_rng(seed), 0
    walls = {"left": wall(1), "right": wall(1), "own": wall(2)}
    root.mkdir()
    for _ in range(passes):
        for room, start in STARTS.items():
            for t in np.clip(np.linspace(0, 1, frames) + rng.uniform(-0.02, 0.02, frames), 0, 1):
                left = round(t * (walls[room].shape[1] - 128))
                image = walls[room][:, left : left + 128] + rng.normal(0, 4, (96, 128, 3))
                image = np.clip(image, 0, 255).astype(np.uint8)
                cv2.imwrite(str(root / f"frame-{i:06d}.color.png"), image)
                pose = np.eye(4)
                pose[:3, 3] = start + 2 * t, 0.1, 0.5
                np.savetxt(root / f"frame-{i:06d}.pose.txt", pose)
                i += 1
    return root


def train(folder, rooms, **cells):
    config = {
        "name": "rooms",
        "heads": ["cells"],
        "data": {
            "kind": "seven_scenes",
            "path": str(rooms),
            "options": {"split": "blocks", "block_frames": 6, "validation": 0},
        },
        "network": {
            "backbone": "shufflenet_v2_x0_5",
            "weights": None,
            "input": {"height": 48, "width": 64},
            "freeze": ["all"],
            "cells": cells,
        },
        "augmentation": {"name": "none"},
        "loop": {"threads": 1, "accelerator": "cpu"},
        "baselines": ["prior", "retrieval"],
    }
    file = folder / "rooms.yaml"
    file.write_text(yaml.safe_dump(config))
    assert main(["train", str(file), "--output", str(folder / "run")]) == 0
    return folder / "run" / "bundle"


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return make_rooms(tmp_path_factory.mktemp("rooms") / "rooms")


@pytest.fixture(scope="module")
def bundle(rooms, tmp_path_factory):
    pytest.importorskip("torch")
    return train(tmp_path_factory.mktemp("run"), rooms, smallest_m=0.5)


def predicted(bundle, folder):
    """Returns what a bundle says of a folder's images, and where the camera truly was (x)."""
    files = sorted(folder.glob("*.png"))
    images = [cv2.imread(str(file))[..., ::-1] for file in files]
    true = [np.loadtxt(str(f).replace("color.png", "pose.txt"))[0, 3] for f in files]
    return Pipeline.load(bundle, engine="onnx")(images), np.array(true)


def in_rooms(said):
    """Returns the probability (N, 3) of the cells of each room."""
    x = said[0]["cells"].ground.centres[:, 0]
    room = np.abs(x[:, None] - [start + 1 for start in STARTS.values()]).argmin(axis=1)
    p = np.array([each["cells"].probabilities for each in said])
    return np.stack([p[:, room == i].sum(axis=1) for i in range(3)], axis=1)


def room_of(x):
    """Returns the number of the room (N,) in which x is, or within half a metre; -1 for none."""
    near = [(x > start - 0.5) & (x < start + 2.5) for start in STARTS.values()]
    return np.select(near, range(len(near)), -1)


def test_two_rooms_that_look_alike_are_two_peaks(bundle, tmp_path):
    """With -s it prints figures of docs/heads_results.md: means over five passes and standard errors."""
    passes = 5
    fresh = make_rooms(tmp_path / "fresh", passes=passes, seed=5)
    said, x = predicted(bundle, fresh)
    shares, alike = in_rooms(said), x < 15
    assert shares[alike, :2].sum(axis=1).mean() > 0.8, "it is one of the two"
    assert shares[alike, :2].min(axis=1).mean() > 0.2, "it cannot be sure which"
    assert shares[~alike, 2].mean() > 0.7, "the third room looks like no other"
    expected = np.array([each["cells"].expected[0] for each in said])
    best = np.array([each["cells"].centre[0] for each in said])
    other = np.where(x < 5, x + 10, x - 10)
    nearer = np.minimum(np.abs(best - x), np.abs(best - other))[alike]
    assert np.median(nearer) < 0.5, "the best cell is the right place of one of the rooms"
    between = np.minimum(np.abs(expected - x), np.abs(expected - other))[alike]
    assert np.median(between) > 1, "the expected position is between the rooms, where nobody is"
    own, room = np.where(x < 5, 0, 1)[alike], np.arange(alike.sum())
    rows = {"probability": (shares[alike][room, own], shares[alike][room, 1 - own])}
    for name, place in (("most probable cell", best), ("expected position", expected)):
        found = room_of(place[alike])
        rows[name] = found == own, found == 1 - own, found == -1
    for name, columns in rows.items():
        means = np.array([np.reshape(column, (passes, -1)).mean(axis=1) for column in columns])
        errors = means.std(axis=1, ddof=1) / np.sqrt(passes)
        print(
            name, *(f"{m:.3f} +- {e:.3f}" for m, e in zip(means.mean(axis=1), errors, strict=True))
        )


def write_bag(path, folder):
    """Writes the images of a folder with their poses as a bag of a camera at 10 Hz."""
    with RecordingWriter(path) as bag:
        for i, file in enumerate(sorted(folder.glob("*.png"))):
            stamp_ns, pose = (i + 1) * 10**8, np.loadtxt(str(file).replace("color.png", "pose.txt"))
            bag.image("/camera/image_raw", stamp_ns, "camera", cv2.imread(str(file))[..., ::-1])
            bag.camera_pose("/pose", stamp_ns, pose[:3, 3], (0, 0, 0, 1), "map")
    return path


def test_a_recording_of_the_node_is_judged_as_its_replay(bundle, tmp_path, capsys):
    bag = write_bag(tmp_path / "drive", make_rooms(tmp_path / "fresh", passes=1, seed=6))
    words = ["evaluate", "--bag", str(bag), "--engine", "onnx", "--resamples", "50"]
    assert main([*words, "--model", str(bundle), "--output", str(tmp_path / "replay")]) == 0
    assert "Where in the map, as cells" in (tmp_path / "replay" / "report.html").read_text()
    replay = json.loads((tmp_path / "replay" / "metrics.json").read_text())["cells"]
    assert replay["frames"] == 60 and replay["median_m"]["low"] is not None
    assert replay["nll"]["value"] < replay["baselines"]["prior"]["nll"]["value"] - 0.3
    results = str(tmp_path / "replay" / "results" / "drive")
    words = ["evaluate", "--predictions", results, "--bag", str(bag), "--resamples", "50"]
    assert main([*words, "--model", str(bundle), "--output", str(tmp_path / "recorded")]) == 0
    recorded = json.loads((tmp_path / "recorded" / "metrics.json").read_text())["cells"]
    assert recorded == replay
    capsys.readouterr()
    assert main([*words, "--output", str(tmp_path / "without")]) == 0
    assert "--model" in capsys.readouterr().out, "where the cells are is in the model"
