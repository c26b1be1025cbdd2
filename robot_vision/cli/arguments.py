"""What verbs share: arguments, and the progress bar."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError
from robot_vision.text.console import plain_console

if TYPE_CHECKING:
    from robot_vision.calibration.run import Data
    from robot_vision.datasets import Sample, Splits
    from robot_vision.pipeline import Pipeline


def changed(
    args: argparse.Namespace,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    names: Iterable[str],
) -> str:
    """Returns those of a verb's options that were given another value than their default, for a message."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = [name for name in names if getattr(args, name) != parser.get_default(name)]
    return ", ".join(f"--{name.replace('_', '-')}" for name in given)


def number(kind: type[float], low: float, high: float = math.inf) -> Callable[[str], float]:
    """Returns what reads a number within bounds, for argparse's `type`."""

    def check(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            allowed = (
                f"from {low:.12g} to {high:.12g}" if high < math.inf else f"{low:.12g} or more"
            )
            raise argparse.ArgumentTypeError(f"{value:.12g}: it must be {allowed}")
        return value

    check.__name__ = "whole number" if kind is int else "number"  # argparse names it in its message
    return check


at_least_1 = number(int, 1)


def add_model(group: Any, required: bool = True) -> None:
    """Declares --model."""
    group.add_argument(
        "--model",
        required=required,
        metavar="BUNDLE",
        help="model bundle: a directory, or the name of an installed model",
    )


def add_truth(group: Any) -> None:
    """Declares where the truth of a recording is."""
    from robot_vision.truth.images import IMAGES
    from robot_vision.truth.reading import TruthRequest

    group.add_argument(
        "--labels",
        default="",
        metavar="FILE",
        help="YAML or CSV file of labelled time spans, used as true classes",
    )
    group.add_argument(
        "--label-topic", default="", help="topic of the true classes, a String or Classification"
    )
    group.add_argument(
        "--poses",
        default="",
        metavar="FILE",
        help="file of true poses, in TUM, EuRoC or KITTI format",
    )
    group.add_argument(
        "--pose-topic", default="", help="topic of the true poses, a pose or odometry"
    )
    group.add_argument(
        "--truth-image",
        action="append",
        default=[],
        metavar="NAME=TOPIC",
        help=f"{IMAGES}; repeat for more (default: for each map that the model answers with, the topic "
        "of that name in a namespace called truth)",
    )
    group.add_argument(
        "--truth-image-within",
        type=float,
        default=TruthRequest.image_within_s,
        metavar="S",
        help="largest difference between the stamps of an image and its true image, in seconds "
        "(default: %(default)s)",
    )


def add_engine(group: Any, *, precision: bool = True, threads: bool = False) -> None:
    """Declares what runs the network."""
    group.add_argument(
        "--engine",
        default="auto",
        help="inference engine: auto, onnx, openvino or torch (default: %(default)s)",
    )
    group.add_argument(
        "--device",
        default="auto",
        help="device of the engine: auto, cpu, cuda:0, tensorrt:0, ... (default: %(default)s)",
    )
    if precision:
        group.add_argument(
            "--precision",
            default="auto",
            help="program of the bundle, such as int8, or float32, float16 or bfloat16; auto takes the "
            "fastest program that is certified for this machine, or float32 (default: %(default)s)",
        )
    if threads:
        add_threads(group)


def add_threads(group: Any) -> None:
    """Declares --threads."""
    group.add_argument(
        "--threads",
        type=int,
        default=0,
        help="CPU threads of the engine (default: 0, the engine chooses)",
    )


def add_topic(group: Any) -> None:
    """Declares --topic of what reads one topic."""
    group.add_argument("--topic", default="", help="image topic to read, if the bag has several")


def add_resamples(group: Any, of_none: str = "") -> None:
    """Declares --resamples; `of_none` says what 0 does, where it is allowed."""
    group.add_argument(
        "--resamples",
        type=int,
        default=EvaluationSettings().resamples,
        metavar="N",
        help=f"resamples of the bootstrap for confidence intervals{of_none} (default: %(default)s)",
    )


def add_output(group: Any, verb: str, formats: Sequence[str] = ()) -> None:
    """Declares --output, a folder, and --format of what is printed, by default the first of the formats."""
    group.add_argument(
        "--output",
        type=Path,
        default=Path("out") / verb,
        metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )
    if formats:
        group.add_argument(
            "--format",
            choices=formats,
            default=formats[0],
            help="format of the summary on standard output (default: %(default)s)",
        )


def say_program(pipeline: Pipeline) -> None:
    """Says on standard error which of a bundle's programs runs, and why."""
    if pipeline.said:
        print(f"note: {pipeline.said}", file=sys.stderr)


def add_data_set(group: Any, instead_of: str) -> None:
    """Declares a data set in place of recordings, and its split."""
    from robot_vision.datasets import DATASETS, SPLIT_NAMES  # most verbs need none

    group.add_argument(
        "--data",
        nargs=2,
        metavar=("KIND", "PATH"),
        help=f"data set instead of {instead_of}; kinds: {', '.join(DATASETS)}",
    )
    add_data_options(group)
    group.add_argument(
        "--split",
        choices=SPLIT_NAMES,
        default="test",
        help="split of the data set (default: %(default)s)",
    )


def open_split(args: argparse.Namespace) -> tuple[Splits, Sequence[Sample]]:
    """Returns the data set of --data, and the samples of its split.

    Raises:
        ConfigError: there are none; with the splits that have some.
    """
    from robot_vision.datasets import SPLIT_NAMES, open_dataset  # see above

    kind, path = args.data
    splits = open_dataset(kind, path, **data_options(args.option))
    samples = splits.split(args.split)
    if not samples:
        there = ", ".join(n for n in SPLIT_NAMES if splits.split(n))
        raise ConfigError(f"{path} has no {args.split} images: --split may be {there}")
    return splits, samples


def add_held_out(parser: argparse.ArgumentParser, verb: str) -> None:
    """Declares the bundle and the images.

    Args:
        parser: of the verb.
        verb: that uses them.
    """
    from robot_vision.datasets import DATASETS, SPLIT_NAMES  # most verbs need none

    parser.add_argument(
        "bundle",
        metavar="BUNDLE",
        help="model bundle: a directory, or the name of an installed model",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--data",
        nargs=2,
        metavar=("KIND", "PATH"),
        help=f"data set with labels or poses; kinds: {', '.join(DATASETS)}",
    )
    source.add_argument(
        "--bag", metavar="BAG", help="rosbag with labels or poses; all of it is used"
    )
    add_data_options(parser)
    parser.add_argument(
        "--split",
        choices=(*SPLIT_NAMES, "all"),
        help=f"split of the data set to {verb} on (default: validation; a bag has only all)",
    )


def held_out(args: argparse.Namespace) -> Data:
    """Returns the images, of which there are some.

    Raises:
        ConfigError: there are none; with the splits that have some.
    """
    options = data_options(args.option)
    if args.bag:
        # Each of its frames is held out: nothing of it is for training.
        return open_data("rosbag", args.bag, {"split": "test", **options}, args.split or "all")
    kind, path = args.data
    return open_data(kind, path, options, args.split or "validation")


def open_data(kind: str, path: str, options: Mapping[str, str], split: str) -> Data:
    """Returns a split of a data set, and says its notes.

    Raises:
        ConfigError: it has no such images; with the splits that have some.
    """
    from robot_vision.calibration.run import Data  # most verbs need none
    from robot_vision.datasets import SPLIT_NAMES, open_dataset

    opened = open_dataset(kind, path, **options)
    data = Data(opened, split, Path(path).resolve().name, dict(options))
    for note in opened.notes:  # such as images that were left out
        print(f"note: {note}", file=sys.stderr)
    if not data.samples:
        raise ConfigError(
            f"{data.name} has no {data.split} images: choose another --split (it has "
            + ", ".join(f"{len(opened.split(n))} {n}" for n in SPLIT_NAMES)
            + ")"
        )
    return data


def add_data_options(group: Any) -> None:
    """Declares --option, which `data_options` reads."""
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the data set; repeat for more (`robot-vision data formats KIND` lists them)",
    )


def data_options(texts: Iterable[str]) -> dict[str, str]:
    """Returns the options of `KEY=VALUE` texts.

    Raises:
        ConfigError: a text without `=`, or a key given twice.
    """
    options: dict[str, str] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise ConfigError(f"--option {text!r} is not KEY=VALUE, such as validation=0.2")
        if key in options:
            raise ConfigError(f"--option {key} is given twice")
        options[key] = value
    return options


def add_same_place(group: Any) -> None:
    """Declares how near two cameras are that see one place."""
    settings = EvaluationSettings().to_dict()
    group.add_argument(
        "--place-radius",
        type=float,
        default=settings["place_radius_m"],
        metavar="M",
        help="two cameras see the same place if they are at most this far apart, in metres (default: "
        "%(default)s)",
    )
    group.add_argument(
        "--place-heading",
        type=float,
        default=settings["place_heading_deg"],
        metavar="DEG",
        help="two cameras see the same place if their headings differ by at most this, in degrees "
        "(default: %(default)s)",
    )


def progress(*columns: ProgressColumn) -> Progress:
    """Returns a bar for standard error that is gone at its end; nothing where that is no terminal.

    Args:
        columns: shown between a task's count and the time that it still takes.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeRemainingColumn(),
        console=plain_console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
