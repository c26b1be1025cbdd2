"""Places in another light than the map's: `python -m benchmarks.place_light --bundle models/demo`.

The demo's home is mapped on one drive, and asked about on another along the same tour with other lamps,
colours, noise and blur. Printed for single images and for the sequence filter, without odometry and with the
true motion.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.place_accuracy import fill_map, recognise
from benchmarks.place_frames import Views, right_matches
from robot_vision.pipeline import Pipeline
from robot_vision.simulation.drive import mapping_drive
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.renderer import Camera
from robot_vision.simulation.world.sensor import Sensor, render_frames

MAPPING_SEED, ASKING_SEED = 71, 73
MAPPING_HZ, ASKING_HZ = 8.0, 5.0


def _seen(bundle: Path, hz: float, seed: int, sensor: Sensor, start_ns: int) -> tuple[Views, Any]:
    """Returns the frames of a drive and their descriptors."""
    world = default_world()
    frames = mapping_drive(world, hz, seed)
    images = list(render_frames(world, frames, sensor, Camera()))
    vectors: list[Any] = []
    with Pipeline.load(bundle, precision="float32", threads=1) as pipeline:
        for i in range(0, len(images), 16):
            vectors += [prediction["place"].values for prediction in pipeline(images[i : i + 16])]
    stamps = np.array([start_ns + round(f.stamp_s * 1e9) for f in frames], np.int64)
    return Views((), stamps, np.stack([f.T_map_camera for f in frames])), np.stack(vectors)


def main() -> None:
    """Renders both drives, asks and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="model with a place head")
    bundle = parser.parse_args().bundle
    light = Sensor(ASKING_SEED + 3000, lamps=0.5, exposure=0.1, balance=0.15, noise=8.0, blur=1.2)
    plain = Sensor(MAPPING_SEED)
    stored, known = _seen(bundle, MAPPING_HZ, MAPPING_SEED, plain, 10**9)
    queries, vectors = _seen(bundle, ASKING_HZ, ASKING_SEED, light, 10**12)
    right = right_matches(queries, stored)
    answerable = right.any(axis=1)
    with tempfile.TemporaryDirectory() as folder:
        places, ids, index = fill_map(Path(folder), "home", stored, known)
        for name, sequence, odometry in (
            ("single images", False, False),
            ("sequence", True, False),
            ("sequence with odometry", True, True),
        ):
            found = recognise(places, ids, index, vectors, queries, sequence, odometry)
            hit = right[np.arange(len(right)), found["match"]]
            accepted = found["accepted"]
            print(
                f"{name}: recall@1 {hit[answerable].mean():.3f} of {answerable.sum()}, "
                f"right / accepted {(hit & accepted).sum()} / {accepted.sum()}"
            )
        places.close()


if __name__ == "__main__":
    main()
