"""Engines that run a bundle's network behind one protocol: ONNX Runtime, OpenVINO, torch."""

from robot_vision.engines.base import Engine
from robot_vision.engines.factory import available_engines, create_engine

__all__ = ["Engine", "available_engines", "create_engine"]
