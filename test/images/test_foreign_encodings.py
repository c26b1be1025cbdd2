"""cv_bridge behind the decoder: the real one where it is installed, and packages that fail as real ones do.

There is no wheel of cv_bridge, so most machines run only the second half. What these packages do was seen
with Debian's cv_bridge 1.16.2, which was built for NumPy 1: under NumPy 1.26 it converts and refuses, under
NumPy 2 the import succeeds and the first conversion ends the process.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from robot_vision.errors import ImageError
from robot_vision.images import decode as images
from robot_vision.images import foreign as foreign_encodings
from robot_vision.images.decode import to_rgb
from robot_vision.images.raw import row_bytes, supported_encodings

PIXELS = bytes(range(24))


def message(encoding: str = "rbg8", height: int = 2, width: int = 4, step: int = 12):
    return SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=0, step=step, data=PIXELS
    )


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Returns a function that installs a cv_bridge whose imgmsg_to_cv2 has the body given."""

    def installed(body: str, head: str = "") -> Path:
        """Returns the file to which each process that calls it adds its number."""
        calls = tmp_path / "calls.txt"
        source = (
            f"import os, signal, time\nimport numpy as np\n{head}\n"
            "class CvBridgeError(TypeError): pass\n"
            "class CvBridge:\n"
            "    def encoding_to_dtype_with_channels(self, encoding):\n"
            "        return 'uint8', 3\n"
            "    def imgmsg_to_cv2(self, msg, desired_encoding):\n"
            f"        print(os.getpid(), file=open({str(calls)!r}, 'a'))\n"
            "        assert desired_encoding == 'rgb8'\n"
            "        own = np.asarray(bytearray(msg.data)).reshape(msg.height, -1, msg.step // msg.width)\n"
            "        if msg.encoding == 'mono8':\n"
            "            return own.repeat(3, axis=2)\n"
        )
        (tmp_path / "cv_bridge").mkdir()
        (tmp_path / "cv_bridge" / "__init__.py").write_text(
            source + textwrap.indent(textwrap.dedent(body), " " * 8)
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        return calls

    monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)
    foreign_encodings._bridge.cache_clear()
    yield installed
    sys.modules.pop("cv_bridge", None)
    foreign_encodings._bridge.cache_clear()


def test_encoding_that_only_cv_bridge_knows_is_decoded(install) -> None:
    calls = install("return own[..., [0, 2, 1]]")

    for _ in range(3):
        np.testing.assert_array_equal(
            to_rgb(message()), np.frombuffer(PIXELS, np.uint8).reshape(2, 4, 3)[..., [0, 2, 1]]
        )
    processes = calls.read_text().split()
    assert processes.count(str(os.getpid())) == 3
    assert len(processes) == 4, "another process tries cv_bridge once"


@pytest.mark.parametrize("step", [12, 13, 14, 15, 17])
def test_padding_that_is_no_whole_pixel_does_not_reach_cv_bridge(install, step: int) -> None:
    # As cv_bridge does: a row is as many whole pixels as fit into the step.
    install(
        """
        shape = (msg.height, int(msg.step / 3), 3)
        return np.ndarray(shape, np.uint8, msg.data)[:, : msg.width, [0, 2, 1]]
        """
    )
    pixels = np.frombuffer(PIXELS, np.uint8).reshape(2, 12)
    image = message(step=step)
    image.data = memoryview(np.pad(pixels, ((0, 0), (0, step - 12)), constant_values=99).tobytes())

    np.testing.assert_array_equal(to_rgb(image), pixels.reshape(2, 4, 3)[..., [0, 2, 1]])


def test_refusal_of_cv_bridge_is_told_beside_the_nearest_name(install) -> None:
    install("raise CvBridgeError('Unrecognized image encoding\\n  [%s]' % msg.encoding)")

    with pytest.raises(
        ImageError, match=r"did you mean 'rgb8'.*Unrecognized image encoding \[rbg8"
    ):
        to_rgb(message())


@pytest.mark.parametrize(
    "body",
    [
        "return own[:1]",
        "return own.astype(np.uint16)",
        "return own[..., 0]",
        "return None",
    ],
)
def test_what_is_not_an_rgb_image_of_the_messages_size_is_refused(install, body: str) -> None:
    install(body)

    with pytest.raises(ImageError, match=r"not uint8 \(2, 4, 3\)") as caught:
        to_rgb(message())
    assert caught.value.reason == "encoding"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "ending"),
    [
        # The real one: under NumPy 2 in the C++ of the first conversion.
        ("os.kill(os.getpid(), signal.SIGSEGV)", "status -11"),
        ("raise ImportError('numpy.core.multiarray failed to import')", "status 1"),
        ("time.sleep(60)", "TimeoutExpired"),
    ],
)
def test_cv_bridge_that_breaks_is_left_alone(install, monkeypatch, capfd, head, ending) -> None:
    """The process that decodes lives on, tries once, and says what is wrong with every image."""
    install("return own", head=head)
    monkeypatch.setattr(foreign_encodings, "_TRIAL_S", 0.5 if "sleep" in head else 30.0)

    told = rf"did you mean 'rgb8'.*does not work with NumPy {np.__version__} \({ending}\)"
    for _ in range(3):
        with pytest.raises(ImageError, match=told) as caught:
            to_rgb(message())
        assert caught.value.reason == "encoding" and "\n" not in str(caught.value)
    assert "cv_bridge" not in sys.modules
    assert foreign_encodings._bridge.cache_info().misses == 1
    assert capfd.readouterr() == ("", ""), "what the trial writes is not for the node's log"


def test_cv_bridge_in_the_working_directory_is_not_run(install, tmp_path, monkeypatch) -> None:
    calls = install("return own")
    without = [p for p in sys.path if p and not (Path(p) / "cv_bridge").exists()]
    monkeypatch.setattr(sys, "path", without)
    monkeypatch.chdir(tmp_path)
    assert importlib.util.find_spec("cv_bridge") is None

    with pytest.raises(ImageError, match=r"bayer_grbg16$"):
        to_rgb(message())
    assert not calls.exists()


def test_absurd_messages_do_not_reach_cv_bridge(install) -> None:
    calls = install("return own")

    # std::regex, which cv_bridge matches names with, overflows the stack at some length.
    with pytest.raises(ImageError, match="Unknown image encoding"):
        to_rgb(message("8UC" + "1" * 100_000))
    assert not calls.exists()
    for size in ({"height": 0}, {"width": 2**31}):
        with pytest.raises(ImageError) as caught:
            to_rgb(message(**size))
        assert caught.value.reason == "size"
    assert str(os.getpid()) not in calls.read_text().split()


def test_known_encodings_never_ask_cv_bridge(install) -> None:
    calls = install("return own")

    to_rgb(message("rgb8"))
    assert not calls.exists() and "cv_bridge" not in sys.modules


# The real one


def _real_bridge() -> None:
    if importlib.util.find_spec("cv_bridge") is None:
        pytest.skip("no cv_bridge is installed: it comes with a ROS 2 from apt, not from PyPI")


# All that it turns into colours. Not the other byte order: cv_bridge 3.4 and older cannot swap under NumPy 2.
@pytest.mark.parametrize(
    "encoding",
    [
        *"rgb8 bgr8 rgba8 bgra8 mono8 rgb16 bgr16 rgba16 bgra16 mono16 yuv422 yuv422_yuy2".split(),
        *(f"bayer_{p}{bits}" for p in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)),
    ],
)
def test_real_cv_bridge_decodes_as_we_do(encoding: str, monkeypatch) -> None:
    _real_bridge()
    if foreign_encodings._bridge()[0] is None:
        pytest.skip("the cv_bridge that is installed was built for another NumPy")
    for padding in (0, 1, 8):
        step = row_bytes(encoding, 18) + padding
        data = np.random.default_rng(0).integers(0, 256, 9 * step, np.uint8).tobytes()
        image = SimpleNamespace(
            height=9, width=18, encoding=encoding, is_bigendian=0, step=step, data=data
        )
        ours = to_rgb(image)
        with monkeypatch.context() as patch:
            patch.setattr(images, "supported_encodings", lambda: ())
            np.testing.assert_array_equal(to_rgb(image), ours)


def test_real_cv_bridge_never_ends_the_process() -> None:
    _real_bridge()
    names = ("8UC2", "8SC3", "8UC0", "8UC513", "64FC1", "32SC2", "rbg8", "", "8UC3\0", "h264", "é")

    for encoding in names:
        assert encoding not in supported_encodings()
        for step in (0, 3, 12, 24):
            with pytest.raises(ImageError) as caught:
                to_rgb(message(encoding, step=step))
            assert "\n" not in str(caught.value)
