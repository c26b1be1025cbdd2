"""Transforms: what a node publishes on /tf, and the fixed ones that it reads."""
