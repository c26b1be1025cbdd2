"""Changes of any ONNX graph: its values, constants and outputs by name, in an order that ONNX takes.

Only this module and who calls it need the package `onnx`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import BundleError, ConfigError

if TYPE_CHECKING:
    import onnx

# Through these a value passes unchanged.
_TRANSPARENT = ("Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear")


_INNER = "raw."


def constant_name(head: str, word: str) -> str:
    """Returns the name of an initialiser that calibration sets."""
    return f"constants.{head}.{word}"


def inner_name(head: str, word: str) -> str:
    """Returns the name of a value that a head's module computes before its answer is decoded."""
    return f"{_INNER}{head}.{word}"


class OnnxGraph:
    """A graph that is being changed.

    Args:
        content: bytes of `model.onnx`.
        name: of the file, for errors.

    Raises:
        ConfigError: the package onnx is not installed.
        BundleError: the bytes are no graph, or one of an operator set before 13.
    """

    def __init__(self, content: bytes, name: str = "model.onnx") -> None:
        try:
            import onnx
        except ImportError as error:
            raise ConfigError(
                "Changing a bundle needs onnx, which is not installed: pip install 'robot_vision[train]'"
            ) from error
        self._onnx = onnx
        self._name = name
        try:
            self._model: onnx.ModelProto = onnx.load_model_from_string(content)
        except Exception as error:  # protobuf's own kinds
            raise BundleError(f"{name} is no ONNX graph: {error}") from error
        self._graph = self._model.graph
        self._opset = next((i.version for i in self._model.opset_import if not i.domain), 0)
        if self._opset < 13:
            raise BundleError(
                f"{name} has ONNX operator set {self._opset}: 13 or newer can be changed; export it again"
            )

    def to_bytes(self) -> bytes:
        """Returns the changed graph, without what nothing uses any more, after checking it."""
        self._sort()
        self._prune()
        try:
            self._onnx.checker.check_model(self._model)
        except self._onnx.checker.ValidationError as error:
            raise BundleError(
                f"{self._name} cannot be changed: {str(error).splitlines()[0]}"
            ) from error
        return bytes(self._model.SerializeToString(deterministic=True))

    @property
    def is_half(self) -> bool:
        """Whether some of it is computed in float16."""
        half = self._onnx.TensorProto.FLOAT16
        return any(tensor.data_type == half for tensor in self._graph.initializer)

    def _outputs(self) -> list[str]:
        return [output.name for output in self._graph.output]

    def _producers(self) -> dict[str, Any]:
        return {output: node for node in self._graph.node for output in node.output}

    def _behind(self, name: str, producers: dict[str, Any]) -> str:
        """Returns where a value comes from, behind nodes that do not change it."""
        while name in producers and producers[name].op_type in _TRANSPARENT:
            name = producers[name].input[0]
        return name

    def value(self, head: str, word: str) -> str:
        """Returns the name of a value that a head's module computes before its answer is decoded.

        Raises:
            BundleError: the graph does not name it.
        """
        name = inner_name(head, word)
        if name not in self._producers():
            raise BundleError(f"{self._name} has no value {name}: export the bundle again")
        return name

    def constants(self, head: str) -> dict[str, NDArray[Any]]:
        """Returns the constants of a head, by their words."""
        start = constant_name(head, "")
        return {
            tensor.name[len(start) :]: self._onnx.numpy_helper.to_array(tensor)
            for tensor in self._graph.initializer
            if tensor.name.startswith(start)
        }

    def constant_of(self, head: str, word: str) -> str:
        """Returns the name of a constant of a head."""
        return constant_name(head, word)

    def set_constant(self, head: str, word: str, value: NDArray[Any]) -> None:
        """Gives a constant of a head another value."""
        before = self.constants(head)[word]
        self.put(constant_name(head, word), value.astype(before.dtype).reshape(before.shape))

    def expose(self, output: str, head: str, word: str, width: int | None = None) -> None:
        """Makes a value that a head's module computes an output, float32.

        Args:
            output: its name; one that is there stays.
            head: whose value.
            word: which value.
            width: numbers for an image; None leaves the shape open.
        """
        if output in self._outputs():
            return
        inner = self.value(head, word)
        if inner != output:
            self._free_output(output)  # of a value that happens to have this name
            self.add("Cast", [inner], output)
        ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in self._graph.value_info}
        shape = ("N", width, *[None] * (ranks.get(inner, 2) - 2))
        kind = self._onnx.TensorProto.FLOAT
        self._graph.output.append(self._onnx.helper.make_tensor_value_info(output, kind, shape))

    def constant(self, name: str) -> NDArray[Any] | None:
        """Returns the value of a name that does not depend on the input; None for another."""
        for tensor in self._graph.initializer:
            if tensor.name == name:
                return np.asarray(self._onnx.numpy_helper.to_array(tensor))
        node = self._producers().get(name)
        if node is not None and node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    return np.asarray(self._onnx.numpy_helper.to_array(attribute.t))
        return None

    def put(self, name: str, value: NDArray[Any]) -> str:
        """Adds or replaces an initialiser; returns its name."""
        for tensor in list(self._graph.initializer):
            if tensor.name == name:
                self._graph.initializer.remove(tensor)
        self._graph.initializer.append(self._onnx.numpy_helper.from_array(value, name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Adds a node; returns its output."""
        if kind == "Cast":
            attributes["to"] = self._onnx.TensorProto.FLOAT
        node = self._onnx.helper.make_node(kind, inputs, [output], output, **attributes)
        self._graph.node.append(node)
        return output

    def reduce(self, kind: str, name: str, output: str) -> str:
        """Adds a reduction over axis 1; its axes are an input since operator set 18."""
        if self._opset < 18:
            return self.add(kind, [name], output, axes=[1], keepdims=0)
        self.put("calibration.axis", np.array([1], np.int64))
        return self.add(kind, [name, "calibration.axis"], output, keepdims=0)

    def _free_output(self, name: str) -> str:
        """Renames what an output is now, so that something else can take its name; returns the new name.

        Only the output itself goes over to what is added: its other readers still read the value.
        """
        inner = f"calibration.before.{name}"
        while inner in self._producers():
            inner += "'"
        for node in self._graph.node:
            for i, value in enumerate(node.output):
                if value == name:
                    node.output[i] = inner
            for i, value in enumerate(node.input):
                if value == name:
                    node.input[i] = inner
        return inner

    def drop_output(self, name: str) -> None:
        """Takes away an output, and what it alone was computed for; its name is free then."""
        for output in list(self._graph.output):
            if output.name == name:
                self._graph.output.remove(output)
        self._free_output(name)
        self._prune()

    def add_output(self, name: str, shape: tuple[int, ...]) -> None:
        """Makes what is added under this name an output."""
        kind = self._onnx.TensorProto.FLOAT
        value = self._onnx.helper.make_tensor_value_info(name, kind, ("N", *shape))
        self._graph.output.append(value)

    def _sort(self) -> None:
        """Puts nodes after what they need, as ONNX asks for; the order is kept where it may be."""
        made = (
            {i.name for i in self._graph.initializer} | {i.name for i in self._graph.input} | {""}
        )
        inside = {o for node in self._graph.node for o in node.output} | made
        waiting, done = list(self._graph.node), []
        while waiting:
            left = []
            for node in waiting:
                if all(name in made or name not in inside for name in _inputs(node)):
                    done.append(node)
                    made.update(node.output)
                else:
                    left.append(node)
            assert len(left) < len(waiting), "a circle"
            waiting = left
        _replace(self._graph.node, done)

    def _prune(self) -> None:
        """Takes away what no output depends on."""
        producers = self._producers()
        needed: set[str] = set()
        stack = self._outputs() + [name for name in producers if name.startswith(_INNER)]
        while stack:
            name = stack.pop()
            if name not in needed:
                needed.add(name)
                stack.extend(_inputs(producers[name]) if name in producers else ())
        used = [n for n in self._graph.node if any(o in needed for o in n.output)]
        _replace(self._graph.node, used)
        _replace(self._graph.initializer, [t for t in self._graph.initializer if t.name in needed])
        _replace(self._graph.value_info, [v for v in self._graph.value_info if v.name in needed])


def _inputs(node: Any) -> list[str]:
    """Returns what a node reads, also in the graphs that it holds (of If and Loop)."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names += _inputs(inner)
    return names


def _replace(field: Any, items: list[Any]) -> None:
    """Puts copies of messages in a repeated field's place: what is deleted from it is not used again."""
    copies = []
    for item in items:
        copy = type(item)()
        copy.CopyFrom(item)
        copies.append(copy)
    del field[:]
    field.extend(copies)
