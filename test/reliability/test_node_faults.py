"""Bad input to the running node: it stays up, says what and how often, and answers the next good frame."""

from __future__ import annotations

import array
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")
pytest.importorskip("vision_msgs")

from fragile_bundle import make_fragile_bundle
from ros_helpers import (
    Client,
    NodeProcess,
    coloured_image,
    jpeg_message,
    rgb_message,
    set_header,
    stamp_ns,
    wait_until,
)
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.bundle import GRAPH

pytestmark = pytest.mark.ros
RAW, JPEG = "/raw_eyes", "/jpeg_eyes"
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = 1, 2, 3, 4


class Patient:
    """Two nodes, for raw and for compressed images, and a client that mistreats them."""

    def __init__(self, folder: Path) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from vision_msgs.msg import Classification

        self.bundle = make_tiny_bundle(folder / "tiny")
        self.client = Client()
        self.client.listen(DiagnosticArray, "/diagnostics")
        self.processes = {
            node: NodeProcess(
                folder / f"{transport}.txt",
                "robot_vision.ros.perception.node",
                "--ros-args",
                *("-r", f"__node:={node[1:]}", "-p", f"model:={self.bundle}"),
                *("-p", "engine:=onnx", "-p", "threads:=1", "-p", f"transport:={transport}"),
                *("-p", "cameras:=[front]", "-p", "diagnostics_period_s:=0.1"),
                *("-p", "diagnostics_window_s:=2", "-p", "warn_period_s:=0.1"),
            )
            for node, transport in ((RAW, "raw"), (JPEG, "compressed"))
        }
        self.answers = {
            node: self.client.listen(Classification, f"{node}/front/classification")
            for node in self.processes
        }
        self._next_ns = time.time_ns()

    def output(self, node: str) -> str:
        return self.processes[node].output

    def stamp(self) -> int:
        self._next_ns = max(self._next_ns + 1_000_000, time.time_ns())
        return self._next_ns

    def send(self, message: Any) -> None:
        raw = hasattr(message, "encoding")
        topic = "/front/image_raw" + ("" if raw else "/compressed")
        self.client.publisher(type(message), topic).publish(message)

    def count(self, node: str, name: str) -> float:
        return self.client.count(f"{node}: camera front", name)

    def is_answered(self, message: Any) -> None:
        """Sends a good frame until it is answered under its header."""
        node = RAW if hasattr(message, "encoding") else JPEG
        last = [0.0]

        def again() -> None:
            if time.monotonic() - last[0] > 0.4:
                self.send(message)
                last[0] = time.monotonic()

        wait_until(
            lambda: any(stamp_ns(a) == stamp_ns(message) for a in list(self.answers[node])[-20:]),
            30,
            f"answer to a good frame; the node said:\n{self.output(node)[-3000:]}",
            each=again,
        )
        assert self.processes[node].alive


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    patient = Patient(tmp_path_factory.mktemp("patient"))
    yield patient
    statuses = [process.stop() for process in patient.processes.values()]
    patient.client.close()
    for process in patient.processes.values():
        assert "Traceback" not in process.output, process.output
        assert "Internal error" not in process.output
    assert statuses == [0, 0]


def _good(stamp: int) -> Any:
    return rgb_message(coloured_image((200, 30, 30)), stamp)


def _image(**changes: Any) -> Callable[[int], Any]:
    def make(stamp: int) -> Any:
        message = _good(stamp)
        for name, value in changes.items():
            setattr(message, name, array.array("B", value) if name == "data" else value)
        return message

    return make


def _floats(values: np.ndarray) -> Callable[[int], Any]:
    def make(stamp: int) -> Any:
        data = np.ascontiguousarray(values, np.float32)
        message = _good(stamp)
        message.height, message.width = data.shape
        message.encoding, message.step = "32FC1", 4 * data.shape[1]
        message.data = array.array("B", data.tobytes())
        return message

    return make


def _jpeg(damage: Callable[[bytes], bytes], kind: str = "jpeg") -> Callable[[int], Any]:
    def make(stamp: int) -> Any:
        message = jpeg_message(coloured_image((200, 30, 30), (240, 320)), stamp)
        message.data = array.array("B", damage(bytes(message.data)))
        message.format = kind
        return message

    return make


GOOD_BYTES = 48 * 64 * 3
BAD_FRAMES = {
    "unknown encoding": (_image(encoding="rgb9"), "encoding", ["rgb9", "use one of"]),
    "empty encoding": (_image(encoding=""), "encoding", ["''"]),
    "wrong encoding for the step": (_image(encoding="rgba8"), "size", ["step", "192"]),
    "data short": (_image(data=bytes(GOOD_BYTES - 500)), "data_length", [str(GOOD_BYTES - 500)]),
    "data long": (_image(data=bytes(GOOD_BYTES + 1)), "data_length", [str(GOOD_BYTES + 1)]),
    "no data": (_image(data=b""), "data_length", ["0"]),
    "zero height": (_image(height=0), "size", ["64 x 0"]),
    "zero width": (_image(width=0), "size", ["0 x 48"]),
    "absurd size": (_image(height=2**31, width=2**31, step=2**32 - 1), "size", ["2147483648"]),
    "nan": (_floats(np.full((30, 40), np.nan)), "non_finite", []),
    "one nan": (_floats(np.where(np.eye(40), np.nan, 0.5)), "non_finite", []),
    "infinite": (_floats(np.full((30, 40), np.inf)), "non_finite", []),
}
BAD_JPEGS = {
    "cut off": (_jpeg(lambda d: d[: len(d) // 2]), "corrupt"),
    "empty": (_jpeg(lambda d: b""), None),
    "noise": (_jpeg(lambda d: bytes(range(256)) * 9), None),
    "absurd size": (
        _jpeg(lambda d: d.replace(b"\x00\xf0\x01\x40", b"\xff\xff\xff\xff", 1)),
        None,
    ),
    "png header only": (_jpeg(lambda d: b"\x89PNG\r\n\x1a\n" + bytes(40), "png"), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_FRAMES)
def test_bad_frame_is_refused_counted_and_outlived(patient: Patient, name: str) -> None:
    make, reason, words = BAD_FRAMES[name]
    counter = f"refused_{reason}"
    patient.is_answered(_good(patient.stamp()))
    before = patient.count(RAW, counter)
    already = len(patient.output(RAW))
    bad = make(patient.stamp())
    wait_until(
        lambda: patient.count(RAW, counter) > before,
        what=f"{counter}; the node said:\n{patient.output(RAW)[-2000:]}",
        each=lambda: (patient.send(bad), time.sleep(0.05)),
    )
    patient.is_answered(_good(patient.stamp()))
    assert not any(stamp_ns(a) == stamp_ns(bad) for a in patient.answers[RAW])
    # The line may be throttled by that of a frame before, so bad frames come until it is there.
    lines = wait_until(
        lambda: [
            line
            for line in patient.output(RAW)[already:].splitlines()
            if f"Camera front: frame refused ({reason}," in line
        ],
        what=f"a warning of {reason}; the node said:\n{patient.output(RAW)[-2000:]}",
        each=lambda: (patient.send(bad), time.sleep(0.05)),
    )
    assert "so far)" in lines[0]
    for word in words:
        assert word in lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_JPEGS)
def test_bad_jpeg_is_refused_counted_and_outlived(patient: Patient, name: str) -> None:
    make, reason = BAD_JPEGS[name]
    good = jpeg_message(coloured_image((200, 30, 30), (240, 320)), patient.stamp())
    patient.is_answered(good)

    def refused() -> float:
        # A node that has only just started has said nothing of itself yet.
        found = wait_until(
            lambda: patient.client.diagnostics(f"{JPEG}: camera front"), what="diagnostics"
        )
        counters = {k: float(v) for k, v in found[2].items() if k.startswith("refused_")}
        counters.pop("refused_hz")
        return counters[f"refused_{reason}"] if reason else sum(counters.values())

    before, bad = refused(), make(patient.stamp())
    wait_until(
        lambda: refused() > before,
        what=f"refusal; the node said:\n{patient.output(JPEG)[-2000:]}",
        each=lambda: (patient.send(bad), time.sleep(0.05)),
    )
    set_header(good, patient.stamp(), "front_optical")
    patient.is_answered(good)
    assert not any(stamp_ns(a) == stamp_ns(bad) for a in patient.answers[JPEG])


@pytest.mark.slow
def test_refused_frames_show_in_the_level_of_diagnostics(patient: Patient) -> None:
    bad = _image(encoding="rgb9")(patient.stamp())
    status = f"{RAW}: camera front"

    def level() -> int:
        found = patient.client.diagnostics(status)
        return found[0] if found else -1

    wait_until(lambda: level() == 2, 30, "ERROR while all are refused", lambda: patient.send(bad))
    assert "refused" in patient.client.diagnostics(status)[1]
    wait_until(
        lambda: level() == 0,
        30,
        "OK again",
        lambda: patient.send(_good(patient.stamp())),
    )


@pytest.mark.slow
def test_camera_that_stops_and_comes_back(patient: Patient) -> None:
    patient.is_answered(_good(patient.stamp()))
    already = len(patient.output(RAW))  # before: the camera may have stopped when the answer comes
    assert patient.client.set_parameters(RAW, stale_after_s=0.4).successful
    status = f"{RAW}: camera front"
    found = wait_until(
        lambda: (d := patient.client.diagnostics(status)) and d[0] == 2 and d, what="ERROR: stopped"
    )
    assert found[1].startswith("no frame for")
    said = len(patient.client.received["/diagnostics"])
    wait_until(lambda: len(patient.client.received["/diagnostics"]) > said + 3, what="more looks")

    def times() -> tuple[int, int]:
        text = patient.output(RAW)[already:]
        return text.count("no frame on /front/image_raw for"), text.count("frames arrive again")

    # Once for each time that it stopped: a good frame may have been sent twice, and the second be late.
    stopped, came = times()
    assert stopped == came + 1
    patient.is_answered(_good(patient.stamp()))
    wait_until(lambda: times()[1] >= stopped, what="the line that frames arrive again")
    wait_until(
        lambda: patient.client.diagnostics(status)[0] == 0,
        what="OK again",
        each=lambda: patient.send(_good(patient.stamp())),
    )
    assert patient.client.set_parameters(RAW, stale_after_s=10.0).successful


@pytest.mark.slow
def test_a_topic_of_another_type_is_told_with_its_remedy(patient: Patient) -> None:
    """DDS says nothing: to it they are two topics, and the camera seems to be silent."""
    from sensor_msgs.msg import CompressedImage
    from vision_msgs.msg import Classification

    publisher = patient.client.publisher(CompressedImage, "/other/jpeg")
    _reconfigure(patient, image_topics=["/other/jpeg"], stale_after_s=0.4)
    remedy = "sensor_msgs/msg/CompressedImage is published there: set transport to compressed"
    status = f"{RAW}: camera front"
    found = wait_until(
        lambda: (d := patient.client.diagnostics(status)) and remedy in d[1] and d,
        what=f"the remedy; the node said:\n{patient.output(RAW)[-2000:]}",
        each=lambda: publisher.publish(CompressedImage()),
    )
    assert found[0] == 2 and remedy in patient.output(RAW)
    # Following that advice leads to answers: drivers publish JPEG without image_transport's suffix.
    _reconfigure(patient, transport="compressed")
    answers = patient.client.listen(Classification, f"{RAW}/front/classification")
    before = len(answers)
    wait_until(
        lambda: len(answers) > before,
        what="an answer to a JPEG on /other/jpeg",
        each=lambda: publisher.publish(jpeg_message(coloured_image((9, 99, 200)), patient.stamp())),
    )
    _reconfigure(patient, transport="raw", image_topics=[""], stale_after_s=10.0)
    patient.is_answered(_good(patient.stamp()))


@pytest.mark.slow
def test_stamps_that_go_back_are_answered_and_counted(patient: Patient) -> None:
    now = patient.stamp()
    patient.is_answered(_good(now))
    before = patient.count(RAW, "stamps_back")
    patient.is_answered(_good(now - 3600 * 10**9))
    wait_until(lambda: patient.count(RAW, "stamps_back") > before, what="stamps_back")
    ahead = patient.count(RAW, "stamps_ahead")
    patient.is_answered(_good(now + 3600 * 10**9))
    wait_until(lambda: patient.count(RAW, "stamps_ahead") > ahead, what="stamps_ahead")
    patient.is_answered(_good(0))
    patient.is_answered(_good(patient.stamp()))
    age = float(patient.client.diagnostics(f"{RAW}: camera front")[2]["age_at_publication_ms_p50"])
    assert age >= 0


def _down(client: Client) -> None:
    """Takes the node to unconfigured, from whatever state the test before left."""
    if client.state(RAW) == "active":
        assert client.change_state(RAW, DEACTIVATE)
    if client.state(RAW) == "inactive":
        assert client.change_state(RAW, CLEANUP)


def _reconfigure(patient: Patient, **parameters: Any) -> None:
    client = patient.client
    _down(client)
    result = client.set_parameters(RAW, **{"model": str(patient.bundle), **parameters})
    assert result.successful, result.reason
    assert client.change_state(RAW, CONFIGURE) and client.change_state(RAW, ACTIVATE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Deprecated in favor of")
def test_two_publishers_with_different_qos(patient: Patient) -> None:
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image
    from vision_msgs.msg import Classification

    node = patient.client.node
    publishers = {
        reliability: node.create_publisher(
            Image, "/front/image_raw", QoSProfile(depth=1, reliability=reliability)
        )
        for reliability in (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT)
    }

    def answered(reliability: Any, timeout_s: float = 30) -> bool:
        message = _good(patient.stamp())
        try:
            wait_until(
                lambda: any(
                    stamp_ns(a) == stamp_ns(message) for a in list(patient.answers[RAW])[-9:]
                ),
                timeout_s,
                each=lambda: publishers[reliability].publish(message),
            )
        except AssertionError:
            return False
        return True

    try:
        # Best effort, the default, hears both.
        assert answered(ReliabilityPolicy.RELIABLE) and answered(ReliabilityPolicy.BEST_EFFORT)
        # Reliable cannot hear the other, and says so by the topic's name.
        _reconfigure(patient, subscribe_reliability="reliable")
        wait_until(
            lambda: (
                "A publisher of /front/image_raw offers an incompatible RELIABILITY"
                in patient.output(RAW)
            ),
            what="warning about the publisher",
        )
        assert answered(ReliabilityPolicy.RELIABLE)
        assert not answered(ReliabilityPolicy.BEST_EFFORT, 0.6)
        assert answered(ReliabilityPolicy.RELIABLE)
    finally:
        for publisher in publishers.values():
            node.destroy_publisher(publisher)
        _reconfigure(patient, subscribe_reliability="best_effort")

    wanting = node.create_subscription(
        Classification,
        f"{RAW}/front/classification",
        lambda _: None,
        QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
    )
    wait_until(
        lambda: f"A subscriber of {RAW}/front/classification requests" in patient.output(RAW),
        what="warning about the subscriber",
    )
    node.destroy_subscription(wanting)
    wait_until(lambda: patient.client.count(RAW, "incompatible_qos") >= 2, what="both counted")


def _missing(bundle: Path) -> str:
    (bundle / GRAPH).unlink()
    return "is missing"


def _truncated(bundle: Path) -> str:
    content = (bundle / GRAPH).read_bytes()
    (bundle / GRAPH).write_bytes(content[:-20])
    return "altered or cut off"


def _altered(bundle: Path) -> str:
    content = bytearray((bundle / GRAPH).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / GRAPH).write_bytes(content)
    return "altered or cut off"


def _without_manifest(bundle: Path) -> str:
    (bundle / "bundle.yaml").unlink()
    return "not a model bundle"


def _edit(bundle: Path, change: Callable[[dict], None]) -> None:
    data = yaml.safe_load((bundle / "bundle.yaml").read_text())
    change(data)
    (bundle / "bundle.yaml").write_text(json.dumps(data))


def _unknown_head(bundle: Path) -> str:
    _edit(bundle, lambda d: d["network"]["heads"].update(vlad={}))
    return "vlad"


def _label_count(bundle: Path) -> str:
    (bundle / "labels.txt").write_text("a\nb\n")
    from robot_vision.files.whole import file_sha256

    _edit(bundle, lambda d: d["files"].update({"labels.txt": file_sha256(bundle / "labels.txt")}))
    return "does not fit bundle.yaml"


def _newer(bundle: Path) -> str:
    _edit(bundle, lambda d: d.update(format_version=99))
    return "format_version is 99"


def _pickle(bundle: Path) -> str:
    (bundle / "weights.pth").write_bytes(b"\x80\x04.")
    return "pickle"


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        _missing,
        _truncated,
        _altered,
        _without_manifest,
        _unknown_head,
        _label_count,
        _newer,
        _pickle,
    ],
)
def test_damaged_bundle_is_refused_at_configure(
    patient: Patient, tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    client = patient.client
    _down(client)
    bundle = tmp_path / "damaged"
    shutil.copytree(patient.bundle, bundle)
    words = damage(bundle)
    assert client.set_parameters(RAW, model=str(bundle)).successful
    already = len(patient.output(RAW))
    assert not client.change_state(RAW, CONFIGURE)
    assert client.state(RAW) == "unconfigured"
    lines = [line for line in patient.output(RAW)[already:].splitlines() if "[ERROR]" in line]
    assert len(lines) == 1 and "Cannot configure:" in lines[0] and words in lines[0], lines
    found = wait_until(
        lambda: (d := client.diagnostics(RAW)) and words in d[1] and d, what="ERROR in diagnostics"
    )
    assert found[0] == 2
    _reconfigure(patient)
    patient.is_answered(_good(patient.stamp()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"model": ""}, "model is empty: set it to a bundle's directory"),
        ({"device": "cuda:7"}, "cuda:7"),
        ({"precision": "bfloat16"}, "bfloat16"),
        ({"image_topics": ["/front//image raw"]}, "'/front//image raw' for camera front"),
    ],
)
def test_settings_that_cannot_be_had_fail_configure(
    patient: Patient, parameters: dict, words: str
) -> None:
    client = patient.client
    _down(client)
    assert client.set_parameters(RAW, **parameters).successful
    already = len(patient.output(RAW))
    assert not client.change_state(RAW, CONFIGURE)
    assert (
        words in patient.output(RAW)[already:]
        and "Cannot configure" in patient.output(RAW)[already:]
    )
    assert "Traceback" not in patient.output(RAW)[already:]
    _reconfigure(patient, device="auto", precision="float32", image_topics=[""])
    patient.is_answered(_good(patient.stamp()))


@pytest.mark.slow
def test_network_that_answers_nan_is_not_believed(patient: Patient, tmp_path: Path) -> None:
    _reconfigure(patient, model=str(make_fragile_bundle(tmp_path / "fragile", "nan")))
    dark = coloured_image((60, 30, 20))
    patient.is_answered(rgb_message(dark, patient.stamp()))
    bright = _good(patient.stamp())
    wait_until(
        lambda: patient.count(RAW, "refused_result") >= 2,
        what=f"count; the node said:\n{patient.output(RAW)[-2000:]}",
        each=lambda: (patient.send(bright), time.sleep(0.05)),
    )
    assert "result refused" in patient.output(RAW) and "not finite" in patient.output(RAW)
    patient.is_answered(rgb_message(dark, patient.stamp()))
    assert not any(stamp_ns(a) == stamp_ns(bright) for a in patient.answers[RAW])
    _reconfigure(patient)


@pytest.mark.slow
def test_network_that_fails_at_run_time(patient: Patient, tmp_path: Path) -> None:
    client = patient.client
    _reconfigure(
        patient,
        model=str(make_fragile_bundle(tmp_path / "fragile", "fails")),
        max_engine_failures=2,
    )
    dark = coloured_image((60, 30, 20))
    patient.is_answered(rgb_message(dark, patient.stamp()))
    bright = _good(patient.stamp())
    found = wait_until(
        lambda: (d := client.diagnostics(RAW)) and "times in a row" in d[1] and d,
        what=f"ERROR in diagnostics; the node said:\n{patient.output(RAW)[-2000:]}",
        each=lambda: (patient.send(bright), time.sleep(0.05)),
    )
    assert found[0] == 2 and float(found[2]["engine_failures"]) >= 2
    assert patient.count(RAW, "engine_failed") >= 2
    assert "The network failed on a batch" in patient.output(RAW)
    patient.is_answered(rgb_message(dark, patient.stamp()))
    wait_until(
        lambda: client.diagnostics(RAW)[0] == 0,
        what="OK again",
        each=lambda: (patient.send(rgb_message(dark, patient.stamp())), time.sleep(0.05)),
    )
    _reconfigure(patient, model=str(patient.bundle))
    patient.is_answered(_good(patient.stamp()))
