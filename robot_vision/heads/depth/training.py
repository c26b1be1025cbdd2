"""How a depth head is trained: its settings, truth, loss, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.training import (
    Asked,
    DataFacts,
    Dense,
    Evidence,
    Features,
    FoldBlockSettings,
    Metrics,
    Shape,
    Targets,
    Trainer,
)
from robot_vision.heads.depth import evaluation as measures
from robot_vision.heads.depth.judging import frame_row
from robot_vision.heads.depth.spec import DECODERS, DepthSpec
from robot_vision.settings.declared import option
from robot_vision.settings.mappings import from_mapping
from robot_vision.statistics.bootstrap import values

if TYPE_CHECKING:
    from torch import Tensor, nn

_WORD = "image:depth"
_NEAREST = 0.01  # share of the pixels that is explained as the nearest


@dataclass(frozen=True)
class DepthConfig(FoldBlockSettings):
    """How a depth head is trained."""

    loss: str = option("scale_invariant", "name of the loss of depth and its uncertainty")
    calibrate: bool = option(
        True,
        "scale the uncertainty so that the 90 percent intervals hold 90 percent of the "
        "validation images' pixels",
    )


class DepthTrainer(Trainer[DepthSpec]):
    """See `Trainer`."""

    Settings = DepthConfig
    losses = {"scale_invariant": "robot_vision.heads.depth.loss:DepthLoss"}
    baselines = {
        "constant": "always the geometric mean of the training depths",
        "median": "at each pixel the median of the training depths there",
    }
    # Part of an image, enlarged to the whole, is that of another lens, with which all looks nearer.
    harms = frozenset({"crop", "mixup"})
    truth = "image"

    def spec(self, settings: Mapping[str, Any], facts: DataFacts) -> DepthSpec:
        """See `Trainer.spec`; the size is that of the finest map, unless it is given."""
        given = {"decoder": DECODERS[0], **settings}
        spec = from_mapping(DepthSpec, f"network.{self.name}", given)
        if max(spec.size) or not facts.input:
            return spec
        return replace(spec, size=tuple(-(-side // spec.strides[0]) for side in facts.input))

    def dense(self, spec: DepthSpec) -> dict[str, Dense]:
        """See `Trainer.dense`: metres, NaN where there is no truth."""
        return {
            self.word(): Dense((spec.size[0], spec.size[1]), "float16", np.nan, along_axis=True)
        }

    def module(self, spec: DepthSpec, shapes: Sequence[Shape]) -> nn.Module:
        from robot_vision.heads.depth.network import MODULES

        return MODULES[spec.decoder](spec, shapes)

    def evidence(
        self, module: Any, raw: dict[str, Tensor], spec: DepthSpec, asked: Asked
    ) -> Evidence | None:
        """Returns the mean logarithm of the depth asked about, or of the nearest hundredth of all pixels."""
        if asked.label:
            return None
        region = asked.region((spec.size[0], spec.size[1]))
        depth = module.decode(raw)["depth"][0].detach().numpy()
        where = asked.where
        if asked.box is None:
            nearest = np.quantile(depth[region], _NEAREST)
            region, where = region & (depth <= nearest), "where it is nearest"
        text = f"{float(np.median(depth[region])):.2f} m {where}"
        return Evidence(raw["log_depth"][0][region].mean(), text, region, both=True)

    def prepare(self, module: Any, spec: DepthSpec, features: Features, seed: int) -> None:
        """Sets mean and deviation of the logarithms of the training depths."""
        total = np.zeros(3)
        for true in features.targets.get(_WORD, ()):  # none where an untrained bundle is made
            logs = np.log(_known(np.asarray(true, np.float64), spec))
            total += len(logs), logs.sum(), (logs**2).sum()
        if total[0]:
            mean, square = total[1:] / total[0]
            module.set_statistics(float(mean), float(np.sqrt(max(square - mean**2, 0.0))))

    def loss_settings(self, spec: DepthSpec, targets: Targets) -> dict[str, Any]:
        """See `Trainer.loss_settings`; truth counts within the head's range."""
        return {"minimum": spec.minimum, "maximum": spec.maximum, **self.settings.settings}

    def measure(
        self,
        outputs: Targets,
        targets: Targets,
        spec: DepthSpec,
        stored: tuple[Targets, Targets] | None = None,
    ) -> tuple[Metrics, NDArray[np.float64] | None]:
        """See `Trainer.measure`; each sample: AbsRel."""
        facts = {"minimum": spec.minimum, "maximum": spec.maximum}
        sigmas = outputs.get("depth_sigma")
        rows = [
            frame_row(said, None if sigmas is None else sigmas[i], targets[_WORD][i], facts)
            for i, said in enumerate(outputs["depth"])
        ]
        sums = np.array([row["depth_sums"] for row in rows]).reshape(-1, len(measures.SUMS))
        known = sums[:, 0] > 0
        each = np.full((len(rows), 1), np.nan)
        each[known, 0] = sums[known, 1] / sums[known, 0]
        metrics: Metrics = {"images": int(known.sum())}
        seen = [row for row in rows if row["depth_sums"][0]]
        if seen:
            metrics |= values(measures.statistics(sums[known]), len(seen))
            if sigmas is not None:
                inside, order, best = (
                    np.array([row[word] for row in seen])
                    for word in ("depth_inside", "depth_order", "depth_best")
                )
                metrics |= values(measures.coverages(sums[known, 0], inside), len(seen))
                metrics |= values(measures.sparsification(order, best), len(seen))
        return metrics, each

    def reference(self, train: Targets, targets: Targets) -> float:
        """Returns AbsRel of always saying the median of the training depths."""
        said = _median(train[_WORD])
        errors = [
            float(np.mean(np.abs(said - known) / known))
            for true in targets[_WORD]
            if len(known := _positive(np.asarray(true, np.float64)))
        ]
        return max(float(np.mean(errors)), 1e-4) if errors else 1.0

    def score(self, metrics: Metrics, reference: Any) -> float | None:
        """Returns one, less AbsRel over that of always saying one depth."""
        return 1 - metrics["abs_rel"] / reference if metrics.get("images") else None

    def shares(self, each: NDArray[np.float64], reference: Any) -> NDArray[np.float64]:
        return np.asarray(1 - each[:, 0] / reference, np.float64)

    def run_baselines(
        self, names: Sequence[str], seen: Features, asked: Features, spec: DepthSpec, seed: int
    ) -> dict[str, Metrics]:
        found = {}
        for name in names:
            if name == "constant":
                logs = [
                    np.log(_known(np.asarray(t, np.float64), spec)) for t in seen.targets[_WORD]
                ]
                said = np.full(tuple(spec.size), np.exp(np.concatenate(logs).mean()))
            else:
                said = _median_image(seen.targets[_WORD])
            everywhere: Any = np.broadcast_to(said, (len(asked), *said.shape))
            found[name] = self.measure({"depth": everywhere}, asked.targets, spec)[0]
        return found


def _positive(true: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return true[true > 0]


def _known(true: NDArray[np.float64], spec: DepthSpec) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return true[(true >= spec.minimum) & (true <= spec.maximum)]


def _median(images: Any) -> float:
    """Returns the median of depth images, each by a few hundred of its pixels."""
    known = [_positive(np.asarray(image, np.float64))[::17] for image in images]
    joined = np.concatenate([*known, np.zeros(0)])
    return float(np.median(joined)) if len(joined) else 1.0


def _median_image(images: Any) -> NDArray[np.float64]:
    """Returns the median of each pixel, and of all of them where none has a truth; row by row."""
    every, rows = _median(images), []
    for row in range(len(images[0])):
        values = np.stack([np.asarray(image[row], np.float64) for image in images])
        values[:, np.isnan(values).all(axis=0)] = every
        rows.append(np.nanmedian(values, axis=0))
    return np.stack(rows)
