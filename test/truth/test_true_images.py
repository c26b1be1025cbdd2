"""True images of a recording: their unit, what says nothing in them, and which one a frame takes."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from robot_vision.contract.head import plain
from robot_vision.errors import ConfigError
from robot_vision.evaluation.measure.association import associate
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.images.input import InputSpec
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.truth.images import ImageTrack, parse_images
from robot_vision.truth.reading import TruthRequest, read_truth

START, PERIOD = 1_700_000_000_000_000_000, 100_000_000
METRES = np.array([[0.5, 1.0, 2.0, 4.0], [0.0, 8.0, 0.25, 3.0]])  # 0 is none


def write(path: Path, form: str) -> Path:
    """Writes the distances once, as a topic `/truth/depth` of a form."""
    with RecordingWriter(path, "mcap") as bag:
        types, header = bag.types, bag.header(START, "front")
        if form == "32FC1":
            values = np.where(METRES == 0, np.nan, METRES).astype("<f4")
        else:
            values = np.round(METRES * 1000).astype("<u2")
        if form in ("16UC1", "32FC1", "mono16"):
            octets = np.frombuffer(values.tobytes(), np.uint8)
            image = types["sensor_msgs/msg/Image"]
            step = values.strides[0]
            message = image(header, *values.shape, form, 0, step, octets)
        else:
            _, png = cv2.imencode(".png", values)
            data = struct.pack("<iff", 0, 0.0, 0.0) + png.tobytes()
            image = types["sensor_msgs/msg/CompressedImage"]
            text = "16UC1; compressedDepth png"
            message = image(header, text, np.frombuffer(data, np.uint8))
        bag.write("/truth/depth", START, message)
    return path


def image_of(path: Path, size: tuple[int, int], none: float, **request: object) -> np.ndarray:
    truth = read_truth(path, TruthRequest(image_names=("depth",), **request))
    predictions = Predictions(
        np.array([START]),
        meta={"input": plain(InputSpec(32, 64))},
        image_size=np.array([METRES.shape], np.int32),
    )
    return associate(predictions, truth).images["depth"](0, size, none)


@pytest.mark.parametrize("form", ["16UC1", "32FC1", "compressedDepth"])
@pytest.mark.parametrize("none", [0.0, np.nan])
def test_distances_are_metres_whatever_they_are_recorded_as(tmp_path, form, none):
    found = image_of(write(tmp_path / "bag", form), METRES.shape, none)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.where(METRES == 0, none, METRES), rtol=1e-6)
    larger = image_of(tmp_path / "bag", (6, 8), none)
    np.testing.assert_allclose(larger, found.repeat(3, 0).repeat(2, 1), rtol=1e-6)


def test_a_factor_takes_the_place_of_the_unit(tmp_path):
    asked = parse_images(["depth=truth/depth*0.0002"])
    found = image_of(write(tmp_path / "a", "16UC1"), METRES.shape, -1, images=asked)
    np.testing.assert_allclose(found, np.where(METRES == 0, -1, METRES * 0.2), rtol=1e-6)
    found = image_of(write(tmp_path / "b", "mono16"), METRES.shape, -1, images=asked)
    np.testing.assert_allclose(found, METRES * 0.2, rtol=1e-6)  # 0 is a number as others


def test_numbers_without_a_unit_stay_whole(tmp_path):
    found = image_of(write(tmp_path / "bag", "mono16"), METRES.shape, 255)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, METRES * 1000)


def test_a_damaged_image_is_counted_and_named(tmp_path):
    with RecordingWriter(tmp_path / "bag", "mcap") as bag:
        for i, data in enumerate(
            (b"\x89PNG\r\n\x1a\nno", cv2.imencode(".png", np.ones((2, 4)))[1])
        ):
            bag.compressed_image("/truth/depth", START + i * PERIOD, "f", bytes(data), "mono8; png")
    truth = read_truth(tmp_path / "bag", TruthRequest(image_names=("depth",)))
    stamps = START + PERIOD * np.arange(2)
    predictions = Predictions(stamps, meta={"input": plain(InputSpec(32, 64))})
    found = associate(predictions, truth)
    images = found.images["depth"]
    assert images(0, (2, 4), 0) is None and images(0, (2, 4), 0) is None
    assert (images(1, (2, 4), 0) == 1).all()
    assert found.counts["image:depth"] == {"found": 1, "missing": {"cannot be read": 1}}
    assert "/truth/depth#0" in images.unread[0]


def test_frames_take_the_nearest_image():
    track = ImageTrack(np.array([0, 100, 200]), [None] * 3, within_ns=40)
    times = np.array([-41, -40, 0, 40, 50, 61, 150, 199, 240, 241])
    assert track.at(times).tolist() == [-1, 0, 0, 0, -1, 1, -1, 2, 2, -1]
    assert ImageTrack(np.array([], np.int64), []).at(times).tolist() == [-1] * 10


@pytest.mark.parametrize("text", ["depth", "=x", "depth=", "depth=/a*--", "a b=/c"])
def test_other_texts_are_refused(text):
    with pytest.raises(ConfigError, match="is no source of true images"):
        parse_images([text])
