"""The bytes of an Image or CompressedImage as they come off the network (CDR), read in place."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from fuzz.targets import compressed_image
from robot_vision.errors import ImageError
from robot_vision.images.decode import to_rgb
from robot_vision.messages import cdr
from robot_vision.messages.serialized import read_compressed_image, read_image
from robot_vision.recordings.base import CompressedImage, RawImage

MAX_LEN = 1 << 12
ALLOWED_S = 5.0


def one_input(data: bytes) -> None:
    """Byte 0: which message; then its serialised bytes."""
    read = read_compressed_image if data[:1] == b"\1" else read_image
    try:
        message = read(data[1:])
        assert message.data.nbytes <= len(data)
        to_rgb(message)
    except ImageError:
        pass


def seeds() -> list[bytes]:
    """Returns both messages, in both byte orders' headers and with lengths that lie."""
    raw = cdr.image(1, "camera", RawImage(4, 6, "rgb8", 18, bytes(range(72))))
    mono = cdr.image(-1, "", RawImage(2, 2, "mono8", 2, bytes(4)))
    jpeg = compressed_image.seeds()[4][1:]
    compressed = cdr.compressed_image(1, "camera", CompressedImage("jpeg", jpeg))
    lies = raw[:12] + b"\xff\xff\xff\xff" + raw[16:]
    other = [b"\0\0" + raw[2:], b"\0\3" + raw[2:], b"\0\7" + raw[2:]]
    return [b"\0" + m for m in (raw, mono, lies, *other)] + [b"\1" + compressed]


def strategy() -> st.SearchStrategy[bytes]:
    """Returns messages with any fields, then one length overwritten."""

    def spoiled(message: bytes, at: int, value: int) -> bytes:
        at = at % max(len(message) - 4, 1)
        return b"\0" + message[:at] + struct.pack("<I", value) + message[at + 4 :]

    sides = st.integers(0, 40)
    images = st.builds(
        lambda stamp, frame, h, w, encoding, step, pixels: cdr.image(
            stamp, frame, RawImage(h, w, encoding, step, pixels)
        ),
        st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1),
        st.text(max_size=12),
        sides,
        sides,
        st.sampled_from(("rgb8", "mono16", "nv12", "bayer_rggb8", "32FC1", "x")),
        st.integers(0, 400),
        st.binary(max_size=400),
    )
    return st.builds(spoiled, images, st.integers(0, 1 << 10), st.integers(0, 2**32 - 1))
