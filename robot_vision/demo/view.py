"""What the demo shows while it runs: a live panel on a terminal, a line a second elsewhere."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from robot_vision.demo.recorded import DriveTruth
from robot_vision.demo.scoring import FrameAnswer, Judged, KnownPlaces
from robot_vision.simulation.world.world import World

_WIDE = 112  # columns of a terminal that has room for the plan next to the figures


class DemoView(Protocol):
    """Shows answers as they come."""

    def show(self, answer: FrameAnswer, judged: Judged) -> None:
        """Takes the newest answer."""

    def close(self) -> None:
        """Ends the display and leaves what it last showed."""


class PlainView:
    """A line a second, for logs and pipes."""

    def __init__(self, console: Console, truth: DriveTruth, places: KnownPlaces) -> None:
        self._console, self._truth, self._places = console, truth, places
        self._next = 0.0

    def show(self, answer: FrameAnswer, judged: Judged) -> None:
        """Prints the answer if the last one printed is a second ago."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1.0
        assert answer.position is not None
        x, y, _ = answer.position
        wrong = "" if judged.label == judged.true_label else f" (is {judged.true_label})"
        there = self._places.truth.rooms[judged.place]
        self._console.print(
            f"frame {judged.frame + 1:4}/{len(self._truth)}  {judged.label} {judged.probability:.2f}{wrong}"
            f"  |  at ({x:5.2f}, {y:5.2f}) m, off by {judged.error_m:.2f} m {judged.error_deg:.1f} deg"
            f"  |  like place {judged.place} in {there} ({judged.similarity:.2f})"
            f"{'' if judged.place_right else ', wrong'}  |  {judged.latency_ms:.0f} ms",
            soft_wrap=True,
        )

    def close(self) -> None:
        """Nothing to end."""


class LiveView:
    """A panel with a plan of the world, redrawn a few times a second."""

    def __init__(
        self, console: Console, world: World, truth: DriveTruth, places: KnownPlaces
    ) -> None:
        self._truth, self._places = truth, places
        self._plan = TextPlan(world)
        self._right = self._count = 0
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._live.start()
        self._next = 0.0

    def show(self, answer: FrameAnswer, judged: Judged) -> None:
        """Redraws, at most eight times a second."""
        self._count += 1
        self._right += judged.label == judged.true_label
        if time.monotonic() < self._next and judged.frame < len(self._truth) - 1:
            return
        self._next = time.monotonic() + 0.125
        self._live.update(self._panel(answer, judged), refresh=True)

    def _panel(self, answer: FrameAnswer, judged: Judged) -> Panel:
        assert answer.position is not None
        true = self._truth.positions[judged.frame]
        good, bad = "bold green", "bold red"
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", justify="right")
        table.add_column(min_width=50)
        right = judged.label == judged.true_label
        filled = round(24 * judged.probability)
        room = Text(f"{judged.label:9}", good if right else bad)
        room.append(" " + "█" * filled, "cyan").append("░" * (24 - filled), "dim")
        room.append(f" {judged.probability:.2f}", "default")
        room.append("" if right else f"  is {judged.true_label}", bad)
        table.add_row("room", room)
        x, y, z = answer.position
        table.add_row("pose", f"x {x:6.2f}  y {y:6.2f}  z {z:5.2f} m   +- {judged.sigma_m:.2f} m")
        table.add_row("truth", f"x {true[0]:6.2f}  y {true[1]:6.2f}  z {true[2]:5.2f} m")
        table.add_row("error", f"{judged.error_m:.2f} m   {judged.error_deg:.1f} deg")
        place = Text(f"{judged.place:3} in {self._places.truth.rooms[judged.place]}")
        place.append(f"   similarity {judged.similarity:.2f}")
        place.append(
            "   right" if judged.place_right else "   wrong", good if judged.place_right else bad
        )
        table.add_row("place", place)
        table.add_row("latency", f"{judged.latency_ms:.1f} ms, image to results")
        table.add_row(
            "so far", f"{100 * self._right / self._count:.1f} % of {self._count} rooms right"
        )
        legend = Text("o", "bold blue")
        legend.append(" where it is   ", "dim").append("x", "bold yellow").append(
            " where it says it is", "dim"
        )
        body = Table.grid(padding=(0, 3))
        if self._live.console.width >= _WIDE:
            body.add_row(self._plan.draw(true, answer.position), Group(table, Text(), legend))
        else:
            body.add_row(table)
        title = f"frame {judged.frame + 1} of {len(self._truth)}"
        return Panel(body, title=title, title_align="left", border_style="dim", expand=False)

    def close(self) -> None:
        """Leaves the last panel on the screen."""
        self._live.stop()


class TextPlan:
    """The world from above in characters."""

    def __init__(self, world: World, columns: int = 44, rows: int = 18) -> None:
        self._low, self._high = world.bounds()
        self._columns, self._rows = columns, rows
        grid = np.full((rows, columns), " ")
        for room in world.rooms:
            (x0, y1), (x1, y0) = (self._cell(np.array(corner)) for corner in (room.low, room.high))
            grid[[y0, y1], x0 : x1 + 1] = "─"
            grid[y0 : y1 + 1, [x0, x1]] = "│"
            grid[y0, x0], grid[y0, x1], grid[y1, x0], grid[y1, x1] = "┌┐└┘"
            grid[y0 + 1, x0 + 2 : x0 + 2 + len(room.name)] = list(room.name)
        for door in world.doors:
            for y in (door.low[1] - 0.15, door.high[1] + 0.15):
                left, row = self._cell(np.array([door.low[0], y]))
                right, _ = self._cell(np.array([door.high[0], y]))
                grid[row, left : right + 1] = " "
        self._grid = grid

    def _cell(self, xy: NDArray[np.float64]) -> tuple[int, int]:
        share = (xy[:2] - self._low) / (self._high - self._low)
        column, row = share * (self._columns - 1), (1 - share) * (self._rows - 1)
        return (
            int(np.clip(round(float(column[0])), 0, self._columns - 1)),
            int(np.clip(round(float(row[1])), 0, self._rows - 1)),
        )

    def draw(self, true: NDArray[np.float64], estimated: NDArray[np.float64]) -> Text:
        """Returns the plan with both positions marked; where they fall together, the true one."""
        text = Text()
        marks = {self._cell(estimated): ("x", "bold yellow"), self._cell(true): ("o", "bold blue")}
        for row in range(self._rows):
            for column in range(self._columns):
                mark = marks.get((column, row))
                text.append(*mark) if mark else text.append(str(self._grid[row, column]), "dim")
            text.append("\n")
        text.rstrip()
        return text
