"""Routes that were taught in simulated homes, repeated there when the homes have changed."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.driving.following import ARRIVED, BLOCKED, OFF_ROUTE, SURE_M, Follower
from robot_vision.driving.route import Route
from robot_vision.filters.pose_settings import PoseFilterSettings
from robot_vision.gate.rule import read_scores
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import inverse, pose_matrix
from robot_vision.pipeline import Pipeline
from robot_vision.places.localising.localiser import ActiveLocaliser, LocaliserOptions
from robot_vision.places.localising.next_view import MapViews
from robot_vision.places.map.base import PlaceMap
from robot_vision.places.recognition.recogniser import Recognition
from robot_vision.places.tracker import PlaceTracker
from robot_vision.simulation.nearest_image import NearestImage
from robot_vision.simulation.nodes import COLLISION
from robot_vision.simulation.referee import IMAGE_STEPS
from robot_vision.simulation.sight import Sight
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.teaching import Taught, planar
from robot_vision.statistics.exact import poisson_interval, upper_share

Array = NDArray[np.float64]

SIGHT, ODOMETRY, NEAREST = "sight", "odometry", "nearest"
BACKWARDS, BOX = "backwards", "box"
REAR, REAR_BOX = "rear", "rear_box"
WAYS = SIGHT, ODOMETRY, NEAREST, BACKWARDS, BOX, REAR, REAR_BOX
WATCHED_BACK = REAR, REAR_BOX
BACK, BOXES = (BACKWARDS, *WATCHED_BACK), (BOX, REAR_BOX)
LOST, COLLIDED, TIME, ELSEWHERE = "lost", "collision", "time", "elsewhere"
_IMAGES_A_LOOK = 2  # 5 Hz
_LOOKS_ROUND_S = 2.0  # after which a robot that is lost looks round on the spot
_LOST_S = 30.0  # after which one that does not get on is given up
_BOX_S = 5.0  # for which one stands before a box until that is believed
_SLOWEST_M_S = 0.05
_THERE_M = 0.5  # from the end of the way


@dataclass(frozen=True)
class Repeat:
    """One start.

    Attributes:
        route: its name.
        by: one of `WAYS`: `sight`; `odometry` alone after the first look; `nearest` image steering; `sight`
            `backwards`; `sight` with a `box` on the way; and backwards with a `rear` camera, without and with
            a box (`rear_box`).
        end: `arrived`, or why not: `lost`, `off_route`, `blocked`, `collision`, `time`; `elsewhere` where it
            was not at the end when it said so.
        way_m: driven.
        to_go_m: of the route, from where the robot was put.
        cross_track_m: distances of the robot from the true way, ten a second while it follows the route.
        looks: images that were compared with the map.
        verified: those of them that gave a pose.
        wrong: those of them that were not where the robot was.
    """

    route: str
    by: str
    end: str
    way_m: float
    to_go_m: float
    cross_track_m: tuple[float, ...]
    looks: int
    verified: int
    wrong: int

    @property
    def well(self) -> bool:
        """Whether it ended as it should: at the end of the route, or before the box."""
        return self.end == (BLOCKED if self.by in BOXES else ARRIVED)


@dataclass(frozen=True)
class Steered:
    """What a way to repeat a route says at an image.

    Attributes:
        command: speed, m/s, and turn rate, rad/s.
        reason: why it stands, or `lost`; empty while it follows the route.
        to_go_m: of the route; None where it does not know.
    """

    command: tuple[float, float]
    reason: str
    to_go_m: float | None = None


class _ByNearest:
    """Steers by the nearest taught image, and knows no more."""

    looks = verified = wrong = 0

    def __init__(self, taught: Taught, simulator: Simulator) -> None:
        c = simulator.mount.camera
        self._steering = NearestImage(taught.views, taught.said, float(c.k[0, 0]) / c.width)

    def __call__(self, simulator: Simulator, ticks: int) -> Steered:
        self.looks += 1
        command = self._steering.drive(simulator.image())
        return Steered(command, "") if self._steering.left else Steered((0.0, 0.0), ARRIVED)


class _ByMap:
    """Follows the route by where the robot is in its map."""

    def __init__(
        self,
        taught: Taught,
        route: Route,
        places: PlaceMap,
        pipeline: Pipeline,
        simulator: Simulator,
        by: str,
        reflex: Sight | None,
    ) -> None:
        c = simulator.mount.camera
        lens = Intrinsics(c.width, c.height, np.asarray(c.k), np.zeros(0))
        sure = PoseFilterSettings(localised_m=SURE_M)
        self._tracker = PlaceTracker(places, pipeline, lens, simulator.T_base_camera, sure)
        self._searching = ActiveLocaliser(MapViews(places), LocaliserOptions(drive_m=0.0))
        self._follower = Follower(route, backwards=by in BACK, watched=by in WATCHED_BACK)
        self._taught, self._by, self._reflex = taught, by, reflex
        self._fixed: Array | None = None  # T_map_odom of a robot that looks no more
        self._lost_ns, self._turn = simulator.now_ns, 0.0
        self.looks = self.verified = self.wrong = 0

    def __call__(self, simulator: Simulator, ticks: int) -> Steered:
        m, tracker, follower = simulator.odometry.motion, self._tracker, self._follower
        T_odom_base = planar(m.x, m.y, m.yaw)
        tracker.move(simulator.now_ns, T_odom_base)
        if self._fixed is None and ticks % _IMAGES_A_LOOK == 0:
            self._look(simulator, T_odom_base)
        T_map_base = _where(tracker) if self._fixed is None else self._fixed @ T_odom_base
        if T_map_base is None:
            looks_round = (simulator.now_ns - self._lost_ns) * 1e-9 > _LOOKS_ROUND_S
            turn_rate = self._turn * follower.settings.max_turn_rad_s if looks_round else 0.0
            return Steered((0.0, turn_rate), LOST)
        self._lost_ns = simulator.now_ns
        if self._by == ODOMETRY and self._fixed is None:
            self._fixed = T_map_base @ inverse(T_odom_base)
        yaw = math.atan2(T_map_base[1, 0], T_map_base[0, 0])
        x, y = T_map_base[:2, 3]
        said = follower.drive(x, y, yaw, _collision(self._reflex, simulator))
        command = said.velocity.linear[0], said.velocity.angular[2]
        return Steered(command, said.reason, follower.route.length_m - said.progress_m)

    def _look(self, simulator: Simulator, T_odom_base: Array) -> None:
        found, pose = self._tracker.see(simulator.now_ns, simulator.image())
        self.looks += 1
        T = None
        if pose is not None:
            self.verified += 1
            T = pose_matrix(pose.position, pose.orientation_xyzw)
            T_map_base = T @ inverse(simulator.T_base_camera)
            self.wrong += self._taught.wrong(T_map_base, simulator.motion)
        if self._tracker.localised:
            self._searching.reset()
        else:
            T_odom_camera = T_odom_base @ simulator.T_base_camera
            named = _named(found)
            self._turn = self._searching.look(simulator.now_ns, T_odom_camera, named, T).side


def repeat(
    name: str,
    taught: Taught,
    route: Route,
    places: PlaceMap,
    pipeline: Pipeline,
    simulator: Simulator,
    by: str,
    reflex: Sight | None,
) -> Repeat:
    """Lets a robot repeat a route from where it stands.

    Args:
        name: of the route.
        taught: what is true of it.
        route: as the robot estimated it.
        places: its map.
        pipeline: of the map's model.
        simulator: the robot.
        by: one of `WAYS`.
        reflex: reads the topic `COLLISION`, by the camera that looks where the robot goes; None for none.
    """
    steering: _ByNearest | _ByMap = (
        _ByNearest(taught, simulator)
        if by == NEAREST
        else _ByMap(taught, route, places, pipeline, simulator, by, reflex)
    )
    way, cross_track = taught.way(), list[float]()
    stands_ns = began_ns = simulator.now_ns
    most_s = _LOST_S + route.length_m / _SLOWEST_M_S
    gives_up_s = _BOX_S if by in BOXES else _LOST_S
    to_go: float | None = None
    for ticks in itertools.count():
        said = steering(simulator, ticks)
        reason = said.reason
        to_go = said.to_go_m if to_go is None else to_go
        if said.command != (0.0, 0.0) and reason not in (LOST, BLOCKED):
            stands_ns = simulator.now_ns
        stood_s = (simulator.now_ns - stands_ns) * 1e-9
        if stood_s > (gives_up_s if reason == BLOCKED else _LOST_S) or reason in (
            ARRIVED,
            OFF_ROUTE,
        ):
            break
        if (simulator.now_ns - began_ns) * 1e-9 > most_s:
            reason = reason or TIME
            break
        simulator.command(*said.command)
        for _ in range(IMAGE_STEPS):
            simulator.step()
        if reason != LOST:
            here = simulator.motion.x, simulator.motion.y
            cross_track.append(float(np.hypot(*(way - here).T).min()))
        if simulator.collisions:
            reason = COLLIDED
            break
    end = way[0 if by in BACK else -1]
    here = simulator.motion.x, simulator.motion.y
    if reason == ARRIVED and math.dist(end, here) > _THERE_M:
        reason = ELSEWHERE
    s = steering
    return Repeat(
        name,
        by,
        reason,
        simulator.way_m,
        to_go or 0.0,
        tuple(cross_track),
        s.looks,
        s.verified,
        s.wrong,
    )


def _where(tracker: PlaceTracker) -> Array | None:
    estimate = tracker.filter.estimate() if tracker.localised else None
    return None if estimate is None else estimate.T


def _named(found: Recognition) -> list[tuple[Array, float]]:
    return [(pose_matrix(c.position, c.quaternion_xyzw), c.probability) for c in found.candidates]


def _collision(reflex: Sight | None, simulator: Simulator) -> float:
    if reflex is None:
        return 0.0
    message = reflex(simulator).get(COLLISION)
    return 1.0 if message is None else read_scores(message)["collision"]


def figures(repeats: Sequence[Repeat]) -> dict[str, Any]:
    """Returns the pooled figures of one way to repeat, plain values."""
    well, count = sum(r.well for r in repeats), len(repeats)
    hits, km = sum(r.end == COLLIDED for r in repeats), sum(r.way_m for r in repeats) / 1000
    off = np.array([metres for r in repeats for metres in r.cross_track_m] or [np.nan])
    low, high = poisson_interval(hits)
    per_km = [n / km if km else math.nan for n in (hits, low, high)]
    looks = sum(r.looks for r in repeats)
    return {
        "by": repeats[0].by,
        "starts": count,
        "well": well,
        "well_share": [
            well / count,
            1 - upper_share(count - well, count, 0.975),
            upper_share(well, count, 0.975),
        ],
        "km": km,
        "to_go_m": float(np.mean([r.to_go_m for r in repeats])),
        "cross_track_median_m": float(np.median(off)),
        "cross_track_p95_m": float(np.quantile(off, 0.95)),
        "collisions": hits,
        "collisions_per_km": per_km,
        "looks": looks,
        "verified": sum(r.verified for r in repeats),
        "wrong": sum(r.wrong for r in repeats),
        "ends": dict(Counter(r.end for r in repeats)),
    }


def plain(repeats: Sequence[Repeat]) -> list[dict[str, Any]]:
    """Returns each start for JSON, with what its distances from the way are."""
    found = []
    for each in repeats:
        row = {**asdict(each), "cross_track_m": None}
        if each.cross_track_m:
            row["cross_track_m"] = [
                float(np.quantile(each.cross_track_m, q)) for q in (0.5, 0.95, 1.0)
            ]
        found.append(row)
    return found
