"""Builds a map from recorded views: network, choice of keyframes, and the map, in batches.

What is in the map already is not predicted again, so a build that was stopped goes on where it was, and ends
with the map that it would have made in one go.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ImageError
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import orthonormalised
from robot_vision.pipeline import Pipeline
from robot_vision.places.map.base import MapError, PlaceMap
from robot_vision.places.map.keyframe import Keyframe, named
from robot_vision.places.map.keyframe_policy import KeyframePolicy, KeyframeSelector
from robot_vision.places.map.opening import descriptor_size

DECODERS = 2
_QUALITY = 80  # of a thumbnail's JPEG
_COMPARED = 4  # images of a recording that tell whether it is in the map
# Similarity of an image with itself: on another engine or in another precision, and on the same.
_ALIKE, _EQUAL = 0.99, 1 - 1e-4
_WARM = 48  # keyframes whose images a stopped build looks at again to go on with structure

_Known = list[tuple[int, int]]  # places in a recording, and ids of keyframes
Load = Callable[["tuple[int, int] | None"], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class MapView:
    """One image of a recording, with its pose.

    Attributes:
        name: for people.
        stamp_ns: when it was taken.
        camera: name or topic.
        source: the recording; views of one are consecutive and in the order of their stamps.
        T_map_camera: float64 (4, 4), camera in optical axes.
        load: returns RGB uint8 (H, W, 3), at least (height, width) large where that is given.
        camera_matrix: float64 (3, 3), pixels of the whole image, or None.
        intrinsics: of the camera with its lens, where the recording tells them; they count over the matrix.
    """

    name: str
    stamp_ns: int
    camera: str
    source: str
    T_map_camera: NDArray[np.float64]
    load: Load
    camera_matrix: NDArray[np.float64] | None = None
    intrinsics: Intrinsics | None = None


class Structurer(Protocol):
    """Makes the structure that geometric verification needs; `verification.builder` has one."""

    def add(self, keyframe_id: int, view: MapView, image: NDArray[np.uint8]) -> Mapping[int, bytes]:
        """Takes in a keyframe; returns structure that is ready, by keyframe id."""

    def flush(self) -> Mapping[int, bytes]:
        """Returns what was waiting for later keyframes; the next one starts again."""


@dataclass
class Built:
    """What a build did so far.

    Attributes:
        views: looked at.
        added: keyframes that came.
        known: keyframes that were there already.
        moved: those of them that have another pose in the map than in the recording.
        renamed: recordings of whose name the map has another one, to the names that they got.
        unreadable: views whose image cannot be decoded, by reason.
        first_problems: some of them, for people.
    """

    views: int = 0
    added: int = 0
    known: int = 0
    moved: int = 0
    renamed: dict[str, str] = field(default_factory=dict)
    unreadable: Counter[str] = field(default_factory=Counter)
    first_problems: list[str] = field(default_factory=list)


def build(
    places: PlaceMap,
    views: Sequence[MapView],
    pipeline: Pipeline,
    policy: KeyframePolicy | None = None,
    *,
    batch: int = 8,
    thumbnail: int = 128,
    covariance: NDArray[np.float64] | None = None,
    structure: Structurer | None = None,
    rename: bool = True,
    say: Callable[[Built], None] | None = None,
) -> Built:
    """Adds keyframes of recordings to a map.

    Args:
        places: the map, open for writing.
        views: of one or several recordings.
        pipeline: of the model that the map was made with.
        policy: which views become keyframes.
        batch: images in a run of the network, and keyframes in a transaction.
        thumbnail: longer side of the pictures in pixels; 0 for none.
        covariance: of every keyframe's pose (6, 6), where it is known.
        structure: makes what verification needs, from images of full size.
        rename: keep a recording under another name where the map has other keyframes of its name and stamps.
        say: called after every batch.

    Returns:
        What was done.

    Raises:
        ConfigError: the model has no place head, or another descriptor than the map's.
        MapError: the map cannot be written; what was added before is safe. Or it has other keyframes of a
            recording's name and stamps, and `rename` is false.
    """
    descriptor_size(pipeline.bundle)
    there = _there(places)
    done = Built()
    keep = _Keeper(places, done, thumbnail, covariance, structure)
    size = pipeline.bundle.spec.input
    smallest = None if structure else (max(size.height, thumbnail), max(size.width, thumbnail))
    with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:
        for _, group in itertools.groupby(views, key=lambda view: (view.source, view.camera)):
            selector = KeyframeSelector(policy)
            run, known = _identified(places, list(group), there, pipeline, smallest, done, rename)
            begin = _resume(places, run, known, selector, keep)
            done.views += begin
            for few in _candidates(run[begin:], selector, batch, done):
                images = list(pool.map(lambda view: load_view(view, smallest), few))
                _take(few, images, pipeline, selector, keep)
                if say:
                    say(done)
            keep.flush()
    return done


def _identified(
    places: PlaceMap,
    run: list[MapView],
    there: Mapping[tuple[str, str, int], int],
    pipeline: Pipeline,
    smallest: tuple[int, int] | None,
    done: Built,
    rename: bool,
) -> tuple[list[MapView], _Known]:
    """Returns a recording's views under the name that it has in the map, and which of them are there.

    A name and stamps tell no recording from another: folders are named alike, and images without stamps are
    numbered from 1. So what is there has to show the same.
    """
    first = run[0].source
    for copy in itertools.count(1):
        source = named(first, copy)
        known = [
            (at, number)
            for at, view in enumerate(run)
            if (number := there.get((source, view.camera, view.stamp_ns))) is not None
        ]
        if _of_one_recording(places, run, known, pipeline, smallest):
            break
        if not rename:
            raise MapError(
                f"{places.info.uri} has other keyframes of a recording named {first!r}: use robot-vision map "
                "add, which keeps this one under another name, or name another map"
            )
    if source != first:
        done.renamed[first] = source
        run = [replace(view, source=source) for view in run]
    return run, known


def _of_one_recording(
    places: PlaceMap,
    run: Sequence[MapView],
    known: _Known,
    pipeline: Pipeline,
    smallest: tuple[int, int] | None,
) -> bool:
    """Returns whether keyframes are of the views of the same name and stamps.

    Images are loaded as for a build, since one that a JPEG gives in an eighth of its size looks different.
    """
    if not known:
        return True
    unmoved = all(_of_one_pose(places.get(number), run[at]) for at, number in known)
    some = [known[i] for i in sorted({*np.linspace(0, len(known) - 1, _COMPARED).astype(int)})]
    images = [(n, load_view(run[at], smallest)) for at, n in some]
    good = [(n, image) for n, image in images if not isinstance(image, ImageError)]
    if not good:
        return unmoved
    least = _ALIKE if unmoved else _EQUAL
    for (number, _), prediction in zip(good, pipeline([i for _, i in good]), strict=True):
        if float(prediction["place"].values @ places.get(number).descriptor) < least:
            return False
    return True


def _of_one_pose(keyframe: Keyframe, view: MapView) -> bool:
    T = np.array(view.T_map_camera)
    T[:3, :3] = orthonormalised(T[:3, :3])  # as the map has it: recordings round their rotations
    return bool(np.allclose(keyframe.T_map_camera, T, rtol=0, atol=1e-4))


def _there(places: PlaceMap) -> dict[tuple[str, str, int], int]:
    poses = places.poses()
    keys = zip(poses.sources, poses.cameras, poses.stamps_ns.tolist(), strict=True)
    return dict(zip(keys, poses.ids.tolist(), strict=True))


def _resume(
    places: PlaceMap,
    run: Sequence[MapView],
    known: _Known,
    selector: KeyframeSelector,
    keep: _Keeper,
) -> int:
    """Tells the selector what is in the map; returns from which view on to look."""
    for at, number in known:
        keyframe = places.get(number)
        keep.done.moved += not _of_one_pose(keyframe, run[at])
        selector.added(keyframe.T_map_camera, keyframe.descriptor)
    keep.done.known += len(known)
    if keep.structure is not None:
        have = set(places.structure_ids().tolist())
        lacking = [i for i, (_, number) in enumerate(known) if number not in have]
        first = max(min([len(known) - _WARM, *lacking]), 0)  # and those that were built without
        for at, number in known[first:]:
            image = load_view(run[at], None)
            if not isinstance(image, ImageError):
                keep.settle(keep.structure.add(number, run[at], image))
    return known[-1][0] + 1 if known else 0


def _candidates(
    run: Iterable[MapView], selector: KeyframeSelector, batch: int, done: Built
) -> Iterator[list[MapView]]:
    """Yields batches of views that may become keyframes: a robot that stands costs nothing."""
    few: list[MapView] = []
    for view in run:
        done.views += 1
        # Until the batch is judged, only its first view is known to follow the last keyframe.
        if few or selector.moved(view.T_map_camera):
            few.append(view)
        if len(few) == batch:
            yield few
            few = []
    if few:
        yield few


def _take(
    few: Sequence[MapView],
    images: Sequence[NDArray[np.uint8] | ImageError],
    pipeline: Pipeline,
    selector: KeyframeSelector,
    keep: _Keeper,
) -> None:
    good: list[tuple[MapView, NDArray[np.uint8]]] = []
    for view, image in zip(few, images, strict=True):
        if isinstance(image, ImageError):
            keep.done.unreadable[image.reason] += 1
            if len(keep.done.first_problems) < 10:
                keep.done.first_problems.append(f"{view.name}: {image}")
        else:
            good.append((view, image))
    chosen = []
    predictions = pipeline([image for _, image in good]) if good else []
    for (view, image), prediction in zip(good, predictions, strict=True):
        descriptor = prediction["place"].values
        if selector.wants(view.T_map_camera, descriptor):
            selector.added(view.T_map_camera, descriptor)
            chosen.append((view, image, descriptor))
    keep(chosen)


class _Keeper:
    """Writes chosen views to the map."""

    def __init__(
        self,
        places: PlaceMap,
        done: Built,
        thumbnail: int,
        covariance: NDArray[np.float64] | None,
        structure: Structurer | None,
    ) -> None:
        self.places, self.done, self.structure = places, done, structure
        self._thumbnail, self._covariance = thumbnail, covariance

    def __call__(
        self, chosen: Sequence[tuple[MapView, NDArray[np.uint8], NDArray[np.float32]]]
    ) -> None:
        ids = self.places.add_many(
            Keyframe.checked(
                stamp_ns=view.stamp_ns,
                camera=view.camera,
                source=view.source,
                T_map_camera=view.T_map_camera,
                descriptor=descriptor,
                covariance=self._covariance,
                thumbnail=thumbnail_of(image, self._thumbnail),
            )
            for view, image, descriptor in chosen
        )
        self.done.added += len(ids)
        if self.structure is not None:
            for number, (view, image, _) in zip(ids, chosen, strict=True):
                self.settle(self.structure.add(number, view, image))

    def settle(self, structures: Mapping[int, bytes]) -> None:
        """Keeps structure that is ready."""
        if structures:
            self.places.set_structures(structures)

    def flush(self) -> None:
        """Ends a recording."""
        if self.structure is not None:
            self.settle(self.structure.flush())


def load_view(view: MapView, smallest: tuple[int, int] | None) -> NDArray[np.uint8] | ImageError:
    """Returns a view's image, or why it cannot be decoded."""
    try:
        return view.load(smallest)
    except ImageError as error:
        return error


def thumbnail_of(image: NDArray[Any], side: int = 128) -> bytes | None:
    """Returns RGB uint8 (H, W, 3) as a JPEG whose longer side has at most this many pixels; None for 0."""
    if not side:
        return None
    scale = min(1.0, side / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])
