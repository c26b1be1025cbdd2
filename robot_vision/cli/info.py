"""`robot-vision info [BUNDLE]`: what a bundle holds, verified, and what this machine can run it on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from robot_vision.bundle.bundle import WEIGHTS, ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.bundle.programs import FLOAT32, Certificate
from robot_vision.engines import available_engines
from robot_vision.errors import ConfigError
from robot_vision.text.console import plain_console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "bundle",
        nargs="?",
        help="model bundle: a directory, or the name of an installed model (default: list the engines of"
        " this machine)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--time",
        action="store_true",
        help="time the bundle's programs on this machine again, and remember the fastest for precision auto",
    )


def run(args: argparse.Namespace) -> int:
    """Prints the engines of this machine and, when one is given, the verified bundle."""
    bundle = ModelBundle.load(find_model(args.bundle)) if args.bundle else None
    if args.time and not (bundle and bundle.programs):
        what = f"{bundle.name} has no programs" if bundle else "--time needs a bundle"
        raise ConfigError(f"{what}: there is nothing to time")
    engines = available_engines()
    choice = _choice(bundle, args.time) if bundle and bundle.programs else None
    if args.json:
        about = {**_as_data(bundle), **({"here": choice} if choice else {})} if bundle else None
        print(json.dumps({"engines": engines, "bundle": about}, indent=2))
        return 0
    console = plain_console()  # brackets in names of files are no styles
    table = Table("engine", "devices", title="Engines of this machine", title_justify="left")
    for name, devices in engines.items():
        table.add_row(name, ", ".join(devices))
    console.print(table)
    if bundle:
        console.print(_bundle_table(bundle))
        if choice:
            console.print(_program_table(bundle, choice))
    return 0


def _choice(bundle: ModelBundle, fresh: bool) -> dict[str, Any]:
    """Returns which program runs here when nothing else is asked for, and what each took."""
    from robot_vision.engines.base import EngineSettings
    from robot_vision.engines.choice import start_program
    from robot_vision.engines.machine import instructions
    from robot_vision.engines.remembered import Machine, recall

    asked = EngineSettings("auto")
    if fresh:
        start_program(bundle, "auto", asked, fresh=True).engine.close()
    machine = Machine.here("auto", asked)
    found = recall(bundle, machine)
    here = {"instructions": instructions()}
    if found is None or found.versions != machine.versions:  # then the next start times them
        none = dict.fromkeys(("program", "engine", "device"))
        return {**here, **none, "milliseconds": {}, "said": ""}
    return {**here, **vars(found.way), "milliseconds": dict(found.milliseconds), "said": found.said}


def _program_table(bundle: ModelBundle, choice: Mapping[str, Any]) -> Table:
    here = choice["instructions"]
    title = f"Programs (this CPU computes with {here})"
    runs = choice["said"] or "none was timed here: the next start does it, or info --time"
    table = Table(
        "program", "certified for", "heads", "ms here", title=title, caption=f"auto: {runs}",
        title_justify="left", caption_justify="left",
    )  # fmt: skip
    for program in bundle.programs:
        times = [
            f"{ms:.3g} with {text.partition(' with ')[2]}"
            for text, ms in choice["milliseconds"].items()
            if text.partition(" with ")[0] == program.name
        ]
        certified = program.certificates or ([] if program.name == FLOAT32 else [None])
        for number, each in enumerate(certified):
            name = program.name if number == 0 else ""
            said = ", ".join(times) if number == 0 else ""
            table.add_row(name, *_certificate_cells(each), said)
    return table


def _certificate_cells(certificate: Certificate | None) -> tuple[str, str]:
    if certificate is None:
        return "nothing", ""
    c = certificate
    place = f"{c.engine} {c.device} {c.instructions}, {c.images.get('count', '?')} images"
    heads = []
    for name, said in c.heads.items():
        words = said.get("text") or ("passed" if said["passed"] else said.get("why", ""))
        heads.append(f"{name}: {words}" if said["passed"] else f"{name} FAILED: {words}")
    return place if c.passed else f"not {place}", "; ".join(heads)


def _as_data(bundle: ModelBundle) -> dict[str, object]:
    return {
        "name": bundle.name,
        "sha256": bundle.sha256,
        "network": bundle.spec.to_dict(),
        "training": dict(bundle.training),
        "metrics": dict(bundle.metrics),
        "calibration": dict(bundle.calibration),
        **({"programs": [p.to_dict() for p in bundle.programs]} if bundle.programs else {}),
        "files": dict(bundle.files),
    }


def _bundle_table(bundle: ModelBundle) -> Table:
    spec = bundle.spec
    table = Table(title=f"Bundle {bundle.name} (verified)", show_header=False, title_justify="left")
    table.add_row("sha256", bundle.sha256)
    if WEIGHTS not in bundle.files:
        lacks = "it runs; the torch engine, explain and training on it need them"
        table.add_row("weights", f"{WEIGHTS} is not here: {lacks}")
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
