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
    PROBES,
    SHARED,
    WEIGHTS,
    ModelBundle,
    write_manifest,
)
from robot_vision.calibration.fit import Calibration, parts_of
from robot_vision.calibration.old_graphs import GraphEditor
from robot_vision.errors import BundleError, ConfigError
from robot_vision.files.whole import draft_folder

_HEADER = "robot_vision"  # key of the header of weights.safetensors


def write_calibrated(
    bundle: ModelBundle,
    out: Path,
    graph: bytes,
    found: Calibration,
    record: Mapping[str, Any],
) -> ModelBundle:
    """Writes the bundle next to its final place and moves it there once it loads.

    Args:
        bundle: the old one.
        out: directory that must not be there yet.
        graph: of the new one.
        found: what was fitted.
        record: for `bundle.yaml`, without the parts that were fitted.

    Returns:
        The new bundle, loaded from disk.

    Raises:
        BundleError: `out` is there.
    """
    if out.exists():
        raise BundleError(f"{out} exists already: give another --output")
    with draft_folder(out) as part:
        part.chmod(bundle.path.stat().st_mode & 0o777)
        graphs = [program.graph for program in bundle.programs]
        if bundle.programs:
            found.notes.append(
                f"its programs {', '.join(p.name for p in bundle.programs)} are left out: they were made of "
                "the graph as it was; run `robot-vision optimise` on the new bundle"
            )
        changed = {
            head.key(word): content
            for head, fitted in found.written
            for word, content in fitted.files.items()
        }
        for name in bundle.files:
            if name not in (GRAPH, WEIGHTS, CARD, PROBES, SHARED, *changed, *graphs):
                shutil.copyfile(bundle.path / name, part / name)
        for name, content in {GRAPH: graph, **changed}.items():
            if content is not None:
                (part / name).write_bytes(content)
        if WEIGHTS in bundle.files:
            _write_weights(bundle, part / WEIGHTS, graph, found)
        record = found.merged({**bundle.calibration, **record})
        _write_card(bundle, part / CARD, record, found)
        write_manifest(part, bundle.name, found.spec, bundle.training, bundle.metrics, record)
        written = ModelBundle.load(part)  # what a robot would check
    return replace(written, path=out)


def _write_weights(bundle: ModelBundle, file: Path, graph: bytes, found: Calibration) -> None:
    """Writes the same change into the weights, so that torch says what the graph says."""
    if graph == bundle.graph:
        shutil.copyfile(bundle.path / WEIGHTS, file)
        return
    editor = GraphEditor(bundle.graph)
    if bundle.spec.epistemic is not None and any(map(editor.is_old, found.constants)):
        # Its graph averages several answers and is calibrated after that; the network has no such place.
        found.notes.append(
            f"{WEIGHTS} is left out: a network with several answers is calibrated in its graph alone, so the "
            "torch engine cannot run this bundle; train from the bundle that it was made from"
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
    for head, constants in found.constants.items():
        for word, value in constants.items():
            tensors.pop(f"heads.{head}.{word}", None)  # its place before constants had names
            tensors[f"heads.{head}.constants.{word}"] = value.astype(np.float32)
    header = json.loads(metadata[_HEADER])
    header["network"] = found.spec.to_dict()
    metadata[_HEADER] = json.dumps(header, ensure_ascii=False)
    save_file(tensors, file, metadata)
    file.chmod(0o644 & (bundle.path / WEIGHTS).stat().st_mode | 0o600)


def _write_card(
    bundle: ModelBundle, file: Path, record: Mapping[str, Any], found: Calibration
) -> None:
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
    for *_, head in parts_of(bundle.spec):
        for name, after in record.get(head, {}).get("after", {}).items():
            before = record[head]["before"].get(name)
            lines.append(f"| {head} | {name} | {interval(before)} | {interval(after)} |")
    lines += [f"\n{head}: {why}." for head, why in found.left.items()]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def interval(numbers: list[float | None] | None) -> str:
    """Returns `0.0123 (0.01 to 0.02)`, or nothing."""
    if not numbers or numbers[0] is None:
        return ""
    if numbers[1] is None or numbers[2] is None:
        return f"{numbers[0]:.4g}"
    return f"{numbers[0]:.4g} ({numbers[1]:.3g} to {numbers[2]:.3g})"
