"""`robot-vision explain`: what a class rests on, and what each stage of a network sees, as pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from robot_vision.cli.arguments import make_folder
from robot_vision.errors import ConfigError, ImageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("images", nargs="+", help="image files to explain")
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
    parser.add_argument("--label", help="class to explain (default: the most probable one)")
    parser.add_argument(
        "--output",
        required=True,
        help="folder for the pictures; it is created if it does not exist",
    )


def run(args: argparse.Namespace) -> int:
    """Writes NAME-class.png (with a classifier) and NAME-layers.png for every image."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ConfigError("explain needs torch: pip install 'robot_vision[train]'") from error
    import cv2

    from robot_vision.bundle.bundle import WEIGHTS, ModelBundle
    from robot_vision.bundle.installed import find_model
    from robot_vision.datasets.image_files import FileImage
    from robot_vision.networks.checkpoint import load_network
    from robot_vision.recordings.files import readable
    from robot_vision.studies import explain

    if args.model:
        network = load_network(ModelBundle.load(find_model(args.model)).path / WEIGHTS)
    else:
        network = explain.backbone_alone(args.backbone, args.weights, (args.size, args.size))
        for note in network.backbone.weight_notes:
            print(f"note: {note}", file=sys.stderr)
    wide = explain.all_stages(network)
    folder = Path(args.output).expanduser()
    make_folder(folder)
    failed = 0
    for number, file in enumerate(args.images):
        try:
            image = explain.network_input(FileImage(file).load(), network.spec.input)
        except ImageError as error:
            print(f"robot-vision explain: {error}", file=sys.stderr)
            failed += 1
            continue
        stem = (
            f"{number:03d}-{readable(Path(file).stem)}"  # two folders may hold images of one name
        )
        pictures = {"layers": explain.draw_layers(explain.layers(wide, image), image)}
        if args.model and "classifier" in network.spec.heads:
            heat, label, probability = explain.grad_cam(network, image, args.label)
            pictures["class"] = explain.draw_cam(image, heat, label, probability)
        for kind, picture in pictures.items():
            path = folder / f"{stem}-{kind}.png"
            if not cv2.imwrite(str(path), picture[..., ::-1]):
                raise ConfigError(f"{path} cannot be written")
            print(path)
    return 1 if failed else 0
