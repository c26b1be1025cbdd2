"""Draws a descriptor as a strip of colours: similar places look alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CELLS = 256


def descriptor_colours(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Returns RGB colours (W, 3) of the descriptor's first numbers."""
    import cv2

    values = values[:_CELLS]
    spread = float(np.abs(values).max()) or 1.0
    cells = np.round(127.5 + 127.5 * values / spread).astype(np.uint8)[None]
    colours = cv2.cvtColor(cv2.applyColorMap(cells, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    return np.asarray(colours[0], np.uint8)
