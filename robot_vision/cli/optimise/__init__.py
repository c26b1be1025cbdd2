"""`robot-vision optimise BUNDLE --data KIND PATH`: faster programs in the same bundle, with certificates."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.table import Table

from robot_vision.bundle.bundle import ModelBundle, check_target
from robot_vision.bundle.installed import find_model
from robot_vision.bundle.programs import Program
from robot_vision.cli.arguments import add_held_out, add_resamples, add_same_place, held_out
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.optimising.run import DEFAULT, PROGRAMS, optimise
from robot_vision.text.console import plain_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  robot-vision optimise BUNDLE --data image_folder lights\n"
        "  robot-vision optimise BUNDLE --bag drive --out optimised --programs int8\n"
        "Optimise on images that were not trained on, of the kind that the robot will see. On another\n"
        "machine the same command adds certificates for that machine.\n"
    )
    add_held_out(parser, "optimise")
    parser.add_argument(
        "--programs",
        default=",".join(DEFAULT),
        help=f"programs to make and certify, separated by commas: any of {', '.join(PROGRAMS)} "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="directory of the new bundle (default: BUNDLE is replaced)"
    )
    parser.add_argument(
        "--remake",
        action="store_true",
        help="make programs again that the bundle has; otherwise they only get certificates for this machine",
    )
    add_same_place(parser)
    add_resamples(parser)
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="random seed of which images choose, and of the bootstrap (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Makes and certifies programs, and prints what was proven."""
    path = find_model(args.bundle)
    out = Path(args.out).expanduser().absolute() if args.out else path.absolute()
    if args.out:
        check_target(out)
    bundle = ModelBundle.load(path)
    names = tuple(dict.fromkeys(n.strip() for n in args.programs.split(",") if n.strip()))
    settings = EvaluationSettings(
        place_radius_m=args.place_radius,
        place_heading_deg=args.place_heading,
        resamples=args.resamples,
        seed=args.seed,
    )
    made = optimise(
        bundle,
        held_out(args),
        names,
        out,
        settings,
        args.remake,
        lambda line: print(line, file=sys.stderr),
    )
    console = plain_console(width=None if sys.stdout.isatty() else 110)
    console.print(programs_table(made.bundle.programs))
    lines = [*failures(made.bundle.programs, names), *(f"note: {note}" for note in made.notes)]
    for line in [*lines, f"bundle: {made.bundle.path}"]:
        console.print(line, soft_wrap=True)
    return 0


def programs_table(programs: tuple[Program, ...]) -> Table:
    """Returns a table of certificates: where each counts, and what it says."""
    table = Table(title="Programs", title_justify="left")
    for column in ("program", "engine", "instructions", "images", "certified", "measured"):
        table.add_column(column)
    for program in programs:
        if not program.certificates:
            table.add_row(program.name, "", "", "", "no", "")
        for c in program.certificates:
            said = [f"{name}: {h['text']}" for name, h in c.heads.items() if h.get("text")]
            engine = f"{c.engine} {c.engine_version} on {c.device}"
            count = str(c.images.get("count", ""))
            passed = "yes" if c.passed else "no"
            table.add_row(program.name, engine, c.instructions, count, passed, "\n".join(said))
    return table


def failures(programs: tuple[Program, ...], names: tuple[str, ...]) -> list[str]:
    """Returns why what was asked for is not certified, a line each."""
    return [
        f"{p.name} in {c.engine} is not certified: {name}: {head['why']}"
        for p in programs
        if p.name in names
        for c in p.certificates
        for name, head in c.heads.items()
        if not head["passed"] and "why" in head
    ]
