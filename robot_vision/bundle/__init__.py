"""Model bundles: what they hold, how they are verified, and where installed ones are found."""

from robot_vision.bundle.bundle import ModelBundle

__all__ = ["ModelBundle"]
