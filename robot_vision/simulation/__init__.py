"""A small rendered world, for the demo and for tests: NumPy and OpenCV only, no graphics driver."""
