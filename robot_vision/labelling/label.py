"""Labels the images of a drive by what was measured and driven, and writes them as data sets.

The folder is one of `labels_csv` (the numbers `steering` and `collision`) and, with label images, one of
`mask_folder`. It gets its name when it is whole.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.datasets.image_files import FileImage
from robot_vision.datasets.sample import Sample
from robot_vision.errors import ImageError, SourceError
from robot_vision.files.whole import draft_folder
from robot_vision.images.compressed import JPEG, PNG
from robot_vision.images.orientation import orientation_of
from robot_vision.labelling.drives import Drive
from robot_vision.labelling.memory import Memory
from robot_vision.labelling.motion import Motion
from robot_vision.labelling.outline import Outline, free_ahead, free_along
from robot_vision.labelling.table import TABLE
from robot_vision.labelling.traversable import CLASSES, pixels_of_way
from robot_vision.labelling.views import Eyes, View
from robot_vision.recordings.bag_file import BagImage
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import Skipped

COLUMNS = ("image", "steering", "collision", "free_m", "speed_m_s", "ttc_s", "recording", "split")
CLASS_TABLE = "classes.txt"
COLLISION, STEERING, TRAVERSABLE = LABELS = ("collision", "steering", "traversable")
CORRIDORS = ("ahead", "driven")
_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_JPEG_QUALITY = 92
# Of the cells of the corridor's cross-section; with less nobody knows that it is free.
_LOOKED_AT = 0.9
_MOVES_M_S = 0.02  # slower there is no time to a collision


@dataclass(frozen=True)
class Rules:
    """What is labelled how.

    Attributes:
        labels: some of `LABELS`.
        outline: of the robot; None where steering alone is labelled.
        corridor: `ahead` of the robot, or along the way that it drove until it stood, and straight on.
        blocked_m: nearer than this something is in the way.
        blocked_s: or sooner than this at the speed that was driven; 0: it does not count.
        pixels: of a depth image that must be as near.
        reach_m: farther is not looked.
        max_turn_rad_s: turn rate of a steering of 1.
        steering_s: over which the turn is averaged, from the image on.
    """

    labels: frozenset[str]
    outline: Outline | None
    corridor: str = "ahead"
    blocked_m: float = 0.5
    blocked_s: float = 0.0
    pixels: int = 20
    reach_m: float = 5.0
    max_turn_rad_s: float = 1.0
    steering_s: float = 0.5

    def eyes(self, T_base_sensor: NDArray[np.float64], lens: Any, same_pixels: bool) -> Eyes:
        """Returns what turns measurements of a sensor there into views."""
        assert self.outline is not None
        pixels = self.pixels if lens is not None else 1
        return Eyes(self.outline, self.blocked_m, pixels, T_base_sensor, lens, same_pixels)


@dataclass
class Report:
    """What was labelled.

    Attributes:
        images: written.
        collisions: how many of those with a label are blocked, and how many are free.
        turns: the steering of each image that has it.
        masks: label images.
        pixels: share of each class, of all pixels of label images.
        notes: what was left out, by what it was for; a line each.
        problems: images and measurements that cannot be read, a line each.
    """

    images: int = 0
    collisions: Counter[bool] = field(default_factory=Counter)
    turns: list[float] = field(default_factory=list)
    masks: int = 0
    pixels: Counter[int] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def label_drives(
    drives: Sequence[Drive], rules: Rules, out: Path, tick: Callable[[], None] = lambda: None
) -> Report:
    """Labels drives and writes them.

    Args:
        drives: to label.
        rules: how.
        out: folder that is written; it may not exist.
        tick: called after each image.

    Raises:
        SourceError: `out` exists, or no image could be labelled.
        OSError: it cannot be written.
    """
    if out.exists():
        raise SourceError(f"{out} exists already: remove it or choose another folder")
    report = Report()
    with draft_folder(out.absolute()) as part:
        writer = _Writer(part, rules, report)
        try:
            for drive in drives:
                writer.drive(drive, tick)
        finally:
            writer.close()
        if not report.images:
            why = "; ".join([*report.notes, *report.problems[:3]])
            raise SourceError(f"no image could be labelled ({why})")
    return report


class _Writer:
    def __init__(self, folder: Path, rules: Rules, report: Report) -> None:
        self._folder, self._rules, self._report = folder, rules, report
        self._file = (folder / TABLE).open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file)
        self._rows.writerow(COLUMNS)
        self._without = {name: Skipped() for name in LABELS}
        self._names: set[str] = set()
        self._memory: Memory | None = None
        self._remembered = 0
        if TRAVERSABLE in rules.labels:
            lines = [f"{i} {name} {r} {g} {b}\n" for i, (name, (r, g, b)) in enumerate(CLASSES)]
            (folder / CLASS_TABLE).write_text("".join(lines), encoding="utf-8")

    def close(self) -> None:
        self._file.close()
        for name, skipped in self._without.items():
            self._report.notes += [f"{name}: {note}" for note in skipped.notes()]
        if self._remembered:
            count = counted(self._remembered, "image is", "images are")
            self._report.notes.append(
                f"{COLLISION}: {count} blocked by what was seen up to 3 s before, where now are holes"
            )

    def drive(self, drive: Drive, tick: Callable[[], None]) -> None:
        motion = Motion(drive.times_s, drive.T_map_base)
        if self._rules.outline is not None:
            self._memory = Memory(motion, self._rules.outline, self._rules.reach_m)
        for i, sample in enumerate(drive.samples):
            try:
                self._image(drive, motion, i, sample)
            except ImageError as error:
                self._report.problems.append(f"{sample.name}: {error}")
            tick()

    def _image(self, drive: Drive, motion: Motion, i: int, sample: Sample) -> None:
        rules, report = self._rules, self._report
        speed = motion.speed_m_s(i)
        view = self._view(drive, i, sample) if rules.outline is not None else None
        blocked, free, contact = self._collision(motion, i, sample, view, speed)
        steering = self._steering(motion, i, sample)
        mask = self._mask(motion, i, sample, view)
        if blocked is None and steering is None and mask is None:
            return
        suffix, data = _stored(sample)
        file = self._name(drive, i, sample, "images", suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        if mask is not None:
            self._write_mask(file, mask)
        self._rows.writerow(
            [
                file.relative_to(self._folder).as_posix(),
                "" if steering is None else f"{steering:.4f}",
                "" if blocked is None else int(blocked),
                _text(free),
                _text(speed),
                _text(contact),
                drive.name,
                _SPLITS[drive.splits[i]],
            ]
        )
        report.images += 1
        if blocked is not None:
            report.collisions[blocked] += 1
        if steering is not None:
            report.turns.append(steering)

    def _view(self, drive: Drive, i: int, sample: Sample) -> tuple[View, Eyes] | None:
        measured = drive.measured[i]
        if measured is None:
            for name in self._rules.labels - {STEERING}:
                self._without[name].add("which have no measurement near their stamps", sample.name)
            return None
        eyes = drive.eyes(sample)
        if isinstance(measured, BagImage):
            return eyes.of_scan(measured.message()), eyes
        return eyes.of_depth(measured), eyes

    def _collision(
        self,
        motion: Motion,
        i: int,
        sample: Sample,
        seen: tuple[View, Eyes] | None,
        speed: float,
    ) -> tuple[bool | None, float, float]:
        """Returns whether something is in the way, how far it is, and when it would be hit."""
        rules, nothing = self._rules, float("nan")
        if COLLISION not in rules.labels or seen is None or rules.outline is None:
            return None, nothing, nothing
        view, eyes = seen
        without = self._without[COLLISION]
        if rules.corridor == "driven":
            if not motion.joined(i) and not (i and motion.joined(i - 1)):
                without.add("whose way afterwards is not known", sample.name)
                return None, nothing, nothing
            way = motion.way(i, rules.reach_m)
            free = free_along(view.points, way, rules.outline, eyes.pixels, rules.reach_m)
        else:
            free = free_ahead(view.points, rules.outline, eyes.pixels)
        if self._memory is not None:
            if view.looked_at < _LOOKED_AT:
                before = self._memory.free_ahead(i, eyes.pixels)
                if before < rules.blocked_m and not free <= before:
                    free, self._remembered = before, self._remembered + 1
            self._memory.add(i, view.points)
        near = free < rules.blocked_m
        if np.isnan(free) or (not near and view.looked_at < _LOOKED_AT):
            without.add("whose measurement has holes in the corridor", sample.name)
            return None, nothing, nothing
        free = min(free, rules.reach_m)
        contact = free / speed if speed > _MOVES_M_S else nothing
        return bool(near or contact < rules.blocked_s), free, contact

    def _steering(self, motion: Motion, i: int, sample: Sample) -> float | None:
        rules = self._rules
        if STEERING not in rules.labels:
            return None
        turn = motion.turn_rad_s(i, rules.steering_s)
        if np.isnan(turn):
            reason = f"whose motion in the next {rules.steering_s:g} s is not known"
            self._without[STEERING].add(reason, sample.name)
            return None
        return float(np.clip(turn / rules.max_turn_rad_s, -1, 1))

    def _mask(
        self, motion: Motion, i: int, sample: Sample, seen: tuple[View, Eyes] | None
    ) -> NDArray[np.uint8] | None:
        rules = self._rules
        if TRAVERSABLE not in rules.labels or seen is None or rules.outline is None:
            return None
        view, eyes = seen
        without = self._without[TRAVERSABLE]
        if view.size is None or not eyes.same_pixels:
            without.add(
                "whose pixels nothing measured: it takes depth of the images' pixels", sample.name
            )
            return None
        if not motion.joined(i):
            without.add("whose way afterwards is not known", sample.name)
            return None
        way = motion.way(i, rules.reach_m, stops=False)
        return pixels_of_way(view.points, view.size, way, rules.outline, rules.reach_m)

    def _write_mask(self, image: Path, mask: NDArray[np.uint8]) -> None:
        below = image.relative_to(self._folder).parts
        file = self._folder.joinpath(below[0], "labels", *below[2:]).with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        done, data = cv2.imencode(".png", mask)
        assert done
        file.write_bytes(data.tobytes())
        self._report.masks += 1
        classes, counts = np.unique(mask, return_counts=True)
        for of, count in zip(classes.tolist(), counts.tolist(), strict=True):
            self._report.pixels[of] += count

    def _name(self, drive: Drive, i: int, sample: Sample, kind: str, suffix: str) -> Path:
        """Returns the file of an image, which no other has; `labels_csv` finds recordings by folders."""
        stem = re.split(r"[/#]", sample.name)[-1]
        stem = f"{int(stem):06d}" if stem.isdecimal() else _plain(Path(stem).stem)
        folder = f"{_SPLITS[drive.splits[i]]}/{kind}/{_plain(drive.name)}"
        name = f"{folder}/{stem}"
        while name.lower() in self._names:
            name += "_"
        self._names.add(name.lower())
        return self._folder / f"{name}{suffix}"


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name).strip(".") or "_"


def _text(number: float) -> str:
    return "" if np.isnan(number) else f"{number:.3f}"


def _stored(sample: Sample) -> tuple[str, bytes]:
    """Returns the suffix and bytes of an image: those that it has, or a JPEG of its pixels.

    Raises:
        ImageError: it cannot be read or decoded.
    """
    data = sample.source.encoded()
    upright = not (isinstance(sample.source, FileImage) and orientation_of(data) != 1)
    for magic, suffix in ((JPEG, ".jpg"), (PNG, ".png")):
        if data.startswith(magic) and upright:
            sample.source.load((64, 64))  # a damaged image is no image to train on
            return suffix, data
    image = sample.source.load()
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    done, coded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    assert done
    return ".jpg", coded.tobytes()


def counted_pixels(report: Report) -> Iterable[tuple[str, float]]:
    """Returns the share of all pixels of label images that each class has."""
    total = max(sum(report.pixels.values()), 1)
    return [(name, report.pixels[i] / total) for i, (name, _) in enumerate(CLASSES)]
