"""Writes what an evaluation leaves: metrics.json, tables, trajectories, results as bags, the report."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.annotate import annotate
from robot_vision.bundle.bundle import ModelBundle
from robot_vision.contract.prediction import Prediction
from robot_vision.contract.rows import Scores
from robot_vision.contract.topics import NO_CALIBRATION, LeftOut
from robot_vision.engines.machine import installed_versions
from robot_vision.errors import ConfigError, SourceError
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.evaluation.predict.recorded import write_results
from robot_vision.evaluation.predict.samples import SampleSource
from robot_vision.evaluation.report.compare import Change
from robot_vision.evaluation.report.page import Picture, Report, render, shown_frames
from robot_vision.evaluation.report.pictures import Paint, Place, load_pictures
from robot_vision.evaluation.report.requirements import RequirementVerdict
from robot_vision.evaluation.report.tables import file_stems, write_table, write_trajectories
from robot_vision.files.whole import write_whole
from robot_vision.geometry.intrinsics import Intrinsics, camera_of, info_topic
from robot_vision.recordings.bag_reader import BagFile

_PACKAGES = (
    "robot_vision",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "opencv-python-headless",
    "rosbags",
)


@dataclass
class Written:
    """An evaluation to be written.

    Attributes:
        document: metrics and rows, see `merge.document`; facts are added to it.
        scores: its rows.
        predictions: of each recording by name; none where evaluations were merged.
        bags: of each recording by name, its path or what gives its frames, to show pictures.
        reference: predictions of the map, and its bag.
        bundle: of the model; None where recorded results were scored without it.
        command: that is run.
        changes: since an earlier evaluation.
        notes: on these.
        verdicts: on what was required of it.
        left_out: lines on what the bags of results lack; `write_all` adds them.
    """

    document: dict[str, Any]
    scores: Scores
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    bags: Mapping[str, str | SampleSource] = field(default_factory=dict)
    reference: tuple[Predictions, str] | None = None
    bundle: ModelBundle | None = None
    command: str = ""
    changes: Sequence[Change] = ()
    notes: Sequence[str] = ()
    verdicts: Sequence[RequirementVerdict] = ()
    left_out: list[str] = field(default_factory=list)


def versions() -> dict[str, str]:
    """Returns what this was computed with."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **installed_versions(_PACKAGES),
    }


def write_all(
    folder: Path, written: Written, results_bags: bool = True, top_k: int = 3
) -> list[Path]:
    """Writes everything into a folder and returns the files, the report first.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _write(folder, written, results_bags, top_k)
    except OSError as error:
        raise ConfigError(f"--output {folder} cannot be written: {error}") from error


def _write(folder: Path, written: Written, results_bags: bool, top_k: int) -> list[Path]:
    document, scores = written.document, written.scores
    document["command"] = written.command
    document["versions"] = versions()
    if written.verdicts:
        document["requirements"] = [verdict.to_dict() for verdict in written.verdicts]
    if written.bundle is not None:
        document["bundle"] = _bundle_facts(written.bundle)
    report = folder / "report.html"
    files = [report, folder / "metrics.json"]
    write_whole(files[1], json.dumps(document, allow_nan=False))
    files.append(write_table(folder, scores))
    files += write_trajectories(folder, scores)
    if results_bags and written.bundle is not None:
        stems = file_stems([recording["name"] for recording in scores.recordings])
        for stem, recording, (a, b) in zip(stems, scores.recordings, scores.bounds, strict=True):
            path = folder / "results" / stem
            shutil.rmtree(path, ignore_errors=True)
            rows = slice(a, b)
            fine = np.isfinite(scores["true_position"][rows]).all(1)
            fine &= np.isfinite(scores["true_xyzw"][rows]).all(1)
            truth = (
                scores["stamps_ns"][rows][fine],
                scores["true_position"][rows][fine],
                scores["true_xyzw"][rows][fine],
            )
            found = written.predictions[recording["name"]]
            lens = lens_of(written.bags.get(recording["name"]), found, written.bundle)
            left_out = write_results(
                path, found, written.bundle, top_k, truth if fine.any() else None, lens
            )
            written.left_out += left_out
            files.append(path)
    page = Report(
        title=title_of(document, written.bundle),
        metrics=document,
        scores=scores,
        command=written.command,
        facts=_facts(document),
        images=_images(written),
        changes=written.changes,
        notes=written.notes,
        verdicts=written.verdicts,
    )
    write_whole(report, render(page))
    return files


def lens_of(
    bag: str | SampleSource | None, predictions: Predictions, bundle: ModelBundle
) -> Intrinsics | LeftOut:
    """Returns the camera's calibration as a recording has it, where a head of the model needs it."""
    needed = any("camera_info" in head.needs for head, _ in bundle.spec.bound)
    if not needed or not isinstance(bag, str) or predictions.image_size is None:
        return NO_CALIBRATION
    topic = predictions.meta.get("image_topic", predictions.meta["topic"])
    sizes = np.unique(predictions.image_size, axis=0).tolist()
    if len(sizes) > 1:
        return LeftOut("camera_info_refused", f"its images have {len(sizes)} sizes")
    file = BagFile(Path(bag).expanduser())
    try:
        if (info := info_topic(topic)) not in file.kinds:
            return NO_CALIBRATION
        for record in file.raw([info]):
            return camera_of(file.message(record), topic, size=(sizes[0][1], sizes[0][0]))
    except (ConfigError, SourceError) as error:
        return LeftOut("camera_info_refused", str(error))
    finally:
        file.close()
    return NO_CALIBRATION


def title_of(document: Mapping[str, Any], bundle: ModelBundle | None) -> str:
    """Returns what was evaluated, in a few words."""
    names = [r["name"] for r in document["recordings"]]
    what = names[0] if len(names) == 1 else f"{len(names)} recordings"
    return f"{bundle.name} on {what}" if bundle else f"Evaluation of {what}"


def _bundle_facts(bundle: ModelBundle) -> dict[str, Any]:
    size = bundle.spec.input
    return {
        "name": bundle.name,
        "path": str(bundle.path),
        "sha256": bundle.sha256,
        "backbone": bundle.spec.backbone,
        "heads": list(bundle.spec.heads),
        "input": f"{size.height} x {size.width}, {size.resize}",
        **({"program": bundle.program} if bundle.programs else {}),
    }


def _facts(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    facts: dict[str, Mapping[str, Any]] = {}
    if document.get("bundle"):
        facts["Model"] = document["bundle"]
    for recording in document["recordings"]:
        meta = recording.get("meta", {})
        key = dict(meta.get("key", {}))
        key.pop("bundle_sha256", None)
        lines = {
            "path": meta.get("path", ""),
            "topic": meta.get("topic", ""),
            "frame": meta.get("frame_id", ""),
            "frames": recording["frames"],
            **key,
        }
        if not document.get("bundle") and meta.get("model"):
            lines["model"] = meta["model"]
        facts[f"Recording {recording['name']}"] = {
            k: v for k, v in lines.items() if v not in ("", 0)
        }
    facts["Settings"] = document["settings"]
    facts["Versions"] = document["versions"]
    return facts


def _images(written: Written) -> dict[Picture, str]:
    """Returns the pictures of the frames that the report shows."""
    scores = written.scores
    owner = scores.owner
    wanted: dict[str, dict[Place, dict[Picture, Paint]]] = {}
    of_map: dict[Place, dict[Picture, Paint]] = {}

    def ask(name: str, row: int, key: Picture, paint: Paint) -> None:
        if place := _place(written, name, scores, row):
            wanted.setdefault(name, {}).setdefault(place, {})[key] = paint

    for shelf in [shelf for shelves in shown_frames(scores).values() for shelf in shelves]:
        for item in shelf.shown:
            recording = int(owner[item.row])
            name, start = scores.recordings[recording]["name"], scores.bounds[recording][0]
            ask(name, item.row, item.row, _as_it_is)
            if item.match >= 0 and scores.has_map:
                place = _map_place(written, item.match)
                of_map.setdefault(place, {})[-1 - item.match] = _as_it_is
            elif item.match >= 0:
                ask(name, start + item.match, start + item.match, _as_it_is)
            elif shelf.head and written.bundle is not None:
                paint = _drawn(written, name, shelf.head, int(scores["source_index"][item.row]))
                ask(name, item.row, (shelf.head, item.row), paint)
    images: dict[Picture, str] = {}
    for name, places in wanted.items():
        if name in written.bags:
            meta = written.predictions[name].meta
            topic = meta.get("image_topic", meta["topic"])
            images.update(load_pictures(written.bags[name], topic, places))
    if written.reference and of_map:
        predictions, bag = written.reference
        images.update(load_pictures(bag, predictions.meta["topic"], of_map))
    return images


def _as_it_is(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image


def _drawn(written: Written, name: str, head_name: str, i: int) -> Paint:
    """Returns what draws the answer of a head to a frame."""
    bundle = written.bundle
    assert bundle is not None
    options = bundle.options({})

    def paint(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        answers = {}
        for head, spec in bundle.spec.bound:
            row = written.predictions[name].row(i, head.columns(spec))
            if head.name == head_name and row:
                answers[head.name] = head.unpack(row, spec, bundle.material[head.name])
        return annotate(image, Prediction(answers), bundle.spec, options)

    return paint


def _place(written: Written, name: str, scores: Scores, row: int) -> tuple[int, int] | None:
    found = written.predictions.get(name)
    if found is None or found.log_ns is None:
        return None
    return int(scores["stamps_ns"][row]), int(found.log_ns[scores["source_index"][row]])


def _map_place(written: Written, match: int) -> tuple[int, int]:
    assert written.reference is not None
    predictions = written.reference[0]
    # Rows of the map are its frames in the order of their stamps, of equal ones the first.
    _, first = np.unique(predictions.stamps_ns, return_index=True)
    i = int(first[match])
    assert predictions.log_ns is not None
    return int(predictions.stamps_ns[i]), int(predictions.log_ns[i])
