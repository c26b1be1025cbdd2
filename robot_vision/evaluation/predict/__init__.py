"""Predictions of a recording: by a bundle, or as a robot recorded them."""
