"""Evaluations of single recordings, put together exactly.

A document is the metrics and, next to them under `rows`, the rows that they follow from (`contract.rows`).
Medians, areas under curves and bootstrap intervals cannot be had from other medians and areas; from the
rows they can. So documents made on different machines merge to what one evaluation of everything gives, to
the bit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robot_vision.contract.rows import Scores, from_json, joined, to_json
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError, SourceError
from robot_vision.evaluation.measure.metrics import SCHEMA, SCHEMA_VERSION, summarise


def document(scores: Scores, settings: EvaluationSettings | None = None) -> dict[str, Any]:
    """Returns the metrics of rows together with the rows: plain data that `merge` takes."""
    return {**summarise(scores, settings), "rows": to_json(scores)}


def read_document(path: str | Path) -> dict[str, Any]:
    """Reads a document from a JSON file.

    Raises:
        SourceError: it cannot be read, is no evaluation, or of another version.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise SourceError(f"{path} is not an evaluation: its schema must be {SCHEMA!r}")
    if data.get("schema_version") != SCHEMA_VERSION:
        raise SourceError(
            f"{path} has schema version {data.get('schema_version')!r}, and this program reads "
            f"{SCHEMA_VERSION}: evaluate again"
        )
    return data


def scores_of(document: dict[str, Any]) -> Scores:
    """Returns the rows of a document.

    Raises:
        SourceError: there are none.
    """
    if "rows" not in document:
        raise SourceError("The evaluation was written without its rows: it cannot be merged")
    return from_json(document["rows"])


def merge(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the document of all recordings together.

    Raises:
        ConfigError: nothing to merge, settings, labels or maps that differ, or a recording twice.
        SourceError: a document without rows.
    """
    if not documents:
        raise ConfigError("There is nothing to merge: give at least one metrics.json")
    settings = documents[0]["settings"]
    for other in documents[1:]:
        for key, value in settings.items():
            if other["settings"].get(key) != value:
                raise ConfigError(
                    f"Setting {key} is {value!r} in one evaluation and {other['settings'].get(key)!r} in "
                    "another: evaluate with the same settings"
                )
    return document(
        joined([scores_of(d) for d in documents]), EvaluationSettings.from_dict(settings)
    )
