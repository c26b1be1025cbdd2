"""Images of one number a pixel, from messages and files, against how their formats are defined."""

import struct

import cv2
import numpy as np
import pytest

from robot_vision.errors import ImageError
from robot_vision.images.planes import palette_of, to_plane
from robot_vision.recordings.base import CompressedImage, RawImage


def png(image) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def raw(image, encoding, big=False, padding=0):
    kind = image.dtype.newbyteorder(">" if big else "<")
    rows = [row.astype(kind).tobytes() + b"\xff" * padding for row in image]
    step = image.shape[1] * image.dtype.itemsize + padding
    data = b"".join(rows)
    return RawImage(image.shape[0], image.shape[1], encoding, step, data, int(big))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    ("encoding", "dtype"),
    [("mono8", "u1"), ("8UC1", "u1"), ("mono16", "u2"), ("16UC1", "u2"), ("32FC1", "f4")],
)
def test_raw_numbers_come_as_they_are_stored(encoding, dtype, padding, big):
    image = np.arange(12).reshape(3, 4).astype(dtype) * 17
    found = to_plane(raw(image, encoding, big, padding))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_png_numbers_are_not_scaled(dtype):
    image = np.arange(15).reshape(3, 5).astype(dtype) * 16
    found = to_plane(CompressedImage("16UC1; png compressed ", png(image)))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, image)


def rvl(depth: np.ndarray) -> bytes:
    """Encodes as the paper's listing does, bit by bit."""
    nibbles: list[int] = []

    def number(value: int) -> None:
        while True:
            nibble, value = value & 7, value >> 3
            nibbles.append(nibble | (8 if value else 0))
            if not value:
                return

    pixels, i, before = depth.ravel().tolist(), 0, 0
    while i < len(pixels):
        zeros = 0
        while i + zeros < len(pixels) and pixels[i + zeros] == 0:
            zeros += 1
        i += zeros
        count = 0
        while i + count < len(pixels) and pixels[i + count] != 0:
            count += 1
        number(zeros)
        number(count)
        for value in pixels[i : i + count]:
            step, before = value - before, value
            number((step << 1) ^ (step >> 31))
        i += count
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        int("".join(f"{n:x}" for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)
    ]
    return struct.pack("<II", depth.shape[1], depth.shape[0]) + struct.pack(
        f"<{len(words)}I", *words
    )


def test_compressed_depth_gives_millimetres_of_both_codecs():
    rng = np.random.default_rng(0)
    depth = rng.integers(0, 9000, (12, 17)).astype(np.uint16)
    depth[rng.random(depth.shape) < 0.4] = 0
    depth[0] = 0
    header = struct.pack("<iff", 0, 0.0, 0.0)
    for name, data in (("", png(depth)), ("png", png(depth)), ("rvl", rvl(depth))):
        found = to_plane(CompressedImage(f"16UC1; compressedDepth {name}", header + data))
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, depth)
    with pytest.raises(ImageError, match="RVL depth image ends"):
        to_plane(CompressedImage("16UC1; compressedDepth rvl", header + rvl(depth)[:-40]))


def test_compressed_depth_of_metres_is_undone():
    metres = np.linspace(0.3, 9, 40, dtype=np.float32).reshape(5, 8)
    metres[2, 3] = np.nan
    # As the transport quantises: a / depth + b, with 0 for none.
    a, b = 100.0 * 101.0, 1 - 100.0 * 101.0 / 10.0
    stored = np.nan_to_num(a / metres + b, nan=0.0).astype(np.uint16)
    header = struct.pack("<iff", 0, a, b)
    found = to_plane(CompressedImage("32FC1; compressedDepth", header + png(stored)))
    assert found.dtype == np.float32 and np.isnan(found[2, 3])
    np.testing.assert_allclose(found, metres, rtol=0.02)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (RawImage.of(np.zeros((2, 2, 3), np.uint8), "rgb8"), "one number a pixel 'rgb8'"),
        (CompressedImage("png", png(np.zeros((2, 2, 3), np.uint8))), "3 numbers a pixel"),
        (CompressedImage("jpeg", b"\xff\xd8\xff\xe0 more"), "JPEG, which changes its numbers"),
        (CompressedImage("png", png(np.zeros((2, 2), np.uint8))[:-9]), "cut off"),
        (CompressedImage("16UC1; compressedDepth", b"12"), "has no data"),
        (
            CompressedImage(
                "16UC1; compressedDepth rvl", bytes(12) + struct.pack("<II", 9000, 9000)
            ),
            "9000 x 9000: each side .* at most 67108864 pixels",
        ),
        (RawImage(4, 4, "16UC1", 8, b"123"), "data has 3 bytes"),
        (RawImage(4, 4, "16UC1", 4, b"1" * 16), "a row of 4 pixels in 16UC1 has 8 bytes"),
    ],
)
def test_other_images_are_refused(message, words):
    with pytest.raises(ImageError, match=words):
        to_plane(message)


def test_colours_of_a_palette_are_found(tmp_path):
    image = pytest.importorskip("PIL.Image")
    made = image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    made.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 255])
    made.save(tmp_path / "a.png")
    data = np.frombuffer((tmp_path / "a.png").read_bytes(), np.uint8)
    colours = palette_of(data)
    assert colours is not None
    assert colours[:3].tolist() == [[10, 20, 30], [200, 0, 0], [0, 0, 255]]
    assert palette_of(np.frombuffer(png(np.zeros((2, 2), np.uint8)), np.uint8)) is None
