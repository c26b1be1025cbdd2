"""Which class each pixel of an image shows: what a robot can drive on, and what it cannot."""
