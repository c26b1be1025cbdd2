"""Small data sets that are made in a moment, and configurations that train on them in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robot_vision.training.config import TrainingConfig
from robot_vision.training.config_file import parse

BACKBONE, TAPPING = "shufflenet_v2_x0_5", ("classifier", "pose", "place")
COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def make_labelled(root: Path, train: int = 16, test: int = 6, seed: int = 0) -> Path:
    """Writes train and test folders of noisy one-coloured pictures, so many of each of three classes."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(24, 60, 2)
                picture = np.array(colour) + rng.normal(0, 25, (height, width, 3))
                cv2.imwrite(
                    str(folder / f"{i:03d}.png"),
                    np.clip(picture, 0, 255)[..., ::-1].astype(np.uint8),
                )
    return root


def make_posed(root: Path, frames: int = 64) -> Path:
    """Writes a 7-Scenes folder: a camera that goes along a striped wall and looks slightly about."""
    root.mkdir(parents=True)
    wall = np.random.default_rng(1).integers(0, 255, (8, 40, 3)).astype(np.uint8)
    wall = cv2.resize(wall, (40 * 16, 8 * 16), interpolation=cv2.INTER_CUBIC)
    for i in range(frames):
        x = 2.0 * np.sin(2 * np.pi * i / frames * 1.5)  # m; goes and comes back
        left = int((x + 2) / 4 * (wall.shape[1] - 130))
        cv2.imwrite(str(root / f"frame-{i:06d}.color.png"), wall[:96, left : left + 128])
        angle = 0.2 * np.sin(i / 7)
        pose = np.eye(4)
        pose[:3, :3] = [
            [np.cos(angle), 0, np.sin(angle)],
            [0, 1, 0],
            [-np.sin(angle), 0, np.cos(angle)],
        ]
        pose[:3, 3] = x, 0.1 * np.cos(i / 5), 1.0
        np.savetxt(root / f"frame-{i:06d}.pose.txt", pose)
    return root


def configuration(kind: str, path: Path, output: Path, **groups: Any) -> TrainingConfig:
    """Returns a quick configuration: the first part of a small network, from nothing, 32 x 32, one thread."""
    data: dict[str, Any] = {
        "heads": ["classifier"],
        "name": "tiny",
        "output": str(output),
        "data": {"kind": kind, "path": str(path), "threads": 2},
        "network": {
            "backbone": BACKBONE,
            "weights": None,
            "input": {"height": 32, "width": 32},
        },
        "loop": {"epochs": 3, "batch_size": 12, "threads": 1, "accelerator": "cpu"},
        "optimiser": {"learning_rate": 3e-3, "ema": 0.9},
        "augmentation": {"name": "none"},
    }
    for key, value in groups.items():
        old = data.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        data[key] = {**old, **value} if both else value
    heads, network = data["heads"], data["network"]
    if network["backbone"] == BACKBONE and "init_from" not in network:
        for name in heads:
            kind_of_head = heads[name].get("kind", name) if isinstance(heads, dict) else name
            own = network.get(name, {})
            if kind_of_head in TAPPING and isinstance(own, dict):  # not a setting of that name
                network[name] = {"tap": "stage2", **own}
    return parse(TrainingConfig, "", data)
