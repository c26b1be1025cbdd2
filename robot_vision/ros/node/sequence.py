"""How many messages a subscription never saw, by the gaps in their publishers' sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import rclpy.subscription

# Humble's rclpy tells no callback about its message, and not every middleware numbers what it sends.
NUMBERED = hasattr(rclpy.subscription, "MessageInfo")
_NO_NUMBER = (1 << 64) - 1  # RMW_MESSAGE_INFO_SEQUENCE_NUMBER_UNSUPPORTED
_MOST = 64  # publishers that are remembered: each start of one is another


def publisher_of(info: Mapping[str, Any]) -> bytes:
    """Returns what identifies the publisher of a message; empty where the middleware does not say."""
    return bytes((info.get("publisher_gid") or {}).get("data") or b"")


class MessageSequence:
    """The numbers of one subscription's messages.

    What is missing was lost on the way, or replaced in the middleware's queue before the executor came to it.

    Args:
        lost: is called with how many are missing.
    """

    def __init__(self, lost: Callable[[int], Any]) -> None:
        self._lost = lost
        self._last: dict[bytes, int] = {}

    def take(self, info: Mapping[str, Any]) -> None:
        """Notes what rclpy says of a message."""
        number = info.get("publication_sequence_number", _NO_NUMBER)
        publisher = publisher_of(info)
        if number == _NO_NUMBER or not publisher:
            return
        last = self._last.get(publisher)
        if last is None and len(self._last) >= _MOST:
            self._last.clear()
        if last is not None and number > last + 1:
            self._lost(number - last - 1)
        self._last[publisher] = number
