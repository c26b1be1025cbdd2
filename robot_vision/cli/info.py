"""`robot-vision info [BUNDLE]`: what a bundle holds, verified, and what this machine can run it on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.engines import available_engines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "bundle",
        nargs="?",
        help="model bundle: a directory, or the name of an installed model (default: list the engines of"
        " this machine)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Prints the engines of this machine and, when one is given, the verified bundle."""
    engines = available_engines()
    bundle = ModelBundle.load(find_model(args.bundle)) if args.bundle else None
    if args.json:
        print(
            json.dumps(
                {"engines": engines, "bundle": _as_data(bundle) if bundle else None}, indent=2
            )
        )
        return 0
    console = Console(markup=False)  # brackets in names of files are no styles
    table = Table("engine", "devices", title="Engines of this machine", title_justify="left")
    for name, devices in engines.items():
        table.add_row(name, ", ".join(devices))
    console.print(table)
    if bundle:
        console.print(_bundle_table(bundle))
    return 0


def _as_data(bundle: ModelBundle) -> dict[str, object]:
    return {
        "name": bundle.name,
        "sha256": bundle.sha256,
        "network": bundle.spec.to_dict(),
        "training": dict(bundle.training),
        "metrics": dict(bundle.metrics),
        "calibration": dict(bundle.calibration),
        "files": dict(bundle.files),
    }


def _bundle_table(bundle: ModelBundle) -> Table:
    spec = bundle.spec
    table = Table(title=f"Bundle {bundle.name} (verified)", show_header=False, title_justify="left")
    table.add_row("sha256", bundle.sha256)
    table.add_row("backbone", spec.backbone)
    colour = "grey" if spec.input.channels == 1 else "RGB"
    table.add_row(
        "input", f"{spec.input.height} x {spec.input.width} {colour}, {spec.input.resize}"
    )
    for head, own in spec.bound:
        table.add_row(head.name, head.about(own))
    if spec.epistemic:
        several = f"{spec.epistemic.members} heads, {spec.epistemic.passes} dropout passes"
        table.add_row("answers", several)
    parts = (
        ("training", bundle.training),
        ("metrics", bundle.metrics),
        ("calibration", bundle.calibration),
    )
    for what, values in parts:
        for key, value in values.items():
            text = str(_shortened(value))  # of a long list, that it is there
            table.add_row(f"{what}: {key}", text if len(text) <= 2000 else f"{text[:60]}...")
    return table


def _shortened(value: Any) -> Any:
    """Returns data of a manifest without the rest of long words, such as the sketch of images has."""
    if isinstance(value, Mapping):
        return {key: _shortened(v) for key, v in value.items()}
    long = isinstance(value, str) and len(value) > 300
    return f"{value[:60]}... ({len(value)} characters)" if long else value
