"""Calibration of graphs from before constants had names, with one head a kind: by what feeds their outputs.

What is changed here has a name: the initialisers `calibration.temperature` and
`calibration.covariance_scale`. It goes with the second format of bundles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.onnx_graph import OnnxGraph, inner_name
from robot_vision.errors import BundleError

TEMPERATURE = "calibration.temperature"
COVARIANCE_SCALE = "calibration.covariance_scale"
_OLD = {"classifier": "temperature", "pose": "covariance_factor"}
_LOG_VARIANCE_BIAS = "heads.pose.log_variance.bias"
_SMALLEST = float(np.finfo(np.float32).tiny)


class GraphEditor(OnnxGraph):
    """A bundle's graph that is being changed, with or without named constants."""

    def value(self, head: str, word: str) -> str:
        """See `OnnxGraph.value`; in an old graph `logits` and `features` are searched for.

        Raises:
            BundleError: the graph does not have it.
        """
        if inner_name(head, word) not in self._producers():
            if (head, word) == ("classifier", "logits"):
                return self.logits()
            if (head, word) == ("classifier", "features"):
                return self._classifier_input()
        return super().value(head, word)

    def is_old(self, head: str) -> bool:
        """Whether the graph has constants of a head without their names."""
        return head in _OLD and not super().constants(head)

    def constants(self, head: str) -> dict[str, NDArray[Any]]:
        """See `OnnxGraph.constants`; in an old graph factors are ones, since they multiply what is there."""
        if not self.is_old(head):
            return super().constants(head)
        values = {"temperature": np.array(1.0), "covariance_factor": np.ones((6, 6))}
        if head == "classifier":
            values["temperature"] = np.array(self.temperature())
        return {_OLD[head]: values[_OLD[head]]}

    def constant_of(self, head: str, word: str) -> str:
        """See `OnnxGraph.constant_of`; an old graph gets a copy under a name."""
        if not self.is_old(head):
            return super().constant_of(head, word)
        value = np.asarray(self.constants(head)[word], np.float32)
        return self.put(f"calibration.energy_{word}", value)

    def set_constant(self, head: str, word: str, value: NDArray[Any]) -> None:
        """See `OnnxGraph.set_constant`."""
        if not self.is_old(head):
            super().set_constant(head, word, value)
        elif word == "temperature":
            self.set_temperature(float(value))
        else:
            self.scale_covariance(np.diagonal(value).astype(np.float64))

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
        value = None if divisor is None else self.constant(divisor)
        return 1.0 if value is None else float(value)

    def set_temperature(self, temperature: float) -> None:
        """Makes `probabilities` the softmax of logits over `temperature`; makes room where there is none."""
        logits, divisor, softmax = self._temperature_parts()
        self.put(TEMPERATURE, np.array(temperature, np.float32))
        if divisor is not None:
            for node in self._graph.node:
                if node.op_type in ("Div", "Mul") and divisor in node.input:
                    node.input[list(node.input).index(divisor)] = TEMPERATURE
            return
        scaled = self.add("Div", [logits, TEMPERATURE], "calibration.scaled_logits")
        if softmax is not None:
            softmax.input[0] = scaled
        else:
            self._free_output("probabilities")
            self.add("Softmax", [scaled], "probabilities", axis=1)

    def _temperature_parts(self) -> tuple[str, str | None, Any]:
        """Returns logits, the constant by which they are divided (or None), and the softmax (or None)."""
        producers = self._producers()
        softmax = producers.get(self._behind("probabilities", producers))
        if softmax is None or softmax.op_type != "Softmax":
            return self._log_probabilities(), None, None
        # A cast between division and softmax would be a graph of another precision: then there is no room.
        division = producers.get(softmax.input[0])
        if division is not None and division.op_type == "Div":
            value = self.constant(division.input[1])
            if value is not None and value.size == 1 and float(value) > 0:
                return division.input[0], division.input[1], softmax
        return softmax.input[0], None, softmax

    def _log_probabilities(self) -> str:
        name = "calibration.log_probabilities"
        if name not in self._producers():
            self.put("calibration.smallest", np.array(_SMALLEST, np.float32))
            kept = self.add("Max", ["probabilities", "calibration.smallest"], "calibration.kept")
            self.add("Log", [kept], name)
        return name

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
            name = next((i for i in node.input if self.constant(i) is None), "")
        raise BundleError(
            f"{self._name}: the layer that its probabilities come from cannot be found, so there are no "
            "features to compare: use a score of logits (max_probability, max_logit, energy)"
        )

    # Pose

    def scale_covariance(self, scale: NDArray[np.float64]) -> None:
        """Multiplies the variances of x y z and the rotation about X Y Z by `scale` (6,).

        The correlations stay: entry (i, j) is multiplied by sqrt(scale_i scale_j), which is right for a
        diagonal matrix and for a full one. The spread of several answers is not multiplied.

        Raises:
            BundleError: an earlier calibration multiplied the spread too.
        """
        if self._shift_log_variance(np.log(scale)):
            return
        root = np.sqrt(np.asarray(scale, np.float64))
        factor = np.outer(root, root)
        before = self.constant(COVARIANCE_SCALE)
        several = "pose_spread" in self._outputs()
        producers = self._producers()
        total = producers.get(self._behind("pose_covariance", producers))
        if several and (total is None or "pose_spread" not in total.input):
            raise BundleError(
                f"{self._name}: its covariances were calibrated together with the spread of several "
                "answers, by an earlier version: calibrate the bundle that it was made from"
            )
        if before is not None:
            self.put(COVARIANCE_SCALE, (before * factor).astype(np.float32))
            return
        self.put(COVARIANCE_SCALE, factor.astype(np.float32))
        if several and total is not None:
            place = 1 - list(total.input).index("pose_spread")
            inside = [str(total.input[place]), COVARIANCE_SCALE]
            total.input[place] = self.add("Mul", inside, "calibration.scaled_covariance")
            return
        inner = self._free_output("pose_covariance")
        self.add("Mul", [inner, COVARIANCE_SCALE], "pose_covariance")

    def _shift_log_variance(self, shift: NDArray[np.float64]) -> bool:
        """Adds to the bias of the layer that gives log variances, as training does; says if it could.

        Then the bounds of the head hold for what comes out. A graph of another precision has no such bias,
        and one that averages several answers scales their sum.
        """
        names = [t.name for t in self._graph.initializer if t.name.endswith(_LOG_VARIANCE_BIAS)]
        if len(names) != 1 or "pose_spread" in self._outputs():
            return False
        readers = [n for n in self._graph.node if names[0] in n.input]
        bias = self.constant(names[0])
        if bias is None or bias.shape != (6,) or bias.dtype != np.float32:
            return False
        if len(readers) != 1 or readers[0].op_type != "Gemm":
            return False
        self.put(names[0], (bias + shift).astype(np.float32))
        return True
