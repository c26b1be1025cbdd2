"""Camera images: decoded from any encoding, limited in size, resized for the network."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Gives `to_rgb` without loading OpenCV for those who only need the settings of an input."""
    if name == "to_rgb":
        from robot_vision.images.decode import to_rgb

        return to_rgb
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
