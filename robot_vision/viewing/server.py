"""Rerun's web viewer in a process of its own: on this machine alone unless another host is given."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

from robot_vision.errors import ConfigError
from robot_vision.files.processes import die_with_parent
from robot_vision.viewing.page import Page
from robot_vision.viewing.scene import MISSING

LOCAL = "127.0.0.1"
_START_S = 30.0
_STOP_S = 5.0


class WebViewer:
    """Serves a page with what is sent to `sink`, until it is closed.

    Rerun reports what its viewer is used for unless a file in the user's folder says no; the process gets a
    folder with such a file. The page comes through `Page`, under whose policy a browser reports nothing.

    Args:
        host: address to listen on; 127.0.0.1 for this machine alone, 0.0.0.0 for all networks.
        port: of the page; the data come over the next one.
        memory_mb: that the server keeps for pages that are opened later; then the oldest data go.

    Attributes:
        sink: URL that data are sent to.
        page: URL that people open.

    Raises:
        ConfigError: Rerun is not installed, a port is in use, or the server did not start.
    """

    def __init__(self, host: str = LOCAL, port: int = 9870, memory_mb: int = 512) -> None:
        program = _program()
        for number in (port, port + 1):
            _require_free(host, number)
        self._folder = tempfile.TemporaryDirectory(prefix="robot_vision_view_")
        self._log = Path(self._folder.name) / "log"
        self._page: Page | None = None
        inner = _free_port()  # of Rerun's own page, which has no policy, and no data either
        named = _names(host)
        self.sink = f"rerun+http://{LOCAL if host == '0.0.0.0' else host}:{port + 1}/proxy"
        data = urllib.parse.quote(f"rerun+http://{named}:{port + 1}/proxy", safe="")
        self.page = f"http://{named}:{port}/?url={data}"
        # By default pages of this machine, and of Rerun's own site, may read the data.
        others = () if host == LOCAL else ("--cors-allow-origin", f"http://*:{port}")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(str(program), "--serve-web", "--bind", host),
                    *("--port", str(port + 1), "--web-viewer-port", str(inner)),
                    *("--server-memory-limit", f"{memory_mb}MB"),
                    *others,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_without_analytics(Path(self._folder.name))},
                preexec_fn=die_with_parent,
            )
        try:
            self._wait(host, (inner, port + 1))
            source = LOCAL if host == "0.0.0.0" else host
            self._page = Page(host, port, f"http://{source}:{inner}", port + 1)
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends it; calling it again does nothing."""
        page, self._page = self._page, None
        if page is not None:
            page.close()
        if self.alive:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()

    def _wait(self, host: str, ports: tuple[int, int]) -> None:
        deadline = time.monotonic() + _START_S
        reach = LOCAL if host == "0.0.0.0" else host
        for port in ports:
            while True:
                with contextlib.suppress(OSError), socket.create_connection((reach, port), 1.0):
                    break
                if not self.alive or time.monotonic() > deadline:
                    lines = self._log.read_text(errors="replace").strip().splitlines()
                    said = lines[-1] if lines else "it said nothing"
                    raise ConfigError(f"Rerun's server did not start: {said}")
                time.sleep(0.05)


def _program() -> Path:
    """Returns Rerun's executable."""
    found = importlib.util.find_spec("rerun_cli")
    if found is None or found.origin is None:
        raise ConfigError(MISSING)
    return Path(found.origin).parent / "rerun"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        return int(probe.getsockname()[1])


def _require_free(host: str, port: int) -> None:
    """Refuses an address that cannot be listened on.

    Raises:
        ConfigError: the port is in use, or the address is not of this machine.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({why}): choose another port, whose next one is free too"
        ) from error


def _names(host: str) -> str:
    """Returns under which name others reach an address."""
    return socket.gethostname() if host == "0.0.0.0" else host


def _without_analytics(folder: Path) -> dict[str, str]:
    """Returns the environment of a Rerun that reports nothing, as after `rerun analytics disable`."""
    own, data = folder / "rerun" / "analytics.json", folder / "rerun" / "analytics"
    own.parent.mkdir()
    own.write_text(
        json.dumps(
            {
                "analytics_enabled": False,
                "analytics_id": "0",
                "metadata": {},
                "config_file_path": str(own),
                "data_dir_path": str(data),
            }
        )
    )
    return {"XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
