"""Counts in sentences: one image, two images."""

from __future__ import annotations

import re

_OF_ONE = {
    "are hidden images": "is a hidden image",
    "are links": "is a link",
    "are no images by their names": "is no image by its name",
    "are panoramas": "is a panorama",
    "are no regular files": "is no regular file",
    "their names say": "its name says",
    "are": "is",
    "do": "does",
    "have": "has",
    "hold": "holds",
    "lie": "lies",
    "repeat": "repeats",
    "their": "its",
    "them": "it",
    "they": "it",
    "were": "was",
}
# Not within a path or a quoted name.
_OF_SEVERAL = rf"(?<![\w/'.-])({'|'.join(_OF_ONE)})(?![\w/'.-])"


def counted(count: int, one: str, several: str = "") -> str:
    """Returns a number and the words behind it, such as `1 image is` or `2 images are`.

    Args:
        count: of whatever it is.
        one: the words for one.
        several: for any other number; empty adds an s.
    """
    return f"{count} {one if count == 1 else several or one + 's'}"


def agreeing(count: int, text: str) -> str:
    """Returns what is said of several things, such as `are empty`, so that it fits their number."""
    if count != 1:
        return text
    return re.sub(_OF_SEVERAL, lambda match: _OF_ONE[match.group()], text)
