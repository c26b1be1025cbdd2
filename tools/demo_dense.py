#!/usr/bin/env python3
"""Adds the segmentation and the depth head to the demo's bundle, and leaves its other heads as they are.

    python tools/demo_dense.py

Renders recordings with the truth of each pixel into out/demo_dense, trains config/training/demo_dense.yaml
on them as anybody would, and puts the bundle that comes out in the place of models/demo. About ten minutes
on two cores. What was rendered is used again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.progress import track

from robot_vision.bundle.bundle import CARD, WEIGHTS, ModelBundle, write_manifest
from robot_vision.demo.recorded import record_drive
from robot_vision.networks.checkpoint import load_network, save_network
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.simulation.drive import DriveFrame, evaluation_drive, mapping_drive, random_frames
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.renderer import Camera, Renderer
from robot_vision.simulation.world.sensor import Sensor, render_frames

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config" / "training" / "demo_dense.yaml"
# Seeds of drives, as in train_demo_bundle.py: the demo drives evaluation seed 2, which no training may see.
TEST_SEEDS = (2, 3, 4)
TRAINING_SEEDS = tuple(range(1000, 1006))
TITLE = "## Every pixel\n"
START_NS = 1_700_000_000 * 10**9


def main(argv: Sequence[str] | None = None) -> int:
    """Renders, trains, and replaces the bundle."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "models" / "demo")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "demo_dense")
    parser.add_argument("--random", type=int, default=3000, help="training frames at random places")
    parser.add_argument("--set", action="append", default=[], help="passed on to train")
    args = parser.parse_args(argv)
    world = default_world()
    training = random_frames(world, args.random, seed=77)
    for seed in TRAINING_SEEDS:
        training += evaluation_drive(world, rate_hz=2.0, seed=seed)
        training += mapping_drive(world, rate_hz=1.0, seed=seed)
    test = [f for seed in TEST_SEEDS for f in evaluation_drive(world, rate_hz=2.0, seed=seed)]
    varied = Sensor(seed=18, lamps=0.2, exposure=0.12, balance=0.06, noise=5.0, vary=True)
    recordings = args.out / "recordings"
    record(recordings / "train", training, varied)
    record(recordings / "test", test, Sensor(seed=TEST_SEEDS[0]))
    run = args.out / "run"
    command = [sys.executable, "-m", "robot_vision.cli", "train", str(CONFIG)]
    command += ["--output", str(run), "--set", f"data.path={recordings}"]
    start = without_dense(args.bundle, args.out / "start.safetensors")
    command += ["--set", f"network.init_from={start}"]
    command += [word for text in args.set for word in ("--set", text)]
    if not (run / "bundle").is_dir():
        if status := subprocess.run(command, check=False).returncode:
            return status
    ship(run, args.bundle)
    return 0


def record(path: Path, frames: Sequence[DriveFrame], sensor: Sensor, step_s: float = 0.5) -> None:
    """Writes frames of any drives as one recording, one every `step_s` seconds, unless it is there."""
    if path.is_dir():
        return
    world, camera = default_world(), Camera()
    stamped = [replace(frame, stamp_s=i * step_s) for i, frame in enumerate(frames)]
    images = render_frames(world, stamped, sensor, camera, workers=2)
    written = record_drive(path, stamped, images, camera, START_NS, Renderer(world, camera))
    for _ in track(written, f"rendering {path.name}", len(stamped)):
        pass


def without_dense(bundle: Path, target: Path) -> Path:
    """Writes the network without the heads that are trained here, which an earlier run may have added."""
    old = load_network(bundle / WEIGHTS)
    none = {head.name: None for head, _ in old.spec.bound if head.kind in ("segmentation", "depth")}
    network = MultiHeadNetwork(old.spec.with_heads(**none))
    there = network.state_dict()
    network.load_state_dict({k: v for k, v in old.state_dict().items() if k in there})
    target.parent.mkdir(parents=True, exist_ok=True)
    save_network(network, target)
    return target


def ship(run: Path, target: Path) -> None:
    """Puts a run's bundle in the place of the one that it started from, whose card and figures it keeps."""
    old, made = ModelBundle.load(target), run / "bundle"
    new = ModelBundle.load(made)
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    said, baselines = report["metrics"]["test"], report["baselines"]
    seen, depth, images = said["segmentation"], said["depth"], report["data"]["images"]
    count = images["train"] + images["validation"]
    prior, median = baselines["segmentation"]["prior"], baselines["depth"]["median"]
    seeds, tests = (", ".join(map(str, numbers)) for numbers in (TRAINING_SEEDS, TEST_SEEDS))
    text = f"""
        `tools/demo_dense.py` added what each pixel shows and how far away it is to the backbone as it was,
        so that the other heads answer as before, to the bit. Training: {count} frames, from random free
        places and from drives with seeds {seeds}, of which {images["validation"]} chose the epoch and
        calibrated. Test: {images["test"]} frames of drives with seeds {tests}: mean IoU
        {seen["mean_iou"]:.3f}, pixel accuracy {seen["pixel_accuracy"]:.3f}, calibration error
        {seen["ece"]:.3f}; depth AbsRel {depth["abs_rel"]:.3f}, within a factor of 1.25
        {depth["delta_1"]:.3f}, within its 90 % interval {depth["coverage_90"]:.3f}, AbsRel of the surest
        70 % of the pixels {depth["surest_70"]:.2f} times that of all. Without looking (what the training
        images show most at each pixel, and the median there): mean IoU {prior["mean_iou"]:.3f}, AbsRel
        {median["abs_rel"]:.3f}."""
    card = (target / CARD).read_text(encoding="utf-8").partition(TITLE)[0].rstrip()
    (made / CARD).write_text(
        f"{card}\n\n{TITLE}\n{textwrap.fill(' '.join(text.split()), 110)}\n", encoding="utf-8"
    )
    metrics = {**old.metrics, "dense": said}
    dense = {
        "images": images,
        "seed": report["run"]["seed"],
        "command": "python tools/demo_dense.py",
    }
    # By these `calibrate` refuses what the dense heads were trained on. The other heads have none.
    sketches = {key: value for key, value in new.training.items() if key.endswith("_image_sketch")}
    training = {**old.training, **sketches, "dense": dense}
    write_manifest(made, old.name, new.spec, training, metrics, old.calibration)
    ModelBundle.load(made)
    for file in made.iterdir():
        shutil.copy2(file, target / file.name)
    total = sum(f.stat().st_size for f in target.iterdir()) / 1e6
    print(f"wrote {target} ({total:.1f} MB)")


if __name__ == "__main__":
    sys.exit(main())
