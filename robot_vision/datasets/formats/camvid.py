"""CamVid (Brostow et al. 2009): frames of four drives, and what each pixel shows.

Layouts: as it is published, `701_StillsRaw_full/NAME.png`, `LabeledApproved_full/NAME_L.png` in colours and
`label_colors.txt`; or `{train,val,test}/{images,labels}` with ids of the eleven classes that results are
reported on (11 is void).

Those eleven, and which frame is trained, validated or tested on, are as in Badrinarayanan et al., "SegNet"
(2015): 367, 101 and 233 frames.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from robot_vision.datasets.pairs import PairOptions, Pairs, open_pairs, pair_up, splits_of_pairs
from robot_vision.datasets.pixel_truth import Entry, LabelTable, PixelFile, read_entries
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.errors import ConfigError, SourceError, unknown
from robot_vision.settings.declared import option
from robot_vision.truth.pose_checks import Skipped

_IMAGES, _LABELS, _COLOURS = "701_StillsRaw_full", "LabeledApproved_full", "label_colors.txt"
_WORD = "image:segmentation"
# In the order of their ids, with the published classes that each is made of.
_ELEVEN = {
    "sky": ("Sky",),
    "building": ("Building", "Wall", "Bridge", "Tunnel", "Archway"),
    "pole": ("Column_Pole", "TrafficCone"),
    "road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "tree": ("Tree", "VegetationMisc"),
    "sign": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "fence": ("Fence",),
    "car": ("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"),
    "pedestrian": ("Pedestrian", "Child", "CartLuggagePram", "Animal"),
    "bicyclist": ("Bicyclist", "MotorcycleScooter"),
}
_NAME = re.compile(r"(?P<drive>\w+?)_f?(?P<number>\d+)\.\w+")
_FIRST_TESTED = 8550  # of drive 0001TP
_VALIDATED = range(7959, 8160, 2)  # of drive 0016E5, labelled at 15 Hz


@dataclass(frozen=True)
class Options(PairOptions):
    """Options of the format."""

    classes: str = option(
        "11",
        "number of classes: the 11 that results are reported on, or all 31",
        choices=("11", "31"),
    )


def open_splits(root: Path, options: Options) -> Splits:
    """Opens `root`; see `registry.open_dataset`."""
    notes: list[str] = []
    if not (root / _IMAGES).is_dir():
        if not (root / "train/labels").is_dir():
            raise SourceError(
                f"{root} has neither {_IMAGES} nor train/labels: give CamVid's folder"
            )
        if options.classes != "11":
            raise ConfigError(f"Option classes is 31, and {root} has ids of 11: leave it out")
        entries = [Entry(i, name) for i, name in enumerate((*_ELEVEN, "void"))]
        return open_pairs(
            root, options, _pairs(("labels",), LabelTable.of(entries, "", notes)), notes
        )
    entries = read_entries(root / _COLOURS)
    if options.classes == "11":
        group = {name: to for to, names in _ELEVEN.items() for name in (*names, to)}
        order = list(_ELEVEN)
        if strange := [e.name for e in entries if e.name not in group and e.name != "Void"]:
            raise SourceError(f"{root / _COLOURS}: {unknown('class', strange[0], group)}")
        entries = [replace(e, name=group.get(e.name, e.name)) for e in entries]
        entries.sort(key=lambda e: order.index(e.name) if e.name in order else len(order))
    pairs = _pairs((_LABELS,), LabelTable.of(entries, "", notes))
    skipped = Skipped()
    whole = replace(options, images=_IMAGES, suffix="_L")
    samples = [
        replace(s, sequence=_drive(s)) for s in pair_up(root, root, whole, pairs, skipped, notes)
    ]
    role = {s.name: _role(s) for s in samples}
    return splits_of_pairs(samples, options, pairs, [*skipped.notes(), *notes], role)


def _pairs(folders: tuple[str, ...], table: LabelTable) -> Pairs:
    return Pairs(
        folders,
        _WORD,
        lambda file: PixelFile(str(file), table=table),
        "label images",
        table.classes,
    )


def _drive(sample: Sample) -> str:
    match = _NAME.fullmatch(sample.name.rpartition("/")[2])
    return match["drive"] if match else ""


def _role(sample: Sample) -> str:
    match = _NAME.fullmatch(sample.name.rpartition("/")[2])
    drive, number = (match["drive"], int(match["number"])) if match else ("", 0)
    if drive == "Seq05VD" or (drive == "0001TP" and number >= _FIRST_TESTED):
        return "test"
    return "validation" if drive == "0016E5" and number in _VALIDATED else "train"
