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
from robot_vision.geometry.squares import centres
from robot_vision.heads.cells.answer import RADII, CellsAnswer
from robot_vision.heads.cells.drawing import SHOWN, draw_cells, place
from robot_vision.heads.cells.options import CellsOptions
from robot_vision.heads.cells.spec import CellsSpec
from robot_vision.heads.cells.topics import grid_topic, points_topic
from robot_vision.images.canvas import Canvas
from robot_vision.text.counts import counted

CELLS = "cells.csv"


class CellsHead(Head[CellsSpec, CellsAnswer]):
    """Where in the map the camera is, as a distribution over cells."""

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
        key, cells = self.key("cell_probabilities"), spec.cells
        return lambda outputs: [CellsAnswer(cells, p) for p in outputs[key]]

    def to_bundle(self, spec: CellsSpec) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The cells are a table: low and high corner along the plane's axes, and images."""
        settings = plain(spec)
        del settings["corners"], settings["images"]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        names = [f"{axis}_{end}" for end in ("low", "high") for axis in spec.plane]
        table.writerow([*names, "images"])
        table.writerows(
            [*cell, count] for cell, count in zip(spec.cells.tolist(), spec.images, strict=True)
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
        return (
            grid_topic(self.topic("cells"), spec),
            points_topic(self.topic("cell_points"), spec, self.key("cell_probabilities")),
        )

    def draw(
        self, canvas: Canvas, answer: CellsAnswer, spec: CellsSpec, options: CellsOptions
    ) -> None:
        draw_cells(canvas, answer, spec.plane, "" if self.name == self.kind else f"{self.name} ")

    def json(self, answer: CellsAnswer, spec: CellsSpec, options: Any, attach: Any) -> Any:
        middles = centres(answer.cells)
        return {
            "frame_id": spec.map_frame,
            "plane": spec.plane,
            "best": [
                {
                    "centre": short_numbers(middles[i]),
                    "size_m": short(answer.cells[i, 2] - answer.cells[i, 0]),
                    "probability": short(answer.probabilities[i]),
                }
                for i in answer.top(SHOWN)
            ],
            "expected": short_numbers(answer.expected),
            "entropy": short(answer.entropy),
            "within": {f"{radius:g}": short(answer.within(radius)) for radius in RADII},
        }

    def heading(self, spec: CellsSpec) -> str:
        return f"cell in {spec.map_frame}" if self.name == self.kind else self.name

    def cell(self, answer: CellsAnswer, spec: CellsSpec, options: Any) -> str:
        share = 100 * answer.probabilities[answer.best]
        return f"{place(answer.centre, spec.plane)} m {share:.0f}%, {answer.entropy:.2f} nats"

    def about(self, spec: CellsSpec) -> str:
        sides = spec.cells[:, 2] - spec.cells[:, 0]
        return (
            f"PlaNet, {counted(len(spec.images), 'cell')} of {sides.min():g} to {sides.max():g} m in the "
            f"{spec.plane} plane of `{spec.map_frame}`"
        )

    def columns(self, spec: CellsSpec) -> Mapping[str, Column]:
        return {self.key("cell_probabilities"): Column((len(spec.images),), "float32")}

    def pack(self, answer: CellsAnswer) -> dict[str, Any]:
        return {self.key("cell_probabilities"): answer.probabilities}

    def unpack(self, row: Mapping[str, Any], spec: CellsSpec, material: Material) -> CellsAnswer:
        return CellsAnswer(spec.cells, np.asarray(row[self.key("cell_probabilities")]))

    def example(self) -> CellsSpec:
        corners = [v for i in range(4) for v in (100.0 * i - 50, -50.0, 100.0 * i + 50, 50.0)]
        return CellsSpec(tuple(corners), (3, 4, 2, 3), dropout=0.2)


HEAD = CellsHead()
