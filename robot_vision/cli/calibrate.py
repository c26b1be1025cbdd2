"""`robot-vision calibrate BUNDLE --data KIND PATH --output NEW`: makes its numbers true."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.calibration.fit import Calibration, all_fitters, all_parts, parts_of
from robot_vision.calibration.run import Data, calibrate, check_output, heads_with_truth
from robot_vision.cli.arguments import (
    add_held_out,
    add_resamples,
    add_same_place,
    held_out,
    progress,
)
from robot_vision.contract.calibration import Options
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError, unknown
from robot_vision.statistics.bootstrap import Headline
from robot_vision.text.console import plain_console
from robot_vision.text.counts import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  robot-vision calibrate BUNDLE --data image_folder lights --output calibrated\n"
        "  robot-vision calibrate BUNDLE --bag drive --output calibrated --heads classifier,pose\n"
        "Calibrate on images that were not trained on, of the kind that the robot will see.\n"
    )
    add_held_out(parser, "calibrate")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="directory of the new bundle"
    )
    parser.add_argument(
        "--heads",
        default="",
        help=f"heads to calibrate, separated by commas: {', '.join(all_parts())} (default: all that have "
        "truth)",
    )
    for declared in _own_options():
        name = "--" + declared.name.replace("_", "-")
        if isinstance(declared.default, bool):
            parser.add_argument(name, action="store_true", help=declared.metadata["text"])
        else:
            parser.add_argument(
                name,
                type=type(declared.default),
                choices=declared.metadata["choices"],
                default=declared.default,
                help=f"{declared.metadata['text']} (default: %(default)s)",
            )
    add_same_place(parser)
    add_resamples(parser)
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="random seed of folds and bootstrap (default: %(default)s)",
    )


def _own_options() -> list[dataclasses.Field[Any]]:
    """Returns the options that fitters have of their own, once each."""
    found = {field.name: field for f in all_fitters() for field in dataclasses.fields(f.Options)}
    return list(found.values())


def run(args: argparse.Namespace) -> int:
    """Calibrates and prints before and after."""
    out = Path(args.output).expanduser().absolute()
    check_output(out)
    bundle = ModelBundle.load(find_model(args.bundle))
    data = _held_out(args, bundle)
    heads = _heads(args.heads, bundle, data)
    if not data.splits.has_orientation:
        print(
            f"note: {data.name} has positions and no orientations: what needs poses is left out, and places "
            "are the same whatever the heading",
            file=sys.stderr,
        )
    options = Options(
        heads,
        {field.name: getattr(args, field.name) for field in _own_options()},
        EvaluationSettings(
            place_radius_m=args.place_radius,
            # Without orientations every view faces the same way.
            place_heading_deg=args.place_heading if data.splits.has_orientation else None,
            resamples=args.resamples,
            seed=args.seed,
        ),
        args.seed,
    )
    with progress() as bar:
        task = bar.add_task("predicting", total=len(data.samples))
        new, found = calibrate(bundle, data, options, out, lambda n: bar.advance(task, n))
    console = plain_console(width=None if sys.stdout.isatty() else 110)
    for table in tables(found):
        console.print(table)
    for line in [*summary(found), *(f"note: {note}" for note in found.notes)]:
        console.print(line, soft_wrap=True)
    console.print(f"bundle: {new.path}", soft_wrap=True)
    return 0


def _held_out(args: argparse.Namespace, bundle: ModelBundle) -> Data:
    """Returns the images with the truth that the model's heads know, and says what of it is left out."""
    data = held_out(args)
    known = data.for_model(bundle)
    for note in known.splits.notes[len(data.splits.notes) :]:
        print(f"note: {note}", file=sys.stderr)
    return known


def _heads(text: str, bundle: ModelBundle, data: Data) -> tuple[str, ...]:
    possible = heads_with_truth(bundle, data.samples, data.splits.has_orientation)
    flat = "" if data.splits.has_orientation else "; its poses are positions without orientation"
    if not text:
        if not possible:
            raise ConfigError(
                f"{data.name} has neither labels of {bundle.name} nor poses for its heads "
                f"({', '.join(bundle.spec.heads)}): there is nothing to calibrate on{flat}"
            )
        return possible
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        there = dict.fromkeys([*all_parts(), *(word for *_, word in parts_of(bundle.spec))])
        if name not in there:
            raise ConfigError(unknown("head to calibrate", name, tuple(there)))
        if name not in possible:
            raise ConfigError(
                f"{name} cannot be calibrated: {bundle.name} has no such head, or {data.name} no truth for "
                f"it (there is truth for {', '.join(possible) or 'nothing'}{flat})"
            )
    return names


def tables(found: Calibration) -> list[Table]:
    """Returns a table a head: each number before and after."""
    made = []
    for head, fitted in found.heads.items():
        fitter = found.owners[head].fitter()
        titles = fitter.titles if fitter else {}
        title = f"{head}: {counted(fitted.images, 'image')}, after: cross-fitted"
        if fitted.left:
            title += ", not written"
        table = Table(title=title, title_justify="left")
        for column in ("", "before", "after"):
            table.add_column(column, justify="right" if column else "left")
        for name, after in fitted.after.items():
            table.add_row(titles.get(name, name), _text(fitted.before.get(name)), _text(after))
        made.append(table)
    return made


def _text(value: Headline | None) -> str:
    if value is None or value["value"] is None:
        return ""
    text = f"{value['value']:.4f}"
    if value["low"] is None or value["high"] is None:
        return text
    return f"{text} ({value['low']:.4f} to {value['high']:.4f})"


def summary(found: Calibration) -> list[str]:
    """Returns what was put into the bundle, and what was not and why, a line each."""
    lines = [f"{head}: {why}" for head, why in found.left.items()]
    for _, fitted in found.written:
        lines += fitted.said
    return lines
