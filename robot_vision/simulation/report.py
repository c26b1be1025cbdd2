"""What a referee found, as JSON, as rows of a table, and as a page with the paths drawn in the worlds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from robot_vision.charts.page import STYLE as PAGE_STYLE
from robot_vision.charts.svg import STYLE as CHART_STYLE
from robot_vision.charts.svg import Chart
from robot_vision.simulation.drivers import EXPERT
from robot_vision.simulation.referee import Drive, Verdict
from robot_vision.simulation.world.obstacles import Obstacles
from robot_vision.simulation.world.world import World

FORMAT = "robot_vision.driving/1"
HEADER = (
    "driver", "km", "collisions/km (95 %)", "stuck/km (95 %)", "mean speed", "of the expert's", "visited",
    "turn change", "hits outside the picture", "stops/km",
)  # fmt: skip
_CHART_HEIGHT = 420


def figures(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Returns the pooled figures of each driver, and its speed as a share of the expert's if that drove."""
    found = [verdict.figures() for verdict in verdicts]
    expert = next((each for each in found if each["driver"] == EXPERT), None)
    for each in found:
        share = each["mean_speed_m_s"] / expert["mean_speed_m_s"] if expert else None
        each["speed_of_the_expert"] = share
    return found


def row(figures: Mapping[str, Any]) -> list[str]:
    """Returns the pooled figures of a driver as cells under `HEADER`."""

    def rate(name: str) -> str:
        value, low, high = figures[name]
        return f"{value:.1f} ({low:.1f} to {high:.1f})"

    stops = sorted(figures["stops"].items(), key=lambda item: -item[1])
    return [
        figures["driver"],
        f"{figures['km']:.2f}",
        rate("collisions_per_km"),
        rate("stuck_per_km"),
        f"{figures['mean_speed_m_s']:.2f} m/s",
        f"{share:.2f}" if (share := figures["speed_of_the_expert"]) is not None else "",
        f"{figures['visited']:.0%}",
        f"{figures['turn_change_rad_s2']:.2f} rad/s²",
        f"{figures['hits_outside_the_picture']} of {figures['collisions']}",
        ", ".join(f"{name} {count / figures['km']:.0f}" for name, count in stops) or "none",
    ]


def document(verdicts: Sequence[Verdict], about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `driving.json`.

    Args:
        verdicts: one a driver.
        about: how they were found: command, robot, mount, seeds.
    """
    drivers = [
        {**found, "drives": [drive.to_json() for drive in verdict.drives]}
        for verdict, found in zip(verdicts, figures(verdicts), strict=True)
    ]
    return {"format": FORMAT, **about, "drivers": drivers}


def page(
    verdicts: Sequence[Verdict],
    worlds: Mapping[str, World],
    about: Mapping[str, Any],
    height_m: float,
) -> str:
    """Returns `report.html`.

    Args:
        verdicts: one a driver.
        worlds: by the names of the drives.
        about: as for `document`.
        height_m: of the robot, whose obstacles are drawn.
    """
    cells = "".join(f"<th>{escape(text)}</th>" for text in HEADER)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row(found)) + "</tr>"
        for found in figures(verdicts)
    )
    facts = "".join(
        f"<tr><td>{escape(name)}</td><td class=hash>{escape(str(value))}</td></tr>"
        for name, value in about.items()
    )
    maps = "".join(
        f"<h2>{escape(verdict.driver)}</h2><div class=grid>"
        + "".join(
            f"<div>{_map(verdict.driver, drive, worlds[drive.world], height_m)}</div>"
            for drive in verdict.drives
        )
        + "</div>"
        for verdict in verdicts
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>Driving</title><style>{PAGE_STYLE}{CHART_STYLE}</style><main>"
        "<h1>Driving</h1><p class=lead>Lines are where the robot drove; dots are collisions, after which it "
        "was carried to where it has room: orange of what the camera's field reached, pink of what it did "
        "not.</p>"
        f"<div class=scroll><table><tr>{cells}</tr>{rows}</table></div>"
        f"{maps}<h2>Facts</h2><div class=scroll><table>{facts}</table></div></main></html>\n"
    )


def _map(driver: str, drive: Drive, world: World, height_m: float) -> str:
    low, high = world.bounds()
    title = (
        f"{drive.world}, {driver}: {drive.way_m:.0f} m, {len(drive.hits)} collisions, "
        f"{drive.visited:.0%} visited"
    )
    chart = Chart(
        title,
        "x, m",
        "y, m",
        (low[0] - 0.1, high[0] + 0.1),
        (low[1] - 0.1, high[1] + 0.1),
        equal=True,
        height=_CHART_HEIGHT,
    )
    obstacles = Obstacles(world, height_m)
    for a, b in zip(obstacles.low, obstacles.high, strict=True):
        if (b > a).all():
            chart.band(np.array([a[0], b[0]]), np.array([a[1]] * 2), np.array([b[1]] * 2), "c4")
        else:
            chart.line([a[0], b[0]], [a[1], b[1]], "c4")
    for part in _parts(drive):
        chart.line(part[:, 0], part[:, 1], "c0")
    for pictured, colour in ((True, "c1"), (False, "c3")):
        hits = np.array([(hit.x, hit.y) for hit in drive.hits if hit.pictured == pictured])
        if len(hits):
            chart.points(hits[:, 0], hits[:, 1], colour, radius=3.5)
    return chart.render()


def _parts(drive: Drive) -> list[np.ndarray]:
    """Returns the path between carries, each thinned to a point every 5 cm."""
    parts = np.split(drive.path, np.flatnonzero(~np.isfinite(drive.path[:, 0])))
    found = []
    for part in parts:
        points = part[np.isfinite(part[:, 0])]
        if len(points) > 1:
            steps = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
            keep = np.unique(np.searchsorted(steps, np.arange(0, steps[-1], 0.05)))
            found.append(points[np.union1d(keep, len(points) - 1)])
    return found
