"""The parameters of the camera player."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.settings.parameters import LIVE, NEVER, parameter

STAMPS = ("auto", "recorded", "now")
RELIABILITY = ("reliable", "best_effort")


@dataclass(frozen=True)
class PlayerParameters:
    """Settings of the camera player; each field's text is its documentation."""

    source: str = parameter(
        "",
        "Recording to play: a rosbag (ROS 1 .bag, rosbag2 with SQLite or MCAP), a video, a folder "
        "of images, an image, or a pattern such as run*/*.jpg.",
        change=NEVER,
    )
    topics: tuple[str, ...] = parameter(
        (),
        "Image topics of a bag to play; empty plays all. Each camera's camera_info is played too.",
        change=NEVER,
    )
    output_topics: tuple[str, ...] = parameter(
        (),
        "Output topic of each camera, without /compressed; camera_info is published in the same "
        "namespace. Empty keeps the recorded names (/camera/image_raw where there are none), in the"
        " node's namespace.",
        change=NEVER,
    )
    transport: str = parameter(
        "as_recorded",
        "Form of the published images: raw decodes compressed images, compressed encodes raw ones "
        "as JPEG, as_recorded changes nothing.",
        choices=("as_recorded", "raw", "compressed"),
        change=NEVER,
    )
    frame_id: str = parameter(
        "", "Frame of every published header; empty keeps the recorded one.", change=NEVER
    )
    stamps: str = parameter(
        "auto",
        "Header stamps: recorded, or now for the time of publication. auto keeps the stamps of "
        "bags, and uses now for images and videos, which have none. An image and its camera_info "
        "share a stamp.",
        choices=STAMPS,
        change=NEVER,
    )
    rate_hz: float = parameter(
        0.0,
        "Rate of the image topic with the most images, in Hz; 0 plays at the recorded pace.",
        low=0.0,
        high=1000.0,
        change=NEVER,
    )
    file_rate_hz: float = parameter(
        30.0,
        "Recorded rate assumed for image files, which have no times, in Hz.",
        low=0.001,
        high=1000.0,
        change=NEVER,
    )
    speed: float = parameter(
        1.0,
        "Factor on the recorded pace. A gap of more than an hour in the log, as after a change of "
        "the clock, is skipped.",
        low=0.01,
        high=100.0,
        change=NEVER,
    )
    start_s: float = parameter(
        0.0,
        "Time to skip at the start of the recording, in seconds.",
        low=0.0,
        high=1e9,
        change=NEVER,
    )
    duration_s: float = parameter(
        0.0,
        "Length of the part of the recording that is played, in seconds; 0 plays to the end.",
        low=0.0,
        high=1e9,
        change=NEVER,
    )
    loop: bool = parameter(
        False, "Start again at the end. Recorded stamps then jump back.", change=LIVE
    )
    clock_hz: float = parameter(
        0.0,
        "Rate of /clock, which then follows the time of the recording, for nodes with use_sim_time,"
        " in Hz; 0 publishes no clock.",
        low=0.0,
        high=1000.0,
        change=NEVER,
    )
    wait_for_subscribers: int = parameter(
        0,
        "Number of subscribers that each image topic must have before playback starts.",
        low=0,
        high=100,
        change=NEVER,
    )
    exit_at_end: bool = parameter(
        True, "End the process when everything has been played.", change=LIVE
    )
    reliability: str = parameter(
        "reliable",
        "QoS reliability of the images. reliable serves every subscriber; best_effort is what many "
        "camera drivers offer.",
        choices=RELIABILITY,
        change=NEVER,
    )
    depth: int = parameter(
        5,
        "QoS history of the images, in messages, for slow subscribers.",
        low=1,
        high=1000,
        change=NEVER,
    )
