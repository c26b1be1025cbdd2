"""Numbers on what a map answers: the blocks of their intervals."""

import pytest

from robot_vision.contract.settings import EvaluationSettings
from robot_vision.places.map.keyframe import numbered
from robot_vision.places.recognition.recogniser import RecogniserOptions
from robot_vision.studies.map_answers import summarise, time_ns

START = 1_700_000_000_000_000_000


def rows(stamps_ns, recording):
    same = {"answerable": True, "rank": 0, "accepted": True, "error_m": 0.1, "error_deg": 1.0}
    return [{**same, "recording": recording, "time_ns": time_ns(stamp)} for stamp in stamps_ns]


@pytest.mark.parametrize(
    ("stamps_ns", "frames"),
    [
        ([START + i * 10**9 // 30 for i in range(300)], 30),
        ([numbered(i) for i in range(300)], 10),  # without stamps: 0.1 s apart
    ],
)
def test_blocks_are_of_one_length_in_time_and_of_one_recording(stamps_ns, frames):
    # An hour lies between the recordings, or nothing tells.
    later = [stamp + 3600 * 10**9 for stamp in stamps_ns] if frames == 30 else stamps_ns
    both = [*rows(stamps_ns, "first"), *rows(later, "second")]
    found = summarise(both, RecogniserOptions(), EvaluationSettings(block_s=1.0, resamples=50))
    assert found["bootstrap"]["block_frames"] == frames
    assert found["images"] == found["accepted_right"] == 600
