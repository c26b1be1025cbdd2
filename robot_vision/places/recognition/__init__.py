"""Recognising places: by one image, and by a sequence of them."""
