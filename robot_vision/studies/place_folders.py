"""Place recognition on two folders of images, as its benchmarks measure it: no bag, no poses.

Each query is looked up among all images of the database by the similarity of descriptors. `recall_at_k`
counts queries that have a right image among the first k: `of_all` over all queries, as
VPR-methods-evaluation prints it, `of_answerable` over those that have a right image at all, as the rest of
this package does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import ModelBundle, model_text
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.datasets.image_files import FileImage
from robot_vision.datasets.place_pairs import PlacePairs
from robot_vision.datasets.sample import Sample, content_hash
from robot_vision.errors import ConfigError, SourceError
from robot_vision.evaluation.predict.runner import Job, predict_source
from robot_vision.evaluation.predict.samples import STEP_NS, TOPIC, SampleSource, stamps
from robot_vision.heads.place.evaluation import matching, precision_recall
from robot_vision.pipeline import Pipeline
from robot_vision.statistics.bootstrap import Resampler, mean
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import where
from robot_vision.truth.tables import read_lines

RECALLS = (1, 5, 10, 20)
SCHEMA = "robot_vision.place_folders/1"
_CHUNK_NUMBERS = 32_000_000


def require_descriptor(bundle: ModelBundle) -> str:
    """Returns the name of a model's descriptors.

    Raises:
        ConfigError: it has none, or several.
    """
    heads = [head for head, _ in bundle.spec.bound if head.kind == "place"]
    if len(heads) != 1:
        raise ConfigError(
            f"{bundle.name} has {len(heads)} heads that give descriptors of places: give a model with one"
        )
    return heads[0].key("descriptor")


def descriptors(
    files: Sequence[Path], name: str, key: str, job: Job, pipeline: Pipeline, progress: Any = None
) -> tuple[NDArray[np.float32], list[str]]:
    """Returns the descriptors of images, (N, D) with NaN where one could not be read, and notes.

    Args:
        files: images.
        name: of the folder, for messages.
        key: of the descriptors.
        job: where predictions are kept, of the same images and model.
        pipeline: that computes them.
        progress: called with the number of images that were done since.
    """
    samples = [Sample(str(f), None, None, None, name, FileImage(str(f))) for f in files]
    digest = hashlib.sha256("\n".join(map(content_hash, samples)).encode()).hexdigest()
    outcome = predict_source(
        job, lambda: SampleSource(name, samples), TOPIC, digest, pipeline, progress
    )
    found = outcome.predictions()
    values = found.descriptor if key == "descriptor" else found.more[key]
    assert values is not None
    rows = np.searchsorted(stamps(samples), found.stamps_ns)
    out = np.full((len(files), values.shape[1]), np.nan, np.float32)
    out[rows] = values
    lost = int((~np.isfinite(out).all(axis=1)).sum())
    notes = [outcome.note] if outcome.note else []
    if lost:
        notes.append(
            f"{lost} of {len(files)} images of the {name} have no descriptor: they cannot be read, or it is "
            "not finite"
        )
    return out, notes


def look_up(
    queries: NDArray[np.float32],
    database: NDArray[np.float32],
    right: Sequence[NDArray[np.int64]],
) -> dict[str, NDArray[Any]]:
    """Looks each query up, and where its first right image comes.

    Of images that are equally similar the first counts as more similar. A query without a descriptor finds
    nothing, and an image without one is not found.

    Args:
        queries: (Q, D), L2 norm 1.
        database: (M, D).
        right: for each query the numbers of the right images.

    Returns:
        Arrays (Q,): `match`, the most similar image or -1; `similarity`, of that image; `rank`, how many
        images come before the first right one, or -1 where none is found; `positives`, how many are right.
    """
    count = len(queries)
    there = np.asarray(np.isfinite(database).all(axis=1))
    known = np.where(there[:, None], database, 0).astype(np.float32)
    match, rank = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    similarity = np.full(count, np.nan)
    asked = np.flatnonzero(np.isfinite(queries).all(axis=1) & there.any())
    for rows in np.array_split(asked, max(1, -(-len(asked) * len(known) // _CHUNK_NUMBERS))):
        alike = queries[rows] @ known.T
        alike[:, ~there] = -np.inf
        match[rows] = alike.argmax(axis=1)
        similarity[rows] = alike.max(axis=1)
        for row, values in zip(rows, alike, strict=True):
            mine = right[row][there[right[row]]]
            if len(mine):
                best = mine[values[mine].argmax()]
                ahead = np.count_nonzero(values > values[best])
                rank[row] = ahead + np.count_nonzero(values[:best] == values[best])
    positives = np.array([len(images) for images in right], np.int64)
    return {"match": match, "similarity": similarity, "rank": rank, "positives": positives}


def look_up_in(file: Path, pairs: PlacePairs) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Reads what another program retrieved: lines `QUERY IMAGE`, as hloc writes them, most similar first.

    A name is the end of a file's path that tells it from the others of its side.

    Returns:
        What `look_up` does, with NaN for the similarities, which such a file lacks; and notes.

    Raises:
        SourceError: a line is no pair, or names an image that is not there, or that may be one of several.
    """
    sides = [_by_name(files) for files in (pairs.queries, pairs.database)]
    listed: list[list[int]] = [[] for _ in pairs.queries]
    twice = 0
    for number, line in enumerate(read_lines(file), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise SourceError(
                f"{where(file, number)}: a pair is 'QUERY IMAGE', and this is {line!r}"
            )
        query, image = (
            _named(word, side, what, where(file, number))
            for word, side, what in zip(words, sides, ("queries", "database"), strict=True)
        )
        if image in listed[query]:
            twice += 1
        else:
            listed[query].append(image)
    count = len(listed)
    match, rank = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    for i, images in enumerate(listed):
        if images:
            match[i] = images[0]
            hits = np.flatnonzero(np.isin(images, pairs.right[i]))
            rank[i] = hits[0] if len(hits) else -1
    positives = np.array([len(images) for images in pairs.right], np.int64)
    notes = []
    if twice:
        notes.append(f"{file}: {counted(twice, 'pair')} left out that an earlier line has")
    if empty := int((match < 0).sum()):
        notes.append(f"{empty} of {count} queries are in no pair of {file}: they find nothing")
    short = sum(0 < len(images) < RECALLS[-1] for images in listed)
    if short:
        notes.append(
            f"{short} of {count} queries have fewer than {RECALLS[-1]} images in {file}: those it leaves out "
            "count as not found"
        )
    found = {"match": match, "similarity": np.full(count, np.nan), "rank": rank}
    return {**found, "positives": positives}, notes


def _by_name(files: Sequence[Path]) -> dict[str, int | None]:
    """Returns a file's number by each end of its path; None where it is the end of several."""
    numbers: dict[str, int | None] = {}
    for i, file in enumerate(files):
        parts = file.parts
        for k in range(1, len(parts) + 1):
            name = "/".join(parts[-k:])
            numbers[name] = None if name in numbers else i
    return numbers


def _named(name: str, side: dict[str, int | None], what: str, place: str) -> int:
    number = side.get(name, -1)
    if number is None:
        raise SourceError(
            f"{place}: {name} may be one of several images of the {what}: name its folder"
        )
    if number < 0:
        raise SourceError(f"{place}: {name} is no image of the {what}")
    return number


def score(found: dict[str, NDArray[Any]], settings: EvaluationSettings) -> dict[str, Any]:
    """Returns plain data: counts, recalls, average precision and recall at full precision, with intervals.

    Neighbours among the queries are mostly neighbours on a route, so that blocks of them are drawn.
    """
    rank, answerable = found["rank"], found["positives"] > 0
    stamps_ns = STEP_NS * np.arange(len(rank))
    resampler = Resampler(stamps_ns, [(0, len(rank))], settings)
    hits = np.stack([(rank >= 0) & (rank < k) for k in RECALLS], axis=1)
    keys = tuple(f"recall_at_{k}" for k in RECALLS)
    asked = found["match"] >= 0
    compared = asked & np.isfinite(found["similarity"])
    each = found["similarity"][asked], (rank == 0)[asked], answerable[asked]
    curve = {}
    if compared.any() and answerable.any():
        curve = resampler.headlines(
            {("average_precision", "recall_at_100_precision"): matching(*each)}, asked
        )
    return {
        "queries": len(rank),
        "answerable": int(answerable.sum()),
        "without_descriptor": int((~asked).sum()),
        "of_all": resampler.headlines({keys: mean(hits)}),
        "of_answerable": resampler.headlines({keys: mean(hits[answerable])}, answerable),
        **curve,
        "precision_recall": precision_recall(*each) if compared.any() else {},
        "bootstrap": resampler.describe(),
    }


def evaluate(
    pairs: PlacePairs,
    bundle: ModelBundle,
    jobs: tuple[Job, Job],
    pipeline: Pipeline,
    settings: EvaluationSettings,
    progress: Callable[[int], None] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Returns plain data on a model and two folders, and notes.

    Args:
        pairs: images, and what is right.
        bundle: the model.
        jobs: of database and queries: where predictions are kept.
        pipeline: of the model.
        settings: of the intervals.
        progress: called with the number of images that were done since.
    """
    key = require_descriptor(bundle)
    notes = list(pairs.notes)
    values = []
    for files, name, job in zip(
        (pairs.database, pairs.queries), ("database", "queries"), jobs, strict=True
    ):
        seen, said = descriptors(files, name, key, job, pipeline, progress)
        values.append(seen)
        notes += said
    found = look_up(values[1], values[0], pairs.right)
    head = {"model": model_text(bundle), "numbers": values[0].shape[1]}
    return report(pairs, found, settings, head), notes


def report(
    pairs: PlacePairs,
    found: dict[str, NDArray[Any]],
    settings: EvaluationSettings,
    head: dict[str, Any],
) -> dict[str, Any]:
    """Returns plain data on what was found: `score`, and a row for each query."""
    return {
        "schema": SCHEMA,
        **head,
        "right": pairs.rule,
        "database": len(pairs.database),
        **score(found, settings),
        "rows": [
            {
                "query": str(pairs.queries[i]),
                "match": str(pairs.database[m]) if m >= 0 else None,
                "similarity": float(s) if np.isfinite(s) else None,
                "rank": int(r) if r >= 0 else None,
                "right": int(p),
            }
            for i, (m, s, r, p) in enumerate(
                zip(
                    *(found[k].tolist() for k in ("match", "similarity", "rank", "positives")),
                    strict=True,
                )
            )
        ],
    }
