"""Launch arguments and parameters as text."""

from __future__ import annotations

from robot_vision.errors import ConfigError
from robot_vision.ros.node.launch_arguments import overrides
from robot_vision.ros.perception.parameters import PerceptionParameters
from robot_vision.settings.parameters import settings

MAX_LEN = 1 << 8
ALLOWED_S = 2.0
_NAMES = tuple(setting.name for setting in settings(PerceptionParameters))


def one_input(data: bytes) -> None:
    """Byte 0: which parameter; then its text."""
    name = _NAMES[data[0] % len(_NAMES)] if data else _NAMES[0]
    text = data[1:].decode("utf-8", "replace")
    try:
        values = overrides(PerceptionParameters, {name: text})
    except ConfigError:
        return
    assert set(values) <= {name}


def seeds() -> list[bytes]:
    """Returns values of every type, for every parameter."""
    texts = (b"1", b"0.5", b".nan", b"1e400", b"[a, b]", b"a,b", b"true", b"demo", b"2020-13-13")
    return [bytes([i]) + text for i in range(len(_NAMES)) for text in texts]
