"""`robot-vision map merge`, `prune` and `copy`: change and share maps."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from robot_vision.cli.arguments import progress
from robot_vision.errors import ConfigError, unknown
from robot_vision.geometry import rigid as geometry
from robot_vision.places.map.base import MapFullError, MapMissingError, PlaceMap
from robot_vision.places.map.copying import copy_map, drop_map, merge_map, plan_merge, refuse_merge
from robot_vision.places.map.keyframe_policy import KeyframePolicy, KeyframeSelector
from robot_vision.places.map.opening import open_map
from robot_vision.places.map.sqlite_map import SqliteMap
from robot_vision.places.verification.structure import kept_kind
from robot_vision.text.address import is_server, shown
from robot_vision.text.counts import counted


def merge(args: argparse.Namespace) -> int:
    """Adds other maps to a map."""
    T = None if args.transform is None else _transform(args.transform)
    with open_map(args.map, "read" if args.dry_run else "write") as target:
        for uri in args.others:
            with open_map(uri, "read") as source:
                refuse_merge(target, source)
                _refuse_other_features(target, source)
                if args.align:
                    from robot_vision.places.map.aligning import align_maps  # needs FAISS

                    found = align_maps(target, source)
                    T = found.T_target_source
                    pose = (*T[:3, 3], *geometry.xyzw_from_matrix(T[:3, :3]))
                    print(
                        f"{source.info.uri}: its frame lies at --transform "
                        f"{' '.join(f'{v:.6g}' for v in pose)} "
                        f"({found.agreeing} of {found.matches} common places agree, median distance "
                        f"{found.error_m:.2f} m; {found.runner_up} agree on something else)"
                    )
                elif T is None and source.info.frame_id != target.info.frame_id:
                    raise ConfigError(
                        f"{source.info.uri} is in frame {source.info.frame_id!r} and {target.info.uri} in "
                        f"{target.info.frame_id!r}: give --transform, or --align"
                    )
                if args.dry_run:
                    ids, renamed = plan_merge(target, source)
                    print(
                        f"{source.info.uri}: {len(ids)} of {counted(len(source), 'keyframe')} would be merged"
                    )
                    _say_renamed(renamed)
                    continue
                with _bar("merging") as say:
                    merged = merge_map(target, source, T, say)
                known = f", {merged.known} were there" if merged.known else ""
                print(
                    f"{source.info.uri}: {counted(merged.added, 'keyframe')} added{known}; "
                    f"{len(target)} in {target.info.uri}"
                )
                _say_renamed(merged.renamed)
    return 0


def _say_renamed(renamed: Mapping[str, str]) -> None:
    for old, new in renamed.items():
        print(f"note: {old!r} is kept as {new!r}, since there is another recording of that name")


def _transform(numbers: list[float]) -> NDArray[np.float64]:
    quaternion = np.array(numbers[3:])
    if not np.all(np.isfinite(numbers)) or abs(np.linalg.norm(quaternion) - 1) > 1e-3:
        raise ConfigError(
            f"--transform {' '.join(f'{v:g}' for v in numbers)}: the last four must be a quaternion of "
            "length 1, such as 0 0 0 1"
        )
    return geometry.pose_matrix(np.array(numbers[:3]), quaternion)


def _refuse_other_features(target: PlaceMap, source: PlaceMap) -> None:
    """Refuses maps whose local features cannot be compared with those of one image."""
    kinds = [kept_kind(places) for places in (target, source)]
    if all(kinds) and kinds[0] != kinds[1]:
        raise ConfigError(
            f"{target.info.uri} has features of {kinds[0]} and {source.info.uri} of {kinds[1]}: no image can "
            "be compared with both; build one of them again, with the --features of the other"
        )


def prune(args: argparse.Namespace) -> int:
    """Removes keyframes."""
    thin = args.distance is not None
    if not (thin or args.source or args.ids):
        raise ConfigError("Say what to prune: --distance M to thin out, --source NAME or --ids ID")
    if not thin and (args.angle is not None or args.similarity is not None or args.newest):
        raise ConfigError("--angle, --similarity and --newest say how to thin out: give --distance")
    with open_map(args.map, "read" if args.dry_run else "write") as places:
        poses = places.poses()
        gone: set[int] = set()
        for name in args.source or ():
            mine = [int(i) for i, s in zip(poses.ids, poses.sources, strict=True) if s == name]
            if not mine:
                raise ConfigError(unknown("source", name, sorted(set(poses.sources)) or ["none"]))
            gone.update(mine)
        unknown_ids = sorted(set(args.ids or ()) - set(poses.ids.tolist()))
        if unknown_ids:
            raise ConfigError(f"--ids {unknown_ids[0]}: {places.info.uri} has no such keyframe")
        gone.update(args.ids or ())
        if thin:
            policy = KeyframePolicy(
                args.distance,
                15.0 if args.angle is None else args.angle,
                0.8 if args.similarity is None else args.similarity,
            )
            gone.update(_redundant(places, policy, gone, args.newest))
        if args.dry_run:
            print(
                f"{places.info.uri}: {len(gone)} of {counted(len(poses.ids), 'keyframe')} would be removed"
            )
            return 0
        removed = places.remove(sorted(gone))
        if isinstance(places, SqliteMap) and removed:
            try:
                places.compact()
            except MapFullError:
                print(f"note: {places.info.uri} keeps its size: there is no space to rewrite it")
        print(
            f"{places.info.uri}: {removed} of {counted(len(poses.ids), 'keyframe')} removed; "
            f"{len(places)} are left"
        )
    return 0


def _redundant(
    places: PlaceMap, policy: KeyframePolicy, gone: set[int], newest: bool
) -> Iterator[int]:
    """Yields the ids of keyframes that another one, which is kept, shows too."""
    selector = KeyframeSelector(policy, remember=len(places) + 1)
    ids = [int(i) for i in places.poses().ids if int(i) not in gone]
    for keyframe in places.keyframes(ids[::-1] if newest else ids):
        assert keyframe.keyframe_id is not None
        if selector.shown(keyframe.T_map_camera, keyframe.descriptor):
            yield keyframe.keyframe_id
        else:
            selector.added(keyframe.T_map_camera, keyframe.descriptor)


def copy(args: argparse.Namespace) -> int:
    """Copies a map to a new one."""
    if args.server_index and not is_server(args.target):
        raise ConfigError(
            f"--server-index is for maps on a server, and {shown(args.target)} is a file"
        )
    with open_map(args.map, "read") as places, _bar("copying") as say:
        count = copy_map(places, args.target, say)
    if args.server_index:
        from robot_vision.places.map.postgres_map import PostgresMap

        with PostgresMap.open(args.target, "write") as target:
            target.make_server_index()
    with open_map(args.target, "read") as target_map:
        print(f"{target_map.info.uri}: {counted(count, 'keyframe')} copied")
    return 0


def drop(args: argparse.Namespace) -> int:
    """Removes a map."""
    try:
        with open_map(args.map, "read") as places:
            what = counted(len(places), "keyframe")
    except MapMissingError:
        what = "what an interrupted copy left behind"
        if not is_server(args.map):
            raise
    if args.dry_run:
        print(f"{shown(args.map)}: {what} would be removed")
        return 0
    drop_map(args.map)
    print(f"{shown(args.map)}: removed, with {what}")
    return 0


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    with progress() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, all_of_them: bar.update(task, completed=done, total=all_of_them)
