"""The latched topic that says which model gives the results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robot_vision.bundle.bundle import ModelBundle, model_text
from robot_vision.bundle.programs import FLOAT32
from robot_vision.contract.topics import Latched
from robot_vision.messages.making import Maker
from robot_vision.messages.types import VISION_INFO


def model_topic(
    bundle: ModelBundle | None = None, program: str = FLOAT32, engine: str = ""
) -> Latched:
    """Returns the topic of a model; without one it can be named and not written.

    `method` holds name, backbone, heads, what ran (see `model_text`) and the bundle's sha256;
    `database_location` its directory; and `database_version` the first 31 bits of that hash, so that it
    differs when the model does.
    """

    def writer(make: Maker) -> Callable[[Any, Any], Any]:
        new = make(VISION_INFO)
        assert bundle is not None

        def write(stamp: Any, options: Any) -> Any:
            message = new()
            message.header.stamp.sec, message.header.stamp.nanosec = stamp.sec, stamp.nanosec
            message.method = model_text(bundle, program, engine)
            message.database_location = str(bundle.path)
            message.database_version = int(bundle.sha256[:8] or "0", 16) >> 1
            return message

        return write

    return Latched("vision_info", VISION_INFO, "the model's name and hash", writer)
