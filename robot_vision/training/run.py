"""A training run from a configuration to a bundle: the steps, in order, each in a module of its own."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from robot_vision.contract.training import NONE, Metrics, Solved
from robot_vision.datasets.inspection import content_notes
from robot_vision.errors import ConfigError
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.text.counts import counted
from robot_vision.training.config import TrainingConfig, resolved
from robot_vision.training.config_file import plain
from robot_vision.training.fit import loop, solving
from robot_vision.training.fit.checkpoint import write_whole
from robot_vision.training.fit.ensemble import answer_often, needs_images
from robot_vision.training.fit.model import (
    build_network,
    is_frozen,
    make_chooser,
    make_trainee,
    prepare_heads,
)
from robot_vision.training.fit.record import Recorder, draw_curves
from robot_vision.training.folder import check_folder, claim_folder, folder_of, locked
from robot_vision.training.samples.augmentation import augmentation_settings, make_augment
from robot_vision.training.samples.data import SampleSet
from robot_vision.training.samples.features import FeatureCache, feature_bytes
from robot_vision.training.setup import (
    Plan,
    check_copies,
    facts_of,
    is_frozen_by_config,
    is_pretrained,
    make_fabric,
    open_splits,
    sample_set,
    stages,
)
from robot_vision.training.ship.calibrate import calibrate
from robot_vision.training.ship.evaluate import Views, evaluate, features_of, run_baselines
from robot_vision.training.ship.report import describe_data, machine, ship

REPORT, CURVES = "report.json", "curves.png"
_GIB = 1 << 30
# Whose features the baselines look at.
BEFORE = "the backbone as it was before it was fine-tuned"
FROZEN = "the backbone, which was not trained"
AFTER = "the trained backbone, which started from nothing"


@dataclass(frozen=True)
class TrainingResult:
    """What a run leaves.

    Attributes:
        folder: of the run.
        bundle: the exported bundle's folder.
        report: everything measured; also in `report.json`.
    """

    folder: Path
    bundle: Path
    report: dict[str, Any]


def train(
    config: TrainingConfig, resume: bool = False, quiet: bool = False, command: str = ""
) -> TrainingResult | None:
    """Runs everything.

    Args:
        config: as read.
        resume: continue in `config.output` where an interrupted run stopped.
        quiet: print nothing.
        command: for the model card; the process's own command line when empty.

    Returns:
        The result in the first process, None in the others.

    Raises:
        RobotVisionError: anything that the user can correct.
    """
    config = resolved(config)
    folder = folder_of(config)
    if config.loop.threads:
        torch.set_num_threads(config.loop.threads)
    fabric = make_fabric(config)
    fabric.launch()
    first = fabric.is_global_zero
    with locked(folder) if first else contextlib.nullcontext():
        if first:
            check_folder(folder, config, resume)
        shown = {name: trainer.shown() for name, trainer in config.trainers.items()}
        recorder = Recorder(
            folder if first else None, quiet or not first, shown, config.wandb, plain(config)
        )
        return _run(config, folder, fabric, recorder, resume, command)


def _run(
    config: TrainingConfig,
    folder: Path,
    fabric: Fabric,
    recorder: Recorder,
    resume: bool,
    command: str,
) -> TrainingResult | None:
    started = time.monotonic()
    first = fabric.is_global_zero
    fabric.barrier()
    splits = open_splits(config)
    for note in splits.notes:  # such as frames that were left out
        recorder.say(f"data: {note}")
    facts = facts_of(config, splits)
    network = build_network(config, facts)
    check_copies(config, network)
    for name, trainer in config.trainers.items():
        for note in trainer.notes(network.spec.heads[name], facts):
            recorder.say(f"{name}: {note}")
    weight_notes = network.backbone.weight_notes
    for note in weight_notes:
        recorder.say(f"weights: {note}")
    sets = {
        name: sample_set(config, splits, name, network.spec)
        for name in ("train", "validation", "test")
    }
    _load(sets, config, recorder)
    shared = content_notes(splits) if first else []
    for note in shared:
        recorder.say(f"data: {note}")
    features = _Features(network, sets, config, fabric, recorder)
    if not len(sets["train"]):
        raise ConfigError(f"No training image of {config.data.path} can be read")
    if first:
        # Not before: a run that cannot begin, for want of weights or images, leaves no folder behind.
        claim_folder(folder, config)
    baselines = None
    if first and is_pretrained(config) and not is_frozen(network):
        baselines = _baselines(network, sets, config, fabric, features)
    fabric.barrier()
    solved: dict[str, Solved] = {}
    plans = stages(config, network)
    for number, plan in enumerate(plans):
        solved = _fit_stage(
            plan,
            number == 0,
            network,
            sets,
            config,
            folder,
            fabric,
            recorder,
            resume,
            solved,
            features,
        )
    fabric.to_device(network)
    if config.epistemic.members > 1 or config.epistemic.passes:
        views = features.views("train", "validation")
        network = answer_often(network, views, sets, config, folder, fabric, recorder, resume)
        fabric.to_device(network)
    fabric.barrier()
    if not first:
        return None

    recorder.say("calibrating and measuring")
    views = features.views("train", "validation", "test")
    with torch.no_grad():
        for name, trainer in config.trainers.items():
            seen = features_of(network, views["train"], trainer)
            trainer.finish(network.heads[name], network.spec.heads[name], seen)
    calibration = calibrate(network, views, config, folder, fabric, solved)
    for head, result in calibration.items():
        if isinstance(result, dict) and "left" in result:
            recorder.say(f"{head}: left as it is, since {result['left']}")
    report = _measure(network, views, config, fabric)
    whose = BEFORE
    if baselines is None:
        whose = FROZEN if is_frozen(network) else AFTER
        baselines = _baselines(network, sets, config, fabric, features, views)
    report["baselines"], report["baseline_features"] = baselines, whose
    report["calibration"] = calibration
    only_solved = solved and config.epistemic.members == 1
    tuned = any(plan.whole for plan in plans)
    report["chosen"] = (
        ("whether fine-tuning is kept" if tuned else "") if only_solved else "the epoch"
    )
    report["run"] = {
        "command": command or shlex.join(["robot-vision", *sys.argv[1:]]),
        "minutes": round((time.monotonic() - started) / 60, 2),
        "machine": machine(fabric.device),
        "seed": config.loop.seed,
    }
    if weight_notes:
        report["run"]["weights"] = weight_notes
    report["data"] = describe_data(splits, sets, config, shared)
    report["history"] = recorder.history
    if draw_curves(recorder.history, folder / CURVES, recorder.shown):
        recorder.say(f"curves: {folder / CURVES}")
    bundle = ship(network, config, folder, report, sets, recorder)
    write_whole(folder / REPORT, json.dumps(report, indent=2).encode())
    recorder.close()
    return TrainingResult(folder, bundle, report)


def _fit_stage(
    plan: Plan,
    is_first: bool,
    network: MultiHeadNetwork,
    sets: dict[str, SampleSet],
    config: TrainingConfig,
    folder: Path,
    fabric: Fabric,
    recorder: Recorder,
    resume: bool,
    solved: dict[str, Solved],
    features: _Features,
) -> dict[str, Solved]:
    """Trains a stage; returns the heads that are as they were solved, on the backbone as it was then."""
    place = folder / plan.name
    done = loop.finished(place, Views(sets["train"])) if resume else None
    if done is not None:
        loop.load_best(network, place)
        recorder.say(f"{plan.name}: was finished already")
        recorder.stage_done(done.history)
        return solving.load_solved(place)
    frozen = network.backbone.frozen
    if not plan.whole:
        network.backbone.freeze([name for name, _ in network.backbone.body.named_children()])
    fabric.to_device(network)
    augment = make_augment(config, network.spec, sets["train"].pixel_aspect)
    # Only a last stage is augmented: the heads of a network that is then fine-tuned are a start.
    if not plan.whole and not is_frozen_by_config(config):
        augment = None
    cacheable = config.loop.cache_features and not needs_images(config)
    copies = augment is not None and config.loop.augmented_copies
    cached = not plan.whole and cacheable and (augment is None or copies)
    train_views, validation_views = Views(sets["train"]), Views(sets["validation"])
    if cached:
        views = features.views("train", "validation")
        train_views, validation_views = views["train"], views["validation"]
    fresh = not (resume and (place / loop.LAST).is_file())
    if fresh and is_first:
        prepare_heads(config, network, train_views)
    validation = validation_views if len(validation_views) else None
    alone = fabric.world_size == 1 and config.loop.sampler == "shuffle"
    if alone and train_views.cache is not None and not copies and fresh:
        recorder.say(
            f"{plan.name}: solving the heads on {counted(len(train_views), 'image')}, if all of them allow it"
        )
        found = solving.solve(config, network, train_views)
        if found:
            _say_solved(
                plan, found, network, validation, train_views, config, place, fabric, recorder
            )
            network.backbone.freeze(frozen)
            return found
    rival = None
    if plan.whole and solved and validation is not None:
        rival = solving.Rival(network, solved, validation, train_views, config)
        if rival.hopeless():
            left = (
                f"with so few errors on {counted(len(validation), 'validation image')} fine-tuning could not "
                "be shown to be better"
            )
            solving.save_solved(network, solved, train_views, loop.StageState(), place, left)
            recorder.say(f"{plan.name}: left out, since {left}")
            return solved
    trainee = make_trainee(
        config, network, train_views, frozen_norms=bool(config.network.freeze_batch_norm)
    )
    if trainee.losses:
        heads = tuple(trainee.losses)
        rank, world = fabric.global_rank, fabric.world_size
        chooser = make_chooser(config, heads, network, train_views, rank, world)
        stage = loop.Stage(plan.name, plan.epochs, augment, chooser)
        state = loop.fit(
            trainee, train_views, validation, config, stage, place, fabric, recorder, resume
        )
        recorder.stage_done(state.history)
        if rival is not None:
            judgement = rival.judge(network)
            better = rival.is_beaten(judgement)
            recorder.say(
                f"{plan.name}: fine-tuning is {'kept' if better else 'not kept'}; what it lacks to a perfect "
                f"score: {judgement}"
            )
            if not better:
                network.load_state_dict(rival.weights)
                solving.save_solved(network, solved, train_views, state, place, str(judgement))
                return solved
    network.backbone.freeze(frozen)
    return {}


def _say_solved(
    plan: Plan,
    solved: dict[str, Solved],
    network: MultiHeadNetwork,
    validation: Views | None,
    train: Views,
    config: TrainingConfig,
    place: Path,
    fabric: Fabric,
    recorder: Recorder,
) -> None:
    """Says and saves what was solved, as an epoch of the stage."""
    for name, one in solved.items():
        recorder.say(f"{plan.name}: {name} is {one.text}")
    entry: dict[str, Any] = {"stage": plan.name, "epoch": 1, "step": 0, "train": {}}
    if validation is not None:
        heads = tuple(solved)
        entry["validation"] = evaluate(network, validation, train, heads, config, fabric.device)
    state = loop.StageState(epoch=1, history=[entry])
    solving.save_solved(network, solved, train, state, place)
    recorder.stage_done(state.history)


def _load(sets: dict[str, SampleSet], config: TrainingConfig, recorder: Recorder) -> None:
    need = sum(s.bytes for s in sets.values()) / _GIB
    keep = need <= config.data.memory_gib
    if not keep:
        recorder.say(
            f"images need {need:.1f} GiB at the network's size, more than data.memory_gib = "
            f"{config.data.memory_gib:g}: they are read again in every epoch"
        )
    total = sum(len(s) for s in sets.values())
    moves = augmentation_settings(config)["name"] != NONE
    with recorder.progress("reading images", 1, total) as bar:
        for samples in sets.values():
            samples.load(config.data.threads, keep, bar.advance, moves and samples is sets["train"])
    for name, samples in sets.items():
        if samples.unreadable:
            recorder.say(
                f"{name}: "
                + counted(
                    len(samples.unreadable),
                    "image cannot be read and is",
                    "images cannot be read and are",
                )
                + " left out:"
            )
            for reason in list(samples.unreadable.values())[:5]:
                recorder.say(f"  {reason}")


class _Features:
    """The features of splits, where they fit into memory; those of a frozen backbone are computed once."""

    def __init__(
        self,
        network: MultiHeadNetwork,
        sets: dict[str, SampleSet],
        config: TrainingConfig,
        fabric: Fabric,
        recorder: Recorder,
    ) -> None:
        self._network, self._sets, self._config = network, sets, config
        self._fabric, self._recorder = fabric, recorder
        self._kept: dict[str, Views] = {}
        # A backbone that is fine-tuned is trained on images, and so are the heads' last epochs.
        self._frozen = is_frozen(network)
        self._copies = config.loop.augmented_copies if self._frozen else 0

    def views(self, *names: str) -> dict[str, Views]:
        """Returns splits with cached features where they fit into memory, else without."""
        asked = {name: self._sets[name] for name in names if name not in self._kept}
        config, network = self._config, self._network
        augment, copies = None, self._copies if "train" in asked else 0
        if copies:
            augment = make_augment(config, network.spec, asked["train"].pixel_aspect)
            copies = copies if augment else 0
        rows = {name: len(s) * (1 + copies * (name == "train")) for name, s in asked.items()}
        kept = sum(
            len(views) * (1 + views.cache.copies) for views in self._kept.values() if views.cache
        )
        count = sum(rows.values())
        if feature_bytes(network, config.heads, kept + count) > config.data.memory_gib * _GIB:
            self._recorder.say(
                "features do not fit into data.memory_gib: the backbone runs in every epoch"
            )
            return {name: self._kept.get(name, Views(self._sets[name])) for name in names}
        found = {}
        with self._recorder.progress("features", 1, count) as bar:
            for name, samples in asked.items():
                cache = FeatureCache.compute(
                    network,
                    samples,
                    config.heads,
                    self._fabric.device,
                    config.data.threads,
                    bar.advance,
                    augment if name == "train" else None,
                    copies if name == "train" else 0,
                )
                found[name] = Views(samples, cache if len(samples) else None)
        views = {name: found[name] if name in found else self._kept[name] for name in names}
        if self._frozen:
            self._kept |= found
        return views


def _measure(
    network: MultiHeadNetwork, views: dict[str, Views], config: TrainingConfig, fabric: Fabric
) -> dict[str, Any]:
    report: dict[str, Any] = {"metrics": {}}
    for name in ("validation", "test"):
        if len(views[name]):
            report["metrics"][name] = evaluate(
                network, views[name], views["train"], config.heads, config, fabric.device
            )
    return report


def _baselines(
    network: MultiHeadNetwork,
    sets: dict[str, SampleSet],
    config: TrainingConfig,
    fabric: Fabric,
    features: _Features,
    views: dict[str, Views] | None = None,
) -> dict[str, dict[str, Metrics]]:
    """Measures baselines on the test images, on features of the backbone as it is now."""
    held_out = "test" if len(sets["test"]) else "validation"
    if not config.baselines or not len(sets[held_out]):
        return {}
    if views is None:
        fabric.to_device(network)
        views = features.views("train", held_out)
    return run_baselines(network, views["train"], views[held_out], config)
