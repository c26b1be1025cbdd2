"""A camera in the physical world, from which tests write each format by that format's own definition."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation


@dataclass(frozen=True)
class Camera:
    """Where it is, where it looks and which way its right is, in the map: no matrix, no quaternion."""

    centre: np.ndarray
    forward: np.ndarray
    right: np.ndarray

    @property
    def down(self) -> np.ndarray:
        return np.cross(self.forward, self.right)

    def coordinates(self, point: np.ndarray) -> np.ndarray:
        """How far a point is to the right, below and in front."""
        ray = point - self.centre
        return np.array([ray @ self.right, ray @ self.down, ray @ self.forward])

    def sees(self, T_map_camera: np.ndarray, point: np.ndarray) -> np.ndarray:
        """The same through a pose: `p_camera = inv(T_map_camera) @ p_map`."""
        return (np.linalg.inv(T_map_camera) @ np.append(point, 1.0))[:3]


def camera(i: int = 0) -> Camera:
    """Camera i of a walk, tilted and rolled so that no two axes can be exchanged unnoticed."""
    forward = np.array([np.cos(0.1 * i), np.sin(0.1 * i), -0.3])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.2, 0.1, 1.0])
    right /= np.linalg.norm(right)
    return Camera(np.array([0.1 * i, 2.0 - 0.05 * i, 1.5]), forward, right)


POINT = np.array([4.0, -1.0, 0.5])


def write_image(file: Path, seed: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    """Writes an image whose content follows from the seed; returns its RGB pixels (exact for PNG)."""
    rng = np.random.default_rng(seed)
    image = np.kron(rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3)), np.ones((8, 8, 1)))
    image = image.astype(np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), image[..., ::-1])
    return image


def image_folder(root: Path, counts: dict[str, int], suffix: str = "png") -> Path:
    """Writes `counts[folder]` images in each folder."""
    for f, (folder, count) in enumerate(counts.items()):
        for i in range(count):
            write_image(root / folder / f"{i}.{suffix}", 1000 * f + i)
    return root


def seven_scenes(folder: Path, count: int, suffix: str = "png") -> Path:
    """4 x 4, camera to world: columns right, down, forward, centre."""
    for i in range(count):
        cam = camera(i)
        write_image(folder / f"frame-{i:06}.color.{suffix}", i)
        rows = np.eye(4)
        rows[:3] = np.column_stack((cam.right, cam.down, cam.forward, cam.centre))
        text = "\n".join("\t ".join(f"{v:.7e}" for v in row) + "\t " for row in rows)
        (folder / f"frame-{i:06}.pose.txt").write_text(text + "\n")
    return folder


def twelve_scenes(root: Path, count: int, test: int) -> Path:
    """The frames of 7-Scenes in data; the first `test` of them are sequence0."""
    seven_scenes(root / "data", count, "jpg")
    spans = ((0, test - 1), (test, count - 1))
    lines = [
        f"sequence{i} [frames={b - a + 1}]  [start={a} ; end={b}]" for i, (a, b) in enumerate(spans)
    ]
    (root / "split.txt").write_text("\n".join(lines) + "\n")
    (root / "info.txt").write_text(
        "m_versionNumber = 4\nm_sensorName = StructureSensor\nm_colorWidth = 32\nm_colorHeight = 24\n"
        "m_depthWidth = 16\nm_depthHeight = 12\n"
        "m_calibrationColorIntrinsic = 28.6 0 16.5 0 0 28.7 11.5 0 0 0 1 0 0 0 0 1 \n"
        "m_calibrationDepthIntrinsic = 14 0 8 0 0 14 6 0 0 0 1 0 0 0 0 1 \n"
    )
    return root


def cambridge(root: Path, train: int, test: int) -> Path:
    """Camera centre, then the quaternion w x y z of world to camera."""
    lists = {"dataset_train.txt": ("seq1", train), "dataset_test.txt": ("seq2", test)}
    for file, (sequence, count) in lists.items():
        lines = ["Visual Landmark Dataset V1", "ImageFile, Camera Position [X Y Z W P Q R]", ""]
        for i in range(1, count + 1):
            cam = camera(i)
            name = f"{sequence}/frame{i:05}.png"
            write_image(root / name, i)
            world_to_camera = Rotation.from_matrix(np.stack((cam.right, cam.down, cam.forward)))
            x, y, z, w = world_to_camera.as_quat()
            numbers = " ".join(f"{v:.6f}" for v in (*cam.centre, w, x, y, z))
            lines.append(f"{name} {numbers}")
        (root / file).write_text("\n".join(lines) + "\n")
    return root


def tum(folder: Path, count: int) -> Path:
    """Images at 10 Hz; ground truth at 100 Hz, 3 ms apart from the nearest image."""
    rgb, truth = ["# color images", "# timestamp filename"], ["# ground truth trajectory"]
    for i in range(count):
        stamp = f"{1305031102 + i / 10:.6f}"
        write_image(folder / f"rgb/{stamp}.png", i)
        rgb.append(f"{stamp} rgb/{stamp}.png")
    for k in range(-5, 10 * count):
        cam = camera(k / 10)
        q = Rotation.from_matrix(np.column_stack((cam.right, cam.down, cam.forward))).as_quat()
        values = " ".join(f"{v:.4f}" for v in (*cam.centre, *q))
        truth.append(f"{1305031102 + k / 100 + 0.003:.4f} {values}")
    (folder / "rgb.txt").write_text("\n".join(rgb) + "\n")
    (folder / "groundtruth.txt").write_text("\n".join(truth) + "\n")
    return folder


def icl_nuim(folder: Path, count: int) -> Path:
    """Frame numbers, depth first; POV-Ray's left-handed axes: right, up, forward, in a map with y up."""
    lines, truth = [], []
    for i in range(1, count + 1):
        cam = camera(i)
        write_image(folder / f"rgb/{i}.png", i)
        lines.append(f"{i} depth/{i}.png {i} rgb/{i}.png")
        # A mirror: the map's y is the height here, so the second coordinate of every vector changes its sign.
        right, up, forward, centre = (
            v * [1, -1, 1] for v in (cam.right, -cam.down, cam.forward, cam.centre)
        )
        q = Rotation.from_matrix(np.column_stack((right, up, forward))).as_quat()
        truth.append(f"{i} " + " ".join(f"{v:.6f}" for v in (*centre, *q)))
    (folder / "associations.txt").write_text("\n".join(lines) + "\n")
    (folder / "traj0.gt.freiburg").write_text("\n".join(truth) + "\n")
    return folder


def transforms(root: Path, count: int, file: str = "transforms.json", **extra) -> Path:
    """OpenGL axes: columns right, up, backward, centre."""
    frames = []
    for i in range(count):
        cam = camera(i)
        matrix = np.eye(4)
        matrix[:3] = np.column_stack((cam.right, -cam.down, -cam.forward, cam.centre))
        path = f"images/{Path(file).stem}_{i:03}.png"
        write_image(root / path, i)
        frames.append({"file_path": path, "transform_matrix": matrix.tolist()})
    data = {"fl_x": 30.0, "fl_y": 31.0, "cx": 16.0, "cy": 12.0, "w": 32, "h": 24, "frames": frames}
    (root / file).write_text(json.dumps({**data, **extra}, indent=1))
    return root


def colmap(
    root: Path, count: int, form: str = "bin", model: int = 1, params=(30, 31, 16, 12)
) -> Path:
    """A model by COLMAP's documented layout: world to camera, w x y z, in sparse/0 next to images."""
    names = {
        0: "SIMPLE_PINHOLE",
        1: "PINHOLE",
        2: "SIMPLE_RADIAL",
        4: "OPENCV",
        5: "OPENCV_FISHEYE",
    }
    folder = root / "sparse" / "0"
    folder.mkdir(parents=True)
    poses = []
    for i in range(count):
        cam = camera(i)
        rotation = np.stack((cam.right, cam.down, cam.forward))
        x, y, z, w = Rotation.from_matrix(rotation).as_quat()
        poses.append((w, x, y, z, *(-rotation @ cam.centre)))
        write_image(root / f"images/walk/{i:03}.png", i)
    order = list(reversed(range(count)))  # COLMAP's own order is none that a reader may rely on
    if form == "bin":
        data = struct.pack("<Q", 1) + struct.pack("<iiQQ", 7, model, 32, 24)
        (folder / "cameras.bin").write_bytes(data + struct.pack(f"<{len(params)}d", *params))
        data = struct.pack("<Q", count)
        for i in order:
            data += struct.pack("<i", i + 1) + struct.pack("<7d", *poses[i]) + struct.pack("<i", 7)
            data += f"walk/{i:03}.png".encode() + b"\0"
            data += struct.pack("<Q", 2) + struct.pack("<ddqddq", 1.5, 2.5, -1, 3.5, 4.5, 8)
        (folder / "images.bin").write_bytes(data)
        (folder / "points3D.bin").write_bytes(struct.pack("<Q", 0))
    else:
        numbers = " ".join(map(str, params))
        text = f"#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n7 {names[model]} 32 24 {numbers}\n"
        (folder / "cameras.txt").write_text(text)
        lines = [
            "# Image list with two lines of data per image:",
            "#   POINTS2D[] as (X, Y, POINT3D_ID)",
        ]
        for i in order:
            lines.append(
                f"{i + 1} " + " ".join(f"{v:.9f}" for v in poses[i]) + f" 7 walk/{i:03}.png"
            )
            lines.append("" if i % 2 else "1.5 2.5 -1 3.5 4.5 8 5.5 6.5 9 7.5 8.5 10")
        (folder / "images.txt").write_text("\n".join(lines) + "\n")
    return root


def euroc(root: Path, count: int) -> Path:
    """Images at 20 Hz; the IMU's pose at 200 Hz, w first; the camera is turned and 10 cm away from it."""
    T_body_camera = np.eye(4)
    T_body_camera[:3, :3] = Rotation.from_euler("xyz", [80, 10, -35], degrees=True).as_matrix()
    T_body_camera[:3, 3] = 0.1, -0.02, 0.05
    start = 1403636579763555584
    images, truth = (
        ["#timestamp [ns],filename"],
        [
            "#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], "
            "q_RS_z [], v_RS_R_x [m s^-1], v_RS_R_y [m s^-1], v_RS_R_z [m s^-1]"
        ],
    )
    for i in range(count):
        stamp = start + i * 50_000_000
        write_image(root / f"mav0/cam0/data/{stamp}.png", i)
        images.append(f"{stamp},{stamp}.png")
    for k in range(-10, 10 * count):
        cam = camera(k / 10)
        T_map_camera = np.eye(4)
        T_map_camera[:3] = np.column_stack((cam.right, cam.down, cam.forward, cam.centre))
        T = T_map_camera @ np.linalg.inv(T_body_camera)
        x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
        numbers = ",".join(f"{v:.9f}" for v in (*T[:3, 3], w, x, y, z, 0.1, 0.2, 0.3))
        truth.append(f"{start + k * 5_000_000},{numbers}")
    (root / "mav0/cam0/data.csv").write_bytes("\r\n".join(images).encode())
    (root / "mav0/state_groundtruth_estimate0").mkdir()
    (root / "mav0/state_groundtruth_estimate0/data.csv").write_text("\n".join(truth))
    values = ", ".join(f"{v:.12f}" for v in T_body_camera.ravel())
    (root / "mav0/cam0/sensor.yaml").write_text(
        f"# General\nsensor_type: camera\nT_BS:\n  cols: 4\n  rows: 4\n  data: [{values}]\n"
        "rate_hz: 20\nresolution: [32, 24]\ncamera_model: pinhole\nintrinsics: [30.0, 31.0, 16.0, 12.0]\n"
        "distortion_model: radial-tangential\ndistortion_coefficients: [-0.28, 0.07, 0.0002, 0.00002]\n"
    )
    return root


def kitti(root: Path, count: int, sequence: str = "00") -> Path:
    """Poses of camera 0; camera 2 is 6 cm to its left, as P2 = K [I | t] says."""
    folder = root / "sequences" / sequence
    K = np.array([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]])
    centre = np.array([-0.06, 0.01, 0.002])  # of camera 2 in camera 0
    rows = []
    for i in range(count):
        cam = camera(i)
        write_image(folder / f"image_2/{i:06}.png", i)
        R = np.column_stack((cam.right, cam.down, cam.forward))
        rows.append(np.column_stack((R, cam.centre - R @ centre)).ravel())
    (root / "poses").mkdir(exist_ok=True)
    np.savetxt(root / f"poses/{sequence}.txt", rows, fmt="%.9e")
    np.savetxt(folder / "times.txt", np.arange(count) * 0.1, fmt="%.6e")
    lines = []
    for i, t in enumerate((np.zeros(3), [-0.5, 0, 0], -centre, [-0.5, 0, 0])):
        P = K @ np.column_stack((np.eye(3), t))
        lines.append(f"P{i}: " + " ".join(f"{v:.12e}" for v in P.ravel()))
    (folder / "calib.txt").write_text("\n".join([*lines, "Tr: " + " ".join(["0"] * 12)]))
    return root


def msls(root: Path, city: str, lat: float, lon: float, zone_east: float, count: int = 4) -> Path:
    """A city of Mapillary's sequences: images 10 m apart to the east, the last one a panorama."""
    for s, side in enumerate(("database", "query")):
        folder = root / "train_val" / city / side
        placed, raw = (
            [",key,easting,northing,night,control_panel,view_direction,unique_cluster"],
            [",key,lon,lat,ca,captured_at,pano"],
        )
        for i in range(count):
            key = f"{city}-{side}_{i}"
            write_image(folder / f"images/{key}.jpg", 100 * s + i)
            placed.append(f"{i},{key},{zone_east + 10 * i},{6000000.5 + s},False,False,Forward,{i}")
            east = lon + 10 * i / (111320 * np.cos(np.radians(lat)))
            raw.append(f"{i},{key},{east:.9f},{lat},{90 * s},1500000000000,{i == count - 1}")
        (folder / "postprocessed.csv").write_text("\n".join(placed))
        (folder / "raw.csv").write_text("\n".join(raw))
    return root


def gsv_cities(root: Path, city: str, places: int, lat: float, lon: float) -> Path:
    """Three images a place, in three years; places 100 m apart to the north."""
    rows = ["place_id,year,month,northdeg,city_id,lat,lon,panoid"]
    for p in range(places):
        for k in range(3):
            at = lat + p * 100 / 111195, lon + k * 1e-6
            where = f"{at[0]:.7f}", f"{at[1]:.7f}"
            rows.append(
                f"{p},{2010 + k},{k + 1},{45 * k},{city},{where[0]},{where[1]},pano_{p}-{k}"
            )
            name = f"{city}_{p:07}_{2010 + k}_{k + 1:02}_{45 * k:03}_{where[0]}_{where[1]}_pano_{p}-{k}.jpg"
            write_image(root / "Images" / city / name, 10 * p + k)
    (root / "Dataframes").mkdir(exist_ok=True)
    (root / "Dataframes" / f"{city}.csv").write_text("\n".join(rows))
    return root


def turn_by_exif(folder: Path, orientation: int = 6) -> None:
    """Writes an EXIF orientation into the images of a folder; their pixels stay."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    for file in folder.iterdir():
        Image.open(file).save(file, exif=exif)


def place_name(east, north, heading="", zone="10", letter="S"):
    """The benchmark's file name."""
    return f"@{east}@{north}@{zone}@{letter}@37.1@-122.2@pano@@{heading}@@@@@note@.jpg"
