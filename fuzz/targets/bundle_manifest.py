"""bundle.yaml and labels.txt of a bundle from the internet, whose hashes are right."""

from __future__ import annotations

import functools
import hashlib

import yaml
from onnx import TensorProto, helper

from fuzz import scratch
from robot_vision.bundle.bundle import GRAPH, MANIFEST, ModelBundle
from robot_vision.errors import BundleError
from robot_vision.heads.classifier.head import LABELS

MAX_LEN = 1 << 12
ALLOWED_S = 10.0


@functools.cache
def graph() -> bytes:
    """Returns a graph of two labels without any work in it."""
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 16, 16, 3])
    known = helper.make_tensor_value_info("known_score", TensorProto.FLOAT, ["N"])
    classes = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMax", ["mean"], ["known_score"], axes=[1], keepdims=0),
        helper.make_node("Split", ["mean"], ["probabilities", "rest"], axis=1, split=[2, 1]),
    ]
    made = helper.make_graph(nodes, "tiny", [images], [classes, known])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


def one_input(data: bytes) -> None:
    """The manifest, then a zero byte and the labels; `GRAPHSHA` and `LABELSHA` become their hashes."""
    manifest, _, labels = data.partition(b"\0")
    for word, content in ((b"GRAPHSHA", graph()), (b"LABELSHA", labels)):
        manifest = manifest.replace(word, hashlib.sha256(content).hexdigest().encode())
    scratch.file(f"bundle/{GRAPH}", graph())
    scratch.file(f"bundle/{LABELS}", labels)
    path = scratch.file(f"bundle/{MANIFEST}", manifest)
    try:
        bundle = ModelBundle.load(path.parent)
    except BundleError as error:
        assert len(str(error)) < 20_000, "the message repeats the input many times"
        return
    assert bundle.spec.heads


def seeds() -> list[bytes]:
    """Returns a manifest that loads, and ones that bomb."""
    head = {
        "format_version": 1,
        "name": "tiny",
        "network": {
            "backbone": "resnet18",
            "input": {"height": 16, "width": 16},
            "heads": {"classifier": {"temperature": 1.0}},
        },
        "training": {},
        "metrics": {},
        "files": {GRAPH: "GRAPHSHA", LABELS: "LABELSHA"},
    }
    good = yaml.safe_dump(head, sort_keys=False).encode() + b"\0red\nblue\n"
    laughs = b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nname: *c\nformat_version: 1\n"
    merges = b"a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nc: &c {<<: [*b, *b]}\n"
    return [good, laughs + good, merges, b"!!python/object/apply:os.system [true]", b"[" * 50]
