"""Where a bag's camera was: a pose topic, odometry, or tf, interpolated to the images' stamps.

Conventions (REP 103, REP 105): metres, quaternions x y z w. A pose topic gives `T_frame_base` with the
header's frame above; odometry names its base in `child_frame_id`; tf gives `T_parent_child`. The
camera's frame is the image header's `frame_id`, an optical frame (z forward). Stamps are those of the
headers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, SourceError, unknown
from robot_vision.geometry.earth import (
    EARTH,
    FARTHEST_M,
    apart_m,
    east_north,
    normals,
    on_earth,
    parsed_datum,
)
from robot_vision.geometry.frames import FrameTree, plain_frame
from robot_vision.geometry.rigid import pose_matrix
from robot_vision.geometry.trajectory import Trajectory, TrajectoryBuilder
from robot_vision.messages.stamps import stamp_to_ns
from robot_vision.messages.types import POSE_STAMPED, POSE_WITH_COVARIANCE_STAMPED
from robot_vision.recordings.bag import calls_itself_truth
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.text.counts import counted
from robot_vision.truth.pose_checks import rotation_from_quaternion

ODOMETRY = "nav_msgs/msg/Odometry"
NAV_SAT_FIX = "sensor_msgs/msg/NavSatFix"
POSE_KINDS = (POSE_STAMPED, POSE_WITH_COVARIANCE_STAMPED, ODOMETRY)
TF_KINDS = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")

Report = Callable[[SourceError], None]
_PLANE_M = 2e4  # from the datum: what a plane holds exactly
_HIGHEST_M = 1e5

Lookup = Callable[[NDArray[np.int64]], tuple[NDArray[np.float64], NDArray[np.bool_]]]


@dataclass(frozen=True)
class PoseRequest:
    """What the user asked for; see the options of the same names in `rosbag`."""

    source: str
    topic: str
    map_frame: str
    camera_frame: str
    base_frame: str
    base_to_camera: str
    max_gap_ns: int
    datum: str = ""


@dataclass(frozen=True)
class CameraPoses:
    """Answers where the camera was.

    Attributes:
        at: `T_map_camera` (M, 4, 4) at stamps int64 (M,), and which hold (M,).
        map_frame: the poses' frame.
        text: where they come from, for people.
        stamps_ns: int64 (L,), of the poses; None where they are a chain of several (tf).
        oriented: whether they are poses: not where a receiver of GPS gives positions alone.
    """

    at: Lookup
    map_frame: str
    text: str
    stamps_ns: NDArray[np.int64] | None = None
    oriented: bool = True


def camera_poses(bag: BagFile, request: PoseRequest, report: Report) -> CameraPoses | None:
    """Returns the camera's poses from the best source that the bag has, or from the one asked for.

    In this order: a topic that was named; tf, where it connects the map's frame to the camera's; the only
    PoseStamped or PoseWithCovarianceStamped topic; the only Odometry topic; tf from the camera's root. Of
    several topics the only one that calls itself truth is taken.

    Raises:
        ConfigError: the topic or frame asked for does not exist, there are several to choose from, or what
            was asked for contradicts itself.
        SourceError: the source contradicts itself.
    """
    if request.topic and request.source in ("tf", "none"):
        raise ConfigError(
            f"pose_topic is {request.topic} and pose_source {request.source}: leave one of them out"
        )
    if request.source == "none":
        return None
    tree, notes = frame_tree(bag, report)
    if request.topic and bag.kinds.get(request.topic) == NAV_SAT_FIX:
        return _from_fixes(bag, request, report)
    if request.datum:
        fixes = ", ".join(t for t, kind in bag.kinds.items() if kind == NAV_SAT_FIX) or "none here"
        raise ConfigError(
            f"datum is for latitudes and longitudes: set pose_topic to a NavSatFix ({fixes}) or leave it out"
        )
    if request.topic or request.source == "topic":
        return _from_topic(bag, _chosen(bag, request.topic, POSE_KINDS), tree, request, report)
    _refuse_loops(tree, request.map_frame, request.camera_frame)
    if request.source == "tf" or tree.between(request.map_frame, request.camera_frame):
        return _from_tf(tree, notes, request)
    for kinds in ((POSE_STAMPED, POSE_WITH_COVARIANCE_STAMPED), (ODOMETRY,)):
        if any(kind in kinds for kind in bag.kinds.values()):
            return _from_topic(bag, _chosen(bag, "", kinds), tree, request, report)
    return None


def _chosen(bag: BagFile, topic: str, kinds: tuple[str, ...]) -> str:
    there = [t for t, k in bag.kinds.items() if k in kinds]
    if topic:
        if topic not in there:
            there += [t for t, k in bag.kinds.items() if k == NAV_SAT_FIX]
            raise ConfigError(f"{unknown('pose topic', topic, there or ['none'])} (in {bag.path})")
        return topic
    if len(there) > 1:
        there = [t for t in there if calls_itself_truth(t)] or there
    if len(there) != 1:
        what = f"{len(there)} pose topics ({', '.join(there)})" if there else "no pose topic"
        raise ConfigError(f"{bag.path} has {what}: set pose_topic, or pose_source to tf or none")
    return there[0]


def _from_topic(
    bag: BagFile, topic: str, tree: FrameTree[Trajectory], request: PoseRequest, report: Report
) -> CameraPoses:
    builder = TrajectoryBuilder(f"{bag.path}:{topic}", report)
    frames: dict[tuple[str, str], None] = {}
    for record in bag.raw([topic]):
        message, kind, log_ns = bag.message(record), record.kind, record.log_ns
        pose = message.pose if kind == POSE_STAMPED else message.pose.pose
        child = message.child_frame_id.lstrip("/") if kind == ODOMETRY else ""
        frames[message.header.frame_id.lstrip("/"), child] = None
        builder.add(
            stamp_to_ns(message.header.stamp) or log_ns, *_numbers(pose.position, pose.orientation)
        )
    if len(frames) > 1:
        raise SourceError(f"{bag.path}:{topic} changes its frames: {', '.join(map(str, frames))}")
    (above, child), *_ = frames or {("", ""): None}
    base = request.base_frame or child
    T_base_camera, how = _extrinsics(f"{bag.path}:{topic}", base, tree, request)
    trajectory = builder.build()

    def at(stamps_ns: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        poses, holds = trajectory.at(stamps_ns, request.max_gap_ns)
        return poses @ T_base_camera, holds

    text = "; ".join([f"poses are those of {topic}, {how}", *builder.notes()])
    return CameraPoses(at, above or request.map_frame, text, trajectory.stamps_ns)


def _from_fixes(bag: BagFile, request: PoseRequest, report: Report) -> CameraPoses:
    """Returns positions by GPS in metres from the datum: x east, y north, z up from the sea.

    For the datum `earth` they are those from the middle of the earth, in the frame of that name.
    """
    place = f"{bag.path}:{request.topic}"
    for option in ("base_to_camera", "base_frame"):
        if getattr(request, option):
            raise ConfigError(
                f"{place} has no orientation, so that {option} cannot be applied: leave it out, and the "
                "antenna's positions are taken as the camera's"
            )
    around = parsed_datum(request.datum) if request.datum not in ("", EARTH) else None
    middle = normals(*np.array(around or (0.0, 0.0)))
    stamps, rows = list[int](), list[tuple[float, float, float]]()
    left_out, flat = Counter[str](), 0
    for record in bag.raw([request.topic]):
        fix = bag.message(record)
        lat, lon, height = float(fix.latitude), float(fix.longitude), float(fix.altitude)
        if fix.status.status < 0:
            left_out["without a fix (NO_FIX)"] += 1
        elif not (abs(lat) <= 90 and abs(lon) <= 360):  # NaN compares false
            left_out["whose latitude or longitude is no degrees"] += 1
        elif lat == 0 and lon == 0:
            left_out["at latitude 0 and longitude 0, where a receiver has no position"] += 1
        elif around and apart_m(normals(*np.array([lat, lon])), middle) > FARTHEST_M:
            left_out[
                f"more than {FARTHEST_M / 1000:g} km from datum {request.datum} (latitude,longitude)"
            ] += 1
        else:
            known = abs(height) <= _HIGHEST_M  # NaN compares false
            flat += not known
            stamps.append(stamp_to_ns(fix.header.stamp) or record.log_ns)
            rows.append((lat, lon, height if known else 0.0))
    gone = [f"{counted(n, 'message', 'messages')} {why} left out" for why, n in left_out.items()]
    if not rows:
        raise SourceError(f"{place} has no position ({'; '.join(gone) or 'no message'})")
    if not request.datum:
        raise ConfigError(
            f"{place} gives latitude and longitude: set datum to the origin of the map, such as "
            f"{rows[0][0]:.4f},{rows[0][1]:.4f}, the same for all recordings of a place, or to {EARTH}"
        )
    lat, lon, height = np.array(rows).T
    if around is None:
        xyz, far_m, axes = on_earth(normals(lat, lon), height), 0.0, "in its frame"
    else:
        xyz = np.column_stack([east_north(lat, lon, around), height])
        far_m, axes = float(apart_m(normals(lat, lon), middle).max()), "x east, y north"
    builder = TrajectoryBuilder(place, report)
    for stamp, position in zip(stamps, xyz.tolist(), strict=True):
        builder.add(stamp, position, [0.0, 0.0, 0.0, 1.0])
    trajectory = builder.build()
    text = [
        f"positions are those of {request.topic} from datum {request.datum}, {axes}, the antenna's "
        "taken as the camera's; no orientation",
        *gone,
        *(
            [f"{counted(flat, 'message', 'messages')} without altitude: taken as 0 m"]
            if flat
            else []
        ),
        *(
            [f"they reach {far_m / 1000:.0f} km: a plane is exact within 20 km"]
            if far_m > _PLANE_M
            else []
        ),
        *builder.notes(),
    ]
    return CameraPoses(
        lambda stamps_ns: trajectory.at(stamps_ns, request.max_gap_ns),
        EARTH if request.datum == EARTH else request.map_frame,
        "; ".join(text),
        trajectory.stamps_ns,
        oriented=False,
    )


def _extrinsics(
    place: str, base: str, tree: FrameTree[Trajectory], request: PoseRequest
) -> tuple[NDArray[np.float64], str]:
    """Returns `T_base_camera` and how it is known."""
    if request.base_to_camera:
        return parse_transform(request.base_to_camera), "moved by base_to_camera"
    if not base or base == request.camera_frame:
        return np.eye(4), "taken as the camera's own (set base_frame if they are the robot's)"
    _refuse_loops(tree, base, request.camera_frame)
    fixed = tree.lookup(base, request.camera_frame)
    if fixed is None:
        raise ConfigError(
            f"{place} gives poses of {base!r}, and /tf_static does not connect it to the camera's frame "
            f"{request.camera_frame!r}: set base_to_camera to x,y,z,qx,qy,qz,qw or to identity"
        )
    return fixed, f"moved from {base} to {request.camera_frame} by /tf_static"


def _refuse_loops(tree: FrameTree[Trajectory], *frames: str) -> None:
    for frame in frames:
        way = tree.upwards(frame)
        if (above := tree.parent(way[-1])) is not None:
            raise SourceError(f"tf has a loop: {' -> '.join([*way, above])}")


def _from_tf(
    tree: FrameTree[Trajectory], notes: Sequence[str], request: PoseRequest
) -> CameraPoses:
    top, camera = request.map_frame, request.camera_frame
    if tree.between(top, camera) is None:
        root, known = tree.upwards(camera)[-1], ", ".join(tree.frames()) or "none"
        raise ConfigError(
            f"tf does not connect {top!r} to the camera's frame {camera!r}, whose root is {root!r}: "
            f"set map_frame or camera_frame to one of {known}"
        )

    def at(stamps_ns: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        holds = np.ones(len(stamps_ns), bool)

        def link_at(link: Trajectory) -> NDArray[np.float64]:
            nonlocal holds
            poses, known = link.at(stamps_ns, request.max_gap_ns)
            holds = holds & known
            return poses

        found = tree.lookup(top, camera, link_at)
        assert found is not None
        return np.broadcast_to(found, (len(stamps_ns), 4, 4)).copy(), holds

    return CameraPoses(
        at, top, "; ".join([f"poses are those of tf, from {top} to {camera}", *notes])
    )


def frame_tree(bag: BagFile, report: Report) -> tuple[FrameTree[Trajectory], list[str]]:
    """Returns the tree of /tf and /tf_static, and notes on what was left out.

    Raises:
        SourceError: a frame has two parents.
    """
    tree: FrameTree[Trajectory] = FrameTree()
    builders: dict[str, TrajectoryBuilder] = {}
    parents: dict[str, str] = {}
    topics = [t for t, k in bag.kinds.items() if k in TF_KINDS]
    for record in bag.raw(topics):
        topic, log_ns = record.topic, record.log_ns
        is_static = topic.rsplit("/", 1)[-1] == "tf_static"
        for link in bag.message(record).transforms:
            parent, child = plain_frame(link.header.frame_id), plain_frame(link.child_frame_id)
            if parents.setdefault(child, parent) != parent:
                raise SourceError(
                    f"{bag.path}:{topic}: frame {child!r} has two parents, "
                    f"{parents[child]!r} and {parent!r}"
                )
            position, xyzw = _numbers(link.transform.translation, link.transform.rotation)
            if is_static:
                place = f"{bag.path}:{topic}: {parent} -> {child}"
                try:
                    if not np.all(np.isfinite(position)):
                        raise SourceError(f"{place}: translation {position} must be finite")
                    rotation_from_quaternion(np.array(xyzw), place)
                    tree.fix(parent, child, pose_matrix(np.array(position), np.array(xyzw)))
                except SourceError as error:
                    report(error)
            else:
                name = f"{bag.path}:{topic} {parent} -> {child}"
                # Several publishers share /tf, so the log's order is not that of the stamps.
                builder = builders.setdefault(child, TrajectoryBuilder(name, report, ordered=False))
                builder.add(stamp_to_ns(link.header.stamp) or log_ns, position, xyzw)
    for child, builder in builders.items():
        tree.move(parents[child], child, builder.build)
    return tree, [note for builder in builders.values() for note in builder.notes()]


def parse_transform(text: str) -> NDArray[np.float64]:
    """Returns the transform (4, 4) of `x,y,z,qx,qy,qz,qw` or `identity`.

    Raises:
        ConfigError: something else.
    """
    if text == "identity":
        return np.eye(4)
    try:
        values = np.array([float(word) for word in text.replace(",", " ").split()])
        if values.shape != (7,) or not np.all(np.isfinite(values)):
            raise ValueError
        rotation_from_quaternion(values[3:], "Option base_to_camera")
    except SourceError as error:
        raise ConfigError(str(error)) from error
    except ValueError:
        raise ConfigError(
            f"Option base_to_camera is {text!r}: use x,y,z,qx,qy,qz,qw (metres) or identity"
        ) from None
    return pose_matrix(values[:3], values[3:])


def _numbers(position: Any, orientation: Any) -> tuple[list[float], list[float]]:
    xyzw = [orientation.x, orientation.y, orientation.z, orientation.w]
    return [position.x, position.y, position.z], xyzw
