"""Weights in other files are found wherever onnx allows a tensor, judged against the onnx package."""

import time

import numpy as np
import pytest
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.onnx_wire import has_external_data

onnx = pytest.importorskip("onnx", reason="writes the graphs")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def tensor(name, external):
    made = numpy_helper.from_array(np.arange(6, dtype=np.float32), name)
    if external:
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
        entry = made.external_data.add()
        entry.key, entry.value = "location", "../secret"
    return made


def model(nodes=(), initializers=(), sparse=(), **more):
    graph = helper.make_graph(list(nodes), "g", [], [], list(initializers))
    graph.sparse_initializer.extend(sparse)
    return helper.make_model(graph, **more)


def constant(external):
    return helper.make_node("Constant", [], ["c"], value=tensor("c", external))


def initializer(external):
    return model(initializers=[tensor("a", False), tensor("w", external)])


def attribute(external):
    return model([constant(external)])


def attribute_list(external):
    node = helper.make_node("Many", [], ["m"], domain="d")
    node.attribute.append(helper.make_attribute("t", [tensor("x", False), tensor("y", external)]))
    return model([node])


def subgraph(external):
    inner = helper.make_graph([constant(external)], "inner", [], [])
    return model([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)])


def sparse(external):
    values = tensor("values", external)
    indices = numpy_helper.from_array(np.arange(6), "indices")
    return model(sparse=[helper.make_sparse_tensor(values, indices, [9])])


def function(external):
    made = helper.make_function(
        "d", "F", [], ["c"], [constant(external)], [helper.make_opsetid("", 17)]
    )
    return model(functions=[made])


def training(external):
    made = model()
    info = made.training_info.add()
    info.algorithm.CopyFrom(initializer(external).graph)
    return made


PLACES = [initializer, attribute, attribute_list, subgraph, sparse, function, training]


@pytest.mark.parametrize("place", PLACES, ids=lambda f: f.__name__)
def test_external_data_is_found_wherever_a_tensor_may_be(place):
    assert has_external_data(place(True).SerializeToString())
    assert not has_external_data(place(False).SerializeToString())


def test_location_alone_and_entries_alone_count():
    for field in ("data_location", "external_data"):
        made = initializer(True)
        made.graph.initializer[1].ClearField(field)
        assert has_external_data(made.SerializeToString())


def test_bundles_have_all_their_weights_inside(tmp_path):
    graph = (make_tiny_bundle(tmp_path / "b") / "model.onnx").read_bytes()
    assert not has_external_data(graph)
    weights = numpy_helper.from_array(np.zeros((30_000_000,), np.uint8), "w")
    large = model([constant(False)] * 2000, [weights]).SerializeToString()
    start = time.process_time()
    assert not has_external_data(large)
    assert (
        time.process_time() - start < 1.0
    )  # it skips what it need not read: 0.01 s, 30 MB read 10 s


@pytest.mark.parametrize(
    "data",
    [b"\x3a\xff", b"\x3a\x05ab", b"\x3b", b"\x3f", b"\xff" * 20, b"\x3a"],
    ids=["cut number", "cut field", "group", "wire 7", "endless number", "no length"],
)
def test_what_is_no_message_is_refused(data):
    with pytest.raises(ValueError):
        has_external_data(data)


def test_endless_nesting_is_refused():
    def field(number, content):
        size, length = len(content), b""
        while size >= 0x80:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    graph = b""
    for _ in range(40):  # deeper than the onnx package can write
        graph = field(1, field(5, field(6, graph)))  # a node's attribute that is a graph
    with pytest.raises(ValueError, match="deeper"):
        has_external_data(field(7, graph))


def test_a_message_that_is_cut_anywhere_raises_nothing_else():
    data = subgraph(False).SerializeToString()
    for end in range(len(data)):
        try:
            assert not has_external_data(data[:end])
        except ValueError:
            pass
