"""A training run from a configuration to a bundle: the steps, in order, each in a module of its own."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from robot_vision.datasets.registry import open_dataset
from robot_vision.datasets.sample import Splits
from robot_vision.errors import ConfigError
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training import loop
from robot_vision.training.baselines import run_baselines
from robot_vision.training.calibrate import calibrate
from robot_vision.training.checkpoint import write_whole
from robot_vision.training.choosing import make_chooser
from robot_vision.training.config import TrainingConfig
from robot_vision.training.config_file import expand
from robot_vision.training.data import SampleSet
from robot_vision.training.ensemble import answer_often
from robot_vision.training.evaluate import Views, evaluate
from robot_vision.training.features import FeatureCache, feature_bytes
from robot_vision.training.folder import check_folder, claim_folder
from robot_vision.training.measures import Metrics
from robot_vision.training.model import Trainee, build_network, is_frozen
from robot_vision.training.objectives import make_augment, make_losses
from robot_vision.training.place import fit_whitening, initialise_place
from robot_vision.training.record import Recorder, draw_curves
from robot_vision.training.report import describe_data, machine, ship

REPORT, CURVES = "report.json", "curves.png"
_GIB = 1 << 30
# Whose features the baselines look at.
BEFORE = "the backbone as it was before it was fine-tuned"
FROZEN = "the backbone, which was not trained"
AFTER = "the trained backbone, which started from nothing"


@dataclass(frozen=True)
class Result:
    """What a run leaves.

    Attributes:
        folder: of the run.
        bundle: the exported bundle's folder.
        report: everything measured; also in `report.json`.
    """

    folder: Path
    bundle: Path
    report: dict[str, Any]


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


def make_fabric(config: TrainingConfig) -> Fabric:
    """Builds Fabric for this machine; under `torchrun` its numbers of processes and machines count.

    Raises:
        ConfigError: a device that is not there, or float16 on a CPU.
    """
    settings = config.loop
    accelerator = settings.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ConfigError("loop.accelerator is cuda, and torch sees no GPU here: use cpu or auto")
    if settings.precision == "float16" and accelerator == "cpu":
        raise ConfigError("loop.precision float16 needs a GPU: use bfloat16 or float32 on a CPU")
    devices, nodes = settings.devices, settings.nodes
    if "LOCAL_WORLD_SIZE" in os.environ and "WORLD_SIZE" in os.environ:  # torchrun
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    precision: Any = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp_find_unused_parameters_true" if devices * nodes > 1 else "auto",
        precision=precision[settings.precision],
    )


def open_splits(config: TrainingConfig) -> Splits:
    """Opens the run's data.

    Raises:
        ConfigError: no data set, or one without what the heads need.
        SourceError: it cannot be read.
    """
    if not config.data.kind or not config.data.path:
        raise ConfigError("data.kind and data.path are needed: which data set, and where it is")
    splits = open_dataset(config.data.kind, expand(config.data.path), **config.data.options)
    if not splits.train:
        raise ConfigError(f"{config.data.path} has no training images: choose another split")
    if "classifier" in config.heads and len(splits.labels) < 2:
        found = ", ".join(splits.labels) or "none"
        raise ConfigError(
            f"A classifier needs at least two classes; {config.data.path} has {len(splits.labels)} "
            f"({found}): add images of another class, or leave the head out"
        )
    posed = sum(s.T_map_camera is not None for s in splits.train)
    for head in ("pose", "place"):
        if head in config.heads and posed < 2:
            raise ConfigError(
                f"The {head} head needs poses; {posed} of {len(splits.train)} training images of "
                f"{config.data.path} have one"
            )
    if "pose" in config.heads and not splits.has_orientation:
        raise ConfigError(
            f"The pose head needs orientations, which {config.data.path} does not have"
        )
    return splits


def train(
    config: TrainingConfig, resume: bool = False, quiet: bool = False, command: str = ""
) -> Result | None:
    """Runs everything.

    Args:
        config: as read.
        resume: continue in `config.output` where an interrupted run stopped.
        quiet: print nothing.
        command: for the model card; the process's own command line when empty.

    Returns:
        The result in the first process, None in the others.

    Raises:
        RobotVisionError: whatever the user can mend.
    """
    config = resolved(config)
    folder = Path(expand(config.output)).absolute()
    started = time.monotonic()
    if config.loop.threads:
        torch.set_num_threads(config.loop.threads)
    fabric = make_fabric(config)
    fabric.launch()
    first = fabric.is_global_zero
    recorder = Recorder(folder if first else None, quiet or not first)
    if first:
        check_folder(folder, config, resume)
    fabric.barrier()

    splits = open_splits(config)
    network = build_network(config, splits.labels, splits.map_frame)
    sets = {
        name: SampleSet.of(splits.split(name), splits.labels, network.spec.input)
        for name in ("train", "validation", "test")
    }
    _load(sets, config, recorder)
    if not len(sets["train"]):
        raise ConfigError(f"No training image of {config.data.path} can be read")
    if "pose" in config.heads:
        targets = sets["train"].targets
        pose: Any = network.heads["pose"]
        pose.set_position_statistics(targets["T_map_camera"][targets["has_pose"]][:, :3, 3])

    if first:
        # Not before: a run that cannot begin, for want of weights or images, leaves no folder behind.
        claim_folder(folder, config)
    baselines = None
    if first and is_pretrained(config) and not is_frozen(network):
        baselines = _baselines(network, sets, config, fabric, recorder)
    fabric.barrier()
    for number, plan in enumerate(stages(config, network)):
        _fit_stage(plan, number == 0, network, sets, config, folder, fabric, recorder, resume)
    fabric.to_device(network)
    if config.epistemic.members > 1 or config.epistemic.passes:
        views = _cached(network, sets, config, fabric, recorder, ("train", "validation"))
        network = answer_often(network, views, sets, config, folder, fabric, recorder, resume)
        fabric.to_device(network)
    fabric.barrier()
    if not first:
        return None

    recorder.say("calibrating and measuring")
    views = _cached(network, sets, config, fabric, recorder)
    fit_whitening(network, views["train"], config, fabric.device)
    calibration = calibrate(network, views, config, folder, fabric)
    report = _measure(network, views, config, fabric)
    features = BEFORE
    if baselines is None:
        features = FROZEN if is_frozen(network) else AFTER
        baselines = _baselines(network, sets, config, fabric, recorder, views)
    report["baselines"], report["baseline_features"] = baselines, features
    report["calibration"] = calibration
    report["run"] = {
        "command": command or shlex.join(["robot-vision", *sys.argv[1:]]),
        "minutes": round((time.monotonic() - started) / 60, 2),
        "machine": machine(fabric.device),
        "seed": config.loop.seed,
    }
    report["data"] = describe_data(splits, sets, config)
    report["history"] = recorder.history
    if draw_curves(recorder.history, folder / CURVES):
        recorder.say(f"curves: {folder / CURVES}")
    bundle = ship(network, config, folder, report, sets, recorder)
    write_whole(folder / REPORT, json.dumps(report, indent=2).encode())
    recorder.close()
    return Result(folder, bundle, report)


@dataclass(frozen=True)
class _Plan:
    name: str
    epochs: int
    whole: bool  # the backbone too


def stages(config: TrainingConfig, network: MultiHeadNetwork) -> list[_Plan]:
    """Heads alone first, on a frozen or pretrained backbone; then all that is not frozen."""
    frozen = is_frozen(network)
    pretrained = is_pretrained(config)
    assert config.loop.epochs is not None
    plans = []
    if frozen:
        plans.append(_Plan("heads", config.loop.epochs, whole=False))
    else:
        if pretrained and config.loop.head_epochs:
            plans.append(_Plan("heads", config.loop.head_epochs, whole=False))
        plans.append(_Plan("all", config.loop.epochs, whole=True))
    return [plan for plan in plans if plan.epochs]


def _fit_stage(
    plan: _Plan,
    is_first: bool,
    network: MultiHeadNetwork,
    sets: dict[str, SampleSet],
    config: TrainingConfig,
    folder: Path,
    fabric: Fabric,
    recorder: Recorder,
    resume: bool,
) -> None:
    place = folder / plan.name
    done = loop.finished(place) if resume else None
    if done is not None:
        loop.load_best(network, place)
        recorder.say(f"{plan.name}: was finished already")
        recorder.stage_done(done.history)
        return
    frozen = network.backbone.frozen
    if not plan.whole:
        network.backbone.freeze([name for name, _ in network.backbone.body.named_children()])
    fabric.to_device(network)
    augment = make_augment(config, network.spec)
    # Only a last stage is augmented: the heads of a network that is then fine-tuned are a start.
    if not plan.whole and not is_frozen_by_config(config):
        augment = None
    # The reprojection loss looks at the images' size.
    cacheable = config.loop.cache_features and config.pose.loss != "reprojection"
    cached = not plan.whole and augment is None and cacheable
    train_views, validation_views = Views(sets["train"]), Views(sets["validation"])
    if cached:
        views = _cached(network, sets, config, fabric, recorder, ("train", "validation"))
        train_views, validation_views = views["train"], views["validation"]
    fresh = not (resume and (place / loop.LAST).is_file())
    if "place" in config.heads and fresh and is_first:
        initialise_place(network, train_views, config, fabric.device)
    losses = make_losses(config, network.spec, sets["train"].targets)
    if losses:
        weights = {head: getattr(config, head).weight for head in losses}
        trainee = Trainee(network, losses, weights, bool(config.network.freeze_batch_norm))
        chooser = make_chooser(
            config, tuple(losses), network, train_views, fabric.global_rank, fabric.world_size
        )
        stage = loop.Stage(plan.name, plan.epochs, augment, chooser)
        validation = validation_views if len(validation_views) else None
        state = loop.fit(
            trainee, train_views, validation, config, stage, place, fabric, recorder, resume
        )
        recorder.stage_done(state.history)
    network.backbone.freeze(frozen)


def is_frozen_by_config(config: TrainingConfig) -> bool:
    """Whether the configuration freezes the whole backbone."""
    return "all" in config.network.freeze or config.network.init_from is not None


def is_pretrained(config: TrainingConfig) -> bool:
    """Whether the backbone starts from weights."""
    return bool(config.network.weights or config.network.init_from)


def _load(sets: dict[str, SampleSet], config: TrainingConfig, recorder: Recorder) -> None:
    need = sum(s.bytes for s in sets.values()) / _GIB
    keep = need <= config.data.memory_gib
    if not keep:
        recorder.say(
            f"images need {need:.1f} GiB at the network's size, more than data.memory_gib = "
            f"{config.data.memory_gib:g}: they are read anew in every epoch"
        )
    total = sum(len(s) for s in sets.values())
    with recorder.progress("reading images", 1, total) as bar:
        for samples in sets.values():
            samples.load(config.data.threads, keep, bar.advance)
    for name, samples in sets.items():
        if samples.unreadable:
            recorder.say(
                f"{name}: {len(samples.unreadable)} images cannot be read and are left out:"
            )
            for reason in list(samples.unreadable.values())[:5]:
                recorder.say(f"  {reason}")


def _cached(
    network: MultiHeadNetwork,
    sets: dict[str, SampleSet],
    config: TrainingConfig,
    fabric: Fabric,
    recorder: Recorder,
    names: tuple[str, ...] = ("train", "validation", "test"),
) -> dict[str, Views]:
    """Views with cached features where they fit into memory, else without."""
    count = sum(len(sets[name]) for name in names)
    if feature_bytes(network, config.heads, count) > config.data.memory_gib * _GIB:
        recorder.say("features do not fit into data.memory_gib: the backbone runs in every epoch")
        return {name: Views(sets[name]) for name in names}
    views = {}
    with recorder.progress("features", 1, count) as bar:
        for name in names:
            cache = FeatureCache.compute(
                network, sets[name], config.heads, fabric.device, config.data.threads, bar.advance
            )
            views[name] = Views(sets[name], cache if len(sets[name]) else None)
    return views


def _measure(
    network: MultiHeadNetwork, views: dict[str, Views], config: TrainingConfig, fabric: Fabric
) -> dict[str, Any]:
    report: dict[str, Any] = {"metrics": {}}
    for name in ("validation", "test"):
        if len(views[name]):
            report["metrics"][name] = evaluate(
                network, views[name], views["train"], config.heads, config.place, fabric.device
            )
    return report


def _baselines(
    network: MultiHeadNetwork,
    sets: dict[str, SampleSet],
    config: TrainingConfig,
    fabric: Fabric,
    recorder: Recorder,
    views: dict[str, Views] | None = None,
) -> dict[str, dict[str, Metrics]]:
    """Measures baselines on the test images, on features of the backbone as it is now."""
    held_out = "test" if len(sets["test"]) else "validation"
    if not config.baselines or not len(sets[held_out]):
        return {}
    if views is None:
        fabric.to_device(network)
        views = _cached(network, sets, config, fabric, recorder, ("train", held_out))
    return run_baselines(network, views["train"], views[held_out], config)


def describe_plan(config: TrainingConfig) -> list[str]:
    """Returns what a run would do, in lines, after opening its data and building its network."""
    config = resolved(config)
    splits = open_splits(config)
    network = build_network(config, splits.labels, splits.map_frame)
    lines = [
        f"# images: train {len(splits.train)}, validation {len(splits.validation)}, test {len(splits.test)}",
        *(f"# {note}" for note in splits.notes),
    ]
    if splits.labels:
        lines.append(f"# labels: {', '.join(splits.labels)}")
    total = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    lines.append(f"# {network.spec.backbone}: {trained:,} of {total:,} parameters are trained")
    for plan in stages(config, network):
        what = "everything that is not frozen" if plan.whole else "the heads"
        lines.append(f"# stage {plan.name}: {plan.epochs} epochs of {what}")
    lines.append(f"# output: {Path(expand(config.output)).absolute()}")
    return lines
