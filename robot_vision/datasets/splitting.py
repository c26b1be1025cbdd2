"""Dividing samples: blocks of a recording's time, named recordings, or a stratified draw.

Neighbouring frames of a recording are nearly the same picture. A random draw would put them on both sides,
and any network would look good; so whole blocks are split off.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from robot_vision.datasets.sample import Sample
from robot_vision.errors import ConfigError, unknown
from robot_vision.settings.declared import names_in, option

Three = tuple[list[Sample], list[Sample], list[Sample]]


@dataclass(frozen=True)
class BlockOptions:
    """How recordings with poses are divided."""

    split: str = option(
        "auto",
        "how frames are split; auto: the official split if there is one, otherwise blocks; train "
        "and test put all frames there",
        choices=("auto", "official", "blocks", "train", "test"),
    )
    block_frames: int = option(50, "consecutive frames in a block, with split=blocks", low=1)
    test_modulo: int = option(
        4,
        "with split=blocks: a block is used for testing if its index modulo this equals "
        "test_remainder",
        low=1,
    )
    test_remainder: int = option(
        3,
        "with split=blocks: remainder of the index of a test block modulo test_modulo; -1 for no "
        "test block",
        low=-1,
    )
    validation: float = option(
        0.15, "share of the training blocks that is used for validation", low=0, high=0.9
    )
    seed: int = option(0, "random seed of the choice of validation blocks", low=0)
    gap_frames: int = option(
        0, "training frames left out on each side of validation and test blocks", low=0
    )
    test_sequences: str = option(
        "", "names of recordings that are used for testing as a whole, separated by commas"
    )


def by_sequence(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Returns the samples of each recording, in their order."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.sequence].append(sample)
    return dict(groups)


def divide(
    samples: Sequence[Sample],
    options: BlockOptions,
    is_test: Callable[[Sample], bool] | None = None,
) -> Three:
    """Divides recordings as the options ask for.

    Args:
        samples: neighbours in a recording are consecutive.
        options: of the data set.
        is_test: the official split; None where there is none.

    Returns:
        Train, validation and test samples.

    Raises:
        ConfigError: the official split is asked for and there is none, or an unknown test recording.
    """
    if options.split in ("train", "test"):
        return (list(samples), [], []) if options.split == "train" else ([], [], list(samples))
    named = names_in(options.test_sequences)
    groups = by_sequence(samples)
    for name in named:
        if name not in groups:
            raise ConfigError(unknown("recording in test_sequences", name, groups))
    if named:
        is_test = _in_sequences(named)
    elif options.split == "official" and is_test is None:
        raise ConfigError("Option split is official, but there is no split file: use blocks")
    elif options.split == "blocks":
        is_test = None
    blocks: list[list[Sample]] = []
    roles: list[str] = []
    for group in groups.values():
        if is_test is None:
            parts = _chunks(group, options.block_frames)
            in_test = [i % options.test_modulo == options.test_remainder for i in range(len(parts))]
        else:  # an official split may change within a recording: cut there first
            runs = _runs(group, is_test)
            cut = [(c, t) for run, t in runs for c in _chunks(run, options.block_frames)]
            parts, in_test = [c for c, _ in cut], [t for _, t in cut]
        blocks += parts
        roles += ["test" if test else "train" for test in in_test]
    _draw_validation(roles, options)
    return _gather(blocks, roles, options.gap_frames)


def missing_note(
    options: BlockOptions, validation: Sequence[Sample], test: Sequence[Sample]
) -> str:
    """Returns what a recording was too short for, as `divide` divided it; empty where all is there."""
    if options.split in ("train", "test"):
        return ""
    wanted = {
        "validation": (options.validation > 0, validation),
        "test": (options.test_remainder >= 0, test),
    }
    missing = [name for name, (asked, samples) in wanted.items() if asked and not samples]
    if not missing:
        return ""
    return (
        f"too few blocks of {options.block_frames} frames for any {' or '.join(missing)} images: "
        "record more, or make block_frames smaller"
    )


def _in_sequences(names: tuple[str, ...]) -> Callable[[Sample], bool]:
    return lambda sample: sample.sequence in names


def _chunks(group: list[Sample], size: int) -> list[list[Sample]]:
    return [group[i : i + size] for i in range(0, len(group), size)]


def _runs(
    group: list[Sample], is_test: Callable[[Sample], bool]
) -> list[tuple[list[Sample], bool]]:
    runs: list[tuple[list[Sample], bool]] = []
    for sample in group:
        test = is_test(sample)
        if not runs or runs[-1][1] != test:
            runs.append(([], test))
        runs[-1][0].append(sample)
    return runs


def _draw_validation(roles: list[str], options: BlockOptions) -> None:
    """Turns a seeded draw of training blocks into validation: of three blocks or more at least one."""
    train = [i for i, role in enumerate(roles) if role == "train"]
    least = 1 if options.validation and len(train) > 2 else 0
    count = min(max(least, round(options.validation * len(train))), max(0, len(train) - 1))
    for i in np.random.default_rng(options.seed).permutation(len(train))[:count]:
        roles[train[i]] = "validation"


def _gather(blocks: list[list[Sample]], roles: list[str], gap: int) -> Three:
    parts: dict[str, list[Sample]] = {"train": [], "validation": [], "test": []}
    pairs = [(s, role) for block, role in zip(blocks, roles, strict=True) for s in block]
    held_out: dict[str, set[int]] = defaultdict(set)
    for i, (sample, role) in enumerate(pairs):
        if role != "train":
            held_out[sample.sequence].add(i)
    for i, (sample, role) in enumerate(pairs):
        # A gap may be longer than a block, so frames are counted and not blocks.
        near = range(i - gap, i + gap + 1) if role == "train" and gap else ()
        if held_out[sample.sequence].isdisjoint(near):
            parts[role].append(sample)
    return parts["train"], parts["validation"], parts["test"]


def draw_stratified(
    samples: Sequence[Sample],
    fraction: float,
    seed: int,
    unit: Callable[[Sample], Hashable] = lambda sample: sample.name,
) -> tuple[list[Sample], list[Sample]]:
    """Draws the same fraction of every class, at random but reproducibly.

    A class keeps at least one unit, and gives at least one where it has two and the fraction is not zero.

    Args:
        samples: with labels.
        fraction: of each class that is drawn.
        seed: of the draw.
        unit: samples of a class with the same unit (a walk, a track) stay together.

    Returns:
        The samples that stay and those drawn, both in their old order.
    """
    units: dict[Hashable, dict[Hashable, None]] = defaultdict(dict)
    for sample in samples:
        units[sample.stratum][unit(sample)] = None
    drawn = set()
    for i, label in enumerate(sorted(units, key=str)):
        names = list(units[label])
        count = math.floor(fraction * len(names) + 0.5)
        if fraction > 0:
            count = max(count, 1)
        count = min(count, len(names) - 1)
        # A generator for each class: adding a class does not change the draw of the others before it.
        order = np.random.default_rng([seed, i]).permutation(len(names))
        drawn |= {(label, names[j]) for j in order[:count]}
    kept = [s for s in samples if (s.stratum, unit(s)) not in drawn]
    return kept, [s for s in samples if (s.stratum, unit(s)) in drawn]
