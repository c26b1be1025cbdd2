"""Certificates: what a program costs against float32, by engine and instruction set, on images held out."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from robot_vision import __version__
from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.programs import Certificate
from robot_vision.calibration.folds import is_video, recordings, resampler_of
from robot_vision.contract.head import Head
from robot_vision.contract.metrics import pixel_classes
from robot_vision.contract.rows import Rows, Scores
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.datasets.sample import Sample, Splits, content_hash
from robot_vision.engines import create_engine
from robot_vision.engines.base import Engine
from robot_vision.engines.machine import instructions
from robot_vision.evaluation.measure.metrics import PlaceReference, score_recording
from robot_vision.evaluation.predict.replay import replay
from robot_vision.evaluation.predict.samples import SampleSource, sample_truth, stamps
from robot_vision.pipeline import Pipeline
from robot_vision.statistics.paired import PairedEvidence
from robot_vision.text.counts import counted

_LIBRARIES = {"onnx": "onnxruntime"}  # others are called as the engine
_DIGITS = 4


@dataclass(frozen=True)
class HeldOut:
    """The images that certify, and those that answers are looked up in.

    Attributes:
        splits: the data set that they are of.
        samples: that chose nothing of any program.
        mapped: others, of which float32 makes the map; may be empty.
        name: of the data, for the record.
        split: of the data set.
    """

    splits: Splits
    samples: Sequence[Sample]
    mapped: Sequence[Sample]
    name: str
    split: str


class Certifier:
    """Compares programs with the float32 graph of a bundle, on the same images.

    Args:
        bundle: as float32 runs it.
        data: images.
        settings: of the bootstrap, and what the same place is.
    """

    def __init__(self, bundle: ModelBundle, data: HeldOut, settings: EvaluationSettings) -> None:
        self._bundle, self._data, self._settings = bundle, data, settings
        bound = bundle.spec.bound
        self._judged = [head for head, _ in bound if "judge" in head.sides]
        classes = pixel_classes([(h, s) for h, s in bound if h in self._judged])
        self._truth = sample_truth(data.splits, data.samples, classes)

    def certificate(self, view: ModelBundle, engine: Engine) -> Certificate:
        """Returns the certificate of a program on an engine that has loaded it.

        Args:
            view: the bundle as the program sees it.
            engine: runs it.
        """
        base, evidence = self._base
        found = self._scores(view, engine)
        same = np.array_equal(base["stamps_ns"], found["stamps_ns"])
        rows = {r.head.name: r for r in found.each()}
        heads: dict[str, dict[str, Any]] = {}
        float32 = {r.head.name: r for r in base.each()}
        for head, _ in view.spec.bound:
            if head not in self._judged:
                heads[head.name] = {"passed": False, "why": f"a {head.kind} head has no judge"}
            elif not same:
                lost = len(base) - len(np.intersect1d(base["stamps_ns"], found["stamps_ns"]))
                why = f"{counted(lost, 'answer')} of {len(base)} cannot be used, as float32's can"
                heads[head.name] = {"passed": False, "why": why}
            else:
                heads[head.name] = _proven(head, float32[head.name], rows[head.name], evidence)
        library = importlib.import_module(_LIBRARIES.get(engine.name, engine.name))
        return Certificate(
            engine=engine.name,
            engine_version=str(library.__version__).partition("-")[0],  # and not the commit
            device=engine.device.partition(":")[0],
            instructions=instructions(engine.device, engine.name) or "unknown",
            images=self._images,
            versions={"robot_vision": __version__, "numpy": np.__version__},
            heads=heads,
            passed=all(said["passed"] for said in heads.values()),
        )

    @cached_property
    def _images(self) -> dict[str, Any]:
        """Number and fingerprint of the images, and how many count as one each."""
        hashes = sorted(content_hash(sample) for sample in self._data.samples)
        return {
            "count": len(hashes),
            "sha256": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
            "blocks": len(np.unique(self._base[1].blocks)),
            "data": self._data.name,
            "split": self._data.split,
        }

    @cached_property
    def _base(self) -> tuple[Scores, PairedEvidence]:
        """The rows of float32, by the engine that every machine has, and which of them are alike."""
        with closing(create_engine(self._bundle, "onnx", "cpu")) as engine:
            scores = self._scores(self._bundle, engine)
        samples = self._data.samples
        at = {stamp: i for i, stamp in enumerate(stamps(samples).tolist())}
        answered = [samples[at[stamp]] for stamp in scores["stamps_ns"].tolist()]
        resampler = resampler_of(answered, self._settings)
        blocks = np.arange(len(answered))
        if is_video(answered):
            first = 0
            for a, b in recordings(answered):
                blocks[a:b] = first + np.arange(b - a) // resampler.block_frames
                first = int(blocks[b - 1]) + 1
        return scores, PairedEvidence(blocks, resampler)

    @cached_property
    def _reference(self) -> PlaceReference | None:
        """The map that float32 makes; None where nothing is looked up, or there is nothing to make it of."""
        mapped = self._data.mapped
        if not mapped or not any(head.judge().reference for head in self._judged):
            return None
        truth = sample_truth(self._data.splits, mapped)
        if truth.poses is None or not truth.poses.oriented:
            return None
        with closing(create_engine(self._bundle, "onnx", "cpu")) as engine:
            said = replay(Pipeline(self._bundle, engine), SampleSource("map", mapped))
        return PlaceReference(said, truth)

    def _scores(self, view: ModelBundle, engine: Engine) -> Scores:
        source = SampleSource(self._data.name, self._data.samples)
        said = replay(Pipeline(view, engine), source)
        bound = [(head, spec) for head, spec in view.spec.bound if head in self._judged]
        return score_recording(said, self._truth, self._settings, self._reference, bound)


def _proven(
    head: Head[Any, Any], float32: Rows, program: Rows, evidence: PairedEvidence
) -> dict[str, Any]:
    """Returns what a certificate says of a head."""
    bounds = head.judge().certify(float32, program, evidence)
    if not bounds:
        why = f"its judge says nothing of what a {head.kind} head may lose: it is not certified"
        return {"passed": False, "why": why}
    why = "; ".join(b.why(name) for name, b in bounds.items() if not b.passed)
    said: dict[str, Any] = {
        "passed": not why,
        "text": ", ".join(b.text for b in bounds.values() if b.text),
        **({"why": why} if why else {}),
    }
    for name, b in bounds.items():
        numbers = {"value": b.value, "bound": b.bound, "limit": b.limit}
        said[name] = {
            **{k: round(float(n), _DIGITS) if np.isfinite(n) else None for k, n in numbers.items()},
            "count": b.count,
            **({"needed": b.needed} if b.needed else {}),
        }
    return said
