"""Child processes that die with the demo, whose death the demo notices, and a ROS domain of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from robot_vision.errors import ConfigError, RobotVisionError
from robot_vision.files.processes import die_with_parent

# The ports of higher ones run into those that Linux hands out to outgoing connections
MAX_DOMAIN = 101
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, kill, a closed terminal
_STOP_S = 5.0


class DemoError(RobotVisionError):
    """A part of the demo did not do its work."""


def free_domain() -> int:
    """Returns a ROS domain that no participant on this machine uses, nor this shell by default.

    The first participant of a domain on a machine has UDP port 7410 + 250 * domain.

    Raises:
        ConfigError: all are taken.
    """
    own = os.environ.get("ROS_DOMAIN_ID", "0")
    first = os.getpid() % MAX_DOMAIN  # two demos that start together try different ones
    for i in range(MAX_DOMAIN):
        domain = 1 + (first + i) % MAX_DOMAIN
        if str(domain) != own and all(_is_free(7410 + 250 * domain + 2 * n) for n in range(3)):
            return domain
    raise ConfigError(f"All ROS domains from 1 to {MAX_DOMAIN} are in use: name one with --domain")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


class Processes:
    """Python modules that run as processes of their own until the block ends.

    Args:
        logs: directory for what they print.
        environment: added to this process's own.
    """

    def __init__(self, logs: Path, environment: dict[str, str]) -> None:
        self._logs = logs
        self._environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, module: str, arguments: Sequence[str]) -> None:
        """Starts `python -m module arguments`; it prints into `<name>.log`."""
        self._logs.mkdir(parents=True, exist_ok=True)
        with (self._logs / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # Ctrl-C comes to this process alone, which stops the others
                preexec_fn=die_with_parent,  # where this one is killed and can stop nobody
            )

    def ended(self, name: str) -> bool:
        """Says whether a process ended, as it should.

        Raises:
            DemoError: it ended with an error; the message has its last words.
        """
        status = self._running[name].poll()
        if status:
            raise DemoError(f"{self._death(name, status)}: {self.last_words(name)}")
        return status is not None

    def require(self, name: str) -> None:
        """Raises DemoError if a process that should still run has ended."""
        if self.ended(name):
            raise DemoError(f"The {name} ended too early: {self.last_words(name)}")

    def last_words(self, name: str) -> str:
        """Returns the last line that a process printed, and where the others are."""
        path = self._logs / f"{name}.log"
        lines = [
            line.strip()
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.strip()
        ]
        return f"{lines[-1] if lines else 'it said nothing'} (log: {path})"

    @staticmethod
    def _death(name: str, status: int) -> str:
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"The {name} was killed by {signal.Signals(-status).name}"
        return f"The {name} failed with exit status {status}"

    def pids(self) -> dict[str, int]:
        """Returns the process ids by name."""
        return {name: process.pid for name, process in self._running.items()}

    def stop(self) -> None:
        """Asks all to stop, and kills what does not within a few seconds."""
        for process in self._running.values():
            _send(process, signal.SIGINT)
        deadline = time.monotonic() + _STOP_S
        for process in self._running.values():
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                _send(process, signal.SIGKILL)
                process.wait()
        self._running.clear()


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
