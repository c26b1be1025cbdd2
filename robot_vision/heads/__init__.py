"""Heads: one folder each, found by name (`robot_vision.contract.registry`)."""
