"""Torch networks: a backbone by name, its heads, and their export."""
