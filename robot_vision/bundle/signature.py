"""What a graph takes and gives: read from the ONNX file and compared with a bundle's promise."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from robot_vision.bundle.onnx_wire import has_external_data
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import BundleError, EngineError

INPUT_NAME = "images"
INPUT_TYPE = "tensor(uint8)"
_TYPES = {
    "float32": "float",
    "float16": "float16",
}  # ONNX Runtime's names, where they are not NumPy's

Shape = tuple["int | None", ...]  # None is a dynamic axis


@dataclass(frozen=True)
class GraphSignature:
    """Names, types (as ONNX Runtime writes them) and shapes of a graph's inputs and outputs."""

    inputs: Mapping[str, tuple[str, Shape]]
    outputs: Mapping[str, tuple[str, Shape]]

    @classmethod
    def of(cls, spec: NetworkSpec) -> GraphSignature:
        """Returns the signature that a bundle with this spec must have."""
        shape = (None, spec.input.height, spec.input.width, 3)
        outputs = {
            name: (f"tensor({_TYPES.get(o.dtype, o.dtype)})", (None, *o.shape))
            for name, o in spec.outputs.items()
        }
        return cls({INPUT_NAME: (INPUT_TYPE, shape)}, outputs)

    def difference(self, expected: GraphSignature) -> str:
        """Returns in words the first difference to what is expected, or an empty string."""
        for what, mine, theirs in (
            ("input", self.inputs, expected.inputs),
            ("output", self.outputs, expected.outputs),
        ):
            for name in theirs:
                if name not in mine:
                    return f"{what} {name!r} is missing (it has {', '.join(mine) or 'none'})"
                if mine[name] != theirs[name]:
                    return f"{what} {name!r} is {_words(*mine[name])} and should be {_words(*theirs[name])}"
            extra = [name for name in mine if name not in theirs]
            if extra:
                return f"{what} {extra[0]!r} is not in the bundle's heads"
        return ""


def _words(kind: str, shape: Shape) -> str:
    return f"{kind} ({', '.join('N' if n is None else str(n) for n in shape)})"


def read_signature(graph: bytes, name: str) -> GraphSignature:
    """Reads the signature of an ONNX graph with ONNX Runtime, unoptimised.

    Args:
        graph: the file's bytes, all of them: weights in other files are refused.
        name: the file's name, for errors.

    Raises:
        BundleError: the bytes are no ONNX graph that ONNX Runtime can load.
        EngineError: this Python does not have ONNX Runtime.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise EngineError(
            f"{error.name} is not installed for {sys.executable}: pip install onnxruntime, or activate the "
            "virtual environment that has it"
        ) from error

    try:
        external = has_external_data(graph)
    except ValueError as error:
        raise BundleError(f"{name} is no ONNX graph that can be loaded: {error}") from error
    if external:
        raise BundleError(
            f"{name} is no ONNX graph that can be loaded: it has weights in other files, which nothing "
            "vouches for; export it with all of them inside"
        )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return GraphSignature(
            {i.name: (i.type, _shape(i.shape)) for i in session.get_inputs()},
            {o.name: (o.type, _shape(o.shape)) for o in session.get_outputs()},
        )
    except Exception as error:  # ONNX Runtime raises a dozen kinds, all derived from Exception
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(f"{name} is no ONNX graph that can be loaded: {first}") from error


def _shape(shape: list[object]) -> Shape:
    return tuple(size if isinstance(size, int) else None for size in shape)
