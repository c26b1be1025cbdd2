"""Encodings that `images.raw` does not know, decoded by cv_bridge where it is installed and works.

The released versions of cv_bridge turn no encoding into colours that `images.raw` lacks; one that was built
with a camera maker's own may. A cv_bridge that was built for NumPy 1, as those of apt are, raises nothing
under NumPy 2: the process is gone at the first image. So another process tries it before this one does.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ImageError, unknown
from robot_vision.images.limits import check_size
from robot_vision.images.raw import supported_encodings

# cv_bridge matches names with std::regex, which calls itself for every character.
_LONGEST_NAME = 64
_TRIAL_S = 10.0

# Two pixels through the conversion in C++. The paths are this process's: `-c` would look for modules in the
# working directory first.
_TRIAL = """
import sys
sys.path = sys.argv[1:]
from types import SimpleNamespace
from cv_bridge import CvBridge
two = SimpleNamespace(height=1, width=2, step=2, encoding="mono8", is_bigendian=0, data=bytes([3, 200]))
sys.exit(CvBridge().imgmsg_to_cv2(two, "rgb8").tolist() != [[[3, 3, 3], [200, 200, 200]]])
"""


def decode_foreign(msg: Any, encoding: str) -> NDArray[np.uint8]:
    """Decodes a raw image message of an unknown encoding.

    The first call takes about a second where cv_bridge is installed.

    Args:
        msg: has height, width, encoding, is_bigendian, step and data.
        encoding: the message's, not one of `supported_encodings`.

    Returns:
        RGB uint8 (H, W, 3).

    Raises:
        ImageError: cv_bridge is absent, does not work here, or does not know the encoding either; or
            the image has no size or an absurd one.
    """
    refusal = unknown("image encoding", encoding, supported_encodings())
    if len(encoding) > _LONGEST_NAME:
        raise ImageError("encoding", refusal)
    bridge, reason = _bridge()
    if bridge is None:
        raise ImageError("encoding", f"{refusal}{reason}")
    height, width = int(msg.height), int(msg.width)
    check_size(height, width)
    try:
        whole = _whole_pixels(msg, *bridge.encoding_to_dtype_with_channels(encoding))
        image = np.asarray(bridge.imgmsg_to_cv2(whole, "rgb8"))
    except Exception as error:  # its own, NumPy's and OpenCV's
        text = " ".join(str(error).split())
        raise ImageError("encoding", f"{refusal}; cv_bridge: {text}") from error
    if image.shape != (height, width, 3) or image.dtype != np.uint8:
        text = f"cv_bridge made it {image.dtype} {image.shape}, not uint8 {(height, width, 3)}"
        raise ImageError("encoding", f"{refusal}; {text}")
    return image


def _whole_pixels(msg: Any, dtype: str, channels: int) -> Any:
    """Returns the message with rows of whole pixels: cv_bridge takes any for that and shears others."""
    height, step = int(msg.height), int(msg.step)
    rest = step % (np.dtype(dtype).itemsize * channels)
    if not rest:
        return msg
    rows = np.frombuffer(msg.data, np.uint8)[: height * step].reshape(height, step)
    return SimpleNamespace(
        height=height,
        width=int(msg.width),
        encoding=str(msg.encoding),
        is_bigendian=msg.is_bigendian,
        step=step - rest,
        data=rows[:, :-rest].tobytes(),
    )


@functools.cache
def _bridge() -> tuple[Any | None, str]:
    """Returns a CvBridge that works, or None and what to add to the error."""
    try:
        if importlib.util.find_spec("cv_bridge") is None:
            return None, ""
        import subprocess  # not for every node that starts

        command = [sys.executable, "-c", _TRIAL, *sys.path]
        trial = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TRIAL_S,
            check=False,
        )
        if trial.returncode == 0:
            from cv_bridge import CvBridge

            return CvBridge(), ""
        ending = f"status {trial.returncode}"
    except Exception as error:  # whatever stands in the way, cv_bridge is no more than an extra
        ending = type(error).__name__
    return None, (
        f"; the cv_bridge that is installed does not work with NumPy {np.__version__} ({ending}) "
        "and is not used"
    )
