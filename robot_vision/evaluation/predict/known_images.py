"""Says which images of a recording its model has seen before: by then its numbers are too good."""

from __future__ import annotations

import hashlib
from typing import Any

from robot_vision.bundle import ModelBundle
from robot_vision.datasets.image_sketch import found_in
from robot_vision.recordings.bag_file import stored_bytes


class KnownImages:
    """Compares images with those that a bundle was trained, chosen and calibrated on, where it says so.

    `see` may be called by several threads.
    """

    def __init__(self, bundle: ModelBundle) -> None:
        sketches = {
            "was trained on": bundle.training.get("training_image_sketch"),
            "was chosen on in training": bundle.training.get("validation_image_sketch"),
            "was calibrated on": bundle.calibration.get("data", {}).get("image_sketch"),
        }
        self._name = bundle.name
        self._sketches = {use: data for use, data in sketches.items() if data is not None}
        self._seen: list[str] = []

    def see(self, message: Any) -> None:
        """Remembers an image message, as recorded."""
        if self._sketches:
            self._seen.append(hashlib.sha256(stored_bytes(message)).hexdigest())

    def notes(self) -> list[str]:
        """Returns a line for each use of images that were seen.

        Raises:
            ConfigError: the bundle's record of its images cannot be read.
        """
        shares = {use: found_in(data, self._seen)[1] for use, data in self._sketches.items()}
        return [
            f"{100 * share:.3g} % of the images are among those that {self._name} {use}: "
            "its numbers on them are better than on new ones"
            for use, share in shares.items()
            if share > 0
        ]
