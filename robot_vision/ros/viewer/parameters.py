"""The parameters of the viewer node."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.ros.node.managed_parameters import ManagedParameters
from robot_vision.settings.parameters import LIVE, parameter


@dataclass(frozen=True)
class ViewerParameters(ManagedParameters):
    """Settings of the viewer node; each field's text is its documentation."""

    topics: tuple[str, ...] = parameter(
        (),
        "Topics to show, as full names or patterns such as /perception/*, in which * stands for any "
        "text. Empty: all that can be shown.",
    )
    map: str = parameter(
        "", "Place map whose keyframes are shown, as `place_node` takes it. Empty: none."
    )
    host: str = parameter(
        "127.0.0.1",
        "Address that the page is served on: 127.0.0.1 is for this machine alone, 0.0.0.0 for everybody "
        "in the network.",
    )
    port: int = parameter(
        9870, "Port of the page; the data come over the next one.", low=1, high=65534
    )
    memory_mb: int = parameter(
        512,
        "Memory of the server, in MB; beyond it the oldest data are dropped.",
        low=16,
        high=65536,
    )
    max_rate_hz: float = parameter(
        5.0,
        "Largest rate at which messages of one topic are shown, in Hz; the others are left out and "
        "counted. 0: all.",
        low=0,
        high=1000,
        change=LIVE,
    )
    image_side: int = parameter(
        640,
        "Longest side of a picture, in pixels; larger ones are made smaller.",
        low=32,
        high=4096,
    )
