"""`robot-vision data VERB`: what a data set holds, before training on it, and labels of recordings."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from robot_vision.cli.arguments import add_data_options, data_options
from robot_vision.cli.data import label as labelling
from robot_vision.datasets import DATASETS, SPLIT_NAMES, Splits, dataset_options, open_dataset
from robot_vision.datasets import inspection as look
from robot_vision.datasets.pictures import contact_sheet, pose_plot, save_png, truth_sheet
from robot_vision.errors import ConfigError
from robot_vision.files.folders import make_folder
from robot_vision.text.console import plain_console
from robot_vision.text.counts import counted

Say = Callable[..., None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    verbs = parser.add_subparsers(dest="data_verb", metavar="verb", required=True)
    inspect = verbs.add_parser(
        "inspect",
        help="show counts, classes, poses and overlap of the splits; write a contact sheet and a plot of"
        " the poses",
    )
    inspect.add_argument("kind", metavar="KIND", help="one of " + ", ".join(DATASETS))
    inspect.add_argument("path", metavar="PATH", help="the data set's folder or file")
    add_data_options(inspect)
    inspect.add_argument(
        "--output",
        metavar="DIR",
        help="folder for the pictures (default: inspection/<name of PATH>)",
    )
    inspect.add_argument(
        "--sample",
        type=int,
        default=200,
        metavar="N",
        help="number of images to decode; 0 decodes all (default: %(default)s)",
    )
    inspect.add_argument(
        "--no-contents", action="store_true", help="do not read all images to find identical ones"
    )
    inspect.add_argument("--json", action="store_true", help="print JSON instead of tables")
    formats = verbs.add_parser("formats", help="list the data set formats and their options")
    formats.add_argument("kind", nargs="?", metavar="KIND", help="one format, with its options")
    text = "label a recording by what its robot measured and drove: collisions, steering, traversable pixels"
    labelling.add_arguments(
        verbs.add_parser("label", help=text, description=f"{text[0].upper()}{text[1:]}.")
    )


def run(args: argparse.Namespace) -> int:
    """Runs the sub-verb."""
    if args.data_verb == "formats":
        return _formats(args.kind)
    if args.data_verb == "label":
        return labelling.run(args)
    if args.sample < 0:
        raise ConfigError(f"--sample is {args.sample}: use a number of images, or 0 for all")
    splits = open_dataset(args.kind, args.path, **data_options(args.option))
    name = Path(args.path).resolve().stem
    output = Path(args.output or f"inspection/{name}").expanduser()
    make_folder(output)
    report = survey(splits, args.sample or None, not args.no_contents)
    pictures = {"contact_sheet": output / "contact_sheet.png"}
    save_png(pictures["contact_sheet"], contact_sheet(splits))
    for word in report["pixels"]:
        picture = output / f"{word.replace(':', '_')}.png"
        pictures[word] = picture
        save_png(picture, truth_sheet(splits, word))
    plot = pose_plot(splits, f"{name}: cameras from above")
    if plot is not None:
        pictures["poses"] = output / "poses.png"
        save_png(pictures["poses"], plot)
    report["pictures"] = {key: str(file) for key, file in pictures.items()}
    if args.json:
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        show(plain_console(), f"{args.kind} {args.path}", report)
    return 0


def interrupted(args: argparse.Namespace) -> str:
    """Says what is there after Ctrl-C."""
    if args.data_verb == "label":
        return labelling.interrupted(args)
    return "pictures that are written stay"


def _formats(kind: str | None) -> int:
    console = plain_console()
    if kind is None:
        table = Table("format", "what it reads")
        for name, text in DATASETS.items():
            table.add_row(name, text)
    else:
        options = dataset_options(kind)
        console.print(f"{kind}: {DATASETS[kind]}")
        table = Table("option", "default", "what it means")
        for name, (default, text) in options.items():
            table.add_row(name, str(default) if default != "" else "-", text)
    console.print(table)
    return 0


def survey(splits: Splits, sample: int | None, contents: bool) -> dict[str, Any]:
    """Returns what a data set holds, as JSON data.

    Args:
        splits: of the data set.
        sample: how many images are decoded; None for all.
        contents: read all images, to find identical ones.
    """
    images = look.survey_images(splits.samples, sample)
    poses = look.survey_poses(splits)
    K = splits.camera_matrix
    return {
        "samples": {name: len(splits.split(name)) for name in SPLIT_NAMES},
        "sequences": len({s.sequence for s in splits.samples}),
        "classes": look.class_counts(splits) if any(s.label for s in splits.samples) else {},
        "images": {
            "looked_at": images.looked_at,
            "sizes": [[h, w, n] for (h, w), n in images.sizes.most_common()],
            "unreadable": list(images.unreadable),
        },
        "numbers": {
            word: asdict(look.survey_numbers(splits, word)) for word in look.number_words(splits)
        },
        "pixels": {
            word: asdict(look.survey_pixels(splits, word, sample))
            for word in look.pixel_words(splits)
        },
        "camera_matrix": None if K is None else K.tolist(),
        "poses": None if poses is None else {**asdict(poses), "map_frame": splits.map_frame},
        "nearest_train": {
            name: _finite(asdict(nearest))
            for name in ("validation", "test")
            if (nearest := look.nearest_train(splits, name)) is not None
        },
        "overlap": {
            f"{first}/{second}": {
                "same_content": overlap.same_content if contents else None,
                "neighbours": overlap.neighbours,
            }
            for (first, second), overlap in look.overlaps(splits, contents).items()
        },
        "notes": [*splits.notes, *(look.two_labels_note(splits) if contents else [])],
    }


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {key: None if math.isnan(value) else value for key, value in values.items()}


def show(console: Console, title: str, report: dict[str, Any]) -> None:
    """Prints what `survey` returned, under a title."""

    def say(text: str, style: str | None = None) -> None:
        # Lines are not broken, so that paths can be copied; names may hold what rich takes for markup.
        console.print(text, style=style, soft_wrap=True)

    counts = report["samples"]
    total = sum(counts.values())
    head = ", ".join(f"{n} {name}" for name, n in counts.items())
    say(
        f"{title}: {counted(total, 'sample')} ({head}) in {counted(report['sequences'], 'sequence')}",
        "bold",
    )
    if report["classes"]:
        _print_classes(console, say, report["classes"], counts)
    _print_images(say, report["images"], total)
    for word, numbers in report["numbers"].items():
        _print_numbers(say, word, numbers, counts)
    for word, pixels in report["pixels"].items():
        _print_pixels(console, say, word, pixels, counts)
    if report["poses"]:
        _print_poses(say, report)
    _print_overlap(say, report["overlap"], counts)
    for note in report["notes"]:
        say(f"note: {note}")
    for picture in report.get("pictures", {}).values():
        say(f"wrote {picture}")


def _print_classes(
    console: Console, say: Say, classes: dict[str, dict[str, int]], counts: dict[str, int]
) -> None:
    table = Table("class", *counts, "share of train")
    for label, row in classes.items():
        share = row["train"] / counts["train"] if counts["train"] else 0.0
        bar = "█" * round(20 * share)
        table.add_row(label, *(str(row[name]) for name in counts), f"{share:6.1%} {bar}")
    console.print(table)
    sizes = [row["train"] for label, row in classes.items() if label != "(none)" and row["train"]]
    if len(sizes) > 1 and max(sizes) >= 3 * min(sizes):
        say(
            f"classes are unbalanced: the largest has {max(sizes) / min(sizes):.1f} times the images of "
            "the smallest (train with class weights or a balanced sampler)",
            "yellow",
        )


def _print_images(say: Say, images: dict[str, Any], total: int) -> None:
    which = "all" if images["looked_at"] == total else f"{images['looked_at']} of {total}"
    sizes = images["sizes"]
    if len(sizes) > 4:
        array = np.array(sizes)
        text = (
            f"{counted(len(sizes), 'size')}, {array[:, 1].min()} to {array[:, 1].max()} wide and "
            f"{array[:, 0].min()} to {array[:, 0].max()} high"
        )
    else:
        text = ", ".join(f"{w} x {h} ({n})" for h, w, n in sizes) or "none"
    say(f"images ({which} decoded): {text}")
    bad = images["unreadable"]
    if bad:
        say(
            f"{len(bad)} of {counted(images['looked_at'], 'image cannot', 'images cannot')} be read:",
            "red",
        )
        for line in bad[:10]:
            say(f"  {line}")


def _print_numbers(say: Say, word: str, numbers: dict[str, Any], counts: dict[str, int]) -> None:
    have = ", ".join(f"{n} of {counts[name]} {name}" for name, n in numbers["samples"].items())
    low, median, high = numbers["span"]
    what = f"{low:.3g} to {high:.3g}, median {median:.3g}"
    if numbers["ones"] is not None:
        what = f"1 for {numbers['ones']:.1%}, 0 for the others"
    say(f"{word}: {have}; {what}")


def _print_pixels(
    console: Console, say: Say, word: str, pixels: dict[str, Any], counts: dict[str, int]
) -> None:
    have = ", ".join(f"{n} of {counts[name]} {name}" for name, n in pixels["samples"].items())
    text = (
        f"{word}: {have}; of {pixels['looked_at']} decoded, {pixels['without']:.1%} of the pixels"
    )
    text += " say nothing"
    if pixels["numbers"]:
        low, median, high = pixels["numbers"]
        text += f", the others {median:.3g} (median; 90% from {low:.3g} to {high:.3g})"
    say(text)
    if pixels["classes"]:
        table = Table("class", "share of pixels", "images")
        for name, share in pixels["classes"].items():
            table.add_row(
                name, f"{share:6.1%} {'█' * round(20 * share)}", str(pixels["images"][name])
            )
        console.print(table)
        if absent := [name for name, share in pixels["classes"].items() if not share]:
            say(f"no pixel of those decoded is {', '.join(absent)}", "yellow")
    if bad := pixels["unreadable"]:
        say(f"{len(bad)} of {pixels['looked_at']} cannot be used:", "red")
        for line in bad[:10]:
            say(f"  {line}")


def _print_poses(say: Say, report: dict[str, Any]) -> None:
    poses = report["poses"]
    extent = " x ".join(
        f"{h - lo:.2f}" for lo, h in zip(poses["low_m"], poses["high_m"], strict=True)
    )
    say(
        f"poses in frame {poses['map_frame']!r}: extent {extent} m (x, y, z), path {poses['path_m']:.2f} m"
    )
    for name, near in report["nearest_train"].items():
        degrees, limits = "", f"{near['radius_m']:g} m"
        if near["median_deg"] is not None:
            degrees = f" / {near['median_deg']:.1f} deg"
            limits += f" and {near['radius_deg']:g} deg"
        say(
            f"nearest training pose of {name}: median {near['median_m']:.3f} m{degrees}; "
            f"{near['within']:.0%} have one within {limits}"
        )


def _print_overlap(say: Say, overlaps: dict[str, Any], counts: dict[str, int]) -> None:
    for pair, overlap in overlaps.items():
        first, second = pair.split("/")
        same, adjacent = overlap["same_content"], overlap["neighbours"]
        if same:
            example = " = ".join(same[0])
            say(
                f"overlap: {counted(len(same), 'image is', 'images are')} in {first} and in {second}, "
                f"such as {example}",
                "red",
            )
        if adjacent:
            text = f"overlap: {adjacent} of {counts[second]} {second} images are next to one of {first}"
            if adjacent > counts[second] / 2:
                text += ": if these are frames of a video, use split=blocks (or group)"
            say(text)
    if all(overlap["same_content"] == () for overlap in overlaps.values()):
        say("no image is in two splits (compared byte for byte)")
