"""The rendered home: its shape, its surfaces, the camera that sees it."""
