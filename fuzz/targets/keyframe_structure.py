"""Local features and points of a keyframe in a map from the internet: an .npz."""

from __future__ import annotations

import io

import numpy as np

from robot_vision.places.verification.structure import KeyframeStructure, StructureError

MAX_LEN = 1 << 12
ALLOWED_S = 5.0


def one_input(data: bytes) -> None:
    """The whole blob."""
    try:
        structure = KeyframeStructure.from_bytes(data)
    except StructureError:
        return
    count = len(structure.features.rays)
    assert structure.points.shape == (count, 3) and structure.has_point.shape == (count,)


def npz(save: object = np.savez, **changes: object) -> bytes:
    """Returns a structure of two features, with some of its arrays changed."""
    arrays: dict[str, object] = {
        "format": np.array([1], np.int64),
        "detector": np.array([0], np.int64),
        "focal_px": np.array([500.0]),
        "rays": np.zeros((2, 2), np.float32),
        "descriptors": np.zeros((2, 32), np.uint8),
        "points": np.ones((2, 3), np.float32),
        "depth_sigma": np.ones(2, np.float16),
    }
    buffer = io.BytesIO()
    assert callable(save)
    save(buffer, **{**arrays, **changes})
    return buffer.getvalue()


def seeds() -> list[bytes]:
    """Returns structures, one of them with pickled objects."""
    pickled = np.array([{"a": 1}, {"b": 2}], object)
    learned = npz(
        network=np.frombuffer(b"0123456789ab", np.uint8), detector=np.array([5], np.int64)
    )
    return [npz(), learned, npz(np.savez_compressed), npz(rays=np.zeros((0, 2))), npz(rays=pickled)]
