"""The same questions in the demo's simulated home, each room in turn left out; nobody tuned on its drives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks import place_regions
from benchmarks.place_frames import Views
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.pipeline import Pipeline
from robot_vision.simulation.drive import evaluation_drive, mapping_drive
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.renderer import Camera
from robot_vision.simulation.world.sensor import Sensor, render_frames

MAPPING_SEED, ASKING_SEED = 71, 72
MAPPING_HZ, ASKING_HZ = 8.0, 5.0
STEPS = slice(0, None, 2), slice(0, None, 3)


@dataclass(frozen=True, eq=False)
class _Picture:
    image: NDArray[np.uint8]

    def load(self) -> NDArray[np.uint8]:
        return self.image


@dataclass(frozen=True, eq=False)
class _Shot:
    source: _Picture


def measure(
    bundle: Path, recognise_in: Callable[[Path], place_regions.Recognise]
) -> dict[str, Any]:
    """Returns the numbers of each room.

    Args:
        bundle: the model.
        recognise_in: returns what asks the sequence filter of maps that are made in a folder.
    """
    cv2.setNumThreads(1)
    world, camera = default_world(), Camera()
    shots: list[Any] = []
    stamps: list[int] = []
    poses, rooms, test = [], [], []
    drives = (
        (mapping_drive(world, MAPPING_HZ, MAPPING_SEED), Sensor(seed=MAPPING_SEED), False),
        (evaluation_drive(world, ASKING_HZ, ASKING_SEED), Sensor(seed=ASKING_SEED), True),
    )
    for frames, sensor, asking in drives:
        start = stamps[-1] + 10**9 if stamps else 10**9
        shots += [_Shot(_Picture(i)) for i in render_frames(world, frames, sensor, camera)]
        stamps += [start + round(f.stamp_s * 1e9) for f in frames]
        poses += [f.T_map_camera for f in frames]
        rooms += [f.room for f in frames]
        test += [asking] * len(frames)
    views = Views(tuple(shots), np.array(stamps, np.int64), np.stack(poses))
    vectors: list[Any] = []
    with Pipeline.load(bundle, precision="float32", threads=1) as pipeline:
        for i in range(0, len(shots), 16):
            images = [s.source.load() for s in shots[i : i + 16]]
            vectors += [prediction["place"].values for prediction in pipeline(images)]
    parts = {r.name: np.array(rooms) == r.name for r in world.rooms if r.loop}
    with tempfile.TemporaryDirectory() as folder:
        return place_regions.measure(
            views,
            np.stack(vectors),
            np.array(test),
            Intrinsics.of_matrix(camera.k, camera.width, camera.height),
            recognise_in(Path(folder)),
            parts,
            STEPS,
        )
