"""A keyframe: one remembered view, with where it was taken and what the network made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.geometry import rigid as geometry

MAX_ID = 1 << 62
MAX_TEXT = 200  # characters of `camera` and `source`
MAX_THUMBNAIL_BYTES = 1 << 20
# Images without stamps are numbered from here on, far below any time: their order is known, and no more.
_UNSTAMPED = -(1 << 62)
_MOST_UNSTAMPED = 1 << 40
_UNIT = 1e-3  # how far a descriptor's norm may be from 1; float16 rounding stays below


@dataclass(frozen=True, eq=False)
class Keyframe:
    """One place of a map.

    Attributes:
        keyframe_id: its number in the map, never used again after a removal; None before it is added.
        stamp_ns: when the image was taken; of `numbered` for one without a stamp.
        camera: which camera took it (name or topic).
        source: the bag, data set or run that it came from; with `camera` and `stamp_ns` it is unique.
        position: float64 (3,), metres, of the camera's optical frame (z forward, x right, y down) in
            the map frame: the translation of `T_map_camera`.
        quaternion_xyzw: float64 (4,), unit length with w >= 0: the rotation of `T_map_camera`.
        covariance: float64 (6, 6) of the pose, x y z in m^2, then rotation about the map's fixed X, Y, Z
            in rad^2, as everywhere; None where nobody said.
        descriptor: float32 (D,), L2 norm 1.
        thumbnail: a small JPEG to look at, or None.
    """

    keyframe_id: int | None
    stamp_ns: int
    camera: str
    source: str
    position: NDArray[np.float64]
    quaternion_xyzw: NDArray[np.float64]
    covariance: NDArray[np.float64] | None
    descriptor: NDArray[np.float32]
    thumbnail: bytes | None = None

    @property
    def T_map_camera(self) -> NDArray[np.float64]:
        """The pose as a matrix (4, 4)."""
        return geometry.pose_matrix(self.position, self.quaternion_xyzw)

    @classmethod
    def checked(
        cls,
        *,
        stamp_ns: int,
        camera: str,
        source: str,
        T_map_camera: NDArray[Any],
        descriptor: NDArray[Any],
        covariance: NDArray[Any] | None = None,
        thumbnail: bytes | None = None,
    ) -> Keyframe:
        """Returns a new keyframe from a pose matrix (4, 4); `check` has passed it.

        Raises:
            ConfigError: see `check`.
        """
        T = np.asarray(T_map_camera, np.float64)
        try:
            rotation = geometry.orthonormalised(T[:3, :3])
        except ValueError as error:
            raise ConfigError(f"Keyframe of {source} at {stamp_ns} ns: {error}") from error
        keyframe = cls(
            None,
            int(stamp_ns),
            camera,
            source,
            T[:3, 3].copy(),
            geometry.xyzw_from_matrix(rotation),
            None if covariance is None else np.asarray(covariance, np.float64).reshape(6, 6),
            np.asarray(descriptor, np.float32),
            thumbnail,
        )
        check(keyframe)
        return keyframe


def numbered(number: int) -> int:
    """Returns the `stamp_ns` of an image without a stamp: its place among those of its recording."""
    return _UNSTAMPED + number


def stamped(stamps_ns: NDArray[Any] | int) -> Any:
    """Returns which stamps, one or (N,), are times and not of `numbered`: bool of the same shape."""
    stamps = np.asarray(stamps_ns, np.int64)
    return (stamps < _UNSTAMPED) | (stamps > _UNSTAMPED + _MOST_UNSTAMPED)


def number_of(stamp_ns: int) -> int:
    """Returns what `numbered` was given."""
    return stamp_ns - _UNSTAMPED


def named(source: str, copy: int) -> str:
    """Returns the name of the copy-th recording of one name: `drive`, `drive (2)`, `drive (3)`."""
    end = "" if copy == 1 else f" ({copy})"
    return source[: MAX_TEXT - len(end)] + end


def check(keyframe: Keyframe, dimension: int | None = None) -> None:
    """Checks that a keyframe can be kept and found again.

    Args:
        keyframe: what to check.
        dimension: numbers of a descriptor in the map; None for any.

    Raises:
        ConfigError: a pose, covariance or descriptor that is not finite or of the wrong shape, a
            descriptor of another length or that is not of unit norm, a covariance that is not
            symmetric positive semidefinite, a stamp outside int64, a text or picture that is too long.
    """
    what = f"Keyframe of {keyframe.source!r} at {keyframe.stamp_ns} ns"
    check_descriptors(keyframe.descriptor[None], dimension, what)
    position, quaternion = np.asarray(keyframe.position), np.asarray(keyframe.quaternion_xyzw)
    if position.shape != (3,) or not np.all(np.isfinite(position)):
        raise ConfigError(f"{what}: position {position.tolist()} must be three finite numbers")
    norm = np.linalg.norm(quaternion)
    if quaternion.shape != (4,) or not np.isfinite(norm) or abs(norm - 1) > 1e-6:
        raise ConfigError(f"{what}: quaternion_xyzw {quaternion.tolist()} must be of length 1")
    if keyframe.covariance is not None:
        _check_covariance(keyframe.covariance, what)
    number = keyframe.keyframe_id
    if number is not None and not 1 <= number < MAX_ID:
        raise ConfigError(f"{what}: keyframe_id {number} must be 1 to {MAX_ID - 1}")
    if not -(1 << 63) <= keyframe.stamp_ns < 1 << 63:
        raise ConfigError(f"{what}: the stamp must fit into 64 bits")
    for name in ("camera", "source"):
        text: str = getattr(keyframe, name)
        if len(text) > MAX_TEXT or "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
            raise ConfigError(
                f"{what}: {name} must be Unicode of at most {MAX_TEXT} characters, none zero"
            )
    if keyframe.thumbnail is not None and len(keyframe.thumbnail) > MAX_THUMBNAIL_BYTES:
        raise ConfigError(
            f"{what}: thumbnail of {len(keyframe.thumbnail)} bytes; keep it below "
            f"{MAX_THUMBNAIL_BYTES}, it is only a preview"
        )


def check_descriptors(
    descriptors: NDArray[Any], dimension: int | None = None, what: str = "Descriptor"
) -> NDArray[np.float32]:
    """Returns descriptors (N, D) as contiguous float32 after checking them.

    Raises:
        ConfigError: no real numbers, another length than `dimension`, not finite, or not of unit norm.
    """
    given = np.asarray(descriptors)
    if given.dtype.kind not in "fiu":
        raise ConfigError(f"{what}: a descriptor is real numbers, not {given.dtype}")
    array = np.ascontiguousarray(given, np.float32)
    if array.ndim != 2 or not array.shape[1]:
        raise ConfigError(f"{what}: shape {array.shape} must be (N, D)")
    if dimension is not None and array.shape[1] != dimension:
        raise ConfigError(
            f"{what}: the descriptor has {array.shape[1]} numbers and the map's have {dimension}: "
            "use the model that the map was made with"
        )
    norms = np.sqrt(np.einsum("nd,nd->n", array, array))
    if not np.all(np.isfinite(norms)):
        raise ConfigError(f"{what}: the descriptor holds NaN or infinity")
    if array.size and np.max(np.abs(norms - 1)) > _UNIT:
        worst = norms[np.argmax(np.abs(norms - 1))]
        raise ConfigError(f"{what}: the descriptor's L2 norm is {worst:.4g} and must be 1")
    return array


def _check_covariance(covariance: NDArray[np.float64], what: str) -> None:
    if covariance.shape != (6, 6) or not np.all(np.isfinite(covariance)):
        raise ConfigError(f"{what}: the covariance must be 6 x 6 finite numbers")
    scale = max(float(np.max(np.abs(covariance))), 1e-12)
    if not np.allclose(covariance, covariance.T, atol=1e-6 * scale, rtol=0):
        raise ConfigError(f"{what}: the covariance is not symmetric")
    if np.linalg.eigvalsh(covariance)[0] < -1e-6 * scale:
        raise ConfigError(f"{what}: the covariance is not positive semidefinite")
