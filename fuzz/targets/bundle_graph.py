"""model.onnx of a bundle from the internet."""

from __future__ import annotations

from fuzz.targets import bundle_manifest
from robot_vision.bundle.signature import read_signature
from robot_vision.errors import BundleError

MAX_LEN = 1 << 11
ALLOWED_S = 10.0


def one_input(data: bytes) -> None:
    """The whole file."""
    try:
        read_signature(data, "model.onnx")
    except BundleError:
        pass


def seeds() -> list[bytes]:
    """Returns a graph, and one whose weights lie in a file outside of it."""
    from onnx import ModelProto, TensorProto

    outside = ModelProto.FromString(bundle_manifest.graph())
    tensor = outside.graph.initializer.add()
    tensor.name, tensor.data_type = "weights", TensorProto.FLOAT
    tensor.dims.extend([4])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"
    return [bundle_manifest.graph(), bytes(outside.SerializeToString())]
