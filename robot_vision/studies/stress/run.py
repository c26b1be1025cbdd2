"""Predicts a recording under every condition, keeps what is done, and measures."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_vision import __version__
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError, unknown
from robot_vision.evaluation.predict.cache import Key, load_cached, store
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.evaluation.predict.replay import replay
from robot_vision.pipeline import Pipeline
from robot_vision.recordings.base import Frame, Source
from robot_vision.statistics.bootstrap import Headline
from robot_vision.studies.stress.degradations import DEGRADATIONS, DROPPED, ROLL
from robot_vision.studies.stress.measure import ROLLS, StressReference, held, measure_intervals
from robot_vision.studies.stress.pixels import headlines, titles
from robot_vision.studies.stress.sources import DegradedSource
from robot_vision.truth.tracks import Truth

SCHEMA = "robot_vision.stress"
GOOD = "none"  # the condition in which nothing was made worse

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class StressRecording:
    """Frames that can be read again and again.

    Attributes:
        name: for people.
        open: opens them again.
        sha256: of their content, so that kept predictions are of the same frames.
        count: how many there are at most; None where that is not known.
        truth: what is true of them.
        in_order: whether neighbours follow each other in time.
    """

    name: str
    open: Callable[[], Source]
    sha256: str
    count: int | None
    truth: Truth
    in_order: bool = True


@dataclass(frozen=True)
class StressPlan:
    """What is done to a recording.

    Attributes:
        degradations: names of `DEGRADATIONS`.
        seed: of what is random.
        every: one out of this many frames is taken.
        limit: frames at most, after that; 0 for all.

    Raises:
        ConfigError: no degradation or an unknown one, or a number out of range.
    """

    degradations: tuple[str, ...] = tuple(DEGRADATIONS)
    seed: int = 0
    every: int = 1
    limit: int = 0

    def __post_init__(self) -> None:
        for name in self.degradations:
            if name not in DEGRADATIONS:
                raise ConfigError(unknown("degradation", name, DEGRADATIONS))
        if not self.degradations:
            raise ConfigError(
                f"There is no degradation to try: name some of {', '.join(DEGRADATIONS)}"
            )
        numbers = (("seed", self.seed, 0), ("every", self.every, 1), ("limit", self.limit, 0))
        for what, value, low in numbers:
            if value < low:
                raise ConfigError(f"{what} is {value}: it must be at least {low}")

    def conditions(self, in_order: bool) -> list[tuple[str, int]]:
        """Returns (degradation, index of its strength) in order; frames that follow nothing cannot drop."""
        names = [n for n in self.degradations if in_order or n != DROPPED]
        return [(name, i) for name in names for i in range(5)]

    def frames(self, recording: StressRecording) -> int | None:
        """Returns how many frames of it are taken at most."""
        if recording.count is None:
            return None
        count = -(-recording.count // self.every)
        return min(count, self.limit) if self.limit else count


class _Thinned(Source):
    """One out of every n frames of another source."""

    def __init__(self, source: Source, every: int) -> None:
        count = None if source.count is None else -(-source.count // every)
        super().__init__(source.name, source.topics, count)
        self._source, self._every = source, every
        self.forms = source.forms
        self.problems, self.notes = source.problems, source.notes

    def __iter__(self) -> Iterator[Frame]:
        yield from itertools.islice(self._source, 0, None, self._every)

    def close(self) -> None:
        self._source.close()


def stress(
    pipeline: Pipeline,
    recording: StressRecording,
    plan: StressPlan,
    folder: Path,
    strangers: StressRecording | None = None,
    progress: Progress | None = None,
    settings: EvaluationSettings | None = None,
) -> dict[str, Any]:
    """Runs every condition; what an earlier run of the same has done is used.

    Args:
        pipeline: the node's.
        recording: with its truth.
        plan: which conditions.
        folder: for predictions that are kept.
        strangers: frames that show none of the model's classes, made worse in the same way.
        progress: is called with the number of frames that were done since.
        settings: of the bootstrap.

    Returns:
        Plain data: schema, plan, facts of model and recording, title and text of numbers that are in no
        `METRICS`, which of them sum up, and `conditions`, a list of
        {degradation, strength, index, numbers, intervals}, first the good frames'.

    Raises:
        SourceError: nothing can be read.
    """
    spec = pipeline.bundle.spec
    good = _predict(pipeline, recording, plan, GOOD, 0, folder, progress)
    threshold = spec.heads["classifier"].unknown_threshold if "classifier" in spec.heads else None
    reference = StressReference(good, recording.truth, threshold, recording.in_order)

    def unknowns(name: str, index: int) -> Predictions | None:
        if strangers is None:
            return None
        return _predict(pipeline, strangers, plan, name, index, folder, progress)

    stranger = unknowns(GOOD, 0)

    def measured(said: Predictions, unknown: Predictions | None) -> dict[str, Headline]:
        return measure_intervals(said, reference, unknown, settings, spec.bound)

    found = [_entry(GOOD, -1, 0.0, measured(good, stranger))]
    for name, i in plan.conditions(recording.in_order):
        strength = DEGRADATIONS[name].strengths[i]
        if name == DROPPED:
            worse, other = held(good, strength, plan.seed), stranger
        else:
            worse = _predict(pipeline, recording, plan, name, i, folder, progress)
            other = unknowns(name, i)
        found.append(_entry(name, i, strength, measured(worse, other)))
    return {
        "schema": SCHEMA,
        "schema_version": 1,
        "robot_vision": __version__,
        "model": {"name": pipeline.bundle.name, "sha256": pipeline.bundle.sha256},
        "engine": f"{pipeline.engine.name} on {pipeline.engine.device}, {pipeline.program}",
        "recording": {"name": recording.name, "sha256": recording.sha256, "frames": len(good)},
        "unknown": strangers and {"name": strangers.name, "sha256": strangers.sha256},
        "threshold": threshold,
        "plan": {
            "degradations": list(plan.degradations),
            "seed": plan.seed,
            "every": plan.every,
            "limit": plan.limit,
        },
        "problems": good.meta.get("problems", []),
        "metrics": titles(spec.bound, recording.truth),
        "headlines": headlines(spec.bound, recording.truth),
        "conditions": found,
    }


def _entry(name: str, index: int, strength: float, found: dict[str, Headline]) -> dict[str, Any]:
    intervals = {
        n: [v["low"], v["high"]]
        for n, v in found.items()
        if v["low"] is not None and v["high"] is not None
    }
    return {
        "degradation": name,
        "index": index,
        "strength": strength,
        "numbers": {n: v["value"] for n, v in found.items()},
        "intervals": intervals,
    }


def _predict(
    pipeline: Pipeline,
    recording: StressRecording,
    plan: StressPlan,
    name: str,
    index: int,
    folder: Path,
    progress: Progress | None,
) -> Predictions:
    strength = 0.0 if name == GOOD else DEGRADATIONS[name].strengths[index]
    key = Key(
        recording.sha256,
        pipeline.bundle.sha256,
        f"{name} {strength:g} seed {plan.seed} every {plan.every}",
        f"{pipeline.engine.name} on {pipeline.engine.device}",
        pipeline.program,
        plan.limit,
        __version__,
    )
    file = folder / f"{recording.sha256[:8]}-{name}-{index}.npz"
    kept, _ = load_cached(file, key)
    if kept is not None:
        if progress:
            progress(len(kept))
        return kept
    with contextlib.closing(_Thinned(recording.open(), plan.every)) as thinned:
        source: Source = thinned
        if name != GOOD:
            source = DegradedSource(thinned, DEGRADATIONS[name], strength, plan.seed)
        found = replay(pipeline, source, plan.limit or None, None, progress)
        rolls = source.rolls if isinstance(source, DegradedSource) else {}
    if name == ROLL:
        found.meta[ROLLS] = [rolls[int(stamp)] for stamp in found.stamps_ns]
    store(file, found, key)
    return found


def frames_to_do(plan: StressPlan, recordings: Sequence[StressRecording]) -> int | None:
    """Returns how many frames will be predicted in all; None where that is not known."""
    total = 0
    for recording in recordings:
        count = plan.frames(recording)
        if count is None:
            return None
        runs = 1 + sum(name != DROPPED for name, _ in plan.conditions(recording.in_order))
        total += count * runs
    return total
