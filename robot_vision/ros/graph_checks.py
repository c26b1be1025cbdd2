"""ROS 2 as it is installed here, and the running graph: what keeps images and answers from arriving."""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image

from robot_vision.doctor.finding import ERROR, WARNING, Finding
from robot_vision.errors import ImageError
from robot_vision.geometry.intrinsics import info_topic
from robot_vision.messages.serialized import ImageView, read_compressed_image, read_image
from robot_vision.messages.stamps import stamp_to_ns
from robot_vision.ros.node.dds import (
    CYCLONE_DDS,
    DOMAIN_REMEDY,
    FAST_DDS,
    FOLDER,
    USERS_CHOICES,
    bad_domain,
    find_profile,
    large_image_environment,
    use_large_image_profile,
)
from robot_vision.ros.node.graph import NAMELESS, full_name
from robot_vision.ros.node.process import why_no_start
from robot_vision.ros.node.qos import profile
from robot_vision.ros.node.sequence import NUMBERED, MessageSequence
from robot_vision.text.counts import counted

_PACKAGES = (
    "sensor_msgs",
    "vision_msgs",
    "diagnostic_msgs",
    "geometry_msgs",
    "nav_msgs",
    "tf2_msgs",
)
_LEAST_SHARED = 96 << 20  # segments of a driver, a node and a program that looks on
_SMALL_IMAGE = 400_000  # bytes that Fast DDS's own segment of 512 KiB holds
_LEAST_BUFFER = 4 << 20  # what our profile asks for
_IMAGES = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}
_OLD_S, _AHEAD_S = 1.0, 0.05
_LOST = 0.05
_DISCOVERY_S = 1.0


def ros_findings(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yields what the installation and the environment of this shell are like."""
    rmw = get_rmw_implementation_identifier()
    distro = environment.get("ROS_DISTRO", "")
    where = [f"domain {environment.get('ROS_DOMAIN_ID') or 0}"]
    reach = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    if environment.get("ROS_LOCALHOST_ONLY") == "1" or reach.upper() == "LOCALHOST":
        where.append("this computer only")
    elif reach:
        where.append(f"discovery {reach}")
    yield Finding("ROS 2", ", ".join([*([distro] if distro else []), rmw, *where]))
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        names = " ".join(f"ros-{distro or 'DISTRO'}-{name.replace('_', '-')}" for name in missing)
        yield Finding(
            "packages",
            f"{', '.join(missing)} cannot be imported",
            ERROR,
            f"sudo apt install {names}",
        )
    if rmw in FAST_DDS:
        yield from _fast_dds(environment)
    yield from _receive_buffer(rmw)


def _fast_dds(environment: Mapping[str, str]) -> Iterator[Finding]:
    chosen = [name for name in USERS_CHOICES if environment.get(name)]
    if chosen:
        yield Finding("Fast DDS", f"{chosen[0]} is {environment[chosen[0]]}")
    elif (found := find_profile(environment)) is not None:
        name = next(iter(large_image_environment(environment)))
        yield Finding(
            "Fast DDS",
            "this shell chooses no profile: nodes of this package use their own, other camera drivers lose "
            "most large images",
            WARNING,
            f"export {name}={found} where the camera driver is started",
        )
    try:
        space = shutil.disk_usage(FOLDER)
    except OSError:
        yield Finding(
            "shared memory",
            f"there is no {FOLDER}, so images go over UDP",
            WARNING,
            "in a container: --ipc=host or --shm-size=1g",
        )
        return
    text = f"{space.free >> 20} of {space.total >> 20} MiB are free in {FOLDER}"
    if space.free < _LEAST_SHARED:
        yield Finding(
            "shared memory",
            text,
            WARNING,
            "in a container: --shm-size=1g or --ipc=host; else remove what killed processes left: our nodes "
            "do when they start, as does fastdds shm clean",
        )
    else:
        yield Finding("shared memory", text)


def _receive_buffer(rmw: str) -> Iterator[Finding]:
    try:
        size = int(Path("/proc/sys/net/core/rmem_max").read_text())
    except (OSError, ValueError):
        return
    text = f"net.core.rmem_max is {size >> 10} KiB"
    if size >= _LEAST_BUFFER:
        yield Finding("UDP buffer", text)
    else:
        enlarge = f"sudo sysctl -w net.core.rmem_max={_LEAST_BUFFER * 2}"
        if rmw == CYCLONE_DDS:  # unless its shared memory has been set up
            yield Finding(
                "UDP buffer", f"{text}, too small for images over Cyclone DDS", WARNING, enlarge
            )
            return
        yield Finding(
            "UDP buffer",
            f"{text}, too small for images that come from another computer",
            WARNING,
            f"{enlarge}, or keep images off the network",
        )


@dataclass
class _Heard:
    """What came on a topic of images."""

    kind: str
    bytes: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)
    lost: int = 0
    stamps_of_zero: int = 0
    nameless: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    damaged: str = ""


def graph_findings(seconds: float) -> Iterator[Finding]:
    """Yields what the running graph is like, after listening to its images for some seconds.

    Args:
        seconds: for which all topics of images are subscribed.
    """
    if domain := bad_domain():
        yield Finding("nodes", f"none can be started: {domain}", ERROR, DOMAIN_REMEDY)
        return
    use_large_image_profile()  # as the nodes do: else images are lost here that they get
    context = rclpy.Context()
    try:
        rclpy.init(context=context)
        node = rclpy.create_node(
            "robot_vision_doctor", context=context, start_parameter_services=False
        )
    except Exception as error:  # rcl's classes differ between distributions
        why, remedy = why_no_start(error)
        yield Finding("nodes", f"none can be started: {why}", ERROR, remedy)
        return
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        _spin(executor, _DISCOVERY_S)
        yield from _names(node)
        heard = {topic: _Heard(kind) for topic, kind in _image_topics(node)}
        for topic, what in heard.items():
            _listen(node, topic, what)
        _spin(executor, seconds)
        yield from _incompatible(node)
        if not heard:
            yield Finding(
                "cameras",
                "nobody publishes images",
                WARNING,
                "start the camera driver; it must have the same ROS_DOMAIN_ID and middleware as this shell",
            )
        for topic, what in heard.items():
            yield _camera(node, topic, what, seconds)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)


def _spin(executor: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        executor.spin_once(timeout_sec=left)


def _image_topics(node: Any) -> list[tuple[str, str]]:
    found = node.get_topic_names_and_types()
    return [
        (topic, kinds[0])
        for topic, kinds in sorted(found)
        if kinds[0] in _IMAGES and node.count_publishers(topic)
    ]


def _listen(node: Any, topic: str, heard: _Heard) -> None:
    read = read_image if heard.kind.endswith("/Image") else read_compressed_image

    def lost(count: int) -> None:
        heard.lost += count

    sequence = MessageSequence(lost)

    def take(data: bytes, info: Any = None) -> None:
        heard.at.append(time.monotonic())
        heard.bytes.append(len(data))
        if info is not None:
            sequence.take(info)
        try:
            image = read(data)
        except ImageError as error:
            heard.damaged = str(error)
            return
        stamp = stamp_to_ns(image.header.stamp)
        heard.stamps_of_zero += stamp == 0
        heard.nameless += not image.header.frame_id
        if stamp:
            heard.ages_s.append((node.get_clock().now().nanoseconds - stamp) * 1e-9)
        words = (
            f"{image.width}x{image.height} {image.encoding}"
            if isinstance(image, ImageView)
            else image.format
        )
        heard.sizes[words] += 1

    # rclpy counts a callback's arguments.
    callback = take if NUMBERED else lambda data: take(data)
    node.create_subscription(
        _IMAGES[heard.kind], topic, callback, profile("best_effort", 10), raw=True
    )


def _camera(node: Any, topic: str, heard: _Heard, seconds: float) -> Finding:
    publishers = node.count_publishers(topic)
    if not heard.at:
        return Finding(
            topic,
            f"nothing came in {seconds:g} s from {counted(publishers, 'publisher')}",
            WARNING,
            "the driver may wait for its camera (see what it prints), publish only while a node "
            "that it knows subscribes, or lose large images: see Fast DDS above",
        )
    words = [", ".join(heard.sizes) or "damaged"]
    gaps = [b - a for a, b in zip(heard.at, heard.at[1:], strict=False)]
    rate = len(gaps) / (heard.at[-1] - heard.at[0]) if gaps and heard.at[-1] > heard.at[0] else 0.0
    words.append(f"{rate:.1f} Hz" if rate else "one image")
    words.append(f"{statistics.fmean(heard.bytes) * rate / 1e6:.1f} MB/s")
    if heard.ages_s:
        words.append(f"{1e3 * statistics.median(heard.ages_s):.0f} ms old")
    if heard.lost:
        words.append(f"{heard.lost} of {heard.lost + len(heard.at)} lost")
    if not node.count_publishers(info_topic(topic)):
        words.append("no camera_info")
    text = ", ".join(words)
    problems = list(_problems(node, topic, heard))
    if not problems:
        return Finding(topic, text)
    return Finding(topic, text, WARNING, "; ".join(problems))


def _problems(node: Any, topic: str, heard: _Heard) -> Iterator[str]:
    if heard.damaged:
        yield f"fix the driver: {heard.damaged}"
    if heard.stamps_of_zero:
        yield "stamp the images: answers carry their stamp, and filters refuse zero"
    if heard.ages_s and not _simulated(node):
        age = statistics.median(heard.ages_s)
        if age > _OLD_S:
            yield (
                f"images are {age:.1f} s old: synchronise the clocks (chrony), or, of a recording, play it "
                "with --clock and set use_sim_time"
            )
        elif age < -_AHEAD_S:
            yield f"images are {-age:.2f} s in the future: synchronise the clocks (chrony)"
    if heard.nameless:
        yield "set the driver's frame_id: poses and point clouds need it"
    if heard.lost > _LOST * (heard.lost + len(heard.at)):
        large = max(heard.bytes) > _SMALL_IMAGE
        yield (
            "images are lost: the driver's process needs the profile for large images, see Fast DDS above"
            if large
            else "images are lost: the network or this computer is too slow for their rate"
        )
    if node.count_publishers(topic) > 1:
        yield f"{node.count_publishers(topic)} publishers mix their images: give each a topic of its own"


def _simulated(node: Any) -> bool:
    return bool(node.count_publishers("/clock"))


def _names(node: Any) -> Iterator[Finding]:
    names = Counter(full_name(*each) for each in node.get_node_names_and_namespaces())
    own = node.get_fully_qualified_name()
    others = {name for name in names if name != own}
    twice = [name for name in sorted(others - {NAMELESS}) if names[name] > 1]
    yield Finding("nodes", ", ".join(sorted(others)) or "none but this one is running")
    if twice:
        yield Finding(
            "nodes",
            f"there are several of the name {', '.join(twice)}",
            WARNING,
            "give each a name or namespace of its own (one that crashed is seen for some seconds more)",
        )


def _incompatible(node: Any) -> Iterator[Finding]:
    """Yields each pair of a publisher and a subscriber that cannot hear each other."""
    for topic, kinds in sorted(node.get_topic_names_and_types()):
        publishers = node.get_publishers_info_by_topic(topic)
        subscribers = node.get_subscriptions_info_by_topic(topic)
        if publishers and len(kinds) > 1:
            yield Finding(
                topic,
                f"has messages of {' and '.join(kinds)}",
                WARNING,
                "give each type a topic of its own",
            )
        for there in publishers:
            for here in subscribers:
                verdict, reason = qos_check_compatible(there.qos_profile, here.qos_profile)
                if verdict == QoSCompatibility.ERROR:
                    why = reason.removeprefix("ERROR: ").strip("; ")
                    ends = [
                        full_name(each.node_name, each.node_namespace) for each in (there, here)
                    ]
                    yield Finding(
                        topic,
                        f"{ends[1]} gets nothing from {ends[0]}: {why}",
                        WARNING,
                        "subscribe best effort and volatile, or publish reliable (and latched)",
                    )
