"""Recordings of cameras, whatever their form: `open_source` gives frames one after the other."""

from robot_vision.recordings.base import CompressedImage, Frame, RawImage, Source
from robot_vision.recordings.opening import open_source

__all__ = ["CompressedImage", "Frame", "RawImage", "Source", "open_source"]
