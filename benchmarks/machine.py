"""What a figure was measured on: without it a figure means nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from robot_vision.engines.machine import installed_versions, processor

PACKAGES = ("numpy", "opencv-python", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu",
            "openvino", "torch", "torchvision", "ros-rclpy", "ros-rmw-fastrtps-cpp")  # fmt: skip


def describe() -> dict[str, Any]:
    """Returns processor, cores, memory, governor, versions and the commit that is measured."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        or "unknown",
        "cpu_extensions": _extensions(),
        "gpu": _gpu(),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": installed_versions(PACKAGES),
        "commit": _commit(),
    }


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().splitlines()[0]
    except (OSError, IndexError):
        return ""


def _extensions() -> list[str]:
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd")
    words = Path("/proc/cpuinfo").read_text().split()
    return [name for name in wanted if name in words]


def _gpu() -> str:
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, timeout=10)
        return done.stdout.strip() or "none"
    except (OSError, subprocess.TimeoutExpired):
        return "none"


def short_commit(commit: str, digits: int) -> str:
    """Returns the first digits of a commit as `describe` names it, with its "+changes"."""
    number, plus, changes = commit.partition("+")
    return number[:digits] + plus + changes


def _commit() -> str:
    root = Path(__file__).resolve().parent.parent
    git = ["git", "-C", str(root)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    # The report itself is written by the run, so only code counts as a change.
    code = ["robot_vision", "benchmarks", "config"]
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--", *code], capture_output=True, text=True
    )
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")
