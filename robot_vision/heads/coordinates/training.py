"""How heads of scene coordinates are trained: by depth, pose and intrinsics of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.training import (
    DataFacts,
    Dense,
    Features,
    FoldBlockSettings,
    Metrics,
    Shape,
    Targets,
    Trainer,
    poses_of,
    require_poses,
)
from robot_vision.errors import ConfigError
from robot_vision.heads.coordinates.head import PREFIX, answer_of
from robot_vision.heads.coordinates.judging import answered
from robot_vision.heads.coordinates.spec import CELL, CoordinatesSpec
from robot_vision.heads.pose.evaluation import score_poses, statistics
from robot_vision.settings.checks import require
from robot_vision.settings.declared import option
from robot_vision.settings.mappings import from_mapping
from robot_vision.statistics.bootstrap import values

if TYPE_CHECKING:
    from torch import nn

_DEPTH = "image:depth"
_CHUNK = 64


@dataclass(frozen=True)
class CoordinatesConfig(FoldBlockSettings):
    """How a head of scene coordinates is trained."""

    loss: str = option("distance", "name of the loss of scene coordinates and their deviation")
    calibrate: bool = option(
        True, "scale the covariances of poses so that the 95 percent ellipsoids hold 95 percent"
    )


class CoordinatesTrainer(Trainer[CoordinatesSpec]):
    """See `Trainer`."""

    Settings = CoordinatesConfig
    losses = {"distance": "robot_vision.heads.coordinates.loss:CoordinatesLoss"}
    baselines = {"mean_pose": "always the mean pose"}
    harms = frozenset({"flip", "crop", "mixup"})
    truth = "image"

    def word(self) -> str:
        """Depth, whatever the head's name."""
        return _DEPTH

    def spec(self, settings: Mapping[str, Any], facts: DataFacts) -> CoordinatesSpec:
        """See `Trainer.spec`; size and camera follow from the input and the training images.

        Raises:
            ConfigError: the data do not say what camera took the images.
        """
        given: dict[str, Any] = {"map_frame": facts.map_frame, **settings}
        given.setdefault("size", tuple(-(-side // CELL) for side in facts.input))
        if "camera" not in given:
            for name in ("distortion", "lens"):
                if name in given:
                    raise ConfigError(
                        f"network.{self.name}.{name} is of a camera: give camera as well, or leave it out"
                    )
            camera = facts.camera()
            if camera is None:
                raise ConfigError(
                    f"The {self.name} head needs the matrix of the camera that took the training images, "
                    "which nothing says here: train it on a data set with camera_matrix, or on a recording "
                    "with camera_info"
                )
            size = given["size"]
            whole = isinstance(size, list | tuple) and all(isinstance(n, int) for n in size)
            require(whole and len(size) == 2, f"network.{self.name}.size", size, "rows and columns")
            # Whole of the input, in pixels of an image of 8 times the cells.
            scale = [CELL * n / side for n, side in zip(size, facts.input, strict=True)]
            (fx, fy), (cx, cy) = camera.K[[0, 1], [0, 1]], camera.K[:2, 2]
            numbers = (
                scale[1] * fx,
                scale[0] * fy,
                scale[1] * (cx + 0.5) - 0.5,
                scale[0] * (cy + 0.5) - 0.5,
            )
            given["camera"] = tuple(float(f"{v:.7g}") for v in numbers)
            given["distortion"] = tuple(camera.distortion.tolist())
            given["lens"] = camera.model
        if len(facts.positions):
            given.setdefault("centre", tuple(facts.positions.mean(axis=0).round(3).tolist()))
        return from_mapping(CoordinatesSpec, f"network.{self.name}", given)

    def check(self, splits: Any, where: str) -> None:
        super().check(splits, where)
        require_poses(self.name, splits, where)
        if not splits.has_orientation:
            raise ConfigError(
                f"The {self.name} head needs orientations, which {where} does not have"
            )

    def dense(self, spec: CoordinatesSpec) -> dict[str, Dense]:
        """See `Trainer.dense`: metres, NaN where there is no truth."""
        return {_DEPTH: Dense((spec.size[0], spec.size[1]), "float32", np.nan, along_axis=True)}

    def module(self, spec: CoordinatesSpec, shapes: Sequence[Shape]) -> nn.Module:
        from robot_vision.heads.coordinates.network import CoordinatesModule

        return CoordinatesModule(spec, shapes)

    def prepare(self, module: Any, spec: CoordinatesSpec, features: Features, seed: int) -> None:
        """Sets mean and spread of the training coordinates."""
        import torch

        from robot_vision.heads.coordinates.loss import true_points

        if _DEPTH not in features.targets:  # an untrained bundle is made
            return
        rays, centre = torch.tensor(spec.rays()), torch.tensor(spec.centre, dtype=torch.float64)
        total, squares, count = torch.zeros(3, dtype=torch.float64), 0.0, 0
        for part in torch.arange(len(features)).split(_CHUNK):
            batch = {
                word: torch.as_tensor(np.asarray(features.targets[word][part]))
                for word in (_DEPTH, "T_map_camera", "has_pose")
            }
            points, known = true_points(batch, rays, centre, spec.minimum, spec.maximum)
            some = points[known].double()
            total += some.sum(dim=0)
            squares += float(some.square().sum())
            count += len(some)
        if not count:
            raise ConfigError(
                f"No depth of the training images is from {spec.minimum:g} to {spec.maximum:g} m (minimum "
                f"and maximum of network.{self.name}): there is nothing to learn from; are they in metres?"
            )
        mean = total / count
        variance = squares / count - float(mean.square().sum())
        module.set_statistics(mean.float(), float(np.sqrt(max(variance / 3, 0.0))))

    def loss_settings(self, spec: CoordinatesSpec, targets: Targets) -> dict[str, Any]:
        """See `Trainer.loss_settings`; what true points follow from is the head's."""
        return {
            "rays": spec.rays(),
            "centre": spec.centre,
            "minimum": spec.minimum,
            "maximum": spec.maximum,
            **self.settings.settings,
        }

    def measure(
        self,
        outputs: Targets,
        targets: Targets,
        spec: CoordinatesSpec,
        stored: tuple[Targets, Targets] | None = None,
    ) -> tuple[Metrics, NDArray[np.float64] | None]:
        """See `Trainer.measure`; each sample: 1 less its error in metres, at least 0 (0 without a pose)."""
        points, deviations = (np.asarray(outputs[f"scene_{w}"]) for w in ("points", "deviation"))
        answers = [
            answer_of(x.transpose(1, 2, 0), sigma, spec)
            for x, sigma in zip(points, deviations, strict=True)
        ]
        return self._measured(
            np.array([a.position for a in answers]).reshape(-1, 3),
            np.array([a.orientation_xyzw for a in answers]).reshape(-1, 4),
            np.array([a.inliers for a in answers]),
            targets,
        )

    def _measured(
        self, position: Any, xyzw: Any, inliers: Any, targets: Targets
    ) -> tuple[Metrics, NDArray[np.float64] | None]:
        true, true_xyzw = poses_of(targets)
        known = np.isfinite(true[:, 0])
        if not known.any():
            return {"frames": 0}, None
        rows = {f"{PREFIX}position": np.asarray(position), "inliers": np.asarray(inliers)}
        metrics: Metrics = {**values(answered(rows, known), int(known.sum()))}
        columns = score_poses(position, xyzw, None, true, true_xyzw)
        metres, degrees = columns["error_m"], columns["error_deg"]
        said = np.isfinite(metres)
        if said.any():
            metrics |= values(statistics(metres[said], degrees[said]), int(said.sum()))
        metrics["frames"] = int(known.sum())
        each = np.where(said, np.maximum(1 - metres, 0.0), 0.0)
        return metrics, np.where(known, each, np.nan)[:, None]

    def score(self, metrics: Metrics, reference: Any) -> float | None:
        """Returns the share of frames with a pose, less the median errors (m, and 30 degrees count as 1)."""
        if not metrics.get("frames"):
            return None
        lost = metrics.get("median_m", 1.0) + metrics.get("median_deg", 30.0) / 30
        return float(metrics["answered"] - min(lost, 2.0) / 2)

    def run_baselines(
        self,
        names: Sequence[str],
        seen: Features,
        asked: Features,
        spec: CoordinatesSpec,
        seed: int,
    ) -> dict[str, Metrics]:
        from robot_vision.heads.pose.training import always_the_mean

        if not names:
            return {}
        said = always_the_mean(seen.targets, asked.targets)
        inliers = np.full(len(asked), np.nan)
        metrics, _ = self._measured(
            said["position"], said["orientation_xyzw"], inliers, asked.targets
        )
        metrics.pop("inliers", None)  # it has no cells
        return {"always the mean pose": metrics}
