"""The arguments of `robot-vision evaluate`, and the settings that they make."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from robot_vision.cli.arguments import (
    add_data_set,
    add_engine,
    add_model,
    add_output,
    add_resamples,
    add_same_place,
    add_topic,
    add_truth,
    at_least_1,
    changed,
)
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError
from robot_vision.evaluation.predict.runner import RUNNERS
from robot_vision.truth.bag_numbers import NUMBERS
from robot_vision.truth.images import parse_images
from robot_vision.truth.pose_files import FORMATS
from robot_vision.truth.reading import TruthRequest

# Options of what a recording is, and of its truth.
_OF_BAGS = (
    *("bag", "map_bag", "predictions", "topic", "labels", "label_topic", "labels_of", "poses"),
    *("pose_times", "pose_topic", "tf", "base_frame", "base_to_camera", "map_poses", "numbers"),
    *("truth_image", "no_labels", "no_poses"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  robot-vision evaluate --bag run1 --model demo\n"
        "  robot-vision evaluate --bag 'runs/*' --model BUNDLE --jobs 4 --format markdown\n"
        "  robot-vision evaluate --bag run1 --model BUNDLE --compare old/metrics.json\n"
        "  robot-vision evaluate --bag run1 --model BUNDLE --require 'pose.median_m<=0.25' --junit run1.xml\n"
        "  robot-vision evaluate --data mask_folder CamVid --model BUNDLE\n"
        "  robot-vision evaluate --predictions recorded --bag run1   (recorded with record.launch.py)\n"
        "  robot-vision evaluate places --database tokyo/database --queries tokyo/queries --model BUNDLE\n"
        "  robot-vision evaluate merge a/metrics.json b/metrics.json --output all\n"
    )
    parser.add_argument(
        "merge",
        nargs="*",
        metavar="merge FILE",
        help="combine several metrics.json files into one, exactly; or the word places: place recognition on "
        "two folders of images",
    )
    what = parser.add_argument_group("what")
    what.add_argument(
        "--bag",
        action="append",
        default=[],
        metavar="BAG",
        help="rosbag to evaluate, or a pattern; repeat for more",
    )
    add_model(what, required=False)
    add_data_set(what, "bags, with the truth that it has")
    add_topic(what)
    what.add_argument(
        "--limit",
        type=at_least_1,
        default=0,
        metavar="N",
        help="read only the first N frames of each bag (default: all)",
    )
    what.add_argument(
        "--map-bag",
        metavar="BAG",
        help="look places up in this bag instead of in the recording itself",
    )
    what.add_argument(
        "--predictions",
        metavar="BAG",
        help="evaluate a recording of the perception node's topics instead of running a model",
    )
    what.add_argument(
        "--camera",
        help="camera whose results are evaluated, if the recording has several: the end of its topics' "
        "name (front) or the whole name (/robot1/perception/front)",
    )
    what.add_argument(
        "--name", help="name of the recording in the results (default: the name of the bag)"
    )
    folders = parser.add_argument_group("with places")
    folders.add_argument(
        "--database",
        metavar="DIR",
        help="folder of known images: named @easting@northing@..., as in GSV-Cities, MSLS or VPR-Bench, or a "
        "route (--tolerance)",
    )
    folders.add_argument(
        "--queries", metavar="DIR", help="folder of images that are looked up in it"
    )
    folders.add_argument(
        "--within",
        type=float,
        metavar="M",
        help="a right image was taken at most this far away, in metres (default: 25)",
    )
    folders.add_argument(
        "--tolerance",
        type=int,
        metavar="N",
        help="the folders are one route, image by image, as in Nordland; right is the image of the same "
        "number and N before and behind it",
    )
    folders.add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        help="instead of --model: what another program retrieved, lines 'QUERY IMAGE' as hloc writes them, "
        "the most similar first",
    )
    _add_truth(parser.add_argument_group("truth"))
    how = parser.add_argument_group("how")
    add_engine(how, threads=True)
    how.add_argument(
        "--batch",
        type=at_least_1,
        default=0,
        metavar="N",
        help="frames in one run of the network (default: chosen for the device)",
    )
    how.add_argument(
        "--jobs",
        type=at_least_1,
        default=1,
        metavar="N",
        help="number of bags evaluated at the same time (default: %(default)s)",
    )
    how.add_argument(
        "--runner",
        choices=RUNNERS,
        default="processes",
        help="how several bags are evaluated at the same time (default: %(default)s)",
    )
    how.add_argument(
        "--no-cache",
        action="store_true",
        help="run the network even if its predictions for this bag are cached",
    )
    _add_settings(parser.add_argument_group("metrics"))
    out = parser.add_argument_group("output")
    add_output(out, "evaluation", ("table", "markdown", "json"))
    out.add_argument(
        "--compare", metavar="FILE", help="metrics.json of an earlier evaluation to compare with"
    )
    out.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="LIMIT",
        help="limit for a number in metrics.json, such as 'pose.median_m<=0.25'; the exit status is 3 if any "
        "limit is not met; repeat for more",
    )
    out.add_argument(
        "--junit",
        type=Path,
        metavar="FILE",
        help="write the limits, and whether each was met, as JUnit XML",
    )
    out.add_argument(
        "--no-results-bag",
        action="store_true",
        help="do not write the results as a bag of the perception node's topics",
    )
    out.add_argument(
        "--top-k",
        type=at_least_1,
        default=3,
        help="classes per message in the results bag (default: %(default)s)",
    )


def _add_truth(group: Any) -> None:
    add_truth(group)
    group.add_argument(
        "--labels-of",
        action="append",
        default=[],
        metavar="HEAD=WHERE",
        help="label topic, or file of labelled time spans, of a classifier that has a name of its own in the "
        "model; repeat for more",
    )
    group.add_argument(
        "--label-hold",
        type=float,
        default=0.0,
        metavar="S",
        help="time for which a label stays valid, in seconds (default: until the next label)",
    )
    group.add_argument(
        "--pose-format",
        choices=FORMATS,
        default="auto",
        help="format of the files of true poses (default: %(default)s)",
    )
    group.add_argument(
        "--pose-times", default="", metavar="FILE", help="file of stamps for a KITTI file of poses"
    )
    group.add_argument(
        "--tf",
        nargs=2,
        metavar=("MAP", "CAMERA"),
        help="take the true poses from /tf, between these two frames",
    )
    group.add_argument(
        "--base-frame", default="", help="frame whose poses the pose topic gives, such as base_link"
    )
    group.add_argument(
        "--base-to-camera",
        default="",
        metavar="T",
        help="pose of the camera in the frame of the true poses: x,y,z,qx,qy,qz,qw (metres, unit "
        "quaternion) or identity",
    )
    group.add_argument(
        "--max-gap",
        type=float,
        default=0.5,
        metavar="S",
        help="longest gap between two true poses that is interpolated, in seconds (default: %(default)s)",
    )
    group.add_argument(
        "--bad-poses",
        choices=("error", "skip"),
        default="error",
        help="what to do with invalid true poses, such as NaN (default: %(default)s)",
    )
    group.add_argument(
        "--map-poses", default="", metavar="FILE", help="file of true poses of --map-bag"
    )
    group.add_argument("--numbers", default="", metavar="NAME=SOURCE", help=f"true {NUMBERS}")
    group.add_argument("--no-labels", action="store_true", help="ignore the labels in the bag")
    group.add_argument("--no-poses", action="store_true", help="ignore the poses in the bag")


def _add_settings(group: Any) -> None:
    d = EvaluationSettings()
    add_same_place(group)
    group.add_argument(
        "--place-exclude",
        type=float,
        default=d.to_dict()["place_exclude_s"],
        metavar="S",
        help="without --map-bag, frames closer in time than this are not candidates for the same place, "
        "in seconds (default: %(default)s)",
    )
    add_resamples(group)
    group.add_argument(
        "--block",
        type=float,
        default=d.block_s,
        metavar="S",
        help="length of the blocks of frames that the bootstrap resamples, in seconds (default: "
        "%(default)s)",
    )
    group.add_argument(
        "--confidence",
        type=float,
        default=d.confidence,
        help="confidence level of the intervals, between 0 and 1 (default: %(default)s)",
    )
    group.add_argument(
        "--seed",
        type=int,
        default=d.seed,
        help="random seed of the bootstrap (default: %(default)s)",
    )


def settings_of(args: argparse.Namespace) -> EvaluationSettings:
    """Returns what is measured, and how.

    Raises:
        ConfigError: a value out of range.
    """
    return EvaluationSettings(
        place_radius_m=args.place_radius,
        place_heading_deg=args.place_heading,
        place_exclude_s=args.place_exclude,
        confidence=args.confidence,
        resamples=args.resamples,
        block_s=args.block,
        seed=args.seed,
    )


def _labels_of(texts: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, where = (part.strip() for part in text.partition("="))
        if not (name and equals and where):
            raise ConfigError(
                f"--labels-of {text!r} is not HEAD=WHERE, such as lights=/truth/lights"
            )
        if name in found:
            raise ConfigError(f"--labels-of {name} is given twice")
        found[name] = where
    return found


def check_data_set(args: argparse.Namespace) -> None:
    """Refuses what does not go with a data set, which has its own truth, and --option or --split without one.

    Raises:
        ConfigError: with the option.
    """
    if not args.data and (
        given := changed(args, functools.partial(add_data_set, instead_of=""), ("option", "split"))
    ):
        raise ConfigError(f"{given} belongs to a data set: give --data KIND PATH, or leave it out")
    if args.data:
        _refuse(args, _OF_BAGS, "--data")


def check_folders(args: argparse.Namespace) -> bool:
    """Returns whether folders are evaluated, and refuses what does not go with them, or with bags.

    Raises:
        ConfigError: with the option.
    """
    if args.merge != ["places"]:
        for name in ("database", "queries", "tolerance", "within", "pairs"):
            if getattr(args, name) is not None:
                raise ConfigError(
                    f"--{name} belongs to folders: robot-vision evaluate places --{name} ..."
                )
        return False
    others = ("data", "limit", "compare", "require", "junit", "name", "camera")
    _refuse(args, (*_OF_BAGS, *others), "places")
    usual = EvaluationSettings().to_dict()
    for name, key in (("radius", "place_radius_m"), ("heading", "place_heading_deg")):
        if getattr(args, f"place_{name}") != usual[key]:
            raise ConfigError(
                f"--place-{name} does not go with places: a right image is within --within, whatever its "
                "heading"
            )
    return True


def _refuse(args: argparse.Namespace, names: Iterable[str], what: str) -> None:
    for name in names:
        if getattr(args, name, None):
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"{option} does not go with {what}: leave one of them out")


def truth_request(args: argparse.Namespace) -> TruthRequest:
    """Returns where the truth comes from.

    Raises:
        ConfigError: several that exclude each other.
    """
    if args.tf and (args.pose_topic or args.poses):
        raise ConfigError("--tf, --pose-topic and --poses exclude each other: give one")
    return TruthRequest(
        label_source="none" if args.no_labels else "auto",
        label_topic=args.label_topic,
        label_spans=args.labels,
        label_hold_s=args.label_hold,
        pose_source="none" if args.no_poses else ("tf" if args.tf else "auto"),
        pose_topic=args.pose_topic,
        pose_file=args.poses,
        pose_format=args.pose_format,
        pose_times=args.pose_times,
        map_frame=args.tf[0] if args.tf else "map",
        camera_frame=args.tf[1] if args.tf else "",
        base_frame=args.base_frame,
        base_to_camera=args.base_to_camera,
        max_gap_s=args.max_gap,
        bad_poses=args.bad_poses,
        labels_of=_labels_of(args.labels_of),
        numbers=args.numbers,
        images=parse_images(args.truth_image),
        image_within_s=args.truth_image_within,
    )
