"""Copies and merges maps, of a file or a server, either way."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.geometry import rigid as geometry
from robot_vision.places.map.base import Added, MapError, MapInfo, MapMissingError, PlaceMap
from robot_vision.places.map.keyframe import Keyframe, named
from robot_vision.places.map.opening import create_map, open_map, refuse_mistyped
from robot_vision.places.map.sqlite_file import give_name
from robot_vision.text.address import is_server, shown

Say = Callable[[int, int], None]
_BATCH = 200
_EQUAL = 1 - 1e-4  # of a descriptor with itself in another precision


def copy_map(source: PlaceMap, target_uri: str | Path, say: Say | None = None) -> int:
    """Copies a map to a new one: every keyframe with its id, picture, structure and evidence, bit for bit.

    The source may be open for writing, here or elsewhere: the copy holds what was there when it began, less
    what is removed meanwhile. The copy appears under its name when it is whole. The copy has a
    `map_id` of its own.

    Args:
        source: what to copy.
        target_uri: a file or postgresql://...?map=NAME that does not exist yet.
        say: called with (done, all) from time to time.

    Returns:
        How many keyframes were copied.

    Raises:
        MapError: the target exists already, is being made by another copy, or cannot be written.
    """
    refuse_mistyped(target_uri)
    if is_server(target_uri):
        return _copy(source, target_uri, say)
    with _alone(Path(target_uri).expanduser()):
        return _copy(source, target_uri, say)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keeps other copies away from a file that is made; a process that is killed leaves nothing locked."""
    lock = path.with_name(f".{path.name}.copying.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise MapError(f"{path} cannot be written: {error}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its earlier owner may have taken the name away after this opened it.
            mine = os.path.samestat(os.fstat(handle), os.stat(lock))
        except (BlockingIOError, FileNotFoundError):
            mine = False
        except OSError as error:  # such as a network's file system without locks
            raise MapError(f"{lock} cannot be locked: {error}") from error
        if not mine:
            raise MapError(
                f"{path} is being made by another copy: wait for it, or choose another name"
            )
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _copy(source: PlaceMap, target_uri: str | Path, say: Say | None) -> int:
    done = 0
    with _draft(target_uri, source.info) as target:
        ids = source.changes(0).added
        with_structure = set(source.structure_ids().tolist())
        evidence = source.evidence()
        for start in range(0, len(ids), _BATCH):
            batch = list(_still_there(source, ids[start : start + _BATCH]))
            structures = _structures(source, batch, with_structure)
            _add(target, batch, [k.keyframe_id or 0 for k in batch], evidence, structures)
            done += len(batch)
            if say:
                say(done, len(ids))
    return done


@contextlib.contextmanager
def _draft(uri: str | Path, info: MapInfo) -> Iterator[PlaceMap]:
    """Yields an empty map like another one, which gets its name when the block ends without an error."""
    if is_server(uri):
        from robot_vision.places.map.postgres_map import PostgresMap

        with PostgresMap.draft(str(uri), info.new) as target:
            yield target
        return
    path = Path(uri).expanduser()
    if path.exists():
        raise MapError(f"{path} exists already: remove it or choose another name")
    draft = path.with_name(f".{path.name}.copying")
    remove_file(draft)  # of a copy that was killed
    try:
        with create_map(draft, **info.new._asdict()) as target:
            yield target
        give_name(draft, path)
    except BaseException:
        remove_file(draft)
        raise


def drop_map(uri: str | Path) -> None:
    """Removes a map with what belongs to it: its log, and the index that is kept of it.

    Raises:
        MapError: there is none, or a file is no map.
    """
    refuse_mistyped(uri)
    if is_server(uri):
        from robot_vision.places.map.postgres_map import PostgresMap

        if not PostgresMap.drop(str(uri)):
            raise MapMissingError(f"{shown(uri)} does not exist")
        return
    path = Path(uri).expanduser()
    open_map(path, "write").close()  # not a file of something else, and nobody is writing now
    remove_file(path)
    Path(f"{path}.index").unlink(missing_ok=True)


@dataclass(frozen=True)
class Merged:
    """What a merge did.

    Attributes:
        added: keyframes that came.
        known: keyframes that the target had already (same source, camera, stamp and descriptor).
        renamed: recordings of whose name the target has another one, to the names that they got.
    """

    added: int
    known: int
    renamed: Mapping[str, str]


def merge_map(
    target: PlaceMap,
    source: PlaceMap,
    T_target_source: NDArray[Any] | None = None,
    say: Say | None = None,
) -> Merged:
    """Adds the keyframes of one map to another; they get new ids. A merge that was stopped can be repeated.

    Args:
        target: grows.
        source: is left as it is.
        T_target_source: takes points of the source's map frame to the target's (4, 4); None for maps
            of one frame. Poses and covariances follow it. Structure is kept in camera coordinates.
        say: called with (done, all) from time to time.

    Raises:
        MapError: the maps are of different models, or are one map.
        ConfigError: `T_target_source` is no rigid transform.
    """
    refuse_merge(target, source)
    T = None if T_target_source is None else rigid(T_target_source)
    ids, renamed = plan_merge(target, source)
    count = len(source)
    with_structure = set(source.structure_ids().tolist())
    evidence = source.evidence() if T is None else {}  # whose poses are in the source's frame
    added = 0
    for start in range(0, len(ids), _BATCH):
        batch = list(_still_there(source, ids[start : start + _BATCH]))
        new = [
            replace(moved(k, T), keyframe_id=None, source=renamed.get(k.source, k.source))
            for k in batch
        ]
        structures = _structures(source, batch, with_structure)
        _add(target, new, [k.keyframe_id or 0 for k in batch], evidence, structures)
        added += len(new)
        if say:
            say(start + len(batch), len(ids))
    return Merged(added, count - len(ids), renamed)


def plan_merge(target: PlaceMap, source: PlaceMap) -> tuple[list[int], dict[str, str]]:
    """Returns the ids that a merge would add, and the names of recordings that it would change.

    A name and stamps tell no recording from another, so what is there has to have the same descriptors.
    """
    there, keys = _keys(target), _keys(source)
    ids, renamed = [], {}
    for name in sorted({key[0] for key in keys}):
        mine = {key[1:]: number for key, number in keys.items() if key[0] == name}
        for copy in itertools.count(1):
            new = named(name, copy)
            taken = {key[1:]: number for key, number in there.items() if key[0] == new}
            pairs = {number: taken[key] for key, number in mine.items() if key in taken}
            if _alike(source, list(pairs), target, list(pairs.values())):
                break
        if new != name:
            renamed[name] = new
        ids += [number for number in mine.values() if number not in pairs]
    return sorted(ids), renamed


def _alike(a: PlaceMap, a_ids: list[int], b: PlaceMap, b_ids: list[int]) -> bool:
    """Returns whether keyframes of one map have the descriptors of those of another."""
    for start in range(0, len(a_ids), _BATCH):
        few_a, few_b = a_ids[start : start + _BATCH], b_ids[start : start + _BATCH]
        of_a, of_b = (
            dict(zip(*places.descriptors(few), strict=True))
            for places, few in ((a, few_a), (b, few_b))
        )
        for i, j in zip(few_a, few_b, strict=True):
            if i in of_a and j in of_b and float(of_a[i] @ of_b[j]) < _EQUAL:
                return False
    return True


def refuse_merge(target: PlaceMap, source: PlaceMap) -> None:
    """Checks that two maps may become one.

    Raises:
        MapError: they are of different models, or are one map.
    """
    mine, other = target.info, source.info
    # A file that was copied by hand bears the same id, and may have grown since.
    files = [Path(uri) for uri in (mine.uri, other.uri) if not is_server(uri)]
    if mine.map_id == other.map_id and (len(files) < 2 or files[0].samefile(files[1])):
        raise MapError(f"{mine.uri} and {other.uri} are the same map: name another one")
    if mine.bundle_sha256 != other.bundle_sha256:
        raise MapError(
            f"{mine.uri} was made by model {mine.bundle_name} ({mine.bundle_sha256[:12]}) and "
            f"{other.uri} by {other.bundle_name} ({other.bundle_sha256[:12]}): their descriptors "
            "cannot be compared. Rebuild one of them with the other's model"
        )


def rigid(T: NDArray[Any]) -> NDArray[np.float64]:
    """Returns a rigid transform (4, 4) with an exact rotation.

    Raises:
        ConfigError: it is none.
    """
    matrix = np.array(T, np.float64)
    if matrix.shape != (4, 4) or not np.all(np.isfinite(matrix)):
        raise ConfigError(
            f"A transform must be 4 x 4 finite numbers, and this is {matrix.tolist()}"
        )
    try:
        matrix[:3, :3] = geometry.orthonormalised(matrix[:3, :3])
    except ValueError as error:
        raise ConfigError(f"A transform must be rigid: {error}") from error
    matrix[3] = (0, 0, 0, 1)
    return matrix


def moved(keyframe: Keyframe, T_new_map: NDArray[np.float64] | None) -> Keyframe:
    """Returns a keyframe in another map frame: its pose, and its covariance about the new axes."""
    if T_new_map is None:
        return keyframe
    T = T_new_map @ keyframe.T_map_camera
    covariance = keyframe.covariance
    if covariance is not None:
        turn = np.kron(np.eye(2), T_new_map[:3, :3])
        covariance = geometry.symmetrised(turn @ covariance @ turn.T)
    return replace(
        keyframe,
        position=T[:3, 3].copy(),
        quaternion_xyzw=geometry.xyzw_from_matrix(T[:3, :3]),
        covariance=covariance,
    )


def _add(
    target: PlaceMap,
    keyframes: list[Keyframe],
    source_ids: list[int],
    evidence: Mapping[int, bytes],
    structures: Mapping[int, bytes],
) -> None:
    """Adds keyframes of a source with what it keeps of them."""
    pairs = zip(keyframes, source_ids, strict=True)
    if evidence:
        target.revise((), [Added(k, evidence.get(i), structures.get(i)) for k, i in pairs])
        return
    numbers = dict(zip(source_ids, target.add_many(keyframes), strict=True))
    target.set_structures({numbers[i]: data for i, data in structures.items()})


def _structures(source: PlaceMap, batch: list[Keyframe], there: set[int]) -> dict[int, bytes]:
    ids = [k.keyframe_id for k in batch if k.keyframe_id in there]
    found = {i: source.structure(i) for i in ids if i is not None}
    return {i: data for i, data in found.items() if data is not None}


def _keys(places: PlaceMap) -> dict[tuple[str, str, int], int]:
    poses = places.poses()
    keys = zip(poses.sources, poses.cameras, poses.stamps_ns.tolist(), strict=True)
    return dict(zip(keys, poses.ids.tolist(), strict=True))


def _still_there(source: PlaceMap, ids: Sequence[int] | NDArray[np.int64]) -> Iterator[Keyframe]:
    """Yields keyframes, leaving out those that were removed since their ids were read."""
    try:
        yield from list(source.keyframes(ids))
        return
    except MapError:
        gone = set(source.changes(0).removed.tolist())
        left = [int(i) for i in ids if int(i) not in gone]
        if len(left) == len(ids):
            raise
    yield from _still_there(source, left)


def remove_file(path: Path) -> None:
    """Removes a map's file and what SQLite keeps next to it."""
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        name.unlink(missing_ok=True)
