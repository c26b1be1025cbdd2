"""Makes large images arrive over Fast DDS, the default middleware.

Its default shared-memory segment (512 KiB) holds no camera image, which then goes over UDP in fragments: a
best-effort subscriber loses nearly all of them. The profile `config/fastdds_large_images.xml` has a segment
that holds some. It has to be chosen before the middleware starts, in every process that publishes or
subscribes to images.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

PROFILE = "fastdds_large_images.xml"
# Fast DDS 3 (Kilted and newer) has the first name, and warns of the second, which Fast DDS 2 has.
PROFILES_FILE, PROFILES_FILE_V2 = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
USERS_CHOICES = (PROFILES_FILE, PROFILES_FILE_V2, "FASTDDS_BUILTIN_TRANSPORTS")
FAST_DDS = ("rmw_fastrtps_cpp", "rmw_fastrtps_dynamic_cpp")
_DISTROS_V2 = ("humble", "iron", "jazzy")


def large_image_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment variables to add; none if the user chose a profile or other middleware."""
    if environment.get("RMW_IMPLEMENTATION", "") not in ("", *FAST_DDS):
        return {}
    if any(environment.get(name) for name in USERS_CHOICES):
        return {}
    profile = find_profile(environment)
    if profile is None:
        return {}
    return {PROFILES_FILE_V2 if _is_version_2(environment) else PROFILES_FILE: str(profile)}


def find_profile(environment: Mapping[str, str]) -> Path | None:
    """Returns the installed profile, or that of the source tree; None if there is neither."""
    shares = [p / "share" / "robot_vision" for p in _prefixes(environment)]
    folders = [s / "config" for s in shares] + [Path(__file__).resolve().parents[3] / "config"]
    return next((f / PROFILE for f in folders if (f / PROFILE).is_file()), None)


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
