"""How pose heads are trained: their settings, loss, clips of neighbours, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.metrics import Metric
from robot_vision.contract.training import (
    Chooser,
    DataFacts,
    Features,
    FoldSettings,
    Metrics,
    Sampled,
    Shape,
    Share,
    Targets,
    Trainer,
    poses_of,
    require_poses,
)
from robot_vision.errors import ConfigError
from robot_vision.geometry import rotations
from robot_vision.heads.pose import evaluation as poses
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.settings.by_name import make_by_name
from robot_vision.settings.declared import option
from robot_vision.settings.mappings import from_mapping
from robot_vision.statistics.bootstrap import values
from robot_vision.statistics.normal import chi_squared_quantile

if TYPE_CHECKING:
    from torch import nn

_CHUNK = 64
_LEAST_SPREAD = 0.02  # m, and of unit vectors: a camera that only turned has no regions by position
VIEWS = 512  # training views that a new head keeps: 64 kB
IDEAL_NEES = 6.0  # the mean of a chi-squared variable with six degrees of freedom


@dataclass(frozen=True)
class PoseConfig(FoldSettings):
    """How a pose head is trained."""

    loss: str = option(
        "heteroscedastic",
        "name of the pose head's loss; homoscedastic and beta learn no covariance",
    )
    clips: int = option(
        1,
        "frames per clip, for settings.relative (MapNet: 3); 1 uses single frames",
        low=1,
        high=1000,
    )
    clip_spacing: int = option(
        10, "distance between the frames of a clip, in frames", low=1, high=100000
    )
    calibrate: bool = option(
        True, "scale the variances to match the errors on the validation frames"
    )
    regions: int = option(
        5,
        "regions of the map that are left out in turn, to learn how errors grow with the distance from what "
        "was trained on, if features are cached; 0: none, and the covariance does not know new views",
        low=0,
        high=100,
    )


class PoseTrainer(Trainer[PoseSpec]):
    """See `Trainer`."""

    Settings = PoseConfig
    losses = {
        "beta": "robot_vision.heads.pose.losses.regression:BetaLoss",
        "homoscedastic": "robot_vision.heads.pose.losses.regression:HomoscedasticLoss",
        "reprojection": "robot_vision.heads.pose.losses.reprojection:ReprojectionLoss",
        "heteroscedastic": "robot_vision.heads.pose.losses.likelihood:GaussianLikelihood",
    }
    baselines = {
        "mean_pose": "always the mean pose",
        "retrieval": "the pose of the most similar training image",
    }
    harms = frozenset({"flip", "crop", "mixup"})
    truth = "pose"

    def spec(self, settings: Mapping[str, Any], facts: DataFacts) -> PoseSpec:
        """See `Trainer.spec`; the map frame is the data's, where the settings name none."""
        settings = {"map_frame": facts.map_frame, "views": VIEWS, **settings}
        return from_mapping(PoseSpec, f"network.{self.name}", settings)

    def check(self, splits: Any, where: str) -> None:
        require_poses(self.name, splits, where)
        if not splits.has_orientation:
            raise ConfigError(
                f"The {self.name} head needs orientations, which {where} does not have"
            )

    def needs_images(self) -> bool:
        """The reprojection loss looks at the images' size."""
        return bool(self.settings.loss == "reprojection")

    def chooses(self) -> bool:
        """Where clips are wanted."""
        return bool(self.settings.clips > 1)

    def keeps_order(self) -> bool:
        """Frames of a clip are found by where they stand in the sequence."""
        return self.chooses()

    def module(self, spec: PoseSpec, shapes: Sequence[Shape]) -> nn.Module:
        from robot_vision.heads.pose.network import PoseNetHead

        return PoseNetHead(spec, shapes[0])

    def untrained(self, pretrained: bool, images: int) -> str:
        return f"The {self.name} head is not trained: its poses mean nothing"

    def prepare(self, module: Any, spec: PoseSpec, features: Features, seed: int) -> None:
        """Sets the positions' mean and spread."""
        targets = features.targets
        if bool(targets["has_pose"].any()):
            positions = targets["T_map_camera"][targets["has_pose"]][:, :3, 3]
            module.set_position_statistics(positions)

    def make_loss(self, name: str, **settings: Any) -> nn.Module:
        """See `Trainer.make_loss`; `relative`, a mapping of settings, adds `RelativePoseLoss` to any."""
        relative = settings.pop("relative", None)
        loss = super().make_loss(name, **settings)
        if relative is None:
            return loss
        if not isinstance(relative, dict):
            raise ConfigError(f"relative is {relative!r}: it must be a mapping of settings")
        table = {"relative": "robot_vision.heads.pose.losses.relative:RelativePoseLoss"}
        added: nn.Module = make_by_name("loss", table, "relative", relative, absolute=loss)
        return added

    def chooser(self, module: Any, features: Features, share: Share) -> Chooser:
        """See `Trainer.chooser`: clips of neighbours."""
        from robot_vision.heads.pose.clips import ClipSampler

        settings = self.settings
        count = max(1, share.batch_size // (settings.clips * share.world))
        sequence = features.targets["sequence"].numpy().astype(np.int64)
        return Sampled(
            ClipSampler(
                sequence, count, settings.clips, settings.clip_spacing, share.seed, share.rank, share.world
            )
        )  # fmt: skip

    def measure(
        self,
        outputs: Targets,
        targets: Targets,
        spec: PoseSpec,
        stored: tuple[Targets, Targets] | None = None,
    ) -> tuple[Metrics, NDArray[np.float64] | None]:
        """See `Trainer.measure`; each sample: metres and degrees."""
        if not bool(targets["has_pose"].any()):
            return {"frames": 0}, None
        columns = score(outputs, targets)
        each = np.stack([columns["error_m"], columns["error_deg"]], axis=1)
        return pose_metrics(columns), each

    def shown(self) -> dict[str, Metric]:
        found = super().shown()
        return {
            "median_position_m": found["median_m"],
            "median_rotation_deg": found["median_deg"],
            "nees": Metric("nees", "NEES / ideal"),
            "mean_position_m": found["mean_m"],
            "mean_rotation_deg": found["mean_deg"],
        }

    def reference(self, train: Targets, targets: Targets) -> tuple[float, float]:
        """Returns the median errors (m, deg) of always answering the training set's mean pose."""
        if not bool(train["has_pose"].any()) or not bool(targets["has_pose"].any()):
            return 1.0, 1.0
        found = pose_metrics(score(always_the_mean(train, targets), targets))
        return max(found["median_position_m"], 1e-3), max(found["median_rotation_deg"], 1e-3)

    def score(self, metrics: Metrics, reference: Any) -> float | None:
        """Returns one, less the mean of both median errors over those of the mean pose."""
        if "median_position_m" not in metrics:
            return None
        metres, degrees = metrics["median_position_m"], metrics["median_rotation_deg"]
        share = metres / reference[0] + degrees / reference[1]
        return float(1 - share / 2)

    def shares(self, each: NDArray[np.float64], reference: Any) -> NDArray[np.float64]:
        """Errors count up to twice those of the mean pose: `score` takes medians, which no outlier moves."""
        return super().shares(1 - np.minimum(each / np.array(reference), 2.0), reference)

    def finish(self, module: Any, spec: PoseSpec, features: Features) -> None:
        """Keeps the training views that new ones are compared with; how errors grow with it is calibrated."""
        import torch

        if module.views is None:
            return
        posed = features.targets["has_pose"].nonzero().flatten()
        read = [
            module.read(features.of(part)[0].to(features.device)) for part in posed.split(_CHUNK)
        ]
        module.views.keep(torch.cat(read))
        module.constants["view_growth"].zero_()

    def parts(self, targets: Targets, spec: PoseSpec) -> NDArray[np.int64] | None:
        """Returns the region of the map of each sample, where it is asked for."""
        if not spec.views or not self.settings.regions:
            return None
        poses = targets["T_map_camera"].double().numpy()
        known = targets["has_pose"].numpy()[:, None, None]
        return regions(np.where(known, poses, np.nan), self.settings.regions)

    def run_baselines(
        self, names: Sequence[str], seen: Features, asked: Features, spec: PoseSpec, seed: int
    ) -> dict[str, Metrics]:
        from robot_vision.heads.pose import baselines

        answers: dict[str, Any] = {}
        if "mean_pose" in names:
            answers["always the mean pose"] = always_the_mean(seen.targets, asked.targets)
        if "retrieval" in names:
            answers |= baselines.most_similar(seen, asked)
            nearest = baselines.nearest(seen.targets, asked.targets)
            answers["nearest training pose (the most that retrieval allows)"] = nearest
        return {title: self.measure(a, asked.targets, spec)[0] for title, a in answers.items()}


def score(outputs: Mapping[str, Any], targets: Targets) -> poses.Columns:
    """Returns the columns of `score_poses` (N, ...) on final values: NaN where a sample has no true pose.

    Args:
        outputs: `position`, `orientation_xyzw`, and `pose_covariance` where there is one.
        targets: `T_map_camera`, `has_pose`.
    """
    covariance = outputs.get("pose_covariance")
    return poses.score_poses(
        np.asarray(outputs["position"]),
        np.asarray(outputs["orientation_xyzw"]),
        None if covariance is None else np.asarray(covariance, np.float64),
        *poses_of(targets),
    )


def pose_metrics(columns: poses.Columns) -> Metrics:
    """Measures poses.

    Args:
        columns: of `score`.

    Returns:
        Median and mean position error (m) and rotation error (deg); nees: the mean normalised
        estimation error squared over its ideal (1 is honest, more is overconfident); frames.
    """
    metres, degrees = columns["error_m"], columns["error_deg"]
    known = np.isfinite(metres)
    metres, degrees = metres[known], degrees[known]
    found = values(poses.statistics(metres, degrees), len(metres))
    metrics: Metrics = {
        "median_position_m": found["median_m"],
        "median_rotation_deg": found["median_deg"],
        "mean_position_m": found["mean_m"],
        "mean_rotation_deg": found["mean_deg"],
        "within_25cm_5deg": found[poses.threshold_name(0.25, 5.0)],
        "frames": len(metres),
    }
    if "nees" in columns:
        nees = columns["nees"][known]
        nees = nees[np.isfinite(nees)]
        metrics["nees"] = float(nees.mean()) / IDEAL_NEES
        metrics["within_95_percent_ellipsoid"] = float(
            (nees <= chi_squared_quantile(0.95, 6)).mean()
        )
    return metrics


def always_the_mean(train: Targets, targets: Targets) -> dict[str, NDArray[np.float64]]:
    """Returns the answer that never looks at the image: the training set's mean pose."""
    position, xyzw = poses_of(train)
    known, count = np.isfinite(position[:, 0]), len(targets["has_pose"])
    mean, turn = rotations.mean_pose(position[known], xyzw[known])
    return {
        "position": np.broadcast_to(mean, (count, 3)),
        "orientation_xyzw": np.broadcast_to(turn, (count, 4)),
    }


def regions(poses: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Cuts poses (N, 4, 4) into regions (N,) of about equally many, by where and which way they look.

    The largest part is cut in the middle of its longest extent until there are enough. Metres count by their
    spread over all poses, and directions by theirs, but a spread below 0.02 as that: of a camera that hardly
    moved or turned no regions are made by noise. Samples without a pose (NaN) are of no region, -1.
    """
    found = np.where(np.isfinite(poses[:, 0, 3]), 0, -1)
    looks = []
    for part in (poses[:, :3, 3], poses[:, :3, 2]):  # position, optical axis
        centred = part - np.nanmean(part, axis=0)
        looks.append((centred, float(np.sqrt(np.nanmean(centred**2)))))
    where = np.concatenate(
        [centred / max(spread, _LEAST_SPREAD) for centred, spread in looks], axis=1
    )
    for number in range(1, count):
        rows = np.flatnonzero(found == np.bincount(found[found >= 0]).argmax())
        part = where[rows]
        along = part[:, np.ptp(part, axis=0).argmax()]
        found[rows[np.argsort(along, kind="stable")[len(rows) // 2 :]]] = number
    return found
