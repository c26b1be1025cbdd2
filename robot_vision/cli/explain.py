"""`robot-vision explain`: what an answer rests on, and what each stage of a network sees, as pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_vision.cli.arguments import add_data_options, changed, open_split
from robot_vision.errors import ConfigError, ImageError, SourceError, unknown
from robot_vision.files.folders import make_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from robot_vision.datasets.sample import Sample


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    from robot_vision.datasets import DATASETS, SPLIT_NAMES  # most verbs need none

    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image file, or a rosbag or video, of which one image is explained (--start)",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--model", help="model bundle: a directory, or the name of an installed model"
    )
    what.add_argument("--backbone", help="name of a network, to show its stages without a bundle")
    parser.add_argument(
        "--weights",
        help="with --backbone: torchvision for its own weights, or a file (default: random numbers)",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=224,
        help="with --backbone: side of the square input, in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--label",
        help="class to explain, for the heads that have it (default: the answer of each head)",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--pixel",
        nargs=2,
        type=int,
        metavar=("X", "Y"),
        help="pixel of the images to explain, for the heads that answer for each pixel (default: the "
        "class with the most pixels, or the nearest pixels)",
    )
    where.add_argument(
        "--region",
        nargs=4,
        type=int,
        metavar=("X", "Y", "WIDTH", "HEIGHT"),
        help="rectangle of the images to explain, as --pixel does a pixel",
    )
    parser.add_argument(
        "--start",
        type=float,
        default=0.0,
        metavar="S",
        help="which image of a rosbag or video: the first from S seconds after its start on (default: 0)",
    )
    parser.add_argument(
        "--data",
        nargs=2,
        metavar=("KIND", "PATH"),
        help="data set, such as the one that the model was trained on: one more picture shows which of its "
        f"images, and which pixel in each, are most like what is explained; kinds: {', '.join(DATASETS)}",
    )
    add_data_options(parser)
    parser.add_argument(
        "--split",
        choices=SPLIT_NAMES,
        default="train",
        help="split of the data set (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        required=True,
        help="folder for the pictures; it is created if it does not exist",
    )


def run(args: argparse.Namespace) -> int:
    """Writes NAME-HEAD.png for each head that can be asked, and NAME-layers.png, for every image.

    With --data also NAME-HEAD-alike.png.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ConfigError("explain needs torch: pip install 'robot_vision[train]'") from error
    import cv2

    from robot_vision.bundle.bundle import WEIGHTS, ModelBundle
    from robot_vision.bundle.installed import find_model
    from robot_vision.contract.metrics import pixel_classes
    from robot_vision.contract.training import Asked
    from robot_vision.datasets.model_classes import in_classes_of
    from robot_vision.images.window import Window
    from robot_vision.networks.checkpoint import load_network
    from robot_vision.recordings.files import readable
    from robot_vision.studies import alike, explain

    if not args.data and (given := changed(args, add_arguments, ("option", "split"))):
        raise ConfigError(f"{given} belongs to a data set: give --data KIND PATH, or leave it out")
    if args.model and (given := changed(args, add_arguments, ("weights", "size"))):
        raise ConfigError(f"{given} belongs to --backbone, and --model has its own: leave it out")
    if args.data and not args.model:
        raise ConfigError(
            "--data shows what a model's answer is like: give --model instead of --backbone"
        )
    if args.model:
        network = load_network(ModelBundle.load(find_model(args.model)).path / WEIGHTS)
    else:
        network = explain.backbone_alone(args.backbone, args.weights, (args.size, args.size))
        for note in network.backbone.weight_notes:
            print(f"note: {note}", file=sys.stderr)
    samples: Sequence[Sample] = ()
    if args.data:
        splits = in_classes_of(open_split(args)[0], pixel_classes(network.spec.bound))
        for note in splits.notes:
            print(f"note: {note}", file=sys.stderr)
        samples = splits.split(args.split)
    wide = explain.all_stages(network)
    recorded = [file for file in args.images if _is_recording(file)]
    if not recorded and (given := changed(args, add_arguments, ("start",))):
        raise ConfigError(f"{given} belongs to a rosbag or video: name one, or leave it out")
    folder = Path(args.output).expanduser()
    make_folder(folder)
    failed = seen = 0
    for number, file in enumerate(args.images):
        try:
            whole, name = _image(file, args.start)
        except (ImageError, SourceError) as error:
            print(f"robot-vision explain: {error}", file=sys.stderr)
            failed += 1
            continue
        seen, unread = seen + 1, 0
        image = explain.network_input(whole, network.spec.input)
        asked = Asked(
            Window.of(whole.shape[:2], network.spec.input),
            args.label or "",
            _box(args),
        )
        # two folders may hold images of one name
        stem = f"{number:03d}-{readable(name)}"
        pictures = {"layers": explain.draw_layers(explain.layers(wide, image), image)}
        for name in network.spec.heads if args.model else ():
            if found := explain.explain(network, name, image, asked):
                pictures[name] = explain.draw_cam(image, *found, name)
                if samples and (near := alike.most_alike(network, name, image, asked, samples)):
                    data = Path(args.data[1]).resolve().name
                    which = f"{len(samples)} {args.split} images of {data}"
                    pictures[f"{name}-alike"] = alike.draw_examples(image, near, name, which)
                    unread = max(unread, near.unread)
        if unread and seen == 1:
            print(
                f"note: {unread} of {len(samples)} images of {args.data[1]} cannot be read and are left out",
                file=sys.stderr,
            )
        if len(pictures) == 1 and (args.label or asked.box):
            raise ConfigError(_nobody(args, network.spec))
        silent = [n for n in network.spec.heads if n not in pictures] if args.model else []
        if silent and not (seen > 1 or args.label or asked.box):
            print(
                f"note: no picture of {', '.join(silent)}: nothing says what it rests on",
                file=sys.stderr,
            )
        for kind, picture in pictures.items():
            path = folder / f"{stem}-{kind}.png"
            if not cv2.imwrite(str(path), picture[..., ::-1]):
                raise ConfigError(f"{path} cannot be written")
            print(path)
    return 1 if failed else 0


def _is_recording(file: str) -> bool:
    """Says whether a source has images over time."""
    from robot_vision.recordings.recording_folder import is_bag
    from robot_vision.recordings.video import VIDEO_SUFFIXES

    place = Path(file).expanduser()
    return is_bag(place) or place.suffix.lower() in VIDEO_SUFFIXES


def _image(file: str, start_s: float) -> tuple[NDArray[np.uint8], str]:
    """Returns RGB uint8 (H, W, 3) of an image file, or one image of a recording, and what to call it."""
    from robot_vision.datasets.image_files import FileImage
    from robot_vision.images.decode import to_rgb
    from robot_vision.recordings.opening import open_source

    if not _is_recording(file):
        return FileImage(file).load(), Path(file).stem
    with open_source(file, start_s=start_s) as source:
        for frame in source:
            return to_rgb(frame.message), f"{Path(file).stem}-{start_s:g}s"
        raise SourceError("; ".join(source.problems) or f"{file} has no image after {start_s:g} s")


def _box(args: argparse.Namespace) -> tuple[int, int, int, int] | None:
    """Returns which part of the image is asked about: x, y, width, height."""
    if args.pixel:
        return args.pixel[0], args.pixel[1], 1, 1
    return tuple(args.region) if args.region else None


def _nobody(args: argparse.Namespace, spec: Any) -> str:
    """Returns why no head of a network can say what is asked."""
    labels = [label for own in spec.heads.values() for label in getattr(own, "labels", ())]
    if args.label and labels and args.label not in labels:
        return unknown("label", args.label, labels)
    asked = " ".join(
        [f"--label {args.label}"] * bool(args.label)
        + ["--pixel"] * bool(args.pixel)
        + ["--region"] * bool(args.region)
    )
    return (
        f"No head of this model can be asked for {asked}: it has {', '.join(spec.heads) or 'none'}"
    )
