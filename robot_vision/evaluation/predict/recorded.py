"""The node's topics in a bag: written from predictions, and read back from a recording of the node.

Names, types and contents are those of the node, so the same RViz and Foxglove layouts open both, and a
recording of the real node is scored by the code that scores a replay.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import ModelBundle, model_text
from robot_vision.contract.prediction import Prediction
from robot_vision.errors import SourceError, unknown
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.evaluation.predict.known_images import KnownImages
from robot_vision.filters.class_model import from_hypotheses
from robot_vision.filters.refusal import MeasurementError
from robot_vision.geometry.published_covariance import covariance_numbers
from robot_vision.geometry.rigid import canonical_xyzw
from robot_vision.heads.classifier.answer import UNKNOWN, Classification
from robot_vision.heads.classifier.known_scores import known_scores
from robot_vision.heads.pose.answer import PoseAnswer
from robot_vision.messages.stamps import stamp_to_ns
from robot_vision.messages.types import (
    CLASSIFICATION,
    DIAGNOSTICS,
    IMAGE,
    LABEL_INFO,
    POSE_WITH_COVARIANCE_STAMPED,
    VISION_INFO,
)
from robot_vision.recordings import Source
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.text.counts import agreeing, counted

NODE = "/perception"
TRUTH = "/evaluation/true_pose"


def camera_name(topic: str) -> str:
    """Returns the name under which the node would publish a camera: `front` for `/front/image_raw`."""
    words = [w for w in topic.split("/") if w not in ("", "compressed")][:-1]
    name = re.sub(r"\W", "_", words[-1]) if words else ""
    return name if name[:1].isalpha() else "camera"


def write_results(
    path: Path,
    predictions: Predictions,
    bundle: ModelBundle,
    top_k: int = 3,
    truth: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None = None,
) -> None:
    """Writes what the node publishes for a recording as a rosbag2 (MCAP).

    Args:
        path: the bag's directory, which must not be there yet.
        predictions: with `topic` and `frame_id` in their `meta`.
        bundle: that made them.
        top_k: classes in a classification; the node's parameter of that name.
        truth: stamps, positions and quaternions of true poses, which come with them as PoseStamped.

    Raises:
        SourceError: it cannot be written.
    """
    spec = bundle.spec
    base = f"{NODE}/{camera_name(predictions.meta['topic'])}"
    frame_id = predictions.meta["frame_id"]
    threshold = spec.classifier.unknown_threshold if spec.classifier else None
    map_frame = spec.pose.map_frame if spec.pose else "map"
    familiar = known_scores(bundle.calibration)
    with RecordingWriter(path, "mcap") as bag:
        make = bag.types
        order = np.argsort(predictions.stamps_ns, kind="stable")
        first = int(predictions.stamps_ns[order[0]])
        header = bag.header(first, "")
        if spec.classifier:
            kind = make["vision_msgs/msg/VisionClass"]
            classes = [kind(i, label) for i, label in enumerate(spec.classifier.labels[:65536])]
            info = make[LABEL_INFO](header, classes, float(threshold or 0.0))
            bag.write(f"{NODE}/label_info", first, info)
        version = int(bundle.sha256[:8] or "0", 16) >> 1
        model = make[VISION_INFO](header, model_text(bundle), str(bundle.path), version)
        bag.write(f"{NODE}/vision_info", first, model)
        for i in order:
            stamp = int(predictions.stamps_ns[i])
            if predictions.probabilities is not None:
                score = (
                    float(predictions.known_score[i]) if predictions.known_score is not None else 1
                )
                row = Classification(
                    predictions.labels,
                    predictions.probabilities[i],
                    score,
                    rarity=familiar.rarity(score) if familiar else None,
                )
                kind = make["vision_msgs/msg/ObjectHypothesis"]
                results = [kind(h.label, h.score) for h in row.top_k(top_k, threshold)]
                message = make[CLASSIFICATION](bag.header(stamp, frame_id), results)
                bag.write(f"{base}/classification", stamp, message)
            if predictions.descriptor is not None:
                bag.write(
                    f"{base}/descriptor",
                    stamp,
                    _descriptor(bag, stamp, frame_id, predictions.descriptor[i]),
                )
            if values := _prediction(predictions, int(i)).several_answers():
                message = _diagnostics(bag, stamp, frame_id, base.rpartition("/")[2], values)
                bag.write(f"{base}/uncertainty", stamp, message)
            if predictions.position is not None:
                message = _pose(bag, stamp, map_frame, predictions, int(i))
                bag.write(f"{base}/pose", stamp, message)
        for stamp, position, xyzw in zip(*truth, strict=True) if truth else ():
            bag.pose(TRUTH, int(stamp), position, xyzw, map_frame)


def _descriptor(
    bag: RecordingWriter, stamp_ns: int, frame_id: str, descriptor: NDArray[np.float32]
) -> Any:
    data = np.ascontiguousarray(descriptor, "<f4")
    return bag.types[IMAGE](
        header=bag.header(stamp_ns, frame_id),
        height=1,
        width=data.size,
        encoding="32FC1",
        is_bigendian=0,
        step=data.nbytes,
        data=data.view(np.uint8),
    )


def _prediction(rows: Predictions, i: int) -> Prediction:
    """Returns what the network said by several answers of frame i."""
    answers: dict[str, Any] = {}
    if rows.mutual_information is not None and rows.probabilities is not None:
        information = float(rows.mutual_information[i])
        answers["classifier"] = Classification(rows.labels, rows.probabilities[i], 1.0, information)
    if rows.spread is not None and rows.position is not None:
        assert rows.orientation_xyzw is not None
        covariance = np.full((6, 6), np.nan) if rows.covariance is None else rows.covariance[i]
        answers["pose"] = PoseAnswer(
            rows.position[i], rows.orientation_xyzw[i], covariance, rows.spread[i]
        )
    return Prediction(answers)


def _diagnostics(
    bag: RecordingWriter, stamp_ns: int, frame_id: str, camera: str, values: dict[str, float]
) -> Any:
    make = bag.types
    pair = make["diagnostic_msgs/msg/KeyValue"]
    pairs = [pair(key, f"{value:.4g}") for key, value in values.items()]
    status = make["diagnostic_msgs/msg/DiagnosticStatus"](0, camera, "", "", pairs)
    return make[DIAGNOSTICS](bag.header(stamp_ns, frame_id), [status])


def _pose(bag: RecordingWriter, stamp_ns: int, frame: str, rows: Predictions, i: int) -> Any:
    assert rows.position is not None and rows.orientation_xyzw is not None
    make = bag.types
    covariance = np.full((6, 6), np.nan) if rows.covariance is None else rows.covariance[i]
    point = make["geometry_msgs/msg/Point"](*(float(v) for v in rows.position[i]))
    turn = make["geometry_msgs/msg/Quaternion"](
        *(float(v) for v in canonical_xyzw(rows.orientation_xyzw[i]))
    )
    pose = make["geometry_msgs/msg/Pose"](point, turn)
    full = make["geometry_msgs/msg/PoseWithCovariance"](pose, covariance_numbers(covariance))
    return make[POSE_WITH_COVARIANCE_STAMPED](bag.header(stamp_ns, frame), full)


@dataclass
class _Row:
    """What a recording holds for one image."""

    log_ns: int
    results: Any = None
    pose: Any = None
    descriptor: NDArray[np.float32] | None = None
    uncertainty: dict[str, float] = field(default_factory=dict)


def read_results(
    path: str | Path, camera: str | None = None, labels: tuple[str, ...] = ()
) -> Predictions:
    """Reads a recording of the node's topics as if it had been replayed.

    A classification holds the `top_k` best classes only: what is left of 1 is spread evenly over the others,
    which `meta["problems"]` says. Record with a larger `top_k` where the others matter.

    Args:
        path: the bag.
        camera: whose results; None where there is only one.
        labels: of the network, where the recording lacks `label_info`.

    Raises:
        SourceError: no such bag, no topics of the node in it, or messages that cannot be read.
        ConfigError: no such camera, or several to choose from.
    """
    bag = BagFile(Path(path).expanduser())
    try:
        outputs = _outputs(bag, camera)
        rows, listed, info, frame_id = _collect(bag, outputs)
        heard = _labels(bag, outputs) or labels
        notes = [*bag.problems, *bag.notes]
    finally:
        bag.close()
    if not rows:
        raise SourceError(f"{path}: the topics {', '.join(outputs)} hold no message")
    if not heard and listed:
        heard = tuple(sorted(listed))
        _refuse_unseen([row.results for row in rows.values()], heard)
        notes.append("label_info was not recorded: the labels are those that were ever published")
    keys = sorted(rows)
    again = sum(number > 0 for _, number in keys)
    if again:
        notes.append(
            f"{again} of {len(keys)} results {agreeing(again, 'have')} the stamp of another: two nodes "
            "of one name, images that "
            "share a stamp, or a recording that was looped"
        )
    said = [rows[key].results for key in keys]
    classes = _classes(said, heard, notes) if listed else None
    poses = [rows[key].pose for key in keys]
    descriptors = [rows[key].descriptor for key in keys]
    has_pose = any(p is not None for p in poses)
    camera_topic = next(iter(outputs))
    return Predictions(
        np.array([stamp for stamp, _ in keys], np.int64),
        np.array([rows[key].log_ns for key in keys], np.int64),
        heard if listed else (),
        None if classes is None else classes.probabilities,
        None if classes is None else classes.published,
        _stack([None if p is None else p[0] for p in poses], (3,)) if has_pose else None,
        _stack([None if p is None else p[1] for p in poses], (4,)) if has_pose else None,
        _stack([None if p is None else p[2] for p in poses], (6, 6)) if has_pose else None,
        _descriptors(descriptors, str(path)),
        Path(path).name,
        {
            "topic": camera_topic.rpartition("/")[0],
            "frame_id": frame_id,
            "model": info,
            "problems": notes,
            "refused": {},
            "recorded": True,
        },
        *_uncertainty([rows[key].uncertainty for key in keys]),
        kept=classes.kept if classes and (classes.kept == 0).any() else None,
    )


def with_times_of(
    predictions: Predictions, source: Source, bundle: ModelBundle | None = None
) -> Predictions:
    """Returns recorded results with the log times of the images that they are about.

    Labels without a header hold by the log's time of the original bag, and a recording made later has
    another. Images without a result, and results without an image, are noted. Where several images have one
    stamp, their results are distinguished by their order, if each image has one.

    Raises:
        SourceError: results and images have no stamp in common.
    """
    logged: dict[int, list[int]] = {}
    known = KnownImages(bundle) if bundle else None
    for frame in source:
        logged.setdefault(frame.stamp_ns, []).append(frame.log_ns)
        if known:
            known.see(frame.message)
    stamps = [int(stamp) for stamp in predictions.stamps_ns]
    results = Counter(stamps)
    unclear = {s for s, n in results.items() if n != len(logged.get(s, [])) > 1}
    there = np.array([s in logged and s not in unclear for s in stamps], bool)
    if not there.any():
        remedy = (
            f"several images have each stamp, and {counted(len(stamps), 'result does', 'results do')} "
            "not say which image they are of"
            if unclear
            else "play the bag with its recorded stamps"
        )
        raise SourceError(
            f"No result of {predictions.recording} has the stamp of an image of {source.name}: {remedy}"
        )
    kept = predictions.take(there)
    notes = [*predictions.meta["problems"], *source.problems, *source.notes]
    notes += known.notes() if known else []
    missing = sum(max(0, len(times) - results[s]) for s, times in logged.items())
    if missing > 0:
        images = sum(len(times) for times in logged.values())
        notes.append(
            f"{missing} of {images} images {agreeing(missing, 'have')} no result: the node dropped them"
        )
    if unclear:
        count = sum(results[s] for s in unclear)
        notes.append(
            f"{counted(count, 'result was', 'results were')} left out: several images have their "
            "stamp, and not each has a result"
        )
    strange = sum(s not in logged for s in stamps)
    if strange:
        notes.append(
            counted(
                strange,
                "result belongs to no image of the bag and was",
                "results belong to no image of the bag and were",
            )
            + " left out"
        )
    order = {s: itertools.chain(times, itertools.repeat(times[-1])) for s, times in logged.items()}
    times = np.array([next(order[int(s)]) for s in kept.stamps_ns], np.int64)
    return replace(kept, log_ns=times, meta={**predictions.meta, "problems": notes})


def _outputs(bag: BagFile, camera: str | None) -> dict[str, str]:
    """Returns the result topics of one camera and what each holds."""
    kinds = {
        "classification": CLASSIFICATION,
        "descriptor": IMAGE,
        "pose": POSE_WITH_COVARIANCE_STAMPED,
        "uncertainty": DIAGNOSTICS,
    }
    cameras: dict[str, dict[str, str]] = {}
    for topic, kind in bag.kinds.items():
        base, _, name = topic.rpartition("/")
        if kinds.get(name) == kind:
            cameras.setdefault(base, {})[topic] = name
    if not cameras:
        there = ", ".join(f"{t} ({k})" for t, k in sorted(bag.kinds.items())) or "no topic at all"
        raise SourceError(
            f"{bag.path} holds no results of the node (classification, descriptor, pose): it has {there}"
        )
    if camera is None:
        fitting = list(cameras)
    elif camera.startswith("/"):
        full = camera.rstrip("/")
        fitting = [base for base, found in cameras.items() if full == base or full in found]
    else:
        fitting = [base for base in cameras if base.endswith(f"/{camera}")]
    if len(fitting) > 1:
        what = "several cameras" if camera is None else f"{len(fitting)} cameras {camera!r}"
        raise SourceError(
            f"{bag.path} holds results of {what}: set --camera to one of {', '.join(fitting)}"
        )
    if not fitting:
        raise SourceError(f"{unknown('camera', camera, cameras)} (in {bag.path})")
    return cameras[fitting[0]]


def _of_node(bag: BagFile, outputs: dict[str, str], kind: str) -> list[str]:
    """Returns the topics of a kind that belong to the node of a camera's results.

    If that node has none and the recording has a single topic of the kind, it was remapped: it is taken.
    """
    node = next(iter(outputs)).rpartition("/")[0].rpartition("/")[0]
    topics = [t for t, k in bag.kinds.items() if k == kind]
    own = [t for t in topics if t.rpartition("/")[0] == node]
    return own or (topics if len(topics) == 1 else [])


def _collect(
    bag: BagFile, outputs: dict[str, str]
) -> tuple[dict[tuple[int, int], _Row], set[str], str, str]:
    """Returns a row for each image by its stamp, and by its number among the images of that stamp."""
    rows: dict[tuple[int, int], _Row] = {}
    seen: Counter[tuple[str, int]] = Counter()
    listed: set[str] = set()
    info = frame_id = ""
    infos = _of_node(bag, outputs, VISION_INFO)
    for record in bag.raw([*outputs, *infos]):
        topic, log_ns = record.topic, record.log_ns
        message = bag.message(record)
        if topic in infos:
            info = message.method
            continue
        stamp_ns = stamp_to_ns(message.header.stamp)
        row = rows.setdefault((stamp_ns, seen[topic, stamp_ns]), _Row(log_ns))
        seen[topic, stamp_ns] += 1
        name = outputs[topic]
        if name == "classification":
            row.results = [(h.class_id, h.score) for h in message.results]
            listed.update(label for label, _ in row.results if label != UNKNOWN)
            frame_id = frame_id or message.header.frame_id
        elif name == "pose":
            p, q = message.pose.pose.position, message.pose.pose.orientation
            covariance = np.asarray(message.pose.covariance, np.float64).reshape(6, 6)
            row.pose = np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]), covariance
        elif name == "uncertainty":
            row.uncertainty = {v.key: float(v.value) for s in message.status for v in s.values}
        else:
            order = ">" if message.is_bigendian else "<"
            row.descriptor = np.frombuffer(bytes(message.data), f"{order}f4").astype(np.float32)
    return rows, listed, info, frame_id


def _labels(bag: BagFile, outputs: dict[str, str]) -> tuple[str, ...]:
    """Returns the network's labels, as the node latches them; empty where they were not recorded."""
    topics = _of_node(bag, outputs, LABEL_INFO)
    found: tuple[str, ...] = ()
    for record in bag.raw(topics):
        found = tuple(c.class_name for c in bag.message(record).class_map)
    return found


def _refuse_unseen(rows: list[Any], labels: tuple[str, ...]) -> None:
    """Refuses classes of which some were never among the best that a recording holds.

    Raises:
        SourceError: all classes that were ever published are there, and leave something of 1.
    """
    sums = [
        sum(score for _, score in row) for row in rows if row and {c for c, _ in row} == {*labels}
    ]
    short = [total for total in sums if total < 0.99]
    if short:
        raise SourceError(
            f"{len(short)} of {len(rows)} classifications hold all classes that were ever published "
            f"({', '.join(labels)}), and their scores sum to {min(short):.2g}: other classes are missing. "
            "Give the bundle that made them (--model), or record label_info"
        )


@dataclass
class _Classes:
    """What a recording says of the classes of N images; NaN where it says nothing.

    Attributes:
        probabilities: (N, K), given that it is one of the classes: those published, and an even share of the
            rest for the others.
        published: (N,), the highest score of a class as it was published.
        kept: (N,), 0 where the answer is `unknown`, else 1.
    """

    probabilities: NDArray[np.float64]
    published: NDArray[np.float64]
    kept: NDArray[np.float64]


def _classes(rows: list[Any], labels: tuple[str, ...], notes: list[str]) -> _Classes:
    count = len(rows)
    empty = np.full(count, np.nan)
    found = _Classes(np.full((count, len(labels)), np.nan), empty, empty.copy())
    fewest = len(labels)
    for i, row in enumerate(rows):
        if row is None:
            continue
        try:
            found.probabilities[i], refused = from_hypotheses(labels, row)
        except MeasurementError as error:
            raise SourceError(
                f"A classification of the recording cannot be read: {error}; if its classes differ, give "
                "the bundle that made it"
            ) from error
        listed = [score for label, score in row if label in labels]
        found.published[i], found.kept[i] = max(listed, default=0.0), not refused
        fewest = min(fewest, len(listed))
    if fewest < len(labels):
        notes.append(
            f"classifications hold {fewest} of {len(labels)} classes: the rest of the probability is spread "
            "evenly, so that log likelihood, Brier score and top-5 are estimates (record with "
            f"top_k:={len(labels)})"
        )
    notes.append(
        "known scores are not recorded: the published score of the best class is used instead"
    )
    return found


def _uncertainty(
    rows: list[dict[str, float]],
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Returns mutual information (N,) and spread (N, 6, 6); None for what was not published.

    Of the spread only the traces of its two blocks are, so they are spread evenly over the axes.
    """
    names = ("mutual_information", "position_spread_m", "rotation_spread_rad")
    columns = np.array([[row.get(name, np.nan) for name in names] for row in rows], np.float64)
    known = np.isfinite(columns)
    spread = np.zeros((len(rows), 6, 6))
    spread[:, range(6), range(6)] = np.repeat(columns[:, 1:] ** 2 / 3, 3, axis=1)
    return columns[:, 0] if known[:, 0].any() else None, spread if known[:, 1:].any() else None


def _stack(values: list[NDArray[Any] | None], shape: tuple[int, ...]) -> NDArray[np.float64]:
    missing = np.full(shape, np.nan)
    return np.array([missing if v is None else v for v in values], np.float64)


def _descriptors(values: list[NDArray[np.float32] | None], path: str) -> NDArray[np.float32] | None:
    sizes = {v.size for v in values if v is not None}
    if not sizes:
        return None
    if len(sizes) > 1:
        raise SourceError(
            f"{path}: descriptors have {' and '.join(map(str, sorted(sizes)))} numbers"
        )
    missing = np.full(sizes.pop(), np.nan, np.float32)
    return np.array([missing if v is None else v for v in values], np.float32)
