"""Makes large images arrive over DDS, and gives back what killed processes left.

The default middleware is Fast DDS. Its own shared-memory segment (512 KiB) holds no camera image, which then
goes over UDP in fragments: a best-effort subscriber loses nearly all of them. The profile
`config/fastdds_large_images.xml` has a segment that holds some. It has to be chosen before the middleware
starts, in every process that publishes or subscribes to images.

Fast DDS removes a process's segment when the process ends, and nobody removes that of one that was killed
(SIGKILL, a crash, the kernel out of memory): 32 MiB each time. A node that is started again and again so
fills a container's /dev/shm, images go over UDP, and most are lost. The files of ports are small and used
again, and stay.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

PROFILE = "fastdds_large_images.xml"
# Fast DDS 3 (Kilted and newer) has the first name, and warns of the second, which Fast DDS 2 has.
PROFILES_FILE, PROFILES_FILE_V2 = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
USERS_CHOICES = (PROFILES_FILE, PROFILES_FILE_V2, "FASTDDS_BUILTIN_TRANSPORTS")
FAST_DDS = ("rmw_fastrtps_cpp", "rmw_fastrtps_dynamic_cpp")
_DISTROS_V2 = ("humble", "iron", "jazzy")
# Cyclone DDS asks the system for 1 MiB and sends images by UDP on one computer too. `max` is a wish: where
# the system gives less, the process starts all the same.
CYCLONE_DDS, CYCLONE_URI = "rmw_cyclonedds_cpp", "CYCLONEDDS_URI"
_BUFFER = '<SocketReceiveBufferSize max="8MB"/>'
_CYCLONE = f"<CycloneDDS><Domain><Internal>{_BUFFER}</Internal></Domain></CycloneDDS>"


def large_image_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment variables to add; none if the user chose a profile or other middleware."""
    rmw = environment.get("RMW_IMPLEMENTATION", "")
    if rmw == CYCLONE_DDS:
        return {} if environment.get(CYCLONE_URI) else {CYCLONE_URI: _CYCLONE}
    if rmw not in ("", *FAST_DDS):
        return {}
    if any(environment.get(name) for name in USERS_CHOICES):
        return {}
    profile = find_profile(environment)
    if profile is None:
        return {}
    return {PROFILES_FILE_V2 if _is_version_2(environment) else PROFILES_FILE: str(profile)}


_LAST_DOMAIN = 232  # the ports of higher ones are none


def find_profile(environment: Mapping[str, str]) -> Path | None:
    """Returns the installed profile, or that of the source tree; None if there is neither."""
    shares = [p / "share" / "robot_vision" for p in _prefixes(environment)]
    folders = [s / "config" for s in shares] + [Path(__file__).resolve().parents[3] / "config"]
    return next((f / PROFILE for f in folders if (f / PROFILE).is_file()), None)


def absent_middleware(environment: Mapping[str, str] = os.environ) -> str:
    """Says which middleware is asked for and is not installed; empty where all is well or nobody knows.

    rcl ends a process that loads it then, with status 102 and no remedy: ask before rclpy is imported.
    """
    asked = environment.get("RMW_IMPLEMENTATION", "")
    indices = (p / "share/ament_index/resource_index" for p in _prefixes(environment))
    there = {file.name for index in indices for file in index.glob("rmw_typesupport/rmw_*")}
    there.discard("rmw_implementation")  # which loads one of the others
    if not asked or not there or asked in there:
        return ""
    return f"RMW_IMPLEMENTATION is {asked}, which is not installed here: {', '.join(sorted(there))}"


def bad_domain(environment: Mapping[str, str] = os.environ) -> str:
    """Says what is wrong with ROS_DOMAIN_ID; empty where nothing is.

    rcl takes 1.5 for 1 and -1 for 0, and Fast DDS ends the process at a domain that has no ports.
    """
    domain = environment.get("ROS_DOMAIN_ID", "").strip()
    if not domain or (re.fullmatch("[0-9]{1,3}", domain) and int(domain) <= _LAST_DOMAIN):
        return ""
    return f"ROS_DOMAIN_ID is {domain}"


DOMAIN_REMEDY = f"set it to a number from 0 to {_LAST_DOMAIN}, or not at all"


def use_large_image_profile() -> None:
    """Sets this process up; call it before `rclpy.init`."""
    os.environ.update(large_image_environment(os.environ))


def _prefixes(environment: Mapping[str, str]) -> list[Path]:
    ament = environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return [Path(p) for p in (*ament, sys.prefix) if p]


def _is_version_2(environment: Mapping[str, str]) -> bool:
    distro = environment.get("ROS_DISTRO", "")
    if distro:
        return distro in _DISTROS_V2
    return any((p / "share" / "fastrtps").is_dir() for p in _prefixes(environment))


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
