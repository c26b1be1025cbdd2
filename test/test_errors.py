"""Errors name the value, what is allowed and the nearest right one, in one line."""

import pytest

from robot_vision.cli import main
from robot_vision.errors import unknown


def test_unknown_names_value_nearest_and_allowed():
    assert unknown("head", "classifer", ["classifier", "pose"]) == (
        "Unknown head 'classifer' (did you mean 'classifier'?): use one of classifier, pose"
    )
    assert unknown("head", "xyz", ["classifier", "pose"]).startswith("Unknown head 'xyz': use")


def test_an_expected_error_is_one_line_and_status_2(tmp_path, capsys):
    assert main(["info", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "bundle.yaml" in captured.err


def test_an_unknown_verb_lists_the_verbs(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["infre"])
    assert caught.value.code == 2
    assert "infer" in capsys.readouterr().err
