"""A camera in the physical world, from which tests write each format by that format's own definition."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np


@dataclass(frozen=True)
class Camera:
    """Where it is, where it looks and which way its right is, in the map: no matrix, no quaternion."""

    centre: np.ndarray
    forward: np.ndarray
    right: np.ndarray

    @property
    def down(self) -> np.ndarray:
        return np.cross(self.forward, self.right)

    def coordinates(self, point: np.ndarray) -> np.ndarray:
        """How far a point is to the right, below and in front."""
        ray = point - self.centre
        return np.array([ray @ self.right, ray @ self.down, ray @ self.forward])

    def sees(self, T_map_camera: np.ndarray, point: np.ndarray) -> np.ndarray:
        """The same through a pose: `p_camera = inv(T_map_camera) @ p_map`."""
        return (np.linalg.inv(T_map_camera) @ np.append(point, 1.0))[:3]


def camera(i: int = 0) -> Camera:
    """Camera i of a walk, tilted and rolled so that no two axes can be exchanged unnoticed."""
    forward = np.array([np.cos(0.1 * i), np.sin(0.1 * i), -0.3])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.2, 0.1, 1.0])
    right /= np.linalg.norm(right)
    return Camera(np.array([0.1 * i, 2.0 - 0.05 * i, 1.5]), forward, right)


POINT = np.array([4.0, -1.0, 0.5])


def write_image(file: Path, seed: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """Writes an image whose content follows from the seed; returns its RGB pixels (exact for PNG)."""
    rng = np.random.default_rng(seed)
    image = np.kron(rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3)), np.ones((8, 8, 1)))
    image = image.astype(np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), image[..., ::-1])
    return image


def image_folder(root: Path, counts: dict[str, int], suffix: str = "png") -> Path:
    """Writes `counts[folder]` images in each folder."""
    for f, (folder, count) in enumerate(counts.items()):
        for i in range(count):
            write_image(root / folder / f"{i}.{suffix}", 1000 * f + i)
    return root
