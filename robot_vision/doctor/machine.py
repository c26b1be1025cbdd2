"""Cores, memory, clock, disk, engines: what a robot's computer gives to the nodes. Needs no ROS."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from robot_vision.doctor.finding import ERROR, WARNING, Finding
from robot_vision.engines import available_engines
from robot_vision.engines.machine import instructions
from robot_vision.files.cache_folder import user_cache
from robot_vision.text.counts import counted

_ROOT = Path("/")
_LEAST_MEMORY = 1 << 30  # a node with a ResNet takes 0.2 to 0.5 GiB
_LEAST_DISK = 1 << 30  # an engine of TensorRT takes up to 0.2 GB
_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
PYTHONS = ((3, 10), (3, 14))


def machine_findings(root: Path = _ROOT) -> Iterator[Finding]:
    """Yields what this machine is like.

    Args:
        root: where /proc and /sys lie.
    """
    yield _python()
    yield from _engines()
    yield from _cores(root)
    yield from _memory(root)
    yield from _clock()
    yield from _disk()


def _python() -> Finding:
    version = platform.python_version()
    first, last = (".".join(map(str, v)) for v in PYTHONS)
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return Finding("Python", version)
    return Finding("Python", version, WARNING, f"tested are {first} to {last}: use one of these")


def _engines() -> Iterator[Finding]:
    engines = available_engines()
    if not engines:
        yield Finding(
            "engines",
            "none is installed",
            ERROR,
            "pip install onnxruntime (or onnxruntime-gpu), or robot_vision[openvino]",
        )
        return
    text = "; ".join(f"{name} ({', '.join(devices)})" for name, devices in engines.items())
    yield Finding("engines", text)
    cpu = instructions()
    yield Finding("CPU", f"{platform.machine()}, computes with {cpu}")
    if "onnx" in engines and not {"cuda", "tensorrt"} & set(engines["onnx"]):
        from robot_vision.engines import nvidia

        if nvidia.has_driver():
            yield Finding(
                "GPU", "an NVIDIA driver is there, but unused", WARNING, nvidia.why_absent()
            )


def _cores(root: Path) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota(root)
    text = counted(cores, "core")
    if quota is None or quota >= cores:
        yield Finding("cores", text)
    else:
        threads = max(1, int(quota))
        yield Finding(
            "cores",
            f"{text}, of which this container may use {quota:g}",
            WARNING,
            f"start nodes with threads:={threads}: more are stopped in the middle of a frame",
        )
    governors = {
        path.read_text().strip()
        for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    }
    if "powersave" in governors:
        yield Finding(
            "CPU frequency",
            "the governor is powersave, which raises the clock late",
            WARNING,
            "sudo cpupower frequency-set -g performance",
        )


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Returns how many cores the control group of this process may use; None where it is not limited."""
    groups = root / "sys/fs/cgroup"
    limits = []
    # Version 2: this process's group and those above it; in a container its own is the root.
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    own = Path(next((line[4:] for line in lines if line.startswith("0::/")), ""))
    files = [(groups / group / "cpu.max",) for group in (own, *own.parents)]
    old = groups / "cpu"
    for those in (*files, (old / "cpu.cfs_quota_us", old / "cpu.cfs_period_us")):
        try:
            words = " ".join(file.read_text() for file in those).split()
            limits.append(int(words[0]) / int(words[1]))
        except (OSError, ValueError, IndexError, ZeroDivisionError):  # absent, or `max`
            continue
    return min((limit for limit in limits if limit > 0), default=None)


def _memory(root: Path) -> Iterator[Finding]:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        kilobytes = {
            key: int(v.split()[0]) for key, _, v in (line.partition(":") for line in lines)
        }
        free, total = (kilobytes[key] << 10 for key in ("MemAvailable", "MemTotal"))
    except (OSError, ValueError, IndexError, KeyError):  # not Linux
        return
    text = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are available"
    if free >= _LEAST_MEMORY:
        yield Finding("memory", text)
    else:
        yield Finding("memory", text, WARNING, "end other programs: a node takes 0.2 to 0.5 GiB")


def _clock() -> Iterator[Finding]:
    state = _clock_state()
    if state is None:
        return
    if state != _UNSYNCHRONISED:
        yield Finding("clock", "the kernel says that it is synchronised")
        return
    yield Finding(
        "clock",
        "the kernel says that it is not synchronised",
        WARNING,
        "with cameras or planners on other computers, run chrony (or ptp4l) on each: stamps of different "
        "clocks cannot be compared",
    )


def _clock_state() -> int | None:
    """Returns what adjtimex(2) says; None where there is no such call, or a container forbids it."""
    try:
        # struct timex has 208 bytes on 64-bit Linux; with modes 0 nothing is set.
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1024)))
    except (AttributeError, OSError):
        return None
    return state if state >= 0 else None


def _disk() -> Iterator[Finding]:
    try:
        folder = user_cache()
    except RuntimeError as error:
        yield Finding(
            "cache", str(error), WARNING, "set XDG_CACHE_HOME to a folder that can be written"
        )
        return
    # Not Path.exists, which raises where a parent may not be read.
    there = next(p for p in (folder, *folder.parents) if os.path.exists(p))
    free = shutil.disk_usage(there).free
    text = f"{free / 2**30:.1f} GiB are free for {folder}"
    if not os.access(there, os.W_OK):
        yield Finding(
            "cache",
            f"{there} cannot be written",
            WARNING,
            "set XDG_CACHE_HOME to a folder that can: what engines build is kept there",
        )
    elif free < _LEAST_DISK:
        yield Finding("cache", text, WARNING, "make room: engines keep what they build there")
    else:
        yield Finding("cache", text)
