"""Predictions on disk: an evaluation that was interrupted goes on with the bags that it lacks."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from robot_vision.errors import SourceError
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.files.natural_order import natural_key
from robot_vision.files.whole import draft_of

KEY = "key"  # of the predictions' meta


@dataclass(frozen=True)
class Key:
    """All that predictions depend on.

    Attributes:
        bag_sha256: of the recording's files, see `bag_sha256`.
        bundle_sha256: of the model bundle.
        topic: the image topic.
        engine: name and device.
        precision: of the arithmetic, or the program's name.
        limit: frames that were asked for; 0 for all.
        version: of this package.
    """

    bag_sha256: str
    bundle_sha256: str
    topic: str
    engine: str
    precision: str
    limit: int
    version: str

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def difference(self, other: dict[str, Any]) -> str:
        """Returns what another key has otherwise, in words; empty if nothing."""
        names = [n for n, value in self.to_dict().items() if other.get(n) != value]
        return ", ".join(n.replace("_sha256", "'s hash").replace("_", " ") for n in names)


def bag_sha256(path: str | Path) -> str:
    """Returns the sha256 over a recording: its one file, or its folder's names and contents in order.

    Raises:
        SourceError: it cannot be read.
    """
    place = Path(path)
    digest = hashlib.sha256()
    try:
        journal = place.with_name(f"{place.name}-wal")  # rows that are not in an SQLite file yet
        files = [place, journal] if journal.is_file() else [place]
        if place.is_dir():
            found = (p for p in place.rglob("*") if p.is_file() and not p.name.startswith("."))
            files = sorted(found, key=lambda p: natural_key(str(p.relative_to(place))))
        for file in files:
            if place.is_dir():
                digest.update(str(file.relative_to(place)).encode() + b"\0")
            with file.open("rb") as content:
                while block := content.read(1 << 22):
                    digest.update(block)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    return digest.hexdigest()


def cache_file(folder: Path, bag: str | Path) -> Path:
    """Returns where the predictions of a bag are kept: a name that tells bags of the same name apart."""
    place = Path(bag).resolve()
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", place.name)[-80:]
    return folder / f"{name}-{hashlib.sha256(str(place).encode()).hexdigest()[:8]}.npz"


def load_cached(file: Path, key: Key) -> tuple[Predictions | None, str]:
    """Returns predictions that were kept and are still those of the key, and else why they are not."""
    if not file.is_file():
        return None, ""
    try:
        predictions = Predictions.load(file)
    except SourceError as error:
        return None, f"kept predictions are not used: {error}"
    changed = key.difference(predictions.meta.get(KEY, {}))
    if changed:
        return None, f"kept predictions are refused: changed since: {changed}"
    return predictions, ""


def store(file: Path, predictions: Predictions, key: Key) -> None:
    """Keeps predictions; a write that is interrupted leaves nothing under the file's name.

    Raises:
        SourceError: they cannot be written.
    """
    predictions.meta[KEY] = key.to_dict()
    try:
        with draft_of(file) as part:
            predictions.save(part)
    except OSError as error:
        raise SourceError(f"Predictions cannot be kept as {file}: {error}") from error
