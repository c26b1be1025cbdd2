"""A small rendered world, for the demo and for tests."""
