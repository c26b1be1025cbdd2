"""Heads at the minimum of their loss on cached features, and whether fine-tuning is better than they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch

from robot_vision.calibration.folds import folds_of, units_of
from robot_vision.contract.calibration import FOLDS
from robot_vision.contract.training import NONE, Solved, Trainer
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.statistics.judging import Judgement, judge
from robot_vision.training.config import TrainingConfig
from robot_vision.training.fit.checkpoint import KEY, load_tensors, read_header, save_tensors
from robot_vision.training.fit.loop import BEST, LAST, StageState
from robot_vision.training.ship.evaluate import Array, Views, evaluate, features_of

_BESTS, _LEFT = "solved", "left"  # in a checkpoint's header


def solve(
    config: TrainingConfig, network: MultiHeadNetwork, train: Views
) -> dict[str, Solved] | None:
    """Trains all heads to the minimum of their losses; None, and no head changed, where one needs epochs.

    Args:
        config: of the run.
        network: whose heads are changed.
        train: with cached features.
    """
    wanted = {n: t for n, t in config.trainers.items() if config.settings[n].loss != NONE}
    if any(type(trainer).solve is Trainer.solve for trainer in wanted.values()):
        return None  # before the others are solved in vain
    before = deepcopy(network.heads.state_dict())
    folds = folds_of(train.samples.samples, FOLDS)
    found: dict[str, Solved] = {}
    for name, trainer in wanted.items():
        features = features_of(network, train, trainer)
        solved = trainer.solve(network.heads[name], network.spec.heads[name], features, folds)
        if solved is None:
            network.heads.load_state_dict(before)
            return None
        found[name] = solved
    return found or None


def save_solved(
    network: MultiHeadNetwork,
    solved: Mapping[str, Solved],
    train: Views,
    state: StageState,
    place: Path,
    left: str = "",
) -> None:
    """Writes the checkpoints of a finished stage whose heads stay as they were solved.

    Args:
        network: with these heads.
        solved: the heads.
        train: that they were solved on.
        state: of the stage.
        place: folder of the stage.
        left: why fine-tuning was not kept; empty for the stage that solved them.
    """
    state.finished = True
    save_tensors(place / BEST, network.state_dict())
    header = {
        "state": vars(state),
        "data": train.samples.identity,
        _BESTS: {name: [one.best, one.text] for name, one in solved.items()},
        _LEFT: left,
    }
    tensors = {
        f"{n}.{word}": value for n, one in solved.items() for word, value in one.outputs.items()
    }
    save_tensors(place / LAST, tensors, {KEY: json.dumps(header)})


def load_solved(place: Path) -> dict[str, Solved]:
    """Returns what `save_solved` kept of a finished stage; empty where it was trained for epochs."""
    header = read_header(place / LAST)
    outputs: dict[str, dict[str, torch.Tensor]] = {name: {} for name in header.get(_BESTS, {})}
    for key, value in load_tensors(place / LAST).items() if outputs else ():
        name, _, word = key.partition(".")
        outputs[name][word] = value
    return {name: Solved(outputs[name], *header[_BESTS][name]) for name in outputs}


class Rival:
    """The network before it is fine-tuned, which has to be beaten on the validation images.

    Args:
        network: with solved heads; its weights are copied.
        solved: the heads.
        validation: samples.
        train: samples.
        config: of the run.
    """

    def __init__(
        self,
        network: MultiHeadNetwork,
        solved: Mapping[str, Solved],
        validation: Views,
        train: Views,
        config: TrainingConfig,
    ) -> None:
        self.solved = solved
        self.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self._data = validation, train, config
        self.loss = self._loss(network)

    def hopeless(self) -> bool:
        """Whether not even a network without an error would be better; see `is_beaten`."""
        return not self.is_beaten(self._judge(np.zeros_like(self.loss)))

    def judge(self, network: MultiHeadNetwork) -> Judgement:
        """Compares with a fine-tuned network, image by image."""
        return self._judge(self._loss(network))

    def is_beaten(self, judgement: Judgement) -> bool:
        """Whether another network is better by more than noise, and by what one more right image counts.

        Without the second, likelihoods alone would decide where both make the same errors.
        """
        gain = judgement.before - judgement.after
        return judgement.better and gain >= 1 / len(self.loss)

    def _judge(self, loss: Array) -> Judgement:
        units = units_of(self._data[0].samples.samples, FOLDS)
        there = np.isfinite(self.loss) & np.isfinite(loss)
        if not there.any():
            return Judgement(0.0, 0.0, np.inf)
        return judge(self.loss[there], loss[there], units[there])

    def _loss(self, network: MultiHeadNetwork) -> Array:
        """Returns what each sample (N,) lacks to the best score, the mean over heads that know its truth."""
        validation, train, config = self._data
        each: dict[str, Array] = {}
        device = network.pixel_scale.device
        heads = tuple(self.solved)
        evaluate(network, validation, train, heads, config, device, config.data.threads, each)
        lacks = []
        for name, rows in each.items():
            trainer = config.trainers[name]
            own = trainer.own(validation.samples.truth)
            reference = trainer.reference(trainer.own(train.samples.truth), own)
            lacks.append(self.solved[name].best - trainer.shares(rows, reference))
        return np.asarray(np.mean(lacks, axis=0))
