"""A tiny bundle with programs: graphs that differ in how long they take, and in what they say.

float32 takes some milliseconds, and each program as many layers as it is given; a program's positions are
moved by its number in metres, so that a test sees which one ran.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.bundle import GRAPH, ModelBundle, write_manifest
from robot_vision.bundle.programs import Certificate, Program
from robot_vision.engines.machine import instructions

SLOW = 6  # layers of float32
_WIDTH = 192
HEADS = ("classifier", "pose", "place")


def certificate(
    engine: str, here: str = "", passed: bool = True, device: str = "cpu"
) -> Certificate:
    """Returns a certificate for this machine, or for the instruction set `here`."""
    return Certificate(
        engine=engine,
        engine_version="1",
        device=device,
        instructions=here or instructions(),
        images={"count": 400, "sha256": "ab"},
        versions={},
        heads={
            name: {"passed": passed, "text": f"{name} agrees on 0.998"}
            if name == "classifier"
            else {"passed": passed}
            for name in HEADS
        },
        passed=passed,
    )


def make_program_bundle(
    path: Path,
    programs: Mapping[str, int],
    certificates: Mapping[str, Sequence[Certificate]] | None = None,
    slow: int = SLOW,
) -> Path:
    """Writes a bundle into the directory `path` and returns it.

    Args:
        path: of the bundle; made if absent.
        programs: name to how many layers it takes; -1 makes a graph that no engine runs.
        certificates: of each program; by default ONNX Runtime's and OpenVINO's for this machine.
        slow: layers of float32.
    """
    make_tiny_bundle(path)
    tiny = onnx.load(path / GRAPH)
    spec = ModelBundle.load(path).spec
    onnx.save(_with_layers(tiny, slow, 0), path / GRAPH)
    entries = []
    for number, (name, layers) in enumerate(programs.items(), 1):
        graph = f"model.{name}.onnx"
        onnx.save(_with_layers(tiny, layers, number), path / graph)
        given = (certificates or {}).get(name, [certificate("onnx"), certificate("openvino")])
        own = {"classifier": {"temperature": 1.0 + number}}
        entries.append(Program(name, graph, heads=own, certificates=tuple(given)))
    write_manifest(path, "tiny", spec, {}, {}, programs=entries)
    return path


def _with_layers(tiny: onnx.ModelProto, layers: int, offset: int) -> onnx.ModelProto:
    """Returns the graph with matrix products whose result counts for next to nothing."""
    model = onnx.ModelProto()
    model.CopyFrom(tiny)
    rng = np.random.default_rng(0)
    graph = model.graph
    names = ["float"]
    nodes, constants = [], {"offset": np.full(3, offset, np.float32)}
    for number in range(max(layers, 0)):
        size = (3 if number == 0 else _WIDTH, _WIDTH)
        constants[f"w{number}"] = rng.normal(0, size[0] ** -0.5, size).astype(np.float32)
        nodes.append(helper.make_node("MatMul", [names[-1], f"w{number}"], [f"x{number}"]))
        names.append(f"x{number}")
    total = "offset"
    if layers:
        kind = "ReduceMean" if layers > 0 else "Nonsense"
        constants["tiny"] = np.array(1e-12, np.float32)
        how = {"axes": [1, 2, 3], "keepdims": 0} if layers > 0 else {}
        nodes += [
            helper.make_node(kind, [names[-1]], ["most"], **how),
            helper.make_node("Mul", ["most", "tiny"], ["little"]),
            helper.make_node("Unsqueeze", ["little", "last"], ["column"]),
            helper.make_node("Add", ["column", "offset"], ["total"]),
        ]
        constants["last"] = np.array([1])
        total = "total"
    for node in graph.node:
        if node.output[0] == "position":
            node.op_type = "Add"
            node.input.append(total)
    old = list(graph.node)
    del graph.node[:]
    graph.node.extend([old[0], *nodes, *old[1:]])
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    return model
