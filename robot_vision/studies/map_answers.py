"""What a map answers to a recording with poses, as the place node asks it: with the sequence, and verified.

Each image is recognised as the node does (`Recogniser.observe`), with the sequence filter or alone; with
verification the best places are then compared with the image, and one whose features fit is accepted with the
pose that they give. The recording's own poses are the truth, and are not shown to the recogniser.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError, ImageError
from robot_vision.evaluation.predict.samples import STEP_NS
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import rotation_error_deg, xyzw_from_matrix
from robot_vision.pipeline import Pipeline
from robot_vision.places.index.index_cache import open_index
from robot_vision.places.map.base import PlaceMap
from robot_vision.places.map.building import MapView
from robot_vision.places.map.keyframe import number_of, stamped
from robot_vision.places.recognition.recogniser import Recogniser, RecogniserOptions, Recognition
from robot_vision.places.verification.verifier import COMPARED, Verifier, candidates_of
from robot_vision.statistics.bootstrap import Resampler, mean, quantiles

RECALLS = (1, 5, 10)
_BATCH = 8


def answers(
    places: PlaceMap,
    views: Sequence[MapView],
    pipeline: Pipeline,
    options: RecogniserOptions,
    verifier: Verifier | None,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Asks a map about every view of recordings, in their order.

    Args:
        places: the map.
        views: in the order in which they were taken; a new recording begins a new sequence.
        pipeline: of the map's model.
        options: of the recogniser.
        verifier: compares the best places with the image; None does not.
        progress: called with the number of views that were done since.

    Returns:
        A row for each view whose image can be read: its `recording`, its `stamp_ns` (None without one), the
        `time_ns` that it was taken at (0.1 s apart without stamps), whether some keyframe shows its place
        (`answerable`), how many candidates come before the first right one (`rank`, -1 for none among them),
        the first one's `probability`, whether it is `accepted`, the `error_m` and `error_deg` of its keyframe
        or, verified, of the pose; `verified`. And why images gave no row or no verified pose.

    Raises:
        ConfigError: images have no camera matrix, which verification needs.
    """
    recogniser = Recogniser(places, open_index(places), options)
    poses = places.poses()
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    source = None
    for start in range(0, len(views), _BATCH):
        some, images = [], []
        for view in views[start : start + _BATCH]:
            try:
                images.append(view.load(None))
                some.append(view)
            except ImageError as error:
                left_out[f"unreadable ({error.reason})"] += 1
        predictions = pipeline(images) if images else []
        for view, image, prediction in zip(some, images, predictions, strict=True):
            if view.source != source:
                source = view.source
                recogniser.reset()
            found = recogniser.observe(prediction["place"].values, time_ns(view.stamp_ns))
            row = _row(found, view, poses.positions, poses.quaternions_xyzw, options)
            if verifier is not None:
                row |= _verified(verifier, places, found, view, image, left_out)
            rows.append(row)
        if progress:
            progress(len(views[start : start + _BATCH]))
    return rows, left_out


def time_ns(stamp_ns: int) -> int:
    """Returns when a view was taken: a filter that takes all to be of one moment lets nothing move."""
    return stamp_ns if stamped(stamp_ns) else STEP_NS * number_of(stamp_ns)


def _row(
    found: Recognition,
    view: MapView,
    positions: NDArray[np.float64],
    xyzw: NDArray[np.float64],
    options: RecogniserOptions,
) -> dict[str, Any]:
    def errors(p: NDArray[np.float64], q: NDArray[np.float64]) -> tuple[Any, Any]:
        turned = rotation_error_deg(q, xyzw_from_matrix(view.T_map_camera[:3, :3]))
        return np.linalg.norm(p - view.T_map_camera[:3, 3], axis=-1), turned

    def right(m: Any, deg: Any) -> Any:
        return (m <= options.radius_m) & (deg <= options.heading_deg)

    rank, error = -1, (float("nan"), float("nan"))
    if found.candidates:
        m, deg = errors(
            np.stack([c.position for c in found.candidates]),
            np.stack([c.quaternion_xyzw for c in found.candidates]),
        )
        hits = np.flatnonzero(right(m, deg))
        rank = int(hits[0]) if len(hits) else -1
        error = float(m[0]), float(deg[0])
    return {
        "name": view.name,
        "recording": view.source,
        "stamp_ns": view.stamp_ns if stamped(view.stamp_ns) else None,
        "time_ns": time_ns(view.stamp_ns),
        "answerable": bool(len(positions) and right(*errors(positions, xyzw)).any()),
        "rank": rank,
        "probability": found.probability,
        "accepted": found.accepted,
        "verified": False,
        "error_m": error[0],
        "error_deg": error[1],
    }


def _verified(
    verifier: Verifier,
    places: PlaceMap,
    found: Recognition,
    view: MapView,
    image: NDArray[np.uint8],
    left_out: Counter[str],
) -> dict[str, Any]:
    """Returns what verification changes of a row: as for a robot, what does not fit is not accepted."""
    intrinsics = view.intrinsics
    if intrinsics is None:
        if view.camera_matrix is None:
            raise ConfigError(
                "--verify needs the camera's matrix, which the recording does not say: give --option "
                "camera_matrix=fx,fy,cx,cy"
            )
        intrinsics = Intrinsics.of_matrix(view.camera_matrix, image.shape[1], image.shape[0])
    ids = [candidate.keyframe_id for candidate in found.candidates[:COMPARED]]
    said = verifier.verify(image, candidates_of(places, ids), intrinsics)
    if not said.accepted or said.pose is None:
        left_out[f"not verified ({said.reason or 'no distance'})"] += 1
        return {"accepted": False}
    true = view.T_map_camera
    turned = rotation_error_deg(said.pose.orientation_xyzw, xyzw_from_matrix(true[:3, :3]))
    return {
        "accepted": True,
        "verified": True,
        "error_m": float(np.linalg.norm(said.pose.position - true[:3, 3])),
        "error_deg": float(turned),
    }


def summarise(
    rows: Sequence[dict[str, Any]], options: RecogniserOptions, settings: EvaluationSettings
) -> dict[str, Any]:
    """Returns plain data: recalls of answerable images, how many were accepted and right, pose errors.

    An accepted answer is right where its pose, the keyframe's or the verified one, is within the radius and
    heading of a place.
    """
    names = ("answerable", "rank", "accepted", "error_m", "error_deg")
    answerable, rank, accepted, metres, degrees = (
        np.array([row[n] for row in rows]) for n in names
    )
    times_ns = np.array([row["time_ns"] for row in rows], np.int64)
    sizes = [len(list(of_one)) for _, of_one in groupby(row["recording"] for row in rows)]
    resampler = Resampler(times_ns, list(pairwise([0, *np.cumsum(sizes).tolist()])), settings)
    right = accepted & (metres <= options.radius_m) & (degrees <= options.heading_deg)
    hits = np.stack([(rank >= 0) & (rank < k) for k in RECALLS], axis=1)
    keys = tuple(f"recall_at_{k}" for k in RECALLS)
    return {
        "images": len(rows),
        "answerable": int(answerable.sum()),
        "accepted": int(accepted.sum()),
        "accepted_right": int(right.sum()),
        **resampler.headlines({keys: mean(hits[answerable])}, answerable),
        **resampler.headlines({"accepted_share": mean(accepted[answerable])}, answerable),
        **resampler.headlines({"precision": mean(right[accepted])}, accepted),
        **resampler.headlines(
            {
                ("median_m", "p90_m"): quantiles(metres[accepted], (0.5, 0.9)),
                ("median_deg", "p90_deg"): quantiles(degrees[accepted], (0.5, 0.9)),
            },
            accepted,
        ),
        "bootstrap": resampler.describe(),
    }
