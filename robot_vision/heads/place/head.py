"""The place head, as all who use its answers see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.contract.head import Arrays, Column, Head, Material, Output, Tap, short_numbers
from robot_vision.contract.topics import Topic
from robot_vision.heads.place.answer import Descriptor
from robot_vision.heads.place.drawing import descriptor_colours
from robot_vision.heads.place.spec import LARGEST, PlaceSpec
from robot_vision.heads.place.topics import descriptor_topic
from robot_vision.images.canvas import Canvas

_NAMES = {
    "netvlad": "NetVLAD, {} clusters",
    "gem": "GeM",
    "salad": "SALAD, {} clusters",
    "boq": "BoQ, {} queries a block",
    "mixvpr": "MixVPR",
    "cosplace": "CosPlace",
}


class PlaceHead(Head[PlaceSpec, Descriptor]):
    """A global descriptor, by which a map is searched."""

    kind: ClassVar[str] = "place"
    answer_key: ClassVar[str] = "descriptor"
    large_json = True
    Spec = PlaceSpec
    Answer = Descriptor
    sides: ClassVar[Mapping[str, str]] = {
        "judge": "robot_vision.heads.place.judging:PlaceJudge",
        "fitter": "robot_vision.heads.place.fitting:PlaceFitter",
        "trainer": "robot_vision.heads.place.training:PlaceTrainer",
    }

    def taps(self, spec: PlaceSpec) -> tuple[Tap, ...]:
        own = (Tap(spec.tap, "map"),)
        return (*own, Tap(kind="token")) if spec.pooling == "salad" else own

    def outputs(self, spec: PlaceSpec, several: EpistemicSpec | None) -> dict[str, Output]:
        return {self.key("descriptor"): Output((spec.descriptor_size,))}  # L2 norm 1

    def decoder(
        self, spec: PlaceSpec, several: EpistemicSpec | None, material: Material
    ) -> Callable[[Arrays], list[Descriptor]]:
        key = self.key("descriptor")

        def decode(outputs: Arrays) -> list[Descriptor]:
            descriptors = outputs[key]
            return [Descriptor(descriptors[i]) for i in range(len(descriptors))]

        return decode

    def topics(self, spec: PlaceSpec | None) -> Sequence[Topic]:
        return (descriptor_topic(self.topic("descriptor"), self.key("descriptor")),)

    def draw(self, canvas: Canvas, answer: Descriptor, spec: PlaceSpec, options: Any) -> None:
        canvas.strip(descriptor_colours(answer.values))

    def json(self, answer: Descriptor, spec: PlaceSpec, options: Any, attach: Any) -> Any:
        return short_numbers(answer.values)

    def heading(self, spec: PlaceSpec) -> str:
        return "descriptor"

    def cell(self, answer: Descriptor, spec: PlaceSpec, options: Any) -> str:
        first = " ".join(f"{v:+.2f}" for v in answer.values[:3])
        return f"{first} ... ({len(answer.values)})"

    def to_bundle(self, spec: PlaceSpec) -> tuple[dict[str, Any], dict[str, bytes]]:
        said, files = super().to_bundle(spec)
        # A setting of poolings alone that is 0 has its paper's number, or belongs to another pooling.
        return {k: v for k, v in said.items() if v or k not in LARGEST}, files

    def about(self, spec: PlaceSpec) -> str:
        whitening = ", whitened" if spec.whitened_size else ""
        size = f"{spec.descriptor_size} numbers{whitening}"
        return f"{_NAMES[spec.pooling].format(spec.clusters)}, {size}"

    def columns(self, spec: PlaceSpec) -> Mapping[str, Column]:
        return {self.key("descriptor"): Column((-1,), "float32")}

    def pack(self, answer: Descriptor) -> dict[str, Any]:
        return {self.key("descriptor"): answer.values}

    def unpack(self, row: Mapping[str, Any], spec: PlaceSpec, material: Material) -> Descriptor:
        return Descriptor(row[self.key("descriptor")])

    def example(self) -> PlaceSpec:
        return PlaceSpec(descriptor_size=8)


HEAD = PlaceHead()
