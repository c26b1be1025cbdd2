"""Kidnapped robots in simulated homes: how they find out where they are.

    python -m benchmarks.kidnapped --homes 10000 10001 10002 10003 10004

Each home is driven through once by the planner, and its place map built of that drive as `map build
--structure` does. Then the robot is put down anywhere, in another light, and moves by each strategy until
its pose is sure or `--limit` seconds are over. All strategies see 2.5 images a second through the
same recogniser and verifier, and stop by the same rule; time is simulated, and what an image says is there at
once. A sure pose is wrong where it is further than 0.5 m or 15 degrees from the true one.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.cli.map.build import ViewStructure
from robot_vision.files.whole import write_whole
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import apart, pose_matrix
from robot_vision.pipeline import Pipeline
from robot_vision.places.index.index_cache import open_index
from robot_vision.places.localising.agreement import AgreementOptions
from robot_vision.places.localising.localiser import (
    DRIVE,
    STAND,
    TURN,
    ActiveLocaliser,
    LocaliserOptions,
    Step,
)
from robot_vision.places.localising.next_view import MapViews
from robot_vision.places.map.base import PlaceMap
from robot_vision.places.map.building import MapView, build
from robot_vision.places.map.opening import create_map_for, open_map
from robot_vision.places.recognition.recogniser import Odometry, Recogniser
from robot_vision.places.verification.builder import StructureBuilder
from robot_vision.places.verification.verifier import (
    COMPARED,
    VerificationCandidate,
    Verifier,
    candidates_of,
)
from robot_vision.simulation.drivers import Expert
from robot_vision.simulation.referee import IMAGE_STEPS
from robot_vision.simulation.robot import Robot
from robot_vision.simulation.sight import Sight, open_pipeline
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.watching import ModelDriver
from robot_vision.simulation.world.homes import random_home
from robot_vision.simulation.world.sensor import Sensor
from robot_vision.statistics.exact import upper_share

Array = NDArray[np.float64]

FIRST_START = 1000  # seed of the first kidnapping in each home, and of its light
MAPS = 2  # commands, 0.1 s each, from one image of the map's drive to the next
LOOKS = 4  # commands, 0.1 s each, from one image that is looked at to the next
WRONG_M, WRONG_DEG = 0.5, 15.0
WRONG_COSTS = 100.0  # late ones


def intrinsics_of(simulator: Simulator) -> Intrinsics:
    """Returns the camera's."""
    camera = simulator.mount.camera
    return Intrinsics.of_matrix(camera.k, camera.width, camera.height)


def odometry_of(simulator: Simulator) -> Array:
    """Returns the camera's pose (4, 4) by the wheels."""
    m, T = simulator.odometry.motion, np.eye(4)
    c, s = np.cos(m.yaw), np.sin(m.yaw)
    T[:2, :2], T[:2, 3] = [[c, -s], [s, c]], [m.x, m.y]
    return np.asarray(T @ simulator.T_base_camera)


def make_map(file: Path, home: int, metres: float, pipeline: Pipeline) -> PlaceMap:
    """Drives through a home and builds its map, unless it is there."""
    if file.exists():
        return open_map(file, "read")
    part = file.with_suffix(".part")
    part.unlink(missing_ok=True)
    simulator, driver, views = Simulator(random_home(home), home), Expert(home), list[MapView]()
    lens, tick = intrinsics_of(simulator), 0
    while simulator.way_m < metres and tick < 20 * metres:
        if tick % MAPS == 0:
            image = simulator.image()
            views.append(
                MapView(
                    f"{tick}",
                    simulator.now_ns,
                    "camera",
                    "drive",
                    simulator.T_map_camera,
                    functools.partial(lambda shown, size: shown, image),
                    intrinsics=lens,
                )
            )
        simulator.command(*driver(simulator))
        for _ in range(IMAGE_STEPS):
            simulator.step()
        tick += 1
    with create_map_for(part, pipeline.bundle) as places:
        build(places, views, pipeline, structure=ViewStructure(StructureBuilder()))
    part.rename(file)
    return open_map(file, "read")


@dataclass(frozen=True)
class Outcome:
    """What became of one robot.

    Attributes:
        home: its seed.
        start: its seed.
        sure: whether it found a pose.
        wrong: whether that is false.
        time_s: until then, or the limit.
        turn_deg: that it turned, to both sides.
        way_m: that it drove.
        error_m: of the pose.
        error_deg: of the pose.
        hits: collisions.
        verified: images with a verified pose.
        images: all that it took.
    """

    home: int
    start: int
    sure: bool
    wrong: bool
    time_s: float
    turn_deg: float
    way_m: float
    error_m: float
    error_deg: float
    hits: int
    verified: int
    images: int


class Wait:
    """Stands still; images of one view, once a second, have to do: they differ in noise alone."""

    looks = 10

    def __init__(self, options: LocaliserOptions) -> None:
        self._options = replace(options, agreement=replace(options.agreement, apart_deg=0.0))
        self._found = ActiveLocaliser(None, self._options)

    def look(self, *said: Any) -> Step:
        """See `ActiveLocaliser`."""
        step = self._found.look(*said)
        return step if step.pose is not None else Step(STAND)


class Spin:
    """Turns to the left on the spot."""

    def __init__(self, options: LocaliserOptions) -> None:
        self._found = ActiveLocaliser(None, options)

    def look(self, *said: Any) -> Step:
        """See `ActiveLocaliser`."""
        step = self._found.look(*said)
        return step if step.pose is not None else Step(TURN, 1.0)


Make = Callable[[MapViews, LocaliserOptions], Any]
STRATEGIES: dict[str, Make] = {
    "wait": lambda views, options: Wait(options),
    "spin": lambda views, options: Spin(options),
    "spin and drive": lambda views, options: ActiveLocaliser(None, options),
    "active": ActiveLocaliser,
}


def run_one(
    simulator: Simulator,
    strategy: Any,
    candidates: Callable[[int], VerificationCandidate],
    recogniser: Recogniser,
    pipeline: Pipeline,
    reflex: Callable[[Simulator], tuple[float, float]],
    options: LocaliserOptions,
    limit_s: float,
    ids: tuple[int, int],
) -> Outcome:
    """Lets one robot find out where it is."""
    verifier, lens, start_ns = Verifier(), intrinsics_of(simulator), simulator.now_ns
    way_m, hits = simulator.way_m, simulator.collisions
    recogniser.reset()
    step, tick, verified, images, turn, yaw = Step(STAND), 0, 0, 0, 0.0, simulator.motion.yaw
    looks = getattr(strategy, "looks", LOOKS)
    while (simulator.now_ns - start_ns) * 1e-9 <= limit_s:
        if tick % looks == 0:
            stamp, image, T = simulator.now_ns, simulator.image(), odometry_of(simulator)
            images += 1
            found = recogniser.observe(pipeline(image)["place"].values, stamp, Odometry(stamp, T))
            keyframes = [c.keyframe_id for c in found.candidates[:COMPARED]]
            said = verifier.verify(image, [candidates(i) for i in keyframes], lens)
            pose = None
            if said.accepted and said.pose is not None:
                verified += 1
                pose = pose_matrix(said.pose.position, said.pose.orientation_xyzw)
            named = [
                (pose_matrix(c.position, c.quaternion_xyzw), c.probability)
                for c in found.candidates
            ]
            step = strategy.look(stamp, T, named, pose)
            if step.pose is not None:
                break
        if step.what == DRIVE:
            simulator.command(*reflex(simulator))
        else:
            simulator.command(0.0, options.turn_rad_s * step.side if step.what == TURN else 0.0)
        for _ in range(IMAGE_STEPS):
            simulator.step()
            turn, yaw = turn + abs(simulator.motion.yaw - yaw), simulator.motion.yaw
        tick += 1
    error_m = error_deg = float("nan")
    if step.pose is not None:
        error_m, error_deg = apart(step.pose, simulator.T_map_camera)
    time_s = (simulator.now_ns - start_ns) * 1e-9
    return Outcome(
        *ids,
        step.pose is not None,
        bool(error_m > WRONG_M or error_deg > WRONG_DEG),
        time_s if step.pose is not None else limit_s,
        float(np.degrees(turn)),
        simulator.way_m - way_m,
        error_m,
        error_deg,
        simulator.collisions - hits,
        verified,
        images,
    )


def _candidate(places: PlaceMap, keyframe_id: int) -> VerificationCandidate:
    return candidates_of(places, [keyframe_id])[0]


def figures(name: str, outcomes: Sequence[Outcome], limit_s: float) -> dict[str, Any]:
    """Returns the pooled figures of a strategy; one that is never sure takes longer than the limit."""
    n = len(outcomes)
    right = np.array([o.sure and not o.wrong for o in outcomes])
    times = np.where(right, [o.time_s for o in outcomes], np.inf)
    wrong, late = sum(o.wrong for o in outcomes), sum(not o.sure for o in outcomes)
    errors = [o.error_m for o in outcomes if o.sure and not o.wrong]
    return {
        "strategy": name,
        "kidnapped": n,
        "right": int(right.sum()),
        "never_sure": late,
        "never_sure_share": interval(late, n),
        "wrong": wrong,
        "wrong_share": interval(wrong, n),
        "time_median_s": float(np.quantile(times, 0.5, method="lower")),
        "time_p90_s": float(np.quantile(times, 0.9, method="lower")),
        "time_mean_s": float(np.minimum(times, limit_s).mean()),
        "turn_median_deg": float(np.median([o.turn_deg for o in outcomes])),
        "way_mean_m": float(np.mean([o.way_m for o in outcomes])),
        "hits": sum(o.hits for o in outcomes),
        "cost": (late + WRONG_COSTS * wrong) / n,
        "error_median_m": float(np.median(errors)) if errors else float("nan"),
        "error_max_m": max(errors, default=float("nan")),
    }


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kidnapped", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--homes", type=int, nargs="+", required=True, help="seeds of the homes")
    parser.add_argument("--each", type=int, default=10, help="kidnappings a home (default: 10)")
    parser.add_argument("--metres", type=float, default=20.0, help="the map's drive (default: 20)")
    parser.add_argument("--limit", type=float, default=15.0, help="seconds (default: 15)")
    parser.add_argument("--views", type=int, default=2, help="that have to agree (default: 2)")
    parser.add_argument("--turn", type=float, default=1.0, help="rad/s (default: 1)")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--model", default="demo", help="with a place head (default: demo)")
    parser.add_argument("--maps", type=Path, default=Path("out/kidnapped"), help="folder of maps")
    parser.add_argument("--json", type=Path, help="file for every outcome")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    cv2.setRNGSeed(0)
    args.maps.mkdir(parents=True, exist_ok=True)
    options = LocaliserOptions(args.turn, agreement=AgreementOptions(views=args.views))
    outcomes: dict[str, list[Outcome]] = {name: [] for name in args.strategies}
    began = time.monotonic()
    with open_pipeline(args.model) as pipeline, open_pipeline("steer") as steers:
        sight = Sight(steers, Robot())
        for home in args.homes:
            file = args.maps / f"home-{home}-{args.metres:g}m.map"
            with make_map(file, home, args.metres, pipeline) as places:
                recogniser = Recogniser(places, open_index(places))
                views, world = MapViews(places, recogniser.options), random_home(home)
                candidates = functools.cache(functools.partial(_candidate, places))
                simulator = Simulator(world, home)  # one, since painting a home takes seconds
                print(f"home {home}: {len(places)} keyframes", file=sys.stderr)
                for start in range(args.each):
                    put = Simulator(world, FIRST_START + start).motion
                    for name in args.strategies:
                        simulator.motion, simulator.sensor = put, Sensor(FIRST_START + start)
                        simulator.command(0.0, 0.0)
                        simulator.step()
                        strategy = STRATEGIES[name](views, options)
                        reflex = ModelDriver(sight, simulator.robot, "dronet")
                        outcomes[name].append(
                            run_one(
                                simulator,
                                strategy,
                                candidates,
                                recogniser,
                                pipeline,
                                reflex,
                                options,
                                args.limit,
                                (home, start),
                            )
                        )
                if args.json:
                    _write(args.json, outcomes, args.limit)
                found = [f"{n} {sum(o.sure for o in outcomes[n])}" for n in outcomes]
                print(
                    f"sure: {', '.join(found)}; {time.monotonic() - began:.0f} s", file=sys.stderr
                )
    for row in [figures(name, found, args.limit) for name, found in outcomes.items()]:
        print(
            json.dumps(
                {
                    k: np.round(v, 3).tolist() if not isinstance(v, str) else v
                    for k, v in row.items()
                }
            )
        )
    for name, found in outcomes.items():
        if name != "active" and "active" in outcomes:
            print(against(name, outcomes["active"], found))
    return 0


def interval(hits: int, count: int) -> tuple[float, float]:
    """Returns the exact two-sided 95 % interval of a share."""
    return 1 - upper_share(count - hits, count, 0.975), upper_share(hits, count, 0.975)


def against(name: str, ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> str:
    """Says how active was against another from the same starts; never sure counts as the limit."""
    gaps = np.array([a.time_s - b.time_s for a, b in zip(ours, theirs, strict=True)])
    rng = np.random.default_rng(0)
    low, high = np.quantile(rng.choice(gaps, (5000, len(gaps))).mean(axis=1), (0.025, 0.975))
    won, lost = (
        sum(a.sure and not b.sure for a, b in zip(x, y, strict=True))
        for x, y in ((ours, theirs), (theirs, ours))
    )
    return (
        f"active against {name}: {gaps.mean():+.2f} s ({low:+.2f} to {high:+.2f}), sure alone {won} times, "
        f"not sure alone {lost} times"
    )


def _write(file: Path, outcomes: dict[str, list[Outcome]], limit_s: float) -> None:
    rows = [figures(name, found, limit_s) for name, found in outcomes.items()]
    data = {n: [asdict(o) for o in found] for n, found in outcomes.items()}
    write_whole(file, json.dumps({"figures": rows, "outcomes": data}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
