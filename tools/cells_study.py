#!/usr/bin/env python3
"""Trains cells in the demo's world, and in the same with a second kitchen that looks like the first.

    python tools/cells_study.py

Renders recordings into out/cells_study, trains a head of cells and a pose head on each, and draws what both
say of a camera that goes through the first kitchen. What was rendered or trained is used again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.progress import track

from robot_vision.demo.recorded import record_drive
from robot_vision.pipeline import Pipeline
from robot_vision.simulation.drive import DriveFrame, evaluation_drive, mapping_drive, random_frames
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.renderer import Camera
from robot_vision.simulation.world.sensor import Sensor, render_frames
from robot_vision.simulation.world.world import Box, Panel, Room, World

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "docs" / "images" / "cells_two_peaks.png"
SHIFT_M = 5.0  # of the second kitchen, along x
TEST_SEEDS = (2, 3)
START_NS = 1_700_000_000 * 10**9


def main(argv: Sequence[str] | None = None) -> int:
    """Renders, trains and draws."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "cells_study")
    parser.add_argument("--weights", default="torchvision", help="of MobileNetV2, or a .pth file")
    parser.add_argument("--random", type=int, default=500, help="training frames at random places")
    args = parser.parse_args(argv)
    for name, world in (("demo", default_world()), ("twins", twin_world())):
        recordings = args.out / name
        training = random_frames(world, args.random, seed=77)
        training += mapping_drive(world, rate_hz=2.0, seed=1000)
        test = [f for seed in TEST_SEEDS for f in evaluation_drive(world, 2.0, seed)]
        varied = Sensor(seed=18, lamps=0.2, exposure=0.12, balance=0.06, noise=5.0, vary=True)
        record(recordings / "train", world, training, varied)
        record(recordings / "test", world, test, Sensor(seed=2))
        for head in ("cells", "pose"):
            if status := train(args.out, name, head, args.weights):
                return status
    draw(args.out)
    return 0


def twin_world() -> World:
    """Returns the demo's world with a second kitchen in place of the office: two rooms that look alike."""
    world = default_world()
    rooms = [
        moved(world.room("kitchen"), "second kitchen") if r.name == "office" else r
        for r in world.rooms
    ]
    doors = [
        replace(d, low=(d.low[0] + 2.6, d.low[1]), high=(d.high[0] + 2.6, d.high[1]))
        if i == 1
        else d
        for i, d in enumerate(world.doors)
    ]  # of the office at x = 5.7, now as far from its room's corner as the kitchen's is
    return World(tuple(rooms), tuple(doors), world.corridor)


def moved(room: Room, name: str) -> Room:
    """Returns a room under another name, further along x."""

    def box(old: Box) -> Box:
        (x0, y0, z0), (x1, y1, z1) = old.low, old.high
        return replace(old, low=(x0 + SHIFT_M, y0, z0), high=(x1 + SHIFT_M, y1, z1))

    def panel(old: Panel) -> Panel:
        along_x = old.side in ("north", "south")
        return replace(old, along=old.along + SHIFT_M) if along_x else old

    return replace(
        room,
        name=name,
        low=(room.low[0] + SHIFT_M, room.low[1]),
        high=(room.high[0] + SHIFT_M, room.high[1]),
        loop=tuple((x + SHIFT_M, y) for x, y in room.loop),
        boxes=tuple(map(box, room.boxes)),
        panels=tuple(map(panel, room.panels)),
    )


def record(
    path: Path, world: World, frames: Sequence[DriveFrame], sensor: Sensor, step_s: float = 0.5
) -> None:
    """Writes frames of any drives as one recording, one every `step_s` seconds, unless it is there."""
    if path.is_dir():
        return
    stamped = [replace(frame, stamp_s=i * step_s) for i, frame in enumerate(frames)]
    images = render_frames(world, stamped, sensor, Camera(), workers=1)
    written = record_drive(path, stamped, images, Camera(), START_NS)
    for _ in track(written, f"rendering {path}", len(stamped)):
        pass


def train(out: Path, world: str, head: str, weights: str) -> int:
    """Trains a head on the recordings of a world, unless that was done; returns the command's status."""
    run = out / f"{world}_{head}"
    if (run / "bundle").is_dir():
        return 0
    file = out / f"{world}_{head}.yaml"
    network = {"cells": "{plane: xy, smallest_m: 0.5}", "pose": "{hidden: 256, dropout: 0.1}"}[head]
    section = {"cells": "{solve: false}", "pose": "{}"}[head]  # both for the same epochs
    baselines = {"cells": "[prior, retrieval]", "pose": "[mean_pose, retrieval]"}[head]
    file.write_text(
        f"""\
name: {world}_{head}
heads: [{head}]
data:
  kind: rosbag
  path: {out / world}
  options: {{image_topic: /camera/image_raw, pose_topic: /truth/pose, test_sequences: test, validation: 0}}
network:
  backbone: mobilenet_v2
  weights: {weights}
  input: {{height: 224, width: 224}}
  freeze: [all]
  {head}: {network}
{head}: {section}
augmentation: {{name: none}}
loop: {{epochs: 60, batch_size: 64, accelerator: cpu}}
baselines: {baselines}
"""
    )
    command = [sys.executable, "-m", "robot_vision.cli", "train", str(file), "--output", str(run)]
    return subprocess.run(command, check=False).returncode


def draw(out: Path) -> None:
    """Draws cells and pose for three places of the first kitchen, in each of both worlds."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Ellipse, Rectangle

    worlds = {"demo": default_world(), "twins": twin_world()}
    figure = Figure(figsize=(10, 8.4), layout="constrained")
    for row, (name, world) in enumerate(worlds.items()):
        inside = [
            f
            for seed in TEST_SEEDS
            for f in evaluation_drive(world, 2.0, seed)
            if f.room == "kitchen"
        ]
        frames = [inside[round(share * (len(inside) - 1))] for share in (0.2, 0.45, 0.7)]
        images = list(render_frames(world, frames, Sensor(seed=2), Camera(), workers=1))
        cells, poses = (
            Pipeline.load(out / f"{name}_{h}" / "bundle")(images) for h in ("cells", "pose")
        )
        for column, frame in enumerate(frames):
            axes = figure.add_subplot(2, 3, 3 * row + column + 1)
            for room in world.rooms:
                width, height = np.subtract(room.high, room.low)
                axes.add_patch(Rectangle(room.low, width, height, fill=False, color="0.6"))
            answer = cells[column]["cells"]
            density = answer.probabilities / np.prod(
                answer.ground.corners[:, 2:] - answer.ground.corners[:, :2], axis=1
            )
            for (x0, y0, x1, y1), share in zip(
                answer.ground.corners, density / density.max(), strict=True
            ):
                axes.add_patch(
                    Rectangle((x0, y0), x1 - x0, y1 - y0, color="#0b6bb5", alpha=float(share), lw=0)
                )
            pose = poses[column]["pose"]
            values, vectors = np.linalg.eigh(pose.covariance[:2, :2])
            turn = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
            wide, narrow = 2 * np.sqrt(5.991 * values[::-1])
            axes.add_patch(
                Ellipse(
                    pose.position[:2], wide, narrow, angle=turn, fill=False, color="#c0392b", lw=1.5
                )
            )
            axes.plot(
                *pose.position[:2], "+", color="#c0392b", ms=10, label="pose head, 95 % ellipse"
            )
            axes.plot(*frame.T_map_camera[:2, 3], "*", color="black", ms=11, label="true")
            low, high = world.bounds()
            axes.set(
                xlim=(low[0] - 0.3, high[0] + 0.3),
                ylim=(low[1] - 0.3, high[1] + 0.3),
                aspect="equal",
            )
            if column == 0:
                axes.set_ylabel(
                    {"demo": "the demo's world", "twins": "with a second kitchen"}[name]
                )
            if not row and not column:
                axes.legend(loc="lower left", fontsize=7)
    figure.savefig(FIGURE, dpi=90)


if __name__ == "__main__":
    sys.exit(main())
