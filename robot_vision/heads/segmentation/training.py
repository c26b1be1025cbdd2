"""How segmentation is trained: its settings, truth, loss, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.training import (
    NONE,
    Asked,
    DataFacts,
    Dense,
    Evidence,
    Features,
    HeadSettings,
    Metrics,
    Shape,
    Targets,
    Trainer,
)
from robot_vision.errors import ConfigError
from robot_vision.heads.segmentation.answer import NONE as NO_CLASS
from robot_vision.heads.segmentation.evaluation import (
    BIN_SUMS,
    COUNTS,
    calibration_error,
    class_iou,
    confidence_sums,
    frame_iou,
    frame_sums,
    statistics,
)
from robot_vision.heads.segmentation.spec import SegmentationSpec
from robot_vision.settings.declared import option
from robot_vision.settings.mappings import from_mapping
from robot_vision.statistics.bootstrap import values
from robot_vision.statistics.reliability import BINS

if TYPE_CHECKING:
    from torch import Tensor, nn

TRUTH = "image:segmentation"


@dataclass(frozen=True)
class SegmentationConfig(HeadSettings):
    """How a segmentation head is trained."""

    loss: str = option("cross_entropy", "name of the segmentation's loss")
    class_weights: str = option(
        NONE,
        "weight of each class in the cross-entropy: none, log (1 / log(1.02 + share of the pixels)), "
        "sqrt_inverse (of the share) or inverse",
        choices=(NONE, "log", "sqrt_inverse", "inverse"),
    )
    calibrate: bool = option(True, "fit the softmax temperature on the validation images")


class SegmentationTrainer(Trainer[SegmentationSpec]):
    """See `Trainer`. It learns from images of true classes, 255 where there is none."""

    Settings = SegmentationConfig
    losses = {
        "cross_entropy": "robot_vision.heads.segmentation.loss:PixelCrossEntropy",
        "dice": "robot_vision.heads.segmentation.loss:Dice",
    }
    baselines = {
        "most_frequent": "always the class with the most pixels",
        "prior": "at each pixel the class that the training images have there most often",
    }
    harms = frozenset({"mixup"})
    truth = "image"

    def spec(self, settings: Mapping[str, Any], facts: DataFacts) -> SegmentationSpec:
        """Takes labels and colours of the data, and the size from the network's input."""
        where = f"network.{self.name}"
        for key in ("labels", "height", "width", "temperature"):
            if key in settings:
                raise ConfigError(
                    f"{where}.{key} cannot be set: labels are those of the data, the size follows from the "
                    "input and the stride, the temperature is fitted"
                )
        colours = facts.colours.get(self.word(), ())
        own = {
            "colours": [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours],
            **settings,
            "labels": list(facts.labels.get(self.word(), ())),
        }
        found = from_mapping(SegmentationSpec, where, own)
        height, width = (-(-side // found.stride) for side in facts.input)
        return replace(found, height=height, width=width)

    def dense(self, spec: SegmentationSpec) -> dict[str, Dense]:
        return {self.word(): Dense(spec.size, "uint8", NO_CLASS)}

    def module(self, spec: SegmentationSpec, shapes: Sequence[Shape]) -> nn.Module:
        from robot_vision.heads.segmentation.network import SegmentationModule

        return SegmentationModule(spec, shapes)

    def evidence(
        self, module: Any, raw: dict[str, Tensor], spec: SegmentationSpec, asked: Asked
    ) -> Evidence | None:
        """Returns a class's mean logit over the pixels of which it is said.

        Vinogradova et al., "Towards Interpretable Semantic Segmentation via Gradient-weighted Class
        Activation Mapping" (AAAI 2020), eq. 2. The class is that of the pixel, or the one with the most
        pixels, unless one is asked for; a class that is said of no pixel is averaged over all.
        """
        if asked.label and asked.label not in spec.labels:
            return None
        region = asked.region(spec.size)
        ids = module.decode(raw)["class_ids"][0].numpy()
        counts = np.bincount(ids[region], minlength=len(spec.labels))
        chosen = spec.labels.index(asked.label) if asked.label else int(counts.argmax())
        label, said = spec.labels[chosen], region & (ids == chosen)
        share = f"{100 * said.sum() / region.sum():.1f} % of the pixels"
        if asked.at_pixel:
            text = label if said.any() else f"{label}, where {spec.labels[counts.argmax()]} is said"
        else:
            text = f"{label}, of {share}" + (f" {asked.where}" if asked.where else "")
            region = said if said.any() else region
        return Evidence(raw["logits"][0, chosen][region].mean(), text, region)

    def loss_settings(self, spec: SegmentationSpec, targets: Targets) -> dict[str, Any]:
        """Adds the weights of the classes."""
        from robot_vision.heads.segmentation.loss import class_weights

        settings = super().loss_settings(spec, targets)
        if self.settings.class_weights != NONE:
            pixels = _class_pixels(targets[TRUTH], len(spec.labels)).tolist()
            settings["class_weights"] = class_weights(pixels, self.settings.class_weights)
        return settings

    def measure(
        self,
        outputs: Targets,
        targets: Targets,
        spec: SegmentationSpec,
        stored: tuple[Targets, Targets] | None = None,
    ) -> tuple[Metrics, NDArray[np.float64] | None]:
        """See `Trainer.measure`, of pixels of the answer's size; each sample: the mean IoU of its own."""
        said, true = outputs["class_ids"], targets[TRUTH]
        return measured(said, true, outputs.get("class_confidence"), spec.labels)

    def score(self, metrics: Metrics, reference: Any) -> float | None:
        """Returns the mean IoU."""
        return metrics.get("mean_iou")

    def run_baselines(
        self,
        names: Sequence[str],
        seen: Features,
        asked: Features,
        spec: SegmentationSpec,
        seed: int,
    ) -> dict[str, Metrics]:
        count = len(spec.labels)
        tally = np.zeros((count, *spec.size), np.int64)
        for true in seen.targets[TRUTH]:
            for k in range(count):
                tally[k] += _array(true) == k
        says = {
            "most_frequent": np.full(spec.size, tally.sum(axis=(1, 2)).argmax(), np.uint8),
            "prior": tally.argmax(axis=0).astype(np.uint8),
        }
        true = asked.targets[TRUTH]
        return {
            name: measured([says[name]] * len(true), true, None, spec.labels)[0] for name in names
        }


def measured(
    said: Any, true: Any, confidence: Any, labels: Sequence[str]
) -> tuple[Metrics, NDArray[np.float64]]:
    """Measures class ids.

    Args:
        said: ids, N of (h, w).
        true: true ids, N of (h, w); 255 for none.
        confidence: N of (h, w), 0 to 255; None where the model does not say.
        labels: of the classes.

    Returns:
        The metrics, and the mean IoU (N, 1) of each image alone.
    """
    count, n = len(labels), len(true)
    sums = {name: np.zeros((n, count)) for name in COUNTS}
    bins = {name: np.zeros((n, BINS)) for name in BIN_SUMS}
    pixels = np.zeros(n)
    for i in range(n):
        ids, truth = _array(said[i]), _array(true[i])
        found = frame_sums(ids, truth, count)
        pixels[i] = found["pixels"]
        for name in COUNTS:
            sums[name][i] = found[name]
        if confidence is not None:
            for name, value in confidence_sums(_array(confidence[i]), ids, truth, count).items():
                bins[name][i] = value
    each = np.where(pixels > 0, frame_iou(sums), np.nan)[:, None]
    metrics: Metrics = {"images": int((pixels > 0).sum()), "pixels": int(pixels.sum())}
    if not metrics["images"]:
        return metrics, each
    metrics |= values(statistics(sums), n)
    if confidence is not None:
        metrics |= values({"ece": calibration_error(bins)}, n)
    iou = class_iou({name: value.sum(axis=0, keepdims=True) for name, value in sums.items()})[0]
    metrics["iou"] = {
        label: float(v) for label, v in zip(labels, iou, strict=True) if np.isfinite(v)
    }
    return metrics, each


def _class_pixels(true: Any, count: int) -> NDArray[np.int64]:
    total = np.zeros(256, np.int64)
    for image in true:
        total += np.bincount(_array(image).reshape(-1), minlength=256)
    return total[:count]


def _array(image: Any) -> NDArray[np.uint8]:
    return np.asarray(image, np.uint8)
