"""What a network is: the settings from which torch builds it and by which a bundle is checked.

A `NetworkSpec` is plain data. It is written into `bundle.yaml` and into the header of
`weights.safetensors`, and reading it back checks every key, type and range.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from robot_vision.errors import ConfigError, unknown
from robot_vision.images.input import InputSpec
from robot_vision.settings.checks import require
from robot_vision.settings.mappings import check_mapping, from_mapping

KNOWN_SCORES = ("max_probability", "max_logit", "energy", "knn", "mahalanobis")
FEATURE_SCORES = ("knn", "mahalanobis")  # these compare features with those of known images
LOGIT_SCORES = tuple(score for score in KNOWN_SCORES if score not in FEATURE_SCORES)
HEADS = ("classifier", "pose", "place")
POOLINGS = ("netvlad", "gem")
COVARIANCES = ("diagonal", "cholesky")
MAX_PASSES = 256
MAX_MEMBERS = 32


@dataclass(frozen=True)
class ClassifierSpec:
    """The classifier head: dropout, then a linear layer on the tap's pooled features.

    Attributes:
        labels: class names in the order of the network's outputs (kept in `labels.txt`).
        tap: the backbone's feature tap; empty for the backbone's default.
        dropout: probability while training.
        temperature: logits are divided by it before the softmax (Guo et al. 2017, eq. 9).
        score: what `known_score` is: high for images like those trained on.
        unknown_threshold: below this `known_score` the answer is `unknown`; None never says so.
        feature_size: numbers in `features`, which the graph gives in place of `known_score` where the
            score needs them (`FEATURE_SCORES`); 0 else.
    """

    labels: tuple[str, ...]
    tap: str = ""
    dropout: float = 0.0
    temperature: float = 1.0
    score: str = "max_probability"
    unknown_threshold: float | None = None
    feature_size: int = 0

    def __post_init__(self) -> None:
        require(len(self.labels) >= 2, "number of labels", len(self.labels), "at least 2")
        require(len(set(self.labels)) == len(self.labels), "labels", self.labels, "all different")
        bad = [label for label in self.labels if not label.strip() or "\n" in label]
        require(not bad, "label", bad[:1], "a non-empty single line")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        require(
            self.temperature > 0 and math.isfinite(self.temperature),
            "temperature",
            self.temperature,
            "positive and finite",
        )
        if self.score not in KNOWN_SCORES:
            raise ConfigError(unknown("score", self.score, KNOWN_SCORES))
        require(0 <= self.feature_size <= 1 << 16, "feature_size", self.feature_size, "0 to 2^16")


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
    """

    map_frame: str = "map"
    tap: str = ""
    reduce_channels: int = 0
    hidden: int = 2048
    dropout: float = 0.0
    covariance: str = "diagonal"

    def __post_init__(self) -> None:
        require(bool(self.map_frame), "map_frame", self.map_frame, "a frame's name")
        require(
            0 <= self.reduce_channels <= 4096, "reduce_channels", self.reduce_channels, "0 to 4096"
        )
        require(1 <= self.hidden <= 65536, "hidden", self.hidden, "from 1 to 65536")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        if self.covariance not in COVARIANCES:
            raise ConfigError(unknown("pose covariance", self.covariance, COVARIANCES))


@dataclass(frozen=True)
class PlaceSpec:
    """The place head (NetVLAD or GeM): an L2-normalised global descriptor.

    Attributes:
        tap: the backbone's feature tap; empty for the backbone's default (its last feature map).
        clusters: K, the number of NetVLAD's cluster centres; GeM has none.
        whitened_size: size after PCA whitening; 0 for none (then the descriptor has K * C numbers
            with NetVLAD, C with GeM).
        descriptor_size: numbers in a descriptor; 0 until the network is built.
        pooling: `netvlad` or `gem`.
    """

    tap: str = ""
    clusters: int = 64
    whitened_size: int = 0
    descriptor_size: int = 0
    pooling: str = "netvlad"

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ConfigError(unknown("place pooling", self.pooling, POOLINGS))
        require(1 <= self.clusters <= 4096, "clusters", self.clusters, "from 1 to 4096")
        require(0 <= self.whitened_size <= 65536, "whitened_size", self.whitened_size, "0 to 65536")
        require(
            0 <= self.descriptor_size <= 1 << 20,
            "descriptor_size",
            self.descriptor_size,
            "0 to 2^20",
        )


@dataclass(frozen=True)
class EpistemicSpec:
    """Several answers of classifier and pose head to one run of the backbone.

    Where they disagree, the training data left the answer open.

    Attributes:
        passes: Monte Carlo dropout passes through each head, by masks that are part of the graph; 0 for
            none.
        members: heads on the one backbone, each trained from its own seed; 1 for the head alone.
        seed: of the masks.
    """

    passes: int = 0
    members: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            self.passes == 0 or 2 <= self.passes <= MAX_PASSES,
            "epistemic passes",
            self.passes,
            f"0, or from 2 to {MAX_PASSES}",
        )
        require(
            1 <= self.members <= MAX_MEMBERS,
            "epistemic members",
            self.members,
            f"from 1 to {MAX_MEMBERS}",
        )
        require(
            self.passes > 0 or self.members > 1,
            "epistemic",
            (self.passes, self.members),
            "several passes or several members; leave it out for a single answer",
        )
        require(0 <= self.seed < 2**32, "epistemic seed", self.seed, "from 0 to 2^32 - 1")

    @property
    def samples(self) -> int:
        """How many answers a head gives to an image."""
        return max(self.passes, 1) * self.members


@dataclass(frozen=True)
class NetworkSpec:
    """A backbone, its input and its heads; a head that is None is absent.

    `epistemic` is None where each head answers once.
    """

    backbone: str = "resnet18"
    input: InputSpec = field(default_factory=InputSpec)
    classifier: ClassifierSpec | None = None
    pose: PoseSpec | None = None
    place: PlaceSpec | None = None
    epistemic: EpistemicSpec | None = None

    def __post_init__(self) -> None:
        require(bool(self.heads), "heads", self.heads, f"at least one of {', '.join(HEADS)}")
        if self.epistemic and not (self.classifier or self.pose):
            raise ConfigError(
                "epistemic is of classifier and pose heads, and the network has neither: leave it out"
            )
        if self.epistemic and self.epistemic.passes:
            for name, head in (("classifier", self.classifier), ("pose", self.pose)):
                if head and not head.dropout:
                    raise ConfigError(
                        f"The {name} head has dropout 0, so all Monte Carlo passes would be the same: "
                        f"train it with dropout (network.{name}.dropout, for instance 0.2)"
                    )

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the heads that are there, in the fixed order of `HEADS`."""
        return tuple(name for name in HEADS if getattr(self, name) is not None)

    @property
    def outputs(self) -> dict[str, tuple[int, ...]]:
        """Names of the graph's float32 outputs and their shapes without the batch axis."""
        outputs: dict[str, tuple[int, ...]] = {}
        if self.classifier:
            outputs["probabilities"] = (len(self.classifier.labels),)
            if self.classifier.score in FEATURE_SCORES:
                outputs["features"] = (self.classifier.feature_size,)
            else:
                outputs["known_score"] = ()
            if self.epistemic:
                outputs["mutual_information"] = ()  # nats
        if self.pose:
            outputs["position"] = (3,)  # metres, in the map frame
            outputs["orientation_xyzw"] = (4,)  # unit, w >= 0
            outputs["pose_covariance"] = (
                6,
                6,
            )  # x y z (m), then rotation about the map's X Y Z (rad)
            if self.epistemic:
                outputs["pose_spread"] = (
                    6,
                    6,
                )  # the part of pose_covariance that answers differ by
        if self.place:
            outputs["descriptor"] = (self.place.descriptor_size,)  # L2 norm 1
        return outputs

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data (lists, dicts, numbers, strings) that `from_dict` reads back."""
        data: dict[str, Any] = {"backbone": self.backbone, "input": _plain(self.input)}
        data["heads"] = {name: _plain(getattr(self, name)) for name in self.heads}
        if self.epistemic:
            data["epistemic"] = _plain(self.epistemic)
        return data

    @classmethod
    def from_dict(cls, data: object) -> NetworkSpec:
        """Reads what `to_dict` wrote.

        Raises:
            ConfigError: an unknown or missing key, a wrong type or a value out of range.
        """
        optional = ("input", "epistemic")
        fields = check_mapping("network", data, required=("backbone", "heads"), optional=optional)
        heads = check_mapping("heads", fields["heads"], required=(), optional=HEADS)
        kinds = {"classifier": ClassifierSpec, "pose": PoseSpec, "place": PlaceSpec}
        if not isinstance(fields["backbone"], str):
            raise ConfigError(f"backbone is {fields['backbone']!r}: it must be a network's name")
        return cls(
            backbone=fields["backbone"],
            input=from_mapping(InputSpec, "input", fields.get("input") or {}),
            epistemic=from_mapping(EpistemicSpec, "epistemic", fields["epistemic"])
            if fields.get("epistemic")
            else None,
            **{name: from_mapping(kinds[name], name, settings) for name, settings in heads.items()},
        )


def _plain(spec: Any) -> dict[str, Any]:
    items = dataclasses.asdict(spec).items()
    return {key: list(value) if isinstance(value, tuple) else value for key, value in items}
