"""Three heads that the package does not know, as another package would bring them.

`Steering` says two numbers, `Segments` a class id a pixel, `Dense` a distance and a class id a pixel, as
point clouds too. All live on the colours of a made-up graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from robot_vision.contract.dense_topics import Cloud, camera_info_topic, cloud_topic, image_topic
from robot_vision.contract.head import Answer, Column, Head, Output, short
from robot_vision.contract.metrics import Gallery, Judge, Metric, Part, Section, Shown
from robot_vision.contract.registry import GROUP
from robot_vision.contract.rows import RowColumn
from robot_vision.contract.topics import ImageReader, Topic
from robot_vision.messages.making import set_header, set_pixels
from robot_vision.messages.types import IMAGE
from robot_vision.settings.checks import require
from robot_vision.settings.parameters import LIVE, parameter

SIZE = (32, 48)
PALETTE = np.array([[0, 0, 255], [255, 255, 0]], np.uint8)


@dataclass(frozen=True)
class SteeringSpec:
    KIND = "toy_steering"

    gain: float = 1.0

    def __post_init__(self) -> None:
        require(self.gain > 0, "gain", self.gain, "positive")


@dataclass(frozen=True)
class Steering(Answer):
    CHECKED = {"angle": "angle", "collision": "probability of collision"}

    angle: float
    collision: float


class SteeringHead(Head[SteeringSpec, Steering]):
    kind = "toy_steering"
    answer_key = "toy_steering"
    Spec, Answer = SteeringSpec, Steering

    def outputs(self, spec, several):
        return {self.key("angle"): Output(), self.key("collision"): Output()}

    def decoder(self, spec, several, material):
        a, c = self.key("angle"), self.key("collision")
        return lambda arrays: [
            Steering(spec.gain * x, p)
            for x, p in zip(arrays[a].tolist(), arrays[c].tolist(), strict=True)
        ]

    def draw(self, canvas, answer, spec, options):
        canvas.bars([(f"{answer.collision:.2f}", answer.collision, (230, 60, 60))])

    def json(self, answer, spec, options, attach):
        return {"angle": short(answer.angle), "collision": short(answer.collision)}

    def cell(self, answer, spec, options):
        return f"{answer.angle:+.2f}, {100 * answer.collision:.0f}%"

    def columns(self, spec):
        return {self.key("angle"): Column(), self.key("collision"): Column()}

    def pack(self, answer):
        return {self.key("angle"): answer.angle, self.key("collision"): answer.collision}

    def unpack(self, row, spec, material):
        return Steering(float(row[self.key("angle")]), float(row[self.key("collision")]))


@dataclass(frozen=True)
class SegmentsSpec:
    KIND = "toy_segments"

    labels: tuple[str, ...] = ("floor", "wall")


@dataclass(frozen=True)
class Segments(Answer):
    ids: np.ndarray


class SegmentsHead(Head[SegmentsSpec, Segments]):
    kind = "toy_segments"
    answer_key = "toy_segmentation"
    Spec, Answer = SegmentsSpec, Segments
    sides = {"judge": "toy_heads:SegmentsJudge"}

    def outputs(self, spec, several):
        return {self.key("ids"): Output(SIZE, "uint8", "share")}

    def decoder(self, spec, several, material):
        return lambda arrays: [Segments(ids) for ids in arrays[self.key("ids")]]

    def draw(self, canvas, answer, spec, options):
        canvas.overlay(PALETTE[answer.ids])

    def json(self, answer, spec, options, attach):
        shares = np.bincount(answer.ids.ravel(), minlength=len(spec.labels)) / answer.ids.size
        said = {"shares": dict(zip(spec.labels, map(short, shares.tolist()), strict=True))}
        if attach is not None:
            said["png"] = attach.image(self.key("ids"), answer.ids)
            said["npy"] = attach.array(self.key("ids"), answer.ids.astype(np.float16))
        return said

    def cell(self, answer, spec, options):
        return spec.labels[int(np.bincount(answer.ids.ravel()).argmax())]

    def columns(self, spec):
        return {self.key("ids"): Column(SIZE, "uint8", stream=True)}

    def pack(self, answer):
        return {self.key("ids"): answer.ids}

    def unpack(self, row, spec, material):
        return Segments(row[self.key("ids")])

    def topics(self, spec):
        column = self.key("ids")
        return (
            Topic(
                self.topic("toy_mask"),
                IMAGE,
                "a class id a pixel",
                _writer,
                lambda: ImageReader(column, "uint8"),
            ),
        )


def _writer(make):
    new = make(IMAGE)

    def write(shot, answer, options):
        message = new()
        set_header(message.header, shot)
        set_pixels(message, answer.ids, "mono8")
        return message

    return write


NONE = 255
SEGMENTATION = Section(
    "toy_segmentation",
    "Segments",
    metrics=(Metric("accuracy", "Pixel accuracy", "%"),),
    parts=(
        Part(
            lambda rows: rows["toy_pixels"] > 0,
            lambda rows, mask: {
                "accuracy": lambda weights: (
                    weights
                    @ rows["toy_hit"][mask].sum(axis=1)
                    / (weights @ rows["toy_pixels"][mask])
                )
            },
        ),
    ),
    headline="pixel accuracy {accuracy}",
    galleries=(
        Gallery(
            "Worst frames", lambda rows: [Shown(_worst(rows), ("most pixels wrong",))], drawn=True
        ),
    ),
)


def _worst(rows):
    return int(np.argmin(rows["toy_hit"].sum(axis=1) / np.maximum(rows["toy_pixels"], 1)))


class SegmentsJudge(Judge):
    """By pixels: how many of each class are hit."""

    truth, needs = frozenset({"image:toy_segments"}), ("ids",)

    def facts(self, spec):
        return {"labels": list(spec.labels)}

    def rows(self, facts):
        names = tuple(facts.get("labels", ()))
        return {
            "toy_hit": RowColumn(
                "<i8", len(names), "pixels of each class that are said", names=names
            ),
            "toy_pixels": RowColumn("<i8", 1, "pixels with a true class"),
        }

    def score(self, frames, facts):
        rows = {w: c.empty(len(frames.stamps_ns)) for w, c in self.rows(facts).items()}
        for i, said, true in frames.pairs("ids", "image:toy_segments", NONE):
            right = true[(said == true) & (true != NONE)]
            rows["toy_hit"][i] = np.bincount(right, minlength=len(facts["labels"]))
            rows["toy_pixels"][i] = (true != NONE).sum()
        return rows

    def sections(self):
        return (SEGMENTATION,)


@dataclass(frozen=True)
class DenseSpec:
    KIND = "toy_dense"


@dataclass(frozen=True)
class Dense(Answer):
    z_m: np.ndarray  # the red channel in decimetres
    ids: np.ndarray  # 1 where a pixel is bright


@dataclass(frozen=True)
class DenseOptions:
    toy_points: bool = parameter(True, "Publish points.", change=LIVE)
    toy_far_m: float = parameter(20.0, "Furthest point, in metres.", low=0, high=1e3, change=LIVE)
    toy_step: int = parameter(1, "Every so many rows and columns.", low=1, high=64, change=LIVE)


class DenseHead(Head[DenseSpec, Dense]):
    kind = answer_key = "toy_dense"
    Spec, Answer, Options = DenseSpec, Dense, DenseOptions
    needs = frozenset({"camera_info"})

    def outputs(self, spec, several):
        return {self.key("z"): Output(SIZE), self.key("ids"): Output(SIZE, "uint8", "share")}

    def decoder(self, spec, several, material):
        z, ids = self.key("z"), self.key("ids")
        return lambda arrays: list(map(Dense, arrays[z], arrays[ids]))

    def topics(self, spec):
        def cloud(answer, options):
            return Cloud(answer.z_m, {"id": answer.ids}, options.toy_far_m, options.toy_step)

        def reader(word, dtype):
            return lambda: ImageReader(self.key(word), dtype)

        name = self.topic("dense")
        return (
            image_topic(
                f"{name}/z", "32FC1", "distance", lambda a, o: a.z_m, reader("z", "float32")
            ),
            image_topic(
                f"{name}/mask", "mono8", "classes", lambda a, o: a.ids, reader("ids", "uint8")
            ),
            camera_info_topic(f"{name}/camera_info", "calibration", lambda a, o: a.z_m.shape),
            cloud_topic(f"{name}/points", "points", cloud, lambda o: o.toy_points),
        )

    def draw(self, canvas, answer, spec, options):
        canvas.overlay(PALETTE[answer.ids])

    def json(self, answer, spec, options, attach):
        return None if attach is None else {"npy": attach.array(self.key("z"), answer.z_m)}

    def cell(self, answer, spec, options):
        return f"{np.median(answer.z_m):.1f} m"

    def columns(self, spec):
        return {
            self.key("z"): Column(SIZE, "float32", stream=True),
            self.key("ids"): Column(SIZE, "uint8", stream=True),
        }

    def pack(self, answer):
        return {self.key("z"): answer.z_m, self.key("ids"): answer.ids}

    def unpack(self, row, spec, material):
        return Dense(row[self.key("z")], row[self.key("ids")])


STEERING, SEGMENTS, DENSE = SteeringHead(), SegmentsHead(), DenseHead()


def install(folder: Path, **heads: str) -> None:
    """Makes a package of heads known to every Python that has the folder in its path."""
    info = folder / "toys-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    lines = "".join(f"{kind} = toy_heads:{name}\n" for kind, name in heads.items())
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")


def graph(spec) -> bytes:
    """Returns a graph with all outputs of a spec of toy heads and classifiers.

    angle: the mean red; collision: the mean green; ids: 1 where a pixel is bright; probabilities: softmax of
    20 x the mean colour, for a named head of the mean colour's reverse.
    """
    nodes, constants = [], {}

    def const(name, value, dtype=np.float32):
        constants[name] = np.asarray(value, dtype)
        return name

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    node("Cast", ["images"], "float", to=TensorProto.FLOAT)
    node("ReduceMean", ["float"], "mean", axes=[1, 2], keepdims=0)
    node("Div", ["mean", const("c255", 255.0)], "colour")
    node("ReduceMean", ["float"], "grey", axes=[3], keepdims=0)
    for head, own in spec.bound:
        if head.kind == "toy_steering":
            for word, i in (("angle", 0), ("collision", 1)):
                index = const(f"i{head.key(word)}", i, np.int64)
                node("Gather", ["colour", index], head.key(word), axis=1)
        elif head.kind == "toy_dense":
            index = const(f"i{head.name}", 0, np.int64)
            node("Gather", ["float", index], f"red{head.name}", axis=3)
            node("Div", [f"red{head.name}", const(f"ten{head.name}", 10.0)], head.key("z"))
            node("Greater", ["grey", const(f"half{head.name}", 127.0)], f"bright{head.name}")
            node("Cast", [f"bright{head.name}"], head.key("ids"), to=TensorProto.UINT8)
        elif head.kind == "toy_segments":
            node("Greater", ["grey", const(f"half{head.name}", 127.0)], f"bright{head.name}")
            node("Cast", [f"bright{head.name}"], head.key("ids"), to=TensorProto.UINT8)
        else:
            weights = 20 * np.eye(3, len(own.labels))
            weights = weights if head.name == head.kind else weights[::-1]
            p = head.key("probabilities")
            node("MatMul", ["colour", const(f"w{head.name}", weights)], f"logits{head.name}")
            node("Softmax", [f"logits{head.name}"], p, axis=1)
            node("ReduceMax", [p], head.key("known_score"), axes=[1], keepdims=0)
    outputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(o.dtype)), ["N", *o.shape]
        )
        for name, o in spec.outputs.items()
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *SIZE, 3])
    values = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    made = helper.make_graph(nodes, "toy", [images], outputs, values)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
