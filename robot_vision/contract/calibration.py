"""What a calibration works on, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.calibration.predict import Outputs
from robot_vision.contract.rows import label_indices
from robot_vision.datasets.sample import Sample
from robot_vision.errors import ConfigError
from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.statistics.bootstrap import Headline
from robot_vision.statistics.settings import EvaluationSettings

HEADS = ("classifier", "open_set", "pose", "place")
# In docs/uncertainty_results.md no score is the best everywhere, and on average they hardly differ; this one
# is in the graph, and needs no features of training images.
DEFAULT_SCORE = "energy"
FOLDS = 5
# With fewer images one wrong answer moves the accuracy by more than one per cent.
MIN_LABELLED = 100

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """What is fitted, and how.

    Attributes:
        heads: of `HEADS`.
        keep: share of known images that shall not be called unknown.
        score: the open-set score.
        per_axis: a factor for each axis of the pose, and not one each for position and rotation.
        settings: what the same place is, and the bootstrap.
        seed: of the folds.
    """

    heads: tuple[str, ...]
    keep: float = 0.95
    score: str = DEFAULT_SCORE
    per_axis: bool = False
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.5 <= self.keep < 1:
            raise ConfigError(f"keep is {self.keep}: use a share from 0.5 to below 1, such as 0.95")


@dataclass
class Fitted:
    """One head's calibration.

    Attributes:
        values: what was found, for the bundle.
        before: numbers of the bundle as it is; `after`: cross-fitted.
        images: that it was fitted on.
        left: why the bundle is left as it is, with both numbers; empty where it gets the values.
    """

    values: dict[str, Any]
    before: dict[str, Headline]
    after: dict[str, Headline]
    images: int
    left: str = ""

    def record(self) -> dict[str, Any]:
        """Returns plain data for `bundle.yaml`."""
        return {
            **self.values,
            "images": self.images,
            "before": {name: _short(value) for name, value in self.before.items()},
            "after": {name: _short(value) for name, value in self.after.items()},
        }


def _short(value: Headline) -> list[float | None]:
    numbers = (value["value"], value["low"], value["high"])
    return [None if v is None else float(f"{v:.4g}") for v in numbers]


@dataclass
class Calibration:
    """All that was fitted.

    Attributes:
        heads: name to `Fitted`.
        temperature: of the classifier; None to leave it.
        covariance_scale: (6,), or None.
        references: for a score of features, or None.
        threshold: of the open set, or None.
        notes: a line each.
    """

    heads: dict[str, Fitted] = field(default_factory=dict)
    temperature: float | None = None
    covariance_scale: Array | None = None
    references: NDArray[np.float32] | None = None
    threshold: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def left(self) -> dict[str, str]:
        """Why which heads are left as they are."""
        return {name: head.left for name, head in self.heads.items() if head.left}

    def record(self) -> dict[str, Any]:
        """Returns what `bundle.yaml` keeps of each head that gets new numbers."""
        return {n: head.record() for n, head in self.heads.items() if not head.left}


@dataclass
class Material:
    """Samples and what the bundle says of them.

    Attributes:
        samples: (N), those that could be read.
        outputs: of `predict`.
    """

    samples: Sequence[Sample]
    outputs: Outputs

    def labels(self, bundle: ModelBundle) -> NDArray[np.int64]:
        """Returns the index (N,) of each label; negative where there is none, or one the model lacks."""
        assert bundle.spec.classifier is not None
        return label_indices([s.label for s in self.samples], bundle.spec.classifier.labels)

    @property
    def posed(self) -> NDArray[np.bool_]:
        """Which (N,) have a true pose."""
        return np.array([s.T_map_camera is not None for s in self.samples])


def true_poses(material: Material, rows: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Returns the positions (n, 3) and quaternions (n, 4) of the samples of a mask that all have a pose."""
    poses = [s.T_map_camera for s, use in zip(material.samples, rows, strict=True) if use]
    known = [pose for pose in poses if pose is not None]
    positions = np.array([pose[:3, 3] for pose in known]).reshape(-1, 3)
    return positions, np.array([xyzw_from_matrix(pose[:3, :3]) for pose in known]).reshape(-1, 4)


def require(head: str, count: int, needed: int, what: str) -> None:
    """Raises ConfigError where there are too few; it says how many are needed."""
    if count < needed:
        raise ConfigError(
            f"{head}: {count} {what} are too few to calibrate on: at least {needed} are needed; give more, "
            "or leave it out with --heads"
        )
