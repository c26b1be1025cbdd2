"""Rendered worlds with robots in them: what a robot sees, how it moves, and who judges its driving."""
