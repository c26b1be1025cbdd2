"""Numbers about a data set that show what is wrong with it before training does."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.sample import (
    SPLIT_NAMES,
    Sample,
    Splits,
    different_size,
    true_values,
)
from robot_vision.datasets.splitting import by_sequence
from robot_vision.errors import ImageError
from robot_vision.files.natural_order import natural_key
from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.text.counts import agreeing, counted
from robot_vision.truth.pixel_classes import NO_CLASS

# With more test poses, an even choice of this many stands for all.
_MOST_QUERIES = 2000
_NEAR_M, _NEAR_DEG = 0.25, 20.0  # of a training pose that can answer for another
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class ImageSurvey:
    """What loading images showed.

    Attributes:
        looked_at: how many were loaded.
        sizes: (height, width) and how often.
        unreadable: a message for each that failed; it names the image.
    """

    looked_at: int
    sizes: Counter[tuple[int, int]]
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class PoseSurvey:
    """Where the cameras were.

    Attributes:
        low_m: smallest x, y, z.
        high_m: greatest.
        path_m: length of all recordings' paths.
    """

    low_m: tuple[float, float, float]
    high_m: tuple[float, float, float]
    path_m: float


@dataclass(frozen=True)
class NearestTrain:
    """How far test poses are from training poses.

    Attributes:
        median_m: to the nearest training position.
        median_deg: of that nearest one's rotation; NaN without orientations.
        within: part of the test poses with a training pose within `radius_m` and `radius_deg`.
        radius_m: for `within`.
        radius_deg: for `within`; without orientations it is not used.
    """

    median_m: float
    median_deg: float
    within: float
    radius_m: float
    radius_deg: float


@dataclass(frozen=True)
class PixelSurvey:
    """What loading the truth of pixels showed.

    Attributes:
        samples: of each split, how many have it.
        looked_at: how many were loaded.
        without: share of their pixels that say nothing.
        classes: name to the share of the pixels that say something; empty for numbers.
        images: name to how many of those loaded have a pixel of it.
        numbers: which 5, 50 and 95 percent of those that say something are below; empty for classes.
        unreadable: a message for each that failed, or is of another size than its image.
    """

    samples: dict[str, int]
    looked_at: int
    without: float
    classes: dict[str, float]
    images: dict[str, int]
    numbers: tuple[float, ...]
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class NumberSurvey:
    """The numbers of a word of truth.

    Attributes:
        samples: of each split, how many have one.
        span: which 0, 50 and 100 percent of all are below or equal to.
        ones: share of ones where all are 0 or 1; None for other numbers.
    """

    samples: dict[str, int]
    span: tuple[float, ...]
    ones: float | None


@dataclass(frozen=True)
class Overlap:
    """What two splits share.

    Attributes:
        same_content: pairs of names whose stored images are byte for byte the same.
        neighbours: frames of the second split directly next to one of the first in a recording or folder.
    """

    same_content: tuple[tuple[str, str], ...]
    neighbours: int


def class_counts(splits: Splits) -> dict[str, dict[str, int]]:
    """Returns for each label, sorted, the number of samples in each split; '(none)' last."""
    counts = {name: Counter(s.label for s in splits.split(name)) for name in SPLIT_NAMES}
    labels = sorted({label for c in counts.values() for label in c if label is not None})
    table = {label: {name: counts[name][label] for name in SPLIT_NAMES} for label in labels}
    if any(counts[name][None] for name in SPLIT_NAMES):
        table["(none)"] = {name: counts[name][None] for name in SPLIT_NAMES}
    return table


def survey_images(samples: Sequence[Sample], count: int | None) -> ImageSurvey:
    """Loads an even choice of `count` images (None: all)."""
    chosen = evenly(samples, count)
    sizes: Counter[tuple[int, int]] = Counter()
    unreadable = []
    for sample in chosen:
        try:
            height, width = sample.source.load().shape[:2]
            sizes[height, width] += 1
        except ImageError as error:
            unreadable.append(str(error))
    return ImageSurvey(len(chosen), sizes, tuple(unreadable))


def pixel_words(splits: Splits) -> list[str]:
    """Returns the words of truth that are of every pixel."""
    found = {word for s in splits.samples for word in s.truth if word.startswith("image:")}
    return sorted(found)


def number_words(splits: Splits) -> list[str]:
    """Returns the words of truth that are numbers."""
    found = {word for s in splits.samples for word in s.truth if word.startswith("number:")}
    return sorted(found)


def survey_numbers(splits: Splits, word: str) -> NumberSurvey:
    """Counts the numbers under a word of truth, of which there is at least one."""
    known = {
        name: [s.of(word) for s in splits.split(name) if s.of(word) is not None]
        for name in SPLIT_NAMES
    }
    every = np.array([number for numbers in known.values() for number in numbers], np.float64)
    either = bool(np.isin(every, (0.0, 1.0)).all())
    return NumberSurvey(
        {name: len(numbers) for name, numbers in known.items()},
        tuple(np.percentile(every, (0, 50, 100)).tolist()),
        float(every.mean()) if either else None,
    )


def survey_pixels(splits: Splits, word: str, count: int | None) -> PixelSurvey:
    """Loads an even choice of `count` (None: all) of the truth of pixels under a word."""
    names = splits.labels_of(word)
    samples = {
        name: sum(s.of(word) is not None for s in splits.split(name)) for name in SPLIT_NAMES
    }
    chosen = evenly([s for s in splits.samples if s.of(word) is not None], count)
    totals, images = np.zeros(256, np.int64), np.zeros(256, np.int64)
    pixels = said = 0
    some: list[NDArray[np.float32]] = []
    unreadable = []
    for sample in chosen:
        try:
            values = true_values(sample.of(word), "float32", np.nan)
            size = sample.source.load().shape[:2]
        except ImageError as error:
            unreadable.append(str(error))
            continue
        if values.shape != size:
            unreadable.append(different_size(sample, word, values.shape, size))
            continue
        known = values[np.isfinite(values)]
        if names:
            known = known[known != NO_CLASS]
            counts = np.bincount(known.astype(np.int64), minlength=256)
            totals, images = totals + counts, images + (counts > 0)
        else:
            some.append(known[:: max(1, known.size // 10_000)])
        pixels, said = pixels + values.size, said + known.size
    drawn = np.concatenate(some) if some else np.empty(0, np.float32)
    return PixelSurvey(
        samples,
        len(chosen),
        1 - said / pixels if pixels else 0.0,
        {name: float(totals[i] / max(said, 1)) for i, name in enumerate(names)},
        {name: int(images[i]) for i, name in enumerate(names)},
        tuple(np.percentile(drawn, (5, 50, 95)).tolist()) if drawn.size else (),
        tuple(unreadable),
    )


def evenly(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """Returns at most `count` samples, evenly spread, the first and the last among them."""
    if count is None or count >= len(samples):
        return list(samples)
    return [samples[i] for i in np.linspace(0, len(samples) - 1, count).round().astype(int)]


def survey_poses(splits: Splits) -> PoseSurvey | None:
    """Returns extent and path length; None without poses."""
    positions = [s.T_map_camera[:3, 3] for s in splits.samples if s.T_map_camera is not None]
    if not positions:
        return None
    low, high = np.min(positions, axis=0), np.max(positions, axis=0)
    length = 0.0
    for group in in_order(splits).values():
        track = np.array([s.T_map_camera[:3, 3] for s in group if s.T_map_camera is not None])
        if len(track) > 1:
            length += float(np.linalg.norm(np.diff(track, axis=0), axis=1).sum())
    return PoseSurvey(tuple(low.tolist()), tuple(high.tolist()), length)


def in_order(splits: Splits) -> dict[str, list[Sample]]:
    """Returns each recording's samples of all splits, by stamp or else by name."""
    groups = by_sequence(splits.samples)
    for group in groups.values():
        group.sort(key=lambda s: (s.stamp_ns or 0, natural_key(s.name)))
    return groups


def nearest_train(splits: Splits, split: str = "test") -> NearestTrain | None:
    """Returns how far a split's poses are from training poses; None where either has none."""
    train = [s for s in splits.train if s.T_map_camera is not None]
    queries = evenly([s for s in splits.split(split) if s.T_map_camera is not None], _MOST_QUERIES)
    if not train or not queries:
        return None
    train_p, train_q = _arrays(train)
    query_p, query_q = _arrays(queries)
    metres, degrees, answered = [], [], 0
    for p, q in zip(query_p, query_q, strict=True):
        distance = np.linalg.norm(train_p - p, axis=1)
        chord = np.minimum(np.linalg.norm(train_q - q, axis=1), np.linalg.norm(train_q + q, axis=1))
        angle = np.degrees(4 * np.arcsin(np.clip(chord / 2, 0, 1)))
        nearest = int(distance.argmin())
        metres.append(distance[nearest])
        degrees.append(angle[nearest])
        near = distance <= _NEAR_M
        answered += bool(np.any(near & (angle <= _NEAR_DEG) if splits.has_orientation else near))
    median_deg = float(np.median(degrees)) if splits.has_orientation else float("nan")
    return NearestTrain(
        float(np.median(metres)), median_deg, answered / len(queries), _NEAR_M, _NEAR_DEG
    )


def _arrays(samples: Sequence[Sample]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    poses = [s.T_map_camera for s in samples if s.T_map_camera is not None]
    positions = np.array([T[:3, 3] for T in poses])
    return positions, np.array([xyzw_from_matrix(T[:3, :3]) for T in poses])


def overlaps(splits: Splits, contents: bool = True) -> dict[tuple[str, str], Overlap]:
    """Returns what each pair of splits shares.

    Args:
        splits: the data set.
        contents: read every image once to compare their bytes.
    """
    names = {name: {id(s) for s in splits.split(name)} for name in SPLIT_NAMES}
    role = {i: name for name, members in names.items() for i in members}
    neighbours: Counter[tuple[str, str]] = Counter()
    for group in in_order(splits).values():
        roles = [role[id(s)] for s in group]
        close = _consecutive(group)
        for i, mine in enumerate(roles):
            before = {roles[i - 1]} if i > 0 and close[i - 1] else set()
            after = {roles[i + 1]} if i + 1 < len(roles) and close[i] else set()
            neighbours.update((other, mine) for other in (before | after) - {mine})
    hashes: dict[str, dict[str, str]] = {name: {} for name in SPLIT_NAMES}
    if contents:
        for name in SPLIT_NAMES:
            pairs = zip(splits.contents(name), splits.split(name), strict=True)
            hashes[name] = {content: sample.name for content, sample in pairs}
    found = {}
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        both = sorted(hashes[first].keys() & hashes[second].keys())
        same = tuple((hashes[first][h], hashes[second][h]) for h in both)
        found[first, second] = Overlap(same, neighbours[first, second])
    return found


def content_notes(splits: Splits) -> list[str]:
    """Returns notes on splits with images in common or that lack classes, and on images with two labels.

    Reads every image, unless `Splits.contents` was asked for before.
    """
    notes = []
    for first, second in (("train", "test"), ("train", "validation"), ("validation", "test")):
        names = dict(
            zip(splits.contents(first), (s.name for s in splits.split(first)), strict=True)
        )
        pairs = zip(splits.contents(second), splits.split(second), strict=True)
        shared = [(names[content], s.name) for content, s in pairs if content in names]
        if shared:
            notes.append(
                f"{len(shared)} of {len(splits.split(second))} {second} images are, byte for byte, also in "
                f"{first}, such as {' = '.join(shared[0])}: what is measured on {second} is too good until "
                "they are taken out of one"
            )
    return notes + _lacking_notes(splits) + two_labels_note(splits)


def _lacking_notes(splits: Splits) -> list[str]:
    """Returns a note for each held-out split that shows none of a class, as blocks of a short drive may."""
    labels, notes = splits.labels_of("label"), []
    for split in ("validation", "test"):
        shown = {sample.label for sample in splits.split(split)} - {None}
        lacking = [label for label in labels if label not in shown]
        if shown and lacking:
            some = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
            notes.append(
                f"{split} lacks images of {len(lacking)} of {len(labels)} classes ({some}): what is measured "
                f"on {split} says nothing of {agreeing(len(lacking), 'them')}"
            )
    return notes


def two_labels_note(splits: Splits) -> list[str]:
    """Returns a note that counts images which are there with two labels; see `content_notes`."""
    labels: dict[str, dict[str, str]] = {}
    for split in SPLIT_NAMES:
        for content, sample in zip(splits.contents(split), splits.split(split), strict=True):
            if sample.label is not None:
                labels.setdefault(content, {}).setdefault(sample.label, sample.name)
    double = [names for names in labels.values() if len(names) > 1]
    if not double:
        return []
    names = " = ".join(double[0].values())
    return [
        f"{counted(len(double), 'image has', 'images have')} more than one label, such as {names}: one of "
        "them is wrong"
    ]


def _consecutive(group: Sequence[Sample]) -> NDArray[np.bool_]:
    """Returns for each pair of samples that follow each other (N-1,) whether none was left out between.

    By stamps, or else by the last number in their names; a step is whole up to twice the median step. Without
    either every pair counts.
    """
    numbers = [_DIGITS.findall(s.name.rsplit("/", 1)[-1]) for s in group]
    if all(s.stamp_ns is not None for s in group):
        at = np.array([s.stamp_ns for s in group], np.float64)
    elif all(numbers):
        at = np.array([float(found[-1]) for found in numbers])
    else:
        return np.ones(max(0, len(group) - 1), bool)
    steps = np.abs(np.diff(at))
    return steps <= 2 * np.median(steps) if len(steps) else np.ones(0, bool)
