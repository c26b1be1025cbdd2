"""`robot-vision init PROJECT --data PATH`: a project on the user's own pictures or recording."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from robot_vision.cli.arguments import add_data_options, data_options
from robot_vision.datasets import DATASETS, Splits
from robot_vision.datasets.registry import kinds_of
from robot_vision.errors import ConfigError, RobotVisionError, SourceError, unknown
from robot_vision.messages.types import LABEL_INFO
from robot_vision.recordings.bag import (
    COMPRESSED_IMAGE,
    calls_itself_truth,
    camera_topics,
    has_distances,
    names_topic,
)
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.recordings.base import DEFAULT_TOPIC
from robot_vision.recordings.recording_folder import is_bag
from robot_vision.recordings.storage import slashed
from robot_vision.text.console import plain_console
from robot_vision.training import project
from robot_vision.truth.bag_labels import LABEL_KINDS
from robot_vision.truth.images import IMAGE_KINDS

T = TypeVar("T")
_IMAGES_DECODED = 20  # enough to show the sizes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "project", nargs="?", metavar="PROJECT", help="folder to write, which must be new or empty"
    )
    parser.add_argument(
        "--data", metavar="PATH", help="folder of images, data set, bag or folder of bags"
    )
    parser.add_argument(
        "--kind",
        choices=DATASETS,
        metavar="KIND",
        help="format of the data, if it is not the one that they look like (`robot-vision data formats`)",
    )
    parser.add_argument(
        "--topic",
        help="image topic of the robot's camera, and of the bag (default: the bag's only one, or "
        f"{DEFAULT_TOPIC})",
    )
    parser.add_argument(
        "--labels",
        metavar="FILE|TOPIC",
        help="labels of a bag's images: a YAML or CSV file of labelled time spans, or a topic of the bag "
        "(default: the only one that is called truth)",
    )
    parser.add_argument(
        "--heads",
        help="what to learn, separated by commas (default: all that the data have truth for)",
    )
    add_data_options(parser)


def run(args: argparse.Namespace) -> int:
    """Asks for what was not given, looks at the data, and writes the project."""
    ask = _Questions(sys.stdin.isatty() and sys.stdout.isatty())
    if args.project:
        project.check_new(Path(args.project).expanduser())
    path, kind = ask("Your images: a folder or a bag", args.data, "--data", None, _data(args.kind))
    kinds, cameras = _topics(path) if kind == "rosbag" else ({}, [])
    options = data_options(args.option)
    topic = ask(
        f"Image topic of the camera{_of(cameras)}",
        args.topic or options.get("image_topic"),
        "--topic",
        cameras[0] if len(cameras) == 1 else None if cameras else DEFAULT_TOPIC,
        lambda text: _camera(text, [t for t, k in kinds.items() if k in IMAGE_KINDS]),
    )
    if kind == "rosbag":
        options = {**options, "image_topic": topic, **_labels(ask, args.labels, kinds, options)}
        if "truth_images" not in options and (pixels := _pixels(path, topic)):
            options["truth_images"] = pixels
    elif args.labels:
        raise ConfigError(f"--labels is for bags, and {path} is a {kind} data set: leave it out")
    splits, options = project.open_divided(kind, path, options)
    _show(kind, path, splits)
    could, reasons = project.learnable(splits, str(path))
    if not could:
        raise ConfigError(f"Nothing can be learned from {path}: {'; '.join(reasons.values())}")
    heads = ask(
        "What to learn, separated by commas",
        args.heads,
        "--heads",
        ",".join(could),
        lambda text: _heads(text, could, reasons),
    )
    folder = ask(
        "Folder of the project",
        args.project,
        "PROJECT",
        f"{project.name_of(path.with_suffix(''))}_project" if ask.terminal else None,
        _folder,
    )
    made = project.Project(
        project.name_of(folder),
        kind,
        path,
        heads,
        topic,
        kinds.get(topic) == COMPRESSED_IMAGE or topic.endswith("/compressed"),
        options,
        project.suggested_settings(heads, splits),
    )
    project.write_project(folder, made)
    print(f"{folder}: learns {', '.join(heads)}; {folder / project.README} has the commands")
    return 0


class _Questions:
    """Takes flags, and asks for those that are missing where there is a terminal."""

    def __init__(self, terminal: bool) -> None:
        self.terminal = terminal

    def __call__(
        self,
        question: str,
        given: str | None,
        flag: str,
        default: str | None,
        check: Callable[[str], T],
    ) -> T:
        """Returns the answer.

        Raises:
            ConfigError: a flag's value is refused by `check`, or there is none and nobody to ask.
        """
        if given is not None:
            return check(given)
        if not self.terminal:
            if default is None:
                raise ConfigError(f"{flag} is missing, and there is no terminal to ask: {question}")
            return check(default)
        while True:
            shown = f" [{default}]" if default else ""
            try:
                answer = input(f"{question}{shown}: ").strip() or default
            except EOFError:
                raise ConfigError(f"{flag} is missing: {question}") from None
            if answer is None:
                continue
            try:
                return check(answer)
            except RobotVisionError as error:
                print(error)


def _data(kind: str | None) -> Callable[[str], tuple[Path, str]]:
    """Returns what reads a path, and finds out what it is."""

    def check(text: str) -> tuple[Path, str]:
        path = Path(text).expanduser().absolute()
        if not path.exists():
            raise SourceError(
                f"{path} does not exist: give a folder of images, a data set or a bag"
            )
        looks = kinds_of(path)
        if len(looks) > 1 and not kind:
            print(f"note: {path} looks like {' or '.join(looks)}; read as {looks[0]} (--kind)")
        return path, kind or next(iter(looks), "image_folder")

    return check


def _topics(path: Path) -> tuple[dict[str, str], list[str]]:
    """Returns the topics of a bag, or of a folder's bags, and their types; and those of cameras' pictures."""
    kinds: dict[str, str] = {}
    cameras: dict[str, None] = {}
    for one in [path] if is_bag(path) else sorted(p for p in path.iterdir() if is_bag(p)):
        bag = BagFile(one)
        try:
            kinds |= bag.kinds
            cameras |= dict.fromkeys(camera_topics(bag)[0])
        finally:
            bag.close()
    return kinds, list(cameras)


def _pixels(path: Path, images: str) -> str:
    """Returns which topics tell the truth of an image topic's pixels, as the option `truth_images` has it.

    These are called the truth, are in each bag, and say what their numbers are: distances, or ids whose
    classes the bag names.
    """
    found: list[dict[str, str]] = []
    for one in [path] if is_bag(path) else sorted(p for p in path.iterdir() if is_bag(p)):
        bag = BagFile(one)
        try:
            named: dict[str, str] = {}
            for topic, kind in bag.kinds.items():
                if topic != images and kind in IMAGE_KINDS and calls_itself_truth(topic):
                    if bag.kinds.get(names_topic(topic)) == LABEL_INFO or has_distances(bag, topic):
                        named.setdefault(topic.rpartition("/")[2], topic)
            found.append(named)
        finally:
            bag.close()
    first_bag = found[0] if found else {}
    shared = [item for item in first_bag.items() if all(item in f.items() for f in found)]
    return ", ".join(f"{name}={topic}" for name, topic in shared)


def _of(names: list[str]) -> str:
    return f" ({', '.join(names)})" if len(names) > 1 else ""


def _camera(text: str, cameras: list[str]) -> str:
    if cameras and slashed(text) not in cameras:
        raise ConfigError(unknown("image topic", text, cameras))
    return slashed(text)


def _labels(
    ask: _Questions, given: str | None, kinds: dict[str, str], options: dict[str, str]
) -> dict[str, str]:
    """Returns the options of a bag that say where its labels are."""
    if "label_topic" in options or "label_spans" in options:
        return {}
    topics = [topic for topic, kind in kinds.items() if kind in LABEL_KINDS]
    sure = [topic for topic in topics if calls_itself_truth(topic)]

    def check(text: str) -> dict[str, str]:
        if not text or text == "none":
            return {}
        if text in topics:
            return {"label_topic": text}
        file = Path(text).expanduser().absolute()
        if not file.is_file():
            there = ", ".join(topics) or "none"
            raise ConfigError(
                f"{text} is neither a file nor a topic of labels (the bag has {there})"
            )
        return {"label_spans": str(file)}

    question = f"Labels of the images: a file of time spans, a topic{_of(topics)}, or none"
    return ask(question, given, "--labels", sure[0] if len(sure) == 1 else "none", check)


def _show(kind: str, path: Path, splits: Splits) -> None:
    from robot_vision.cli.data import show, survey

    show(plain_console(), f"{kind} {path}", survey(splits, _IMAGES_DECODED, contents=False))


def _heads(text: str, could: list[str], reasons: dict[str, str]) -> list[str]:
    heads = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not heads:
        raise ConfigError(f"--heads is empty: use some of {', '.join(could)}")
    for head in heads:
        if head not in could:
            raise ConfigError(reasons.get(head) or unknown("head", head, could))
    return heads


def _folder(text: str) -> Path:
    folder = Path(text).expanduser()
    project.check_new(folder)
    return folder
