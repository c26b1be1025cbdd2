"""`robot-vision map evaluate`: how well a map answers a recording with poses, as the place node asks it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from rich.table import Table

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.cli.arguments import progress
from robot_vision.cli.map.build import recorded_views, refuse_frame
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.engines import create_engine
from robot_vision.errors import ConfigError
from robot_vision.evaluation.predict.samples import STEP_NS
from robot_vision.evaluation.report.headlines import Number
from robot_vision.messages.stamps import SECOND_NS
from robot_vision.pipeline import Pipeline
from robot_vision.places.map.keyframe import stamped
from robot_vision.places.map.opening import open_map
from robot_vision.places.recognition.recogniser import RecogniserOptions
from robot_vision.places.verification.options import VerificationOptions
from robot_vision.places.verification.structure import refuse_other_features
from robot_vision.places.verification.verifier import Verifier
from robot_vision.statistics.bootstrap import plain
from robot_vision.studies.map_answers import RECALLS, answers, summarise
from robot_vision.text.console import plain_console
from robot_vision.text.counts import counted


def evaluate(args: argparse.Namespace) -> int:
    """Asks the map, and prints what came of it."""
    bundle = ModelBundle.load(find_model(args.model))
    options = RecogniserOptions(
        radius_m=args.place_radius, heading_deg=args.place_heading, sequence=not args.single
    )
    if args.features and not args.verify:
        raise ConfigError("--features has no effect without --verify")
    views, frame_id, notes = recorded_views(args)
    if unstamped := sum(not stamped(view.stamp_ns) for view in views):
        text = f"{counted(unstamped, 'image')} without stamps: taken as {STEP_NS / SECOND_NS:g} s apart"
        notes = (*notes, text)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    with open_map(args.map, "read", bundle=bundle) as places:
        refuse_frame(args.source, frame_id, places)
        verifier = None
        if args.verify:
            if not len(places.structure_ids()):
                raise ConfigError(
                    f"{args.map} has no local features, which --verify compares: build it with --structure"
                )
            verifier = Verifier(VerificationOptions.of_features(args.features))
            refuse_other_features(places, verifier.kind)
        engine = create_engine(bundle, args.engine, args.device)
        with Pipeline(bundle, engine) as pipeline, progress() as bar:
            task = bar.add_task("recognising", total=len(views))
            rows, left_out = answers(
                places, views, pipeline, options, verifier, lambda n: bar.advance(task, n)
            )
    if not rows:
        raise ConfigError(f"{args.source}: none of {counted(len(views), 'image')} can be read")
    found = summarise(rows, options, EvaluationSettings())
    if args.json:
        # Without a candidate there is no error, and JSON has no NaN.
        rows = [row | {k: plain(row[k]) for k in ("error_m", "error_deg")} for row in rows]
        said = {**found, "left_out": dict(left_out), "rows": rows}
        print(json.dumps(said, indent=1, allow_nan=False))
    else:
        _show(args, found, left_out)
    return 0


def _show(args: argparse.Namespace, found: dict[str, Any], left_out: dict[str, int]) -> None:
    how = "each image alone" if args.single else "sequence filter"
    table = Table(
        title=f"{args.source} on {args.map}: {how}{', verified' if args.verify else ''}",
        title_justify="left",
        show_header=False,
    )
    table.add_row(
        "images", f"{found['images']}, of which {found['answerable']} show a place of the map"
    )
    for k in RECALLS:
        table.add_row(f"recall@{k} of these", _percent(found[f"recall_at_{k}"]))
    right = f"{found['accepted_right']} / {found['accepted']} right"
    table.add_row("accepted", right)
    table.add_row("accepted, of these", _percent(found["accepted_share"]))
    table.add_row("precision", _percent(found["precision"]))
    for key, name in (("median", "median"), ("p90", "90 %")):
        metres, degrees = (found[f"{key}_{unit}"]["value"] for unit in ("m", "deg"))
        text = "-" if metres is None else f"{metres:.3f} m, {degrees:.2f} deg"
        table.add_row(f"{name} error of the accepted", text)
    plain_console().print(table)
    for reason, count in sorted(left_out.items()):
        print(f"- {counted(count, 'image')}: {reason}")


def _percent(headline: Any) -> str:
    return Number.of(headline).text("%")
