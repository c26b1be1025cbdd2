"""A map over ten days of moved furniture, boxes and light.

`python -m benchmarks.place_days --bundle models/demo`

In each home the robot maps on day one. Every later day furniture has moved, other pictures hang, crates stand
about and the lamps differ (`simulation.world.days`); the robot patrols, with poses that err by 3 cm and 1.5
degrees, and each map is changed by its rule:

- untouched: the map of day one;
- all: the patrol's keyframes are added, as `robot-vision map add` does;
- update: `robot-vision map update`.

A held-out drive on that day, on the same tour in either sense with other offsets and views, then asks each
map where its images were taken, each image alone. Images count that are within the place's radius of a
keyframe of day one. Also printed: the answers in the morning, before the patrol; how many keyframes were
replaced; and the same of homes in which nothing changes but noise, exposure and a little of the lamps.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.geometry.rigid import pose_matrix, xyzw_from_matrix
from robot_vision.pipeline import Pipeline
from robot_vision.places.map.base import MapError, PlaceMap
from robot_vision.places.map.building import MapView
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.keyframe_policy import KeyframePolicy, KeyframeSelector
from robot_vision.places.map.opening import create_map, open_map
from robot_vision.places.map.updating import Seen, UpdatePolicy, apply_update, plan_update
from robot_vision.simulation.drive import DriveFrame, drive_along
from robot_vision.simulation.planner import Plan
from robot_vision.simulation.world.days import days_of_home
from robot_vision.simulation.world.homes import random_home
from robot_vision.simulation.world.obstacles import DistanceMap
from robot_vision.simulation.world.renderer import Renderer
from robot_vision.simulation.world.sensor import Sensor, render_frames
from robot_vision.simulation.world.world import World

DAYS = 10
PATROL_HZ, ASKING_HZ = 6.4, 5.0  # 0.25 m and 0.32 m a frame
POSE_ERROR_M, POSE_ERROR_DEG = 0.03, 1.5
DEVELOPMENT, TEST, STILL = range(900, 902), range(1000, 1008), range(1000, 1001)
_CLEARANCE_M = 0.3
_DAY_NS = 86_400 * 10**9
_START_NS = 1_700_000_000 * 10**9
_POINTS = 4  # that a drive visits, at least
_SEEN_CHANGED = 0.1  # share of a view's pixels
_SAMPLED = 40  # keyframes of day one that are compared with day ten


@dataclass(frozen=True, eq=False)
class Drive:
    """What the camera saw on one drive.

    Attributes:
        stamps_ns: int64 (N,).
        poses: true `T_map_camera` (N, 4, 4).
        given: the same as the localiser says it (N, 4, 4).
        descriptors: float32 (N, D).
    """

    stamps_ns: NDArray[np.int64]
    poses: NDArray[np.float64]
    given: NDArray[np.float64]
    descriptors: NDArray[np.float32]


@functools.lru_cache(maxsize=4)
def worlds(seed: int) -> tuple[World, ...]:
    """Returns a home as it looks on each of the days."""
    return tuple(itertools.islice(days_of_home(seed), DAYS))


def route(
    world: World, points: NDArray[np.float64], seed: int, hz: float, back: bool
) -> list[DriveFrame]:
    """Returns a drive from point to point around what stands there today, and back the same way."""
    free = DistanceMap.of(world)
    way = [points[0]]
    for goal in points[1:]:
        way += list(Plan(free, _CLEARANCE_M, goal).way(way[-1], 100.0))
    there = np.array(way)[::3]  # a planner's path has corners of its grid
    if back:
        there = np.concatenate([there, there[::-1]])
    return drive_along(world, there, seed, hz, offset_m=0.1, sway_deg=6.0)


def points_of(plan: World, seed: int) -> NDArray[np.float64]:
    """Returns a point (n, 2) in each room, and some more in a small home."""
    rng = np.random.default_rng((seed, 78))
    free = DistanceMap.of(plan)
    found: list[NDArray[np.float64]] = []
    while len(found) < max(_POINTS, len(plan.rooms)):
        room = plan.rooms[len(found) % len(plan.rooms)]
        xy = rng.uniform(np.array(room.low) + 0.5, np.array(room.high) - 0.5)
        if float(free.distance[free.cells(xy)][0]) > 0.4:
            found.append(xy)
    return np.stack(found)


class Home:
    """The drives of one home, from a file or rendered into it."""

    def __init__(self, seed: int, bundle: Path, keep: Path) -> None:
        self.seed, self._bundle, self._keep = seed, bundle, keep

    def drives(self, still: bool) -> dict[str, Drive]:
        """Returns `patrol-DAY` and `asked-DAY`; in a home where nothing changes, later patrols alone."""
        file = self._keep / f"home-{self.seed}{'-still' if still else ''}.npz"
        if not file.exists():
            arrays: dict[str, Any] = {}
            with Pipeline.load(self._bundle, precision="float32", threads=1) as pipeline:
                for name, world, frames, sensor_seed in self._planned(still):
                    drive = self._seen(pipeline, name, world, frames, sensor_seed)
                    arrays |= {f"{name}/{k}": v for k, v in vars(drive).items()}
            draft = file.with_suffix(".part.npz")
            np.savez(draft, **arrays)
            draft.rename(file)
        with np.load(file) as found:
            names = sorted({key.split("/")[0] for key in found})
            fields = ("stamps_ns", "poses", "given", "descriptors")
            return {name: Drive(*(found[f"{name}/{f}"] for f in fields)) for name in names}

    def _planned(self, still: bool) -> Iterator[tuple[str, World, list[DriveFrame], int]]:
        plan = random_home(self.seed)
        points = points_of(plan, self.seed)
        for day, world in zip(range(1, DAYS + 1), worlds(self.seed), strict=True):
            rng = np.random.default_rng((self.seed, 79, day))
            base = 10_000 * self.seed + 10 * day
            if still and day > 1:
                yield (
                    f"patrol-{day}",
                    plan,
                    route(plan, points, base + 5, PATROL_HZ, True),
                    base + 6,
                )
            elif not still:
                yield f"patrol-{day}", world, route(world, points, base, PATROL_HZ, True), base + 1
                order = slice(None, None, int(rng.choice((1, -1))))
                yield (
                    f"asked-{day}",
                    world,
                    route(world, points[order], base + 2, ASKING_HZ, False),
                    base + 3,
                )

    def _seen(
        self, pipeline: Pipeline, name: str, world: World, frames: list[DriveFrame], seed: int
    ) -> Drive:
        rng = np.random.default_rng((seed, 80))
        images = list(render_frames(world, frames, Sensor(seed)))
        vectors = [
            prediction["place"].values
            for i in range(0, len(images), 16)
            for prediction in pipeline(images[i : i + 16])
        ]
        start = _START_NS + int(name.split("-")[1]) * _DAY_NS
        poses = np.stack([f.T_map_camera for f in frames])
        given = poses.copy()
        given[:, :3, 3] += rng.normal(0, POSE_ERROR_M, (len(poses), 3))
        for T, turn in zip(
            given, np.radians(rng.normal(0, POSE_ERROR_DEG, (len(poses), 3))), strict=True
        ):
            T[:3, :3] = T[:3, :3] @ cv2.Rodrigues(turn)[0]
        stamps = np.array([start + round(f.stamp_s * 1e9) for f in frames], np.int64)
        return Drive(stamps, poses, given, np.stack(vectors).astype(np.float32))


def views(name: str, drive: Drive) -> list[Seen]:
    """Returns a drive as an update takes it."""
    return [
        Seen(MapView(str(i), int(t), "camera", name, T, lambda _: None), d)  # type: ignore[arg-type, return-value]
        for i, (t, T, d) in enumerate(
            zip(drive.stamps_ns, drive.given, drive.descriptors, strict=True)
        )
    ]


def add_all(places: PlaceMap, name: str, drive: Drive) -> None:
    """Adds the keyframes of a drive, as `map build` and `map add` choose them."""
    selector = KeyframeSelector(KeyframePolicy())
    chosen = []
    for one in views(name, drive):
        if selector.wants(one.view.T_map_camera, one.descriptor):
            selector.added(one.view.T_map_camera, one.descriptor)
            chosen.append(
                Keyframe.checked(
                    stamp_ns=one.view.stamp_ns,
                    camera="camera",
                    source=name,
                    T_map_camera=one.view.T_map_camera,
                    descriptor=one.descriptor,
                )
            )
    places.add_many(chosen)


def recognised(places: PlaceMap, asked: Drive, policy: UpdatePolicy) -> NDArray[np.bool_]:
    """Returns for each image (N,) whether its most similar keyframe is of its place."""
    poses = places.poses()
    _, descriptors = places.descriptors()
    best = (asked.descriptors @ descriptors.T).argmax(axis=1)
    return near(asked, poses.positions[best], poses.quaternions_xyzw[best], policy)


def near(
    asked: Drive, positions: NDArray[Any], xyzw: NDArray[Any], policy: UpdatePolicy
) -> NDArray[np.bool_]:
    """Returns which images (N,) are of the places (N, 3) and (N, 4)."""
    turns = np.stack([xyzw_from_matrix(T[:3, :3]) for T in asked.poses])
    metres = np.linalg.norm(asked.poses[:, :3, 3] - positions, axis=1)
    cosine = np.minimum(np.abs((turns * xyzw).sum(axis=1)), 1)
    degrees = np.degrees(2 * np.arccos(cosine))
    return (metres <= policy.place_radius_m) & (degrees <= policy.place_heading_deg)


def lived(home: Home, policy: UpdatePolicy, folder: Path) -> dict[str, Any]:
    """Lets ten days pass in a home.

    Returns:
        For each rule and day [right answers, images] and the keyframes; for `update` the mornings too, the
        keyframes that were replaced, and how many of these look at what has changed; `any`: for
        some keyframes of day one, whether they do so on day ten.
    """
    drives = home.drives(False)
    first = create(folder / "first.map", len(drives["patrol-1"].descriptors[0]))
    add_all(first, "patrol-1", drives["patrol-1"])
    poses = first.poses()
    first.close()
    maps = {}
    for rule in ("untouched", "all", "update"):
        shutil.copy(folder / "first.map", folder / f"{rule}.map")
        maps[rule] = open_map(folder / f"{rule}.map", "write")
    result: dict[str, Any] = {rule: [] for rule in (*maps, "morning")}
    result |= {
        "sizes": {rule: [] for rule in maps},
        "replaced": 0,
        "changed": 0,
        "full": 0,
        "refused": 0,
    }
    for day, world in zip(range(1, DAYS + 1), worlds(home.seed), strict=True):
        asked = drives[f"asked-{day}"]
        first_places = zip(poses.positions, poses.quaternions_xyzw, strict=True)
        counts = np.any([near(asked, p, q, policy) for p, q in first_places], axis=0)
        result["morning"].append(share(recognised(maps["update"], asked, policy), counts))
        if day > 1:
            add_all(maps["all"], f"patrol-{day}", drives[f"patrol-{day}"])
            try:
                found = plan_update(
                    maps["update"], views(f"patrol-{day}", drives[f"patrol-{day}"]), policy
                )
            except MapError:  # most of the home looks new: the map stays as it is
                result["refused"] += 1
            else:
                apply_update(maps["update"], found)
                result["replaced"] += len(found.changes)
                result["full"] += found.full
                result["changed"] += sum(
                    changed(home.seed, world, c.record.stamp_ns, c.record.pose) > _SEEN_CHANGED
                    for c in found.changes
                )
        for rule, places in maps.items():
            result[rule].append(share(recognised(places, asked, policy), counts))
            result["sizes"][rule].append(len(places))
    some = np.random.default_rng((home.seed, 81)).permutation(len(poses.ids))[:_SAMPLED]
    result["any"] = [
        changed(
            home.seed, world, poses.stamps_ns[i], (*poses.positions[i], *poses.quaternions_xyzw[i])
        )
        > _SEEN_CHANGED
        for i in some
    ]
    for places in maps.values():
        places.close()
    return result


def share(right: NDArray[np.bool_], counts: NDArray[np.bool_]) -> list[int]:
    """Returns [right answers, images]."""
    return [int((right & counts).sum()), int(counts.sum())]


def changed(seed: int, today: World, stamp_ns: int, pose: Any) -> float:
    """Returns the share of a keyframe's pixels that differ by 24 grey levels, in the light of the plan.

    Args:
        seed: of the home.
        today: what is compared.
        stamp_ns: of the keyframe.
        pose: x, y, z, qx, qy, qz, qw.
    """
    day = int(stamp_ns - _START_NS) // _DAY_NS
    T = pose_matrix(np.array(pose[:3]), np.array(pose[3:]))
    plan = random_home(seed)
    then = worlds(seed)[day - 1]
    a, b = (drawn(lit(world, plan)).render(T).astype(int) for world in (then, today))
    return float((np.abs(a - b).max(axis=2) > 24).mean())


@functools.lru_cache(maxsize=16)
def drawn(world: World) -> Renderer:
    """Returns what draws a world."""
    return Renderer(world)


def lit(world: World, plan: World) -> World:
    """Returns a world in the light of another."""
    rooms = zip(world.rooms, plan.rooms, strict=True)
    return replace(world, rooms=tuple(replace(a, light=b.light) for a, b in rooms))


def still(home: Home, policy: UpdatePolicy, folder: Path) -> dict[str, int]:
    """Returns what an update does where nothing has changed: keyframes at first, replaced, and at the end."""
    drives = home.drives(False) | home.drives(True)
    with create(folder / "still.map", len(drives["patrol-1"].descriptors[0])) as places:
        add_all(places, "patrol-1", drives["patrol-1"])
        before, replaced = len(places), 0
        for day in range(2, DAYS + 1):
            found = plan_update(places, views(f"patrol-{day}", drives[f"patrol-{day}"]), policy)
            apply_update(places, found)
            replaced += len(found.changes)
        return {"before": before, "replaced": replaced, "after": len(places)}


def create(path: Path, dimension: int) -> PlaceMap:
    """Makes an empty map."""
    return create_map(path, bundle_name="days", bundle_sha256="0" * 64, dimension=dimension)


def pooled(found: list[dict[str, Any]], rule: str, day: int, weights: NDArray[Any]) -> NDArray[Any]:
    """Returns the recall of a day (B,), homes counting as often as the weights (B, H) say."""
    right, count = np.array([home[rule][day - 1] for home in found]).T
    return (weights @ right) / (weights @ count)


def interval(values: NDArray[Any]) -> str:
    """Returns the first value, and the 95 % of the others."""
    low, high = np.percentile(values[1:], (2.5, 97.5))
    return f"{values[0]:.3f} ({low:.3f} to {high:.3f})"


def summary(found: list[dict[str, Any]]) -> None:
    """Prints the table; intervals are of a bootstrap over homes."""
    rng = np.random.default_rng(0)
    homes = len(found)
    weights = np.vstack([np.ones(homes), rng.multinomial(homes, np.ones(homes) / homes, 2000)])
    print(
        "| day | untouched | all | update | update, in the morning | keyframes: untouched, all, update |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for day in range(1, DAYS + 1):
        cells = [
            interval(pooled(found, r, day, weights))
            for r in ("untouched", "all", "update", "morning")
        ]
        sizes = ", ".join(
            str(sum(h["sizes"][r][day - 1] for h in found)) for r in ("untouched", "all", "update")
        )
        print(f"| {day} | {' | '.join(cells)} | {sizes} |")
    for rule in ("untouched", "all", "update", "morning"):
        ratio = pooled(found, rule, DAYS, weights) / pooled(found, "untouched", 1, weights)
        later = np.mean([pooled(found, rule, d, weights) for d in range(2, DAYS + 1)], axis=0)
        print(
            f"{rule}: day {DAYS} of day one {interval(ratio)}; mean of days 2 to {DAYS} {interval(later)}"
        )
    print(
        f"replaced {sum(h['replaced'] for h in found)}, of which {sum(h['changed'] for h in found)} look at "
        f"what has changed (keyframes of day one that do so on day {DAYS}: "
        f"{np.mean([c for h in found for c in h['any']]):.2f}); {sum(h['full'] for h in found)} images "
        "found no room; "
        f"{sum(h['refused'] for h in found)} patrols refused"
    )


def main() -> None:
    """Renders what is not kept yet, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="model with a place head")
    parser.add_argument("--homes", type=int, nargs="+", default=list(TEST), help="seeds")
    parser.add_argument(
        "--still", type=int, nargs="*", default=list(STILL), help="seeds of homes without changes"
    )
    parser.add_argument("--keep", type=Path, help="folder that keeps the drives for another run")
    parser.add_argument("--json", type=Path, help="file for the counts")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    policy = UpdatePolicy()
    with tempfile.TemporaryDirectory() as name:
        keep = args.keep or Path(name) / "drives"
        keep.mkdir(parents=True, exist_ok=True)
        found, unchanged = [], []
        for seed in args.homes:
            with tempfile.TemporaryDirectory() as folder:
                found.append(lived(Home(seed, args.bundle, keep), policy, Path(folder)))
                if seed in args.still:
                    unchanged.append(still(Home(seed, args.bundle, keep), policy, Path(folder)))
    summary(found)
    if unchanged:
        sums = {key: sum(home[key] for home in unchanged) for key in unchanged[0]}
        print(f"{len(unchanged)} homes without changes: {sums}")
    if args.json:
        args.json.write_text(json.dumps({"homes": found, "still": unchanged}, indent=1) + "\n")


if __name__ == "__main__":
    main()
