"""The settings of a training run: frozen dataclasses whose defaults are the default recipe.

The defaults are chosen for data that nobody tuned them on: tens to tens of thousands of images, a
pretrained backbone, one machine. Where a better choice depends on the data or the weights, the default is
null and `resolved` (in `setup.py`) fills it in and prints it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from robot_vision.contract import registry
from robot_vision.contract.epistemic import MAX_MEMBERS, MAX_PASSES
from robot_vision.datasets.registry import DATASETS
from robot_vision.errors import ConfigError, unknown
from robot_vision.images.input import InputSpec

PRECISIONS = ("float32", "bfloat16", "float16")
BASELINES = ("knn", "softmax", "svm", "mean_pose", "retrieval", "pooling")
VARIANTS = ("int8", "int8-vnni", "int8-tensorrt", "float16")
CLASS_WEIGHTS = ("none", "sqrt_inverse", "inverse", "effective")


def _doc(default: Any, text: str) -> Any:
    """A field with its default and its text, which `robot-vision train --settings` prints."""
    if isinstance(default, (dict, list)) or callable(default):
        make = default if callable(default) else lambda: type(default)(default)
        return field(default_factory=make, metadata={"text": text})
    return field(default=default, metadata={"text": text})


@dataclass(frozen=True)
class DataConfig:
    """Where the samples come from."""

    kind: str = _doc(
        "",
        f"kind of the data set: {', '.join(DATASETS)}; `robot-vision data formats KIND` lists its options",
    )
    path: str = _doc("", "folder or file of the data set; $VARIABLES and ~ are expanded")
    options: dict[str, Any] = _doc(dict, "options of this kind of data set")
    threads: int = _doc(4, "threads that read and decode images ahead of the training step")
    memory_gib: float = _doc(4.0, "memory for resized images and cached features, in GiB")


@dataclass(frozen=True)
class NetworkConfig:
    """Which network, from which weights, and which parts of it are trained."""

    backbone: str = _doc("resnet18", "torchvision's name of the backbone")
    weights: str | None = _doc(
        "torchvision",
        "initial weights of the backbone: torchvision (downloads them), a file, or null for random "
        "numbers",
    )
    init_from: str | None = _doc(
        None,
        "bundle or checkpoint to start from: its backbone and heads are kept and frozen, and the "
        "heads of this config are added; replaces backbone, weights and input",
    )
    input: InputSpec = _doc(InputSpec, "input size and resize rule")
    freeze: tuple[str, ...] = _doc(
        (), "stages or layers that are not trained; `all` for the whole backbone"
    )
    freeze_until: str | None = _doc(
        None, "last stage that is not trained; all stages before it are frozen too"
    )
    freeze_batch_norm: bool | None = _doc(
        None, "keep the running statistics of batch norm; null: only with pretrained weights"
    )
    reinitialise: tuple[str, ...] = _doc(
        (), "layers of the backbone that start from random numbers"
    )
    classifier: dict[str, Any] = _doc(
        dict, "settings of the classifier head, as in bundle.yaml (its labels come from the data)"
    )
    pose: dict[str, Any] = _doc(dict, "settings of the pose head, as in bundle.yaml")
    place: dict[str, Any] = _doc(dict, "settings of the place head, as in bundle.yaml")


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW or SGD with warm-up and a cosine."""

    name: str = _doc("adamw", "adamw or sgd (Nesterov momentum 0.9)")
    learning_rate: float = _doc(1e-3, "peak learning rate of the heads")
    backbone_learning_rate: float | None = _doc(
        None,
        "peak learning rate of the backbone; null: with pretrained weights a tenth of the heads' "
        "rate, otherwise the same",
    )
    weight_decay: float = _doc(
        0.02, "weight decay of matrices and kernels; biases and norms have none"
    )
    warmup: float = _doc(0.05, "share of all steps over which the learning rate rises from zero")
    final: float = _doc(0.01, "share of the peak learning rate at which the cosine ends")
    clip_norm: float = _doc(
        5.0, "largest norm of the gradients, which are scaled down to it; 0 is unlimited"
    )
    ema: float = _doc(
        0.995,
        "decay of the averaged weights, which are the ones exported; 0 exports the last weights",
    )


@dataclass(frozen=True)
class LoopConfig:
    """How long, on what, with how much care."""

    epochs: int | None = _doc(
        None,
        "passes over the training images; null: 12 to fine-tune a pretrained network, 40 to train "
        "heads alone, 60 to train from random weights",
    )
    batch_size: int = _doc(32, "images per step, over all processes together")
    head_epochs: int = _doc(
        20,
        "epochs in which the heads alone are trained, on cached features, before a pretrained "
        "backbone is fine-tuned, so that random heads do not spoil it (Kumar et al., ICLR 2022)",
    )
    patience: int = _doc(
        0, "epochs without a better validation score after which training stops; 0: never"
    )
    validate_every: int = _doc(1, "epochs between validations")
    precision: str = _doc(
        "float32", "numeric precision of training: float32, bfloat16 or float16 (mixed)"
    )
    seed: int = _doc(0, "seed of everything random")
    sampler: str = _doc(
        "shuffle",
        "how images are drawn: shuffle, or balanced, which draws every class equally often",
    )
    cache_features: bool = _doc(
        True,
        "run a frozen backbone once instead of in every epoch, if nothing is augmented",
    )
    checkpoint_seconds: float = _doc(
        120.0,
        "seconds between two writes of last.safetensors, which is also written at the end of each "
        "stage",
    )
    accelerator: str = _doc("auto", "device of training: auto, cpu or cuda")
    devices: int = _doc(1, "processes on this machine; torchrun overrides it")
    nodes: int = _doc(1, "number of machines")
    threads: int = _doc(0, "CPU threads of the network; 0 lets torch choose")


@dataclass(frozen=True)
class ClassifierConfig:
    """How the classifier is trained."""

    loss: str = _doc("cross_entropy", "name of the classifier's loss")
    settings: dict[str, Any] = _doc(
        lambda: {"label_smoothing": 0.05}, "settings of the classifier's loss"
    )
    class_weights: str = _doc(
        "none",
        "weight of each class in the loss: none, sqrt_inverse (of the frequency), inverse or "
        "effective",
    )
    weight: float = _doc(1.0, "weight of the classifier's loss in joint training")
    calibrate: bool = _doc(True, "fit the softmax temperature on the validation images")


@dataclass(frozen=True)
class PoseConfig:
    """How the pose head is trained."""

    loss: str = _doc(
        "heteroscedastic",
        "name of the pose head's loss; homoscedastic and beta learn no covariance",
    )
    settings: dict[str, Any] = _doc(dict, "settings of the pose head's loss")
    weight: float = _doc(1.0, "weight of the pose head's loss in joint training")
    clips: int = _doc(1, "frames per clip, for settings.relative (MapNet: 3); 1 uses single frames")
    clip_spacing: int = _doc(10, "distance between the frames of a clip, in frames")
    calibrate: bool = _doc(True, "scale the variances to match the errors on the validation frames")
    folds: int = _doc(
        4,
        "folds of training blocks to calibrate on, if there are no validation frames and the "
        "backbone is frozen",
    )


@dataclass(frozen=True)
class PlaceConfig:
    """How the place head is trained."""

    loss: str = _doc(
        "triplet",
        "name of the place head's loss: triplet, multi_similarity, or none (k-means alone)",
    )
    settings: dict[str, Any] = _doc(dict, "settings of the place head's loss")
    weight: float = _doc(1.0, "weight of the place head's loss in joint training")
    positive_m: float = _doc(
        10.0, "largest distance between two images of the same place, in metres"
    )
    positive_deg: float | None = _doc(
        None, "largest turn between two images of the same place, in degrees; null: any"
    )
    negative_m: float = _doc(
        25.0, "images further apart than this show different places, in metres"
    )
    negative_deg: float | None = _doc(
        None,
        "images turned by more than this show different places, in degrees; null: the turn does not"
        " count",
    )
    negatives: int = _doc(10, "hardest negatives per query, for triplet")
    queries: int = _doc(
        0, "queries between two minings, which make an epoch, for triplet; 0 for all"
    )
    images_per_place: int = _doc(4, "images of each place in a batch, for multi_similarity")
    kmeans_images: int = _doc(
        1000, "training images whose features are clustered to initialise the head"
    )
    kmeans_ratio: float = _doc(
        100.0,
        "NetVLAD's initial ratio between the assignment to the nearest cluster and that to the "
        "second nearest, on average; above 1; a smaller, softer value separates near viewpoints "
        "better",
    )


@dataclass(frozen=True)
class EpistemicConfig:
    """Several answers of classifier and pose head to one run of the backbone."""

    members: int = _doc(
        1, "heads of an ensemble; those after the first are trained on the trained backbone"
    )
    passes: int = _doc(0, "passes of Monte Carlo dropout (needs dropout in the heads); 0 for none")
    bootstrap: bool | None = _doc(
        None,
        "train each further member on a bootstrap sample of the images instead of all of them; "
        "null: only if the classifier alone is trained, whose linear layers would otherwise all be "
        "the same",
    )


@dataclass(frozen=True)
class TrainingConfig:
    """One run: `robot-vision train config.yaml`."""

    heads: tuple[str, ...] = _doc((), "heads to train: any of classifier, pose, place")
    name: str = _doc("model", "name of the bundle")
    output: str = _doc("", "folder of the run; empty: runs/NAME")
    data: DataConfig = _doc(DataConfig, "")
    network: NetworkConfig = _doc(NetworkConfig, "")
    optimiser: OptimiserConfig = _doc(OptimiserConfig, "")
    loop: LoopConfig = _doc(LoopConfig, "")
    augmentation: dict[str, Any] | None = _doc(
        None,
        "name of the augmentation (none, labels, poses), its settings, and mixup (alpha, for "
        "classifiers alone); null: none if the whole backbone is frozen, labels for classifiers "
        "alone, otherwise poses",
    )
    classifier: ClassifierConfig = _doc(ClassifierConfig, "")
    pose: PoseConfig = _doc(PoseConfig, "")
    place: PlaceConfig = _doc(PlaceConfig, "")
    epistemic: EpistemicConfig = _doc(EpistemicConfig, "")
    baselines: tuple[str, ...] = _doc(
        (), f"baselines to compare with: any of {', '.join(BASELINES)}"
    )
    variants: tuple[str, ...] = _doc((), f"further bundles to write: any of {', '.join(VARIANTS)}")

    def __post_init__(self) -> None:
        """Checks what has a range or a list of allowed values."""
        if not self.heads:
            raise ConfigError(f"heads is empty: name at least one of {', '.join(registry.names())}")
        if self.loop.sampler == "balanced" and "classifier" not in self.heads:
            raise ConfigError("loop.sampler balanced draws by class: it needs the classifier head")
        several = self.epistemic.members > 1 or self.epistemic.passes
        if several and not {"classifier", "pose"} & set(self.heads):
            raise ConfigError(
                "epistemic is of classifier and pose heads: leave it out where only places are trained"
            )
        loop, optimiser, place = self.loop, self.optimiser, self.place
        for what, values, allowed in (
            ("head", self.heads, registry.names()),
            ("baseline", self.baselines, BASELINES),
            ("variant", self.variants, VARIANTS),
            ("precision", (loop.precision,), PRECISIONS),
            ("sampler", (loop.sampler,), ("shuffle", "balanced")),
            ("class_weights", (self.classifier.class_weights,), CLASS_WEIGHTS),
            ("optimiser name", (optimiser.name,), ("adamw", "sgd")),
            ("accelerator", (loop.accelerator,), ("auto", "cpu", "cuda")),
        ):
            for value in values:
                if value not in allowed:
                    raise ConfigError(unknown(what, value, allowed))
        for what, number, low, high in (
            ("loop.epochs", loop.epochs or 0, 0, 1e6),
            ("loop.head_epochs", loop.head_epochs, 0, 1e6),
            ("loop.batch_size", loop.batch_size, 1, 1e6),
            ("loop.patience", loop.patience, 0, 1e6),
            ("loop.validate_every", loop.validate_every, 1, 1e6),
            ("loop.checkpoint_seconds", loop.checkpoint_seconds, 0, 1e9),
            ("loop.seed", loop.seed, 0, 2**32 - 1),
            ("loop.devices", loop.devices, 1, 1e4),
            ("loop.nodes", loop.nodes, 1, 1e5),
            ("loop.threads", loop.threads, 0, 1024),
            ("data.threads", self.data.threads, 1, 256),
            ("data.memory_gib", self.data.memory_gib, 0, 1e6),
            ("optimiser.learning_rate", optimiser.learning_rate, 0, 100),
            ("optimiser.backbone_learning_rate", optimiser.backbone_learning_rate or 0, 0, 100),
            ("optimiser.weight_decay", optimiser.weight_decay, 0, 100),
            ("optimiser.warmup", optimiser.warmup, 0, 1),
            ("optimiser.final", optimiser.final, 0, 1),
            ("optimiser.clip_norm", optimiser.clip_norm, 0, 1e9),
            ("optimiser.ema", optimiser.ema, 0, 0.999999),
            ("place.negatives", place.negatives, 1, 1000),
            ("place.queries", place.queries, 0, 1e9),
            ("place.images_per_place", place.images_per_place, 2, 1000),
            ("place.kmeans_ratio", place.kmeans_ratio, 1.01, 1e9),
            ("epistemic.members", self.epistemic.members, 1, MAX_MEMBERS),
            ("epistemic.passes", self.epistemic.passes, 0, MAX_PASSES),
            ("pose.folds", self.pose.folds, 2, 100),
            ("pose.clips", self.pose.clips, 1, 1000),
            ("pose.clip_spacing", self.pose.clip_spacing, 1, 100000),
            ("place.kmeans_images", place.kmeans_images, 1, 1e9),
        ):
            if not low <= number <= high:
                raise ConfigError(f"{what} is {number:g}: it must be from {low:g} to {high:g}")


def resolved(config: TrainingConfig) -> TrainingConfig:
    """Fills in what the defaults leave to the circumstances."""
    network, optimiser = config.network, config.optimiser
    pretrained = bool(network.weights or network.init_from)
    if network.freeze_batch_norm is None:
        # Statistics of ImageNet are better than those of small batches of much the same pictures.
        network = replace(network, freeze_batch_norm=pretrained)
    if optimiser.backbone_learning_rate is None:
        share = 0.1 if pretrained else 1.0
        optimiser = replace(optimiser, backbone_learning_rate=share * optimiser.learning_rate)
    settings = config.loop
    if settings.epochs is None:
        frozen = "all" in network.freeze or network.init_from
        epochs = 40 if frozen else 12 if pretrained else 60
        settings = replace(settings, epochs=epochs)
    output = config.output or f"runs/{config.name}"
    return replace(config, network=network, optimiser=optimiser, loop=settings, output=output)
