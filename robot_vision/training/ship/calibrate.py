"""After training: probabilities and variances that are right on images that were not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from robot_vision.calibration.folds import folds_of, resampler_of, times_of, units_of
from robot_vision.contract.calibration import FOLDS, Fit, Fitter
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.contract.training import Solved
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.text.counts import counted
from robot_vision.training.config import TrainingConfig
from robot_vision.training.fit.crossfit import held_out
from robot_vision.training.fit.ensemble import BLOCK
from robot_vision.training.fit.model import is_frozen
from robot_vision.training.ship.evaluate import Views, predict

VALIDATION = "validation frames"
_MIN_IMAGES = 20  # fewer say nothing about a temperature or a variance


def calibrate(
    network: MultiHeadNetwork,
    views: dict[str, Views],
    config: TrainingConfig,
    folder: Path,
    fabric: Fabric,
    solved: Mapping[str, Solved] = MappingProxyType({}),
) -> dict[str, Any]:
    """Calibrates the trained heads on the validation images, or on training images held out in turn.

    Args:
        network: trained; its constants are changed, and its spec.
        views: of `train` and `validation`.
        config: of the run.
        folder: of the run.
        fabric: launched.
        solved: heads that are as they were solved, with what they say of training images left out.

    Returns:
        What was found, for the report, by head; or why there was nothing.
    """
    found: dict[str, Any] = {}
    for head, spec in network.spec.bound:
        fitter = head.fitter()
        if fitter is None or head.name not in config.trainers:
            continue
        settings = config.settings[head.name]
        if not getattr(settings, "calibrate", False):
            continue

        def known(view: Views, fitter: Any = fitter, spec: Any = spec) -> torch.Tensor:
            word = fitter.truth(fitter.parts[0])
            truth = [s.of(word) for s in view.samples.samples]
            return torch.tensor([fitter.knows(spec, t) for t in truth], dtype=torch.bool)

        view, folds = views["validation"], getattr(settings, "folds", 0)
        index = known(view).nonzero().flatten()
        train, record = views["train"], {}
        length = getattr(settings, "fold_block", BLOCK)
        several = config.epistemic.members > 1 or config.epistemic.passes
        own = known(train).nonzero().flatten()
        if head.name in solved and not several and len(own) >= _MIN_IMAGES:
            index, view, record = own, train, {"on": "training images left out in turn"}
            outputs = {w: v[index] for w, v in solved[head.name].outputs.items()}
        elif len(index) >= _MIN_IMAGES:
            outputs = predict(network, view, (head.name,), fabric.device)[head.name]
            outputs = {word: value[index] for word, value in outputs.items()}
            record = {"on": VALIDATION}
        elif folds and train.cache is not None and is_frozen(network) and fabric.world_size == 1:
            fold_of = torch.arange(len(train)) // length % folds
            outputs, index = held_out(
                network, head.name, fold_of, train, known(train), config, folder, fabric
            )
            view, record = train, {"on": f"training frames, held out in {folds} folds"}
        else:
            images = counted(len(index), "validation image")
            found[head.name] = f"not calibrated: {images}, {_MIN_IMAGES} are needed"
            continue
        apart = _apart(network, fitter, train, known(train), config, folder, fabric)
        samples = [view.samples.samples[i] for i in index.tolist()]
        word = fitter.truth(fitter.parts[0])
        maps = view.samples.maps.get(word)
        truth = [s.of(word) for s in samples] if maps is None else list(maps[index].numpy())
        module: Any = network.heads[head.name]
        own_constants = getattr(module, "constants", None)  # none where factors are settings
        constants = dict(own_constants.named_buffers()) if own_constants is not None else {}
        fitted = fitter.tune(
            Fit(
                spec=spec,
                outputs={head.key(word): value.numpy() for word, value in outputs.items()},
                truth=truth,
                folds=folds_of(samples, FOLDS),
                units=units_of(samples, FOLDS),
                # As they lie in the split: what is left out between them is time that passed.
                blocks=(index // length).numpy(),
                constants={name: value.cpu().numpy() for name, value in constants.items()},
                resampler=resampler_of(samples, EvaluationSettings(resamples=0)),
                times=partial(times_of, samples),
                apart=apart,
            )
        )
        if fitted is None:
            continue
        found[head.name] = {**record, **fitted.values}
        if fitted.left:
            found[head.name]["left"] = fitted.left
            continue
        for name, value in fitted.constants.items():
            constants[name].copy_(torch.from_numpy(np.asarray(value)))
        network.spec = network.spec.with_heads(**{head.name: replace(spec, **fitted.spec)})
    return found


def _apart(
    network: MultiHeadNetwork,
    fitter: Fitter[Any],
    train: Views,
    known: torch.Tensor,
    config: TrainingConfig,
    folder: Path,
    fabric: Fabric,
) -> tuple[dict[str, Any], list[Any], Any] | None:
    """Returns `Fit.apart`: what a head says of parts of the training images that it was not taught."""
    head = fitter.head
    part_of = config.trainers[head.name].parts(train.samples.targets, network.spec.heads[head.name])
    if part_of is None or train.cache is None or fabric.world_size > 1:
        return None
    outputs, index = held_out(
        network, head.name, torch.from_numpy(part_of), train, known, config, folder, fabric
    )
    word = fitter.truth(fitter.parts[0])
    truth = [train.samples.samples[i].of(word) for i in index.tolist()]
    found = {head.key(name): value.numpy() for name, value in outputs.items()}
    return found, truth, part_of[index.numpy()]
