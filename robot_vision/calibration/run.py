"""`robot-vision calibrate` without its arguments: from a bundle and a data set to a calibrated bundle."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.calibration.fit import fit
from robot_vision.calibration.predict import BATCH, predict
from robot_vision.calibration.writing import calibrated_graph, calibrated_spec, write_calibrated
from robot_vision.contract.calibration import Calibration, Material, Options
from robot_vision.datasets.image_sketch import found_in, sketch
from robot_vision.datasets.sample import Sample, Splits, content_hash
from robot_vision.errors import BundleError, ConfigError
from robot_vision.files.natural_order import natural_key
from robot_vision.heads.classifier.spec import FEATURE_SCORES
from robot_vision.heads.classifier.temperature import log_probabilities
from robot_vision.heads.pose.variance_scales import scaled
from robot_vision.text.counts import counted

# Of the images: two data sets may share a few by accident, as recordings that stand still do.
MAX_TRAINED_ON = 0.05
_SAME = 1e-4  # of what the new graph gives from what was computed outside it

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


def heads_with_truth(bundle: ModelBundle, samples: Sequence[Sample]) -> tuple[str, ...]:
    """Returns what can be calibrated: heads of the bundle of which the samples tell the truth."""
    spec = bundle.spec
    labels = set(spec.classifier.labels) if spec.classifier else set()
    labelled = any(s.label in labels for s in samples)
    posed = any(s.T_map_camera is not None for s in samples)
    there = {
        "classifier": labelled,
        "open_set": labelled,
        "pose": posed and spec.pose is not None,
        "place": posed and spec.place is not None,
    }
    return tuple(name for name, yes in there.items() if yes)


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
            f"{share:.0%} of these images were trained on, and a model is too sure of those: "
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
    if {"classifier", "open_set"} & set(options.heads):
        notes += _notes_on_labels(bundle, material.samples)
    reference = None
    compares = "open_set" in options.heads and options.score in FEATURE_SCORES
    if data.reference and (compares or "place" in options.heads):
        reference = _material(bundle, data.reference, progress)
    found = fit(bundle, material, reference, options)
    found.notes = notes + found.notes
    width = material.outputs["features"].shape[1] if "features" in material.outputs else 0
    spec = calibrated_spec(bundle, found, options.score, width)
    if bundle.spec.classifier and bundle.spec.classifier.unknown_threshold is not None:
        if spec.classifier and spec.classifier.unknown_threshold is None:
            found.notes.append(
                "the threshold of unknown images is dropped, since it was for scores at another "
                "temperature: calibrate open_set too"
            )
    graph = calibrated_graph(bundle, found, spec)
    _verify(bundle, graph, material, found)
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
        **found.record(),
    }
    return write_calibrated(bundle, out, spec, graph, found, record), found


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


def _notes_on_labels(bundle: ModelBundle, samples: Sequence[Sample]) -> list[str]:
    """Returns what labels and bundle do not have in common, by name and number."""
    assert bundle.spec.classifier is not None
    labels = bundle.spec.classifier.labels
    counts = Counter(s.label for s in samples if s.label is not None)
    strange = {name: n for name, n in counts.most_common() if name not in labels}
    unseen = [name for name in labels if name not in counts]
    notes = []
    if strange:
        notes.append(
            f"{counted(sum(strange.values()), 'image has a label', 'images have labels')} that "
            f"{bundle.name} does not know "
            f"({_some([f'{name}: {n}' for name, n in strange.items()])}): nothing is fitted on them, and the "
            "open set's numbers count them as unknown images; if a class is only spelled differently, "
            f"rename it (it knows {_some(list(labels))})"
        )
    if unseen:
        notes.append(
            f"no image shows {_some(unseen)}, which {bundle.name} knows: its answers about them "
            "were not checked"
        )
    return notes


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f", {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _material(bundle: ModelBundle, samples: Sequence[Sample], progress: Progress) -> Material:
    outputs = predict(bundle, samples, progress=progress)
    return Material([samples[i] for i in outputs["rows"]], outputs)


def _verify(bundle: ModelBundle, graph: bytes, material: Material, found: Calibration) -> None:
    """Refuses a graph whose answers are not the calibrated ones, or whose classes changed."""
    some = predict(bundle, list(material.samples[:BATCH]), graph)
    count = len(some["rows"])
    old = {name: value[:count] for name, value in material.outputs.items()}
    wanted: dict[str, Any] = {}
    if found.temperature is not None:
        wanted["probabilities"] = np.exp(log_probabilities(old["logits"], found.temperature))
        if (some["probabilities"].argmax(1) != old["probabilities"].argmax(1)).any():
            raise BundleError(f"{bundle.name}: its classes would change; it is not calibrated")
    if found.covariance_scale is not None:
        wanted["pose_covariance"] = scaled(old["pose_covariance"], found.covariance_scale)
    for name, value in wanted.items():
        gap = np.abs(some[name] - value).max() / max(np.abs(value).max(), 1e-12)
        if not gap <= _SAME:
            raise BundleError(
                f"{bundle.name}: after the change its {name} differs by {gap:.2g} (relative) from what was "
                "computed; it is not written"
            )
