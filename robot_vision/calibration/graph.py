"""Edits of a bundle's ONNX graph: temperature, covariance scale, known score, further outputs.

The edits work on the graph as it stands, by what feeds its outputs, and not on the network that it came from.
What they change has a name: the initialisers `calibration.temperature` and `calibration.covariance_scale`.
Only this module and who calls it need the package `onnx`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import BundleError, ConfigError
from robot_vision.spec import FEATURE_SCORES

if TYPE_CHECKING:
    import onnx

TEMPERATURE = "calibration.temperature"
COVARIANCE_SCALE = "calibration.covariance_scale"
LOGITS = "logits"
FEATURES = "features"
_LOG_VARIANCE_BIAS = "heads.pose.log_variance.bias"
_SMALLEST = float(np.finfo(np.float32).tiny)
# Through these a value passes unchanged.
_TRANSPARENT = ("Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear")


class GraphEditor:
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
        self._prune()
        try:
            self._onnx.checker.check_model(self._model)
        except self._onnx.checker.ValidationError as error:
            raise BundleError(
                f"{self._name} cannot be changed: {str(error).splitlines()[0]}"
            ) from error
        return bytes(self._model.SerializeToString(deterministic=True))

    # Temperature

    def logits(self) -> str:
        """Returns the name of the logits before their temperature.

        A graph whose probabilities come of no softmax (a mean over several answers) has none: then it is
        their logarithm, and a temperature makes of p what is proportional to p^(1/T).
        """
        return self._temperature_parts()[0]

    def temperature(self) -> float:
        """Returns the temperature that the graph has; 1 where it has no room for one."""
        divisor = self._temperature_parts()[1]
        return 1.0 if divisor is None else float(self._constant(divisor))  # type: ignore[arg-type]

    def set_temperature(self, temperature: float) -> None:
        """Makes `probabilities` the softmax of logits over `temperature`; makes room where there is none."""
        logits, divisor, softmax = self._temperature_parts()
        self._put(TEMPERATURE, np.array(temperature, np.float32))
        if divisor is not None:
            for node in self._graph.node:
                if node.op_type in ("Div", "Mul") and divisor in node.input:
                    node.input[list(node.input).index(divisor)] = TEMPERATURE
            return
        scaled = self._add("Div", [logits, TEMPERATURE], "calibration.scaled_logits")
        if softmax is not None:
            softmax.input[0] = scaled
        else:
            self._free_output("probabilities")
            self._add("Softmax", [scaled], "probabilities", axis=1)
        self._sort()

    def _temperature_parts(self) -> tuple[str, str | None, Any]:
        """Returns logits, the constant by which they are divided (or None), and the softmax (or None)."""
        producers = self._producers()
        softmax = producers.get(self._behind("probabilities", producers))
        if softmax is None or softmax.op_type != "Softmax":
            return self._log_probabilities(), None, None
        # A cast between division and softmax would be a graph of another precision: then there is no room.
        division = producers.get(softmax.input[0])
        if division is not None and division.op_type == "Div":
            value = self._constant(division.input[1])
            if value is not None and value.size == 1 and float(value) > 0:
                return division.input[0], division.input[1], softmax
        return softmax.input[0], None, softmax

    def _log_probabilities(self) -> str:
        name = "calibration.log_probabilities"
        if name not in self._producers():
            self._put("calibration.smallest", np.array(_SMALLEST, np.float32))
            kept = self._add("Max", ["probabilities", "calibration.smallest"], "calibration.kept")
            self._add("Log", [kept], name)
        return name

    # Known score

    def set_score(self, score: str) -> None:
        """Makes `known_score` this score; for a score of features, `features` takes its place."""
        if score in FEATURE_SCORES:
            self.expose(FEATURES)
            self._drop_output("known_score")
            self._prune()
            return
        self._drop_output(FEATURES)
        self._drop_output("known_score")
        self._free_output("known_score")
        self._prune()
        logits = self.logits()
        self._ensure_output("known_score", ("N",))
        if score == "max_probability":
            self._reduce("ReduceMax", "probabilities", "known_score")
        elif score == "max_logit":
            self._reduce("ReduceMax", logits, "known_score")
        elif score == "energy":
            self._energy(logits)
        else:
            raise AssertionError(score)
        self._sort()

    def _energy(self, logits: str) -> None:
        # Written out: OpenVINO 2026.4 reads ONNX's ReduceLogSumExp as one over all axes.
        temperature = self.temperature()
        self._put("calibration.energy_temperature", np.array(temperature, np.float32))
        scaled = self._add("Div", [logits, "calibration.energy_temperature"], "energy.scaled")
        largest = self._reduce("ReduceMax", scaled, "energy.largest")
        self._put("energy.axis", np.array([1], np.int64))
        column = self._add("Unsqueeze", [largest, "energy.axis"], "energy.column")
        shifted = self._add("Sub", [scaled, column], "energy.shifted")
        powers = self._add("Exp", [shifted], "energy.powers")
        total = self._add("ReduceSum", [powers, "energy.axis"], "energy.total", keepdims=0)
        logarithm = self._add("Log", [total], "energy.log")
        value = self._add("Add", [largest, logarithm], "energy.logsumexp")
        self._add("Mul", [value, "calibration.energy_temperature"], "known_score")

    def expose(self, what: str) -> None:
        """Adds an inner value to the outputs.

        `logits` (N, K) are those before the temperature, `features` (N, C) what the classifier's last layer
        works on.

        Raises:
            BundleError: the graph has no last layer that can be found.
        """
        if what in self._outputs():
            return
        inner = self.logits() if what == LOGITS else self._classifier_input()
        self._ensure_output(what, ("N", None))
        if inner == what:
            return
        self._free_output(what)  # of a value that happens to have this name
        self._add("Identity" if self._is_float(inner) else "Cast", [inner], what)
        self._sort()

    def _classifier_input(self) -> str:
        producers = self._producers()
        name = self.logits()
        for _ in range(8):
            node = producers.get(self._behind(name, producers))
            if node is None:
                break
            if node.op_type in ("Gemm", "MatMul"):
                return str(node.input[0])
            if node.op_type not in ("Add", "Div", "Mul", "Log", "Max"):
                break
            name = next((i for i in node.input if self._constant(i) is None), "")
        raise BundleError(
            f"{self._name}: the layer that its probabilities come of cannot be found, so there are no "
            "features to compare: use a score of logits (max_probability, max_logit, energy)"
        )

    # Pose

    def scale_covariance(self, scale: NDArray[np.float64]) -> None:
        """Multiplies the variances of x y z and the rotation about X Y Z by `scale` (6,).

        The correlations stay: entry (i, j) is multiplied by sqrt(scale_i scale_j), which is right for a
        diagonal matrix and for a full one.
        """
        if self._shift_log_variance(np.log(scale)):
            return
        root = np.sqrt(np.asarray(scale, np.float64))
        factor = np.outer(root, root)
        before = self._constant(COVARIANCE_SCALE)
        if before is not None:
            self._put(COVARIANCE_SCALE, (before * factor).astype(np.float32))
            return
        self._put(COVARIANCE_SCALE, factor.astype(np.float32))
        inner = self._free_output("pose_covariance")
        self._add("Mul", [inner, COVARIANCE_SCALE], "pose_covariance")
        self._sort()

    def _shift_log_variance(self, shift: NDArray[np.float64]) -> bool:
        """Adds to the bias of the layer that gives log variances, as training does; says if it could.

        Then the bounds of the head hold for what comes out. A graph of another precision has no such bias,
        and one that averages several answers scales their sum.
        """
        names = [t.name for t in self._graph.initializer if t.name.endswith(_LOG_VARIANCE_BIAS)]
        if len(names) != 1 or "pose_spread" in self._outputs():
            return False
        readers = [n for n in self._graph.node if names[0] in n.input]
        bias = self._constant(names[0])
        if bias is None or bias.shape != (6,) or bias.dtype != np.float32:
            return False
        if len(readers) != 1 or readers[0].op_type != "Gemm":
            return False
        self._put(names[0], (bias + shift).astype(np.float32))
        return True

    # The graph's parts

    def _outputs(self) -> list[str]:
        return [output.name for output in self._graph.output]

    def _producers(self) -> dict[str, Any]:
        return {output: node for node in self._graph.node for output in node.output}

    def _behind(self, name: str, producers: dict[str, Any]) -> str:
        """Returns where a value comes from, behind nodes that do not change it."""
        while name in producers and producers[name].op_type in _TRANSPARENT:
            name = producers[name].input[0]
        return name

    def _constant(self, name: str) -> NDArray[Any] | None:
        for tensor in self._graph.initializer:
            if tensor.name == name:
                return np.asarray(self._onnx.numpy_helper.to_array(tensor))
        node = self._producers().get(name)
        if node is not None and node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    return np.asarray(self._onnx.numpy_helper.to_array(attribute.t))
        return None

    def _is_float(self, name: str) -> bool:
        """Whether a value is float32 as far as is known: casts to anything else come before it."""
        node = self._producers().get(name)
        return node is None or node.op_type != "Cast" or node.attribute[0].i == 1

    def _put(self, name: str, value: NDArray[Any]) -> None:
        """Adds or replaces an initialiser."""
        for tensor in list(self._graph.initializer):
            if tensor.name == name:
                self._graph.initializer.remove(tensor)
        self._graph.initializer.append(self._onnx.numpy_helper.from_array(value, name))

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        if kind == "Cast":
            attributes["to"] = self._onnx.TensorProto.FLOAT
        node = self._onnx.helper.make_node(kind, inputs, [output], output, **attributes)
        self._graph.node.append(node)
        return output

    def _reduce(self, kind: str, name: str, output: str) -> str:
        """Adds a reduction over axis 1; its axes are an input since operator set 18."""
        if self._opset < 18:
            return self._add(kind, [name], output, axes=[1], keepdims=0)
        self._put("calibration.axis", np.array([1], np.int64))
        return self._add(kind, [name, "calibration.axis"], output, keepdims=0)

    def _free_output(self, name: str) -> str:
        """Renames what an output is now, so that something else can take its name; returns the new name.

        Only the output itself goes over to what is added: whoever read the value reads it still.
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

    def _drop_output(self, name: str) -> None:
        for output in list(self._graph.output):
            if output.name == name:
                self._graph.output.remove(output)

    def _ensure_output(self, name: str, shape: tuple[Any, ...]) -> None:
        if name not in self._outputs():
            kind = self._onnx.TensorProto.FLOAT
            self._graph.output.append(self._onnx.helper.make_tensor_value_info(name, kind, shape))

    def set_width(self, name: str, width: int) -> None:
        """Writes how many numbers an output has for an image."""
        for output in self._graph.output:
            if output.name == name:
                output.type.tensor_type.shape.dim[1].dim_value = width

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
        stack = self._outputs()
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
