"""Recordings of the expert: images, how it would steer, and whether something is in the way."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from robot_vision.errors import SourceError
from robot_vision.simulation.drivers import Expert
from robot_vision.simulation.referee import judge
from robot_vision.simulation.simulator import Simulator

TABLE = "labels.csv"
_COLUMNS = ("image", "steering", "collision", "free_m", "world", "split")
_JPEG_QUALITY = 92
_VALIDATION = 8  # each of so many worlds
_DISTURBED_S = (0.4, 1.6)  # how long a disturbance lasts
_DT_S = 0.1


@dataclass(frozen=True)
class Labels:
    """What is labelled how.

    Attributes:
        blocked_m: nearer than this straight ahead, something is in the way.
        disturbed: share of the time in which the robot does not obey, so that there are images of what
            the expert alone would never come to; the labels stay the expert's.
    """

    blocked_m: float = 0.5
    disturbed: float = 0.3


class Disturbed:
    """The expert, whose robot sometimes does something else.

    Args:
        seed: of the expert and of the disturbances.
        share: of the time.

    Attributes:
        steering: what the expert wanted last: its turn rate as a share of the largest, in [-1, 1].
    """

    def __init__(self, seed: int, share: float) -> None:
        self._expert, self._share = Expert(seed), share
        self._rng = np.random.default_rng((seed, 25))
        self._until, self._turn = 0, 0.0
        self._calls = 0
        self.steering = 0.0

    def reset(self) -> None:
        """Ends a disturbance."""
        self._expert.reset()
        self._until = 0

    def __call__(self, simulator: Simulator) -> tuple[float, float]:
        """Returns what the robot does."""
        most = simulator.robot.max_turn_rate_rad_s
        speed, turn_rate = self._expert(simulator)
        self.steering = float(np.clip(turn_rate / most, -1, 1))
        self._calls += 1
        if self._calls >= self._until:
            mean = sum(_DISTURBED_S) / 2 / _DT_S
            begins = self._share / max(1 - self._share, 1e-9) / mean
            if self._rng.random() < begins:
                self._until = self._calls + round(float(self._rng.uniform(*_DISTURBED_S)) / _DT_S)
                self._turn = float(self._rng.uniform(-most, most))
        if self._calls < self._until:
            return simulator.robot.max_speed_m_s, self._turn
        return speed, turn_rate


class FolderRecording:
    """A folder of images and their table, as `train` takes it (`labels_csv`).

    Columns: `steering` in [-1, 1], positive to the left; `collision`, 1 where something is in the way;
    `free_m`, metres until the robot would hit something straight ahead, at most 5; `world`; and `split`,
    by whole worlds.

    Args:
        folder: is made; may not have a table yet.

    Raises:
        SourceError: it has one.
    """

    def __init__(self, folder: Path, labels: Labels) -> None:
        self.folder, self.labels = folder, labels
        if (folder / TABLE).exists():
            raise SourceError(
                f"{folder / TABLE} exists already: remove it or choose another folder"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.images = self.blocked = 0
        self._file = (folder / TABLE).open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file)
        self._rows.writerow(_COLUMNS)

    def __enter__(self) -> FolderRecording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(
        self,
        number: int,
        name: str,
        simulator: Simulator,
        metres: float,
    ) -> None:
        """Drives in a world and records each image.

        Args:
            number: of the world in this recording.
            name: of the world, for folders.
            simulator: the robot.
            metres: to drive.
        """
        driver = Disturbed(simulator.seed, self.labels.disturbed)
        split = "val" if number % _VALIDATION == _VALIDATION - 1 else "train"
        (self.folder / name).mkdir(exist_ok=True)

        def record(simulator: Simulator, _command: tuple[float, float]) -> None:
            free = round(simulator.free_ahead(), 3)
            blocked = free < self.labels.blocked_m
            file = f"{name}/{self.images:06d}.jpg"
            bgr = cv2.cvtColor(simulator.image(), cv2.COLOR_RGB2BGR)
            path = str(self.folder / file)
            if not cv2.imwrite(path, bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]):
                raise SourceError(f"{path} cannot be written: is the disk full?")
            self._rows.writerow(
                [file, f"{driver.steering:.4f}", int(blocked), f"{free:.3f}", name, split]
            )
            self.images += 1
            self.blocked += blocked

        judge(simulator, driver, metres, name, record)
