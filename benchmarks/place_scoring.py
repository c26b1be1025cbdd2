"""How long scoring places takes in `robot-vision evaluate`: `python -m benchmarks.place_scoring`.

A drive visits every place twice; descriptors are those of `place_world`, keyframes 0.15 m apart. All frames
are looked up among all, as the evaluation of one recording does. Prints seconds of CPU time and memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import numpy as np

from benchmarks.place_world import PlaceWorld
from robot_vision.heads.place.evaluation import PlaceViews, SamePlace, score_places

STEP_M, FRAME_NS = 0.15, 33_333_333


def frames(count: int, dimension: int) -> PlaceViews:
    """Returns a drive of two visits to each place, one after the other."""
    places = count // 2
    descriptor = np.empty((2 * places, dimension), np.float32)
    start = 0
    for first, second in PlaceWorld(places, dimension).rooms():
        descriptor[start : start + len(first)] = first
        descriptor[places + start : places + start + len(first)] = second
        start += len(first)
    position = np.zeros((2 * places, 3))
    position[:, 0] = STEP_M * np.tile(np.arange(places), 2)
    level = np.tile([0.0, 0.0, 0.0, 1.0], (2 * places, 1))
    return PlaceViews(descriptor, position, level, FRAME_NS * np.arange(2 * places))


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.place_scoring", description=__doc__)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=4096)
    arguments = parser.parse_args()
    views = frames(arguments.frames, arguments.dimension)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    cpu, wall = time.process_time(), time.monotonic()
    found = score_places(views, views, SamePlace(), True)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    there = found["place_positives"] > 0
    print(
        json.dumps(
            {
                "frames": len(views.position),
                "dimension": arguments.dimension,
                "cpu_s": round(cpu, 1),
                "wall_s": round(wall, 1),
                "descriptors_mb": round(views.descriptor.nbytes / 1e6),
                "before_mb": round(before_mb),
                "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
                "recall_at_1": float(np.mean(found["place_rank"][there] == 0)),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
