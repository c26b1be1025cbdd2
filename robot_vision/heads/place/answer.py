"""What a place head says of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.head import Answer


@dataclass(frozen=True)
class Descriptor(Answer):
    """A global descriptor.

    Attributes:
        values: float32 (D,), L2 norm 1.
    """

    CHECKED: ClassVar[Mapping[str, str]] = {"values": "descriptor"}

    values: NDArray[np.float32]
