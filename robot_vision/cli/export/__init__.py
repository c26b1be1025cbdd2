"""`robot-vision export`: a model bundle from a checkpoint, or from others' weights."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import check_bundle_name, check_target
from robot_vision.cli.arguments import changed
from robot_vision.cli.export.images import verification_images
from robot_vision.cli.export.xfeat import PACKAGE, to_xfeat
from robot_vision.contract import registry
from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.contract.spec import NetworkSpec
from robot_vision.contract.training import DataFacts, Features
from robot_vision.errors import ConfigError, SourceError
from robot_vision.files.folders import make_folder
from robot_vision.images.input import RESIZE_RULES, InputSpec
from robot_vision.networks.checkpoint_path import checkpoint_path
from robot_vision.text.counts import counted
from robot_vision.truth.tables import read_lines

if TYPE_CHECKING:
    from robot_vision.bundle.bundle import ModelBundle
    from robot_vision.networks.network import MultiHeadNetwork

_TIMED_TURNS = 30
_INPUT = "224x224"
# torchvision's list of ImageNet classes has these two names twice.
_IMAGENET_TWINS = {
    134: "crane (bird)",
    517: "crane (machine)",
    638: "maillot",
    639: "maillot (tank suit)",
}
_NOT_OF_TRITON = (
    *("images", "monte_carlo", "input", "resize", "crop_fraction", "weights", "labels", "heads"),
    *("score", "clusters", "whitened_size"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "checkpoint", nargs="?", help="trained network to export, a .safetensors file"
    )
    source.add_argument(
        "--torchvision",
        metavar="NAME",
        help="export a network of torchvision instead of a checkpoint, such as mobilenet_v2, or one of timm, "
        "such as timm/vit_small_patch14_dinov2",
    )
    source.add_argument(
        "--from",
        dest="published",
        metavar="FILE",
        help="convert a published checkpoint: SALAD, MegaLoc, BoQ, CosPlace or EigenPlaces, recognised by "
        "its tensors",
    )
    source.add_argument(
        "--triton",
        metavar="BUNDLE",
        help="write a finished bundle as a model of NVIDIA's Triton, which Isaac ROS takes too: --out is the "
        "model repository, --name the model (default: the bundle's name)",
    )
    source.add_argument(
        "--xfeat",
        nargs="?",
        const=PACKAGE,
        metavar="FILE",
        help="write the graph of XFeat, learned local features for maps of places: --out is the file, "
        f"FILE the xfeat.pt of its authors (without FILE: that of the installed package {PACKAGE})",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="directory of the bundle to write; with --xfeat the file",
    )
    parser.add_argument("--name", help="the model's name (default: the name of --out)")
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="folder of real photographs to verify the exported graph on; they also initialise the place"
        " head of --torchvision (default: the sample images of scikit-learn and scikit-image)",
    )
    parser.add_argument(
        "--monte-carlo",
        type=int,
        metavar="PASSES",
        help="number of passes with dropout through classifier and pose head, for epistemic uncertainty;"
        " 8 is usually enough, 0 removes them (default: as in the checkpoint)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace the bundle if it already exists"
    )
    fitted = parser.add_argument_group("with --torchvision and --from")
    fitted.add_argument(
        "--input",
        metavar="HEIGHTxWIDTH",
        help=f"input size of the network, in pixels (default: {_INPUT}, with --from the method's own)",
    )
    fitted.add_argument(
        "--resize",
        default="squash",
        choices=RESIZE_RULES,
        help="how an image is fitted to the input size (default: %(default)s)",
    )
    fitted.add_argument(
        "--crop-fraction",
        type=float,
        default=1.0,
        help="with --resize crop: share of the image that is kept (default: %(default)s)",
    )
    new = parser.add_argument_group("with --torchvision")
    new.add_argument(
        "--weights",
        default="download",
        metavar="FILE|download|none",
        help="weights of that network: a file (.pth, .safetensors), download for those of its "
        "package, or none for random numbers (default: %(default)s)",
    )
    new.add_argument(
        "--labels",
        default="imagenet",
        metavar="imagenet|FILE",
        help="file with the names of the classes, one per line, or imagenet (default: %(default)s)",
    )
    new.add_argument(
        "--heads",
        default=registry.names()[0],
        help=f"heads of the network, separated by commas: any of {', '.join(registry.names())} "
        "(default: %(default)s)",
    )
    new.add_argument(
        "--score",
        default="max_probability",
        help="score that tells known from unknown images (default: %(default)s)",
    )
    new.add_argument(
        "--clusters",
        type=int,
        default=64,
        help="number of clusters of the place head (default: %(default)s)",
    )
    new.add_argument(
        "--whitened-size",
        type=int,
        default=0,
        help="size of the place head's descriptor after whitening; 0 does not whiten it (default: "
        "%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Exports and says what was written."""
    out = Path(args.out).expanduser().absolute()
    if args.triton is not None:
        return _to_triton(args, out)
    if args.xfeat is not None:
        if unused := changed(args, add_arguments, ("name", *_NOT_OF_TRITON)):
            raise ConfigError(f"{unused} has no effect with --xfeat, which writes one file")
        return to_xfeat(args, out)
    _check(args, out)
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"Exporting needs torch ({error}): pip install 'robot_vision[train]'"
        ) from error
    from robot_vision.networks.checkpoint import load_network, read_header
    from robot_vision.networks.export import export_bundle

    images, origin = verification_images(args.images)
    print(f"verifying on {counted(len(images), 'real image')}: {origin}")
    if args.checkpoint is not None:
        header = read_header(args.checkpoint)
        network = load_network(args.checkpoint)
        training, metrics, card = dict(header.training), dict(header.metrics), None
    elif args.published is not None:
        network, training, card = from_published(args)
        metrics = {}
    else:
        network, training, card = from_torchvision(args, images)
        metrics = {}
    if args.monte_carlo is not None:
        from robot_vision.networks.ensemble import with_monte_carlo

        network = with_monte_carlo(network, args.monte_carlo)
    name = args.name or out.name
    bundle = export_bundle(network, out, name, images, training, metrics, card, args.force)
    _report(bundle)
    if network.spec.epistemic:
        _report_cost(network, bundle, images)
    return 0


def _to_triton(args: argparse.Namespace, out: Path) -> int:
    """Writes a bundle for Triton, which needs no torch."""
    from robot_vision.bundle.bundle import ModelBundle
    from robot_vision.bundle.installed import find_model
    from robot_vision.bundle.triton import CONFIG, write_model

    if unused := changed(args, add_arguments, _NOT_OF_TRITON):
        raise ConfigError(f"{unused} has no effect with --triton, which takes the bundle as it is")
    bundle = ModelBundle.load(find_model(args.triton))
    folder = write_model(bundle, out, args.name or bundle.name, args.force)
    size = bundle.spec.input
    print(f"wrote {folder / CONFIG} ({bundle.name}, sha256 {bundle.sha256[:12]})")
    print(f"  images: uint8 RGB, N x {size.height} x {size.width} x 3, resized by {size.resize!r}")
    for name, output in bundle.spec.outputs.items():
        print(f"  {name}: {output.text}")
    return 0


def _check(args: argparse.Namespace, out: Path) -> None:
    """Refuses what can be refused before torch is imported, which takes longer than all of it."""
    check_target(out, args.force)
    check_bundle_name(args.name or out.name)
    if args.checkpoint is not None:
        checkpoint_path(args.checkpoint)
    if args.monte_carlo:
        EpistemicSpec(passes=args.monte_carlo)
    make_folder(out.parent, "--out")


def from_published(
    args: argparse.Namespace,
) -> tuple[MultiHeadNetwork, dict[str, Any], str]:
    """Converts a checkpoint of another program."""
    from robot_vision.networks.published import convert

    path = Path(args.published).expanduser()
    size = _input_size(args.input) if args.input else None
    # Its size is replaced.
    given = InputSpec(resize=args.resize, crop_fraction=args.crop_fraction)
    network, method = convert(path, given, size)
    origin = f"{method}, converted from {path.name}"
    print(f"recognised {method}, {network.spec.backbone}")
    return network, {"weights": origin}, f"{origin}; trained by its authors."


def from_torchvision(
    args: argparse.Namespace, images: Sequence[NDArray[np.uint8]]
) -> tuple[MultiHeadNetwork, dict[str, Any], str]:
    """Builds a network from torchvision's weights, and says in its card what is not trained."""
    from robot_vision.backbones.architectures import look_inside
    from robot_vision.networks.network import MultiHeadNetwork

    kinds = [kind.strip() for kind in args.heads.split(",") if kind.strip()]
    trainers = {kind: registry.head(kind).trainer() for kind in kinds}
    given = {"score": args.score, "clusters": args.clusters, "whitened_size": args.whitened_size}
    fields = {
        kind: {field.name for field in dataclasses.fields(trainer.head.Spec)}
        for kind, trainer in trainers.items()
    }
    labelled = [trainer.word() for kind, trainer in trainers.items() if "labels" in fields[kind]]
    labels = read_labels(args.labels) if labelled else ()
    height, width = _input_size(args.input or _INPUT)
    facts = DataFacts(dict.fromkeys(labelled, labels), input=(height, width))
    specs = {}
    for kind, trainer in trainers.items():
        own = {name: value for name, value in given.items() if name in fields[kind]}
        specs[kind] = trainer.spec(own, facts)
    channels = look_inside(args.torchvision).input[0]
    size = InputSpec(height, width, args.resize, args.crop_fraction, channels=channels)
    spec = NetworkSpec(args.torchvision, size, specs)
    package = "timm" if args.torchvision.startswith("timm/") else "torchvision"
    weights = {"download": package, "none": None}.get(args.weights, args.weights)
    network = MultiHeadNetwork(spec, weights).eval()
    notes = list(network.backbone.weight_notes)
    if weights is None:
        notes.append("The weights are random: this bundle is for measuring speed only")
    _prepare(network, trainers, images)
    for kind, trainer in trainers.items():
        taken = kind in network.pretrained or weights is None
        notes += filter(None, [trainer.untrained(taken, len(images))])
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    origin = {
        package: f"{package}'s download",
        None: "none: random numbers",
    }.get(weights, Path(str(weights)).name)
    training = {"weights": origin, "notes": notes} if notes else {"weights": origin}
    card = f"{package}'s `{args.torchvision.removeprefix('timm/')}`; weights: {origin}."
    return network, training, card + "".join(f"\n\n**{note}.**" for note in notes)


def _prepare(
    network: MultiHeadNetwork, trainers: Mapping[str, Any], images: Sequence[NDArray[np.uint8]]
) -> None:
    """Sets what heads take from images before any training."""
    import torch

    from robot_vision.networks.export import prepare_images

    batch = torch.from_numpy(prepare_images(images, network.spec.input))
    none = torch.zeros(len(batch), dtype=torch.bool)
    with torch.inference_mode():
        for name, trainer in trainers.items():

            def of(index: torch.Tensor, name: str = name) -> tuple[torch.Tensor, ...]:
                parts = [network.forward_features(b)[name] for b in batch[index].split(8)]
                return tuple(torch.cat(tap) for tap in zip(*parts, strict=True))

            features = Features({"sequence": none.long(), "has_pose": none}, of)
            spec = network.spec.heads[name]
            trainer.prepare(network.heads[name], spec, features, seed=0)


def read_labels(source: str) -> tuple[str, ...]:
    """Returns ImageNet's class names, or those in a file, one a line.

    Raises:
        ConfigError: the file cannot be read.
    """
    if source == "imagenet":
        from torchvision.models import MobileNet_V2_Weights

        names = list(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])
        for index, name in _IMAGENET_TWINS.items():
            names[index] = name
        return tuple(names)
    try:
        lines = read_lines(Path(source).expanduser())
    except SourceError as error:
        raise ConfigError(f"Labels {source!r} cannot be read: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


def _input_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})(?:[x,](\d{1,4}))?", text.strip().lower())
    if not match:
        raise ConfigError(f"--input is {text!r}: give HEIGHTxWIDTH, for instance 224x224")
    return int(match[1]), int(match[2] or match[1])


def _report_cost(
    network: MultiHeadNetwork, bundle: ModelBundle, images: Sequence[NDArray[np.uint8]]
) -> None:
    """Says what several answers cost compared with one: both graphs in turns in ONNX Runtime, batch 1."""
    import onnxruntime

    from robot_vision.bundle.signature import INPUT_NAME
    from robot_vision.networks.ensemble import with_members, with_monte_carlo
    from robot_vision.networks.export import export_graph, prepare_images

    batch = prepare_images(images, network.spec.input)
    single = with_members(with_monte_carlo(network, 0), []).eval()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    sessions = [
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        for graph in (export_graph(single, batch), bundle.graph)
    ]
    seconds: list[list[float]] = [[], []]
    for turn in range(_TIMED_TURNS + 3):
        for session, times in zip(sessions, seconds, strict=True):
            start = time.perf_counter()
            session.run(None, {INPUT_NAME: batch[:1]})
            if turn >= 3:  # the first warm up
                times.append(time.perf_counter() - start)
    one, several = (1e3 * float(np.median(times)) for times in seconds)
    epistemic = network.spec.epistemic
    assert epistemic is not None
    print(
        f"  {epistemic.samples} answers per image cost {several / one:.2f} times one: {several:.1f} ms "
        f"against {one:.1f} ms (median of {_TIMED_TURNS}, ONNX Runtime on this CPU)"
    )


def _report(bundle: ModelBundle) -> None:
    size = bundle.spec.input
    print(f"wrote {bundle.path} ({bundle.name}, sha256 {bundle.sha256[:12]})")
    print(f"  {bundle.spec.backbone}, {size.height} x {size.width}, {size.resize}")
    for name, output in bundle.spec.outputs.items():
        print(f"  {name}: {output.text}")
