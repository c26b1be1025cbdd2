"""The classifier, as all who use its answers see it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.contract.head import Arrays, Column, Head, Material, Output, plain, short
from robot_vision.contract.topics import Latched, Topic
from robot_vision.errors import ConfigError
from robot_vision.files.arrays import load_npy
from robot_vision.heads.classifier.answer import Classification
from robot_vision.heads.classifier.drawing import draw_labels
from robot_vision.heads.classifier.known_scores import known_scores, make_scorer
from robot_vision.heads.classifier.options import ClassifierOptions
from robot_vision.heads.classifier.spec import FEATURE_SCORES, REFERENCES, ClassifierSpec
from robot_vision.heads.classifier.topics import class_topic, label_topic
from robot_vision.images.canvas import Canvas
from robot_vision.text.counts import counted

LABELS = "labels.txt"


class ClassifierHead(Head[ClassifierSpec, Classification]):
    """One of several classes, or `unknown`."""

    kind: ClassVar[str] = "classifier"
    answer_key: ClassVar[str] = "classification"
    Spec = ClassifierSpec
    Answer = Classification
    Options = ClassifierOptions
    sampled: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = (LABELS, REFERENCES)
    sides: ClassVar[Mapping[str, str]] = {
        "judge": "robot_vision.heads.classifier.judging:ClassifierJudge",
        "fitter": "robot_vision.heads.classifier.fitting:ClassifierFitter",
        "trainer": "robot_vision.heads.classifier.training:ClassifierTrainer",
    }

    def outputs(self, spec: ClassifierSpec, several: EpistemicSpec | None) -> dict[str, Output]:
        found = {"probabilities": Output((len(spec.labels),))}
        if spec.score in FEATURE_SCORES:
            found["features"] = Output((spec.feature_size,))
        else:
            found["known_score"] = Output()
        if several:
            found["mutual_information"] = Output()  # nats
        return {self.key(word): output for word, output in found.items()}

    def decoder(
        self, spec: ClassifierSpec, several: EpistemicSpec | None, material: Material
    ) -> Callable[[Arrays], list[Classification]]:
        known = known_scores(material.calibration)
        references = material.files.get(REFERENCES)
        scorer = None
        if references is not None:
            scorer = make_scorer(spec.score, references, len(spec.labels))
        p_key, i_key = self.key("probabilities"), self.key("mutual_information")
        k_key = self.key("features" if scorer else "known_score")

        def decode(outputs: Arrays) -> list[Classification]:
            scores = scorer(outputs[k_key]) if scorer else outputs[k_key]
            probabilities = outputs[p_key]
            information = outputs[i_key] if several else None
            found = []
            for i in range(len(scores)):
                score = float(scores[i])
                found.append(
                    Classification(
                        spec.labels,
                        probabilities[i],
                        score,
                        None if information is None else float(information[i]),
                        known.rarity(score) if known else None,
                    )
                )
            return found

        return decode

    def to_bundle(self, spec: ClassifierSpec) -> tuple[dict[str, Any], dict[str, bytes]]:
        settings = plain(spec)
        labels = "\n".join(settings.pop("labels")) + "\n"
        return settings, {LABELS: labels.encode()}

    def from_bundle(
        self, settings: Mapping[str, Any], files: Mapping[str, bytes]
    ) -> Mapping[str, Any]:
        if LABELS not in files:
            return settings
        try:
            return {**settings, "labels": files[LABELS].decode("utf-8").splitlines()}
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.key(LABELS)} is not UTF-8: {error}") from error

    def read_files(self, spec: ClassifierSpec, files: Mapping[str, bytes]) -> dict[str, Any]:
        file, content = self.key(REFERENCES), files.get(REFERENCES)
        wanted = spec.score in FEATURE_SCORES
        if content is None:
            if wanted:
                raise ConfigError(
                    f"{file} is missing: the known score {spec.score!r} compares with it; make it with "
                    "`robot-vision calibrate`, or use a score of logits"
                )
            return {}
        if not wanted:
            raise ConfigError(f"{file} exists, but there is no score that compares features")
        try:
            array: NDArray[Any] = load_npy(content)
        except ValueError as error:
            raise ConfigError(f"{file} cannot be read as an array of numbers: {error}") from error
        if array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != spec.feature_size:
            raise ConfigError(
                f"{file} holds {array.dtype} {array.shape}: it must be float32 (R, {spec.feature_size})"
            )
        return {REFERENCES: array}

    def resolve(
        self, options: ClassifierOptions, spec: ClassifierSpec, material: Material
    ) -> ClassifierOptions:
        """Returns the options with the threshold in force; -inf for none."""
        threshold = options.unknown_threshold
        if math.isnan(threshold):
            known = known_scores(material.calibration) if options.known_share else None
            own = spec.unknown_threshold
            threshold = (
                known.threshold(options.known_share) if known else -math.inf if own is None else own
            )
        return dataclasses.replace(options, unknown_threshold=threshold)

    def ineffective(
        self, options: ClassifierOptions, spec: ClassifierSpec, material: Material
    ) -> str:
        share = options.known_share
        if not share or not math.isnan(options.unknown_threshold):
            return ""
        if known_scores(material.calibration):
            return ""
        return (
            f"known_share is {share}, but the model was not calibrated, so its own threshold holds: set "
            "unknown_threshold, or use robot-vision calibrate"
        )

    def topics(self, spec: ClassifierSpec | None) -> Sequence[Topic]:
        name, info = self.topic("classification"), self.topic("label_info")
        return (class_topic(name, info, spec.labels if spec else (), self.key),)

    def latched(self, spec: ClassifierSpec | None) -> Sequence[Latched]:
        return (label_topic(self.topic("label_info"), spec.labels if spec else ()),)

    def draw(
        self,
        canvas: Canvas,
        answer: Classification,
        spec: ClassifierSpec,
        options: ClassifierOptions,
    ) -> None:
        title = "" if self.name == self.kind else f"{self.name} "
        draw_labels(canvas, answer.top_k(options.top_k, options.unknown_threshold), title)

    def json(
        self,
        answer: Classification,
        spec: ClassifierSpec,
        options: ClassifierOptions,
        attach: Any,
    ) -> Any:
        best = answer.top_k(options.top_k, options.unknown_threshold)
        return {
            "results": [{"label": h.label, "score": short(h.score)} for h in best],
            "known_score": short(answer.known_score),
        }

    def heading(self, spec: ClassifierSpec) -> str:
        return "labels"

    def cell(self, answer: Classification, spec: ClassifierSpec, options: ClassifierOptions) -> str:
        best = answer.top_k(options.top_k, options.unknown_threshold)
        return ", ".join(f"{h.label} {100 * h.score:.0f}%" for h in best)

    def tally(
        self, answer: Classification, spec: ClassifierSpec, options: ClassifierOptions
    ) -> str | None:
        return answer.top_k(1, options.unknown_threshold)[0].label

    def about(self, spec: ClassifierSpec) -> str:
        shown = ", ".join(spec.labels[:8]) + (", ..." if len(spec.labels) > 8 else "")
        return f"{counted(len(spec.labels), 'label')} ({shown}), score `{spec.score}`"

    def doubts(self, answer: Classification) -> Mapping[str, float]:
        """Entropy and mutual information in nats, where the head answers several times."""
        if answer.mutual_information is None:
            return {}
        return {
            self.key("entropy"): answer.entropy,
            self.key("mutual_information"): answer.mutual_information,
        }

    def from_doubts(self, said: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        key = self.key("mutual_information")
        return {key: said[key]} if key in said else {}

    def columns(self, spec: ClassifierSpec) -> Mapping[str, Column]:
        found = {
            "probabilities": Column((len(spec.labels),), "float32"),
            "known_score": Column(),
            "mutual_information": Column(),
        }
        return {self.key(word): column for word, column in found.items()}

    def pack(self, answer: Classification) -> dict[str, Any]:
        row = {
            "probabilities": answer.probabilities,
            "known_score": answer.known_score,
            "mutual_information": answer.mutual_information,
        }
        return {self.key(word): value for word, value in row.items()}

    def unpack(
        self, row: Mapping[str, Any], spec: ClassifierSpec, material: Material
    ) -> Classification:
        known = known_scores(material.calibration)
        score = row.get(self.key("known_score"))
        score = 1.0 if score is None else float(score)
        information = row.get(self.key("mutual_information"))
        return Classification(
            spec.labels,
            row[self.key("probabilities")],
            score,
            None if information is None else float(information),
            known.rarity(score) if known else None,
        )

    def example(self) -> ClassifierSpec:
        return ClassifierSpec(("a", "b", "c"), dropout=0.2)

    def example_outputs(
        self,
        spec: ClassifierSpec,
        several: EpistemicSpec | None,
        count: int,
        rng: np.random.Generator,
    ) -> dict[str, NDArray[Any]]:
        found = super().example_outputs(spec, several, count, rng)
        best = found[self.key("probabilities")].max(axis=1)  # a message holds no other score
        return {**found, self.key("known_score"): best}


HEAD = ClassifierHead()
