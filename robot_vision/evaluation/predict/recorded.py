"""The node's topics in a bag: written from predictions, and read back from a recording of the node.

Names, types and contents are those of the node, so the same RViz and Foxglove layouts open both, and a
recording of the real node is scored by the code that scores a replay.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.model_topic import model_topic
from robot_vision.contract import registry
from robot_vision.contract.head import plain
from robot_vision.contract.spec import NetworkSpec
from robot_vision.contract.topics import (
    NO_CALIBRATION,
    UNCERTAINTY,
    Latched,
    LeftOut,
    Reader,
    Row,
    Shot,
    Topic,
)
from robot_vision.errors import ImageError, SourceError, unknown
from robot_vision.evaluation.predict.cache import KEY
from robot_vision.evaluation.predict.columns import UNJUDGED, Predictions
from robot_vision.evaluation.predict.known_images import KnownImages
from robot_vision.files.array_stream import Stream
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.images.decode import image_size
from robot_vision.messages.making import rosbags_maker
from robot_vision.messages.serialized import Stamp
from robot_vision.messages.stamps import SECOND_NS, stamp_to_ns
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
    lens: Intrinsics | LeftOut = NO_CALIBRATION,
) -> list[str]:
    """Writes what the node publishes for a recording as a rosbag2 (MCAP).

    Args:
        path: the bag's directory, which must not be there yet.
        predictions: with `topic` and `frame_id` in their `meta`.
        bundle: that made them.
        top_k: classes in a classification; the node's parameter of that name.
        truth: stamps, positions and quaternions of true poses, which come with them as PoseStamped.
        lens: of the camera, or why it is not known.

    Returns:
        A line for each reason why messages were left out.

    Raises:
        SourceError: it cannot be written.
    """
    left_out: Counter[tuple[str, str]] = Counter()
    camera = camera_name(predictions.meta["topic"])
    base, frame_id = f"{NODE}/{camera}", predictions.meta["frame_id"]
    options = bundle.options({"top_k": top_k})
    with RecordingWriter(path, "mcap") as bag:
        make = rosbags_maker(bag.store)
        heads = [
            (head, spec, [(t, t.writer(make)) for t in _recorded(head.topics(spec))])
            for head, spec in bundle.spec.bound
        ]
        doubt = UNCERTAINTY.writer(make)
        order = np.argsort(predictions.stamps_ns, kind="stable")
        first = int(predictions.stamps_ns[order[0]])
        latched = [
            (topic, options[head.name]) for head, spec, _ in heads for topic in head.latched(spec)
        ]
        key = predictions.meta.get(KEY, {})
        engine = key.get("engine", "").partition(" ")[0]
        model = model_topic(bundle, key.get("precision", bundle.program), engine)
        for once, chosen in (*latched, (model, None)):
            message = once.writer(make)(Stamp(*divmod(first, SECOND_NS)), chosen)
            bag.write(f"{NODE}/{once.name}", first, message)
        for i in order:
            stamp = int(predictions.stamps_ns[i])
            window = predictions.window(int(i))
            shot = Shot(
                Stamp(*divmod(stamp, SECOND_NS)),
                frame_id,
                camera,
                window=window,
                intrinsics=lambda: lens,
            )
            answers = {}
            for head, spec, topics in heads:
                row = predictions.row(int(i), head.columns(spec))
                if not row:
                    continue
                answers[head.name] = answer = head.unpack(row, spec, bundle.material[head.name])
                shown = head.published(answer, shot, spec, options[head.name])
                for topic, write in topics:
                    if not topic.wanted(options[head.name]):
                        continue
                    message = shown
                    if not isinstance(shown, LeftOut):
                        message = write(shot, shown, options[head.name])
                    if isinstance(message, LeftOut):
                        left_out[topic.name, message.text] += 1
                    else:
                        bag.write(f"{base}/{topic.name}", stamp, message)
            if numbers := bundle.spec.doubts(answers):
                bag.write(f"{base}/{UNCERTAINTY.name}", stamp, doubt(shot, numbers, None))
        frames = [getattr(chosen, "map_frame", "") for chosen in options.values()]
        for stamp, position, xyzw in zip(*truth, strict=True) if truth else ():
            map_frame = next(filter(None, frames), "map")
            bag.camera_pose(TRUTH, int(stamp), position, xyzw, map_frame)
    lacking: dict[tuple[int, str], list[str]] = {}
    for (name, text), count in left_out.items():
        lacking.setdefault((count, text), []).append(name)
    return [
        f"{path}: {base} lacks {counted(count, 'message')} of {', '.join(names)}: {text}"
        for (count, text), names in lacking.items()
    ]


def _recorded(topics: Sequence[Topic]) -> list[Topic]:
    return [topic for topic in topics if not topic.name.startswith("/")]


def read_results(
    path: str | Path, camera: str | None = None, spec: NetworkSpec | None = None
) -> Predictions:
    """Reads a recording of the node's topics as if it had been replayed.

    A classification holds the `top_k` best classes only: what is left of 1 is spread evenly over the others,
    which `meta["problems"]` says. Record with a larger `top_k` where the others matter.

    Args:
        path: the bag.
        camera: whose results; None where there is only one.
        spec: of the network that made them; None reads the topics of heads that are named as their kind.

    Raises:
        SourceError: no such bag, no topics of the node in it, or messages that cannot be read.
        ConfigError: no such camera, or several to choose from.
    """
    heads = spec.bound if spec else [(head, None) for head in registry.installed()]
    offered = {t.name: t for head, s in heads for t in _recorded(head.topics(s))}
    offered[UNCERTAINTY.name] = UNCERTAINTY
    bag = BagFile(Path(path).expanduser())
    try:
        kinds = {name: topic.kind for name, topic in offered.items()}
        base, names, others = _outputs(bag, camera, kinds)
        rows, readers, frame_id = _collect(bag, base, {name: offered[name] for name in names})
        latched = {
            topic.name: message
            for topic in (*(t for head, s in heads for t in head.latched(s)), model_topic())
            if (message := _last(bag, base, topic)) is not None
        }
        notes = [*bag.problems, *bag.notes]
    finally:
        bag.close()
    if not rows:
        topics = ", ".join(f"{base}/{name}" for name in names)
        raise SourceError(f"{path}: the topics {topics} hold no message")
    keys = sorted(rows)
    again = sum(number > 0 for _, number in keys)
    if again:
        notes.append(
            f"{again} of {len(keys)} results have the stamp of another: two nodes of one name, images that "
            "share a stamp, or a recording that was looped"
        )
    notes += [
        UNJUDGED.format(head.name)
        for head, own in heads
        if own is None and head.kind not in registry.BUILT_IN
        if any(topic.name in readers for topic in head.topics(own))
    ]
    notes += [
        f"{base}/{name} ({', '.join(said)}) is left out: a head under a name of its own, which the model "
        "knows: set --model"
        for name, said in others.items()
    ]
    columns: dict[str, Any] = {}
    for name, reader in readers.items():
        try:
            found = reader.finish(keys, latched, notes)
        except SourceError as error:
            raise SourceError(f"{path}: {error}") from error
        if name == UNCERTAINTY.name:
            found = {
                column: values
                for head, _ in heads
                for column, values in head.from_doubts(found).items()
                if np.isfinite(values).any()
            }
        columns |= found
    info = latched.get(model_topic().name)
    meta: dict[str, Any] = {
        "topic": base,
        "frame_id": frame_id,
        "model": info.method if info else "",
        "problems": notes,
        "refused": {},
        "recorded": True,
    }
    if spec is not None and any(isinstance(column, Stream) for column in columns.values()):
        meta["input"] = plain(spec.input)
    return Predictions.of_columns(
        [stamp for stamp, _ in keys],
        [rows[key] for key in keys],
        columns,
        Path(path).name,
        meta,
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
    sizes: dict[int, tuple[int, int]] = {}
    known = KnownImages(bundle) if bundle else None
    for frame in source:
        logged.setdefault(frame.stamp_ns, []).append(frame.log_ns)
        with contextlib.suppress(ImageError):  # the node had no answer to what it could not decode
            sizes[frame.stamp_ns] = image_size(frame.message)
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
    known_sizes = [sizes.get(int(stamp)) for stamp in kept.stamps_ns]
    if "input" in kept.meta and None not in known_sizes:
        kept = replace(kept, image_size=np.array(known_sizes, np.int32))
    return replace(kept, log_ns=times, meta={**predictions.meta, "problems": notes})


def _outputs(
    bag: BagFile, camera: str | None, kinds: Mapping[str, str]
) -> tuple[str, dict[str, str], dict[str, list[str]]]:
    """Finds the result topics of one camera.

    Returns:
        What they begin with; those in `kinds` with their types; and by their names the topics of heads under
        names of their own, which `kinds` lacks.
    """
    cameras: dict[str, dict[str, str]] = {}
    for topic, kind in bag.kinds.items():
        # A named head's topic is longer than that of another; the longest name that fits is meant.
        for name in sorted(kinds, key=len, reverse=True):
            if topic.endswith(f"/{name}") and kinds[name] == kind:
                cameras.setdefault(topic.removesuffix(f"/{name}"), {})[name] = kind
                break
    if not cameras:
        there = ", ".join(f"{t} ({k})" for t, k in sorted(bag.kinds.items())) or "no topic at all"
        wanted = ", ".join(name for name in kinds if name != UNCERTAINTY.name)
        raise SourceError(f"{bag.path} holds no results of the node ({wanted}): it has {there}")
    named: dict[str, dict[str, list[str]]] = {}
    for longer in [base for base in cameras if base.rpartition("/")[0] in cameras]:
        shorter, _, name = longer.rpartition("/")
        named.setdefault(shorter, {})[name] = sorted(cameras.pop(longer))
    if camera is None:
        fitting = list(cameras)
    elif camera.startswith("/"):
        full = camera.rstrip("/")
        fitting = [
            base
            for base, found in cameras.items()
            if full == base or full in [f"{base}/{name}" for name in found]
        ]
    else:
        fitting = [base for base in cameras if base.endswith(f"/{camera}")]
    if len(fitting) > 1:
        what = "several cameras" if camera is None else f"{len(fitting)} cameras {camera!r}"
        raise SourceError(
            f"{bag.path} holds results of {what}: set --camera to one of {', '.join(fitting)}"
        )
    if not fitting:
        raise SourceError(f"{unknown('camera', camera, cameras)} (in {bag.path})")
    return fitting[0], cameras[fitting[0]], named.get(fitting[0], {})


def _last(bag: BagFile, base: str, latched: Latched) -> Any:
    """Returns the last message of a latched topic of the node of a camera's results; None for none.

    If that node has none and the recording has a single topic of the kind, it was remapped: it is taken.
    """
    own = f"{base.rpartition('/')[0]}/{latched.name}"
    topics = [t for t, k in bag.kinds.items() if k == latched.kind]
    topics = [own] if own in topics else topics if len(topics) == 1 else []
    message = None
    for record in bag.raw(topics) if topics else ():
        message = bag.message(record)
    return message


def _collect(
    bag: BagFile, base: str, topics: Mapping[str, Topic]
) -> tuple[dict[Row, int], dict[str, Reader], str]:
    """Returns the log's time of each image, what read the topics, and the camera's frame."""
    rows: dict[Row, int] = {}
    seen: Counter[tuple[str, int]] = Counter()
    readers = {name: topic.reader() for name, topic in topics.items() if topic.reader}
    frame_id = ""
    for record in bag.raw([f"{base}/{name}" for name in readers]):
        name = record.topic.removeprefix(f"{base}/")
        message = bag.message(record)
        stamp_ns = stamp_to_ns(message.header.stamp)
        row = stamp_ns, seen[name, stamp_ns]
        rows.setdefault(row, record.log_ns)
        seen[name, stamp_ns] += 1
        readers[name].add(row, message)
        if topics[name].of_camera:
            frame_id = frame_id or message.header.frame_id
    return rows, readers, frame_id
