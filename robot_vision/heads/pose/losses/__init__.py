"""Losses of the pose head."""
