"""A drive as a rosbag2 with images, true poses, room labels and odometry, and the truth read back from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.demo.wheels import Wheels
from robot_vision.errors import SourceError
from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.messages.stamps import nanoseconds
from robot_vision.recordings.bag import names_topic
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.simulation.drive import DriveFrame
from robot_vision.simulation.world.renderer import Camera, Renderer
from robot_vision.simulation.world.surfaces import SURFACES

CAMERA_FRAME = "camera_optical_frame"
IMAGE_TOPIC = "/camera/image_raw"
INFO_TOPIC = "/camera/camera_info"
POSE_TOPIC = "/truth/pose"
ROOM_TOPIC = "/truth/room"
SURFACE_TOPIC = "/truth/segmentation"
DEPTH_TOPIC = "/truth/depth"


@dataclass(frozen=True)
class DriveTruth:
    """What is true of the frames of a bag, in the order of their stamps.

    Attributes:
        stamps_ns: int64 (N,), of the images.
        positions: float64 (N, 3), metres, of the camera in the map.
        orientations_xyzw: float64 (N, 4), unit, w >= 0.
        rooms: (N,) names.
    """

    stamps_ns: NDArray[np.int64]
    positions: NDArray[np.float64]
    orientations_xyzw: NDArray[np.float64]
    rooms: tuple[str, ...]

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.rooms)

    @classmethod
    def of(cls, frames: Sequence[DriveFrame], start_ns: int = 0) -> DriveTruth:
        """Returns the truth of a drive that was not written to a bag."""
        poses = [frame.T_map_camera for frame in frames]
        return cls(
            np.array([stamp_of(frame, start_ns) for frame in frames], np.int64),
            np.array([pose[:3, 3] for pose in poses]).reshape(-1, 3),
            np.array([xyzw_from_matrix(pose[:3, :3]) for pose in poses]).reshape(-1, 4),
            tuple(frame.room for frame in frames),
        )


def stamp_of(frame: DriveFrame, start_ns: int) -> int:
    """Returns a frame's stamp in nanoseconds in a bag that starts at `start_ns`."""
    return start_ns + nanoseconds(frame.stamp_s)


def record_drive(
    path: str | Path,
    frames: Sequence[DriveFrame],
    images: Iterable[NDArray[np.uint8]],
    camera: Camera,
    start_ns: int,
    renderer: Renderer | None = None,
    wheels: Wheels | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Writes a drive to a rosbag2 while its images are made, and yields each image once written.

    Args:
        path: the bag's directory; it is there once the iterator is exhausted.
        frames: of the drive.
        images: RGB uint8 (H, W, 3), one a frame.
        camera: by which they were rendered.
        start_ns: stamp of the drive's start.
        renderer: says what each pixel shows and how far away it is, if that is wanted too.
        wheels: odometry of the drive, if that is wanted too.

    Raises:
        SourceError: `path` exists already, or cannot be written.
    """
    with RecordingWriter(path) as bag:
        if renderer is not None:
            bag.label_info(names_topic(SURFACE_TOPIC), start_ns, CAMERA_FRAME, SURFACES)
        if wheels is not None:
            wheels.write_mount(bag, start_ns, CAMERA_FRAME)
        for index, (frame, image) in enumerate(zip(frames, images, strict=True)):
            stamp = stamp_of(frame, start_ns)
            pose = frame.T_map_camera
            # The truth first: a player of the bag knows it when the image comes.
            bag.camera_pose(POSE_TOPIC, stamp, pose[:3, 3], xyzw_from_matrix(pose[:3, :3]))
            bag.label(ROOM_TOPIC, stamp, frame.room)
            if wheels is not None:
                wheels.write(bag, index, stamp)
            if renderer is not None:
                surfaces, depth_m = renderer.truth(pose)
                # Millimetres, 0 for nothing, as REP 118 has it.
                depth_mm = np.clip(depth_m * 1000 + 0.5, 0, 65535).astype(np.uint16)
                for topic, encoding, pixels in (
                    (SURFACE_TOPIC, "mono8", surfaces),
                    (DEPTH_TOPIC, "16UC1", depth_mm),
                ):
                    png = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
                    form = f"{encoding}; png compressed"
                    bag.compressed_image(topic, stamp, CAMERA_FRAME, png.tobytes(), form)
            bag.camera_info(INFO_TOPIC, stamp, CAMERA_FRAME, image.shape[:2], camera.k)
            bag.image(IMAGE_TOPIC, stamp, CAMERA_FRAME, image)
            yield image


def read_truth(path: str | Path) -> DriveTruth:
    """Reads what `record_drive` wrote next to the images.

    Raises:
        SourceError: poses or labels are missing.
    """
    poses: dict[int, NDArray[np.float64]] = {}
    rooms: dict[int, str] = {}
    bag = BagFile(Path(path))
    try:
        for record in bag.raw((POSE_TOPIC, ROOM_TOPIC)):
            message = bag.message(record)
            if record.topic == ROOM_TOPIC:
                rooms[record.log_ns] = message.data
            else:
                p, q = message.pose.position, message.pose.orientation
                poses[record.log_ns] = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
    finally:
        bag.close()
    if not poses or set(poses) != set(rooms):
        raise SourceError(
            f"{path} has {len(poses)} true poses and {len(rooms)} room labels: it is no recorded drive"
        )
    stamps = sorted(poses)
    numbers = np.array([poses[stamp] for stamp in stamps])
    return DriveTruth(
        np.array(stamps, np.int64), numbers[:, :3], numbers[:, 3:], tuple(rooms[s] for s in stamps)
    )
