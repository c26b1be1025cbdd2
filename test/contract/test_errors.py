"""Errors name the value, what is allowed and the nearest right one, in one line."""

import pytest

from robot_vision.cli import main
from robot_vision.errors import nearest, unknown


def test_unknown_names_value_nearest_and_allowed():
    assert unknown("head", "classifer", ["classifier", "pose"]) == (
        "Unknown head 'classifer' (did you mean 'classifier'?): use one of classifier, pose"
    )
    assert unknown("encoding", "BAYER_RGGB8", ["bayer_gbrg8", "bayer_rggb8"]) == (
        "Unknown encoding 'BAYER_RGGB8': write it 'bayer_rggb8'"
    )
    assert unknown("head", "xyz", ["classifier", "pose"]).startswith("Unknown head 'xyz': use")


@pytest.mark.parametrize(
    ("name", "names", "near"),
    [
        ("camera_to_base", ["cameras", "camera_rate"], ""),
        ("odometry_topic", ["pose_topic", "image_topics"], ""),
        ("pose_topics", ["pose_topic", "odometry_topic"], "pose_topic"),
        ("odom", ["odometry", "tf"], "odometry"),
        ("8uc1", ["8UC1", "8UC3"], "8UC1"),
        ("NetVlad", ["gem", "netvlad"], "netvlad"),
    ],
)
def test_nearest_name_is_one_that_can_be_meant(name, names, near):
    assert nearest(name, names) == near


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
