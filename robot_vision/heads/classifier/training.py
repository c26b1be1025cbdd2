"""How classifiers are trained: their settings, targets, loss, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.metrics import Metric
from robot_vision.contract.training import (
    NONE,
    Asked,
    DataFacts,
    Evidence,
    Features,
    HeadSettings,
    Metrics,
    Shape,
    Solved,
    Target,
    Targets,
    Trainer,
)
from robot_vision.errors import ConfigError
from robot_vision.heads.classifier import evaluation as classification
from robot_vision.heads.classifier.answer import UNKNOWN
from robot_vision.heads.classifier.spec import FEATURE_SCORES, LOGIT_SCORES, ClassifierSpec
from robot_vision.settings.declared import option
from robot_vision.settings.mappings import from_mapping
from robot_vision.statistics.bootstrap import values

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class ClassifierConfig(HeadSettings):
    """How a classifier is trained."""

    loss: str = option("cross_entropy", "name of the classifier's loss")
    settings: dict[str, Any] = option(
        lambda: {"label_smoothing": 0.05}, "settings of the classifier's loss"
    )
    class_weights: str = option(
        NONE,
        "weight of each class in the loss: none, sqrt_inverse (of the frequency), inverse or "
        "effective",
        choices=(NONE, "sqrt_inverse", "inverse", "effective"),
    )
    calibrate: bool = option(
        True, "fit the softmax temperature on the validation images, or on training images left out"
    )
    solve: bool = option(
        True,
        "on a frozen backbone's features find the minimum of the loss, with L2 by cross-validation, instead "
        "of training for epochs; if nothing is augmented and the head has no dropout",
    )


class ClassifierTrainer(Trainer[ClassifierSpec]):
    """See `Trainer`. A classifier of another name than its kind learns the labels of that name."""

    Settings = ClassifierConfig
    losses = {"cross_entropy": "robot_vision.heads.classifier.loss:CrossEntropy"}
    baselines = {
        "knn": "the classes of the most similar training images",
        "softmax": "a linear softmax",
        "svm": "a linear support vector machine",
    }
    truth = "label"
    balances = True
    linear = True
    takes = "classes"

    def spec(self, settings: Mapping[str, Any], facts: DataFacts) -> ClassifierSpec:
        where = f"network.{self.name}"
        if "labels" in settings:
            raise ConfigError(f"{where}.labels: the labels are those of the data")
        labels = facts.labels.get(self.word(), ())
        spec = from_mapping(ClassifierSpec, where, {**settings, "labels": list(labels)})
        if spec.score in FEATURE_SCORES:
            raise ConfigError(
                f"{where}.score is {spec.score!r}, which compares images with known ones: leave it to "
                f"`robot-vision calibrate`, and use one of {', '.join(LOGIT_SCORES)} here"
            )
        return spec

    def word(self) -> str:
        """Returns `label`, and `label:NAME` for a classifier that is not named as its kind."""
        return self.truth if self.name == self.head.kind else f"{self.truth}:{self.name}"

    def check(self, splits: Any, where: str) -> None:
        labels = splits.labels_of(self.word())
        if len(labels) < 2:
            what = "A classifier" if self.word() == self.truth else f"Classifier {self.name}"
            raise ConfigError(
                f"{what} needs at least two classes; {where} has {len(labels)} of {self.word()} "
                f"({', '.join(labels) or 'none'}): add images of another class, or leave the head out"
            )
        if UNKNOWN in labels:
            raise ConfigError(
                f"{where} has a class {UNKNOWN!r}, as answers call what shows none of the classes: rename it"
            )

    def targets(self, samples: Sequence[Any], spec: ClassifierSpec) -> dict[str, Target]:
        """Returns `label` int64 (N,), -1 for none or a label that is not among the spec's."""
        import torch

        index = {label: i for i, label in enumerate(spec.labels)}
        numbers = [index.get(sample.of(self.word()) or "", -1) for sample in samples]
        return {self.head.key("label"): Target(torch.tensor(numbers, dtype=torch.int64), -1)}

    def classes(self, spec: ClassifierSpec) -> dict[str, int]:
        return {self.head.key("label"): len(spec.labels)}

    def module(self, spec: ClassifierSpec, shapes: Sequence[Shape]) -> nn.Module:
        from robot_vision.heads.classifier.network import ClassifierHead

        return ClassifierHead(spec, shapes[0][0])

    def evidence(
        self, module: Any, raw: dict[str, Tensor], spec: ClassifierSpec, asked: Asked
    ) -> Evidence | None:
        """Returns a class's logit: of the most probable one, unless one is asked for."""
        if asked.box is not None or (asked.label and asked.label not in spec.labels):
            return None
        probabilities = module.decode(raw)["probabilities"][0].detach()
        chosen = spec.labels.index(asked.label) if asked.label else int(probabilities.argmax())
        text = f"{spec.labels[chosen]}  {float(probabilities[chosen]):.3f}"
        return Evidence(raw["logits"][0, chosen], text)

    def built(self, spec: ClassifierSpec, module: Any) -> ClassifierSpec:
        """Fills in the number of features, where the score compares them."""
        if spec.score not in FEATURE_SCORES:
            return spec
        return replace(spec, feature_size=module.linear.in_features)

    def untrained(self, pretrained: bool, images: int) -> str:
        if pretrained:
            return ""
        return f"The {self.name} is not trained: the weights have no layer for these labels"

    def loss_settings(self, spec: ClassifierSpec, targets: Targets) -> dict[str, Any]:
        """Adds the weights of the classes."""
        import torch

        from robot_vision.heads.classifier.loss import class_weights

        settings = super().loss_settings(spec, targets)
        if self.settings.class_weights != NONE:
            labels = targets["label"]
            counts = torch.bincount(labels[labels >= 0], minlength=len(spec.labels)).tolist()
            settings["class_weights"] = class_weights(counts, self.settings.class_weights)
        return settings

    def solve(
        self, module: Any, spec: ClassifierSpec, features: Features, folds: NDArray[np.int64]
    ) -> Solved | None:
        """See `Trainer.solve`: without dropout it is a convex problem."""
        import torch
        from torch.nn import functional as F

        from robot_vision.contract.pooling import pooled
        from robot_vision.heads.classifier.convex import MOST, solve_softmax

        loss = self.loss(spec, features.targets)
        labels, classes = features.targets["label"], len(spec.labels)
        known = labels >= 0
        size = len(labels) * module.linear.in_features * classes
        if not self.settings.solve or loss is None or spec.dropout or size > MOST:
            return None
        x = pooled(features.first())
        weights: Any = loss.weights
        softmax, left_out, strength = solve_softmax(
            x[known],
            labels[known],
            classes,
            folds[known.numpy()],
            lambda z, y: F.cross_entropy(
                z,
                y,
                None if weights is None else weights.to(z),
                label_smoothing=loss.label_smoothing,  # type: ignore[arg-type]
            ),
        )
        logits = torch.zeros(len(labels), classes)
        logits[known] = left_out.float()
        with torch.no_grad():
            module.linear.weight.copy_(softmax.weight)
            module.linear.bias.copy_(softmax.bias)
            raw = {"logits": logits.to(features.device), "features": x.to(features.device)}
            outputs = {word: value.cpu() for word, value in {**raw, **module.decode(raw)}.items()}
        images = classifier_metrics(outputs["probabilities"], features.targets, spec.labels)
        text = (
            f"at the minimum of its loss, with L2 of C = {strength:g}; on training images left out: accuracy "
            f"{images['accuracy']:.4f}, negative log likelihood {images['nll']:.4f}"
        )
        return Solved(outputs, 1.0, text)

    def measure(
        self,
        outputs: Targets,
        targets: Targets,
        spec: ClassifierSpec,
        stored: tuple[Targets, Targets] | None = None,
    ) -> tuple[Metrics, NDArray[np.float64] | None]:
        """See `Trainer.measure`; each sample: right or not, less a hundredth of the nll."""
        labels = targets["label"].numpy()
        columns = classification.score_classes(outputs["probabilities"].numpy(), labels)
        right = (columns["predicted_label"] == labels).astype(np.float64)
        loss = -np.log(np.maximum(columns["true_probability"], 1e-12))
        each = (right - 0.01 * loss)[:, None]
        return classifier_metrics(outputs["probabilities"], targets, spec.labels), each

    def shown(self) -> dict[str, Metric]:
        found = super().shown()
        return {"accuracy": found["top1"], **found, "errors": Metric("errors", "Errors")}

    def score(self, metrics: Metrics, reference: Any) -> float | None:
        """Returns the accuracy less a hundredth of the nll, which tells apart what few images cannot."""
        if "accuracy" not in metrics:
            return None
        return float(metrics["accuracy"] - 0.01 * metrics["nll"])

    def run_baselines(
        self, names: Sequence[str], seen: Features, asked: Features, spec: ClassifierSpec, seed: int
    ) -> dict[str, Metrics]:
        from robot_vision.heads.classifier.baselines import TITLES, probabilities_of

        found = {}
        for name in (name for name in TITLES if name in names):
            probabilities = probabilities_of(name, seen, asked, len(spec.labels), seed)
            metrics = classifier_metrics(probabilities, asked.targets, spec.labels)
            if name == "svm":  # decisions without probabilities
                metrics.pop("nll", None), metrics.pop("ece", None)
            found[TITLES[name]] = metrics
        return found


def classifier_metrics(probabilities: Tensor, targets: Targets, labels: tuple[str, ...]) -> Metrics:
    """Measures class probabilities.

    Args:
        probabilities: (N, K).
        targets: `label`; samples with -1 are left out.
        labels: names of the K classes.

    Returns:
        accuracy, macro_recall (the mean over the classes that occur), nll (nats), ece (expected
        calibration error, see `statistics.reliability`), errors, images, recall by label.
    """
    known = targets["label"] >= 0
    y = targets["label"][known].numpy()
    if len(y) == 0:
        return {"images": 0}
    columns = classification.score_classes(probabilities[known].numpy(), y)
    right = columns["predicted_label"] == y
    found = values(classification.statistics({**columns, "true_label": y}), len(y))
    return {
        "accuracy": found["top1"],
        "macro_recall": found["macro_recall"],
        "nll": found["nll"],
        "ece": found["ece"],
        "errors": int((~right).sum()),
        "images": len(y),
        "recall": {n: float(right[y == i].mean()) for i, n in enumerate(labels) if (y == i).any()},
    }
