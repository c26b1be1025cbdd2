"""What every head promises, asked of all that are installed; see robot_vision/contract/check.py."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from robot_vision.contract import check, registry
from robot_vision.contract.check import *  # noqa: F403
from robot_vision.contract.prediction import Prediction
from robot_vision.evaluation.measure.metrics import score_recording
from robot_vision.evaluation.merge import document, merge
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.truth.tracks import Truth

for slow in (
    check.test_graph_gives_outputs_of_the_promised_types_and_shapes,
    check.test_every_constant_is_in_the_graph_by_name_and_moves_its_own_head_alone,
    check.test_graph_gives_what_fitters_need_as_the_module_computes_it,
    check.test_settings_of_training_load_no_torch,
):
    pytest.mark.slow(slow)


def test_two_classifiers_are_judged_by_labels_of_their_own():
    room, lights = (registry.head("classifier").named(n) for n in ("classifier", "lights"))
    settings = {
        room: ClassifierSpec(("kitchen", "hall")),
        lights: ClassifierSpec(("red", "green", "off")),
    }
    stamps = (np.arange(40) * 1e8).astype(np.int64)
    labels = {
        head: [spec.labels[i // 5 % len(spec.labels)] for i in range(40)]
        for head, spec in settings.items()
    }
    right = {room: 40, lights: 30}  # the last ten are wrong
    predictions = []
    for i in range(40):
        answers_ = {}
        for head, spec in settings.items():
            index = spec.labels.index(labels[head][i]) + (i >= right[head])
            p = np.full(len(spec.labels), 0.1 / (len(spec.labels) - 1), np.float32)
            p[index % len(p)] = 0.9
            answers_[head.name] = head.Answer(spec.labels, p, 1.0)
        predictions.append(Prediction(answers_))
    found = Predictions.of(stamps, predictions, "drive", bound=list(settings.items()))
    truth = replace(
        Truth.of_arrays(stamps, labels[room]),
        others={"lights": Truth.of_arrays(stamps, labels[lights]).labels},
    )
    metrics = document(
        score_recording(found, truth, check.QUICK, bound=list(settings.items())), check.QUICK
    )
    assert metrics["heads"] == ["classifier", "lights"]
    assert metrics["classification"]["top1"]["value"] == 1.0
    assert metrics["lights.classification"]["top1"]["value"] == 0.75
    assert metrics["lights.classification"]["labels"] == ["red", "green", "off"]
    assert metrics["association"]["label:lights"]["found"] == 40
    merged = merge([json.loads(json.dumps(metrics))])
    assert merged["lights.classification"] == metrics["lights.classification"]
