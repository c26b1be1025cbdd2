"""Rendered homes: their shape, their surfaces, the camera that sees them."""
