"""`robot-vision evaluate --bag BAG --model BUNDLE`: how good, how sure, how fast, and where it fails.

`robot-vision evaluate merge A/metrics.json B/metrics.json` puts evaluations of different recordings together.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import shlex
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from robot_vision.bundle.bundle import ModelBundle, model_text
from robot_vision.bundle.installed import find_model
from robot_vision.cli.arguments import open_split, progress, say_program
from robot_vision.cli.evaluate.arguments import (
    add_arguments,
    check_data_set,
    check_folders,
    settings_of,
    truth_request,
)
from robot_vision.contract.metrics import pixel_classes
from robot_vision.contract.rows import what_ran
from robot_vision.errors import ConfigError, SourceError
from robot_vision.evaluation.evaluate import (
    as_it_ran,
    judged,
    names_of,
    require_different,
    require_heads,
    with_images,
)
from robot_vision.evaluation.measure.metrics import PlaceReference, score_recording
from robot_vision.evaluation.merge import document, merge, read_document, scores_of
from robot_vision.evaluation.predict import runner
from robot_vision.evaluation.predict.cache import cache_file
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.evaluation.predict.recorded import read_results, with_times_of
from robot_vision.evaluation.predict.runner import Job, Outcome, count_frames, image_topic
from robot_vision.evaluation.predict.samples import TOPIC, SampleSource, sample_truth
from robot_vision.evaluation.report.compare import compare
from robot_vision.evaluation.report.requirements import (
    Requirement,
    judge,
    require_sections,
    write_junit,
)
from robot_vision.evaluation.report.text import markdown, print_tables, said_lines, summary_line
from robot_vision.evaluation.report.writing import Written, title_of, write_all
from robot_vision.files.folders import make_folder
from robot_vision.recordings import open_source
from robot_vision.recordings.bag import calls_itself_truth
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.text.console import plain_console
from robot_vision.truth.bag_poses import POSE_KINDS
from robot_vision.truth.images import parse_images
from robot_vision.truth.reading import TruthRequest, read_truth
from robot_vision.truth.tracks import Truth

__all__ = ["add_arguments", "run"]
_WIDTH = 120  # where the output is no terminal


def run(args: argparse.Namespace) -> int:
    """Evaluates.

    Exit status: 3 if a limit is missed, else 1 if a recording of several could not be evaluated, else 0.
    """
    if check_folders(args):
        from robot_vision.cli.evaluate import folders  # with what reads benchmarks

        return folders.run(args, settings_of(args))
    check_data_set(args)
    args.require = [Requirement.of(text) for text in args.require]
    if args.junit and not args.require:
        raise ConfigError("--junit writes whether limits were met: give some with --require")
    # Before anything is written: it may be the file that is about to be replaced.
    earlier = read_document(args.compare) if args.compare else None
    args.bag = _expanded(args.bag)
    make_folder(args.output, sources=[*args.bag, *(args.data or ())[1:]])
    if args.merge:
        written, failed = _merged(args.merge), 0
    elif args.data:
        written, failed = _of_data(args), 0
    elif args.predictions:
        written, failed = _recorded(args), 0
    else:
        written, failed = _replayed(args)
    if earlier is not None:
        written.changes, written.notes = compare(written.document, earlier)
    written.command = _command()
    written.verdicts = judge(args.require, written.document)
    files = write_all(args.output, written, not args.no_results_bag, args.top_k)
    if args.junit:
        write_junit(args.junit, title_of(written.document, written.bundle), written.verdicts)
    _show(args.format, written, files)
    if any(not verdict.kept for verdict in written.verdicts):
        return 3
    return 1 if failed else 0


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _show(form: str, written: Written, files: list[Path]) -> None:
    metrics, changes, notes = written.document, written.changes, written.notes
    stream = sys.stdout if form == "table" else sys.stderr
    console = plain_console(file=stream, width=None if stream.isatty() else _WIDTH)
    if form == "json":
        print(json.dumps({k: v for k, v in metrics.items() if k != "rows"}, allow_nan=False))
    elif form == "markdown":
        print(markdown(metrics, changes, [*map(str, written.verdicts), *notes]), end="")
    else:
        print_tables(console, metrics, changes, notes)
        for line in said_lines(written.scores):
            console.print(f"- said {line}", soft_wrap=True)
        console.print(summary_line(metrics), style="bold", soft_wrap=True)
    for line in (*map(str, written.verdicts), *written.left_out):
        console.print(f"- {line}", soft_wrap=True)
    console.print(f"report: {files[0]}", soft_wrap=True)


def _merged(words: list[str]) -> Written:
    if words[0] != "merge":
        raise ConfigError(
            f"{words[0]!r} is no option: give --bag BAG --model BUNDLE, or merge and several metrics.json"
        )
    if len(words) < 2:
        raise ConfigError("merge needs the metrics.json of at least one evaluation")
    whole = merge([read_document(path) for path in words[1:]])
    scores = scores_of(whole)
    ran = {what_ran(recording) for recording in scores.recordings} - {""}
    if len(ran) > 1:
        print(f"note: predicted by {' and '.join(sorted(ran))}", file=sys.stderr)
    return Written(whole, scores)


def _model(args: argparse.Namespace) -> ModelBundle:
    if not args.model:
        raise ConfigError(
            "Which model? Give --model BUNDLE, a directory or the name of an installed one"
        )
    bundle = ModelBundle.load(find_model(args.model))
    require_sections(args.require, [head for head, _ in bundle.spec.bound])
    return bundle


def _of_data(args: argparse.Namespace) -> Written:
    """Predicts and scores a split of a data set."""
    bundle, settings = _model(args), settings_of(args)
    splits, samples = open_split(args)
    path = args.data[1]
    name = args.name or f"{Path(path).resolve().name} ({args.split})"
    job = _job(args, bundle, str(Path(path) / args.split), name)
    source = SampleSource(name, samples)
    digest = hashlib.sha256("\n".join(splits.contents(args.split)).encode()).hexdigest()
    with progress() as bar, runner.load_pipeline(job) as pipeline:
        task = bar.add_task("predicting", total=len(samples))
        outcome = runner.predict_source(
            job, lambda: source, TOPIC, digest, pipeline, lambda n: bar.advance(task, n)
        )
        say_program(pipeline)
        bundle = pipeline.bundle
    _say([outcome])
    found = replace(outcome.predictions(), recording=name)
    found.meta["model"] = model_text(bundle, pipeline.program, pipeline.engine.name)
    truth = sample_truth(splits, samples, pixel_classes(bundle.spec.bound))
    scores = score_recording(found, truth, settings, bound=bundle.spec.bound)
    return Written(document(scores, settings), scores, {name: found}, {name: source}, None, bundle)


def _replayed(args: argparse.Namespace) -> tuple[Written, int]:
    """Predicts and scores bags."""
    if not args.bag:
        raise ConfigError(
            "There is nothing to evaluate: give --bag BAG or --data KIND PATH (or merge, or --predictions)"
        )
    bundle, bags = _model(args), args.bag
    request, settings = truth_request(args), settings_of(args)
    if len(bags) > 1 and (args.labels or args.poses or args.name):
        raise ConfigError(
            "--labels, --poses and --name describe one recording: evaluate each bag separately, then merge"
        )
    require_heads(request.labels_of, bundle.spec.bound)
    request = with_images(request, bundle.spec.bound)
    jobs = [
        _job(args, bundle, bag, name)
        for bag, name in zip(bags, [args.name] if args.name else names_of(bags), strict=True)
    ]
    every = [*jobs, _job(args, bundle, args.map_bag, "map")] if args.map_bag else jobs
    for job in every if len(jobs) == 1 else every[len(jobs) :]:  # before hours of work
        image_topic(job.bag, job.topic, job.truth)
    require_different(jobs)
    outcomes = _predicted(every, args)
    reference = _reference(outcomes.pop(), request, args) if args.map_bag else None
    written, failed = judged(outcomes, request, settings, bundle, reference, _warn)
    ran = sorted({what_ran({"meta": found.meta}) for found in written.predictions.values()})
    if bundle.programs or len(ran) > 1:
        print(f"note: predicted by {' and '.join(ran)}", file=sys.stderr)
    return written, failed


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def _job(args: argparse.Namespace, bundle: ModelBundle, bag: str, name: str) -> Job:
    cache = cache_file(args.output / "cache", bag)
    if args.no_cache:
        cache.unlink(missing_ok=True)
    share = max(1, len(os.sched_getaffinity(0)) // args.jobs) if args.jobs > 1 else 0
    return Job(
        bag=str(Path(bag).expanduser()),
        name=name,
        cache=str(cache.absolute()),
        model=str(bundle.path.absolute()),
        topic=args.topic,
        truth=_true_topics(args),
        engine=args.engine,
        device=args.device,
        precision=args.precision,
        threads=args.threads or share,
        batch=args.batch,
        limit=args.limit,
    )


def _true_topics(args: argparse.Namespace) -> tuple[str, ...]:
    return tuple(source.where for source in parse_images(args.truth_image))


def _predicted(jobs: list[Job], args: argparse.Namespace) -> list[Outcome]:
    with progress() as bar:
        task = bar.add_task("predicting", total=count_frames(jobs))
        try:
            outcomes = runner.run(jobs, args.jobs, args.runner, lambda n: bar.advance(task, n))
        except KeyboardInterrupt:
            print(
                "recordings that are done are kept: the same command continues from there",
                file=sys.stderr,
            )
            raise
    _say(outcomes)
    return outcomes


def _say(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.note:
            print(f"note: {outcome.job.name}: {outcome.note}", file=sys.stderr)
    reused = [o.job.name for o in outcomes if o.reused]
    if reused:
        print(f"note: kept predictions are used for {', '.join(reused)}", file=sys.stderr)


def _reference(
    outcome: Outcome, request: TruthRequest, args: argparse.Namespace
) -> tuple[PlaceReference, str]:
    if outcome.error:
        raise SourceError(f"--map-bag: {outcome.error}")
    found = replace(outcome.predictions(), recording=Path(outcome.job.bag).name)
    wanted = replace(
        request,
        label_source="none",
        label_topic="",
        label_spans="",
        labels_of={},
        images=(),
        image_names=(),
        pose_file=args.map_poses,
    )
    truth = read_truth(Path(outcome.job.bag), wanted, found.meta["frame_id"])
    return PlaceReference(found, truth), outcome.job.bag


def _recorded(args: argparse.Namespace) -> Written:
    """Scores a recording of the node's topics."""
    if len(args.bag) > 1 or args.map_bag:
        raise ConfigError(
            "--predictions scores one recording: give one --bag at most, and no --map-bag"
        )
    bundle = _model(args) if args.model else None
    request = truth_request(args)
    require_heads(request.labels_of, bundle.spec.bound if bundle else ())
    request = with_images(request, bundle.spec.bound if bundle else ())
    found = read_results(args.predictions, args.camera, bundle.spec if bundle else None)
    if bundle is not None and bundle.sha256 not in found.meta["model"] and found.meta["model"]:
        raise ConfigError(
            f"{args.predictions} was recorded with another model ({found.meta['model']}): leave out --model"
        )
    if bundle is not None:
        bundle = as_it_ran(bundle, what_ran({"meta": found.meta}).partition(" ")[0])
    bag = ""
    if args.bag:
        bag = args.bag[0]
        topic = image_topic(bag, args.topic, _true_topics(args))
        with open_source(bag, [topic]) as source:
            found = with_times_of(found, source, bundle)
        found.meta["image_topic"] = topic
    elif not (request.pose_topic or request.pose_file or args.tf):
        # What the node said of poses must not be taken for the truth of them.
        topic = _only_true_poses(args.predictions)
        request = replace(request, pose_topic=topic, pose_source="topic" if topic else "none")
    truth_bag = Path(bag or args.predictions)
    found.meta["path"] = str(Path(args.predictions).expanduser().resolve())
    found = replace(found, recording=args.name or found.recording)
    truth: Truth = read_truth(truth_bag, request, found.meta["frame_id"])
    bound = bundle.spec.bound if bundle else ()
    scores = score_recording(found, truth, settings := settings_of(args), bound=bound)
    predictions: dict[str, Predictions] = {found.recording: found}
    bags: dict[str, str | SampleSource] = {found.recording: bag} if bag else {}
    args.no_results_bag = True  # the recording is that bag
    return Written(document(scores, settings), scores, predictions, bags, None, bundle)


def _only_true_poses(path: str) -> str:
    """Returns the one topic of poses in a recording that calls itself the truth, or nothing."""
    bag = BagFile(Path(path).expanduser())
    bag.close()
    named = [t for t, k in bag.kinds.items() if k in POSE_KINDS and calls_itself_truth(t)]
    return named[0] if len(named) == 1 else ""


def _expanded(patterns: list[str]) -> list[str]:
    """Returns the bags of patterns, each once, in their order."""
    found: list[str] = []
    for pattern in patterns:
        text = os.path.expanduser(pattern)
        if not glob.has_magic(text) or os.path.exists(text):
            found.append(text.rstrip("/") or text)
            continue
        matches = sorted(glob.glob(text, recursive=True))
        if not matches:
            raise SourceError(f"{pattern} matches nothing: give a rosbag, or a pattern in quotes")
        found += matches
    for bag, count in Counter(found).items():
        if count > 1:
            print(f"note: {bag} is given {count} times: it counts once", file=sys.stderr)
    return list(dict.fromkeys(found))


def interrupted(args: argparse.Namespace) -> str:
    """Returns what is left to do after Ctrl-C."""
    return f"the same command continues with the recordings that {args.output} lacks"
