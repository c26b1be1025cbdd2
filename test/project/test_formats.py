"""The words by which files of this package are known: they stay when modules are renamed."""

from __future__ import annotations

from robot_vision.evaluation.measure import metrics
from robot_vision.evaluation.predict import columns
from robot_vision.studies.stress import run

PACKAGE = "robot_vision"


def test_formats_of_files_have_the_names_that_they_always_had() -> None:
    assert columns.FORMAT == f"{PACKAGE}.predictions/1"
    assert columns.STREAMED == f"{PACKAGE}.predictions/2"
    assert metrics.SCHEMA == f"{PACKAGE}.evaluation"
    assert run.SCHEMA == f"{PACKAGE}.stress"
