"""`robot-vision map VERB MAP`: builds, looks at, joins, thins out and shares maps of places."""

from __future__ import annotations

import argparse
import importlib

from robot_vision.cli.arguments import add_data_options, add_engine, add_model, add_same_place
from robot_vision.datasets import DATASETS
from robot_vision.places.map.base import DTYPES
from robot_vision.places.map.exporting import FORMATS
from robot_vision.places.map.keyframe_policy import KeyframePolicy
from robot_vision.places.map.updating import UpdatePolicy

_MAP = "a file, or postgresql://user@host/database?map=NAME"
# Sub-verb to the module that runs it.
_MODULES = {
    "build": "build",
    "add": "build",
    "update": "update",
    "info": "show",
    "check": "show",
    "evaluate": "evaluate",
    "export": "show",
    "show": "show",
    "merge": "edit",
    "prune": "edit",
    "copy": "edit",
    "drop": "edit",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    verbs = parser.add_subparsers(dest="map_verb", metavar="verb", required=True)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.add_argument("map", metavar="MAP", help=_MAP)
        return sub

    build = verb(
        "build",
        "build a map from a bag or data set with poses, or continue one that was interrupted",
    )
    _add_recording(build)
    build.add_argument(
        "--dtype",
        choices=DTYPES,
        default=DTYPES[0],
        help="type of the descriptors in the map; float16 halves their size (default: %(default)s)",
    )
    _add_recording(verb("add", "add the keyframes of another bag or data set to a map"))

    update = verb(
        "update",
        "replace keyframes of places that have changed, by a later drive with sure poses",
    )
    _add_update(update)

    info = verb("info", "show what a map contains and which model made it")
    info.add_argument("--json", action="store_true", help="print JSON instead of a table")
    verb("check", "read the whole map and say whether anything is damaged")

    evaluate = verb(
        "evaluate",
        "ask a map about a bag or data set with poses, as the place node does, and count right answers",
    )
    _add_source(evaluate)
    add_engine(evaluate, precision=False)
    add_same_place(evaluate)
    evaluate.add_argument(
        "--single", action="store_true", help="each image alone, without the sequence filter"
    )
    evaluate.add_argument(
        "--verify",
        action="store_true",
        help="compare the best places with the image; needs a map with structure",
    )
    _add_features(evaluate, "with --verify: ")
    evaluate.add_argument(
        "--json", action="store_true", help="print JSON with a row for each image"
    )

    export = verb(
        "export",
        "write the keyframes as CSV, TUM trajectory or GeoJSON (in metres), or a map with structure as a "
        "COLMAP model",
    )
    export.add_argument(
        "--output",
        default="-",
        metavar="FILE",
        help="file to write, for colmap a folder; - is standard output (default)",
    )
    export.add_argument(
        "--format",
        choices=(*FORMATS, "colmap"),
        help="format of the file (default: by its suffix, otherwise csv)",
    )

    show = verb(
        "show", "draw the map from above: where keyframes are, where they face and what they cover"
    )
    show.add_argument("--output", metavar="PNG", help="picture to write (default: MAP.png)")
    show.add_argument(
        "--size",
        type=int,
        default=1000,
        help="side of the picture, in pixels (default: %(default)s)",
    )
    show.add_argument(
        "--sight",
        type=float,
        default=3.0,
        metavar="M",
        help="length of the view that is drawn for each camera, in metres (default: %(default)s)",
    )
    show.add_argument(
        "--field",
        type=float,
        default=60.0,
        metavar="DEG",
        help="field of view that is drawn for each camera, in degrees (default: %(default)s)",
    )

    merge = verb("merge", "add the keyframes of other maps, of the same model, to a map")
    merge.add_argument("others", nargs="+", metavar="OTHER", help=_MAP)
    place = merge.add_mutually_exclusive_group()
    place.add_argument(
        "--transform",
        nargs=7,
        type=float,
        metavar=("X", "Y", "Z", "QX", "QY", "QZ", "QW"),
        help="pose of OTHER's map frame in MAP's, if they differ (metres, unit quaternion)",
    )
    place.add_argument(
        "--align",
        action="store_true",
        help="find the pose of OTHER's map frame in MAP's from places that both maps show; refused if "
        "too few agree",
    )
    merge.add_argument("--dry-run", action="store_true", help="only print what would be done")

    prune = verb(
        "prune", "remove keyframes that show what others show too, or that are of some recordings"
    )
    prune.add_argument(
        "--distance",
        type=float,
        metavar="M",
        help="thin out: remove keyframes closer than this to a kept one, in metres",
    )
    prune.add_argument(
        "--angle",
        type=float,
        metavar="DEG",
        help="with --distance: only those whose heading differs from the kept one's by less than this, "
        "in degrees (default: 15)",
    )
    prune.add_argument(
        "--similarity",
        type=float,
        metavar="S",
        help="with --distance: only those whose similarity to the kept one is above this (default: 0.8)",
    )
    prune.add_argument(
        "--newest", action="store_true", help="keep the newer keyframes instead of the older ones"
    )
    prune.add_argument(
        "--source",
        action="append",
        metavar="NAME",
        help="remove the keyframes of this recording; repeat for more",
    )
    prune.add_argument(
        "--ids", nargs="+", type=int, metavar="ID", help="remove the keyframes with these numbers"
    )
    prune.add_argument("--dry-run", action="store_true", help="only print what would be done")

    copy = verb("copy", "copy a map without loss, between files and servers")
    copy.add_argument(
        "target", metavar="TARGET", help="map to create; it must not exist yet: " + _MAP
    )
    copy.add_argument(
        "--server-index",
        action="store_true",
        help="on a PostgreSQL server, also build pgvector's index, for other programs that search the "
        "map",
    )

    drop = verb("drop", "remove a map from a file or a server, with its index")
    drop.add_argument("--dry-run", action="store_true", help="only print what would be removed")


def _add_source(parser: argparse.ArgumentParser) -> None:
    """Declares a recording with poses, and the model."""
    parser.add_argument("source", metavar="SOURCE", help="bag, folder of bags, or data set")
    add_model(parser)
    parser.add_argument(
        "--kind",
        metavar="KIND",
        help="kind of the source, one of " + ", ".join(DATASETS) + " (default: detected)",
    )
    add_data_options(parser)
    parser.add_argument(
        "--split",
        default="all",
        help="frames of a data set to use: all, train, validation or test (default: %(default)s)",
    )


def _add_recording(parser: argparse.ArgumentParser) -> None:
    default = KeyframePolicy()
    _add_source(parser)
    _add_names(parser)
    parser.add_argument(
        "--distance", type=float, default=default.distance_m, metavar="M",
        help="distance from the last keyframe after which a new one is added, in metres "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--angle", type=float, default=default.angle_deg, metavar="DEG",
        help="turn since the last keyframe after which a new one is added, in degrees (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--similarity", type=float, default=default.similarity, metavar="S",
        help="a keyframe is also added if the camera has moved and the view's similarity to the last "
        "keyframe's is below this (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--revisits",
        action="store_true",
        help="also add views that an earlier keyframe of this run already shows",
    )
    parser.add_argument(
        "--sigma",
        nargs=2,
        type=float,
        metavar=("M", "DEG"),
        help="standard deviation of the poses' position (metres) and rotation (degrees), for the "
        "covariance of the keyframes",
    )
    parser.add_argument(
        "--structure",
        action="store_true",
        help="also store local features and triangulated points, for geometric verification",
    )
    _add_features(parser, "with --structure: ")
    _add_thumbnail(parser)
    add_engine(parser, precision=False)


def _add_features(parser: argparse.ArgumentParser, where: str) -> None:
    parser.add_argument(
        "--features",
        default="",
        metavar="FILE",
        help=f"{where}the graph of XFeat (robot-vision export --xfeat), for a map of its features and not "
        "SIFT's (default: SIFT)",
    )


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--name", help="name of the recording in the map (default: the name of the bag or sequence)"
    )
    parser.add_argument(
        "--camera", help="name of the camera in the map (default: the topic, or 'camera')"
    )


def _add_thumbnail(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--thumbnail",
        type=int,
        default=128,
        metavar="PIXELS",
        help="size of the stored thumbnails, in pixels; 0 stores none (default: %(default)s)",
    )


def _add_update(parser: argparse.ArgumentParser) -> None:
    default = UpdatePolicy()
    _add_source(parser)
    _add_names(parser)
    parser.add_argument(
        "--distance", type=float, default=default.distance_m, metavar="M",
        help="a keyframe should be recognised within this distance, in metres (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--angle", type=float, default=default.angle_deg, metavar="DEG",
        help="and within this angle, in degrees (default: %(default)s)",
    )  # fmt: skip
    add_same_place(parser)
    parser.add_argument(
        "--capacity", type=int, default=default.capacity, metavar="N",
        help="keyframes within --distance and --angle, at most, where new ones come (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--report",
        metavar="HTML",
        help="page to write of all changed places that the map remembers: what was there, what is there now",
    )
    _add_thumbnail(parser)
    _add_features(parser, "")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
    add_engine(parser, precision=False)


def run(args: argparse.Namespace) -> int:
    """Runs the sub-verb."""
    module = importlib.import_module(f"{__package__}.{_MODULES[args.map_verb]}")
    status: int = getattr(module, args.map_verb)(args)
    return status
