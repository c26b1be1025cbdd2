"""Recordings that label themselves: what was in the way, how it was steered, where the robot went next."""
