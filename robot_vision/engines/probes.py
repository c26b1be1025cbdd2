"""A few stored inputs and what programs gave for them: whether a program gives the same here.

Outputs are kept by program, engine, device and instruction set, and of large ones only some numbers.
float32 must be as near to what is stored as export asks for, on every CPU. On GPUs, which multiply it in 10
bits (TF32), it may be off by `ROUNDING`. So may another program, which is compared where it was certified, as
by another version of its engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import PROBE_IMAGES, ModelBundle
from robot_vision.bundle.programs import FLOAT32
from robot_vision.contract.head import COMPARISONS, Output
from robot_vision.engines.base import Engine
from robot_vision.engines.machine import instructions
from robot_vision.errors import EngineError

COUNT = 8
ROUNDING = 0.02  # of the largest number, or of class ids
_MOST_NUMBERS = 512  # of an output for an image

Arrays = Mapping[str, NDArray[Any]]


def place_of(engine: Engine, program: str) -> str:
    """Returns the name under which a program's outputs on an engine are kept."""
    kind = engine.device.partition(":")[0]
    return "/".join(
        (program, engine.name, kind, instructions(engine.device, engine.name) or "unknown")
    )


def probe_outputs(engine: Engine, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Returns what is kept of an engine's outputs, (N, numbers), for uint8 images (N, H, W, 3)."""
    # One by one, as most robots ask: engines that compile for each size of a batch need no other.
    each = [engine.run(np.ascontiguousarray(images[i : i + 1])) for i in range(len(images))]
    found = {}
    for name in each[0]:
        flat = np.concatenate([said[name] for said in each]).reshape(len(images), -1)
        found[name] = flat[:, :: -(-flat.shape[1] // _MOST_NUMBERS)]
    return found


def check_probes(bundle: ModelBundle, engine: Engine) -> None:
    """Refuses an engine that gives other outputs than the bundle has of it.

    Nothing is compared where the bundle has no outputs of this program, engine and instruction set, but for
    float32, which is the same everywhere.

    Raises:
        EngineError: the message names program, engine, output and difference.
    """
    stored = bundle.probes
    if not stored or engine.name == "torch" or engine.precision != bundle.running.precision:
        return
    exact = bundle.program == FLOAT32
    own = _stored(stored, f"{FLOAT32}/" if exact else f"{place_of(engine, bundle.program)}/")
    if not own:
        return
    found = probe_outputs(engine, stored[PROBE_IMAGES])
    for name, output in bundle.spec.outputs.items():
        if name not in own or own[name].shape != found[name].shape:
            continue
        allowed = _least(output)
        if not exact or not engine.device.startswith("cpu"):
            allowed = max(allowed, ROUNDING)
        difference = _difference(own[name], found[name], output)
        if not difference <= allowed:
            raise EngineError(
                f"{bundle.name}: {bundle.program} in {engine.name} on {engine.device} differs in {name} "
                f"from where it was certified, by {difference:.2g} (at most {allowed:.2g} is allowed): use "
                "precision float32, or certify it here with `robot-vision optimise`"
            )


def _stored(stored: Arrays, start: str) -> dict[str, NDArray[Any]]:
    return {name.rpartition("/")[2]: a for name, a in stored.items() if name.startswith(start)}


def _least(output: Output) -> float:
    """Returns the difference that counts for none, as export has it."""
    tolerance = COMPARISONS[output.same] if output.tolerance is None else output.tolerance
    return 1 - tolerance if output.same == "share" else tolerance


def _difference(expected: NDArray[Any], found: NDArray[Any], output: Output) -> float:
    """Returns how far outputs (N, numbers) are from each other, as export compares them."""
    if output.same == "share":
        return float((expected != found).mean())
    a, b = expected.astype(np.float64), found.astype(np.float64)
    if output.same == "up_to_sign":
        b = b * np.where((a * b).sum(axis=1, keepdims=True) < 0, -1, 1)
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12))
