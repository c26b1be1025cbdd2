"""How DroNet is trained: its settings, targets, loss, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.training import (
    DataFacts,
    Features,
    HeadSettings,
    Metrics,
    Shape,
    Target,
    Targets,
    Trainer,
)
from robot_vision.errors import ConfigError
from robot_vision.heads.dronet.answer import WORDS
from robot_vision.heads.dronet.evaluation import (
    Numbers,
    collision_statistics,
    random_collision,
    random_steering,
    steering_statistics,
)
from robot_vision.heads.dronet.spec import DronetSpec
from robot_vision.settings.declared import option
from robot_vision.settings.mappings import from_mapping
from robot_vision.statistics.bootstrap import values

if TYPE_CHECKING:
    from torch import nn

START_EPOCH = 10  # of the paper's loss
_LEAST = 1e-4  # of a loss that others are divided by


@dataclass(frozen=True)
class DronetConfig(HeadSettings):
    """How a DroNet head is trained."""

    loss: str = option("dronet", "name of the loss of steering and collision")


class DronetTrainer(Trainer[DronetSpec]):
    """See `Trainer`. An image needs one of the two truths, the numbers steering and collision."""

    Settings = DronetConfig
    losses = {"dronet": "robot_vision.heads.dronet.loss:DronetLoss"}
    baselines = {
        "constant": "always the mean steering, and the more frequent of collision and none",
        "random": "steering drawn from a normal distribution, and a coin for collisions",
    }
    # Shifts and small turns are the paper's own augmentation. A mirrored road bends the other way.
    harms = frozenset({"mixup"})
    mirrored = frozenset({"steering"})
    truth = "number"
    takes = "steering and collision"

    def spec(self, settings: Mapping[str, Any], facts: DataFacts) -> DronetSpec:
        return from_mapping(DronetSpec, f"network.{self.name}", settings)

    def words(self) -> tuple[str, ...]:
        """Returns `number:steering` and `number:collision`; with its name where that is not the kind."""
        return tuple(f"{self.truth}:{self.head.key(word)}" for word in WORDS)

    def check(self, splits: Any, where: str) -> None:
        """See `Trainer.check`; steering must be in [-1, 1], and collision 0 or 1."""
        super().check(splits, where)
        for word, fits, allowed in zip(
            self.words(),
            (lambda number: -1 <= number <= 1, lambda number: number in (0, 1)),
            ("in [-1, 1]: scale it", "0 or 1"),
            strict=True,
        ):
            known = [(s.name, s.of(word)) for s in splits.samples if s.of(word) is not None]
            wrong = [(name, number) for name, number in known if not fits(number)]
            if wrong:
                name, number = wrong[0]
                raise ConfigError(
                    f"{word} of {name} in {where} is {number:g}, and {len(wrong)} of {len(known)} are like "
                    f"that: it must be {allowed}"
                )

    def check_epochs(self, epochs: int) -> None:
        start = self._start_epoch
        if self.settings.loss == "dronet" and epochs <= start + 1:
            raise ConfigError(
                f"The {self.name} head learns collisions after epoch {start:g}, and a stage has {epochs}: "
                f"set loop.epochs to more, such as 100, or {self.name}.settings.start_epoch to less"
            )

    def taught(self, epoch: int) -> bool:
        """See `Trainer.taught`: collisions come after `start_epoch`."""
        return self.settings.loss != "dronet" or epoch > self._start_epoch

    def suggested(self, splits: Any) -> Mapping[str, Any]:
        """All examples, from the start: the paper's schedule is for a backbone that learns."""
        return {"settings": {"start_epoch": 0, "decay": 10, "mining_epoch": 1000}}

    def suggested_network(self) -> Mapping[str, Any]:
        """Layers that read features of photographs: flattened, these show left and right."""
        return {"tap": "features.13", "reduce_channels": 16, "hidden": 96, "dropout": 0.3}

    @property
    def _start_epoch(self) -> float:
        return float(self.settings.settings.get("start_epoch", START_EPOCH))

    def targets(self, samples: Sequence[Any], spec: DronetSpec) -> dict[str, Target]:
        """Returns `steering` and `collision` float32 (N,), NaN for none."""
        import torch

        found = {}
        for own, word in zip(WORDS, self.words(), strict=True):
            numbers = [np.nan if (v := sample.of(word)) is None else v for sample in samples]
            found[self.head.key(own)] = Target(torch.tensor(numbers, dtype=torch.float32), np.nan)
        return found

    def module(self, spec: DronetSpec, shapes: Sequence[Shape]) -> nn.Module:
        from robot_vision.heads.dronet.network import DronetModule

        return DronetModule(spec, shapes[0])

    def prepare(self, module: Any, spec: DronetSpec, features: Features, seed: int) -> None:
        """Begins at the average of the training images, whatever an image shows.

        Random weights of thousands of features would stay where no training image differs, as noise in the
        answers on other images.
        """
        import torch

        for i, word in enumerate(WORDS):
            if word not in features.targets:  # where an untrained bundle is made
                continue
            known = features.targets[word][features.targets[word].isfinite()]
            if len(known):
                mean = known.mean()
                if word == "collision":
                    mean = torch.logit(mean, eps=1 / (len(known) + 1))
                with torch.no_grad():
                    module.linear.weight[i].zero_()
                    module.linear.bias[i].copy_(mean)

    def untrained(self, pretrained: bool, images: int) -> str:
        return "" if pretrained else super().untrained(pretrained, images)

    def measure(
        self,
        outputs: Targets,
        targets: Targets,
        spec: DronetSpec,
        stored: tuple[Targets, Targets] | None = None,
    ) -> tuple[Metrics, NDArray[np.float64] | None]:
        """See `Trainer.measure`; each sample: squared error and cross-entropy."""
        turn, hit = (_numpy(outputs[word]) for word in WORDS)
        true_turn, true_hit = (_numpy(targets[word]) for word in WORDS)
        turn = np.clip(turn, -1, 1)
        turned, known = np.isfinite(true_turn), np.isfinite(true_hit)
        each = np.stack([(turn - true_turn) ** 2, _entropy(hit, true_hit)], axis=1)
        metrics: Metrics = {"images": int((turned | known).sum())}
        for i, (mask, measure) in enumerate(
            (
                (turned, steering_statistics(turn[turned], true_turn[turned])),
                (known, collision_statistics(hit[known], true_hit[known])),
            )
        ):
            if mask.any():
                metrics |= values(measure, int(mask.sum()))
                metrics[f"{WORDS[i]}_loss"] = float(each[mask, i].mean())
                metrics[f"{WORDS[i]}_images"] = int(mask.sum())
        return metrics, each

    def reference(self, train: Targets, targets: Targets) -> NDArray[np.float64]:
        """Returns squared error and cross-entropy of always saying the training images' average."""
        found = []
        for word, loss in zip(
            WORDS, (lambda said, true: (said - true) ** 2, _entropy), strict=True
        ):
            true, known = _numpy(targets[word]), _numpy(train[word])
            true, known = true[np.isfinite(true)], known[np.isfinite(known)]
            said = np.full(len(true), known.mean() if len(known) else 0.0)
            found.append(max(float(loss(said, true).mean()), _LEAST) if len(true) else 1.0)
        return np.array(found)

    def score(self, metrics: Metrics, reference: Any) -> float | None:
        """Returns one, less the mean loss of the images over that of the constant answer."""
        counts = [metrics.get(f"{word}_images", 0) for word in WORDS]
        if not any(counts):
            return None
        shares = [
            1 - metrics[f"{word}_loss"] / loss if count else 0.0
            for word, count, loss in zip(WORDS, counts, reference, strict=True)
        ]
        return float(np.average(shares, weights=counts))

    def shares(self, each: NDArray[np.float64], reference: Any) -> NDArray[np.float64]:
        """See `Trainer.shares`; of an image with both truths their mean."""
        known = np.isfinite(each)
        total = np.where(known, 1 - each / reference, 0.0).sum(axis=1)
        return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)

    def run_baselines(
        self, names: Sequence[str], seen: Features, asked: Features, spec: DronetSpec, seed: int
    ) -> dict[str, Metrics]:
        turn, hit = (_numpy(seen.targets[word]) for word in WORDS)
        turn, hit, count = turn[np.isfinite(turn)], hit[np.isfinite(hit)], len(asked)
        said: dict[str, tuple[Any, Any]] = {
            "constant": (np.full(count, turn.mean()), np.full(count, float(hit.mean() > 0.5))),
            "random": (random_steering(turn, count, seed), random_collision(count, seed)),
        }
        return {
            name: self.measure(dict(zip(WORDS, said[name], strict=True)), asked.targets, spec)[0]
            for name in names
        }


def _numpy(numbers: Any) -> Numbers:
    return np.asarray(numbers, np.float64)


def _entropy(probability: Numbers, true: Numbers) -> Numbers:
    p = np.clip(probability, 1e-7, 1 - 1e-7)
    return np.asarray(-(true * np.log(p) + (1 - true) * np.log(1 - p)), np.float64)
