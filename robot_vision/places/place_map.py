"""Asks a place map where an image was taken: `robot_vision.PlaceMap`.

with PlaceMap.open("home.map", model="runs/my_lab/bundle") as places:
    found = places.query(image)
    if found.accepted:
        print(found.candidates[0].position)
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.errors import ConfigError, is_whole, path_text
from robot_vision.pipeline import Pipeline
from robot_vision.places.map.base import MapInfo
from robot_vision.places.map.base import PlaceMap as Keyframes
from robot_vision.places.map.opening import open_map
from robot_vision.places.recognition.options import RecogniserOptions

if TYPE_CHECKING:  # they need FAISS, which a map that is only looked at does not
    from robot_vision.places.index.index import PlaceIndex
    from robot_vision.places.recognition.recogniser import Recogniser, Recognition

_NO_STAMP = 0  # each image is recognised by itself, so that its time does not matter


class PlaceMap:
    """A map of places that is asked where images were taken. Not thread safe.

    The map is opened for reading; what another process adds to it is found by the next query.

    Attributes:
        keyframes: the map as it is stored (`places.map.base.PlaceMap`): poses, descriptors, pictures.
    """

    def __init__(self, keyframes: Keyframes, model: str | Pipeline | None = None) -> None:
        self.keyframes = keyframes
        self._model = model
        self._own: Pipeline | None = None  # that this object loaded, and closes
        self._recogniser: Recogniser | None = None
        self._index: PlaceIndex | None = None

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], model: str | os.PathLike[str] | Pipeline | None = None
    ) -> PlaceMap:
        """Opens a map.

        Args:
            path: a file, or postgresql://user@host/database?map=NAME.
            model: that made the map, for queries by images: the bundle's directory, the name of an installed
                one, or a pipeline of it, which stays yours to close. Queries by descriptors need none.

        Raises:
            MapMissingError: there is no map.
            MapError: it is damaged, of a newer version, or made by another model.
            ConfigError: there is no such model.
            BundleError: the model is damaged.
        """
        bundle, given = None, None
        if isinstance(model, Pipeline):
            bundle, given = model.bundle, model
        elif model is not None:
            bundle = ModelBundle.load(find_model(path_text(model, "model")))
        keyframes = open_map(path_text(path, "path"), "read", bundle=bundle)
        return cls(keyframes, given or (str(bundle.path) if bundle else None))

    @property
    def info(self) -> MapInfo:
        """What the map says of itself: model, length of descriptors, frame of the poses."""
        return self.keyframes.info

    def __len__(self) -> int:
        return len(self.keyframes)

    def query(self, what: NDArray[Any], k: int = 10) -> Recognition:
        """Looks up where an image was taken.

        Each query stands alone. For a camera that moves, the `places.recognition.recogniser.Recogniser` adds
        what earlier images say, as the place node does.

        Args:
            what: a descriptor, float (D,) of L2 norm 1, such as `prediction["place"].values`; or an image,
                RGB uint8 (H, W, 3), where the map was opened with its model.
            k: candidates at most, 1 to 1000.

        Returns:
            The candidates, most probable first, with position (metres, in frame `info.frame_id`), orientation
            (xyzw), cosine similarity and probability; and whether the first one is `accepted`. No candidates
            for an empty map.

        Raises:
            ConfigError: no descriptor, or one of another length, not finite or not of unit norm; an image
                without a model; `k` out of range; FAISS is not installed.
            ImageError: an array of three dimensions that is no RGB uint8 image.
            MapError: the map cannot be read.
        """
        if not is_whole(k):
            raise ConfigError(f"k is {k!r}: give a whole number, 1 to 1000")
        try:
            array = np.asarray(what)
        except ValueError as error:  # lists of unequal lengths
            raise ConfigError(f"A query is no array: {error}") from error
        descriptor = self._described(array) if array.ndim == 3 else array
        recogniser = self._ready()
        if recogniser.options.top_k != k:
            recogniser.options = replace(recogniser.options, top_k=k)
        return recogniser.observe(descriptor, _NO_STAMP)

    def close(self) -> None:
        """Releases the map, and the model if it was loaded here."""
        self.keyframes.close()
        own, self._own = self._own, None
        if own is not None:
            own.close()

    def __enter__(self) -> PlaceMap:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ready(self) -> Recogniser:
        """Returns the recogniser, which the first query makes, with what the map has now."""
        from robot_vision.places.index.index_cache import open_index, refresh
        from robot_vision.places.recognition.recogniser import Recogniser

        if self._recogniser is None or self._index is None:
            self._index = open_index(self.keyframes)
            options = RecogniserOptions(sequence=False)
            self._recogniser = Recogniser(self.keyframes, self._index, options)
        elif self.keyframes.revision != self._index.revision:
            refresh(self._index, self.keyframes)
            self._recogniser.refresh()
        return self._recogniser

    def _described(self, image: NDArray[Any]) -> NDArray[np.float32]:
        if self._model is None:
            raise ConfigError(
                f"{self.info.uri} was opened without a model: PlaceMap.open(path, model=...) with "
                f"{self.info.bundle_name}, which made it, takes images; without, give a descriptor"
            )
        if isinstance(self._model, str):
            self._own = self._model = Pipeline.load(self._model)
        values: NDArray[np.float32] = self._model(image)["place"].values
        return values
