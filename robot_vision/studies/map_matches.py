"""Which places of a map each image of a recording shows, as the place node says it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.places.index.index_cache import open_index
from robot_vision.places.map.base import PlaceMap
from robot_vision.places.recognition.recogniser import Recogniser, RecogniserOptions


@dataclass(frozen=True, eq=False)
class Matches:
    """The places that an image may show.

    Attributes:
        stamp_ns: of the image.
        ranked: id of the keyframe, its probability and its position (3,) in the map; most probable first.
        accepted: id of the one that is accepted; empty for none.
    """

    stamp_ns: int
    ranked: tuple[tuple[str, float, NDArray[np.float64]], ...]
    accepted: str


def matches(places: PlaceMap, predictions: Predictions) -> list[Matches]:
    """Returns what a map says of each image, in the order of their stamps.

    Raises:
        ConfigError: the images have no descriptors.
    """
    if predictions.descriptor is None:
        raise ConfigError("The model says nothing of places: --map needs one with a place head")
    recogniser = Recogniser(places, open_index(places), RecogniserOptions())
    order = predictions.stamps_ns.argsort(kind="stable")
    found = []
    for i in order:
        stamp_ns = int(predictions.stamps_ns[i])
        said = recogniser.observe(predictions.descriptor[i], stamp_ns)
        ranked = tuple((str(c.keyframe_id), c.probability, c.position) for c in said.candidates)
        accepted = ranked[0][0] if said.accepted and ranked else ""
        found.append(Matches(stamp_ns, ranked, accepted))
    return found
