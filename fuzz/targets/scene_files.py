"""Data sets from the internet by their lists: transforms.json, TUM RGB-D, Cambridge, COLMAP, labels."""

from __future__ import annotations

import json
import struct

import cv2
import numpy as np

from fuzz import scratch
from robot_vision.datasets.formats import cambridge, colmap, labels_csv, transforms_json, tum_rgbd
from robot_vision.errors import ConfigError, SourceError

MAX_LEN = 1 << 11
ALLOWED_S = 5.0


def one_input(data: bytes) -> None:
    """Byte 0: the format; then the file, and after a zero byte the second one."""
    first, _, second = data[1:].partition(b"\0")
    choice = data[0] % 6 if data else 0
    if not (scratch.folder() / "scene" / "a.png").is_file():
        picture = cv2.imencode(".png", np.zeros((2, 3, 3), np.uint8))[1].tobytes()
        scratch.file("scene/a.png", picture)
    root = scratch.folder() / "scene"
    try:
        if choice == 0:
            file = scratch.file("scene/transforms.json", first)
            splits = transforms_json.open_splits(file, transforms_json.Options())
        elif choice == 1:
            scratch.file("scene/rgb.txt", first)
            scratch.file("scene/groundtruth.txt", second)
            splits = tum_rgbd.open_splits(root, tum_rgbd.Options())
        elif choice == 2:
            scratch.file("scene/dataset_train.txt", first)
            scratch.file("scene/dataset_test.txt", second)
            splits = cambridge.open_splits(root, cambridge.Options())
        elif choice == 3:
            splits = labels_csv.open_splits(
                scratch.file("scene/t.csv", first), labels_csv.Options()
            )
        else:
            # A zero byte is a part of binary files: their lengths part them.
            end = ".txt" if choice == 4 else ".bin"
            at = 56 if choice == 5 else len(first)
            cameras, images = (data[1 : 1 + at], data[1 + at :]) if choice == 5 else (first, second)
            scratch.file(f"scene/{end[1:]}/cameras{end}", cameras)
            scratch.file(f"scene/{end[1:]}/images{end}", images)
            options = colmap.Options(images=str(root))
            splits = colmap.open_splits(root / end[1:], options)
    except (SourceError, ConfigError):
        return
    for sample in (*splits.train, *splits.validation, *splits.test):
        assert sample.T_map_camera is None or np.isfinite(sample.T_map_camera).all()


def seeds() -> list[bytes]:
    """Returns a scene of each format."""
    frame = {"file_path": "a.png", "transform_matrix": np.eye(4).tolist()}
    whole = {"fl_x": 5, "cx": 1, "cy": 1, "w": 3, "h": 2, "k1": 0.1, "frames": [frame]}
    angle = {"camera_angle_x": 0.7, "frames": [frame], "train_filenames": ["a.png"]}
    huge = b'{"frames": [], "fl_x": ' + b"9" * 400 + b"}"
    tum = b"# stamp file\n1.5 a.png\n\x001.51 0 0 0 0 0 0 1\n"
    line = b"h\nh\n\na.png 0 0 0 1 0 0 0\n"
    cameras = struct.pack("<QiiQQ3d", 1, 1, 0, 3, 2, 5.0, 1.5, 1.0)
    images = (
        struct.pack("<Qi7di", 1, 1, 1.0, 0, 0, 0, 0, 0, 0, 1) + b"a.png\0" + struct.pack("<Q", 0)
    )
    return [
        b"\0" + json.dumps(whole).encode(),
        b"\0" + json.dumps(angle).encode(),
        b"\0" + huge,
        b"\0" + b"[" * 500,
        b"\1" + tum,
        b"\2" + line + b"\0" + line.replace(b"a.png", b"b.png"),
        b"\3" + b'file_name,label\na.png,x\n"b.png",y\n',
        b"\4" + b"# c\n1 PINHOLE 3 2 5 5 1 1\n\0# i\n1 1 0 0 0 0 0 0 1 a.png\n1.5 2.5 -1\n",
        b"\5" + cameras + images,
    ]
