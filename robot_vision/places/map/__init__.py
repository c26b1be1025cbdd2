"""Keyframes on disk or on a server: making, copying, merging and drawing maps."""
