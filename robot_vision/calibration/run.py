"""`robot-vision calibrate` without its arguments: from a bundle and a data set to a calibrated bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.onnx_graph import OnnxGraph
from robot_vision.calibration.fit import (
    Calibration,
    FitMaterial,
    calibrated_graph,
    fit,
    options_for,
    parts_of,
)
from robot_vision.calibration.predict import BATCH, predict
from robot_vision.calibration.writing import write_calibrated
from robot_vision.contract.calibration import Options
from robot_vision.contract.metrics import pixel_classes
from robot_vision.datasets.image_sketch import found_in, sketch
from robot_vision.datasets.model_classes import in_classes_of
from robot_vision.datasets.sample import Sample, Splits, content_hash
from robot_vision.errors import BundleError, ConfigError
from robot_vision.files.natural_order import natural_key
from robot_vision.text.counts import counted

# Of the images: two data sets may share a few by accident, as recordings that stand still do.
MAX_TRAINED_ON = 0.05
# Of what the new graph gives from what was computed outside it; float16 rounds by up to 1 / 2048.
_SAME, _SAME_IN_HALF = 1e-4, 1e-3

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Data:
    """What is calibrated on.

    Attributes:
        splits: the data set.
        split: which of its splits.
        name: for the record.
        options: with which it was opened, for the record.
    """

    splits: Splits
    split: str
    name: str
    options: dict[str, Any]

    @property
    def samples(self) -> Sequence[Sample]:
        """The split's samples; `all` is every one, in the order in which they were recorded."""
        if self.split != "all":
            return self.splits.split(self.split)
        samples = self.splits.samples
        order = {name: i for i, name in enumerate(dict.fromkeys(s.sequence for s in samples))}
        # The splits are blocks of the same recordings: one after another, frames that are neighbours in
        # time would not be neighbours here.
        return sorted(
            samples, key=lambda s: (order[s.sequence], s.stamp_ns or 0, natural_key(s.name))
        )

    @property
    def reference(self) -> Sequence[Sample]:
        """The training images, where they are not what is calibrated on."""
        return () if self.split in ("train", "all") else self.splits.train

    def for_model(self, bundle: ModelBundle) -> Data:
        """Returns it with the true classes of pixels as a model numbers them, by their names."""
        judged = [(head, own) for head, own in bundle.spec.bound if "judge" in head.sides]
        return replace(self, splits=in_classes_of(self.splits, pixel_classes(judged)))


def heads_with_truth(
    bundle: ModelBundle, samples: Sequence[Sample], has_orientation: bool
) -> tuple[str, ...]:
    """Returns what can be calibrated: parts of the bundle's heads of which the samples tell the truth.

    Args:
        bundle: whose heads.
        samples: of a data set.
        has_orientation: see `Splits`.
    """
    return tuple(
        word
        for fitter, spec, part, word in parts_of(bundle.spec)
        if (has_orientation or not fitter.turned)
        and any(fitter.knows(spec, s.of(fitter.truth(part))) for s in samples)
    )


def without_trained_on(
    bundle: ModelBundle, samples: Sequence[Sample]
) -> tuple[list[Sample], list[str]]:
    """Returns the samples that were not trained on, and notes.

    Raises:
        ConfigError: the share is so large that this is the training set.
    """
    recorded = bundle.training.get("training_image_sketch")
    if recorded is None:
        return list(samples), [
            f"{bundle.name} has no hashes of the images it was trained on: make sure that these are others"
        ]
    hashes = [content_hash(sample) for sample in samples]
    shared, share = found_in(recorded, hashes)
    if share > MAX_TRAINED_ON:
        raise ConfigError(
            f"{share:.0%} of these images were trained on, and a model is overconfident on those: "
            f"calibrate on others (at most {MAX_TRAINED_ON:.0%} may be shared)"
        )
    kept = [s for s, h in zip(samples, hashes, strict=True) if h not in shared]
    notes = []
    if len(kept) < len(samples):
        notes.append(
            counted(
                len(samples) - len(kept),
                "image that was trained on is",
                "images that were trained on are",
            )
            + " left out"
        )
    return kept, notes


def calibrate(
    bundle: ModelBundle,
    data: Data,
    options: Options,
    out: Path,
    progress: Progress = lambda n: None,
) -> tuple[ModelBundle, Calibration]:
    """Fits, measures, writes.

    Args:
        bundle: to calibrate; it is not changed.
        data: held out.
        options: what and how.
        out: the new bundle's directory, which must not be there yet.
        progress: is called with the number of images done since.

    Returns:
        The new bundle, and what was fitted.

    Raises:
        ConfigError: too few images, or those that were trained on.
        BundleError: `out` is there, or the graph cannot be changed.
    """
    check_output(out)
    data = data.for_model(bundle)
    samples, notes = without_trained_on(bundle, data.samples)
    material = _material(bundle, samples, progress)
    if len(material.samples) < len(samples):
        notes.append(
            counted(
                len(samples) - len(material.samples),
                "image that cannot be read is",
                "images that cannot be read are",
            )
            + " left out"
        )
    reference = None
    asked = [
        f.compares(p, options_for(f, options))
        for f, _, p, w in parts_of(bundle.spec)
        if w in options.parts
    ]
    if data.reference and any(asked):
        reference = _material(bundle, data.reference, progress)
    found = fit(bundle, material, reference, options)
    found.notes = notes + found.notes
    graph = calibrated_graph(bundle, found)
    verify(bundle, graph, material, found)
    used = Splits((), tuple(material.samples), ())
    record: dict[str, Any] = {
        "data": {
            "name": data.name,
            "split": data.split,
            "options": data.options,
            "images": len(material.samples),
            "fingerprint_sha256": used.fingerprint("validation")[:16],
            "image_sketch": sketch(used.content_hashes("validation")),  # `evaluate` says so
        },
        "of_bundle": bundle.sha256,
        "left": found.left,
    }
    return write_calibrated(bundle, out, graph, found, record), found


def check_output(out: Path) -> None:
    """Refuses a place where no bundle can be written, before there is work to be lost.

    Raises:
        BundleError: `out` is there, or its folder cannot be written.
    """
    if out.exists():
        raise BundleError(f"{out} exists already: give another --output")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent):
            pass
    except OSError as error:
        raise BundleError(
            f"--output {out} cannot be written: {error.strerror}: name another folder"
        ) from error


def _material(bundle: ModelBundle, samples: Sequence[Sample], progress: Progress) -> FitMaterial:
    outputs = predict(bundle, samples, progress=progress)
    return FitMaterial([samples[i] for i in outputs["rows"]], outputs)


def verify(bundle: ModelBundle, graph: bytes, material: FitMaterial, found: Calibration) -> None:
    """Refuses a graph whose answers are not the calibrated ones."""
    some = predict(bundle, list(material.samples[:BATCH]), graph)
    count = len(some["rows"])
    wanted = {
        name: value[:count] for _, part in found.written for name, value in part.expected.items()
    }
    same = _SAME_IN_HALF if wanted and OnnxGraph(graph).is_half else _SAME
    for name, value in wanted.items():
        gap = np.abs(some[name] - value).max() / max(np.abs(value).max(), 1e-12)
        if not gap <= same:
            raise BundleError(
                f"{bundle.name}: after the change its {name} differs by {gap:.2g} (relative) from what was "
                "computed; it is not written"
            )
