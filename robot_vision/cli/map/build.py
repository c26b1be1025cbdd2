"""`robot-vision map build` and `map add`: keyframes of recordings with poses."""

from __future__ import annotations

import argparse
import math
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import TextColumn

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.cli.arguments import data_options, progress
from robot_vision.datasets import SPLIT_NAMES, Sample, Splits, open_dataset
from robot_vision.datasets.registry import kinds_of
from robot_vision.engines import create_engine
from robot_vision.engines import factory as engines
from robot_vision.errors import ConfigError, SourceError, unknown
from robot_vision.files.natural_order import natural_key
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.pipeline import Pipeline
from robot_vision.places.map.base import DTYPES, MapError, MapMissingError, PlaceMap
from robot_vision.places.map.building import Built, MapView
from robot_vision.places.map.building import build as build_map
from robot_vision.places.map.keyframe import MAX_TEXT, numbered
from robot_vision.places.map.keyframe_policy import KeyframePolicy
from robot_vision.places.map.opening import create_map_for, open_map
from robot_vision.places.verification.builder import StructureBuilder
from robot_vision.places.verification.options import VerificationOptions
from robot_vision.places.verification.structure import refuse_other_features
from robot_vision.text.counts import counted


def build(args: argparse.Namespace) -> int:
    """Makes a map, or goes on with one that was stopped."""
    bundle = ModelBundle.load(find_model(args.model))
    return make(args, bundle, *recorded_views(args))


def make(
    args: argparse.Namespace,
    bundle: ModelBundle,
    views: list[MapView],
    frame_id: str,
    notes: tuple[str, ...],
    elsewhere: str = "use robot-vision map add, or name another map",
) -> int:
    """Makes the map of views, or goes on with it; returns the exit status.

    `elsewhere` is the advice where the map holds another recording.
    """
    # Before there is a map, which a refusal would leave empty.
    how = _how(args, views)
    try:
        places = open_map(args.map, bundle=bundle)
    except MapMissingError:
        places = create_map_for(args.map, bundle, frame_id, args.dtype)
    with places:
        if args.dtype != (found := places.info.descriptor_dtype):
            if args.dtype != DTYPES[0]:  # the default does not say whether it was given
                raise MapError(
                    f"{places.info.uri} has descriptors of {found}: leave --dtype out, or {elsewhere}"
                )
            notes += (f"the map exists and keeps its descriptors of {found}",)
        others = sorted(set(places.poses().sources) - {view.source for view in views})
        if others:
            raise MapError(
                f"{places.info.uri} exists already, with keyframes of {', '.join(others[:3])}: "
                f"{elsewhere}"
            )
        return _go(args, places, bundle, views, frame_id, notes, how, rename=False)


def add(args: argparse.Namespace) -> int:
    """Adds another recording to a map."""
    bundle = ModelBundle.load(find_model(args.model))
    views, frame_id, notes = recorded_views(args)
    how = _how(args, views)
    with open_map(args.map, bundle=bundle) as places:
        return _go(args, places, bundle, views, frame_id, notes, how, rename=True)


_How = tuple[KeyframePolicy, NDArray[np.float64] | None, StructureBuilder | None]


def _how(args: argparse.Namespace, views: list[MapView]) -> _How:
    """Returns which views become keyframes, their poses' covariance, and what makes their structure.

    Raises:
        ConfigError: an option is wrong, has no effect or does not go with the recording.
    """
    policy = KeyframePolicy(args.distance, args.angle, args.similarity, args.revisits)
    engines.places(args.engine, args.device)
    if args.features and not args.structure:
        raise ConfigError("--features has no effect without --structure")
    builder = None
    if args.structure:
        builder = StructureBuilder(VerificationOptions.of_features(args.features))
        if any(v.camera_matrix is None and v.intrinsics is None for v in views):
            raise ConfigError(
                f"{args.source} does not say what its camera's matrix is, which keyframes' structure needs: "
                "give --option camera_matrix=fx,fy,cx,cy"
            )
    if not 0 <= args.thumbnail <= 1024:
        raise ConfigError(f"--thumbnail is {args.thumbnail}: use 0 (none) to 1024 pixels")
    return policy, _covariance(args.sigma), builder


def _go(
    args: argparse.Namespace,
    places: PlaceMap,
    bundle: ModelBundle,
    views: list[MapView],
    frame_id: str,
    notes: tuple[str, ...],
    how: _How,
    rename: bool,
) -> int:
    """Builds with a bar; returns the exit status."""
    refuse_frame(args.source, frame_id, places, ", or build a map of its own and merge it")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    policy, covariance, builder = how
    structure = None
    if builder is not None:
        refuse_other_features(places, builder.extract.kind)
        structure = ViewStructure(builder)
    done = Built()
    interrupted = False
    with (
        Pipeline(bundle, create_engine(bundle, args.engine, args.device)) as pipeline,
        progress(TextColumn("{task.fields[text]}", markup=False)) as bar,
    ):
        task = bar.add_task("mapping", total=len(views), text="")

        def say(now: Built) -> None:
            nonlocal done
            done = now
            bar.update(task, completed=now.views, text=counted(now.added, "keyframe"))

        try:
            done = build_map(
                places,
                views,
                pipeline,
                policy,
                thumbnail=args.thumbnail,
                covariance=covariance,
                structure=structure,
                rename=rename,
                say=say,
            )
        except KeyboardInterrupt:
            interrupted = True
    return _report(args, places, done, len(views), interrupted, structure)


def _report(
    args: argparse.Namespace,
    places: PlaceMap,
    done: Built,
    views: int,
    interrupted: bool,
    structure: ViewStructure | None,
) -> int:
    for problem in done.first_problems:
        print(f"warning: {problem}", file=sys.stderr)
    words = [
        f"{places.info.uri}: {counted(done.added, 'keyframe')} added from {done.views} of "
        f"{counted(views, 'image')}",
        f"{len(places)} in the map",
    ]
    if structure is not None:
        words.append(structure.summary)
    for old, new in done.renamed.items():
        words.append(
            f"{old!r} is kept as {new!r}, since the map has another recording of that name"
        )
    if done.moved:
        words.append(
            f"{done.moved} of those that were there have other poses now and were left as they are "
            "(remove them with map prune to take them again)"
        )
    if done.known:
        words.insert(1, f"{done.known} were there")
    if done.unreadable:
        reasons = ", ".join(f"{n} {reason}" for reason, n in done.unreadable.most_common())
        words.append(
            f"{counted(done.unreadable.total(), 'image cannot', 'images cannot')} be read "
            f"({reasons})"
        )
    if interrupted:
        words.append("stopped; the same command continues from here")
    print("; ".join(words))
    if interrupted:
        return 130
    return 1 if done.unreadable else 0


def refuse_frame(source: str, frame_id: str, places: PlaceMap, more: str = "") -> None:
    """Refuses poses in another frame than the map's.

    Raises:
        ConfigError: with what gives others, and `more`.
    """
    if places.info.frame_id != frame_id:
        raise ConfigError(
            f"{source} has poses in frame {frame_id!r} and the map is in {places.info.frame_id!r}: take "
            "poses in the map's frame (--option pose_topic=TOPIC or pose_source=tf of a bag, map_frame="
            f"{places.info.frame_id} of data whose poses name no frame){more}"
        )


def _covariance(sigma: list[float] | None) -> NDArray[np.float64] | None:
    if sigma is None:
        return None
    metres, degrees = sigma
    if not (0 < metres < 1e3 and 0 < degrees <= 180):
        raise ConfigError(
            f"--sigma is {metres:g} m and {degrees:g} deg: both must be more than 0, and those of a map"
        )
    return np.diag([metres**2] * 3 + [math.radians(degrees) ** 2] * 3)


def recorded_views(args: argparse.Namespace) -> tuple[list[MapView], str, tuple[str, ...]]:
    """Returns the recording's views in order, the frame of their poses, and notes."""
    if args.split != "all" and args.split not in SPLIT_NAMES:
        raise ConfigError(unknown("split", args.split, ("all", *SPLIT_NAMES)))
    kind = args.kind or _kind(Path(args.source).expanduser())
    splits = open_dataset(kind, args.source, **data_options(args.option))
    if not splits.has_orientation:
        raise ConfigError(f"{args.source} has positions and no orientations: a map needs both")
    chosen = splits.samples if args.split == "all" else splits.split(args.split)
    keep = {id(sample) for sample in chosen if sample.T_map_camera is not None}
    if not keep:
        raise SourceError(
            f"{args.source} has no image with a pose: give its poses (robot-vision data formats {kind})"
        )
    views = [
        _view(args, splits, sample, number)
        for group in _ordered(splits)
        for number, sample in enumerate(group, 1)
        if id(sample) in keep
    ]
    return views, splits.map_frame, splits.notes


def _kind(path: Path) -> str:
    """Returns the format of a recording.

    Raises:
        SourceError: it cannot be found out.
    """
    if not path.exists():
        raise SourceError(f"{path} does not exist: give a bag or a data set with poses")
    kinds = [kind for kind in kinds_of(path) if kind != "labels_csv"]  # which has no poses
    if kinds:
        return kinds[0]
    raise SourceError(f"{path} does not show which data set it is: name its format with --kind")


def _ordered(splits: Splits) -> list[list[Sample]]:
    """Returns every recording's samples, of all splits, in the order in which they were taken."""
    groups: dict[str, list[Sample]] = {}
    for sample in splits.samples:
        groups.setdefault(sample.sequence, []).append(sample)
    for group in groups.values():
        group.sort(key=lambda s: (s.stamp_ns or 0, natural_key(s.name)))
    return [groups[name] for name in sorted(groups, key=natural_key)]


def _view(args: argparse.Namespace, splits: Splits, sample: Sample, number: int) -> MapView:
    assert sample.T_map_camera is not None
    camera = getattr(args, "camera", None) or str(getattr(sample.source, "topic", "camera"))
    source = sample.sequence or Path(args.source).resolve().name
    if getattr(args, "name", None):  # of a recording that is added
        alone = len({s.sequence for s in splits.samples}) == 1
        source = args.name if alone else f"{args.name}/{source}"
    matrix = sample.camera_matrix if sample.camera_matrix is not None else splits.camera_matrix
    return MapView(
        sample.name,
        numbered(number) if sample.stamp_ns is None else sample.stamp_ns,
        _fitting(camera),
        _fitting(source),
        sample.T_map_camera,
        sample.source.load,
        matrix,
        sample.intrinsics,
    )


def _fitting(name: str) -> str:
    """Returns a name that a map can keep; long ones that begin alike stay apart."""
    if len(name) <= MAX_TEXT:
        return name
    return f"{name[: MAX_TEXT - 9]}~{zlib.crc32(name.encode()):08x}"


class ViewStructure:
    """Hands views to a `StructureBuilder`: a `building.Structurer`."""

    def __init__(self, builder: StructureBuilder) -> None:
        builder.provisional = False  # a build that is stopped goes on; a robot may be switched off
        self._builder = builder

    def add(self, keyframe_id: int, view: MapView, image: NDArray[np.uint8]) -> Mapping[int, bytes]:
        """See `building.Structurer`."""
        intrinsics = view.intrinsics
        if intrinsics is None:
            assert view.camera_matrix is not None
            height, width = image.shape[:2]
            intrinsics = Intrinsics.of_matrix(view.camera_matrix, width, height)
        return self._builder.add(keyframe_id, view.T_map_camera, image, intrinsics)

    @property
    def summary(self) -> str:
        """What was built, for people."""
        return self._builder.summary

    def flush(self) -> Mapping[int, bytes]:
        """See `building.Structurer`."""
        return self._builder.flush()
