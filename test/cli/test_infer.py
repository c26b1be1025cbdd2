"""`robot-vision infer`, `make-bag` and the drawing of results, run as users run them."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fragile_bundle import make_fragile_bundle
from ros_helpers import python_path
from rosbags.highlevel import AnyReader
from tiny_bundle import expected_colour, make_tiny_bundle

from robot_vision.annotate import annotate as annotate_answers
from robot_vision.cli import main
from robot_vision.contract.head import Material
from robot_vision.contract.prediction import Prediction
from robot_vision.contract.spec import NetworkSpec
from robot_vision.heads.classifier.answer import Classification
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.heads.place.answer import Descriptor
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.heads.pose.answer import PoseAnswer
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.images.canvas import plain
from robot_vision.images.decode import to_rgb
from robot_vision.recordings import open_source
from robot_vision.recordings.writing import STORAGES, RecordingWriter

SIZE = (32, 48)
START = 1_700_000_000_000_000_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny", SIZE)


def colours(count: int) -> np.ndarray:
    """Returns plain RGB images (N, 32, 48, 3) of different colours."""
    values = np.random.default_rng(0).integers(20, 236, (count, 1, 1, 3), np.uint8)
    return values.repeat(SIZE[0], axis=1).repeat(SIZE[1], axis=2)


def write_pngs(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"frame-{i:06d}.color.png"), image[..., ::-1])
    return folder


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("batch", [1, 4])
def test_predictions_belong_to_their_frames(tmp_path: Path, bundle: Path, batch: int) -> None:
    images = colours(11)
    folder = write_pngs(tmp_path / "run", images)
    out = tmp_path / "deep" / "results.jsonl"
    arguments = ["infer", "--model", str(bundle), str(folder), "--output", str(out)]
    assert main([*arguments, "--batch", str(batch), "--engine", "onnx", "--rate", "10"]) == 0
    lines = read_lines(out)
    assert [line["stamp_ns"] for line in lines] == [i * 100_000_000 for i in range(11)]
    for i, (line, image) in enumerate(zip(lines, images, strict=True)):
        assert line["source"] == f"frame-{i:06d}.color.png"
        colour = expected_colour(image)
        np.testing.assert_allclose(line["pose"]["position"], colour, atol=1e-5)
        assert len(line["pose"]["covariance"]) == 36 and line["pose"]["frame_id"] == "map"
        assert np.linalg.norm(line["pose"]["orientation_xyzw"]) == pytest.approx(1.0, abs=1e-9)
        assert np.linalg.norm(line["descriptor"]) == pytest.approx(1.0, abs=1e-5)
        results = line["classification"]["results"]
        assert results[0]["label"] == ("red", "green", "blue")[int(np.argmax(colour))]
        assert len(results) == 3 and sum(r["score"] for r in results) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("top_k", [1, 3])
def test_lines_of_unknown_images_are_one_distribution(tmp_path: Path, top_k: int) -> None:
    """A model whose threshold refuses every image, however sure it is of it."""
    sure = make_tiny_bundle(tmp_path / "sure", unknown_threshold=2.0)
    folder, out = write_pngs(tmp_path / "run", colours(6)), tmp_path / "out.jsonl"
    words = ["infer", "--model", str(sure), str(folder), "--output", str(out)]
    assert main([*words, "--top-k", str(top_k)]) == 0
    for line in read_lines(out):
        results = line["classification"]["results"]
        scores = [r["score"] for r in results]
        assert len(results) == 1 + top_k
        assert max(results, key=lambda r: r["score"])["label"] == results[0]["label"] == "unknown"
        assert scores == sorted(scores, reverse=True) and sum(scores) <= 1 + 1e-6


def test_bad_frames_are_counted_and_the_run_goes_on(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_pngs(tmp_path / "run", colours(4))
    whole = (folder / "frame-000001.color.png").read_bytes()
    (folder / "frame-000001.color.png").write_bytes(whole[:-20])
    (folder / "frame-000002.color.png").write_bytes(b"no image at all")
    (folder / "frame-000009.bmp").write_bytes(b"no bitmap")
    out = tmp_path / "out.jsonl"
    status = main(
        ["infer", "--model", str(bundle), str(folder), "--output", str(out), "--batch", "3"]
    )
    assert status == 1
    lines = read_lines(out)
    assert [line.get("error", {}).get("reason") for line in lines] == [
        None,
        "corrupt",
        "encoding",
        None,
    ]
    shown = capsys.readouterr()
    last = shown.out.strip().splitlines()[-1]
    assert last.startswith("2 frames predicted") and "2 bad (1 corrupt, 1 encoding)" in last
    assert "1 reading problem" in last
    for name in ("frame-000001.color.png", "frame-000002.color.png", "frame-000009.bmp"):
        assert name in shown.err


@pytest.mark.slow
def test_bad_messages_of_every_kind_are_survived(tmp_path: Path, bundle: Path) -> None:
    image = colours(1)[0]
    with RecordingWriter(tmp_path / "bag") as bag:
        types = bag.types

        def raw(i: int, **changes: object) -> None:
            fields = dict(height=32, width=48, encoding="rgb8", is_bigendian=0, step=144)
            fields["data"] = image.reshape(-1)
            header = bag.header(START + i, "camera")
            bag.write(
                "/image", START + i, types["sensor_msgs/msg/Image"](header, **{**fields, **changes})
            )

        raw(0)
        raw(1, encoding="h264")
        raw(2, data=image.reshape(-1)[:-1])
        raw(3, data=np.append(image.reshape(-1), np.uint8(0)))
        raw(4, height=0)
        raw(5, width=4_000_000_000, height=4_000_000_000)
        nan = np.full((8, 8), np.nan, "<f4").view(np.uint8).reshape(-1)
        raw(6, encoding="32FC1", height=8, width=8, step=32, data=nan)
        raw(7)
    out = tmp_path / "out.jsonl"
    assert main(["infer", "--model", str(bundle), str(tmp_path / "bag"), "--output", str(out)]) == 1
    reasons = [line.get("error", {}).get("reason") for line in read_lines(out)]
    lengths = ["data_length", "data_length"]
    assert reasons == [None, "encoding", *lengths, "size", "size", "non_finite", None]


def test_an_answer_that_is_not_finite_is_an_error_line_and_the_run_goes_on(tmp_path: Path) -> None:
    model = make_fragile_bundle(tmp_path / "fragile", "nan")
    images = np.stack([np.full((*SIZE, 3), level, np.uint8) for level in (40, 250, 50)])
    folder, output = write_pngs(tmp_path / "frames", images), tmp_path / "out.jsonl"
    assert main(["infer", str(folder), "--model", str(model), "--output", str(output)]) == 1
    lines = read_lines(output)
    assert ["error" in line for line in lines] == [False, True, False]
    assert lines[1]["error"] == {
        "reason": "result",
        "message": "the network's probabilities is not finite",
    }


@pytest.mark.slow
def test_several_sources_limit_and_topic(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = colours(6)
    with RecordingWriter(tmp_path / "bag") as bag:
        for i, image in enumerate(images):
            bag.image("/a", START + i, "a", image)
            bag.image("/b", START + i, "b", image)
    out = tmp_path / "out.jsonl"
    arguments = ["infer", "--model", str(bundle), "--output", str(out), "--no-descriptor"]
    bag_path = str(tmp_path / "bag")
    assert (
        main([*arguments, bag_path, bag_path, "--topic", "/b", "--limit", "8", "--top-k", "1"]) == 0
    )
    assert f"{bag_path} is given 2 times" in capsys.readouterr().err
    lines = read_lines(out)
    assert [line["stamp_ns"] - START for line in lines] == [0, 1, 2, 3, 4, 5, 0, 1]
    assert {line["topic"] for line in lines} == {"/b"}
    assert all("descriptor" not in x and len(x["classification"]["results"]) == 1 for x in lines)


def test_annotated_pictures_are_written(tmp_path: Path, bundle: Path) -> None:
    folder = write_pngs(tmp_path / "run", colours(2))
    pictures = tmp_path / "pictures"
    assert main(["infer", "--model", str(bundle), str(folder), "--annotate", str(pictures)]) == 0
    files = sorted(pictures.iterdir())
    assert [f.name for f in files] == [
        "000000_frame-000000.color.png.jpg",
        "000001_frame-000001.color.png.jpg",
    ]
    assert cv2.imread(str(files[0])).std() > 10  # no longer one colour


def test_json_on_standard_output_is_nothing_but_json(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_pngs(tmp_path / "run", colours(3))
    assert main(["infer", "--model", str(bundle), str(folder), "--output", "-"]) == 0
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 3


@pytest.mark.slow
def test_many_frames_make_a_short_table(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_pngs(tmp_path / "run", colours(130))
    assert main(["infer", "--model", str(bundle), str(folder), "--batch", "16"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 120 and "of 130 frames" in shown and "first labels:" in shown


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["/nowhere"], "does not exist"),
        (["{folder}", "--engine", "tensorflow"], "tensorflow"),
        (["{folder}", "--start", "-1"], "start"),
        (["{folder}", "--output", "{folder}"], "cannot be written"),
        (["{folder}", "--annotate", "{folder}/frame-000000.color.png"], "cannot be made"),
        (["{folder}", "--model", "/no/bundle"], "/no/bundle"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    tmp_path: Path,
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    text: str,
) -> None:
    folder = write_pngs(tmp_path / "run", colours(1))
    given = [a.format(folder=folder) for a in arguments]
    model = [] if "--model" in given else ["--model", str(bundle)]
    assert main(["infer", *model, *given]) == 2
    error = capsys.readouterr().err
    assert text in error and len(error.strip().splitlines()) == 1


@pytest.mark.slow
def test_interrupt_leaves_whole_lines(tmp_path: Path, bundle: Path) -> None:
    folder = write_pngs(tmp_path / "run", colours(1))
    first = next(folder.iterdir())
    for i in range(1, 20000):  # more than can be done before the interrupt
        os.link(first, folder / f"frame-{i:06d}.color.png")
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "robot_vision.cli", "infer", "--model", str(bundle)]
    process = subprocess.Popen(
        [*command, str(folder), "--output", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path()},
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (out.exists() and out.stat().st_size > 20000):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    shown, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in shown.splitlines()[-1] and "Traceback" not in errors
    lines = read_lines(out)
    assert 10 < len(lines) < 20000
    assert [line["source"] for line in lines] == [
        f"frame-{i:06d}.color.png" for i in range(len(lines))
    ]


# make-bag


def write_poses(folder: Path, count: int) -> list[np.ndarray]:
    """Writes poses as 7-Scenes has them: rotations that are orthonormal to 4e-4 only."""
    poses = []
    for i in range(count):
        angle = 0.1 * i
        pose = np.eye(4)
        cos, sin = np.cos(angle), np.sin(angle)
        pose[:3, :3] = [[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]
        pose[:3, 3] = i, -i, 0.5 * i
        poses.append(pose.copy())
        pose[:3, :3] *= 1.0004
        np.savetxt(folder / f"frame-{i:06d}.pose.txt", pose)
    return poses


@pytest.mark.slow
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("raw", [False, True])
def test_folder_with_poses_becomes_a_bag(tmp_path: Path, storage: str, raw: bool) -> None:
    images = colours(5)
    folder = write_pngs(tmp_path / "run", images)
    poses = write_poses(folder, 5)
    arguments = ["make-bag", str(folder), "--out", str(tmp_path / "bag"), "--format", storage]
    arguments += ["--rate", "10", "--camera-info", "525", "526", "320", "240"]
    assert main([*arguments, *(["--raw"] if raw else [])]) == 0
    source = open_source(tmp_path / "bag")
    assert source.topics == ("/camera/image_raw" + ("" if raw else "/compressed"),)
    for i, (frame, image) in enumerate(zip(source, images, strict=True)):
        assert frame.stamp_ns == START + i * 100_000_000
        np.testing.assert_array_equal(to_rgb(frame.message), image)
    with AnyReader([tmp_path / "bag"]) as reader:
        found: dict[str, list] = {}
        for c, stamp, data in reader.messages():
            found.setdefault(c.topic, []).append((stamp, reader.deserialize(data, c.msgtype)))
    assert len(found["/camera/camera_info"]) == len(found["/ground_truth/pose"]) == 5
    info = found["/camera/camera_info"][0][1]
    assert (info.k[0], info.k[4], info.height, info.width) == (525, 526, 32, 48)
    for (stamp, message), pose, i in zip(found["/ground_truth/pose"], poses, range(5), strict=True):
        assert stamp == START + i * 100_000_000 and message.header.frame_id == "map"
        p, q = message.pose.position, message.pose.orientation
        np.testing.assert_allclose((p.x, p.y, p.z), pose[:3, 3])
        # A turn by 0.1 i about y, as a quaternion.
        np.testing.assert_allclose(
            (q.x, q.y, q.z, q.w), (0, np.sin(0.05 * i), 0, np.cos(0.05 * i)), atol=1e-9
        )


def test_poses_of_equal_names_stay_in_their_folders(tmp_path: Path) -> None:
    for name, x in (("seq-1", 1.0), ("seq-2", 2.0)):
        folder = write_pngs(tmp_path / "run" / name, colours(1))
        pose = np.eye(4)
        pose[0, 3] = x
        np.savetxt(folder / "frame-000000.pose.txt", pose)
    assert main(["make-bag", str(tmp_path / "run"), "--out", str(tmp_path / "bag")]) == 0
    with AnyReader([tmp_path / "bag"]) as reader:
        wanted = [c for c in reader.connections if c.topic == "/ground_truth/pose"]
        xs = [
            reader.deserialize(d, c.msgtype).pose.position.x for c, _, d in reader.messages(wanted)
        ]
    assert xs == [1.0, 2.0]


def test_lost_tracking_leaves_the_pose_out(tmp_path: Path) -> None:
    folder = write_pngs(tmp_path / "run", colours(2))
    np.savetxt(folder / "frame-000000.pose.txt", np.full((4, 4), np.inf))
    assert main(["make-bag", str(folder), "--out", str(tmp_path / "bag")]) == 0
    with AnyReader([tmp_path / "bag"]) as reader:
        assert [c.topic for c in reader.connections] == ["/camera/image_raw/compressed"]


@pytest.mark.parametrize("text", ["no numbers", "1 2 3", "2 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1"])
def test_file_that_is_no_pose_is_one_line_and_no_bag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    folder = write_pngs(tmp_path / "run", colours(1))
    (folder / "frame-000000.pose.txt").write_text(text)
    assert main(["make-bag", str(folder), "--out", str(tmp_path / "bag")]) == 2
    assert "frame-000000.pose.txt is no pose" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


@pytest.mark.slow
def test_kitchen_frames_are_repackaged(data_dir: Path, tmp_path: Path, bundle: Path) -> None:
    out = tmp_path / "kitchen"
    arguments = ["make-bag", str(data_dir / "kitchen"), "--out", str(out), "--limit", "30"]
    assert main([*arguments, "--camera-info", "525", "525", "320", "240"]) == 0
    frames = list(open_source(out))
    assert len(frames) == 30
    original = (data_dir / "kitchen" / "frame-000007.color.jpg").read_bytes()
    assert bytes(frames[7].message.data) == original
    lines = tmp_path / "out.jsonl"
    assert main(["infer", "--model", str(bundle), str(out), "--output", str(lines)]) == 0
    assert len(read_lines(lines)) == 30


# Drawing


def annotate(image: np.ndarray, answers: Prediction, footer: str = "", **given: Any) -> np.ndarray:
    labels = answers["classifier"].labels if "classifier" in answers.answers else ("a", "b")
    heads = {"classifier": ClassifierSpec(labels), "pose": PoseSpec(), "place": PlaceSpec()}
    spec = NetworkSpec(heads=heads)
    options = {
        head.name: head.resolve(
            head.options({"unknown_threshold": -math.inf, **given}), own, Material()
        )
        for head, own in spec.bound
    }
    return annotate_answers(image, answers, spec, options, footer)


def prediction(labels: int = 3) -> Prediction:
    names = tuple(f"label {i}" for i in range(labels))
    probabilities = np.linspace(1, 0.1, labels, dtype=np.float32)
    classification = Classification(names, probabilities / probabilities.sum(), 0.3)
    pose = PoseAnswer(np.array([1.0, -2.0, 0.5]), np.array([0, 0.6, 0, 0.8]), np.eye(6) * 0.01)
    return Prediction(
        {
            "classifier": classification,
            "pose": pose,
            "place": Descriptor(np.linspace(-1, 1, 512, dtype=np.float32)),
        }
    )


@pytest.mark.parametrize("size", [(240, 320), (480, 640), (1080, 1920), (720, 1280), (400, 90)])
def test_drawing_keeps_the_size_and_the_middle_of_the_image(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 120, np.uint8)
    before = image.copy()
    drawn = annotate(image, prediction(), footer="place: sink")
    assert drawn.shape == image.shape and drawn.flags.c_contiguous
    np.testing.assert_array_equal(image, before)
    middle = slice(int(size[0] * 0.5), int(size[0] * 0.6))
    assert (drawn[middle] == 120).all()
    assert (drawn[: size[0] // 8] != 120).any() and (drawn[-size[0] // 8 :] != 120).any()


def test_drawn_bars_are_as_long_as_the_probabilities() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    classification = Classification(("a", "b"), np.array([0.75, 0.25], np.float32), 1.0)
    drawn = annotate(image, Prediction({"classifier": classification}), top_k=2)
    greens = (drawn == (80, 200, 120)).all(axis=2).any(axis=0).nonzero()[0].max()
    blues = (drawn == (90, 150, 220)).all(axis=2).any(axis=0).nonzero()[0].max()
    assert greens / blues == pytest.approx(3.0, rel=0.05)


def test_unknown_is_drawn_first_below_the_threshold() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    orange = (230, 150, 60)
    assert (annotate(image, prediction(), unknown_threshold=0.5) == orange).all(axis=2).any()
    assert not (annotate(image, prediction(), unknown_threshold=0.1) == orange).all(axis=2).any()


def test_heads_that_are_absent_draw_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    np.testing.assert_array_equal(annotate(image, Prediction()), image)


@pytest.mark.parametrize("size", [(1, 1), (84, 35), (10, 3000), (3000, 10)])
def test_odd_sizes_and_views_are_drawn(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)[::-1, :, ::-1]
    image.flags.writeable = False
    drawn = annotate(image, prediction(100), top_k=100, footer="x" * 500)
    assert drawn.shape[0] % size[0] == 0 and drawn.shape[1] % size[1] == 0


def test_accents_are_dropped_for_the_built_in_font() -> None:
    assert plain("Küche") == "Kuche" and plain("台所") == "?"


def test_depth_images_of_7_scenes_are_no_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = colours(3)
    folder = write_pngs(tmp_path / "seq-01", images)
    for i in range(3):
        cv2.imwrite(str(folder / f"frame-{i:06d}.depth.png"), np.full(SIZE, 1500, np.uint16))
    assert main(["make-bag", str(folder), "--out", str(tmp_path / "bag"), "--rate", "10"]) == 0
    assert "3 frames" in (printed := capsys.readouterr().out) and "3 depth images" in printed
    frames = list(open_source(tmp_path / "bag"))
    assert [f.stamp_ns - START for f in frames] == [0, 10**8, 2 * 10**8]
    for frame, image in zip(frames, images, strict=True):
        np.testing.assert_array_equal(to_rgb(frame.message), image)
    alone = ["make-bag", f"{folder}/*.depth.png", "--out", str(tmp_path / "depth")]
    assert main(alone) == 0 and "3 frames" in capsys.readouterr().out


def test_bag_is_not_made_of_a_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_pngs(tmp_path / "run", colours(1))
    assert main(["make-bag", str(folder), "--out", str(tmp_path / "bag")]) == 0
    assert main(["make-bag", str(tmp_path / "bag"), "--out", str(tmp_path / "again")]) == 2
    assert "is a bag already" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_is_one_line(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_pngs(tmp_path / "run", colours(1))
    arguments = ["infer", "--model", str(bundle), str(folder), "--engine", "onnx"]
    assert main([*arguments, "--output", "/dev/full"]) == 2
    assert "make room on the disk" in capsys.readouterr().err


def test_installed_model_is_found_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_pngs(tmp_path / "run", colours(1))
    assert main(["infer", "--model", "demo", "--engine", "onnx", str(folder)]) == 0
    assert "1 frame predicted" in capsys.readouterr().out


def test_an_output_that_is_a_source_is_refused(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_pngs(tmp_path / "run", colours(2))
    one = run / "frame-000000.color.png"
    before = one.read_bytes()
    for words, said in (
        ((str(one), "--output", str(one)), "is a source"),
        ((str(run), "--annotate", str(run)), "is a source"),
    ):
        assert main(["infer", "--model", str(bundle), *words]) == 2
        assert said in capsys.readouterr().err
    assert one.read_bytes() == before and len(list(run.iterdir())) == 2


def test_pictures_of_an_earlier_run_are_mentioned(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["infer", "--model", str(bundle), "--annotate", str(tmp_path / "seen")]
    for number, mentioned in ((0, False), (1, True)):
        run = write_pngs(tmp_path / f"run{number}", colours(1))
        assert main([*words, "--engine", "onnx", str(run)]) == 0
        assert ("is not empty" in capsys.readouterr().err) == mentioned
