"""`robot-vision teach BAG`: a place map of one drive, and the way through it, for `repeat_node`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.cli.arguments import add_data_options, add_engine, add_model, data_options
from robot_vision.cli.map import build
from robot_vision.datasets import Sample, Splits, open_dataset
from robot_vision.driving.following import FollowSettings
from robot_vision.driving.route import Route, checked, thinned
from robot_vision.driving.taught_reflex import collisions, steering_head
from robot_vision.engines import create_engine
from robot_vision.errors import ConfigError, ImageError, SourceError
from robot_vision.files.folders import make_folder
from robot_vision.pipeline import Pipeline
from robot_vision.places.map.keyframe_policy import KeyframePolicy
from robot_vision.places.map.opening import open_map
from robot_vision.text.counts import counted

MAP = "places.map"
# Of poses that wheels say, within what an image shows: metres and degrees.
SIGMA = (0.05, 1.5)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    policy = KeyframePolicy()
    parser.add_argument(
        "source", metavar="BAG", help="bag of the drive: images, camera_info, poses"
    )
    add_model(parser)
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help=f"folder for the route and its map, {MAP}",
    )
    parser.add_argument(
        "--base-frame",
        default="base_link",
        metavar="FRAME",
        help="frame of the robot whose way it is (default: %(default)s)",
    )
    parser.add_argument(
        "--frame",
        default="map",
        metavar="FRAME",
        help="frame of the map and the route; poses in another one, such as odometry's, are taken as "
        "poses in this one (default: %(default)s)",
    )
    parser.add_argument(
        "--reflex",
        default="",
        metavar="BUNDLE",
        help="model bundle with a steering head, which says how near the way leads past things, so that a "
        "robot that follows it stops for what is new (default: --model where it has one)",
    )
    parser.add_argument(
        "--rear-topic",
        default="",
        metavar="TOPIC",
        help="images of a camera that looks back, of which the reflex says the same, for a robot that "
        "follows the route backwards; --option image_topic=TOPIC names the other one's (default: none)",
    )
    add_data_options(parser)
    add_engine(parser, precision=False)
    parser.set_defaults(
        kind="rosbag", split="all", structure=True, features="", thumbnail=128, dtype="float32", sigma=SIGMA,
        distance=policy.distance_m, angle=policy.angle_deg, similarity=policy.similarity, revisits=True,
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Makes the map and the route, or goes on with the map; returns the exit status."""
    bundle = ModelBundle.load(find_model(args.model))
    views, frame_id, notes = build.recorded_views(args)
    if len({view.source for view in views}) > 1:
        raise SourceError(f"{args.source} has several recordings: a route is of one drive")
    if frame_id != args.frame:
        notes = (*notes, f"poses in {frame_id} are taken as poses in {args.frame} (--frame)")
    options = data_options(args.option) | {"camera_frame": args.base_frame, "base_to_camera": ""}
    try:
        of_base = open_dataset("rosbag", args.source, **options)
    except ConfigError as error:  # the same bag was opened before, for the camera
        raise ConfigError(
            f"--base-frame {args.base_frame}: {args.source} does not say where this frame is: name that of "
            "the poses, or one that /tf_static connects to it"
        ) from error
    samples = _located(of_base)
    points, at = thinned(np.array([sample.T_map_camera for sample in samples]))
    back = []
    if args.rear_topic:
        options["image_topic"] = args.rear_topic
        back = _located(open_dataset("rosbag", args.source, **options))
        topics = [{getattr(s.source, "topic", "") for s in of} for of in (samples, back)]
        if topics[0] & topics[1]:
            raise ConfigError(
                f"--rear-topic is {args.rear_topic!r}, of which the images ahead are, too: name the other "
                "camera's, or leave it out"
            )
        if not back:
            raise SourceError(f"{args.source}: no image on {args.rear_topic} has a pose")
    # Before the minutes of work: what is no route is said now.
    unnamed = checked(Route(MAP, "-", args.frame, args.base_frame, points), args.source)
    reflex = ModelBundle.load(find_model(args.reflex)) if args.reflex else bundle
    head = steering_head(reflex)
    if args.reflex and not head:
        raise ConfigError(
            f"--reflex: bundle {reflex.name} has no steering head: name one such as steer"
        )
    if back and not head:
        raise ConfigError("--rear-topic needs a reflex that looks: give --reflex steer")
    make_folder(args.output, sources=[args.source])
    args.map = str(args.output / MAP)
    status = build.make(args, bundle, views, args.frame, notes, "name another --output")
    if status == 130:
        return status
    with open_map(args.map, "read") as places:
        route = dataclasses.replace(unnamed, map_id=places.info.map_id)
    if head:
        with Pipeline(reflex, create_engine(reflex, args.engine, args.device)) as pipeline:
            images = (_readable(sample.source) for sample in samples)
            risk, unread = collisions(pipeline, head, images, at, len(points))
            rear_risk = None
            if back:
                ahead, behind = (np.array([s.stamp_ns or 0 for s in of]) for of in (samples, back))
                at = at[np.searchsorted(ahead, behind).clip(0, len(at) - 1)]
                if blind := len(points) - len(np.unique(at)):
                    print(
                        f"note: {args.rear_topic} has no image at {counted(blind, 'point')} of the way: "
                        "things that are near there will stop the robot",
                        file=sys.stderr,
                    )
                images = (_readable(sample.source) for sample in back)
                rear_risk, more = collisions(pipeline, head, images, at, len(points))
                unread += more
        if unread:
            print(
                f"warning: the reflex did not see {counted(unread, 'image')} that cannot be read",
                file=sys.stderr,
            )
        name = args.reflex or args.model
        name = str(Path(name).expanduser().absolute()) if Path(name).expanduser().is_dir() else name
        route = dataclasses.replace(route, risk=risk, reflex=name, rear_risk=rear_risk)
    path = route.write(args.output)
    print(f"{path}: {route.length_m:.1f} m, {len(points)} points{_blind(route)}")
    if route.backwards_m > 0.1:
        print(
            f"warning: {route.backwards_m:.1f} m were driven backwards: a robot that follows the route turns "
            "round there",
            file=sys.stderr,
        )
    return status


def _readable(image: Any) -> NDArray[np.uint8] | None:
    """Returns an image; None where it cannot be read."""
    try:
        return np.asarray(image.load())
    except ImageError:
        return None


def _located(dataset: Splits) -> list[Sample]:
    """Returns the images with a pose, by their stamps."""
    there = (sample for sample in dataset.samples if sample.T_map_camera is not None)
    return sorted(there, key=lambda sample: sample.stamp_ns or 0)


def _blind(route: Route) -> str:
    if route.risk is None:
        return ""
    settings = FollowSettings()
    share = float((route.expected > 1 - settings.blocked_above).mean())
    return f"; at {share:.0%} of them things are near: the reflex will not stop the robot there"
