"""A graph whose values can be looked at, part by part."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Batches = Sequence[NDArray[Any]]


class Graph:
    """A model, its constants and what makes its values.

    Args:
        model: changed by `store`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = model.graph.node
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.made_by = {name: node for node in self.nodes for name in node.output}

    def constant(self, name: str) -> NDArray[Any]:
        """Returns a stored constant."""
        return np.asarray(numpy_helper.to_array(self.stored[name]))

    def store(self, name: str, value: NDArray[Any]) -> None:
        """Changes a stored constant."""
        self.stored[name].CopyFrom(numpy_helper.from_array(value, name))

    def dequantised(self, name: str) -> onnx.NodeProto | None:
        """Returns the DequantizeLinear that makes a value, if one does."""
        node = self.made_by.get(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def quantised_of(self, name: str) -> str:
        """Returns the integers that a value is made of; itself where it is not."""
        node = self.dequantised(name)
        return name if node is None else str(node.input[0])

    def reached(self, name: str, known: Collection[str]) -> set[str]:
        """Returns which of the known values a value is made of."""
        if name in known:
            return {name}
        _, names = self._leading_to([name], known)
        return names.intersection(known)

    def _leading_to(
        self, outputs: Sequence[str], known: Collection[str]
    ) -> tuple[list[onnx.NodeProto], set[str]]:
        """Returns nodes that make values of known ones, and all that they read or make."""
        wanted, seen, nodes = set(outputs), set(outputs), []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output) and not set(node.output) <= set(known):
                wanted.update(name for name in node.input if name not in known)
                seen.update(node.input)
                nodes.append(node)
        return nodes[::-1], seen

    def values(
        self, outputs: Sequence[str], fed: Mapping[str, Batches]
    ) -> Iterator[list[NDArray[Any]]]:
        """Yields values of each batch, computed from those that are fed as if all were floats."""
        import onnxruntime

        nodes, seen = self._leading_to(outputs, fed)
        inputs = [name for name in fed if name in seen]
        info = onnx.helper.make_tensor_value_info
        kinds = [onnx.helper.np_dtype_to_tensor_dtype(fed[name][0].dtype) for name in inputs]
        part = onnx.ModelProto()
        part.CopyFrom(self.model)
        for field in ("node", "input", "output", "initializer", "value_info"):
            part.graph.ClearField(field)  # ONNX Runtime would warn of what is not needed
        part.graph.node.extend(nodes)
        part.graph.initializer.extend(t for name, t in self.stored.items() if name in seen)
        part.graph.input.extend(
            info(name, kind, [None] * fed[name][0].ndim)
            for name, kind in zip(inputs, kinds, strict=True)
        )
        part.graph.output.extend(info(name, self._kind(name), None) for name in outputs)
        options = onnxruntime.SessionOptions()
        # In floats: whatever this CPU's integers can hold, a program may be for another one.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = onnxruntime.InferenceSession(
            part.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for batches in zip(*(fed[name] for name in inputs), strict=True):
            yield session.run(list(outputs), dict(zip(inputs, batches, strict=True)))

    def _kind(self, name: str) -> int:
        node = self.made_by[name]
        if node.op_type != "QuantizeLinear":
            return int(onnx.TensorProto.FLOAT)
        return int(self.stored[node.input[2]].data_type)

    def means(
        self, outputs: Sequence[str], fed: Mapping[str, Batches]
    ) -> list[NDArray[np.float64]]:
        """Returns the mean of each channel of values (N, C, h, w), over all images and pixels."""
        sums: list[Any] = [0.0] * len(outputs)
        count = 0
        for found in self.values(outputs, fed):
            count += len(found[0])
            for i, value in enumerate(found):
                sums[i] = sums[i] + value.mean(axis=(2, 3), dtype=np.float64).sum(axis=0)
        return [total / count for total in sums]
