"""The tutorials run as they are written, on small data in place of the reader's own."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore
from train_data import COLOURS
from written_commands import run_page

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.demo.recorded import stamp_of
from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.simulation.drive import evaluation_drive
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.renderer import Camera
from robot_vision.simulation.world.sensor import Sensor, render_frames

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"


def run_tutorial(name):
    """Runs the commands of a page; see `run_page`."""
    pytest.importorskip("torch")
    return run_page((TUTORIALS / name).read_text(encoding="utf-8"))


def write_rooms(root):
    rng = np.random.default_rng(0)
    colours = dict(zip(("kitchen", "corridor", "office"), COLOURS.values(), strict=True))
    for split, count in (("train", 14), ("test", 3)):
        for name, colour in colours.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture = np.array(colour) + rng.normal(0, 25, (48, 64, 3))
                pixels = picture.clip(0, 255).astype(np.uint8)[..., ::-1]
                cv2.imwrite(str(folder / f"{i:03d}.jpg"), pixels)


def walk(frames):
    """Yields images of a striped wall and the poses of the camera that goes along it, in the map."""
    wall = np.random.default_rng(1).integers(0, 255, (8, 40, 3)).astype(np.uint8)
    wall = cv2.resize(wall, (40 * 16, 8 * 16), interpolation=cv2.INTER_CUBIC)
    for i in range(frames):
        x = 2.0 * np.sin(2 * np.pi * i / frames * 1.5)  # m; goes and comes back
        left = int((x + 2) / 4 * (wall.shape[1] - 130))
        angle = 0.2 * np.sin(i / 7)
        pose = np.eye(4)
        pose[:3, :3] = cv2.Rodrigues(np.array([0.0, angle, 0.0]))[0]
        pose[:3, 3] = x, 0.1 * np.cos(i / 5), 1.0
        yield np.ascontiguousarray(wall[:96, left : left + 128]), pose


def write_lab(path, frames=120):
    """Writes what the tutorial records: images, and map -> odom -> base_link -> camera on /tf."""
    types = get_typestore(Stores.ROS2_HUMBLE).types

    def link(parent, child, stamp, pose):
        header = types["std_msgs/msg/Header"](
            types["builtin_interfaces/msg/Time"](*divmod(stamp, 10**9)), parent
        )
        position = types["geometry_msgs/msg/Vector3"](*map(float, pose[:3, 3]))
        turn = types["geometry_msgs/msg/Quaternion"](*map(float, xyzw_from_matrix(pose[:3, :3])))
        return types["geometry_msgs/msg/TransformStamped"](
            header, child, types["geometry_msgs/msg/Transform"](position, turn)
        )

    def send(bag, topic, stamp, *links):
        bag.write(topic, stamp, types["tf2_msgs/msg/TFMessage"](list(links)))

    start = 1_700_000_000 * 10**9
    mounted = np.eye(4)
    mounted[:3, 3] = 0.2, 0.0, 0.5
    offset = np.eye(4)
    offset[:3, 3] = 1.0, -0.5, 0.0
    with RecordingWriter(path, "mcap") as bag:
        send(bag, "/tf_static", start, link("base_link", "camera_optical_frame", start, mounted))
        for i, (image, pose) in enumerate(walk(frames)):
            stamp = start + i * 100_000_000
            robot = np.linalg.inv(offset) @ pose @ np.linalg.inv(mounted)
            send(
                bag,
                "/tf",
                stamp,
                link("map", "odom", stamp, offset),
                link("odom", "base_link", stamp, robot),
            )
            bag.image("/camera/image_raw", stamp, "camera_optical_frame", image)


def write_scene(root):
    for number, frames in ((1, 40), (2, 16)):
        folder = root / f"seq-{number:02d}"
        folder.mkdir(parents=True)
        for i, (image, pose) in enumerate(walk(frames)):
            cv2.imwrite(str(folder / f"frame-{i:06d}.color.png"), image)
            np.savetxt(folder / f"frame-{i:06d}.pose.txt", pose)
    (root / "TrainSplit.txt").write_text("sequence1\n")
    (root / "TestSplit.txt").write_text("sequence2\n")


def write_drive(path, rate=2.5, seconds=30):
    """Writes the images of the demo's drive, and nothing that is true of them."""
    world, camera = default_world(), Camera()
    frames = evaluation_drive(world, rate)[: int(rate * seconds)]
    images = render_frames(world, frames, Sensor(seed=0), camera, workers=1)
    with RecordingWriter(path) as bag:
        for frame, image in zip(frames, images, strict=True):
            bag.image("/camera/image_raw", stamp_of(frame, 1_700_000_000 * 10**9), "camera", image)


def test_first_result_on_my_own_recording(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_drive(tmp_path / "drive")
    done, left = run_tutorial("first-result.md")
    assert [words[0] for words in done] == ["init", "train", "infer", "explain"]
    bundle = ModelBundle.load(tmp_path / "my_rooms/runs/my_rooms/bundle")
    assert list(bundle.spec.heads) == ["classifier"]
    assert bundle.spec.heads["classifier"].labels == ("hall", "kitchen")
    card = Path(bundle.path, "README.md").read_text(encoding="utf-8")
    assert (
        "nearest neighbours, test" in card
    )  # half a minute is long enough for test images of both rooms
    assert list(Path("why").glob("*-classifier.png"))
    assert left == [["ros2", "launch", "./robot.launch.py"]]
    assert Path("robot.launch.py").is_file()


def test_my_own_rooms_from_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rooms(tmp_path / "rooms")
    done, _ = run_tutorial("rooms.md")
    assert [words[0] for words in done] == ["data", "init", "train", "infer", "explain"]
    bundle = ModelBundle.load(tmp_path / "my_rooms/runs/my_rooms/bundle")
    assert bundle.spec.heads["classifier"].labels == ("corridor", "kitchen", "office")
    assert len(list(Path("why").glob("*-classifier.png"))) == 3


def test_my_own_map_from_a_bag(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_lab(tmp_path / "lab")
    write_lab(tmp_path / "second_drive", frames=24)
    done, left = run_tutorial("map.md")
    verbs = [words[0] for words in done]
    assert verbs == ["data", "data", "init", "train", "map", "map", "map"]
    bundle = ModelBundle.load(tmp_path / "my_lab/runs/my_lab/bundle")
    assert list(bundle.spec.heads) == ["pose", "place", "cells"]
    assert bundle.spec.heads["pose"].map_frame == "map"
    card = Path(bundle.path, "README.md").read_text(encoding="utf-8")
    for words in ("NEES / ideal", "most similar image", "average pooling"):
        assert words in card
    assert "recall@1" in capsys.readouterr().out
    assert [words[1] for words in left] == ["bag", "bag", "launch"]
    assert (ROOT / "launch" / left[2][3]).is_file()


def test_a_building_from_one_drive(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("torch")
    page = (TUTORIALS / "building.md").read_text(encoding="utf-8")
    small = page.replace("--metres 25", "--metres 9 --image-size 96 72")
    assert small != page
    done, left = run_page(small, epochs=2)
    verbs = [words[0] for words in done]
    assert verbs == [
        "drive",
        "drive",
        "data",
        "init",
        "train",
        "init",
        "train",
        "teach",
        "map",
        "map",
    ]
    for name, head in (("reflex", "dronet"), ("where", "cells")):
        assert list(ModelBundle.load(f"{name}/runs/{name}/bundle").spec.heads) == [head]
    assert Path("route/route.json").is_file() and Path("changes.html").is_file()
    assert "recognised" in capsys.readouterr().out
    launched = [words[3] for words in left if words[1] == "launch"]
    assert len(launched) == 3 and all((ROOT / "launch" / name).is_file() for name in launched)


def test_posenet_on_seven_scenes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scene(tmp_path / "redkitchen")
    pytest.importorskip("torch")
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    done, _ = run_page(page[page.index("## PoseNet on 7-Scenes") :])
    assert [words[0] for words in done] == ["train"]
    bundle = ModelBundle.load("runs/posenet_redkitchen/bundle")
    assert bundle.spec.backbone == "googlenet" and tuple(bundle.spec.heads) == ("pose",)
    assert "always the mean pose" in Path(bundle.path, "README.md").read_text(encoding="utf-8")
