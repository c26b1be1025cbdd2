"""The driver node: what the camera sees in, commands out."""
