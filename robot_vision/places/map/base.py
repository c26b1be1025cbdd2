"""A place map: what it holds, what it can do, and how it fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, Union

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import RobotVisionError
from robot_vision.places.map.keyframe import Keyframe

SCHEMA_VERSION = 1


DTYPES = ("float32", "float16")


MAX_DIMENSION = 65536


MODES = ("read", "write")


Mode = Literal["read", "write"]


Ids = Union[Sequence[int], NDArray[np.int64]]  # noqa: UP007 (evaluated in Python 3.10 too)


class MapError(RobotVisionError):
    """A place map that is missing, damaged, of another version or model, or cannot be used now."""


class MapMissingError(MapError):
    """There is no map where one was to be opened."""


class MapFullError(MapError):
    """No room is left where the map lies. What was acknowledged is safe; adding may be tried again later."""


class MapBusyError(MapError):
    """Another process held the map for longer than was waited. It may be tried again."""


class MapReplacedError(MapError):
    """Another map stands where this one was opened: it was copied over it, or made again on the server."""


class KeyframeThereError(MapError):
    """The map has a keyframe of that id, or of the same source, camera and stamp, already."""


class MapReadOnlyError(MapError):
    """A map that was opened for reading, or that the system does not let us write, was written to."""


class NewMap(NamedTuple):
    """What a map is made with; `MapInfo` says what each means."""

    bundle_name: str
    bundle_sha256: str
    dimension: int
    descriptor_dtype: str
    frame_id: str


@dataclass(frozen=True)
class MapInfo:
    """What a map says of itself.

    Attributes:
        uri: where it was opened.
        map_id: 32 hexadecimal digits, made with the map; a copy has its own.
        schema_version: of the tables.
        bundle_name: name of the model bundle that made the descriptors.
        bundle_sha256: `ModelBundle.sha256` of it.
        dimension: numbers of a descriptor.
        descriptor_dtype: how they are stored, one of `DTYPES`; they come out as float32.
        frame_id: frame of the poses.
        created_ns: when the map was made, nanoseconds since 1970 UTC.
    """

    uri: str
    map_id: str
    schema_version: int
    bundle_name: str
    bundle_sha256: str
    dimension: int
    descriptor_dtype: str
    frame_id: str
    created_ns: int

    @property
    def new(self) -> NewMap:
        """What a map of the same kind is made with."""
        return NewMap(*(getattr(self, name) for name in NewMap._fields))


@dataclass(frozen=True, eq=False)
class MapPoses:
    """All keyframes without their pictures and descriptors, in ascending order of their ids.

    Attributes:
        ids: int64 (N,).
        stamps_ns: int64 (N,).
        positions: float64 (N, 3), metres, map frame.
        quaternions_xyzw: float64 (N, 4).
        cameras: names (N).
        sources: names (N).
    """

    ids: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    positions: NDArray[np.float64]
    quaternions_xyzw: NDArray[np.float64]
    cameras: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Changes:
    """What happened in a map after a revision, by this process or another.

    Attributes:
        revision: the map's revision now: hand it to the next call of `PlaceMap.changes`.
        added: int64, ascending ids that came and are still there.
        removed: int64, ascending ids that went.
    """

    revision: int
    added: NDArray[np.int64]
    removed: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Added:
    """A keyframe that `PlaceMap.revise` adds.

    Attributes:
        keyframe: the keyframe.
        evidence: of it, or None.
        structure: of it, or None.
    """

    keyframe: Keyframe
    evidence: bytes | None = None
    structure: bytes | None = None


class PlaceMap(Protocol):
    """Keyframes on disk or on a server. One object is for one thread; processes share the map itself.

    Every call may raise `MapError`: damaged, locked for too long (`MapBusyError`), no room
    (`MapFullError`), not writable (`MapReadOnlyError`). After any of them the object can be used on,
    except after `MapReplacedError`, which asks for opening the map again.

    Attributes:
        info: what the map says of itself.
    """

    info: MapInfo

    @property
    def revision(self) -> int:
        """Grows with every change; cheap to ask for."""

    def __len__(self) -> int: ...

    def __enter__(self) -> PlaceMap: ...

    def __exit__(self, *_: object) -> None: ...

    def add(self, keyframe: Keyframe) -> int:
        """Adds a keyframe and returns its id; it is durable when the call returns.

        A keyframe that has an id keeps it.

        Raises:
            ConfigError: `keyframe.check` refuses it.
            KeyframeThereError: its id, or its source, camera and stamp together, are taken.
        """

    def add_many(self, keyframes: Iterable[Keyframe]) -> list[int]:
        """Adds all of them or, where it raises, none; much faster than one by one. See `add`."""

    def get(self, keyframe_id: int) -> Keyframe:
        """Returns one keyframe.

        Raises:
            MapError: there is none of that id.
        """

    def keyframes(self, ids: Ids | None = None) -> Iterator[Keyframe]:
        """Yields all keyframes in the order of their ids, or those of `ids`, in the order given.

        Raises:
            MapError: an id does not exist.
        """

    def remove(self, ids: Ids) -> int:
        """Removes keyframes with their structure and returns how many there were; others are no error."""

    def poses(self) -> MapPoses:
        """Returns where every keyframe is."""

    def descriptors(self, ids: Ids | None = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns ids (N,), ascending, and descriptors (N, D) of all, or of those `ids` that are there."""

    def checksums(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns ids (N,), ascending, and a checksum of each one's descriptor (N,), of this kind of map."""

    def changes(self, since: int) -> Changes:
        """Returns what was added and removed after a revision (0: everything)."""

    def set_structure(self, keyframe_id: int, structure: bytes) -> None:
        """Keeps a keyframe's local features and points, replacing what was there.

        Points are in the keyframe's camera frame, so that a map that is moved or merged into another
        keeps them valid.

        Raises:
            MapError: there is no such keyframe.
        """

    def set_structures(self, structures: Mapping[int, bytes]) -> None:
        """Keeps the structures of several keyframes by their ids: all or, where it raises, none."""

    def structure(self, keyframe_id: int) -> bytes | None:
        """Returns what `set_structure` was given, or None."""

    def structure_ids(self) -> NDArray[np.int64]:
        """Returns the ids of keyframes with structure, ascending."""

    def evidence(self) -> dict[int, bytes]:
        """Returns what `revise` was given of each keyframe, by ascending ids; see `evidence.Evidence`."""

    def revise(
        self, remove: Ids, add: Sequence[Added], evidence: Mapping[int, bytes] | None = None
    ) -> list[int]:
        """Removes and adds keyframes and keeps evidence of those that stay: all or, where it raises, none.

        Args:
            remove: ids; those that are not there are no error.
            add: what comes.
            evidence: by the ids of keyframes; that of one that is gone meanwhile is left out.

        Returns:
            The ids of what was added.

        Raises:
            ConfigError, KeyframeThereError: see `add`.
        """

    def check(self) -> None:
        """Reads the whole map and raises `MapError` for what is damaged or contradicts itself."""

    def close(self) -> None:
        """Releases the map; a second call does nothing."""


class Named(Protocol):
    """A model bundle, or what is known of one that runs elsewhere."""

    @property
    def name(self) -> str:
        """Of the bundle."""

    @property
    def sha256(self) -> str:
        """Of the bundle."""


def refuse_other_model(info: MapInfo, bundle: Named) -> None:
    """Checks that a map was made by a bundle.

    Raises:
        MapError: it was made by another; the message names both.
    """
    if info.bundle_sha256 != bundle.sha256:
        raise MapError(
            f"{info.uri} was made by model {info.bundle_name} ({info.bundle_sha256[:12]}) and cannot "
            f"be used with {bundle.name} ({bundle.sha256[:12]}): their descriptors cannot be compared. "
            "Use that model, or rebuild the map with this one"
        )


def taken(uri: str, keyframe: Keyframe) -> str:
    """Returns the message of a `KeyframeThereError`."""
    number = "" if keyframe.keyframe_id is None else f" or keyframe {keyframe.keyframe_id}"
    return (
        f"{uri} has a keyframe of {keyframe.source!r}, camera {keyframe.camera!r}, at "
        f"{keyframe.stamp_ns} ns already{number}: give every run a source of its own"
    )
