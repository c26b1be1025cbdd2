"""What can be set of how cells are published."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.heads.pose.options import MAP_FRAME
from robot_vision.settings.parameters import parameter


@dataclass(frozen=True)
class CellsOptions:
    """Settings of the perception node; each field's text is its documentation."""

    map_frame: str = parameter(*MAP_FRAME)


OPTIONS = CellsOptions
