"""How heads of cells are trained: where their cells come from, their loss, and what they are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.metrics import Metric
from robot_vision.contract.training import (
    Asked,
    DataFacts,
    Evidence,
    Features,
    FoldSettings,
    Metrics,
    Shape,
    Solved,
    Targets,
    Trainer,
    poses_of,
    require_poses,
)
from robot_vision.errors import ConfigError
from robot_vision.geometry.earth import EARTH
from robot_vision.heads.cells.evaluation import (
    SMALLEST_PROBABILITY,
    far_shares,
    score_cells,
    statistics,
)
from robot_vision.heads.cells.ground import Earth, earth_normals
from robot_vision.heads.cells.partition import divide, divide_earth, widest
from robot_vision.heads.cells.spec import CellsSpec
from robot_vision.settings.declared import option
from robot_vision.settings.mappings import from_mapping
from robot_vision.statistics.bootstrap import values
from robot_vision.text.counts import counted

if TYPE_CHECKING:
    from torch import Tensor, nn

# Side of a cell that is not quartered by default: several times what GPS errs
EARTH_SMALLEST_M = 50.0
_FEWEST, _SHARE = 10, 100  # images in a cell that is quartered by default: at least, and as a share


@dataclass(frozen=True)
class CellsConfig(FoldSettings):
    """How a head of cells is trained."""

    loss: str = option("soft_cells", "name of the loss of cells")
    calibrate: bool = option(
        True, "fit the softmax temperature on the validation images, or on training images left out"
    )
    solve: bool = option(
        True,
        "on a frozen backbone's features find the minimum of the loss, with L2 by cross-validation, instead "
        "of training for epochs; if nothing is augmented and the head has no dropout and no hidden layer",
    )


class CellsTrainer(Trainer[CellsSpec]):
    """See `Trainer`."""

    Settings = CellsConfig
    losses = {"soft_cells": "robot_vision.heads.cells.loss:SoftCells"}
    baselines = {
        "prior": "always the shares of the training images in the cells",
        "retrieval": "the position of the most similar training image",
    }
    harms = frozenset({"flip", "crop", "mixup"})
    truth = "pose"
    linear = True

    def spec(self, settings: Mapping[str, Any], facts: DataFacts) -> CellsSpec:
        """See `Trainer.spec`; the cells are a quadtree on the positions of the training images.

        Where the settings name no plane, it is the earth for positions from its middle, `xy` where the data
        know their datum, and else the one along which the positions spread most.
        """
        where = f"network.{self.name}"
        for name in ("corners", "images"):
            if name in settings:
                raise ConfigError(f"{where}.{name}: the cells are made from the training images")
        if not len(facts.positions):
            raise ConfigError(
                f"The {self.name} head is made from the positions of training images, and there are none: "
                "train it, with `robot-vision train`"
            )
        given = {"map_frame": facts.map_frame, **_defaults(facts, settings), **settings}
        if facts.datum == EARTH != given["plane"]:
            raise ConfigError(
                f"{where}.plane is {given['plane']!r}: positions from the middle of the earth (the data's "
                f"option datum: {EARTH}) lie on no plane; leave it out"
            )
        # What is asked for is checked before the cells are made by it: two that stand for them.
        draft = {"corners": [0.0, 0.0, 1.0, 1.0] * 2, "images": [1, 1], **given}
        if given["plane"] == EARTH:
            draft["corners"] = [0, 0, 0, 0, 1, 0, 0, 0]
        asked = from_mapping(CellsSpec, where, draft)
        count = len(facts.positions)
        most = asked.most_images or max(_FEWEST, count // _SHARE)
        how = most, asked.least_images, asked.smallest_m
        if asked.plane == EARTH:
            normals = earth_normals(facts.positions)
            squares, images = divide_earth(normals, *how)
            cells = squares.astype(np.float64)
            ends = Earth(np.zeros((1, 4))).apart(normals, normals[:1])
            within = f"{ends.max():.3g} m of the first of them"
        else:
            points = facts.positions[:, list(asked.axes)]
            cells, images = divide(points, *how)
            extent = np.ptp(points, axis=0)
            within = f"{extent[0]:.3g} x {extent[1]:.3g} m of {asked.plane}"
        if len(cells) < 2:
            raise ConfigError(
                f"The {count} training positions make {len(cells)} cell of the {self.name} head, and "
                f"it needs 2: they lie within {within}. "
                f"Set {where}.smallest_m below {asked.smallest_m:g}, or most_images below {most}"
            )
        return from_mapping(
            CellsSpec,
            where,
            {
                **given,
                "most_images": most,
                "corners": cells.reshape(-1).tolist(),
                "images": images.tolist(),
            },
        )

    def notes(self, spec: CellsSpec, facts: DataFacts) -> Sequence[str]:
        """Says how many images are where no cell is."""
        left = len(facts.positions) - sum(spec.images)
        if left <= 0:
            return ()
        images = counted(left, "training image is", "training images are")
        return (
            f"{images} in no cell, where fewer than {spec.least_images} are together (least_images)",
        )

    def check(self, splits: Any, where: str) -> None:
        require_poses(self.name, splits, where)

    def module(self, spec: CellsSpec, shapes: Sequence[Shape]) -> nn.Module:
        from robot_vision.heads.cells.network import CellsModule

        return CellsModule(spec, shapes[0][0])

    def untrained(self, pretrained: bool, images: int) -> str:
        return f"The {self.name} head is not trained: its cells mean nothing"

    def evidence(
        self, module: Any, raw: dict[str, Tensor], spec: CellsSpec, asked: Asked
    ) -> Evidence | None:
        """Returns the most probable cell's logit."""
        if asked.box is not None or asked.label:
            return None
        probabilities = module.decode(raw)["cell_probabilities"][0].detach()
        best = int(probabilities.argmax())
        text = f"{spec.ground.text(spec.ground.centres[best])}  {float(probabilities[best]):.3f}"
        return Evidence(raw["cell_logits"][0, best], text)

    def loss_settings(self, spec: CellsSpec, targets: Targets) -> dict[str, Any]:
        """Adds the cells."""
        import torch

        cells = torch.tensor(spec.cells)
        return {**super().loss_settings(spec, targets), "cells": cells, "plane": spec.plane}

    def solve(
        self, module: Any, spec: CellsSpec, features: Features, folds: NDArray[np.int64]
    ) -> Solved | None:
        """See `Trainer.solve`: without dropout and hidden layer it is a convex problem."""
        import torch
        from torch.nn import functional as F

        from robot_vision.contract.pooling import pooled
        from robot_vision.heads.classifier.convex import MOST, solve_softmax

        loss: Any = self.loss(spec, features.targets)
        classes = len(spec.images)
        size = len(features) * module.linear.in_features * classes
        if not self.settings.solve or loss is None or spec.dropout or spec.hidden or size > MOST:
            return None
        labels = loss.labels(features.targets["T_map_camera"], features.targets["has_pose"])
        known = labels.sum(dim=1) > 0
        x = pooled(features.first())
        softmax, left_out, strength = solve_softmax(
            x[known], labels[known], classes, folds[known.numpy()], F.cross_entropy
        )
        logits = torch.zeros(len(labels), classes)
        logits[known] = left_out.float()
        with torch.no_grad():
            module.linear.weight.copy_(softmax.weight)
            module.linear.bias.copy_(softmax.bias)
            raw = {"cell_logits": logits.to(features.device)}
            outputs = {word: value.cpu() for word, value in {**raw, **module.decode(raw)}.items()}
        images = self.measure(outputs, features.targets, spec)[0]
        text = (
            f"at the minimum of its loss, with L2 of C = {strength:g}; on training images left out: median "
            f"{images['median_m']:.2f} m, negative log likelihood {images['nll']:.4f}"
        )
        return Solved(outputs, 1.0, text)

    def measure(
        self,
        outputs: Targets,
        targets: Targets,
        spec: CellsSpec,
        stored: tuple[Targets, Targets] | None = None,
    ) -> tuple[Metrics, NDArray[np.float64] | None]:
        """See `Trainer.measure`; each sample: one, less its nats over those of an even spread."""
        probabilities = np.asarray(outputs["cell_probabilities"])
        return self._measured(probabilities, targets, spec)

    def _measured(
        self, probabilities: NDArray[Any], targets: Targets, spec: CellsSpec
    ) -> tuple[Metrics, NDArray[np.float64] | None]:
        columns = score_cells(probabilities, spec.ground, _positions(targets, spec))
        known = columns["true_cell"] >= 0
        if not known.any():
            return {"frames": 0}, None
        own = {word: v[known] for word, v in columns.items()}
        far = far_shares(own) if isinstance(spec.ground, Earth) else {}
        found = values({**statistics(own), **far}, int(known.sum()))
        nats = -np.log(np.maximum(columns["true_cell_probability"], SMALLEST_PROBABILITY))
        # Over that of an even spread, so that it weighs in a mean with other heads what they do.
        scale = math.log(len(spec.images))
        found["score"] = 1 - found["nll"] / scale
        return {**found, "frames": int(known.sum())}, 1 - nats[:, None] / scale

    def shown(self) -> dict[str, Metric]:
        found = super().shown()
        first = ("median_m", "within_0.5m", "nll")
        return {**{name: found[name] for name in first}, **found}

    def score(self, metrics: Metrics, reference: Any) -> float | None:
        """Returns one, less the negative log likelihood over that of an even spread."""
        return metrics.get("score")

    def run_baselines(
        self, names: Sequence[str], seen: Features, asked: Features, spec: CellsSpec, seed: int
    ) -> dict[str, Metrics]:
        from robot_vision.heads.cells import baselines

        found: dict[str, Metrics] = {}
        if "prior" in names:
            images = np.array(spec.images, np.float64)
            prior = np.tile(images / images.sum(), (len(asked), 1))
            found["the training images' shares"] = self._measured(prior, asked.targets, spec)[0]
        if "retrieval" in names:
            true = _positions(asked.targets, spec)
            answers = baselines.most_similar(seen, asked, spec.ground)
            for title, positions in answers.items():
                found[title] = baselines.measured(positions, true, spec.ground)
        return found


def _positions(targets: Targets, spec: CellsSpec) -> NDArray[np.float64]:
    return spec.ground.positions(poses_of(targets)[0])


def _defaults(facts: DataFacts, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that follow from the data where nothing else is said."""
    if settings.get("plane", facts.datum) == EARTH:
        return {"plane": EARTH, "smallest_m": EARTH_SMALLEST_M}
    if facts.datum and settings.get("plane", "xy") == "xy":
        return {"plane": "xy", "datum": facts.datum}
    return {"plane": widest(facts.positions)}
