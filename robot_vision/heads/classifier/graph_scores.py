"""The known score as a part of a graph that is there already."""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_vision.contract.head import Head
from robot_vision.heads.classifier.spec import FEATURE_SCORES


def put_score(graph: Any, head: Head[Any, Any], score: str, width: int = 0) -> None:
    """Makes `known_score` of a `bundle.onnx_graph` this score.

    For one of features, `features` (N, width) takes its place.
    """
    known, features = head.key("known_score"), head.key("features")
    if score in FEATURE_SCORES:
        graph.expose(features, head.name, "features", width)
        graph.drop_output(known)
        return
    graph.drop_output(features)
    graph.drop_output(known)
    # To float32, which they are not in a graph of another precision.
    logits = graph.add("Cast", [graph.value(head.name, "logits")], head.key("score.logits"))
    graph.add_output(known, ())
    if score == "max_probability":
        graph.reduce("ReduceMax", head.key("probabilities"), known)
    elif score == "max_logit":
        graph.reduce("ReduceMax", logits, known)
    elif score == "energy":
        _energy(graph, head, logits, known)
    else:
        raise AssertionError(score)


def _energy(graph: Any, head: Head[Any, Any], logits: str, known: str) -> None:
    # Written out: OpenVINO 2026.4 reads ONNX's ReduceLogSumExp as one over all axes.
    def name(word: str) -> str:
        return head.key(f"energy.{word}")

    temperature = graph.constant_of(head.name, "temperature")
    scaled = graph.add("Div", [logits, temperature], name("scaled"))
    largest = graph.reduce("ReduceMax", scaled, name("largest"))
    axis = graph.put(name("axis"), np.array([1], np.int64))
    column = graph.add("Unsqueeze", [largest, axis], name("column"))
    powers = graph.add("Exp", [graph.add("Sub", [scaled, column], name("shifted"))], name("powers"))
    total = graph.add("ReduceSum", [powers, axis], name("total"), keepdims=0)
    logarithm = graph.add("Log", [total], name("log"))
    value = graph.add("Add", [largest, logarithm], name("logsumexp"))
    graph.add("Mul", [value, temperature], known)
