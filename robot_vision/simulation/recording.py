"""Recordings to learn to drive from: images, where the way is free there, and whether something is in it."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from robot_vision.errors import ConfigError, SourceError
from robot_vision.files.whole import write_whole
from robot_vision.labelling.table import TABLE
from robot_vision.simulation.drivers import FREE_WAY, Driver
from robot_vision.simulation.free_way import BLOCKED_M, FreeWay, free_way
from robot_vision.simulation.referee import Drive, judge
from robot_vision.simulation.robot import Mount
from robot_vision.simulation.simulator import Simulator

RECORD = "recording.json"
_FORMAT = "robot_vision.driven/2"
_COLUMNS = ("image", "steering", "collision", "free_m", "world", "driver", "split")
_JPEG_QUALITY = 92
_VALIDATION = 8  # every eighth world is for validation
_DISTURBED_S = (0.4, 1.6)  # how long a disturbance lasts
_DT_S = 0.1


class Disturbed:
    """A driver whose robot sometimes does something else, so that it gets to where the driver would not.

    Args:
        seed: of the disturbances.
        share: of the time in which the robot does not obey.
        driver: what drives.
    """

    def __init__(self, seed: int, share: float, driver: Driver) -> None:
        self._share, self._driver = share, driver
        self._rng = np.random.default_rng((seed, 25))
        self._until, self._turn = 0, 0.0
        self._calls = 0

    def reset(self) -> None:
        """Ends a disturbance."""
        self._driver.reset()
        self._until = 0

    def __call__(self, simulator: Simulator) -> tuple[float, float]:
        """Returns what the robot does."""
        most = simulator.robot.max_turn_rate_rad_s
        command = self._driver(simulator)
        self._calls += 1
        if self._calls >= self._until:
            mean = sum(_DISTURBED_S) / 2 / _DT_S
            begins = self._share / max(1 - self._share, 1e-9) / mean
            if self._rng.random() < begins:
                self._until = self._calls + round(float(self._rng.uniform(*_DISTURBED_S)) / _DT_S)
                self._turn = float(self._rng.uniform(-most, most))
        if self._calls < self._until:
            return simulator.robot.max_speed_m_s, self._turn
        return command


@dataclass(frozen=True)
class Way:
    """How a home is driven through for a recording.

    Attributes:
        metres: to drive.
        disturbed: share of the time in which the robot does not obey; the labels stay what they are.
        walkers: in each home.
        moving_doors: whether doors slide open and shut.
    """

    metres: float = 40.0
    disturbed: float = 0.3
    walkers: int = 0
    moving_doors: bool = False


class FolderRecording:
    """A folder of images and their table, as `train` takes it (`labels_csv`).

    Columns: `steering` to the free way in [-1, 1], positive to the left; `free_m`, metres that are free
    straight ahead (see `free_way`); `collision`, 1 where these are few; `world`; `driver`; and `split`, by
    whole worlds.

    `recording.json` lists the homes that each driver is through with, and how often it hit something and was
    stuck there. A recording that was cut off goes
    on: the rows of a home that was not finished are left out, and it is driven through again.

    Args:
        folder: is made, or goes on.
        mount: of the camera.
        blocked_m: nearer than this straight ahead, something is in the way.

    Attributes:
        images: in the table.
        blocked: how many of them show something in the way.

    Raises:
        SourceError: it has a table of something else, or another process records into it.
        ConfigError: it was recorded with another mount or distance.
    """

    def __init__(self, folder: Path, mount: Mount, blocked_m: float = BLOCKED_M) -> None:
        self.folder, self.blocked_m = folder, blocked_m
        self._settings = {"blocked_m": blocked_m, "mount": asdict(mount)}
        self._drives: dict[str, dict[str, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        table, record = folder / TABLE, folder / RECORD
        if table.exists():
            if not record.is_file():
                raise SourceError(
                    f"{table} exists already, and no {RECORD} says how it was recorded: choose another folder"
                )
            self._drives = self._read(record)
        self._lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise SourceError(
                f"another process records into {folder}: wait for it, or choose another folder"
            ) from None
        self.images = self.blocked = 0
        self._keep_finished(table)
        self._write_record()
        self._file = table.open("a", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file)

    def __enter__(self) -> FolderRecording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        os.close(self._lock)

    def has(self, name: str, driver: str, way: Way) -> bool:
        """Says whether a driver is through with a home.

        Raises:
            ConfigError: it is, but went another way.
        """
        there = self._drives.get(f"{name}/{driver}")
        if there is None:
            return False
        wanted, there = asdict(way), {**asdict(Way()), **there}  # older ones do not say all
        if other := [key for key, value in wanted.items() if there.get(key) != value]:
            differing = ", ".join(f"{key} {there.get(key)}, not {wanted[key]}" for key in other)
            raise ConfigError(
                f"{self.folder} has {name} by {driver} with {differing}: record it so, other homes, or "
                "into another folder"
            )
        return True

    def add(
        self,
        seed: int,
        name: str,
        simulator: Simulator,
        way: Way,
        driver: tuple[str, Driver] | None = None,
    ) -> Drive:
        """Drives through a home and records each image.

        Args:
            seed: of the home; each eighth is for validation.
            name: of the home, for folders.
            simulator: the robot.
            way: how it is driven through.
            driver: its name, and what drives; None for `FreeWay`.

        Returns:
            How the driver did.

        Raises:
            SourceError: an image cannot be written.
        """
        who, drives = driver or (FREE_WAY, FreeWay())
        driven = Disturbed(simulator.seed, way.disturbed, drives)
        split = "val" if seed % _VALIDATION == _VALIDATION - 1 else "train"
        (self.folder / name).mkdir(exist_ok=True)
        before = self.images

        def record(simulator: Simulator, _command: tuple[float, float]) -> None:
            steering, free = free_way(simulator, self.blocked_m)
            free = round(free, 3)
            blocked = int(free < self.blocked_m)
            file = f"{name}/{who}-{self.images - before:06d}.jpg"
            bgr = cv2.cvtColor(simulator.image(), cv2.COLOR_RGB2BGR)
            path = str(self.folder / file)
            if not cv2.imwrite(path, bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]):
                raise SourceError(f"{path} cannot be written: is the disk full?")
            self._rows.writerow([file, f"{steering:.4f}", blocked, f"{free:.3f}", name, who, split])
            self.images += 1
            self.blocked += blocked

        drive = judge(simulator, driven, way.metres, name, record)
        self._file.flush()
        self._drives[f"{name}/{who}"] = {
            **asdict(way),
            "images": self.images - before,
            "collisions": len(drive.hits),
            "stuck": drive.stuck,
        }
        self._write_record()
        return drive

    def _read(self, record: Path) -> dict[str, dict[str, Any]]:
        """Returns the drives that are finished."""
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
            settings, drives = found["settings"], found["drives"]
            known = found["format"] == _FORMAT and isinstance(settings, Mapping)
        except (ValueError, KeyError, TypeError):
            known = False
        if not known or not isinstance(drives, dict):
            raise SourceError(f"{record} says nothing of a recording: choose another folder")
        for key, value in self._settings.items():
            if settings.get(key) != value:
                raise ConfigError(
                    f"{self.folder} was recorded with {key} {settings.get(key)}, not {value}: record with "
                    "the same, or into another folder"
                )
        return drives

    def _write_record(self) -> None:
        found = {"format": _FORMAT, "settings": self._settings, "drives": self._drives}
        write_whole(self.folder / RECORD, json.dumps(found, indent=1) + "\n")

    def _keep_finished(self, table: Path) -> None:
        """Leaves out the rows of drives that were cut off, and counts the others."""
        rows = []
        if table.exists():
            with table.open(newline="", encoding="utf-8") as file:
                rows = [
                    row
                    for row in csv.DictReader(file)
                    if f"{row.get('world')}/{row.get('driver')}" in self._drives
                ]
        self.images, self.blocked = len(rows), sum(row["collision"] == "1" for row in rows)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, _COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(table, text.getvalue())
