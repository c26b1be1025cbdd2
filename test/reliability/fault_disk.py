"""A disk of some megabytes for one node's process, and what happens to that node when it is full."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from fault_rig import Rig
from ros_helpers import wait_until

_MOUNT = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && '
_BLOCK = 4096


def _unshare() -> list[str]:
    # A user who is not root is root in a user namespace of their own, where the system allows that.
    return (
        ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    )


@functools.cache
def may_mount() -> bool:
    """Whether this user can mount a file system that only one process sees."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*_unshare(), "sh", "-c", _MOUNT + "true", "sh", "64k", folder]
        try:
            return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


class SmallDisk:
    """A tmpfs in the mount namespace of one process: it is gone with that process, however it ends.

    Args:
        folder: where the process sees it; others see an empty folder there.
        kib: its size.
    """

    def __init__(self, folder: Path, kib: int = 1024) -> None:
        folder.mkdir()
        self.folder, self._kib = folder, kib

    def prefix(self, *files: Path, log: bool = False) -> list[str]:
        """Returns the command that runs another one with the disk.

        Args:
            files: copied to the disk first.
            log: whether what the process prints and logs goes to the disk, too.
        """
        copy = "".join(f"cp '{path}' '{self.folder}' && " for path in files)
        run = 'exec "$@"'
        if log:
            run = f"export ROS_LOG_DIR='{self.folder}' && {run} >> '{self.folder}/out.txt' 2>&1"
        script = _MOUNT + copy + run
        return [*_unshare(), "sh", "-c", script, "sh", f"{self._kib}k", str(self.folder)]

    def seen(self, pid: int) -> Path:
        """Returns the path on which this process sees the disk of that one."""
        return Path(f"/proc/{pid}/root{self.folder}")

    def fill(self, pid: int) -> None:
        """Leaves no room on it."""
        with (self.seen(pid) / "ballast").open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(_BLOCK))
            except OSError:  # full
                pass
        assert self.free(pid) < _BLOCK

    def make_room(self, pid: int) -> None:
        """Takes away what `fill` wrote."""
        (self.seen(pid) / "ballast").unlink()

    def free(self, pid: int) -> int:
        """Returns the bytes that are left."""
        room = os.statvfs(self.seen(pid))
        return room.f_bavail * room.f_frsize


def log_disk_full(rig: Rig, seconds: float) -> dict[str, Any]:
    """No room is left where the node logs (ROS_LOG_DIR and its output); it logs again when there is."""
    rig.heal()  # a node that still starts may have inherited that SIGINT is ignored
    rig.node.stop()
    disk = SmallDisk(rig.folder / f"log_disk_{rig.starts}")
    rig.node = rig.start(disk.prefix(log=True), warn_period_s=0.1)
    rig.heal(120)
    pid = rig.node.process.pid
    disk.fill(pid)
    full = _logged(disk, pid)
    rig.camera.tell(rate=30, vary=True)  # refused frames, each of which is worth a line
    before = rig.answers
    time.sleep(seconds)
    answered = rig.answers - before
    recovery = rig.heal()
    warned = rig.counters()["refused_encoding"]
    assert answered and warned, (answered, warned)
    written = _logged(disk, pid) - full
    assert disk.free(pid) < _BLOCK and written < 2 * _BLOCK, f"{written} bytes on a full disk"
    disk.make_room(pid)
    rig.camera.tell(rate=30, vary=True)
    again = _logged(disk, pid)
    wait_until(lambda: _logged(disk, pid) > again, 30, "a line in the log once there was room")
    rig.heal()
    printed = (disk.seen(pid) / "out.txt").read_text(errors="replace")
    assert "Traceback" not in printed, printed[-3000:]
    status = rig.node.stop()
    assert status == 0, status
    rig.node = rig.start()
    return {
        "answered": answered,
        "recovery_s": round(recovery, 2),
        "refused_meanwhile": int(warned),
    }


def _logged(disk: SmallDisk, pid: int) -> int:
    files = [path for path in disk.seen(pid).iterdir() if path.name != "ballast"]
    return sum(path.stat().st_size for path in files)
