"""What `robot-vision view --serve` shows in a real browser, of recordings, maps and evaluations.

With ROBOT_VISION_PICTURES=FOLDER the pictures are kept there, as those of the docs were made.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import Browser
from evaluation_bags import write_bag
from place_maps import keyframe, make_map
from tiny_bundle import make_tiny_bundle

from robot_vision.cli import main
from robot_vision.demo.recorded import record_drive
from robot_vision.images.canvas import colour_of_name
from robot_vision.simulation.drive import evaluation_drive
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.renderer import Camera
from robot_vision.simulation.world.sensor import Sensor, render_frames

pytest.importorskip("rerun", reason="rerun-sdk is not installed (pip install 'robot_vision[view]')")
pytestmark = pytest.mark.slow

SIZE = (960, 600)  # few pixels: there is no GPU
_SECONDS = 400  # a browser without a GPU on a busy machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(int(probe.getsockname()[1]), 65533)


class Listener:
    """Hears whom a browser asks: every name leads here, and even over TLS the first bytes have it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    connection.settimeout(2.0)
                    with contextlib.suppress(OSError):
                        self.heard.append(connection.recv(4096))

    def close(self) -> None:
        self._socket.close()


def look(tmp_path: Path, words: list[str], seen: Callable[[np.ndarray], bool], name: str) -> None:
    """Serves, and waits until a picture of the page shows something; the page asks nobody else."""
    from ros_helpers import wait_until

    log = tmp_path / "view.txt"
    code = "import sys; from robot_vision.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "view", *words, "--serve", "--port", str(free_port())]
    listener = Listener()
    everything = f"--host-resolver-rules=MAP * 127.0.0.1:{listener.port}, EXCLUDE 127.0.0.1"
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            found = wait_until(
                lambda: re.search(r"http://\S+", log.read_text()) or process.poll(), 120, "a page"
            )
            assert isinstance(found, re.Match), log.read_text()
            picture = tmp_path / f"{name}.png"
            with Browser(tmp_path, *SIZE, flags=[everything]) as browser:
                browser.open(found[0])

                last = [np.zeros(0, int)]

                def shown() -> bool:
                    browser.picture(picture)
                    last.append(cv2.imread(str(picture))[..., ::-1].astype(int))
                    # The same twice: all that was sent is there.
                    return np.array_equal(last.pop(0), last[-1]) and seen(last[-1])

                wait_until(shown, _SECONDS, f"{name} in the page")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
            listener.close()
    for who in (b"rerun.io", b"github.com", b"fonts."):
        assert not [data for data in listener.heard if who in data], who
    if folder := os.environ.get("ROBOT_VISION_PICTURES"):
        shutil.copy(picture, folder)


def coloured(rgb: tuple[int, int, int], least: int) -> Callable[[np.ndarray], bool]:
    return lambda image: bool((np.abs(image - rgb).max(axis=2) < 24).sum() >= least)


def test_recording_and_answers_of_a_model(tmp_path: Path) -> None:
    world, camera, rate = default_world(), Camera(), 2.0
    frames = evaluation_drive(world, rate)[8:16]
    images = render_frames(world, frames, Sensor(seed=0), camera, workers=1)
    bag = tmp_path / "drive"
    assert len(list(record_drive(bag, frames, images, camera, 1_700_000_000 * 10**9))) == 8
    look(tmp_path, [str(bag), "--model", "demo"], _has_picture, "recording")


def _has_picture(image: np.ndarray) -> bool:
    """Says whether there are many vivid pixels where pictures are, right of what is there before them."""
    vivid = image.max(axis=2) - image.min(axis=2) > 90
    return bool(vivid[60:560, 210:480].sum() > 2000)


def test_keyframes_of_a_map(tmp_path: Path) -> None:
    with make_map(tmp_path / "house.map") as places:
        places.add_many([keyframe(number) for number in range(60)])
    near = coloured(colour_of_name("drive"), 30)
    look(tmp_path, ["--map", str(tmp_path / "house.map")], near, "map")


def test_evaluation_with_its_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bag, bundle = write_bag(tmp_path / "drive", count=12), make_tiny_bundle(tmp_path / "bundle")
    assert main(["evaluate", "--bag", str(bag), "--model", str(bundle), "--output", "ev"]) == 0
    look(tmp_path, ["--evaluation", str(tmp_path / "ev")], _has_picture, "evaluation")


def test_predictions_that_were_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bag, bundle = write_bag(tmp_path / "drive", count=12), make_tiny_bundle(tmp_path / "bundle")
    assert main(["evaluate", "--bag", str(bag), "--model", str(bundle), "--output", "ev"]) == 0
    results = next((tmp_path / "ev/results").iterdir())
    look(tmp_path, [str(bag), "--predictions", str(results)], _has_picture, "predictions")
