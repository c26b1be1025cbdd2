"""Fuzzing: every byte that comes from outside, thrown at what reads it.

`python -m fuzz` runs all targets; `make fuzz` does so with the tools installed. See docs/reliability.md.
"""
