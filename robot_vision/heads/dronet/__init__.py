"""How to steer, and whether something is in the way (Loquercio et al. 2018)."""

from robot_vision.heads.dronet.head import HEAD

__all__ = ["HEAD"]
