"""Edits of a bundle's ONNX graph: temperature, covariance scale, known score, further outputs.

The edits work on the graph itself, by what feeds its outputs, and not on the network that it came from.
What they change has a name: the initialisers `calibration.temperature` and `calibration.covariance_scale`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.onnx_graph import OnnxGraph
from robot_vision.errors import BundleError
from robot_vision.heads.classifier.spec import FEATURE_SCORES

TEMPERATURE = "calibration.temperature"
COVARIANCE_SCALE = "calibration.covariance_scale"
LOGITS = "logits"
FEATURES = "features"
_LOG_VARIANCE_BIAS = "heads.pose.log_variance.bias"
_SMALLEST = float(np.finfo(np.float32).tiny)


class GraphEditor(OnnxGraph):
    """A bundle's graph that is being changed; see `OnnxGraph` for what it takes and raises."""

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
        value = None if divisor is None else self._constant(divisor)
        return 1.0 if value is None else float(value)

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
