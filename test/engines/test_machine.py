"""What a machine computes with, from what kernels write of their CPUs."""

from __future__ import annotations

import platform
import shutil
import subprocess

import numpy as np
import pytest

from robot_vision.engines.machine import (
    INSTRUCTION_SETS,
    installed_versions,
    instructions,
    instructions_of,
)

# Shortened to what concerns vectors, as kernels list it.
AVX2 = "sse4_2 fma avx f16c avx2 bmi2"
SKYLAKE = f"{AVX2} avx512f avx512dq avx512cd avx512bw avx512vl"
CPUS = {
    "Haswell": (AVX2, "avx2"),
    "Alder Lake": (f"{AVX2} avx_vnni", "avx_vnni"),
    "Skylake-X": (SKYLAKE, "avx512"),
    "Cascade Lake": (f"{SKYLAKE} avx512_vnni", "avx512_vnni"),
    "Zen 5": (f"{SKYLAKE} avx_vnni avx512_bf16 avx512_vnni", "avx512_bf16"),
    "Sapphire Rapids": (
        f"{SKYLAKE} avx_vnni avx512_bf16 avx512_vnni amx_bf16 amx_tile amx_int8",
        "amx_bf16",
    ),
    "Knights Landing": (f"{AVX2} avx512f avx512cd avx512er avx512pf", "avx2"),
    "Ivy Bridge": ("sse4_2 avx f16c", ""),
}
ARMS = {
    "Cortex-A72": ("fp asimd evtstrm crc32 cpuid", "neon"),
    "Cortex-A78AE": ("fp asimd fphp asimdhp asimddp", "neon_dot"),
    "Neoverse V1": ("fp asimd asimddp sve i8mm bf16", "i8mm"),
}


@pytest.mark.parametrize("name", CPUS)
def test_instructions_of_x86_are_the_widest_in_the_flags(name: str) -> None:
    flags, expected = CPUS[name]
    core = f"processor\t: 0\nmodel name\t: {name}\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n\n"
    assert instructions_of(core * 2) == expected


@pytest.mark.parametrize("name", ARMS)
def test_instructions_of_arm_are_the_widest_in_the_features(name: str) -> None:
    features, expected = ARMS[name]
    assert (
        instructions_of(f"processor\t: 0\nFeatures\t: {features}\nCPU part\t: 0xd0c\n") == expected
    )


def test_instructions_of_a_text_that_says_nothing_are_none() -> None:
    assert instructions_of("") == ""
    assert instructions_of("processor : 0\nhart : 1\nisa : rv64imafdc\n") == ""
    assert instructions_of("vmx flags\t: avx2 fma\n") == ""


def test_instructions_of_this_machine_are_what_its_own_tool_says() -> None:
    found = instructions("cpu")
    if shutil.which("lscpu") is None or platform.machine() != "x86_64":
        assert found in (*INSTRUCTION_SETS, platform.machine())
        return
    flags = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout.split()
    for name in ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni"):
        if name in flags:
            assert found == name
            return
    assert found in ("avx512", "avx_vnni", "avx2", "x86_64")


def test_instructions_of_a_device_that_is_not_there_are_none() -> None:
    assert instructions("cuda:97") == ""
    assert instructions("gpu.97") == ""


def test_versions_are_of_the_packages_that_are_installed() -> None:
    assert installed_versions(["numpy", "no-package-of-this-name"]) == {"numpy": np.__version__}
