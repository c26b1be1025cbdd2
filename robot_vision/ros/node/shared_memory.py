"""Gives back the shared memory that killed processes left behind.

Fast DDS removes a process's segment when the process ends, and nobody removes that of one that was killed
(SIGKILL, a crash, the kernel out of memory): with `config/fastdds_large_images.xml` 32 MiB each time. A node
that is started again and again so fills a container's /dev/shm, images go over UDP, and most are lost.
The files of ports are small and used again, and stay.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path

FOLDER = Path("/dev/shm")
# Fast DDS 3 and 2. The owner of a segment holds a lock on the file next to it as long as it lives, which is
# also how `fastdds shm clean` knows the dead ones.
_LOCK_FILE = re.compile(r"(fastdds|fastrtps)_[0-9a-f]{16}_el")
_OWNERLESS_S = 10.0  # younger ones may be of a process that has not taken its lock yet


def remove_dead_segments(folder: Path = FOLDER, older_than_s: float = _OWNERLESS_S) -> int:
    """Removes the Fast DDS segments of this user's dead processes.

    Args:
        folder: where the system keeps shared memory.
        older_than_s: segments that were made later stay.

    Returns:
        How many bytes were given back.
    """
    freed = 0
    try:
        names = [name for name in os.listdir(folder) if _LOCK_FILE.fullmatch(name)]
    except OSError:
        return 0  # no Linux, or a container without /dev/shm: there is nothing to give back
    for name in names:
        try:
            freed += _remove_if_dead(folder / name, older_than_s)
        except OSError:  # alive, another user's, or gone in the meantime
            continue
    return freed


def _remove_if_dead(lock: Path, older_than_s: float) -> int:
    segment = lock.with_name(lock.name.removesuffix("_el"))
    # Anyone who may write in /dev/shm may put a link there.
    descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid() or time.time() - status.st_mtime < older_than_s:
            return 0
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = segment.lstat().st_size if segment.exists() else 0
        segment.unlink(missing_ok=True)
        lock.unlink()
        return size
    finally:
        os.close(descriptor)
