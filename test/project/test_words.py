"""Counts in messages: one frame is, two frames are."""

import pytest

from robot_vision.text.counts import agreeing, counted


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames"), (21, "21 frames")]
)
def test_one_is_one_and_any_other_number_is_several(count, text):
    assert counted(count, "frame") == text


def test_irregular_words_are_given():
    assert counted(1, "class", "classes") == "1 class"
    assert counted(3, "image has", "images have") == "3 images have"


@pytest.mark.parametrize(
    ("several", "one"),
    [
        ("are empty and cannot be read", "is empty and cannot be read"),
        ("which have no poses around them", "which has no poses around it"),
        ("are PNG, whatever their names say", "is PNG, whatever its name says"),
        ("whose image is not under /data/are/have.d", "whose image is not under /data/are/have.d"),
        ("of /they are of 'have'", "of /they is of 'have'"),
    ],
)
def test_what_is_said_of_several_fits_one(several, one):
    assert agreeing(1, several) == one
    assert agreeing(2, several) == several
