"""Losses by head and name: `make_loss("pose", "homoscedastic")`."""

from robot_vision.training.losses.base import LossValue
from robot_vision.training.losses.registry import loss_names, make_loss

__all__ = ["LossValue", "loss_names", "make_loss"]
