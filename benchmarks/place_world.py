"""Descriptors of a made-up world of places, as many as wanted, that lie as real ones do.

A million real places with descriptors of 512 numbers are not at hand, and independent random vectors would
be no substitute: they have no neighbours. So a descriptor is made of

- a centre for each room of 250 keyframes, drawn with a spectrum that decays (standard deviations i^-0.5) as
  that of pooled features does; rooms come in buildings of 40 with a centre of their own;
- a smooth function of the camera's pose in the room (24 random Fourier features of x, y and yaw), so that
  neighbours are alike;
- noise of each single view;

normalised. The weights give the similarities that the demo model has on the 7-Scenes kitchen: 0.97 between
keyframes that follow one another, 0.5 (0.3 to 0.8) between any two of one room. A query is another visit: a
pose within 0.3 m and 10 degrees of a keyframe, with noise of twice the size and a change of the light that
all queries share.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

ROOM = 250
BUILDING = 40
FEATURES = 24
METRES = 1.1  # over which a view changes entirely
RADIANS = 0.7
CENTRE, BUILDING_CENTRE, VIEW, NOISE, LIGHT = 0.60, 0.35, 0.72, 0.14, 0.2


class PlaceWorld:
    """Rooms made one after another from a seed, so that no more than one has to be in memory."""

    def __init__(self, places: int, dimension: int = 512, seed: int = 0) -> None:
        self.places, self.dimension, self.seed = places, dimension, seed
        rng = np.random.default_rng((seed, 0))
        spectrum = np.arange(1, dimension + 1) ** -0.5
        self._spectrum = (spectrum / np.linalg.norm(spectrum)).astype(np.float32)
        # Which numbers vary most is spread over the descriptor by a rotation.
        self._rotation = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0].astype(np.float32)
        self._light = self._direction(rng, 1)[0]

    def _direction(self, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
        numbers = rng.standard_normal((count, self.dimension), np.float32)
        return numbers * self._spectrum  # (count, D), norm about 1

    def rooms(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Yields for each room descriptors (n, D) of its keyframes and of another visit to each."""
        for room, start in enumerate(range(0, self.places, ROOM)):
            count = min(ROOM, self.places - start)
            building = np.random.default_rng((self.seed, 1, room // BUILDING))
            rng = np.random.default_rng((self.seed, 2, room))
            centre = CENTRE * self._direction(rng, 1)[0]
            centre += BUILDING_CENTRE * self._direction(building, 1)[0]
            wave = rng.normal(size=(3, FEATURES)) / np.array([[METRES], [METRES], [RADIANS]])
            phase = rng.uniform(0, 2 * np.pi, FEATURES)
            basis = self._direction(rng, FEATURES) * np.float32(
                (2 / FEATURES) ** 0.5
            )  # (FEATURES, D)
            pose = _walk(rng, count)
            near = pose + rng.uniform(-1, 1, (count, 3)) * (0.2, 0.2, np.radians(10))
            both = []
            for poses, noise, light in ((pose, NOISE, 0.0), (near, 2 * NOISE, LIGHT)):
                views = VIEW * np.cos(poses @ wave + phase).astype(np.float32) @ basis
                views += centre + light * self._light
                views += np.float32(noise / self.dimension**0.5) * rng.standard_normal(
                    views.shape, np.float32
                )
                views = views @ self._rotation
                both.append(views / np.linalg.norm(views, axis=1, keepdims=True))
            yield both[0], both[1]

    def arrays(self, queries: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns descriptors (places, D), and queries (Q, D) near randomly chosen ones."""
        rng = np.random.default_rng((self.seed, 3))
        chosen = np.sort(rng.permutation(self.places)[:queries])
        result = np.empty((self.places, self.dimension), np.float32)
        asked = np.empty((len(chosen), self.dimension), np.float32)
        start = 0
        for descriptors, others in self.rooms():
            end = start + len(descriptors)
            result[start:end] = descriptors
            first, last = np.searchsorted(chosen, (start, end))
            asked[first:last] = others[chosen[first:last] - start]
            start = end
        return result, rng.permutation(asked)


def _walk(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Returns x (m), y (m), yaw (rad) of a robot that wanders through a room: (count, 3)."""
    yaw = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.12, count))
    step = 0.15 * np.stack((np.cos(yaw), np.sin(yaw)), axis=1)
    return np.hstack((np.cumsum(step, axis=0), yaw[:, None]))
