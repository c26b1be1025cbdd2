"""Evaluates a model on recordings: `robot_vision.evaluate`, and what `robot-vision evaluate` does with it.

print(evaluate("drive.mcap", "runs/my_rooms/bundle"))
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from robot_vision.bundle.bundle import ModelBundle, model_text
from robot_vision.bundle.installed import find_model
from robot_vision.bundle.programs import FLOAT32
from robot_vision.contract.metrics import image_words, pixel_classes
from robot_vision.contract.rows import joined
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import (
    ConfigError,
    RobotVisionError,
    SourceError,
    is_whole,
    path_text,
    unknown,
)
from robot_vision.evaluation.measure.metrics import PlaceReference, score_recording
from robot_vision.evaluation.merge import document
from robot_vision.evaluation.predict import runner
from robot_vision.evaluation.predict.cache import KEY, bag_sha256, cache_file
from robot_vision.evaluation.predict.runner import Job, Outcome, image_topic
from robot_vision.evaluation.report.text import summary_line
from robot_vision.evaluation.report.writing import Written, write_all
from robot_vision.files.folders import make_folder
from robot_vision.text.counts import counted
from robot_vision.truth.reading import TruthRequest, read_truth
from robot_vision.truth.tracks import LABEL

_COMMAND = "robot_vision.evaluate"  # in the report, where a command line would stand


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good a model is on recordings. As text it is the one line that the command ends with.

    Attributes:
        metrics: what metrics.json has: plain data, laid out as `evaluation.measure.metrics` says. Numbers
            with an interval are `{"value", "low", "high"}`; units stand in the keys (`median_m`).
        files: that were written, the report first; none without an output folder.
        notes: for people: recordings that were left out of several, and what the results lack.
    """

    metrics: dict[str, Any]
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return summary_line(self.metrics)


def evaluate(
    bag: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    topic: str = "",
    truth: TruthRequest | None = None,
    settings: EvaluationSettings | None = None,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    limit: int = 0,
) -> Evaluation:
    """Predicts recordings and compares the answers with what is true of them.

    Args:
        bag: one or several rosbags (folders of rosbag2, .mcap, .db3 or .bag).
        model: the bundle's directory, or the name of an installed one.
        output: a folder for report.html, metrics.json, tables, trajectories and the node's topics as a bag;
            predictions are kept in it, so that a second call is quick. None writes nothing.
        topic: of the images; empty takes the only one.
        truth: where labels, poses and other truth come from; None finds topics in a namespace called truth,
            and poses on tf.
        settings: radii, intervals and their seed.
        engine: see `Pipeline.load`, as the next two.
        device: of the engine.
        precision: of the arithmetic, or a program of the bundle.
        limit: frames of each recording at most; 0 for all.

    Raises:
        ConfigError: no such model, a setting that is not allowed, a bag given twice.
        SourceError: a recording cannot be read; of several, all.
        BundleError: the bundle is damaged.
        EngineError: the engine or device is not there.
    """
    alone = isinstance(bag, (str, bytes, os.PathLike)) or not isinstance(bag, Iterable)
    paths: list[Any] = [bag] if alone else list(bag)  # type: ignore[arg-type]
    bags = [str(Path(path_text(path, "bag")).expanduser()) for path in paths]
    if not is_whole(limit):
        raise ConfigError(f"limit is {limit!r}: give a whole number of frames, or 0 for all")
    if not bags:
        raise ConfigError("There is nothing to evaluate: give the path of a rosbag, or several")
    bundle = ModelBundle.load(find_model(path_text(model, "model")))
    request = truth or TruthRequest()
    if len(bags) > 1 and (request.label_spans or request.pose_file):
        raise ConfigError(
            "label_spans and pose_file describe one recording: evaluate each bag separately"
        )
    require_heads(request.labels_of, bundle.spec.bound)
    request = with_images(request, bundle.spec.bound)
    folder = None if output is None else Path(path_text(output, "output")).expanduser()
    if folder is not None:
        make_folder(folder, "output", bags)
    with tempfile.TemporaryDirectory(prefix="robot-vision-") as scratch:
        cache = Path(scratch) if folder is None else folder / "cache"
        jobs = [
            Job(
                bag=path,
                name=name,
                cache=str(cache_file(cache, path).absolute()),
                model=str(bundle.path.absolute()),
                topic=topic,
                truth=tuple(source.where for source in request.images),
                engine=engine,
                device=device,
                precision=precision,
                limit=limit,
            )
            for path, name in zip(bags, names_of(bags), strict=True)
        ]
        require_different(jobs)
        if len(jobs) == 1:
            image_topic(jobs[0].bag, jobs[0].topic, jobs[0].truth)
        outcomes = runner.run(jobs)
        notes = [f"{outcome.job.name}: {outcome.note}" for outcome in outcomes if outcome.note]
        chosen = settings or EvaluationSettings()
        written, _ = judged(outcomes, request, chosen, bundle, None, notes.append)
        if folder is None:
            return Evaluation(written.document, (), tuple(notes))
        written.command = _COMMAND
        files = write_all(folder, written)
        return Evaluation(written.document, tuple(files), (*notes, *written.left_out))


def judged(
    outcomes: Sequence[Outcome],
    request: TruthRequest,
    settings: EvaluationSettings,
    bundle: ModelBundle,
    reference: tuple[PlaceReference, str] | None,
    warn: Callable[[str], None],
) -> tuple[Written, int]:
    """Scores predicted recordings.

    Args:
        outcomes: of their predictions.
        request: where the truth comes from.
        settings: of the metrics.
        bundle: that predicted them.
        reference: a mapping recording in which places are looked up, and its bag.
        warn: is called with a line for each recording of several that is left out.

    Returns:
        What is to be written, and how many recordings were left out.

    Raises:
        RobotVisionError: the only recording cannot be evaluated, or none of several can.
    """
    parts, predictions, failures = [], {}, []
    for outcome in outcomes:
        job = outcome.job
        try:
            if outcome.error:
                raise SourceError(outcome.error)
            found = replace(outcome.predictions(), recording=job.name)
            key = found.meta[KEY]
            ran = key["engine"].partition(" ")[0]
            bundle = as_it_ran(bundle, key["precision"])
            found.meta["model"] = model_text(bundle, key["precision"], ran)
            truth = read_truth(Path(job.bag), request, found.meta["frame_id"])
            places = reference and reference[0]
            parts.append(score_recording(found, truth, settings, places, bundle.spec.bound))
            predictions[job.name] = found
        except RobotVisionError as error:
            if len(outcomes) == 1:
                raise
            failures.append(job.name)
            warn(f"{job.name} is left out: {error}")
    if not parts:
        raise SourceError(
            f"None of the {counted(len(outcomes), 'recording')} could be evaluated (see above)"
        )
    scores = joined(parts)
    whole = document(scores, settings)
    if failures:
        whole["failed"] = failures
    bags = {outcome.job.name: outcome.job.bag for outcome in outcomes}
    mapped = (reference[0].predictions, reference[1]) if reference else None
    return Written(whole, scores, predictions, bags, mapped, bundle), len(failures)


def as_it_ran(bundle: ModelBundle, program: str) -> ModelBundle:
    """Returns the bundle with the settings of the program that ran; of a precision, those it has anyway."""
    named = {each.name for each in bundle.programs} | {FLOAT32}
    wanted = program if program in named else FLOAT32
    return bundle if bundle.program == wanted else ModelBundle.load(bundle.path, wanted)


def require_heads(names: Iterable[str], bound: Iterable[tuple[Any, Any]]) -> None:
    """Refuses labels of a head that the model does not have under this name.

    Raises:
        ConfigError: with the names that there are.
    """
    there = [h.name for h, _ in bound if h.name != h.kind and LABEL in h.judge().truth]
    for name in names:
        if name not in there:
            raise ConfigError(
                unknown("head of --labels-of", name, there)
                if there
                else f"--labels-of {name}: no classifier of the model has a name of its own; give "
                "--labels or --label-topic"
            )


def with_images(request: TruthRequest, bound: Sequence[tuple[Any, Any]]) -> TruthRequest:
    """Returns a request for the true images by which a model's heads are judged.

    Raises:
        ConfigError: other ones are asked for; with the names that there are.
    """
    names = [name for head, _ in bound for name in image_words(head).values()]
    for source in request.images:
        if source.name not in names:
            raise ConfigError(
                unknown("name of --truth-image", source.name, names)
                if names
                else f"--truth-image {source.name}: no head of the model is judged by images"
            )
    classes = {word.partition(":")[2]: own for word, own in pixel_classes(bound).items()}
    return replace(request, image_names=tuple(names), image_classes=classes)


def require_different(jobs: Sequence[Job]) -> None:
    """Refuses a bag that is there under two names, before it is predicted twice.

    Raises:
        ConfigError: two bags of the same content; the message has both paths.
    """
    sizes: dict[int, list[str]] = {}
    for job in jobs:
        place = Path(job.bag)
        files = place.rglob("*") if place.is_dir() else (place,)
        total = sum(f.stat().st_size for f in files if f.is_file())
        sizes.setdefault(total, []).append(job.bag)
    for bags in sizes.values():
        if len(bags) < 2:
            continue
        seen: dict[str, str] = {}
        for bag in bags:
            other = seen.setdefault(bag_sha256(bag), bag)
            if other != bag:
                raise ConfigError(
                    f"{other} and {bag} are the same recording, by their content: its frames may count once "
                    "only; leave one out"
                )


def names_of(bags: Sequence[str]) -> list[str]:
    """Returns names that differ: as much of the paths' ends as that takes.

    Raises:
        ConfigError: a bag is given twice.
    """
    parts = [Path(bag).expanduser().resolve().parts for bag in bags]
    for length in range(1, max(len(p) for p in parts) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError("A bag is given twice: its frames may count once only")
