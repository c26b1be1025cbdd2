"""A descriptor by which a place is recognised: NetVLAD, GeM, SALAD, BoQ, MixVPR or CosPlace."""

from robot_vision.heads.place.head import HEAD

__all__ = ["HEAD"]
