"""What a machine computes with: the CPU's instruction set, or the GPU's name.

Other instructions round the same graph differently, so what was measured with one set holds for it only.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from collections.abc import Iterable
from pathlib import Path

# The kernel's flags that make up each set, narrowest first.
_X86: dict[str, tuple[str, ...]] = {
    "avx2": ("avx2", "fma"),
    "avx_vnni": ("avx_vnni", "avx2"),
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl"),
    "avx512_vnni": ("avx512_vnni", "avx512bw"),
    "avx512_bf16": ("avx512_bf16", "avx512_vnni"),
    "amx_int8": ("amx_int8", "amx_tile"),
    "amx_bf16": ("amx_bf16", "amx_tile"),
}
_ARM: dict[str, tuple[str, ...]] = {"neon": ("asimd",), "neon_dot": ("asimddp",), "i8mm": ("i8mm",)}
INSTRUCTION_SETS = (*_X86, *_ARM)

# oneDNN's names of limits (its `cpu_dispatcher_control`), as far as they are narrower than all, and the
# widest set that each allows. The engines that compute with oneDNN heed them; ONNX Runtime does not.
_ONEDNN_LIMITS = {
    "sse41": "",
    "avx": "",
    "avx2": "avx2",
    "avx2_vnni": "avx_vnni",
    "avx2_vnni_2": "avx_vnni",
    "avx512_core": "avx512",
    "avx512_core_vnni": "avx512_vnni",
    "avx512_core_bf16": "avx512_bf16",
    "avx512_core_fp16": "avx512_bf16",
    "avx10_1_512": "avx512_bf16",
}
_ONEDNN_ENGINES = ("openvino", "torch")
_NAME_BYTES = 256


def instructions_of(cpuinfo: str, limit: str = "default") -> str:
    """Returns the widest of `INSTRUCTION_SETS` in the text of `/proc/cpuinfo`; empty for a CPU with none.

    Wider sets come with the narrower ones, so one name stands for all; AMX is wider than AVX-512.

    Args:
        cpuinfo: the text.
        limit: oneDNN's name of the widest set to use, in any case; like oneDNN, others are no limit.
    """
    widest = _ONEDNN_LIMITS.get(limit.lower())
    allowed = list(_X86)
    if widest is not None:
        allowed = allowed[: allowed.index(widest) + 1] if widest else []
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        # Of the first core: the kernel offers what all have (ARM), or all are alike (x86).
        known = {"flags": _X86, "Features": _ARM}.get(key.strip())
        if known is not None:
            flags = set(value.split())
            names = [
                name
                for name, needed in known.items()
                if flags.issuperset(needed) and (known is _ARM or name in allowed)
            ]
            return names[-1] if names else ""
    return ""


def processor() -> str:
    """Returns the CPU's name, as the kernel has it; its architecture where the kernel does not say."""
    for line in _cpuinfo().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""


@functools.cache
def instructions(device: str = "cpu", engine: str = "") -> str:
    """Returns what a device computes with.

    Args:
        device: as `EngineSettings.device`.
        engine: that computes on it: some heed a limit of oneDNN (`ONEDNN_MAX_CPU_ISA`).

    Returns:
        For `cpu` the widest of `INSTRUCTION_SETS`, or the architecture (`x86_64`) where it has none or
        the kernel does not say; for any other the device's full name, empty where nothing says it.
    """
    kind, _, index = device.replace(".", ":").partition(":")
    if kind == "cpu":
        limit = onednn_limit() if engine in _ONEDNN_ENGINES else "default"
        return instructions_of(_cpuinfo(), limit) or platform.machine()
    if kind in ("cuda", "tensorrt"):
        return _nvidia_name(int(index or 0))
    try:
        from robot_vision.engines.openvino import core

        name = core().get_property(device.upper(), "FULL_DEVICE_NAME")
    except Exception:  # not installed, or RuntimeErrors of its own: no such device
        return ""
    return str(name)


def onednn_limit() -> str:
    """Returns the environment's limit of instruction sets for oneDNN; `default` where there is none."""
    env = os.environ
    return env.get("ONEDNN_MAX_CPU_ISA") or env.get("DNNL_MAX_CPU_ISA") or "default"


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Returns the versions of those packages that are installed."""
    from importlib import metadata  # not before it is needed: importing it takes 10 ms

    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def has_gpu_driver() -> bool:
    """Returns whether the driver of a GPU on which torch computes is installed, NVIDIA's or AMD's."""
    return can_load("libcuda.so.1") or Path("/dev/kfd").exists()


def can_load(library: str) -> bool:
    """Returns whether a shared library is there and can be loaded."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _nvidia_name(index: int) -> str:
    """Returns the name of the N-th GPU as CUDA counts them, by the driver's own library."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    device = ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), index)
        or cuda.cuDeviceGetName(name, _NAME_BYTES, device)
    )
    return "" if failed else name.value.decode(errors="replace")
