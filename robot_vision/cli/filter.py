"""`robot-vision filter --bag BAG --model BUNDLE`: what the filters over time gain on recordings with truth.

The same filters as in the filter node are run over the predictions of each recording, and their results are
compared with the raw ones on the same frames. docs/filters.md explains them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.cli.arguments import add_model, add_output, add_resamples, add_threads, add_topic
from robot_vision.contract.rows import joined
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError, SourceError
from robot_vision.evaluation.measure.association import associate
from robot_vision.evaluation.measure.metrics import score_recording
from robot_vision.evaluation.predict import runner
from robot_vision.evaluation.predict.cache import cache_file
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.evaluation.predict.runner import Job
from robot_vision.files.folders import make_folder
from robot_vision.files.whole import write_whole
from robot_vision.filters.class_file import (
    ClassKnowledge,
    fitted_rates,
    read_class_file,
    write_rates,
)
from robot_vision.filters.class_filter import ClassModel
from robot_vision.filters.pose_filter import PoseFilterSettings
from robot_vision.geometry.earth import EARTH
from robot_vision.ros.filters.parameters import FilterParameters
from robot_vision.settings.parameters import settings
from robot_vision.studies.filtering.measure import (
    CellsTrack,
    OdometryTrack,
    filtered_classes,
    filtered_poses,
    gain_lines,
    gains,
    odometry_of_truth,
    read_odometry,
)
from robot_vision.studies.filtering.memory_curve import held_out, memory_curve, picture, table_lines
from robot_vision.studies.filtering.simulated_odometry import OdometryErrors
from robot_vision.text.console import plain_console
from robot_vision.text.counts import counted
from robot_vision.truth.bag_poses import parse_transform
from robot_vision.truth.reading import TruthRequest, read_truth
from robot_vision.truth.tracks import Truth

_WIDTH = 120  # where the output is no terminal
_LEAST_BAGS = 3  # one left out, and two from which a standard error can be computed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    model, pose = ClassModel(("a",)), PoseFilterSettings()
    parser.add_argument(
        "--bag",
        action="append",
        default=[],
        metavar="BAG",
        help="rosbag with true classes or poses; repeat for more",
    )
    add_model(parser, required=False)
    add_topic(parser)
    add_threads(parser)
    parser.add_argument(
        "--odometry",
        default="simulated",
        metavar="HOW",
        help="source of the odometry: simulated (from the true poses, with errors), none, or the name of"
        " a topic (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="random seed of the simulated odometry (default: %(default)s)",
    )
    parser.add_argument(
        "--base-to-camera",
        default="identity",
        metavar="T",
        help="with odometry from a topic, pose of the camera in its child frame: x,y,z,qx,qy,qz,qw "
        "(metres, unit quaternion) or identity (default: %(default)s)",
    )
    parser.add_argument(
        "--no-cells",
        action="store_true",
        help="leave the model's cells out, as a filter node without cell_topics does",
    )
    parser.add_argument(
        "--class-file",
        default="",
        metavar="FILE",
        help="YAML file with prior, training_prior and rates by class name",
    )
    parser.add_argument(
        "--fit-class-file",
        default="",
        metavar="FILE",
        help="write a class file with the rates of the true labels of these bags, and compare nothing",
    )
    parser.add_argument(
        "--memory-curve",
        default="",
        metavar="SVG",
        help="draw the quality of the filtered classes of these bags for each value of --memory, and "
        "compare nothing else",
    )
    parser.add_argument(
        "--calibration-bag",
        action="append",
        default=[],
        metavar="BAG",
        help="with --memory-curve: bag used to choose the value of --memory, also drawn; give three or "
        "more",
    )
    texts = {s.name: s.text[0].lower() + s.text[1:].rstrip(".") for s in settings(FilterParameters)}
    for name, parameter, default in (
        ("dwell-s", "class_dwell_s", model.dwell_s),
        ("correlation-s", "class_correlation_s", model.correlation_time_s),
        ("memory", "class_memory", model.memory),
        ("unknown-prior", "unknown_prior", model.unknown_prior),
    ):
        text = f"{texts[parameter]} (default: %(default)s)"
        parser.add_argument(f"--{name}", type=float, default=default, help=text)
    for name in ("gate_probability", "correlation_m", "correlation_deg", "speed_m_s", "turn_deg_s"):
        parser.add_argument(
            f"--pose-{name.replace('_', '-')}",
            type=float,
            default=getattr(pose, name),
            help=f"{texts.get(name) or texts['pose_' + name]} (default: %(default)s)",
        )
    add_resamples(parser)
    add_output(parser, "filter", ("table", "markdown", "json"))


def run(args: argparse.Namespace) -> int:
    """Filters and compares; returns the exit status."""
    if not args.bag or not args.model:
        raise ConfigError("Which recordings and which model? Give --bag BAG and --model BUNDLE")
    bundle = ModelBundle.load(find_model(args.model))
    if args.calibration_bag and not args.memory_curve:
        raise ConfigError("--calibration-bag goes with --memory-curve FILE.svg alone")
    if 0 < len(args.calibration_bag) < _LEAST_BAGS:
        raise ConfigError(
            f"{len(args.calibration_bag)} calibration bags are too few: give {_LEAST_BAGS} or more"
        )
    _check(args, bundle)
    if args.fit_class_file:
        return _fit(args, bundle)
    if args.memory_curve:
        return _draw_memory(args, bundle)
    settings = EvaluationSettings(resamples=args.resamples)
    raw, filtered, recordings = [], [], []
    for index, (name, predictions, truth) in enumerate(_predicted(args, bundle, args.bag)):
        after, facts = _filtered(
            args, bundle, predictions, truth, args.bag[index], args.seed + index
        )
        raw.append(score_recording(predictions, truth, settings))
        filtered.append(score_recording(after, truth, settings))
        alone = gains(raw[-1], filtered[-1], settings)
        nll = alone.get("classification", {}).get("nll")
        recordings.append({"name": name, **facts, **({"nll": nll} if nll else {})})
    found = gains(joined(raw), joined(filtered), settings)
    if not found:
        raise SourceError(
            "Nothing could be compared: the recordings have no truth of what was predicted"
        )
    document = {"model": bundle.name, "sha256": bundle.sha256, "recordings": recordings, **found}
    write_whole(args.output / "filters.json", json.dumps(document, indent=1) + "\n")
    _show(args, found, recordings)
    return 0


def _check(args: argparse.Namespace, bundle: ModelBundle) -> None:
    """Refuses wrong settings, and files that cannot be written, before the recordings are predicted."""
    if args.seed < 0:
        raise ConfigError(f"seed is {args.seed}: it must be at least 0")
    moved = parse_transform(args.base_to_camera)
    kinds = {head.kind for head, _ in bundle.spec.bound}
    from_topic = args.odometry not in ("none", "simulated")
    for option, given, works, why in (
        (
            "--class-file",
            args.class_file,
            "classifier" in kinds,
            "without a model with a classifier",
        ),
        ("--no-cells", args.no_cells, "cells" in kinds, "without a model with cells"),
        ("--base-to-camera", (moved != np.eye(4)).any(), from_topic, "without --odometry TOPIC"),
        ("--memory-curve", args.memory_curve, not args.fit_class_file, "with --fit-class-file"),
    ):
        if given and not works:
            raise ConfigError(f"{option} has no effect {why}")
    if "classifier" in bundle.spec.heads:
        _class_model(args, bundle.spec.heads["classifier"].labels)
    _pose_settings(args)
    for option in ("fit_class_file", "memory_curve"):
        if file := getattr(args, option):
            make_folder(Path(file).expanduser().parent, f"--{option.replace('_', '-')}: folder")
    make_folder(args.output, sources=args.bag)


def _fit(args: argparse.Namespace, bundle: ModelBundle) -> int:
    """Writes the rates of the true labels; for other recordings than those that are compared."""
    if "classifier" not in bundle.spec.heads:
        raise ConfigError(f"Model {bundle.name} has no classifier: there are no classes to follow")
    labels = bundle.spec.heads["classifier"].labels
    recordings = []
    for _, predictions, truth in _predicted(args, bundle, args.bag):
        found = associate(predictions, truth)
        recordings.append((found.predictions.stamps_ns, found.labels))
    write_rates(args.fit_class_file, labels, fitted_rates(labels, recordings))
    print(f"wrote {args.fit_class_file}")
    return 0


def _draw_memory(args: argparse.Namespace, bundle: ModelBundle) -> int:
    """Draws loss against trust; for the calibration bags also says which trust they speak for."""
    if "classifier" not in bundle.spec.heads:
        raise ConfigError(f"Model {bundle.name} has no classifier: there are no classes to filter")
    model = _class_model(args, bundle.spec.heads["classifier"].labels)
    threshold = bundle.spec.heads["classifier"].unknown_threshold
    curves = {
        title: memory_curve(_predicted(args, bundle, bags), model, threshold)
        for title, bags in (("Calibration", args.calibration_bag), ("Others", args.bag))
        if bags
    }
    write_whole(Path(args.memory_curve).expanduser(), picture(curves, args.memory))
    lines = table_lines(curves)
    header = ["memory", *(f"{t}: {w}" for t in curves for w in ("difference", "worse", "worst"))]
    _print_table(args, header, lines)
    if "Calibration" in curves:
        curve = curves["Calibration"]
        gain = held_out(curve)
        worse = int((gain > 1e-6).sum())
        print(
            f"Chosen on {counted(len(gain), 'calibration bag')}: class_memory {curve.chosen():g}."
        )
        held = f"{gain.mean():+.4f}, worse on {worse} of {len(gain)}"
        print(f"Chosen on all but one and measured on that one: {held}.")
    print(f"wrote {args.memory_curve}")
    return 0


def _predicted(
    args: argparse.Namespace, bundle: ModelBundle, bags: list[str]
) -> list[tuple[str, Predictions, Truth]]:
    jobs = [
        Job(
            bag=str(Path(bag).expanduser()),
            name=f"{index}/{Path(bag).name}",
            cache=str(cache_file(args.output / "cache", bag).absolute()),
            model=str(bundle.path.absolute()),
            topic=args.topic,
            threads=args.threads,
        )
        for index, bag in enumerate(bags)
    ]
    found = []
    for outcome in runner.run(jobs):
        if outcome.error:
            raise SourceError(outcome.error)
        predictions = replace(outcome.predictions(), recording=outcome.job.name)
        truth = read_truth(Path(outcome.job.bag), TruthRequest(), predictions.meta["frame_id"])
        for line in predictions.meta["problems"]:
            print(f"note: {outcome.job.name}: {line}", file=sys.stderr)
        found.append((outcome.job.name, predictions, truth))
    return found


def _filtered(
    args: argparse.Namespace,
    bundle: ModelBundle,
    predictions: Predictions,
    truth: Truth,
    bag: str,
    seed: int,
) -> tuple[Predictions, dict[str, Any]]:
    facts: dict[str, Any] = {}
    if "classifier" in bundle.spec.heads and predictions.probabilities is not None:
        model = _class_model(args, predictions.labels)
        threshold = bundle.spec.heads["classifier"].unknown_threshold
        predictions = filtered_classes(predictions, model, threshold)
    cells = [] if args.no_cells else _cells(bundle, predictions)
    if cells and predictions.position is None:
        names = ", ".join(track.source for track in cells)
        print(
            f"note: {names}: cells begin no estimate, and model {bundle.name} says no poses: they are not "
            "filtered",
            file=sys.stderr,
        )
    if predictions.position is not None:
        odometry = _odometry(args, predictions, truth, bag, seed)
        predictions, counts = filtered_poses(predictions, _pose_settings(args), odometry, cells)
        facts["odometry"] = odometry.text if odometry else "none"
        facts["poses"] = {name: int(count) for name, count in counts.items()}
    return predictions, facts


def _cells(bundle: ModelBundle, predictions: Predictions) -> list[CellsTrack]:
    """Returns what the model's heads of cells said, and says which cannot be fused with its poses."""
    found = []
    frame = getattr(bundle.spec.heads.get("pose"), "map_frame", "")
    for head, spec in bundle.spec.bound:
        said = predictions.more.get(head.key("cell_probabilities"))
        if head.kind != "cells" or said is None:
            continue
        if spec.plane == EARTH:
            print(f"note: {head.name}: cells on the earth are not filtered", file=sys.stderr)
            continue
        if frame and spec.map_frame != frame:
            print(
                f"note: {head.name}: its cells lie in {spec.map_frame!r} and the poses in {frame!r}: they "
                "are left out of the filter",
                file=sys.stderr,
            )
            continue
        found.append(CellsTrack(head.name, spec.cells, spec.axes, said))
    return found


def _pose_settings(args: argparse.Namespace) -> PoseFilterSettings:
    return PoseFilterSettings(
        gate_probability=args.pose_gate_probability,
        correlation_m=args.pose_correlation_m,
        correlation_deg=args.pose_correlation_deg,
        speed_m_s=args.pose_speed_m_s,
        turn_deg_s=args.pose_turn_deg_s,
    )


def _class_model(args: argparse.Namespace, labels: tuple[str, ...]) -> ClassModel:
    known = read_class_file(args.class_file, labels) if args.class_file else ClassKnowledge()
    return ClassModel(
        labels,
        prior=known.prior,
        training_prior=known.training_prior,
        dwell_s=args.dwell_s,
        rates=known.rates,
        correlation_time_s=args.correlation_s,
        memory=args.memory,
        unknown_prior=args.unknown_prior,
    )


def _odometry(
    args: argparse.Namespace, predictions: Predictions, truth: Truth, bag: str, seed: int
) -> OdometryTrack | None:
    if args.odometry == "none":
        return None
    if args.odometry == "simulated":
        return odometry_of_truth(predictions, truth, OdometryErrors(), seed)
    T_base_camera = parse_transform(args.base_to_camera)
    return read_odometry(Path(bag).expanduser(), args.odometry, T_base_camera)


def _show(args: argparse.Namespace, found: Any, recordings: list[dict[str, Any]]) -> None:
    if args.format == "json":
        print(json.dumps(found))
        return
    lines = gain_lines(found)
    if len(recordings) > 1:
        alone = {r["name"]: {f"nll of {r['name']}": r["nll"]} for r in recordings if "nll" in r}
        lines += gain_lines(alone)
    _print_table(args, ["", "raw", "filtered", "difference"], lines)
    if args.format == "markdown":
        return
    console = _console()
    for recording in recordings:
        if "odometry" in recording:
            counts = ", ".join(f"{n} {c}" for n, c in sorted(recording["poses"].items()))
            text = f"{recording['name']}: odometry {recording['odometry']}; poses {counts}"
            console.print(text, soft_wrap=True)
    console.print(f"wrote {args.output / 'filters.json'}", soft_wrap=True)


def _print_table(args: argparse.Namespace, header: list[str], lines: list[list[str]]) -> None:
    if args.format == "json":
        print(json.dumps([header, *lines]))
        return
    if args.format == "markdown":
        for cells in (header, ["---"] * len(header), *lines):
            print(f"| {' | '.join(cells)} |")
        return
    table = Table(*header)
    for cells in lines:
        table.add_row(*cells)
    _console().print(table)


def _console() -> Console:
    console = plain_console()
    return plain_console(width=None if console.is_terminal else _WIDTH)
