"""What bundle.yaml says of a pose head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robot_vision.errors import ConfigError, unknown
from robot_vision.settings.checks import require

COVARIANCES = ("diagonal", "cholesky")


@dataclass(frozen=True)
class PoseSpec:
    """The pose head (PoseNet): position and unit quaternion of the camera in the map.

    Attributes:
        map_frame: frame in which poses are given.
        tap: the backbone's feature tap; empty for the backbone's default.
        reduce_channels: 0 pools the tap as the paper does; otherwise a 1 x 1 convolution to this many
            channels keeps the feature map's layout, which is flattened.
        hidden: width of the fully connected layer before the two regressors (2048 in the paper).
        dropout: probability while training.
        covariance: `diagonal` (six variances) or `cholesky` (variances and correlations: the whole
            6 x 6 matrix, by its Cholesky factor).
        views: training views that the graph keeps and compares with (`KnownViews`): it then gives
            `known_view`, and the covariance grows where that is low. 0 for none, as in older bundles.
        unknown_threshold: below this `known_view` an image shows an unknown view; None never says so.
    """

    KIND: ClassVar[str] = "pose"

    map_frame: str = "map"
    tap: str = ""
    reduce_channels: int = 0
    hidden: int = 2048
    dropout: float = 0.0
    covariance: str = "diagonal"
    views: int = 0
    unknown_threshold: float | None = None

    def __post_init__(self) -> None:
        require(bool(self.map_frame), "map_frame", self.map_frame, "a frame's name")
        require(
            0 <= self.reduce_channels <= 4096, "reduce_channels", self.reduce_channels, "0 to 4096"
        )
        require(1 <= self.hidden <= 65536, "hidden", self.hidden, "from 1 to 65536")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        require(0 <= self.views <= 4096, "views", self.views, "0 to 4096")
        if self.covariance not in COVARIANCES:
            raise ConfigError(unknown("pose covariance", self.covariance, COVARIANCES))
