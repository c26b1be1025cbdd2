"""The parameters of the camera player."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.ros.parameters import LIVE, NEVER, parameter

STAMPS = ("auto", "recorded", "now")
RELIABILITY = ("reliable", "best_effort")


@dataclass(frozen=True)
class PlayerParameters:
    """Settings of the camera player; each field's text is its documentation."""

    source: str = parameter(
        "",
        "What is played: a rosbag (ROS 1 .bag, rosbag2 with SQLite or MCAP), a video, a folder of "
        "images, an image, or a pattern such as run*/*.jpg.",
        change=NEVER,
    )
    topics: tuple[str, ...] = parameter(
        (),
        "Image topics of a bag to play; empty plays all. Their camera_info comes along.",
        change=NEVER,
    )
    output_topics: tuple[str, ...] = parameter(
        (),
        "Topic for each camera that is played, without /compressed; camera_info goes beside it. Empty keeps "
        "the recorded names (/camera/image_raw where there are none), in the node's namespace.",
        change=NEVER,
    )
    transport: str = parameter(
        "as_recorded",
        "raw decodes compressed images, compressed turns raw ones into JPEG.",
        choices=("as_recorded", "raw", "compressed"),
        change=NEVER,
    )
    frame_id: str = parameter(
        "", "Replaces the frame of every header; empty keeps it.", change=NEVER
    )
    stamps: str = parameter(
        "auto",
        "Header stamps: recorded ones, or the time of publication; auto keeps those of bags and stamps "
        "files, which have none, with now. An image and its camera_info share a stamp.",
        choices=STAMPS,
        change=NEVER,
    )
    rate_hz: float = parameter(
        0.0,
        "Images per second of the topic that has the most; 0 plays at the recorded pace.",
        low=0.0,
        high=1000.0,
        change=NEVER,
    )
    file_rate_hz: float = parameter(
        30.0,
        "Recorded pace of image files, which bear no times.",
        low=0.001,
        high=1000.0,
        change=NEVER,
    )
    speed: float = parameter(
        1.0,
        "Factor on the recorded pace. A pause of the log of more than an hour, as a clock that was set "
        "leaves it, is left out.",
        low=0.01,
        high=100.0,
        change=NEVER,
    )
    start_s: float = parameter(
        0.0, "Seconds of the recording to skip.", low=0.0, high=1e9, change=NEVER
    )
    duration_s: float = parameter(
        0.0,
        "Seconds of the recording to play; 0 plays to the end.",
        low=0.0,
        high=1e9,
        change=NEVER,
    )
    loop: bool = parameter(
        False, "Begin again at the end. Recorded stamps then go back.", change=LIVE
    )
    clock_hz: float = parameter(
        0.0,
        "Rate of /clock, which then follows the recording's time, for nodes with use_sim_time; "
        "0 publishes none.",
        low=0.0,
        high=1000.0,
        change=NEVER,
    )
    wait_for_subscribers: int = parameter(
        0,
        "Do not begin before each image topic has so many subscribers.",
        low=0,
        high=100,
        change=NEVER,
    )
    exit_at_end: bool = parameter(True, "End the process when everything is played.", change=LIVE)
    reliability: str = parameter(
        "reliable",
        "Offered QoS. reliable serves every subscriber; best_effort is what many camera drivers offer.",
        choices=RELIABILITY,
        change=NEVER,
    )
    depth: int = parameter(5, "Images kept for slow subscribers.", low=1, high=1000, change=NEVER)
