"""The demo: its parts, and the whole of it with real processes over DDS."""

import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from demo_helpers import map_fewer, truth_of
from rich.console import Console
from ros_helpers import wait_until
from rosbags.highlevel import AnyReader
from scipy.spatial.transform import Rotation

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import demo, main
from robot_vision.demo import play as demo_play
from robot_vision.demo.processes import DemoError, Processes, free_domain
from robot_vision.demo.scoring import FrameAnswer, KnownPlaces, Score
from robot_vision.demo.view import LiveView, PlainView, TextPlan
from robot_vision.errors import ConfigError
from robot_vision.pipeline import Pipeline
from robot_vision.places.map.opening import open_map
from robot_vision.simulation.drive import evaluation_drive
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.sensor import Sensor, render_frames

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "models" / "demo"
WORLD = default_world()


# --- processes ---------------------------------------------------------------------------------------


def test_a_process_that_fails_is_reported_with_its_last_words(tmp_path):
    (tmp_path / "broken_part.py").write_text(
        "print('to the log')\nraise SystemExit('no such lens')\n"
    )
    with Processes(tmp_path / "logs", {"PYTHONPATH": str(tmp_path)}) as processes:
        processes.start("lens", "broken_part", [])
        with pytest.raises(DemoError, match="The lens failed with exit status 1: no such lens"):
            wait_until(lambda: processes.ended("lens"))


@pytest.mark.slow
def test_processes_are_gone_after_the_block_even_if_they_ignore_signals(tmp_path):
    (tmp_path / "stubborn.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print('ready')\ntime.sleep(60)\n"
    )
    with (
        pytest.raises(KeyboardInterrupt),
        Processes(tmp_path / "logs", {"PYTHONPATH": str(tmp_path)}) as processes,
    ):
        processes.start("stubborn", "stubborn", [])
        pid = processes.pids()["stubborn"]
        wait_until(lambda: "ready" in (tmp_path / "logs" / "stubborn.log").read_text())
        raise KeyboardInterrupt
    assert not psutil.pid_exists(pid)


@pytest.mark.slow
def test_processes_die_with_one_that_is_killed(tmp_path):
    (tmp_path / "sleeper.py").write_text("import time\nprint('ready')\ntime.sleep(60)\n")
    (tmp_path / "parent.py").write_text(
        "import sys, time\nfrom pathlib import Path\n"
        "from robot_vision.demo.processes import Processes\n"
        "processes = Processes(Path(sys.argv[1]), {'PYTHONPATH': sys.argv[2]})\n"
        "processes.start('sleeper', 'sleeper', [])\n"
        "print(processes.pids()['sleeper'], flush=True)\ntime.sleep(60)\n"
    )
    words = [sys.executable, tmp_path / "parent.py", tmp_path / "logs", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        wait_until(lambda: "ready" in (tmp_path / "logs" / "sleeper.log").read_text())
        parent.kill()
    gone([child])


@pytest.mark.ros
def test_monitor_names_topics_that_others_publish_too():
    rclpy = pytest.importorskip("rclpy")
    from geometry_msgs.msg import PoseWithCovarianceStamped
    from sensor_msgs.msg import Image

    from robot_vision.demo.monitor import DemoMonitor

    rclpy.init(args=[])
    try:
        monitor = DemoMonitor({}, lambda answer: None, "/crowd/image", "/crowd", "/crowd/places")
        other = rclpy.create_node("other")
        poses = [other.create_publisher(PoseWithCovarianceStamped, "/crowd/pose", 1)]
        wait_until(lambda: "/crowd/pose" not in monitor.missing_publishers())
        assert monitor.crowded() == []
        poses.append(other.create_publisher(PoseWithCovarianceStamped, "/crowd/pose", 1))
        wait_until(lambda: monitor.crowded() == ["/crowd/pose"])
        other.create_publisher(Image, "/crowd/image", 1)
        wait_until(lambda: monitor.crowded() == ["/crowd/pose", "/crowd/image"])
        monitor.destroy_node()
        other.destroy_node()
    finally:
        rclpy.try_shutdown()


def test_free_domain_is_neither_the_users_nor_one_in_use(monkeypatch):
    import socket

    first = free_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(first))
    assert free_domain() != first
    monkeypatch.delenv("ROS_DOMAIN_ID")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 7410 + 250 * first))
        assert free_domain() != first


# --- output and view ---------------------------------------------------------------------------------


def test_output_folder_replaces_an_earlier_demo_and_nothing_else(tmp_path):
    with demo.output_folder(tmp_path / "out", keep=False) as first:
        (first / "bag").mkdir()
    with demo.output_folder(tmp_path / "out", keep=False) as second:
        assert list(second.iterdir()) == [first / demo._MARK]
    with demo.output_folder(tmp_path / "out", keep=True) as third:
        assert third == tmp_path / "out-2"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(ConfigError, match="exists and holds other things"),
        demo.output_folder(tmp_path / "home", keep=False),
    ):
        pass
    assert (tmp_path / "home" / "thesis.tex").is_file()


def test_output_folder_of_a_demo_that_runs_is_left_alone(tmp_path):
    with demo.output_folder(tmp_path / "out", keep=False) as first:
        (first / "bag").mkdir()
        with (
            pytest.raises(ConfigError, match="still running: wait for it, name another folder"),
            demo.output_folder(tmp_path / "out", keep=False),
        ):
            pass
        assert (first / "bag").is_dir()
        with demo.output_folder(tmp_path / "out", keep=True) as second:
            assert second == tmp_path / "out-2"


def test_output_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "disk").mkdir()
    with demo.output_folder(tmp_path / "link", keep=False) as path:
        assert path == tmp_path / "disk" and (tmp_path / "link").is_symlink()


def test_output_folder_that_cannot_be_made_is_named_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match="--output .*file/x cannot be made: .*name another folder"),
        demo.output_folder(tmp_path / "file" / "x", keep=False),
    ):
        pass


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [("--seed", -1, "0 or more"), ("--domain", 102, "from 0 to 101")],
)
def test_number_out_of_range_is_refused_with_what_is_allowed(capsys, option, value, allowed):
    with pytest.raises(SystemExit, match="2"):
        main(["demo", option, str(value)])
    assert f"argument {option}: {value}: it must be {allowed}\n" in capsys.readouterr().err


def test_interrupt_while_a_verb_is_imported_ends_without_a_traceback(monkeypatch, capsys):
    def interrupted(_name):
        raise KeyboardInterrupt

    monkeypatch.setattr("robot_vision.cli.importlib.import_module", interrupted)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_text_plan_marks_both_positions_in_their_rooms():
    drawn = TextPlan(WORLD).draw(np.array([2.0, 4.0, 1.0]), np.array([8.0, -3.0, 1.0])).plain
    lines = drawn.splitlines()
    true = next((r, line.index("o")) for r, line in enumerate(lines) if "o" in clean(line))
    said = next((r, line.index("x")) for r, line in enumerate(lines) if "x" in line)
    assert true[0] < 6 and true[1] < 20  # top left: the kitchen
    assert said[0] > 12 and said[1] > 22  # bottom right: the bedroom
    assert all(room.name in drawn for room in WORLD.rooms)


def clean(line: str) -> str:
    return line if not any(room.name in line for room in WORLD.rooms) else ""


@pytest.mark.parametrize("width", [120, 70])
def test_views_show_label_error_and_place(width):
    truth, places = truth_of(9), KnownPlaces(np.eye(9, dtype=np.float32), truth_of(9))
    answer = FrameAnswer(
        stamp_ns=0,
        frame=2,
        received_ns=12_300_000,
        label="a",
        probability=0.75,
        position=truth.positions[2] + [0.3, 0.4, 0.0],
        orientation_xyzw=truth.orientations_xyzw[2],
        covariance=np.eye(6) / 3,
        descriptor=np.eye(9, dtype=np.float32)[7],
    )
    judged = Score(truth, places).add(answer)
    for live in (True, False):
        console = Console(file=io.StringIO(), force_terminal=live, width=width, color_system=None)
        view = (
            LiveView(console, WORLD, truth, places) if live else PlainView(console, truth, places)
        )
        view.show(answer, judged)
        view.close()
        shown = console.file.getvalue()
        for part in ("0.75", "0.50 m", "0.0 deg", "12", "wrong"):
            assert part in shown, (live, part, shown)
        assert ("kitchen" in shown) == (live and width == 120)  # the plan needs room


# --- the whole demo ----------------------------------------------------------------------------------


def command(*arguments: str, map_every: int = 1) -> list[str]:
    domain = ["--domain", os.environ["ROS_DOMAIN_ID"]] if "ROS_DOMAIN_ID" in os.environ else []
    program = map_fewer(map_every) + "import sys; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", program, "demo", *domain, *arguments]


@pytest.mark.ros
@pytest.mark.slow
def test_demo_sees_rooms_poses_and_places(tmp_path):
    out = tmp_path / "out"
    # Bedroom and workshop are within these seconds; the camera is carried from one to the other.
    done = subprocess.run(
        command("--duration", "12", "--output", str(out), "--headless"),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    summary = json.loads((out / "robot_vision_demo.json").read_text())
    assert summary["sent"] == 120
    assert summary["answered"] >= 108
    assert summary["room_accuracy"] > 0.9
    assert summary["median_error_m"] < 0.6
    assert summary["median_error_deg"] < 12
    assert summary["recall_at_1"] > 0.85
    assert 0 < summary["latency_p50_ms"] < 1000
    assert f"room accuracy {100 * summary['room_accuracy']:.1f} %" in done.stdout
    places = summary["places"]
    assert places["asked"] >= 100 and places["accepted"] > 30
    assert places["wrong"] <= 0.05 * places["accepted"]
    assert 0 < places["kidnapped_at"] < 100 and places["from_room"] != places["to_room"]
    assert 1 <= places["recovered_after"] <= 40 and places["recovery_error_m"] < 1
    assert f"found again after {places['recovered_after']} frame" in done.stdout
    with open_map(out / "places.map", "read") as built:
        assert len(built) == 354

    # The figures once more, from the written results and the bag, with other tools.
    results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    with AnyReader([out / "bag"]) as reader:
        truth: dict[str, list] = {
            f"/truth/{name}": [] for name in ("pose", "room", "segmentation", "depth")
        }
        wanted = [c for c in reader.connections if c.topic in truth]
        for connection, _, data in reader.messages(wanted):
            truth[connection.topic].append(reader.deserialize(data, connection.msgtype))
    assert {len(messages) for messages in truth.values()} == {120}
    errors, turns, rooms = [], [], []
    for result in results:
        pose = truth["/truth/pose"][result["frame"]].pose
        p, q = pose.position, pose.orientation
        errors.append(np.linalg.norm(np.subtract(result["position"], [p.x, p.y, p.z])))
        true = Rotation.from_quat([q.x, q.y, q.z, q.w])
        turn = true.inv() * Rotation.from_quat(result["orientation_xyzw"])
        turns.append(np.degrees(turn.magnitude()))
        rooms.append(result["label"] == truth["/truth/room"][result["frame"]].data)
    assert np.median(errors) == pytest.approx(summary["median_error_m"])
    assert np.median(turns) == pytest.approx(summary["median_error_deg"], abs=1e-6)
    assert np.mean(rooms) == pytest.approx(summary["room_accuracy"])
    assert len({r["frame"] for r in results}) == summary["answered"]

    picture = cv2.imread(str(out / "demo.png"))
    assert picture is not None and picture.shape[1] > 1000 and picture.std() > 20


@pytest.mark.ros
@pytest.mark.slow
def test_demo_ends_with_an_error_when_the_node_dies_and_leaves_nothing_behind(tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen(
        command("--duration", "20", "--rate", "2", "--output", str(out), map_every=40),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        children = wait_for_nodes(process, out)
        node = next(c for c in children if "ros.perception.node" in " ".join(c.cmdline()))
        node.send_signal(signal.SIGKILL)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "The perception was killed by SIGKILL" in stderr
    assert "Traceback" not in stderr
    gone(children)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_waits_until_rclpy_is_done(number):
    pytest.importorskip("rclpy", reason="the demo needs ROS 2")
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread alone")
    done = []

    class Executor:
        def spin_once(self, timeout_sec):
            signal.raise_signal(number)
            done.append(timeout_sec)

    before = signal.getsignal(number)
    with demo.terminated_like_interrupted(), pytest.raises(KeyboardInterrupt):
        demo_play.spin(Executor())
    assert done and signal.getsignal(number) == before


@pytest.mark.ros
@pytest.mark.slow
def test_demo_stops_all_its_processes_when_interrupted(tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen(
        command("--duration", "20", "--rate", "2", "--output", str(out), map_every=40),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        children = wait_for_nodes(process, out)
        process.send_signal(signal.SIGTERM)  # as the other signals: the test before this one
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    gone(children)


def wait_for_nodes(process, out):
    """Returns the demo's child processes once the first result has come."""
    results = out / "results.jsonl"
    wait_until(lambda: results.is_file() or process.poll() is not None, 120)
    wait_until(lambda: (out / "player.yaml").is_file() or process.poll() is not None, 60)
    log = out / "logs" / "player.log"  # opened after player.yaml was written
    wait_until(lambda: log.is_file() and "Playing" in log.read_text(), 60)
    assert process.poll() is None
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    return children


def gone(children):
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


@pytest.mark.slow
def test_demo_refuses_a_damaged_bundle_in_one_line_and_starts_nothing(tmp_path):
    shutil.copytree(BUNDLE, tmp_path / "broken")
    graph = (tmp_path / "broken" / "model.onnx").read_bytes()
    (tmp_path / "broken" / "model.onnx").write_bytes(graph[: len(graph) // 2])
    done = subprocess.run(
        command("--model", str(tmp_path / "broken"), "--output", str(tmp_path / "out")),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "model.onnx" in done.stderr
    assert not (tmp_path / "out").exists()


def test_demo_bundle_is_small_and_says_what_it_scored():
    bundle = ModelBundle.load(BUNDLE)
    heads = ("classifier", "pose", "place", "segmentation", "depth")
    assert tuple(bundle.spec.heads) == heads
    assert bundle.spec.heads["classifier"].labels == WORLD.labels
    assert sum(path.stat().st_size for path in BUNDLE.iterdir()) < 25e6
    m = bundle.metrics
    assert m["room_accuracy"] > m["baseline_most_frequent_room_accuracy"]
    assert m["median_position_error_m"] < m["baseline_mean_pose_median_error_m"]
    card = (BUNDLE / "README.md").read_text()
    assert "train_demo_bundle.py" in card and f"{m['room_accuracy']:.3f}" in card
    iou, abs_rel = (
        m["dense"][head][key] for head, key in (("segmentation", "mean_iou"), ("depth", "abs_rel"))
    )
    assert iou > 0.75 and abs_rel < 0.15 and f"{iou:.3f}" in card and f"{abs_rel:.3f}" in card


@pytest.mark.slow
def test_demo_bundle_says_unknown_of_what_is_no_room():
    """By the scores of known images that `calibrate` left in it, which a new training must keep."""
    pipeline = Pipeline.load(BUNDLE, precision="float32")
    threshold = pipeline.bundle.spec.heads["classifier"].unknown_threshold
    assert threshold == pipeline.bundle.calibration["open_set"]["threshold"]
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    for image in (noise, np.zeros_like(noise)):
        answer = pipeline([image])[0]["classifier"]
        best = answer.top_k(1, threshold)[0]
        assert best.label == "unknown" and best.score == pytest.approx(answer.rarity)
        assert answer.rarity > 0.98


# --- how the bundle was trained ----------------------------------------------------------------------


@pytest.fixture
def training(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("train_demo_bundle")


def test_training_measures_rotations_as_scipy_does(training):
    import torch

    a, b = Rotation.random(50, random_state=1), Rotation.random(50, random_state=2)
    predicted = torch.tensor(3.0 * a.as_quat())  # of any length and sign
    measured = training.rotation_error(predicted, torch.tensor(b.as_quat())).numpy()
    np.testing.assert_allclose(measured, (b * a.inv()).as_rotvec(), atol=1e-6)


@pytest.mark.slow
def test_training_runs_the_network_that_is_exported(training):
    """Its stages in two parts, with ONNX Runtime for the frozen one, give what the whole network gives."""
    import torch

    network = training.MultiHeadNetwork(training.demo_spec())
    images = list(render_frames(WORLD, evaluation_drive(WORLD)[:3], Sensor()))
    small = np.stack([cv2.resize(image, (160, 120)) for image in images])
    network.eval()
    stages = training.Stages(network)
    with torch.no_grad():
        middle = training.frozen_runner(network, stages, 1)(
            network.normalise(torch.from_numpy(small))
        )
        parts = training.heads(network, stages, middle, place=True)
        whole = network.raw(torch.from_numpy(small))
    whole = {word: values for own in whole.values() for word, values in own.items()}
    assert set(parts) == set(whole)
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-3, atol=1e-3, err_msg=name)
