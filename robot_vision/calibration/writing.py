"""Writes a calibrated bundle: everything of the old one, with other numbers in its graph and weights."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import (
    CARD,
    GRAPH,
    WEIGHTS,
    ModelBundle,
    write_manifest,
)
from robot_vision.calibration.old_graphs import FEATURES, GraphEditor
from robot_vision.contract.calibration import Calibration
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import BundleError, ConfigError
from robot_vision.files.whole import draft_folder
from robot_vision.heads.classifier.head import LABELS, REFERENCES
from robot_vision.heads.classifier.spec import FEATURE_SCORES

_HEADER = "robot_vision"  # key of the header of weights.safetensors


def calibrated_spec(bundle: ModelBundle, found: Calibration, score: str, width: int) -> NetworkSpec:
    """Returns the spec of the calibrated bundle.

    Args:
        bundle: as it is.
        found: what was fitted.
        score: open-set score, where it was fitted.
        width: numbers in the classifier's features.
    """
    spec = bundle.spec
    classifier = spec.classifier
    if classifier is None:
        return spec
    if found.temperature is not None:
        classifier = replace(classifier, temperature=float(np.float32(found.temperature)))
    if found.threshold is not None:
        size = width if score in FEATURE_SCORES else 0
        classifier = replace(
            classifier, score=score, unknown_threshold=found.threshold, feature_size=size
        )
    elif found.temperature is not None and classifier.score in ("max_probability", "energy"):
        # The threshold was for scores at another temperature.
        classifier = replace(classifier, unknown_threshold=None)
    return spec.with_heads(classifier=classifier)


def calibrated_graph(bundle: ModelBundle, found: Calibration, spec: NetworkSpec) -> bytes:
    """Returns the graph with the new numbers in it, to the byte the old one where there are none."""
    if _is_same_network(bundle, found, spec):
        return bundle.graph
    editor = GraphEditor(bundle.graph, str(bundle.path / GRAPH))
    if found.temperature is not None:
        editor.set_temperature(found.temperature)
    if spec.classifier is not None and (found.temperature or found.threshold is not None):
        editor.set_score(spec.classifier.score)
        if spec.classifier.score in FEATURE_SCORES:
            editor.set_width(FEATURES, spec.classifier.feature_size)
    if found.covariance_scale is not None:
        editor.scale_covariance(found.covariance_scale)
    return editor.to_bytes()


def _is_same_network(bundle: ModelBundle, found: Calibration, spec: NetworkSpec) -> bool:
    """Whether graph and weights compute what they did: the threshold is not theirs."""
    if found.temperature is not None or found.covariance_scale is not None:
        return False
    if spec.classifier is None or bundle.spec.classifier is None:
        return spec == bundle.spec
    own = replace(bundle.spec.classifier, unknown_threshold=spec.classifier.unknown_threshold)
    return spec == bundle.spec.with_heads(classifier=own)


def write_calibrated(
    bundle: ModelBundle,
    out: Path,
    spec: NetworkSpec,
    graph: bytes,
    found: Calibration,
    record: Mapping[str, Any],
) -> ModelBundle:
    """Writes the bundle next to its final place and moves it there once it loads.

    Args:
        bundle: the old one.
        out: directory that must not be there yet.
        spec: of the new one.
        graph: of the new one.
        found: what was fitted.
        record: for `bundle.yaml`.

    Returns:
        The new bundle, loaded from disk.

    Raises:
        BundleError: `out` is there.
    """
    if out.exists():
        raise BundleError(f"{out} exists already: give another --output")
    with draft_folder(out) as part:
        part.chmod(bundle.path.stat().st_mode & 0o777)
        for name in bundle.files:
            if name not in (GRAPH, WEIGHTS, LABELS, REFERENCES, CARD):
                shutil.copyfile(bundle.path / name, part / name)
        (part / GRAPH).write_bytes(graph)
        references = found.references if found.threshold is not None else bundle.references
        if references is not None:
            with (part / REFERENCES).open("wb") as file:
                np.save(file, references, allow_pickle=False)
        if WEIGHTS in bundle.files:
            _write_weights(bundle, part / WEIGHTS, spec, found)
        _write_card(bundle, part / CARD, record)
        merged = {**bundle.calibration, **record}
        if spec.classifier is not None and spec.classifier.unknown_threshold is None:
            merged.pop("open_set", None)  # known scores at another temperature
        write_manifest(part, bundle.name, spec, bundle.training, bundle.metrics, merged)
        written = ModelBundle.load(part)  # what a robot would check
    return replace(written, path=out)


def _write_weights(bundle: ModelBundle, file: Path, spec: NetworkSpec, found: Calibration) -> None:
    """Writes the same change into the weights, so that torch says what the graph says."""
    if _is_same_network(bundle, found, spec):
        shutil.copyfile(bundle.path / WEIGHTS, file)
        return
    if bundle.spec.epistemic is not None:
        # Its graph averages several answers and is calibrated after that; the network has no such place.
        found.notes.append(
            f"{WEIGHTS} is left out: a network with several answers is calibrated in its graph alone, so the "
            "torch engine cannot run this bundle; train from the bundle that it was made of"
        )
        return
    if importlib.util.find_spec("safetensors") is None:
        raise ConfigError(
            "Changing a bundle's weights needs safetensors: pip install 'robot_vision[train]'"
        )
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(bundle.path / WEIGHTS, framework="np") as opened:
        metadata = dict(opened.metadata() or {})
        tensors: dict[str, NDArray[Any]] = {
            name: opened.get_tensor(name)
            for name in opened.keys()  # noqa: SIM118 (no mapping)
        }
    if found.temperature is not None:
        tensors["heads.classifier.temperature"] = np.array(found.temperature, np.float32)
    if found.covariance_scale is not None:
        name = "heads.pose.log_variance.bias"
        tensors[name] = (tensors[name] + np.log(found.covariance_scale)).astype(np.float32)
    header = json.loads(metadata[_HEADER])
    header["network"] = spec.to_dict()
    metadata[_HEADER] = json.dumps(header, ensure_ascii=False)
    save_file(tensors, file, metadata)
    file.chmod(0o644 & (bundle.path / WEIGHTS).stat().st_mode | 0o600)


def _write_card(bundle: ModelBundle, file: Path, record: Mapping[str, Any]) -> None:
    old = bundle.path / CARD
    text = old.read_text(encoding="utf-8") if CARD in bundle.files else f"# {bundle.name}\n"
    text = text.partition("\n## Calibration\n")[0].rstrip("\n")
    lines = [
        text,
        "",
        "## Calibration",
        "",
        f"By `robot-vision calibrate` on {record['data']['images']} images of {record['data']['name']} that "
        'were not trained on. "After" is measured by cross-fitting, with 95 % intervals.',
        "",
        "| head | number | before | after |",
        "| --- | --- | --- | --- |",
    ]
    for head in ("classifier", "open_set", "pose", "place"):
        for name, after in record.get(head, {}).get("after", {}).items():
            before = record[head]["before"].get(name)
            lines.append(f"| {head} | {name} | {interval(before)} | {interval(after)} |")
    lines += [f"\n{head}: {why}." for head, why in record.get("left", {}).items()]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def interval(numbers: list[float | None] | None) -> str:
    """Returns `0.0123 (0.01 to 0.02)`, or nothing."""
    if not numbers or numbers[0] is None:
        return ""
    if numbers[1] is None or numbers[2] is None:
        return f"{numbers[0]:.4g}"
    return f"{numbers[0]:.4g} ({numbers[1]:.3g} to {numbers[2]:.3g})"
