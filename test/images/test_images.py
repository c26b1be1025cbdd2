"""Image messages to RGB: against OpenCV, mosaics and planes made by hand, and anything at all."""

from __future__ import annotations

import array
import io
import struct
import zlib
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_vision.errors import ImageError
from robot_vision.images.decode import image_size, to_rgb
from robot_vision.images.limits import MAX_SIDE
from robot_vision.images.raw import row_bytes, supported_encodings

RNG = np.random.default_rng(0)


def message(
    data: Any, height: int, width: int, encoding: str, step: int | None = None, big_endian: int = 0
) -> SimpleNamespace:
    step = row_bytes(encoding, width) if step is None else step
    return SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=big_endian, step=step, data=data
    )


def compressed(data: Any, kind: str = "jpeg") -> SimpleNamespace:
    return SimpleNamespace(format=kind, data=data)


def padded(rows: np.ndarray, padding: int) -> tuple[bytes, int]:
    """Returns rows (H, ...) of any dtype as bytes with padding after each, and the step."""
    flat = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    rubbish = RNG.integers(0, 256, (len(rows), padding), np.uint8)
    return np.hstack((flat, rubbish)).tobytes(), flat.shape[1] + padding


def photo(height: int = 48, width: int = 64) -> np.ndarray:
    """Returns a smooth RGB image with different channels, as chroma subsampling needs."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (2 * x, 255 - 3 * y, (x + 2 * y) % 180)
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


# Packed pixels

CHANNELS = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "rgba": (0, 1, 2, 3), "bgra": (2, 1, 0, 3)}


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [*((f"{o}8", o) for o in CHANNELS), ("8UC3", "bgr"), ("8UC4", "bgra")],
)
def test_colour_channels_come_in_order(encoding: str, order: str, padding: int) -> None:
    rgba = RNG.integers(0, 256, (9, 13, 4), np.uint8)
    data, step = padded(rgba[..., CHANNELS[order]], padding)
    np.testing.assert_array_equal(to_rgb(message(data, 9, 13, encoding, step)), rgba[..., :3])


@pytest.mark.parametrize("big_endian", [0, 1])
@pytest.mark.parametrize("padding", [0, 3, 4])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [*((f"{o}16", o) for o in CHANNELS), ("16UC3", "bgr"), ("16UC4", "bgra")],
)
def test_16_bit_colours_scale_to_8_bits(
    encoding: str, order: str, padding: int, big_endian: int
) -> None:
    wide = RNG.integers(0, 65536, (9, 13, 4), np.uint16)
    samples = wide[..., CHANNELS[order]].astype(">u2" if big_endian else "<u2")
    data, step = padded(samples, padding)
    rgb = to_rgb(message(data, 9, 13, encoding, step, big_endian))
    np.testing.assert_array_equal(rgb, np.rint(wide[..., :3] / 257).astype(np.uint8))


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_gray_fills_three_channels(encoding: str) -> None:
    gray = RNG.integers(0, 256, (5, 7), np.uint8)
    data, step = padded(gray, 2)
    rgb = to_rgb(message(data, 5, 7, encoding, step))
    np.testing.assert_array_equal(rgb, np.repeat(gray[..., None], 3, axis=2))


@pytest.mark.parametrize("big_endian", [0, 1])
@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
def test_16_bit_gray_honours_byte_order(encoding: str, big_endian: int) -> None:
    gray = RNG.integers(0, 65536, (5, 7)).astype(">u2" if big_endian else "<u2")
    data, step = padded(gray, 1)
    rgb = to_rgb(message(data, 5, 7, encoding, step, big_endian))
    expected = np.rint(gray.astype(np.float64) / 257)
    np.testing.assert_array_equal(rgb, np.repeat(expected[..., None], 3, axis=2).astype(np.uint8))


@pytest.mark.parametrize("big_endian", [0, 1])
def test_float_images_are_intensities_from_0_to_1(big_endian: int) -> None:
    values = np.array([[-5.0, 0.0, 0.5], [1.0, 7.0, 1e30]]).astype(">f4" if big_endian else "<f4")
    rgb = to_rgb(message(values.tobytes(), 2, 3, "32FC1", None, big_endian))
    assert rgb[..., 0].tolist() == [[0, 0, 128], [255, 255, 255]]


def test_float_colours_are_bgr() -> None:
    values = np.array([[[0.0, 0.2, 1.0]]], "<f4")
    assert to_rgb(message(values.tobytes(), 1, 1, "32FC3")).tolist() == [[[255, 51, 0]]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoding", ["32FC1", "32FC3", "32FC4"])
def test_non_finite_float_is_refused(encoding: str, value: float) -> None:
    values = np.zeros(4 * row_bytes(encoding, 6) // 4, "<f4")
    values[5] = value
    with pytest.raises(ImageError, match="1 values") as caught:
        to_rgb(message(values.tobytes(), 4, 6, encoding))
    assert caught.value.reason == "non_finite"


# Views and kinds of buffers


def test_rgb8_and_bgr8_are_views_of_the_message() -> None:
    data = bytearray(9 * 40)
    for encoding, channel in (("rgb8", 0), ("bgr8", 2)):
        rgb = to_rgb(message(data, 9, 13, encoding, 40))
        data[2 * 40 + 3 * 5] = 200
        assert rgb[2, 5, channel] == 200
        data[2 * 40 + 3 * 5] = 0


def test_every_kind_of_buffer_gives_the_same() -> None:
    image = RNG.integers(0, 256, (4, 5, 3), np.uint8)
    raw = image.tobytes()
    kinds = (raw, bytearray(raw), memoryview(raw), array.array("B", raw), image.reshape(-1), image)
    for data in kinds:
        np.testing.assert_array_equal(to_rgb(message(data, 4, 5, "rgb8")), image)
    np.testing.assert_array_equal(
        to_rgb(message(np.repeat(image.reshape(-1), 2)[::2], 4, 5, "rgb8")), image
    )


def test_rclpy_messages_are_read() -> None:
    sensor_msgs = pytest.importorskip("sensor_msgs.msg", reason="sensor_msgs is not installed")
    image = RNG.integers(0, 256, (4, 5, 3), np.uint8)
    raw = sensor_msgs.Image(
        height=4, width=5, encoding="bgr8", step=15, data=array.array("B", image.tobytes())
    )
    np.testing.assert_array_equal(to_rgb(raw), image[..., ::-1])
    png = cv2.imencode(".png", image)[1].tobytes()
    packed = sensor_msgs.CompressedImage(format="png", data=array.array("B", png))
    np.testing.assert_array_equal(to_rgb(packed), image[..., ::-1])


# YUV


def yuv_planes(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Studio-range BT.601 by its definition (ITU-R BT.601-7, 2.5.3), full resolution, rounded."""
    r, g, b = (rgb[..., i].astype(np.float64) / 255 for i in range(3))
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    planes = (
        16 + 219 * luma,
        128 + 224 * 0.5 * (b - luma) / (1 - 0.114),
        128 + 224 * 0.5 * (r - luma) / (1 - 0.299),
    )
    y, u, v = (np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in planes)
    return y, u, v


def chequered(size: int = 2, height: int = 24, width: int = 32) -> np.ndarray:
    """Returns random colours in blocks, so that subsampled chroma loses nothing."""
    blocks = RNG.integers(30, 226, (height // size, width // size, 3), np.uint8)
    return blocks.repeat(size, axis=0).repeat(size, axis=1)


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_yuv422_samples_come_in_order(encoding: str) -> None:
    rgb = chequered()
    y, u, v = yuv_planes(rgb)
    pairs = np.empty((24, 32, 2), np.uint8)
    chroma = 0 if encoding in ("yuv422", "uyvy") else 1
    pairs[..., 1 - chroma] = y
    pairs[:, 0::2, chroma] = u[:, 0::2]
    pairs[:, 1::2, chroma] = v[:, 0::2]
    data, step = padded(pairs, 6)
    decoded = to_rgb(message(data, 24, 32, encoding, step))
    assert np.abs(decoded.astype(int) - rgb).max() <= 3


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_two_plane_420_samples_come_in_order(encoding: str, padding: int) -> None:
    rgb = chequered()
    y, u, v = yuv_planes(rgb)
    chroma = np.empty((12, 32), np.uint8)
    first = 0 if encoding == "nv12" else 1
    chroma[:, first::2], chroma[:, 1 - first :: 2] = u[::2, ::2], v[::2, ::2]
    data, step = padded(np.vstack((y, chroma)), padding)
    decoded = to_rgb(message(data, 24, 32, encoding, step))
    assert np.abs(decoded.astype(int) - rgb).max() <= 3


@pytest.mark.parametrize("padding", [0, 5])
def test_two_plane_444_keeps_full_chroma(padding: int) -> None:
    rgb = chequered(size=1)
    y, u, v = yuv_planes(rgb)
    luma, step = padded(y, padding)
    chroma, _ = padded(np.stack((u, v), axis=-1).reshape(24, 64), 2 * padding)
    decoded = to_rgb(message(luma + chroma, 24, 32, "nv24", step))
    assert np.abs(decoded.astype(int) - rgb).max() <= 3


@pytest.mark.parametrize(
    ("encoding", "height", "width"), [("yuyv", 4, 5), ("nv12", 4, 5), ("nv21", 5, 4)]
)
def test_odd_sides_of_subsampled_images_are_refused(encoding: str, height: int, width: int) -> None:
    with pytest.raises(ImageError, match="even") as caught:
        to_rgb(message(bytes(1000), height, width, encoding, 200))
    assert caught.value.reason == "size"


# Mosaics


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("big_endian", [0, 1])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_pattern_is_named_by_its_first_rows(pattern: str, bits: int, big_endian: int) -> None:
    colour = np.array([200, 120, 40])  # a plain colour: each filter sees its own channel
    letters = {"r": 0, "g": 1, "b": 2}
    tile = np.array([colour[letters[c]] for c in pattern]).reshape(2, 2)
    mosaic = np.tile(tile, (10, 8))
    kind = "u1" if bits == 8 else (">u2" if big_endian else "<u2")
    samples = (mosaic if bits == 8 else mosaic * 257).astype(kind)
    data, step = padded(samples, 3)
    rgb = to_rgb(message(data, 20, 16, f"bayer_{pattern}{bits}", step, big_endian))
    np.testing.assert_array_equal(rgb, np.broadcast_to(colour, (20, 16, 3)))


@pytest.mark.parametrize("encoding", ["bayer_rggb8", "bayer_grbg16"])
def test_mosaic_too_small_for_colours_is_refused_rather_than_black(encoding: str) -> None:
    def mosaic(height: int, width: int) -> SimpleNamespace:
        data = np.full(height * row_bytes(encoding, width), 200, np.uint8).tobytes()
        return message(data, height, width, encoding)

    np.testing.assert_array_equal(to_rgb(mosaic(3, 3)), np.full((3, 3, 3), 200))
    for size in ((1, 1), (2, 2), (2, 9), (9, 2)):
        with pytest.raises(ImageError, match="needs 3 x 3 pixels") as caught:
            to_rgb(mosaic(*size))
        assert caught.value.reason == "size"


# Compressed


@pytest.mark.parametrize(
    "kind", ["jpeg", "jpg", "rgb8; jpeg compressed bgr8", "bgr8; jpeg compressed bgr8", ""]
)
def test_jpeg_decodes_as_pillow_does(kind: str) -> None:
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    buffer = io.BytesIO()
    Image.fromarray(photo()).save(buffer, "jpeg", quality=95)
    expected = np.asarray(Image.open(buffer)).astype(int)
    decoded = to_rgb(compressed(buffer.getvalue(), kind))
    assert np.abs(decoded - expected).max() <= 3  # two decoders' rounding


def test_format_with_exchanged_channels_is_honoured() -> None:
    data = cv2.imencode(".png", photo())[1].tobytes()  # OpenCV takes what it is given for BGR
    np.testing.assert_array_equal(to_rgb(compressed(data, "rgb8; png compressed rgb8")), photo())


def test_exif_orientation_is_ignored() -> None:
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    buffer = io.BytesIO()
    Image.fromarray(photo()).save(buffer, "jpeg", exif=exif)
    assert to_rgb(compressed(buffer.getvalue())).shape == (48, 64, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "16", "P"])
def test_png_of_any_pixel_type_is_decoded(mode: str) -> None:
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    buffer = io.BytesIO()
    if mode == "16":
        wide = (np.arange(48 * 64).reshape(48, 64) * 21).astype(np.uint16)
        Image.fromarray(wide).save(buffer, "png")
        expected = np.repeat((wide / 257)[..., None], 3, axis=2)
    else:
        picture = Image.fromarray(photo()).convert(mode)
        picture.save(buffer, "png")
        expected = np.asarray(picture.convert("RGB"), np.float64)
    decoded = to_rgb(compressed(buffer.getvalue(), "png"))
    assert np.abs(decoded - expected).max() <= (1 if mode == "16" else 0)


@pytest.mark.slow
def test_jpeg_is_decoded_smaller_when_less_is_needed() -> None:
    data = cv2.imencode(".jpg", cv2.resize(photo(), (1280, 960)))[1].tobytes()
    sizes = {(960, 1280): 1, (481, 1): 1, (480, 640): 2, (224, 224): 4, (120, 160): 8, (1, 1): 8}
    full = to_rgb(compressed(data))
    for least, factor in sizes.items():
        small = to_rgb(compressed(data), min_size=least)
        assert small.shape == (960 // factor, 1280 // factor, 3), least
        boxes = full.reshape(960 // factor, factor, 1280 // factor, factor, 3).mean(axis=(1, 3))
        assert np.abs(small - boxes).mean() < 2


def test_odd_jpeg_is_never_decoded_below_what_is_needed() -> None:
    data = cv2.imencode(".jpg", np.zeros((225, 449, 3), np.uint8))[1].tobytes()
    assert to_rgb(compressed(data), min_size=(113, 225)).shape == (113, 225, 3)
    assert to_rgb(compressed(data), min_size=(114, 225)).shape == (225, 449, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_cut_off_image_is_refused_at_every_length(suffix: str) -> None:
    data = cv2.imencode(suffix, photo())[1].tobytes()
    for length in [*range(0, len(data) - 12, 37), len(data) - 13, len(data) - 1]:
        with pytest.raises(ImageError) as caught:
            to_rgb(compressed(data[:length]))
        assert caught.value.reason in ("corrupt", "data_length", "encoding"), length
    np.testing.assert_array_equal(to_rgb(compressed(data + bytes(200))), to_rgb(compressed(data)))


def test_cut_off_jpeg_with_a_whole_thumbnail_is_refused() -> None:
    thumbnail = cv2.imencode(".jpg", photo(8, 8))[1].tobytes()
    data = cv2.imencode(".jpg", photo())[1].tobytes()
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    whole = data[:2] + segment + data[2:]
    assert to_rgb(compressed(whole)).shape == (48, 64, 3)
    with pytest.raises(ImageError, match="cut off"):
        to_rgb(compressed(whole[: len(whole) // 2 + len(segment) // 2]))


def test_decompression_bomb_is_refused_by_its_header() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    for width, height in ((100_000, 100_000), (MAX_SIDE + 1, 1), (MAX_SIDE, MAX_SIDE + 1)):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")
        with pytest.raises(ImageError, match=f"{width} x {height}") as caught:
            to_rgb(compressed(png, "png"))
        assert caught.value.reason == "size"
    jpeg = bytearray(cv2.imencode(".jpg", photo())[1].tobytes())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(ImageError, match="65535 x 65535"):
        to_rgb(compressed(bytes(jpeg)))


def test_other_compressed_formats_are_refused_by_name() -> None:
    webp = b"RIFF\x00\x00\x00\x00WEBPVP8 "
    with pytest.raises(ImageError, match="'webp'.*jpeg, png") as caught:
        to_rgb(compressed(webp, "webp"))
    assert caught.value.reason == "encoding"


def test_image_size_needs_no_pixels() -> None:
    data = cv2.imencode(".jpg", photo())[1].tobytes()
    assert image_size(compressed(data)) == (48, 64)
    assert image_size(message(b"", 3, 4, "rgb8")) == (3, 4)


# Messages that contradict themselves


@pytest.mark.parametrize("encoding", supported_encodings())
def test_data_of_another_length_is_refused(encoding: str) -> None:
    step = row_bytes(encoding, 8) + 4
    rows = {"nv12": 6, "nv21": 6, "nv24": 12}.get(encoding, 4)
    right = bytes(rows * step)
    last_row = 2 * 8 - step if encoding == "nv24" else row_bytes(encoding, 8)
    assert to_rgb(message(right, 4, 8, encoding, step)).shape == (4, 8, 3)
    without_last_padding = right[: (rows - 1) * step + last_row]
    assert to_rgb(message(without_last_padding, 4, 8, encoding, step)).shape == (4, 8, 3)
    for wrong in (without_last_padding[:-1], right + b"\0", b""):
        with pytest.raises(ImageError, match=str(len(wrong))) as caught:
            to_rgb(message(wrong, 4, 8, encoding, step))
        assert caught.value.reason == "data_length"


@pytest.mark.parametrize(
    ("height", "width"), [(0, 8), (8, 0), (0, 0), (1 << 31, 1 << 31), (MAX_SIDE + 1, 1)]
)
def test_absurd_sizes_are_refused(height: int, width: int) -> None:
    with pytest.raises(ImageError, match=f"{width} x {height}") as caught:
        to_rgb(message(b"", height, width, "rgb8", 3 * width))
    assert caught.value.reason == "size"


def test_step_shorter_than_a_row_is_refused() -> None:
    for step in (0, 23):
        with pytest.raises(ImageError, match="24 bytes") as caught:
            to_rgb(message(bytes(4 * 24), 4, 8, "rgb8", step))
        assert caught.value.reason == "size"


def test_unknown_encoding_is_refused_with_the_nearest_name() -> None:
    bad = SimpleNamespace(height=1, width=1, encoding="rbg8", is_bigendian=0, step=3, data=b"abc")
    with pytest.raises(ImageError, match="rbg8.*did you mean 'rgb8'") as caught:
        to_rgb(bad)
    assert caught.value.reason == "encoding"


@settings(max_examples=80)
@given(
    encoding=st.sampled_from(["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "8UC3"]),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    padding=st.integers(0, 9),
    seed=st.integers(0, 1 << 30),
)
def test_lossless_encodings_round_trip(
    encoding: str, height: int, width: int, padding: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    if encoding == "mono8":
        rgb = np.repeat(rgb[..., :1], 3, axis=2)
        stored = rgb[..., :1]
    else:
        order = {"8UC3": "bgr"}.get(encoding, encoding[:-1])
        alpha = rng.integers(0, 256, (height, width, 1), np.uint8)
        stored = np.concatenate((rgb, alpha), axis=2)[..., CHANNELS[order]]
    data, step = padded(stored, padding)
    np.testing.assert_array_equal(to_rgb(message(data, height, width, encoding, step)), rgb)


@settings(max_examples=120)
@given(
    encoding=st.sampled_from([*supported_encodings(), "", "x", "jpeg"]),
    height=st.integers(0, 2**32 - 1) | st.integers(0, 9),
    width=st.integers(0, 2**32 - 1) | st.integers(0, 9),
    step=st.integers(0, 2**32 - 1) | st.integers(0, 80),
    big_endian=st.integers(0, 255),
    data=st.binary(max_size=600),
)
def test_any_raw_message_decodes_or_is_an_image_error(
    encoding: str, height: int, width: int, step: int, big_endian: int, data: bytes
) -> None:
    bad = SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=big_endian,
        step=step,
        data=data,
    )
    try:
        assert to_rgb(bad).shape == (height, width, 3)
    except ImageError as error:
        assert error.reason in ImageError.REASONS and "\n" not in str(error)


@settings(max_examples=120)
@given(
    suffix=st.sampled_from([".jpg", ".png"]),
    edits=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 5000),
    tail=st.binary(max_size=40),
)
def test_any_damaged_file_decodes_or_is_an_image_error(
    suffix: str, edits: list[tuple[int, int]], cut: int, tail: bytes
) -> None:
    data = bytearray(cv2.imencode(suffix, photo(12, 16))[1].tobytes())
    for at, value in edits:
        data[at % len(data)] = value
    try:
        image = to_rgb(compressed(bytes(data[: cut or None]) + tail), min_size=(3, 3))
        assert image.ndim == 3 and image.dtype == np.uint8
    except ImageError as error:
        assert error.reason in ImageError.REASONS


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize(
    ("bits", "codec", "bound"), [(8, "jpeg", 12), (8, "png", 8), (16, "png", 8), (16, "jpeg", 12)]
)
def test_a_compressed_mosaic_becomes_colours(
    pattern: str, bits: int, codec: str, bound: int
) -> None:
    """compressed_image_transport compresses a mosaic as it stands, as `bayer_rggb8; jpeg compressed `."""
    colour = np.full((64, 96, 3), (200, 120, 40), np.uint8)
    planes = {"r": 0, "g": 1, "b": 2}
    mosaic = np.empty((64, 96), np.uint8)
    for i, letter in enumerate(pattern):
        mosaic[i // 2 :: 2, i % 2 :: 2] = colour[i // 2 :: 2, i % 2 :: 2, planes[letter]]
    stored = mosaic.astype(np.uint16) * 257 if bits == 16 and codec == "png" else mosaic
    _, data = cv2.imencode(f".{codec}", stored, [cv2.IMWRITE_JPEG_QUALITY, 100])
    kind = f"bayer_{pattern}{bits}; {codec} compressed "
    decoded = to_rgb(compressed(data.tobytes(), kind), min_size=(8, 8))
    assert decoded.shape == (64, 96, 3), "a mosaic must not be decoded at a part of its size"
    error = np.abs(decoded[4:-4, 4:-4].astype(int) - colour[4:-4, 4:-4])
    assert error.max() <= bound


def test_colours_made_of_a_mosaic_before_it_was_compressed_stay_colours() -> None:
    _, data = cv2.imencode(".png", photo()[..., ::-1])
    kind = "bayer_grbg8; png compressed bgr8"
    np.testing.assert_array_equal(to_rgb(compressed(data.tobytes(), kind)), photo())


@pytest.mark.parametrize("encoding", ["BayerRG8", "bayer_xtrans8", "nv12", "yuv422_yuy2"])
def test_samples_that_are_no_picture_are_refused_by_name(encoding: str) -> None:
    _, data = cv2.imencode(".png", photo()[..., 0])
    with pytest.raises(ImageError, match=f"'{encoding}'") as caught:
        to_rgb(compressed(data.tobytes(), f"{encoding}; png compressed "))
    assert caught.value.reason == "encoding"


def test_compressed_distances_are_refused_as_such() -> None:
    _, data = cv2.imencode(".png", photo()[..., 0].astype(np.uint16))
    with pytest.raises(ImageError, match="compressedDepth.*distances"):
        to_rgb(compressed(bytes(12) + data.tobytes(), "16UC1; compressedDepth png"))
