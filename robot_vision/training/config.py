"""The settings of a training run: frozen dataclasses whose defaults are the default recipe.

The defaults are chosen for data that nobody tuned them on: tens to tens of thousands of images, a
pretrained backbone, one machine. Where a better choice depends on the data or the weights, the default is
null and `resolved` (in `setup.py`) fills it in and prints it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from robot_vision.bundle.bundle import check_bundle_name
from robot_vision.contract import registry
from robot_vision.contract.epistemic import MAX_MEMBERS, MAX_PASSES
from robot_vision.contract.training import NONE, Trainer
from robot_vision.datasets.registry import DATASETS
from robot_vision.errors import ConfigError, unknown
from robot_vision.images.input import InputSpec
from robot_vision.optimising.quantise import VARIANTS
from robot_vision.settings.declared import check_declared, option


@dataclass(frozen=True)
class DataConfig:
    """Where the samples come from."""

    kind: str = option(
        "",
        f"kind of the data set: {', '.join(DATASETS)}; `robot-vision data formats KIND` lists its options",
    )
    path: str = option("", "folder or file of the data set; $VARIABLES and ~ are expanded")
    options: dict[str, Any] = option(dict, "options of this kind of data set")
    threads: int = option(
        4, "threads that read and decode images ahead of the training step", low=1, high=256
    )
    memory_gib: float = option(
        4.0, "memory for resized images and cached features, in GiB", low=0, high=1e6
    )


@dataclass(frozen=True)
class NetworkConfig:
    """Which network, from which weights, and which parts of it are trained."""

    backbone: str = option("resnet18", "name of the backbone: torchvision's, or timm/ and timm's")
    weights: str | None = option(
        "torchvision",
        "initial weights of the backbone: torchvision or timm (which download theirs), a file, or null for "
        "random numbers",
    )
    init_from: str | None = option(
        None,
        "bundle or checkpoint to start from: its backbone and heads are kept and frozen, and the "
        "heads of this config are added; replaces backbone, weights and input",
    )
    input: InputSpec = option(InputSpec, "input size and resize rule")
    freeze: tuple[str, ...] = option(
        (), "stages or layers that are not trained; `all` for the whole backbone"
    )
    freeze_until: str | None = option(
        None, "last stage that is not trained; all stages before it are frozen too"
    )
    freeze_batch_norm: bool | None = option(
        None, "keep the running statistics of batch norm; null: only with pretrained weights"
    )
    reinitialise: tuple[str, ...] = option(
        (), "layers of the backbone that start from random numbers"
    )
    heads: Mapping[str, dict[str, Any]] = option(
        dict, "settings of each head as in bundle.yaml, under its name; labels come from the data"
    )


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW or SGD with warm-up and a cosine."""

    name: str = option("adamw", "adamw or sgd (Nesterov momentum 0.9)", choices=("adamw", "sgd"))
    learning_rate: float = option(1e-3, "peak learning rate of the heads", low=0, high=100)
    backbone_learning_rate: float | None = option(
        None,
        "peak learning rate of the backbone; null: with pretrained weights a tenth of the heads' "
        "rate, otherwise the same",
        low=0,
        high=100,
    )
    weight_decay: float = option(
        0.02, "weight decay of matrices and kernels; biases and norms have none", low=0, high=100
    )
    warmup: float = option(
        0.05, "share of all steps over which the learning rate rises from zero", low=0, high=1
    )
    final: float = option(
        0.01, "share of the peak learning rate at which the cosine ends", low=0, high=1
    )
    clip_norm: float = option(
        5.0,
        "largest norm of the gradients, which are scaled down to it; 0 is unlimited",
        low=0,
        high=1e9,
    )
    ema: float = option(
        0.995,
        "decay of the averaged weights, which are the ones exported; 0 exports the last weights",
        low=0,
        high=0.999999,
    )


@dataclass(frozen=True)
class LoopConfig:
    """How long, on what, with how much care."""

    epochs: int | None = option(
        None,
        "passes over the training images; null: 12 to fine-tune a pretrained network, 40 to train "
        "heads alone, 60 to train from random weights",
        low=0,
        high=1e6,
    )
    batch_size: int = option(32, "images per step, over all processes together", low=1, high=1e6)
    head_epochs: int = option(
        20,
        "epochs in which the heads alone are trained, on cached features, before a pretrained "
        "backbone is fine-tuned, so that random heads do not spoil it (Kumar et al., ICLR 2022)",
        low=0,
        high=1e6,
    )
    patience: int = option(
        0,
        "epochs without a better validation score after which training stops; 0: never",
        low=0,
        high=1e6,
    )
    validate_every: int = option(1, "epochs between validations", low=1, high=1e6)
    precision: str = option(
        "float32",
        "numeric precision of training: float32, bfloat16 or float16 (mixed)",
        choices=("float32", "bfloat16", "float16"),
    )
    seed: int = option(0, "seed of everything random", low=0, high=2**32 - 1)
    sampler: str = option(
        "shuffle",
        "how images are drawn: shuffle, or balanced, which draws every class equally often",
        choices=("shuffle", "balanced"),
    )
    cache_features: bool = option(
        True,
        "run a frozen backbone once instead of in every epoch, if nothing is augmented",
    )
    augmented_copies: int = option(
        0,
        "augmented copies of each training image over which a frozen backbone runs once; an epoch takes "
        "one of each. 0: images are augmented in every epoch, and the backbone runs in each",
        low=0,
        high=1000,
    )
    checkpoint_seconds: float = option(
        120.0,
        "seconds between two writes of last.safetensors, which is also written at the end of each "
        "stage",
        low=0,
        high=1e9,
    )
    accelerator: str = option(
        "auto", "device of training: auto, cpu or cuda", choices=("auto", "cpu", "cuda")
    )
    devices: int = option(1, "processes on this machine; torchrun overrides it", low=1, high=1e4)
    nodes: int = option(1, "number of machines", low=1, high=1e5)
    threads: int = option(0, "CPU threads of the network; 0 lets torch choose", low=0, high=1024)


@dataclass(frozen=True)
class EpistemicConfig:
    """Several answers of classifier and pose head to one run of the backbone."""

    members: int = option(
        1,
        "heads of an ensemble; those after the first are trained on the trained backbone",
        low=1,
        high=MAX_MEMBERS,
    )
    passes: int = option(
        0,
        "passes of Monte Carlo dropout (needs dropout in the heads); 0 for none",
        low=0,
        high=MAX_PASSES,
    )
    bootstrap: bool | None = option(
        None,
        "train each further member on a bootstrap sample of the images instead of all of them; "
        "null: only if the classifier alone is trained, whose linear layers would otherwise all be "
        "the same",
    )


@dataclass(frozen=True)
class TrainingConfig:
    """One run: `robot-vision train config.yaml`.

    Attributes:
        kinds: kind of each head whose name does not say it; in YAML part of `heads`.
        settings: of each head that is trained, under its name; those that are not given are the defaults.
    """

    heads: tuple[str, ...] = option(
        (),
        "heads to train, by their kinds; or a mapping of names to kinds, such as {lights: {kind: "
        "classifier}}, where one backbone has several of a kind",
    )
    name: str = option("model", "name of the bundle")
    output: str = option("", "folder of the run; empty: runs/NAME")
    data: DataConfig = option(DataConfig, "")
    network: NetworkConfig = option(NetworkConfig, "")
    optimiser: OptimiserConfig = option(OptimiserConfig, "")
    loop: LoopConfig = option(LoopConfig, "")
    augmentation: dict[str, Any] | None = option(
        None,
        "name of the augmentation (none, labels, poses), its settings, and mixup (alpha, for "
        "classifiers alone); null: none if the whole backbone is frozen, labels for classifiers "
        "alone, otherwise poses",
    )
    settings: Mapping[str, Any] = option(dict, "")
    epistemic: EpistemicConfig = option(EpistemicConfig, "")
    baselines: tuple[str, ...] = option((), "baselines to compare with")
    variants: tuple[str, ...] = option(
        (), f"further bundles to write: any of {', '.join(VARIANTS)}", choices=VARIANTS
    )
    wandb: str = option(
        "",
        "project of Weights & Biases in whose offline runs each epoch is written too, below the run's folder "
        "(pip install 'robot_vision[wandb]'); empty: none",
    )
    kinds: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks what has a range or a list of allowed values."""
        for variant in ("", *(f"-{v}" for v in self.variants)):
            check_bundle_name(f"{self.name}{variant}")
        if not self.heads:
            raise ConfigError(f"heads is empty: name at least one of {', '.join(registry.names())}")
        given = {name: t.settings for name, t in self.trainers.items()}
        network = {name: dict(self.network.heads.get(name) or {}) for name in self.trainers}
        object.__setattr__(self, "settings", given)
        object.__setattr__(self, "network", replace(self.network, heads=network))
        check_declared("", self)
        for name, settings in given.items():
            check_declared(name, settings)
        trainers = self.trainers.values()
        if self.loop.sampler == "balanced" and not any(t.balances for t in trainers):
            raise ConfigError(
                f"loop.sampler balanced draws by class, and no class is learned by {', '.join(self.heads)}"
            )
        choosing = [name for name, t in self.trainers.items() if t.chooses()]
        choosing = [name for name in choosing if given[name].loss != NONE]
        if len(choosing) > 1:
            raise ConfigError(
                f"{' and '.join(choosing)} would both choose the batches: train one of them later, from the "
                "bundle of the others (network.init_from)"
            )
        if choosing and self.loop.sampler == "balanced":
            raise ConfigError(
                f"loop.sampler balanced would have no effect, since the {choosing[0]} head chooses the "
                "batches: leave it out"
            )
        several = self.epistemic.members > 1 or self.epistemic.passes
        if several and not any(t.head.sampled for t in trainers):
            can = [kind for kind in registry.BUILT_IN if registry.head(kind).sampled]
            raise ConfigError(
                f"epistemic is of {' and '.join(can)} heads, and this run trains {', '.join(self.heads)}: "
                "leave it out"
            )
        known = [word for t in trainers for word in t.baselines]
        for word in self.baselines:
            if word not in known:
                # Those of a head that this run does not train make no sense here, and do no harm.
                known += [w for t in every_kind() for w in t.baselines]
                if word not in known:
                    raise ConfigError(unknown("baseline", word, dict.fromkeys(known)))

    @functools.cached_property
    def trainers(self) -> dict[str, Trainer[Any]]:
        """What trains each head, by its name."""
        trainers = {name: trainer_of(name, self.kinds.get(name, name)) for name in self.heads}
        for name, trainer in trainers.items():
            trainer.settings = self.settings.get(name, trainer.settings)
        return trainers


def trainer_of(name: str, kind: str) -> Trainer[Any]:
    """Returns what trains a head of this name.

    Raises:
        ConfigError: an unknown kind, or one whose package cannot be imported.
    """
    if kind not in registry.names():
        raise ConfigError(unknown("head", kind, registry.names()))
    head = registry.head(kind).named(name)
    try:
        trainer: Trainer[Any] = head.trainer()
    except ConfigError:
        raise
    except Exception as error:  # a package of others may fail in any way
        raise ConfigError(
            f"What trains a {kind} head cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return trainer


def every_kind() -> Iterator[Trainer[Any]]:
    """Yields a trainer of each kind; a package of others that cannot be imported is left out."""
    for kind in registry.names():
        try:
            yield trainer_of(kind, kind)
        except ConfigError:
            if kind in registry.BUILT_IN:
                raise


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
