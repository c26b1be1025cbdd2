"""A descriptor by which a place is recognised: NetVLAD or GeM."""

from robot_vision.heads.place.head import HEAD

__all__ = ["HEAD"]
