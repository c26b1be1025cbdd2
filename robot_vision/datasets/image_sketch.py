"""Which images a model was trained on, in few bytes: the smallest of their hashes.

A bundle cannot hold the hash of each of a million images. Hashes are uniform numbers, so the thousand
smallest ones are a random sample of the images (bottom-k sketch; Cohen and Kaplan 2007), and so is that part
of any other set whose hashes are as small. Up to a thousand images nothing is left out and the answer is
exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from robot_vision.errors import ConfigError

SIZE = 1024
_DIGITS = 12  # 48 bits: two of a million images are alike by chance once in 500 sets


def sketch(hashes: Iterable[str]) -> dict[str, Any]:
    """Returns plain data from the content hashes of a set's images (hexadecimal digits)."""
    short = sorted({h[:_DIGITS] for h in hashes})
    return {"images": len(short), "smallest": " ".join(short[:SIZE])}


def found_in(data: Mapping[str, Any], hashes: Iterable[str]) -> tuple[set[str], float]:
    """Returns which hashes are in the sketch, and what share of all of them is in the sketched set.

    Args:
        data: what `sketch` returned.
        hashes: of the images in question.

    Raises:
        ConfigError: it is no sketch.
    """
    try:
        kept = str(data["smallest"]).split()
        whole = len(kept) >= int(data["images"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"The bundle's record of its training images cannot be read: {error}"
        ) from error
    known, asked = set(kept), set(hashes)
    # Beyond the largest hash that was kept the sketch says nothing.
    decided = asked if whole else {h for h in asked if h[:_DIGITS] <= kept[-1]}
    shared = {h for h in decided if h[:_DIGITS] in known}
    return shared, len(shared) / len(decided) if decided else 0.0
