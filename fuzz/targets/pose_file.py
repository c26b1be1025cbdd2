"""Files of poses from the internet: TUM, EuRoC, KITTI, 7-Scenes."""

from __future__ import annotations

from hypothesis import strategies as st

from fuzz import scratch
from robot_vision.datasets.formats import seven_scenes
from robot_vision.errors import SourceError
from robot_vision.truth.pose_files import read_pose_file

MAX_LEN = 1 << 10
ALLOWED_S = 5.0
_FORMS = ("auto", "tum", "euroc", "kitti")


def one_input(data: bytes) -> None:
    """Byte 0: the format, 4 for 7-Scenes; then the poses, and after a zero byte KITTI's times."""
    choice = data[0] % 5 if data else 0
    poses, _, times = data[1:].partition(b"\0")
    file = scratch.file("poses.csv" if data[:1] > b"\x80" else "poses.txt", poses)
    problems: list[SourceError] = []
    try:
        if choice == 4:
            assert seven_scenes.read_pose(file).shape == (4, 4)
            return
        times_file = scratch.file("times.txt", times)
        read = read_pose_file(file, problems.append, _FORMS[choice], times_file)
    except SourceError:
        return
    assert len(read.stamps_ns) == len(read.positions) == len(read.xyzw)
    assert all(a < b for a, b in zip(read.stamps_ns, read.stamps_ns[1:], strict=False))
    assert ((read.xyzw**2).sum(axis=1) > 0.99).all()


def seeds() -> list[bytes]:
    """Returns two poses of each format."""
    tum = b"1.5 0 0 0 0 0 0 1\n2.5 1 2 3 0.6 0 0 0.8\n"
    euroc = b"#t\n1500000000,0,0,0,1,0,0,0\n2500000000,0,0,0,1,0,0,0,9\n"
    kitti = b"1 0 0 0 0 1 0 0 0 0 1 0\n" * 2 + b"\0" + b"0.0\n0.1\n"
    matrix = b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    edges = [b"1e400 0 0 0 0 0 0 1\n", b"nan 0 0 0 0 0 0 1\n", b"1e999999999 0 0 0 0 0 0 1\n"]
    return [b"\0" + s for s in (tum, euroc, kitti, *edges)] + [b"\3" + kitti, b"\4" + matrix]


def strategy() -> st.SearchStrategy[bytes]:
    """Returns lines of numbers, most of them fit to be poses."""
    number = (
        st.sampled_from(("0", "1", "-1", "0.5", "1e-300", "1e308", "inf", "nan", "1_0", "٣", "x"))
        | st.integers(-(2**70), 2**70).map(str)
        | st.floats(allow_nan=False).map(str)
    )
    line = st.lists(number, min_size=7, max_size=13).map(" ".join)
    text = st.lists(line, max_size=4).map(lambda lines: "\n".join(lines).encode())
    return st.builds(lambda form, body: bytes([form]) + body, st.integers(0, 4), text)
