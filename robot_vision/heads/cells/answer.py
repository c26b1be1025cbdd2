"""What a head of cells says of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.head import Answer
from robot_vision.geometry.squares import centres

RADII = (0.5, 1.0, 2.0, 5.0)  # metres


@dataclass(frozen=True)
class CellsAnswer(Answer):
    """Where the camera is in a plane of the map, as probabilities of cells.

    Attributes:
        cells: float64 (K, 4), metres: low corner and high corner of each.
        probabilities: float32 (K,), sums to 1.
    """

    CHECKED: ClassVar[Mapping[str, str]] = {"probabilities": "probabilities of cells"}

    cells: NDArray[np.float64]
    probabilities: NDArray[np.float32]

    @property
    def best(self) -> int:
        """The most probable cell, of equal ones the first."""
        return int(self.probabilities.argmax())

    @property
    def centre(self) -> NDArray[np.float64]:
        """Centre (2,) of the most probable cell, metres."""
        return centres(self.cells[self.best][None])[0]

    @property
    def expected(self) -> NDArray[np.float64]:
        """Expected position (2,), metres: between two peaks it is where nobody is."""
        return self.probabilities.astype(np.float64) @ centres(self.cells)

    @property
    def entropy(self) -> float:
        """Entropy in nats: 0 where one cell is certain, log K where nothing is known."""
        p = self.probabilities.astype(np.float64)
        return float(-(p * np.log(np.maximum(p, 1e-300))).sum())

    def within(self, radius_m: float) -> float:
        """Returns the probability of the cells whose centres are within a radius of the best one's."""
        away = np.linalg.norm(centres(self.cells) - self.centre, axis=1)
        return float(self.probabilities[away <= radius_m].sum(dtype=np.float64))

    def top(self, count: int) -> list[int]:
        """Returns the most probable cells, the best first; of equal ones the first comes first."""
        return np.argsort(-self.probabilities, kind="stable")[:count].tolist()
