"""Formats of data sets: one module each, named as `kind` in the data settings."""
