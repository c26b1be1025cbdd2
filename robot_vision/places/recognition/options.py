"""Settings of the recogniser, each with the reason for its default."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robot_vision.errors import ConfigError


@dataclass(frozen=True)
class RecogniserOptions:
    """What the same place is, how the camera moves, and when a match is accepted.

    Attributes:
        top_k: candidates in an answer.
        search_k: keyframes that are looked up for it: neighbours of the best one must not hide the other
            places that look alike.
        radius_m: keyframes within it of each other (and within `heading_deg`) are one place.
        heading_deg: turned by more, a camera sees other things.
        accept_probability: of the best place, from which on a match is accepted. A wrong relocalisation
            costs a robot more than a second of waiting.
        sequence: whether earlier images count (a Bayes filter over places); without, each image is
            recognised by itself.
        max_speed_m_s: of the camera, where there is no odometry; 0 learns it from the map's own stamps.
        max_turn_deg_s: the same for its rotation.
        odometry_noise: standard deviation of odometry's distance as a share of it, slip included.
        odometry_noise_deg_m: of its rotation for each metre.
        odometry_timeout_s: odometry that is older than the image by so much has stopped and is not used.
        interval_s: without odometry, images that follow sooner show the same and count as one.
        miss: share of images of a place in the map that do not have it among their matches: blurred,
            occluded, somebody in front of the camera.
        kidnap_per_s: chance for each second that the camera is somewhere else at once: carried, or the
            odometry jumped. Once in a quarter of an hour.
        enter_per_s: chance for each second that a camera off the map enters it: once in a minute.
        in_map: prior probability that the camera is in the map; nobody knows.
    """

    top_k: int = 10
    search_k: int = 64
    radius_m: float = 1.0
    heading_deg: float = 45.0
    accept_probability: float = 0.95
    sequence: bool = True
    max_speed_m_s: float = 0.0
    max_turn_deg_s: float = 90.0
    odometry_noise: float = 0.1
    odometry_noise_deg_m: float = 5.0
    odometry_timeout_s: float = 0.5
    interval_s: float = 0.5
    miss: float = 0.2
    kidnap_per_s: float = 1e-3
    enter_per_s: float = 0.02
    in_map: float = 0.5

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "top_k": (1, 1000),
            "search_k": (1, 10_000),
            "radius_m": (1e-3, 1e4),
            "heading_deg": (1.0, 180.0),
            "accept_probability": (0.0, 1.0),
            "max_speed_m_s": (0.0, 1e3),
            "max_turn_deg_s": (0.0, 1e4),
            "odometry_noise": (0.0, 10.0),
            "odometry_noise_deg_m": (0.0, 180.0),
            "odometry_timeout_s": (1e-3, 1e3),
            "interval_s": (0.0, 1e3),
            "miss": (1e-3, 0.999),
            "kidnap_per_s": (1e-9, 1e3),
            "enter_per_s": (1e-9, 1e3),
            "in_map": (1e-3, 0.999),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not math.isfinite(value) or not low <= value <= high:
                raise ConfigError(f"Setting {name} is {value!r}: use {low:g} to {high:g}")
