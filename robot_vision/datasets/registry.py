"""Data sets by the name of their format: `open_dataset("seven_scenes", "RedKitchen")`.

Each format is one module of this package with a dataclass `Options` and `open_splits(path, options)`; it is
imported when it is asked for, so that reading a folder does not load what reads bags.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from pathlib import Path
from typing import Any

from robot_vision.datasets.sample import Sample, Splits
from robot_vision.errors import ConfigError, SourceError, unknown
from robot_vision.recordings.files import readable, some
from robot_vision.settings.declared import parse_options
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import MISSING_IMAGE, Skipped

DATASETS: dict[str, str] = {
    "image_folder": "one folder per class; train, val and test folders above them are used",
    "labels_csv": "a table of images and classes: a CSV file, or a folder with train.csv and test.csv",
    "mask_folder": "images and label images of the same names: images/ and labels/, or in train, val, test",
    "camvid": "CamVid: 701_StillsRaw_full, LabeledApproved_full and label_colors.txt; or images/ and labels/",
    "depth_folder": "images and depth images of the same names: images/ and depth/, or in train, val, test",
    "seven_scenes": "Microsoft 7-Scenes: frame-*.color.png or jpg with .pose.txt, flat or in seq-NN",
    "twelve_scenes": "12-Scenes: one scene with data/frame-*.color.jpg and .pose.txt, split.txt, info.txt",
    "cambridge": "Cambridge Landmarks: dataset_train.txt and dataset_test.txt",
    "tum_rgbd": "TUM RGB-D: rgb.txt and groundtruth.txt; a folder, or a folder of such folders",
    "transforms_json": "NeRF, Instant-NGP, Nerfstudio and COLMAP exports: transforms.json",
    "colmap": "COLMAP models, binary or text: cameras and images, in sparse/0 next to images",
    "euroc": "EuRoC MAV, TUM VI: mav0 with cam0 and a ground truth of the IMU; or a folder of such",
    "kitti": "KITTI odometry: sequences/NN with image_2, calib.txt and times.txt; poses/NN.txt",
    "rosbag": "a ROS 1 or 2 bag, or a folder of bags: images with a pose topic, odometry or tf, and labels",
    "msls": "Mapillary Street-level Sequences: train_val/<city>/{database,query} with tables",
    "gsv_cities": "GSV-Cities: Dataframes/<city>.csv and Images/<city>",
    "geotagged": "photographs with GPS in their EXIF, in any folders, or in train, val, test",
    "place_folder": "place recognition benchmarks: @utm_easting@utm_northing@...@.jpg file names",
}


# What shows a format, in the order in which `kinds_of` names them: patterns that a folder has one of.
_SIGNS: dict[str, tuple[str, ...]] = {
    "twelve_scenes": ("data/*.pose.txt",),
    "seven_scenes": ("*.pose.txt", "seq-*/*.pose.txt"),
    "transforms_json": ("transforms.json", "transforms_train.json"),
    "colmap": tuple(
        f"{below}cameras.{end}"
        for below in ("", "sparse/", "sparse/*/", "colmap/sparse/*/")
        for end in ("bin", "txt")
    ),
    "cambridge": ("dataset_train.txt",),
    "euroc": ("mav0/cam*/data.csv", "cam*/data.csv", "*/mav0/cam*/data.csv"),
    "kitti": ("calib.txt", "*/calib.txt", "sequences/*/calib.txt"),
    "tum_rgbd": (
        "groundtruth.txt",
        "*.gt.freiburg",
        "*/groundtruth.txt",
        "*/*.gt.freiburg",
    ),
    "msls": tuple(
        f"{below}{side}/postprocessed.csv"
        for below in ("", "*/", "train_val/*/")
        for side in ("database", "query")
    ),
    "gsv_cities": ("Dataframes/*.csv",),
    "place_folder": tuple(f"{below}@*@*@*.jpg" for below in ("", "*/", "*/*/", "*/*/*/")),
    "camvid": ("701_StillsRaw_full/*.png",),
    "depth_folder": ("depth/*.png", "train/depth/*.png"),
    "mask_folder": tuple(
        f"{below}{name}/*.png"
        for below in ("", "train/")
        for name in ("labels", "masks", "annotations")
    ),
    "labels_csv": ("*.csv", "*.tsv"),
}


def kinds_of(path: Path) -> list[str]:
    """Returns the formats that a path shows signs of, the surest first; none where it does not exist."""
    from robot_vision.recordings.recording_folder import is_bag  # with all that reads bags

    if is_bag(path):
        return ["rosbag"]
    if path.is_file():
        return {".json": ["transforms_json"], ".csv": ["labels_csv"]}.get(path.suffix.lower(), [])
    if not path.is_dir():
        return []
    found = [
        kind
        for kind, patterns in _SIGNS.items()
        if any(next(path.glob(pattern), None) is not None for pattern in patterns)
    ]
    return found + (["rosbag"] if any(is_bag(below) for below in path.iterdir()) else [])


def open_dataset(kind: str, path: str | Path, **options: Any) -> Splits:
    """Opens a data set without decoding its images.

    Args:
        kind: one of `DATASETS`.
        path: its folder or file.
        **options: of that format (see `dataset_options`), as values or as text.

    Returns:
        Its samples, divided into train, validation and test.

    Raises:
        ConfigError: an unknown kind or option, or a value that is not allowed.
        SourceError: it does not exist, is not in that format, or contradicts itself (with file and line).
    """
    module = _module(kind)
    chosen = parse_options(module.Options, kind, options)
    if not os.fspath(path):
        raise SourceError(f"The data set's path is empty: give the path of a {kind} data set")
    root = Path(path).expanduser().absolute()  # a name for ".", and samples that outlive a chdir
    if not root.exists():
        raise SourceError(f"{root} does not exist: give the path of a {kind} data set")
    try:
        splits: Splits = module.open_splits(root, chosen)
    except SourceError as error:
        kinds = kinds_of(root)
        if not kinds or kind in kinds:
            raise
        raise SourceError(f"{error}; this looks like a {' or '.join(kinds)} data set") from error
    if kind == "image_folder" and (others := kinds_of(root)):  # which opens nearly any folder
        note = f"{root} looks like a {' or '.join(others)} data set too, which image_folder does not read"
        splits = dataclasses.replace(splits, notes=(*splits.notes, note))
    if not splits.samples:
        raise SourceError(f"{root} holds no usable sample of a {kind} data set{_why_none(splits)}")
    return _readable(splits)


def _why_none(splits: Splits) -> str:
    """Returns why a data set has no sample: which frames are left out, or else all that it says."""
    skipped = [note for note in splits.notes if Skipped.NOTE.match(note)]
    if any(MISSING_IMAGE in note for note in skipped):
        skipped.append(
            "put the images where the paths say, from the folder of the file that lists them; absolute paths "
            "of another computer have to be changed to such"
        )
    why = "; ".join(skipped or splits.notes)
    return f" ({why})" if why else ""


def _readable(splits: Splits) -> Splits:
    """Returns the splits with names that can be written into files and printed, noted where these differ."""
    odd = sorted(
        {
            text
            for s in splits.samples
            for text in (s.name, s.label or "", s.sequence)
            if readable(text) != text
        }
    )
    notes = tuple(readable(note) for note in splits.notes)
    if not odd:
        return dataclasses.replace(splits, notes=notes)

    def renamed(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        return tuple(
            dataclasses.replace(
                s,
                name=readable(s.name),
                label=None if s.label is None else readable(s.label),
                sequence=readable(s.sequence),
            )
            for s in samples
        )

    note = (
        f"{counted(len(odd), 'name is no UTF-8, and is', 'names are no UTF-8, and are')} written with "
        f"backslashes: {some(odd)}"
    )
    return dataclasses.replace(
        splits,
        train=renamed(splits.train),
        validation=renamed(splits.validation),
        test=renamed(splits.test),
        labels=tuple(readable(label) for label in splits.labels),
        notes=(*notes, note),
    )


def dataset_options(kind: str) -> dict[str, tuple[Any, str]]:
    """Returns each option of a format with its default and description.

    Raises:
        ConfigError: an unknown kind.
    """
    fields = dataclasses.fields(_module(kind).Options)
    return {f.name: (f.default, f.metadata["text"]) for f in fields}


def _module(kind: str) -> Any:
    if kind not in DATASETS:
        raise ConfigError(unknown("data set kind", kind, DATASETS))
    return importlib.import_module(f"robot_vision.datasets.formats.{kind}")
