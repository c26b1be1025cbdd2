"""`robot-vision evaluate places --database DIR --queries DIR`: place recognition on folders of images."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.cli.arguments import changed, progress
from robot_vision.cli.evaluate.arguments import add_arguments
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.datasets.place_pairs import open_pairs
from robot_vision.errors import ConfigError
from robot_vision.evaluation.predict.cache import cache_file
from robot_vision.evaluation.predict.runner import Job, load_pipeline
from robot_vision.evaluation.report.headlines import Number
from robot_vision.files.folders import make_folder
from robot_vision.files.whole import write_whole
from robot_vision.studies.place_folders import (
    RECALLS,
    evaluate,
    look_up_in,
    report,
    require_descriptor,
)
from robot_vision.text.console import plain_console

FILE = "places.json"
_COMPUTING = ("engine", "device", "precision", "threads", "batch", "no_cache")


def run(args: argparse.Namespace, settings: EvaluationSettings) -> int:
    """Evaluates, prints a table and writes all numbers."""
    if not (args.database and args.queries) or bool(args.model) == bool(args.pairs):
        raise ConfigError(
            "places needs --database DIR, --queries DIR and --model BUNDLE, or --pairs FILE in its place"
        )
    if args.pairs and (given := changed(args, add_arguments, _COMPUTING)):
        raise ConfigError(f"{given} has no effect with --pairs, of which nothing is computed")
    bundle = None if args.pairs else ModelBundle.load(find_model(args.model))
    if bundle:
        require_descriptor(bundle)
    database, queries = (Path(p).expanduser().absolute() for p in (args.database, args.queries))
    pairs = open_pairs(database, queries, args.within, args.tolerance)
    make_folder(args.output, sources=(database, queries))
    if bundle is None:
        found, said = look_up_in(args.pairs, pairs)
        document = report(pairs, found, settings, {"pairs": str(args.pairs)})
        notes = [*pairs.notes, *said]
    else:
        jobs = _job(args, bundle, database), _job(args, bundle, queries)
        with progress() as bar, load_pipeline(jobs[0]) as pipeline:
            task = bar.add_task("predicting", total=len(pairs.database) + len(pairs.queries))
            document, notes = evaluate(
                pairs, bundle, jobs, pipeline, settings, lambda n: bar.advance(task, n)
            )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    file = args.output / FILE
    text = json.dumps({**document, "notes": notes}, indent=1, allow_nan=False)
    write_whole(file, text)
    _show(args, document, file)
    return 0


def _job(args: argparse.Namespace, bundle: ModelBundle, folder: Path) -> Job:
    cache = cache_file(args.output / "cache", str(folder))
    if args.no_cache:
        cache.unlink(missing_ok=True)
    return Job(
        bag=str(folder),
        name=folder.name,
        cache=str(cache.absolute()),
        model=str(bundle.path.absolute()),
        engine=args.engine,
        device=args.device,
        precision=args.precision,
        threads=args.threads,
        batch=args.batch,
    )


def _show(args: argparse.Namespace, document: dict[str, Any], file: Path) -> None:
    if args.format == "json":
        print(json.dumps({k: v for k, v in document.items() if k != "rows"}, allow_nan=False))
        return
    rows = [
        (f"all {document['queries']} queries", document["of_all"]),
        (f"{document['answerable']} answerable", document["of_answerable"]),
    ]
    names = [f"R@{k}" for k in RECALLS]
    if args.format == "markdown":
        print(f"| | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}")
        for name, values in rows:
            print(f"| {name} | {' | '.join(_cells(values))} |")
    else:
        table = Table(title=f"Places: right is an image {document['right']}", title_justify="left")
        for column in ("", *names):
            table.add_column(column)
        for name, values in rows:
            table.add_row(name, *_cells(values))
        plain_console().print(table)
    for key, title in (
        ("average_precision", "average precision"),
        ("recall_at_100_precision", "recall at 100 % precision"),
    ):
        if key in document:
            print(f"- {title}: {_cell(document[key])}")
    # The line that VPR-methods-evaluation prints.
    recalls = (f"R@{k}: {100 * document['of_all'][f'recall_at_{k}']['value']:.1f}" for k in RECALLS)
    print(", ".join(recalls))
    print(f"all numbers: {file}")


def _cells(values: dict[str, Any]) -> list[str]:
    return [_cell(values[f"recall_at_{k}"]) for k in RECALLS]


def _cell(headline: Any) -> str:
    return Number.of(headline).text("%")
