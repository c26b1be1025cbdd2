"""The training loop, from top to bottom.

It runs on Lightning Fabric: one process or many (`torchrun`), CPU or GPUs, float32 or mixed precision, with
the same lines. Nothing random is kept between steps: an epoch's order follows from (seed, epoch), a batch's
augmentation from (seed, epoch, batch) and a step's dropout from (seed, step, rank). A run that is resumed
from any checkpoint therefore continues exactly as it would have.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from robot_vision.calibration.folds import units_of
from robot_vision.contract.calibration import FOLDS
from robot_vision.contract.spec import NetworkSpec
from robot_vision.contract.training import Chooser, Metrics
from robot_vision.errors import ConfigError, RobotVisionError
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.text.counts import counted
from robot_vision.training.config import TrainingConfig
from robot_vision.training.fit.averaging import WeightAverage
from robot_vision.training.fit.checkpoint import (
    load_module,
    load_state,
    load_tensors,
    read_header,
    save_state,
    save_tensors,
    with_constants,
)
from robot_vision.training.fit.model import Trainee
from robot_vision.training.fit.optimiser import make_optimiser, rate_factor, set_rate
from robot_vision.training.fit.record import Recorder
from robot_vision.training.samples.augmentation import BatchAugmentation as Augment
from robot_vision.training.samples.data import Batch, batches, epoch_order, split_order, times_drawn
from robot_vision.training.ship.evaluate import Array, Scoring, Views, evaluate

LAST, BEST = "last.safetensors", "best.safetensors"


class NonFiniteLossError(RobotVisionError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class Stage:
    """One stretch of training.

    Attributes:
        name: of its folder and in the logs.
        epochs: how many.
        augment: changes training batches, or None.
        chooser: chooses training batches, or None for all samples in random order.
    """

    name: str
    epochs: int
    augment: Augment | None = None
    chooser: Chooser | None = None


@dataclass
class StageState:
    """What a checkpoint keeps besides tensors; JSON."""

    epoch: int = 0
    step: int = 0  # of the whole stage
    in_epoch: int = 0  # steps done of this epoch
    sums: dict[str, list[float]] = field(default_factory=dict)  # loss to [sum, steps] of these
    best_score: float | None = None  # the highest
    peak_epoch: int = -1  # that had it
    # For each sample, as `measure` gives
    peak: dict[str, list[list[float]]] = field(default_factory=dict)
    best_epoch: int = -1  # that is kept
    finished: bool = False
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def fit(
    trainee: Trainee,
    train: Views,
    validation: Views | None,
    config: TrainingConfig,
    stage: Stage,
    folder: Path,
    fabric: Fabric,
    recorder: Recorder,
    resume: bool = False,
) -> StageState:
    """Trains until the last epoch, or until the validation score stays behind for `loop.patience` epochs.

    In the end `trainee.network` holds the weights (the averaged ones, where there is an average) of the last
    epoch whose validation score is not behind the best one by more than the standard error of their
    difference (Breiman et al. 1984, the one-standard-error rule): within the noise of the validation images
    more training and more averaging count. Without validation images, the last.

    Args:
        trainee: network and losses.
        train: training samples, with features where they are cached.
        validation: to choose by; None for none.
        config: resolved.
        stage: epochs, augmentation and mining.
        folder: for `last.safetensors` and `best.safetensors`.
        fabric: launched.
        recorder: progress and logs.
        resume: continue from `last.safetensors` where there is one.

    Returns:
        The state at the end, with the history.

    Raises:
        NonFiniteLossError: the message names the batch's images.
        SaveError: no room for a checkpoint; the one before it is untouched.
    """
    loop, heads = config.loop, tuple(trainee.losses)
    network = trainee.network
    optimiser = make_optimiser(
        network.backbone,
        [network.heads, trainee.losses],
        config.optimiser,
        fused=loop.precision != "float16",
    )
    model, optimiser = fabric.setup(trainee, optimiser)
    decay = config.optimiser.ema
    average = WeightAverage(network, decay) if decay else None  # on the device, after setup
    best: dict[str, Tensor] = {}
    scaler = getattr(fabric._precision, "scaler", None)  # of float16's gradients

    state = StageState()
    if resume and (folder / LAST).is_file():
        state = _resumed(folder, trainee, optimiser.optimizer, average, scaler, stage, train)
        recorder.say(
            f"{stage.name}: resumed after {counted(state.epoch, 'epoch')} and "
            f"{counted(state.in_epoch, 'step')}"
        )

    scoring = Scoring.of(
        {name: config.trainers[name] for name in heads},
        train.samples.truth,
        (validation or train).samples.truth,
        units_of(validation.samples.samples, FOLDS) if validation else np.zeros(0),
    )
    classes = balanced_by(config, network.spec)
    world, rank = fabric.world_size, fabric.global_rank
    per_epoch = len(split_order(torch.arange(len(train)), loop.batch_size, rank, world))
    interrupted = _Interrupt(enabled=world == 1)
    started = saved = time.monotonic()
    before = state.seconds
    warned = False  # that validation cannot choose

    def save() -> None:
        nonlocal saved
        state.seconds = before + time.monotonic() - started
        if fabric.is_global_zero:
            states: dict[str, Mapping[str, Tensor]] = {"trainee": trainee.state_dict()}
            if average is not None:
                states["average"] = average.average
            if stage.chooser is not None:
                states["chooser"] = stage.chooser.state()
            if best:
                save_tensors(folder / BEST, best)
                best.clear()
            header = {
                "state": vars(state),
                "scaler": scaler.state_dict() if scaler else None,
                "data": train.samples.identity,
            }
            save_state(folder / LAST, states, optimiser.optimizer, header)
        saved = time.monotonic()

    def keep_best() -> None:
        """Keeps the weights in memory until the next save, so that both files are of one moment."""
        source = average.average if average is not None else network.state_dict()
        best.update({key: value.detach().to("cpu", copy=True) for key, value in source.items()})

    with (
        interrupted,
        recorder.progress(stage.name, stage.epochs, per_epoch * loop.batch_size) as bar,
    ):
        while state.epoch < stage.epochs and not state.finished:
            epoch = state.epoch
            chosen = _chosen(train, config, stage, epoch, classes, rank, world)
            steps = stage.epochs * (per_epoch if stage.chooser is None else len(chosen))
            bar.epoch(epoch, state.in_epoch)
            model.train()
            pending: tuple[dict[str, Tensor], Tensor] | None = None

            for batch in _batches(train, chosen[state.in_epoch :], config, stage.augment, epoch):
                torch.manual_seed((loop.seed * 1_000_003 + state.step * world + rank) % 2**63)
                set_rate(
                    optimiser, rate_factor(min(state.step, steps - 1), steps, config.optimiser)
                )
                batch = {
                    key: value.to(fabric.device, non_blocking=True) for key, value in batch.items()
                }
                total, parts = model({**batch, "epoch": torch.tensor(epoch)})
                fabric.backward(total)
                if config.optimiser.clip_norm:
                    fabric.clip_gradients(
                        model,
                        optimiser,
                        max_norm=config.optimiser.clip_norm,
                        error_if_nonfinite=False,
                    )
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                if average is not None:
                    average.update(network)
                # A step late, so that a GPU need not wait to be asked; nothing is saved before.
                if pending is not None:
                    _account(state, *pending, train)
                pending = (
                    {"loss": _over_processes(total.detach(), fabric), **parts},
                    batch["index"],
                )
                state.step += 1
                state.in_epoch += 1
                bar.advance(len(batch["index"]) * world)
                overdue = time.monotonic() - saved > loop.checkpoint_seconds
                if interrupted.asked or overdue:  # by each process's own clock
                    _account(state, *pending, train)
                    pending = None
                    save()
                    if interrupted.asked:
                        raise KeyboardInterrupt
            if pending is not None:
                _account(state, *pending, train)

            entry: dict[str, Any] = {"stage": stage.name, "epoch": epoch + 1, "step": state.step}
            entry["rate"] = optimiser.param_groups[-1]["lr"]
            entry["train"] = {name: total / count for name, (total, count) in state.sums.items()}
            last = epoch + 1 == stage.epochs
            due = last or (epoch + 1) % loop.validate_every == 0
            if validation is not None and due:
                with average.applied(network) if average else contextlib.nullcontext():
                    metrics, each = _validate(network, validation, train, heads, config, fabric)
                entry["validation"], entry["score"] = metrics, scoring.score(metrics)
                if _take_score(state, scoring, entry, each, epoch):
                    keep_best()
                if entry["score"] is None and not warned:
                    recorder.say(
                        f"{stage.name}: no validation image has what the heads are measured by (a "
                        "label of the training images, a pose, a place to find): the last epoch counts"
                    )
                    warned = True
            elif validation is None and last:
                state.best_epoch = epoch
                keep_best()
            state.epoch, state.in_epoch, state.sums = epoch + 1, 0, {}
            waited = epoch - state.peak_epoch
            # Epochs that were not validated cannot have been better: patience ends with one that was.
            tired = (
                validation is not None
                and due
                and state.best_epoch >= 0
                and 0 < loop.patience <= waited
            )
            state.finished = last or tired
            entry["seconds"] = before + time.monotonic() - started
            state.history.append(entry)
            # Epochs of seconds need not wait for the disk; the last one's checkpoint marks the end.
            if state.finished or time.monotonic() - saved > loop.checkpoint_seconds:
                save()
            recorder.epoch(state.history, bar)
        if interrupted.asked:  # while the last epoch was validated: there was no step to end with
            raise KeyboardInterrupt

    fabric.barrier()
    load_best(network, folder)
    return state


def finished(folder: Path, train: Views) -> StageState | None:
    """Returns the state of a stage that has ended, or None.

    Raises:
        ConfigError: it was trained on other samples than these.
    """
    header = read_header(folder / LAST)
    state = StageState(**header["state"]) if header else None
    if state is None or not state.finished:
        return None
    _require_same(header, train, folder)
    return state


def _require_same(header: Mapping[str, Any], train: Views, folder: Path) -> None:
    now = train.samples.identity
    then = header.get("data", now)  # not in checkpoints of the first runs
    if then != now:
        raise ConfigError(
            f"{folder / LAST} was trained on other images than there are now (then {then['images']}, now "
            f"{now['images']}, by names, labels, poses and pixels): resume with the data that it had, or "
            "begin another with --output"
        )


def _resumed(
    folder: Path,
    trainee: Trainee,
    optimiser: torch.optim.Optimizer,
    average: WeightAverage | None,
    scaler: Any,
    stage: Stage,
    train: Views,
) -> StageState:
    """Puts a stage's last checkpoint into what is trained; returns its state."""
    header, tensors = load_state(folder / LAST, optimiser)
    _require_same(header, train, folder)
    state = StageState(**header["state"])
    if scaler and header.get("scaler"):
        scaler.load_state_dict(header["scaler"])
    load_module(trainee, tensors["trainee"], folder / LAST)
    if average is not None:
        kept = with_constants(tensors["average"], trainee.network.state_dict())
        average.load_state_dict({"step": state.step, "average": kept})
    if stage.chooser is not None and "chooser" in tensors:
        stage.chooser.load(tensors["chooser"])
    return state


def load_best(network: MultiHeadNetwork, folder: Path) -> None:
    """Puts a stage's best weights into a network."""
    load_module(network, load_tensors(folder / BEST), folder / BEST)


def _chosen(
    train: Views,
    config: TrainingConfig,
    stage: Stage,
    epoch: int,
    classes: str,
    rank: int,
    world: int,
) -> list[dict[str, Tensor]]:
    """Returns which samples this process's batches of an epoch have, at least one batch."""
    loop = config.loop
    if stage.chooser is not None:
        chosen = list(stage.chooser.batches(epoch))
    else:
        order = epoch_order(train.samples.targets, loop.sampler, loop.seed, epoch, classes)
        index, draw = (
            split_order(column, loop.batch_size, rank, world)
            for column in (order, times_drawn(order))
        )
        chosen = [{"index": i, "draw": n} for i, n in zip(index, draw, strict=True)]
    if not chosen:
        raise ConfigError(
            f"{stage.name}: the training images make no batch for each of {world} processes: use "
            "fewer, or a smaller loop.batch_size"
        )
    return chosen


def _take_score(
    state: StageState, scoring: Scoring, entry: dict[str, Any], each: dict[str, Array], epoch: int
) -> bool:
    """Notes what an epoch scored; returns whether its weights are the ones to keep so far.

    Args:
        state: gets the best score and the epoch to keep.
        scoring: of the heads.
        entry: of the history, with its `score`, which becomes None where it chooses nothing; gets `noise`
            where the epoch is behind the best one.
        each: the numbers of each validation sample, by head.
        epoch: from 0.
    """
    if not math.isfinite(entry["score"]):
        # Nothing in the validation images has a target: they cannot choose an epoch.
        entry["score"] = None
        state.peak_epoch = state.best_epoch = epoch
        return True
    if not all(t.taught(epoch) for t in scoring.trainers.values()):
        return False  # its head would say nothing of what the loss teaches later
    if state.best_score is None or entry["score"] > state.best_score:
        state.best_score = entry["score"]
        state.peak_epoch = state.best_epoch = epoch
        state.peak = {head: numbers.tolist() for head, numbers in each.items()}
        return True
    peak = {head: np.array(numbers) for head, numbers in state.peak.items()}
    entry["noise"] = scoring.noise(each, peak)
    if entry["score"] < state.best_score - entry["noise"]:
        return False
    state.best_epoch = epoch
    return True


def _batches(
    train: Views,
    chosen: Sequence[dict[str, Tensor]],
    config: TrainingConfig,
    augment: Augment | None,
    epoch: int,
) -> Iterator[Batch]:
    """Yields the chosen batches: from the cache, or with their images read and augmented ahead."""
    indices = [batch["index"] for batch in chosen]
    if train.cache is None:
        yield from batches(train.samples, indices, config.data.threads, augment, epoch, chosen)
        return
    for batch in chosen:
        found = train.cache.batch(train.samples, batch["index"], epoch, batch.get("draw"))
        yield {**found, **batch}


def _over_processes(loss: Tensor, fabric: Fabric) -> Tensor:
    """Returns the mean over processes, so that all see the same NaN.

    In the step itself, which all processes make in the same order: when one of them asks for the number
    depends on its clock, and a collective operation there would meet the gradients of another.
    """
    if fabric.world_size == 1:
        return loss
    return fabric.all_reduce(loss, reduce_op="mean")  # type: ignore[return-value]


def _account(state: StageState, losses: dict[str, Tensor], index: Tensor, train: Views) -> None:
    """Adds a step's losses to the epoch's sums, and refuses NaN."""
    names = list(losses)
    values = torch.stack([losses[name].float() for name in names]).tolist()
    if not math.isfinite(values[0]):
        images = ", ".join(train.samples.names(index.cpu()))
        raise NonFiniteLossError(
            f"The loss became {values[0]} in step {state.step}: the batch's images are {images}; "
            "look at their labels and poses, or lower optimiser.learning_rate"
        )
    for name, value in zip(names, values, strict=True):
        total, count = state.sums.get(name, [0.0, 0])
        state.sums[name] = [total + value, count + 1]


def _validate(
    network: MultiHeadNetwork,
    validation: Views,
    train: Views,
    heads: tuple[str, ...],
    config: TrainingConfig,
    fabric: Fabric,
) -> tuple[dict[str, Metrics], dict[str, Array]]:
    """Measures in the first process; the others wait for what it found."""
    metrics: dict[str, Metrics] = {}
    each: dict[str, Array] = {}
    if fabric.is_global_zero:
        metrics = evaluate(
            network,
            validation,
            train,
            heads,
            config,
            fabric.device,
            config.data.threads,
            each,
        )
    return fabric.broadcast((metrics, each))


def balanced_by(config: TrainingConfig, spec: NetworkSpec) -> str:
    """Returns the target whose classes a balanced epoch has equally often: the first head's that has some."""
    found = (key for name, t in config.trainers.items() for key in t.classes(spec.heads[name]))
    return next(found, "label")


class _Interrupt:
    """Turns the first Ctrl-C into a wish, so that the step is finished and saved; the second interrupts."""

    def __init__(self, enabled: bool) -> None:
        self.asked = False
        self._enabled = enabled
        self._previous: Any = None

    def __enter__(self) -> _Interrupt:
        if self._enabled:
            try:
                self._previous = signal.signal(signal.SIGINT, self._handle)
            except ValueError:  # not the main thread: then nobody presses Ctrl-C here
                self._enabled = False
        return self

    def __exit__(self, *exception: object) -> None:
        if self._enabled:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
