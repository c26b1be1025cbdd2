"""The head of cells, as all who use its answers see it."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.contract.head import (
    Arrays,
    Column,
    Head,
    Material,
    Output,
    plain,
    short,
    short_numbers,
)
from robot_vision.contract.topics import Topic
from robot_vision.errors import ConfigError
from robot_vision.geometry.earth import EARTH, degrees_of_normals
from robot_vision.heads.cells.answer import CellsAnswer
from robot_vision.heads.cells.drawing import SHOWN, draw_cells
from robot_vision.heads.cells.fix import fix_of
from robot_vision.heads.cells.options import CellsOptions
from robot_vision.heads.cells.spec import CellsSpec
from robot_vision.heads.cells.topics import fix_topic, grid_topic, points_topic
from robot_vision.images.canvas import Canvas
from robot_vision.text.counts import counted

CELLS = "cells.csv"
DIGITS = 7  # of degrees: a centimetre
SQUARE = ("face", "level", "column", "row")  # of a cell of the earth (geometry/earth_cells.py)


class CellsHead(Head[CellsSpec, CellsAnswer]):
    """Where in the map or on the earth the camera is, as a distribution over cells."""

    kind: ClassVar[str] = "cells"
    answer_key: ClassVar[str] = "cells"
    Spec = CellsSpec
    Answer = CellsAnswer
    Options = CellsOptions
    files: ClassVar[tuple[str, ...]] = (CELLS,)
    sides: ClassVar[Mapping[str, str]] = {
        "judge": "robot_vision.heads.cells.judging:CellsJudge",
        "fitter": "robot_vision.heads.cells.fitting:CellsFitter",
        "trainer": "robot_vision.heads.cells.training:CellsTrainer",
    }

    def outputs(self, spec: CellsSpec, several: EpistemicSpec | None) -> dict[str, Output]:
        return {self.key("cell_probabilities"): Output((len(spec.images),))}

    def decoder(
        self, spec: CellsSpec, several: EpistemicSpec | None, material: Material
    ) -> Callable[[Arrays], list[CellsAnswer]]:
        key, ground = self.key("cell_probabilities"), spec.ground
        return lambda outputs: [CellsAnswer(ground, p) for p in outputs[key]]

    def to_bundle(self, spec: CellsSpec) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The cells are a table: corners in the plane or squares of the earth's faces, and images."""
        settings = plain(spec)
        del settings["corners"], settings["images"]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        names, cells = list(SQUARE), spec.cells
        if spec.plane == EARTH:
            cells = cells.astype(np.int64)
        else:
            names = [f"{axis}_{end}" for end in ("low", "high") for axis in spec.plane]
        table.writerow([*names, "images"])
        table.writerows(
            [*cell, count] for cell, count in zip(cells.tolist(), spec.images, strict=True)
        )
        return settings, {CELLS: text.getvalue().encode()}

    def from_bundle(
        self, settings: Mapping[str, Any], files: Mapping[str, bytes]
    ) -> Mapping[str, Any]:
        if CELLS not in files:
            return settings
        corners: list[float] = []
        images: list[int] = []
        try:
            for *cell, count in list(csv.reader(io.StringIO(files[CELLS].decode())))[1:]:
                if len(cell) != 4:
                    raise ValueError(f"a row has {len(cell) + 1} numbers and not 5")
                corners += map(float, cell)
                images.append(int(count))
        except (ValueError, csv.Error) as error:
            raise ConfigError(f"{self.key(CELLS)} cannot be read: {error}") from error
        return {**settings, "corners": corners, "images": images}

    def resolve(self, options: CellsOptions, spec: CellsSpec, material: Material) -> CellsOptions:
        """Returns the options with the name of the map's frame."""
        return dataclasses.replace(options, map_frame=options.map_frame or spec.map_frame)

    def topics(self, spec: CellsSpec | None) -> Sequence[Topic]:
        """Cells on the earth have no grid, which lies in a plane. A fix needs to know where the map is."""
        points = points_topic(self.topic("cell_points"), spec, self.key("cell_probabilities"))
        grid, fix = grid_topic(self.topic("cells"), spec), fix_topic(self.topic("cell_fix"), spec)
        if spec is None:
            return grid, points, fix
        if spec.plane == EARTH:
            return points, fix
        return (grid, points, fix) if spec.datum else (grid, points)

    def draw(
        self, canvas: Canvas, answer: CellsAnswer, spec: CellsSpec, options: CellsOptions
    ) -> None:
        draw_cells(canvas, answer, "" if self.name == self.kind else f"{self.name} ")

    def json(self, answer: CellsAnswer, spec: CellsSpec, options: Any, attach: Any) -> Any:
        ground = answer.ground

        def numbers(place: Any) -> list[float]:
            if spec.plane == EARTH:
                return [round(float(v), DIGITS) for v in degrees_of_normals(place)]
            return short_numbers(place)

        said = {
            "frame_id": spec.map_frame,
            "plane": spec.plane,
            "best": [
                {
                    "centre": numbers(ground.centres[i]),
                    "size_m": short(ground.sides_m[i]),
                    "probability": short(answer.probabilities[i]),
                }
                for i in answer.top(SHOWN)
            ],
            "expected": numbers(answer.expected),
            "entropy": short(answer.entropy),
            "within": {f"{radius:.9g}": short(answer.within(radius)) for radius in ground.radii},
        }
        if (fix := fix_of(answer, spec.datum)) is not None:
            said["fix"] = {
                "latitude": round(fix.lat_deg, DIGITS),
                "longitude": round(fix.lon_deg, DIGITS),
                "spread_m": short(answer.spread_m),
                "sure": fix.sure,
            }
        return said

    def heading(self, spec: CellsSpec) -> str:
        return f"cell in {spec.map_frame}" if self.name == self.kind else self.name

    def cell(self, answer: CellsAnswer, spec: CellsSpec, options: Any) -> str:
        share = 100 * answer.probabilities[answer.best]
        place = answer.ground.text(answer.centre)
        return f"{place} {share:.0f}%, {answer.entropy:.2f} nats"

    def about(self, spec: CellsSpec) -> str:
        sides, count = spec.ground.sides_m, counted(len(spec.images), "cell")
        if spec.plane == EARTH:
            return f"PlaNet, {count} of {sides.min():.0f} to {sides.max():.0f} m on the earth"
        return (
            f"PlaNet, {count} of {sides.min():g} to {sides.max():g} m in the {spec.plane} plane of "
            f"`{spec.map_frame}`"
        )

    def columns(self, spec: CellsSpec) -> Mapping[str, Column]:
        return {self.key("cell_probabilities"): Column((len(spec.images),), "float32")}

    def pack(self, answer: CellsAnswer) -> dict[str, Any]:
        return {self.key("cell_probabilities"): answer.probabilities}

    def unpack(self, row: Mapping[str, Any], spec: CellsSpec, material: Material) -> CellsAnswer:
        return CellsAnswer(spec.ground, np.asarray(row[self.key("cell_probabilities")]))

    def example(self) -> CellsSpec:
        corners = [v for i in range(4) for v in (100.0 * i - 50, -50.0, 100.0 * i + 50, 50.0)]
        return CellsSpec(tuple(corners), (3, 4, 2, 3), dropout=0.2)


HEAD = CellsHead()
