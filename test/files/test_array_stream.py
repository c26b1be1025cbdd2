from __future__ import annotations

import io
import os
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest

from robot_vision.errors import SourceError
from robot_vision.files.array_stream import MAX_BYTES, StreamWriter, put, streams_of


def images(dtype: str, count: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.random((3 + i, 4)) * 1000).astype(dtype) for i in range(count)]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "bool"])
def test_arrays_come_back_to_the_bit(dtype: str, tmp_path: Path) -> None:
    writer, written = StreamWriter(tmp_path), images(dtype)
    for i, image in enumerate(written):
        writer.put("depth", i, image)
    stream = writer.stream("depth", np.arange(len(written)), dtype)
    assert len(stream) == len(written) and stream.dtype == dtype
    for image, read in zip(written, stream, strict=True):
        assert read is not None and read.dtype == image.dtype
        np.testing.assert_array_equal(read, image)
    assert not list(tmp_path.iterdir())  # nothing is left, however the process ends


def test_frames_are_picked_as_of_an_array_and_may_have_none() -> None:
    writer, written = StreamWriter(), images("uint8")
    for i in (0, 2, 4):
        writer.put("ids", i, written[i])
    stream = writer.stream("ids", np.array([0, -1, 2, -1, 4]), "uint8")
    assert [image is not None for image in stream] == [True, False, True, False, True]
    last = stream[-1]
    assert last is not None and (last == written[4]).all()
    for index in (slice(1, 4), np.array([4, 0, 0]), np.array([1, 0, 0, 0, 1], bool)):
        picked = stream[index]
        expected = np.arange(5)[index]
        assert len(picked) == len(expected)
        for i, image in zip(expected, picked, strict=True):
            assert image is None if i in (1, 3) else (image == written[i]).all()
    with pytest.raises(IndexError):
        stream[5]


def file_of(path: Path, *arrays: np.ndarray) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for i, array in enumerate(arrays):
            put(archive, "ids", i, array)
    return path


def test_a_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.npz", np.zeros((2, 2), np.uint16))
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], object))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("ids/000001.npy", pickled.getvalue())
    stream = streams_of(path, [("ids", "uint8")], 3)["ids"]
    assert stream[2] is None
    with pytest.raises(SourceError, match=r"a.npz: array 0 of column ids.*uint16.*uint8"):
        stream[0]
    with pytest.raises(SourceError, match="array 1 of column ids.*run code"):
        stream[1]
    for dtype in ("object", "no such", "u1,u2"):
        with pytest.raises(ValueError, match="column ids"):
            streams_of(path, [("ids", dtype)], 3)


def test_a_damaged_array_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.npz", *images("float32", 3))
    data = bytearray(path.read_bytes())
    at = data.index(b"ids/000001.npy") + 80
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    stream = streams_of(path, [("ids", "float32")], 3)["ids"]
    with pytest.raises(SourceError, match="array 1 of column ids cannot be read"):
        stream[1]
    for i in (0, 2):
        np.testing.assert_array_equal(stream[i], images("float32", 3)[i])


def test_an_array_that_claims_to_be_huge_is_not_unpacked(tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.npz", np.zeros(8, np.uint8))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24  # the size in the table of contents
    data[at : at + 4] = (MAX_BYTES + 1).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(SourceError, match=f"it has {MAX_BYTES + 1} bytes"):
        streams_of(path, [("ids", "uint8")], 1)["ids"][0]


def test_a_file_that_is_written_again_is_not_mixed_with_the_old_one(tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.npz", *images("uint8", 2))
    stream = streams_of(path, [("ids", "uint8")], 2)["ids"]
    for i in range(5):  # so that it is not open any more
        streams_of(file_of(tmp_path / f"{i}.npz", *images("uint8", 1)), [("ids", "uint8")], 1)
    file_of(tmp_path / "new.npz", np.zeros((9, 9), np.uint8))
    os.replace(tmp_path / "new.npz", path)
    with pytest.raises(SourceError, match="was written again since"):
        stream[0]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    writer, noise = StreamWriter(tmp_path), np.random.default_rng(0).bytes(1 << 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, hard))
    try:
        with pytest.raises(
            SourceError, match=f"Column ids cannot be written to.* {tmp_path}: .*TMPDIR"
        ):
            writer.put("ids", 0, np.frombuffer(noise, np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
