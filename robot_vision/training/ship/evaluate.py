"""What a network says about a split's samples, and what that is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_vision.contract.head import Head
from robot_vision.contract.training import Features, Metrics, Targets, Trainer
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.statistics.judging import judge
from robot_vision.training.config import TrainingConfig
from robot_vision.training.samples.data import Advance, SampleSet, batches, chunk_of, mapped
from robot_vision.training.samples.features import FeatureCache

Array = NDArray[np.float64]
Outputs = dict[str, dict[str, Tensor]]  # head's name to what it computes and decodes
Trainers = Mapping[str, Trainer[Any]]


@dataclass(frozen=True)
class Views:
    """One split with what is needed to predict it: its samples, and cached features where there are any."""

    samples: SampleSet
    cache: FeatureCache | None = None

    def __len__(self) -> int:
        return len(self.samples)


def features_of(network: MultiHeadNetwork, views: Views, trainer: Trainer[Any]) -> Features:
    """Returns a split as a head sees it: features come from the cache, or else from the backbone."""
    device, name = network.pixel_scale.device, trainer.name

    @torch.no_grad()
    def of(index: Tensor) -> tuple[Tensor, ...]:
        if views.cache is not None:
            return tuple(value[index] for value in views.cache.features[name])
        mode = network.training
        network.eval()
        parts = [
            network.forward_features(batch["images"].to(device))[name]
            for batch in batches(
                views.samples, list(index.split(chunk_of(network.spec.input, device)))
            )
        ]
        network.train(mode)
        return tuple(torch.cat([part.cpu() for part in tap]) for tap in zip(*parts, strict=True))

    return Features(trainer.own(views.samples.truth), of, device)


@torch.no_grad()
def predict(
    network: MultiHeadNetwork,
    views: Views,
    heads: tuple[str, ...],
    device: torch.device,
    threads: int = 2,
    advance: Advance = lambda n: None,
) -> Outputs:
    """Returns raw and decoded outputs of some heads for every sample, on the CPU in float32 or as integers.

    Of a head that says something of every pixel, what it decodes, and of the rest what its fitter needs: they
    lie in files without a name.
    """
    network.eval()
    kept = {head.name: _kept(head, own) for head, own in network.spec.bound if head.name in heads}
    found_of: dict[str, dict[str, Tensor]] = {name: {} for name in heads}
    order = list(torch.arange(len(views)).split(chunk_of(network.spec.input, device)))

    def features() -> Any:
        if views.cache is not None:
            for index in order:
                cached = views.cache.features
                yield {h: [v[index].to(device) for v in cached[h]] for h in heads}, len(index)
        else:
            for batch in batches(views.samples, order, threads):
                found = network.forward_features(batch["images"].to(device))
                yield {h: found[h] for h in heads}, len(batch["index"])

    done = 0
    for found, count in features():
        for name, raw in network.raw_from_features(found).items():
            head: Any = network.heads[name]
            dense = kept[name]
            some = raw if dense is None else {w: v for w, v in raw.items() if w in dense}
            for word, value in {**some, **head.decode(raw)}.items():
                value = value.float() if value.is_floating_point() else value
                store = found_of[name].get(word)
                if store is None:
                    store = _store((len(views), *value.shape[1:]), value.dtype, dense is not None)
                    found_of[name][word] = store
                store[done : done + count] = value.cpu()
        done += count
        advance(count)
    return found_of


def _kept(head: Head[Any, Any], spec: Any) -> frozenset[str] | None:
    """Returns which words of what a dense head computes are kept besides what it decodes; None for all."""
    if not head.trainer().dense(spec):
        return None
    fitter = head.fitter()
    return frozenset(fitter.inner) if fitter else frozenset()


def _store(shape: tuple[int, ...], dtype: torch.dtype, large: bool) -> Tensor:
    if not large:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(mapped(shape, str(dtype).removeprefix("torch.")))


def evaluate(
    network: MultiHeadNetwork,
    views: Views,
    database: Views | None,
    heads: tuple[str, ...],
    config: TrainingConfig,
    device: torch.device,
    threads: int = 2,
    each: dict[str, Array] | None = None,
) -> dict[str, Metrics]:
    """Measures heads on a split.

    Args:
        network: on `device`.
        views: the split.
        database: where a head looks up what it looks up: the training images.
        heads: to measure.
        config: of the run.
        device: of the network.
        threads: that read images.
        each: see `measure`.

    Returns:
        Head to its metrics.
    """
    outputs = predict(network, views, heads, device, threads)
    stored = None
    looking = tuple(name for name in heads if config.trainers[name].looks_up)
    if looking and database is not None:
        found = predict(network, database, looking, device, threads)
        stored = found, database.samples.truth
    return measure(outputs, views.samples.truth, stored, network.spec.heads, config, each)


def measure(
    outputs: Mapping[str, Targets],
    targets: Targets,
    stored: tuple[Mapping[str, Targets], Targets] | None,
    specs: Mapping[str, Any],
    config: TrainingConfig,
    each: dict[str, Array] | None = None,
) -> dict[str, Metrics]:
    """Measures final values, wherever they come from.

    Args:
        outputs: of each head to measure, by the words of `Head.outputs`, (N, ...).
        targets: of the N samples.
        stored: the same of the training images, for heads that look up.
        specs: of the network's heads.
        config: of the run.
        each: gets for each head what its score averages, a row for each of the N samples; NaN where a sample
            has no truth.

    Returns:
        Head to its metrics.
    """
    metrics: dict[str, Metrics] = {}
    for name, own in outputs.items():
        trainer = config.trainers[name]
        database = (
            (stored[0][name], trainer.own(stored[1])) if stored and name in stored[0] else None
        )
        found, rows = trainer.measure(own, trainer.own(targets), specs[name], database)
        if found:
            metrics[name] = found
        if each is not None and rows is not None:
            each[name] = rows
    return metrics


@dataclass(frozen=True)
class Scoring:
    """One number by which checkpoints are compared, higher is better: the mean of the heads' scores.

    Attributes:
        trainers: of the heads.
        references: of each head, what its score compares with.
        units: (N,), which validation samples are alike and count as one.
    """

    trainers: Trainers
    references: Mapping[str, Any]
    units: NDArray[Any]

    @classmethod
    def of(cls, trainers: Trainers, train: Targets, held_out: Targets, units: Any) -> Scoring:
        """Takes the targets of the training samples, and of those that are scored."""
        references = {n: t.reference(t.own(train), t.own(held_out)) for n, t in trainers.items()}
        return cls(trainers, references, units)

    def score(self, metrics: Mapping[str, Metrics]) -> float:
        """Returns the score; NaN where no sample has a truth."""
        scores = [self.trainers[n].score(m, self.references[n]) for n, m in metrics.items()]
        values = [score for score in scores if score is not None]
        return float(np.mean(values)) if values else float("nan")

    def noise(self, now: Mapping[str, Array], best: Mapping[str, Array]) -> float:
        """Returns the standard error of the difference of two scores on the same samples.

        Samples are paired: what makes one hard is on both sides.

        Args:
            now: what `measure` gave for each sample.
            best: of other weights.
        """
        squares = 0.0
        heads = set(now) & set(best)
        for name in heads:
            trainer, reference = self.trainers[name], self.references[name]
            sides = [trainer.shares(numbers[name], reference) for numbers in (best, now)]
            there = np.isfinite(sides[0]) & np.isfinite(sides[1])
            if there.any():
                squares += judge(sides[0][there], sides[1][there], self.units[there]).noise ** 2
        return float(np.sqrt(squares)) / max(len(heads), 1)


def run_baselines(
    network: MultiHeadNetwork, train: Views, held_out: Views, config: TrainingConfig
) -> dict[str, dict[str, Metrics]]:
    """Runs the baselines that the configuration names and that make sense for its heads.

    None of them sees a held-out image before it is measured on it.

    Args:
        network: whose backbone gives the features.
        train: to fit on or to look up in.
        held_out: to measure on.
        config: of the run.

    Returns:
        Head to baseline's name to its metrics.
    """
    found = {}
    for name, trainer in config.trainers.items():
        names = [word for word in config.baselines if word in trainer.baselines]
        if names:
            seen, asked = (features_of(network, views, trainer) for views in (train, held_out))
            found[name] = trainer.run_baselines(
                names,
                seen,
                asked,
                network.spec.heads[name],
                config.loop.seed,
            )
    return found
