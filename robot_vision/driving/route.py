"""A route that was driven once: where the robot was, in the frame of the place map of that drive."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import SourceError
from robot_vision.files.whole import write_whole

FORMAT = "robot_vision.route/1"
ROUTE = "route.json"  # next to its map
STEP_M = 0.05  # between two points
_LEAST_M = 0.3  # a shorter way is no route
_ABOUT_M = 0.2  # what the reflex said so near along the route, it may say again
_MOST_STEP_M = 1.0  # a gap of the recording that is wider than this is not to be guessed
_RISKS = "risk", "rear_risk"


@dataclass(frozen=True, eq=False)
class Route:
    """A way through a place map, in the order in which it was driven.

    Attributes:
        map: file name of the place map, in the route's own folder.
        map_id: of that map; another one has another frame.
        frame_id: of the points, the map's.
        base_frame: whose way it is.
        points: float64 (n, 3), x and y in metres and yaw in radians from +x to +y, at least `STEP_M` apart.
        risk: float64 (n,), the largest probability of a collision that the reflex said at each point
            while it was taught; None where no reflex looked.
        rear_risk: float64 (n,), the same of a camera that looked back.
        reflex: model that said it, a name or a folder; empty where none did.
    """

    map: str
    map_id: str
    frame_id: str
    base_frame: str
    points: NDArray[np.float64]
    risk: NDArray[np.float64] | None = None
    reflex: str = ""
    rear_risk: NDArray[np.float64] | None = None

    @cached_property
    def arc_m(self) -> NDArray[np.float64]:
        """Way to each point (n,), metres."""
        steps = np.hypot(*np.diff(self.points[:, :2], axis=0).T)
        return np.concatenate([[0.0], np.cumsum(steps)])

    @property
    def length_m(self) -> float:
        """Of the whole way."""
        return float(self.arc_m[-1])

    @cached_property
    def expected(self) -> NDArray[np.float64]:
        """Probability of a collision (n,) that the reflex may say about each point as when it was taught."""
        if self.risk is None:
            return np.zeros(len(self.points))
        arc = self.arc_m
        first = np.searchsorted(arc, arc - _ABOUT_M, side="left")
        behind = np.searchsorted(arc, arc + _ABOUT_M, side="right")
        return np.array(
            [self.risk[a:b].max() for a, b in zip(first.tolist(), behind.tolist(), strict=True)]
        )

    @property
    def backwards_m(self) -> float:
        """How far of it was driven backwards; a robot that follows it turns round there."""
        steps = np.diff(self.points[:, :2], axis=0)
        ahead = np.stack([np.cos(self.points[:-1, 2]), np.sin(self.points[:-1, 2])], axis=1)
        back = (steps * ahead).sum(axis=1) < 0
        return float(np.hypot(*steps[back].T).sum())

    def backwards(self) -> Route:
        """Returns the way back, on which the robot looks as it did and drives in reverse.

        Its `risk` is that of the camera that looked back, where there was one.
        """
        risk, rear = (None if r is None else r[::-1] for r in (self.risk, self.rear_risk))
        return replace(self, points=self.points[::-1], risk=risk if rear is None else rear)

    def write(self, folder: Path) -> Path:
        """Writes `route.json` into the folder of the map, and returns its path."""
        head = {
            "format": FORMAT,
            "map": self.map,
            "map_id": self.map_id,
            "frame_id": self.frame_id,
            "base_frame": self.base_frame,
            "reflex": self.reflex,
        }
        rows = ",\n  ".join(f"[{x:.4f}, {y:.4f}, {yaw:.4f}]" for x, y, yaw in self.points)
        text = json.dumps(head, indent=1).removesuffix("\n}")
        for name in _RISKS:
            if (risk := getattr(self, name)) is not None:
                text += f',\n "{name}": [' + ", ".join(f"{p:.3f}" for p in risk) + "]"
        write_whole(folder / ROUTE, f'{text},\n "points": [\n  {rows}\n ]\n}}\n')
        return folder / ROUTE


def thinned(poses: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Thins out a drive's poses (n, 4, 4).

    Returns:
        Points (m, 3), at least `STEP_M` apart: standing adds none; and the point (n,) that each pose is at.
    """
    points = np.stack(
        [poses[:, 0, 3], poses[:, 1, 3], np.arctan2(poses[:, 1, 0], poses[:, 0, 0])], axis=1
    )
    kept = [0]
    for i in range(1, len(points)):
        if math.dist(points[i, :2], points[kept[-1], :2]) >= STEP_M:
            kept.append(i)
    at = np.searchsorted(kept, np.arange(len(points)), side="right") - 1
    return points[kept], at


def read_route(path: str | Path) -> Route:
    """Reads a route: the file, or the folder that holds it.

    Raises:
        SourceError: it is not there, or is none.
    """
    file = Path(path).expanduser()
    file = file / ROUTE if file.is_dir() else file
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(
            f"{file} cannot be read ({error.strerror or error}): `robot-vision teach` makes a route"
        ) from error
    except ValueError as error:
        raise SourceError(f"{file} is no route: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise SourceError(f"{file} is no route: its format is not {FORMAT}")
    texts: dict[str, str] = {}
    for name in ("map", "map_id", "frame_id", "base_frame"):
        texts[name] = text = data.get(name, "")
        if not isinstance(text, str) or not text:
            raise SourceError(f"{file}: {name} must be a text: teach the route again")
    reflex = data.get("reflex", "")
    if not isinstance(reflex, str):
        raise SourceError(f"{file}: reflex must be a text: teach the route again")
    try:
        points = np.array(data.get("points"), np.float64)
        found = {name: data.get(name) for name in _RISKS}
        risks = {n: None if r is None else np.array(r, np.float64) for n, r in found.items()}
    except (ValueError, TypeError) as error:
        raise SourceError(f"{file}: its points or risks are no numbers: {error}") from error
    route = Route(
        **texts, points=points, reflex=reflex, risk=risks["risk"], rear_risk=risks["rear_risk"]
    )
    return checked(route, str(file))


def checked(route: Route, where: str) -> Route:
    """Returns a route that can be followed.

    Raises:
        SourceError: it cannot.
    """
    points = route.points
    if points.ndim != 2 or points.shape[1:] != (3,) or not np.isfinite(points).all():
        raise SourceError(f"{where}: points must be rows of x, y and yaw, all finite")
    if len(points) < 2 or route.length_m < _LEAST_M:
        raise SourceError(
            f"{where}: the robot moved less than {_LEAST_M:g} m, which is no route: drive farther"
        )
    for name in _RISKS:
        said = getattr(route, name)
        if said is not None and not (
            said.shape == (len(points),) and ((said >= 0) & (said <= 1)).all()
        ):
            raise SourceError(f"{where}: {name} must be one probability a point, of {len(points)}")
    widest = int(np.diff(route.arc_m).argmax())
    if (gap := float(np.diff(route.arc_m)[widest])) > _MOST_STEP_M:
        raise SourceError(
            f"{where}: {gap:.1f} m are missing after {route.arc_m[widest]:.1f} m, where no image has a "
            "pose or the pose jumps: teach it again in one go"
        )
    return route
