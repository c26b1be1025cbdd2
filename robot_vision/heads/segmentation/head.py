"""The segmentation head, as all who use its answers see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from robot_vision.contract.attachments import Attachments
from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.contract.head import Arrays, Column, Head, Material, Output, Tap, short
from robot_vision.contract.topics import Latched, Topic
from robot_vision.heads.segmentation import topics
from robot_vision.heads.segmentation.answer import Segmentation
from robot_vision.heads.segmentation.drawing import draw_mask
from robot_vision.heads.segmentation.spec import SegmentationSpec
from robot_vision.images.canvas import Canvas
from robot_vision.text.counts import counted

_ROUNDED = 0.01  # a probability may fall on the other side of a half of 1/255


class SegmentationHead(Head[SegmentationSpec, Segmentation]):
    """A class for each pixel."""

    kind: ClassVar[str] = "segmentation"
    answer_key: ClassVar[str] = "segmentation"
    Spec = SegmentationSpec
    Answer = Segmentation
    needs: ClassVar[frozenset[str]] = frozenset({"camera_info"})
    sides: ClassVar[Mapping[str, str]] = {
        "judge": "robot_vision.heads.segmentation.judging:SegmentationJudge",
        "fitter": "robot_vision.heads.segmentation.fitting:SegmentationFitter",
        "trainer": "robot_vision.heads.segmentation.training:SegmentationTrainer",
    }

    def example(self) -> SegmentationSpec:
        return SegmentationSpec(("a", "b", "c"), height=12, width=16)

    def taps(self, spec: SegmentationSpec) -> tuple[Tap, ...]:
        return tuple(Tap(kind="map", stride=stride) for stride in spec.strides)

    def outputs(self, spec: SegmentationSpec, several: EpistemicSpec | None) -> dict[str, Output]:
        found = {self.key("class_ids"): Output(spec.size, "uint8", "share")}
        if spec.confidence:
            found[self.key("class_confidence")] = Output(spec.size, "uint8", "relative", _ROUNDED)
        return found

    def decoder(
        self, spec: SegmentationSpec, several: EpistemicSpec | None, material: Material
    ) -> Callable[[Arrays], list[Segmentation]]:
        """See `Head.decoder`; answers are views of the batch."""
        ids_key, sure_key = self.key("class_ids"), self.key("class_confidence")

        def decode(outputs: Arrays) -> list[Segmentation]:
            ids = outputs[ids_key]
            sure = outputs[sure_key] if spec.confidence else [None] * len(ids)
            return [Segmentation(*pair) for pair in zip(ids, sure, strict=True)]

        return decode

    def topics(self, spec: SegmentationSpec | None) -> Sequence[Topic]:
        found = [topics.mask_topic(self.topic(topics.MASK), self.key("class_ids"))]
        if spec is None or spec.confidence:
            name = self.topic(topics.CONFIDENCE)
            found.append(topics.confidence_topic(name, self.key("class_confidence")))
        return (*found, topics.calibration_topic(self.topic(topics.CALIBRATION)))

    def latched(self, spec: SegmentationSpec | None) -> Sequence[Latched]:
        return (topics.label_topic(self.topic(topics.LABELS), spec.labels if spec else ()),)

    def draw(
        self,
        canvas: Canvas,
        answer: Segmentation,
        spec: SegmentationSpec,
        options: Any,
    ) -> None:
        draw_mask(canvas, answer, spec, "" if self.name == self.kind else f"{self.name} ")

    def json(
        self,
        answer: Segmentation,
        spec: SegmentationSpec,
        options: Any,
        attach: Attachments | None,
    ) -> Any:
        """Returns the share of each class that is there, and where ids and confidence are."""
        shares = answer.shares(len(spec.labels)).tolist()
        found: dict[str, Any] = {
            "shares": {n: short(s) for n, s in zip(spec.labels, shares, strict=True) if s}
        }
        if answer.confidence is not None:
            found["mean_confidence"] = short(float(answer.confidence.mean()) / 255)
        if attach is not None:
            found["class_ids"] = attach.image(self.key("segmentation"), answer.class_ids)
            if answer.confidence is not None:
                word = self.key("segmentation_confidence")
                found["confidence"] = attach.image(word, answer.confidence)
        return found

    def heading(self, spec: SegmentationSpec) -> str:
        return "pixels" if self.name == self.kind else self.name

    def cell(self, answer: Segmentation, spec: SegmentationSpec, options: Any) -> str:
        """Returns the three classes with the largest shares."""
        shares = answer.shares(len(spec.labels))
        order = np.argsort(-shares, kind="stable")[:3].tolist()
        return ", ".join(f"{spec.labels[i]} {100 * shares[i]:.0f}%" for i in order if shares[i])

    def about(self, spec: SegmentationSpec) -> str:
        shown = ", ".join(spec.labels[:8]) + (", ..." if len(spec.labels) > 8 else "")
        size = f"{spec.width} x {spec.height} pixels, " if spec.height else ""
        return f"{size}{counted(len(spec.labels), 'class', 'classes')} ({shown}), decoder `{spec.decoder}`"

    def columns(self, spec: SegmentationSpec) -> Mapping[str, Column]:
        words = ("class_ids", "class_confidence") if spec.confidence else ("class_ids",)
        return {self.key(word): Column(spec.size, "uint8", stream=True) for word in words}

    def pack(self, answer: Segmentation) -> dict[str, Any]:
        row = {self.key("class_ids"): answer.class_ids}
        if answer.confidence is not None:
            row[self.key("class_confidence")] = answer.confidence
        return row

    def unpack(
        self, row: Mapping[str, Any], spec: SegmentationSpec, material: Material
    ) -> Segmentation:
        return Segmentation(row[self.key("class_ids")], row.get(self.key("class_confidence")))


HEAD = SegmentationHead()
