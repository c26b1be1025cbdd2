"""Does an ONNX graph compute what the torch network does? Compared on real images, output by output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robot_vision.bundle.signature import INPUT_NAME
from robot_vision.contract.head import COMPARISONS
from robot_vision.errors import BundleError
from robot_vision.networks.network import MultiHeadNetwork

SINGLES = 4  # images that are also run alone

Differences = Mapping[str, float]  # output to its largest difference
Arrays = dict[str, NDArray[Any]]


def verify_graph(
    network: MultiHeadNetwork,
    graph: bytes,
    batch: NDArray[np.uint8],
) -> Differences:
    """Compares torch with ONNX Runtime, for all images as one batch and for some of them alone.

    How an output is compared, and what is allowed, its head says (`Output.same`). A relative difference is
    the largest absolute one over the largest absolute value that torch gives over all images; whole numbers
    may differ by one step of rounding, and of ids it is the share that differ.

    Args:
        network: on the CPU, in evaluation mode.
        graph: the ONNX file's bytes.
        batch: uint8 (N, height, width, 3), N >= 2.

    Returns:
        Each output's largest difference.

    Raises:
        BundleError: a difference is larger, or an output is not finite; the message names the output, the
            image and the difference.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(images: NDArray[np.uint8]) -> Arrays:
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {INPUT_NAME: images}), strict=True))

    expected = _torch_outputs(network, batch)
    scales = {name: float(np.abs(value).max()) for name, value in expected.items()}
    worst = dict.fromkeys(expected, 0.0)
    runs = [(f"a batch of {len(batch)}", 0, run(batch), expected)]
    for i in range(min(SINGLES, len(batch))):
        single = batch[i : i + 1]
        actual = run(single)
        runs.append(("a batch of 1", i, actual, _torch_outputs(network, single)))
        # The same image must not depend on its company, in whichever of the two.
        runs.append(("a batch of 1", i, actual, {n: v[i : i + 1] for n, v in expected.items()}))
    for size, first, actual, wanted in runs:
        for name, value in wanted.items():
            output = network.spec.outputs[name]
            allowed = COMPARISONS[output.same] if output.tolerance is None else output.tolerance
            what = "relative"
            if output.same == "share":
                allowed, what = 1 - allowed, "share of its numbers"
            difference, image = _largest(output.same, actual[name], value, scales[name])
            worst[name] = max(worst[name], difference)
            if not difference <= allowed:  # so that NaN is refused too
                raise BundleError(
                    f"The ONNX graph is not written: its output {name!r} differs from torch's by "
                    f"{difference:.3g} ({what}; at most {allowed:.3g} is allowed) on image "
                    f"{first + image} in {size}"
                )
    return worst


def _torch_outputs(network: MultiHeadNetwork, batch: NDArray[np.uint8]) -> Arrays:
    with torch.inference_mode():
        outputs = network(torch.from_numpy(np.ascontiguousarray(batch)))
    arrays = {name: value.numpy() for name, value in outputs.items()}
    for name, value in arrays.items():
        bad = np.flatnonzero(~np.isfinite(value).reshape(len(value), -1).all(axis=1))
        if len(bad):
            raise BundleError(
                f"The network's output {name!r} is not finite on image {bad[0]}: it cannot be exported; "
                "check its training"
            )
    return arrays


def _largest(
    same: str, actual: NDArray[Any], wanted: NDArray[Any], scale: float
) -> tuple[float, int]:
    """Returns the largest difference and the image that has it."""
    if actual.shape != wanted.shape:
        return float("inf"), 0
    if same == "share":
        shares = (actual != wanted).reshape(len(wanted), -1).mean(axis=1)
        return float(shares.max()), int(shares.argmax())
    if same == "up_to_sign":
        # q and -q are one rotation, and near w = 0 the sign is a matter of rounding.
        sign = np.where((actual * wanted).sum(axis=1, keepdims=True) < 0, -1, 1)
        actual = actual * sign
    difference = np.abs(actual.astype(np.float64) - wanted).reshape(len(wanted), -1).max(axis=1)
    if np.issubdtype(wanted.dtype, np.integer):  # it may be rounded to the neighbour
        difference = np.maximum(difference - 1, 0)
    image = int(np.argmax(difference))  # argmax takes NaN for the largest
    return float(difference[image]) / max(scale, 1e-12), image
