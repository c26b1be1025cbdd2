"""The end of a run: the bundle with its model card, its variants, and every number in one report."""

from __future__ import annotations

import os
import platform
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.contract.metrics import Metric
from robot_vision.datasets.image_sketch import sketch
from robot_vision.datasets.sample import Splits
from robot_vision.networks.export import export_bundle
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.optimising.quantise import caution
from robot_vision.text.counts import counted
from robot_vision.training.config import TrainingConfig
from robot_vision.training.config_file import expand
from robot_vision.training.fit.record import Recorder
from robot_vision.training.samples.data import SampleSet
from robot_vision.training.setup import facts_of
from robot_vision.training.ship.calibrate import VALIDATION
from robot_vision.training.ship.quantise import make_variant, measure_bundle

_VERIFIED = 16  # images on which torch and ONNX are compared


def ship(
    network: MultiHeadNetwork,
    config: TrainingConfig,
    folder: Path,
    report: dict[str, Any],
    sets: dict[str, SampleSet],
    recorder: Recorder,
) -> Path:
    """Exports the bundle and its variants into the run's folder, and completes the report.

    Returns:
        The bundle's folder.
    """
    held_out = next(sets[n] for n in ("test", "validation", "train") if len(sets[n]))
    count = min(_VERIFIED, len(held_out))
    some = torch.from_numpy(np.linspace(0, len(held_out) - 1, count).astype(np.int64))
    images = list(held_out.batch(some)["images"].numpy())
    cpu = network.to("cpu")
    training = {**report["data"], **report["run"], "config": "config.yaml of the run"}
    kept = _started_from(config)
    if kept is not None:
        training["heads_added_to"] = {"name": kept.name, "sha256": kept.sha256}
        if kept.programs:
            recorder.say(
                f"the programs {', '.join(p.name for p in kept.programs)} of {kept.name} are left out, which "
                "lack the new heads: run `robot-vision optimise` on the new bundle"
            )
    metrics = flat_metrics(report["metrics"])
    bundle = folder / "bundle"
    graph = export_bundle(
        cpu,
        bundle,
        config.name,
        images,
        training,
        metrics,
        card_text(config, report),
        force=True,
        kept=kept,
    ).graph
    recorder.say(f"bundle: {bundle}")
    # Measured once more through the engine that robots run: what ships is what was measured.
    report["variants"] = {
        "float32": measure_bundle(bundle, sets["train"], held_out, config, recorder)
    }
    for variant in config.variants:
        path = make_variant(bundle, folder / f"bundle-{variant}", variant, sets["train"], config)
        report["variants"][variant] = measure_bundle(
            path, sets["train"], held_out, config, recorder
        )
        if said := caution(graph, variant):
            recorder.say(f"note: {said}")
    if config.variants:
        card = card_text(config, report)
        export_bundle(
            cpu, bundle, config.name, images, training, metrics, card, force=True, kept=kept
        )
    for line in tables(config, report):
        recorder.say(line)
    return bundle


def _started_from(config: TrainingConfig) -> ModelBundle | None:
    """Returns the bundle that heads are added to; None where the run starts from anything else."""
    path = Path(expand(config.network.init_from)) if config.network.init_from else None
    return ModelBundle.load(path) if path is not None and path.is_dir() else None


def flat_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """Returns the manifest's `metrics`: split, head and metric, rounded."""
    return {
        split: {
            head: {k: _round(v) for k, v in values.items() if not isinstance(v, dict)}
            for head, values in heads.items()
        }
        for split, heads in metrics.items()
    }


def _round(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def card_text(config: TrainingConfig, report: dict[str, Any]) -> str:
    """Returns the model card's introduction: tables, command, data and limits, in Markdown."""
    run, data = report["run"], report["data"]
    lines = [
        f"Trained by `robot-vision train` for: {', '.join(config.heads)}.",
        "",
        f"    {run['command']}",
        "",
        f"Seed {run['seed']}, {run['minutes']:.1f} minutes on {run['machine']}. The run's folder holds "
        "`config.yaml` (every setting), `log.jsonl`, `curves.png` and `report.json` (every number).",
        "",
        f"Data: {data['kind']} `{data['name']}`, images {_pairs(data['images'])}; fingerprints (sha256 over "
        f"content, label and pose) {_pairs(data.get('fingerprint_sha256', {}))}.",
    ]
    if data.get("unreadable"):
        counts = {name: len(files) for name, files in data["unreadable"].items()}
        lines.append(f"Images that could not be read and were left out: {_pairs(counts)}.")
    for note in data.get("shared", ()):
        lines += ["", f"**{note}.**"]
    lines += ["", *tables(config, report)]
    if report.get("baselines"):
        lines += ["", f"Baselines look at the features of {report['baseline_features']}."]
    if "validation" in report["metrics"]:
        used = [f"chose {report['chosen']}"] if report["chosen"] else []
        heads = [head for head in config.trainers if _is_calibrated_on_validation(report, head)]
        used += [f"calibrated {', '.join(heads)}"] if heads else []
        said = [f"The validation images {' and '.join(used)}: their numbers are no test."]
        if "test" not in report["metrics"]:
            said.append("There were no test images: nothing was tested.")
        lines += ["", " ".join(said[0 if used else 1 :])]
    for head, result in report.get("calibration", {}).items():
        if isinstance(result, dict) and "left" in result:
            lines += ["", f"The {head}'s calibration is left as it was: {result['left']}."]
    note = _honest(config, report)
    if note:
        lines += ["", note]
    return "\n".join(lines)


def tables(config: TrainingConfig, report: dict[str, Any]) -> list[str]:
    """Returns one Markdown table a head: the trained head, its variants and the baselines."""
    split = _held_out(report)
    lines: list[str] = []
    for head, trainer in config.trainers.items():
        rows: list[tuple[str, dict[str, Any]]] = []
        for name, heads in report["metrics"].items():
            if head in heads:
                used = ["chosen"] if report["chosen"] else []
                used += ["calibrated"] if _is_calibrated_on_validation(report, head) else []
                said = f" ({' and '.join(used)} on it)" if used and name == "validation" else ""
                count = heads[head].get("images")
                of = f", {counted(count, 'image')}" if count else ""
                rows.append((f"**this model**, {name}{said}{of}", heads[head]))
        if not rows:
            continue
        for variant, measured in report.get("variants", {}).items():
            if head in measured["metrics"]:
                title = f"{variant} bundle, {split} ({measured['ms']:.1f} ms an image)"
                rows.append((title, measured["metrics"][head]))
        for name, metrics in report.get("baselines", {}).get(head, {}).items():
            rows.append((f"baseline: {name}, {split}", metrics))
        shown = {k: m for k, m in trainer.shown().items() if any(k in found for _, found in rows)}
        lines += ["", f"| {head} | " + " | ".join(m.words for m in shown.values()) + " |"]
        lines.append("| --- " * (len(shown) + 1) + "|")
        for title, metrics in rows:
            cells = [m.text(metrics[k]) if k in metrics else "" for k, m in shown.items()]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines[1:]


def _held_out(report: dict[str, Any]) -> str:
    """Returns the split that variants and baselines are measured on, as `ship` chooses it."""
    images = report.get("data", {}).get("images", {})
    return next((n for n in ("test", "validation", "train") if images.get(n)), "validation")


def _is_calibrated_on_validation(report: dict[str, Any], head: str) -> bool:
    found = report.get("calibration", {}).get(head)
    return isinstance(found, dict) and "left" not in found and found.get("on") == VALIDATION


def _honest(config: TrainingConfig, report: dict[str, Any]) -> str:
    """Says so where a baseline beats the trained head."""
    split = "test" if "test" in report["metrics"] else "validation"
    notes = []
    for head, trainer in config.trainers.items():
        key, metric = next(iter(trainer.shown().items()), ("", Metric("", "")))
        sign = 1 if metric.more_is_better else -1
        own = report["metrics"].get(split, {}).get(head, {}).get(key)
        found = report.get("baselines", {}).get(head, {})
        stronger = [
            name
            for name, metrics in found.items()
            if own is not None
            and sign * metrics.get(key, own) > sign * own
            and "allows" not in name
        ]
        if stronger:
            verb = "is" if len(stronger) == 1 else "are"
            notes.append(
                f"On this data {', '.join(stronger)} {verb} stronger than the trained {head} head."
            )
    return " ".join(notes)


def _pairs(data: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in data.items())


def machine(device: torch.device) -> str:
    """Returns what the run ran on, in a line."""
    where = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    if device.type == "cuda":
        where = f"{torch.cuda.get_device_name(device)}, {where}"
    return f"{where}, torch {torch.__version__}, Python {platform.python_version()}"


def describe_data(
    splits: Splits, sets: dict[str, SampleSet], config: TrainingConfig, shared: list[str]
) -> dict[str, Any]:
    """Returns what the data were: counts, fingerprints, what could not be read, what splits share."""
    path = Path(expand(config.data.path))
    data: dict[str, Any] = {"kind": config.data.kind, "name": path.name}
    data["options"] = dict(config.data.options)
    data["images"] = {name: len(samples) for name, samples in sets.items()}
    data["fingerprint_sha256"] = {
        name: splits.fingerprint(name)[:16] for name in sets if splits.split(name)
    }
    # By these `robot-vision calibrate` refuses to fit on what was trained on.
    data["training_image_sketch"] = sketch(splits.content_hashes("train"))
    if splits.validation:  # `robot-vision evaluate` says where it meets either
        data["validation_image_sketch"] = sketch(splits.content_hashes("validation"))
    further = [word for word in facts_of(config, splits).labels if word.startswith("label:")]
    for word in ("label", *further):
        labels = splits.labels_of(word)
        if labels:
            counts = Counter(sample.of(word) for sample in sets["train"].samples)
            name = word.partition(":")[2] or "class"
            data[f"training_images_by_{name}"] = {label: counts[label] for label in labels}
    unreadable = {n: list(s.unreadable) for n, s in sets.items() if s.unreadable}
    if unreadable:
        data["unreadable"] = unreadable
    if shared:
        data["shared"] = shared
    if splits.notes:
        data["notes"] = list(splits.notes)
    return data
