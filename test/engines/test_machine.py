"""What a machine computes with, from what kernels write of their CPUs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

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


@pytest.mark.parametrize(
    ("cpu", "limit", "expected"),
    [
        ("Zen 5", "default", "avx512_bf16"),
        ("Zen 5", "no such set", "avx512_bf16"),
        ("Zen 5", "AVX512_CORE_VNNI", "avx512_vnni"),
        ("Zen 5", "avx512_core", "avx512"),
        ("Zen 5", "AVX2_VNNI", "avx_vnni"),
        ("Cascade Lake", "AVX2_VNNI", "avx2"),  # it has no narrow VNNI
        ("Haswell", "AVX512_CORE", "avx2"),
        ("Haswell", "SSE41", ""),
    ],
)
def test_a_limit_of_onednn_leaves_what_it_allows(cpu: str, limit: str, expected: str) -> None:
    assert instructions_of(f"flags\t\t: {CPUS[cpu][0]}\n", limit) == expected


_KERNELS = """
import collections, numpy, openvino, openvino.opset13 as ops
from robot_vision.engines.machine import instructions
image = ops.parameter([1, 32, 24, 24], numpy.float32)
weights = ops.constant(numpy.ones((32, 32, 3, 3), numpy.float32))
layer = ops.convolution(image, weights, [1, 1], [0, 0], [0, 0], [1, 1])
model = openvino.Model([ops.result(layer)], [image])
compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
layers = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
kernels = [i["primitiveType"].astype(str) for i in layers if i["layerType"].astype(str) == "Convolution"]
print(instructions("cpu", "openvino"), instructions("cpu", "onnx"), *kernels)
"""


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(
    ("limit", "family"), [("AVX2", "avx2"), ("avx512_core", "avx512"), ("", "")]
)
def test_openvino_s_kernels_are_of_the_set_that_is_said(
    variable: str, limit: str, family: str
) -> None:
    pytest.importorskip("openvino")
    here = instructions("cpu")
    order = {name: i for i, name in enumerate(INSTRUCTION_SETS)}
    if order.get(here, -1) < order.get(family, -1):
        pytest.skip(f"this CPU has only {here}")
    env = {**os.environ, variable: limit}
    run = subprocess.run(
        [sys.executable, "-c", _KERNELS], env=env, capture_output=True, text=True, check=True
    )
    openvino, onnx, kernel = run.stdout.split()
    assert onnx == here  # ONNX Runtime does not ask oneDNN
    assert openvino.partition("_")[0] in kernel, run.stdout
    assert openvino == (family or here)


def test_instructions_of_a_device_that_is_not_there_are_none() -> None:
    assert instructions("cuda:97") == ""
    assert instructions("gpu.97") == ""


def test_versions_are_of_the_packages_that_are_installed() -> None:
    assert installed_versions(["numpy", "no-package-of-this-name"]) == {"numpy": np.__version__}
