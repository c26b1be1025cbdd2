"""Images of one colour, whose labels and poses are those of the tiny bundle with other uncertainties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.special import softmax
from tiny_bundle import LABELS

from robot_vision.datasets.sample import Sample

TRUE_TEMPERATURE = 3.0
SCALE = np.array([4.0, 4.0, 4.0, 0.25, 0.25, 0.25])


@dataclass(frozen=True)
class Solid:
    """An image of one colour, in memory."""

    colour: tuple[int, int, int]

    def load(self, min_size: tuple[int, int] | None = None) -> np.ndarray:
        return np.full((8, 12, 3), self.colour, np.uint8)

    def encoded(self) -> bytes:
        return bytes(self.colour)


def colour_samples(count: int, rng: np.random.Generator, posed: bool = False) -> list[Sample]:
    """Solid colours whose labels follow the tiny bundle's logits at a temperature of 3, not of 1.

    Their poses are where that bundle says, off by errors of 4 and 0.25 times the variances it states.
    """
    samples = []
    for i in range(count):
        mixture = rng.dirichlet([0.3, 0.3, 0.3])
        colour = np.rint(255 * (0.1 + 0.8 * mixture)).astype(int)
        logits = 20 * colour / 255
        label = LABELS[rng.choice(3, p=softmax(logits / TRUE_TEMPERATURE))]
        pose = None
        if posed:
            variance = 0.01 + colour[2] / 255
            error = rng.normal(size=6) * np.sqrt(variance * SCALE)
            turn = Rotation.from_rotvec(error[3:])
            seen = Rotation.from_quat([0, 0, np.sin(colour[0] / 255), np.cos(colour[0] / 255)])
            pose = np.eye(4)
            pose[:3, :3] = (turn * seen).as_matrix()
            pose[:3, 3] = colour / 255 + error[:3]
        source = Solid(tuple(int(v) for v in colour))
        samples.append(Sample(f"{i}", label, pose, None, "walk", source))
    return samples
