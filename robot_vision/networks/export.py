"""From a trained network to a model bundle: one ONNX graph, verified on real images before it is written."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robot_vision.backbones.exact_pooling import exact_pooling
from robot_vision.bundle.bundle import (
    GRAPH,
    MAX_FILE_BYTES,
    WEIGHTS,
    ModelBundle,
    check_target,
    copy_head_files,
    write_manifest,
)
from robot_vision.bundle.onnx_graph import constant_name, inner_name
from robot_vision.bundle.signature import INPUT_NAME
from robot_vision.contract.constants import Constants, graph_name
from robot_vision.contract.head import Output
from robot_vision.errors import BundleError, ConfigError
from robot_vision.files.whole import draft_folder
from robot_vision.images.input import InputSpec
from robot_vision.images.resizing import network_inputs
from robot_vision.networks.checkpoint import save_network
from robot_vision.networks.model_card import write_card
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.networks.verification import verify_graph

OPSET = 17  # the newest that every ONNX Runtime since 1.12, TensorRT since 8.6 and OpenVINO runs


def export_bundle(
    network: MultiHeadNetwork,
    out_dir: str | Path,
    name: str,
    images: Sequence[NDArray[np.uint8]],
    training: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    card: str | None = None,
    force: bool = False,
    kept: ModelBundle | None = None,
) -> ModelBundle:
    """Writes a bundle, which appears only if the graph computes what the network does.

    Args:
        network: on any device, in any mode; it is not changed.
        out_dir: the bundle's directory, made here.
        name: the model's name.
        images: real RGB uint8 (H, W, 3) images, of any size, on which torch and ONNX Runtime are compared.
        training: what it was trained on, for the manifest and the card; plain data.
        metrics: what it scored, in the same form.
        card: an introduction for the model card, in Markdown.
        force: replace a bundle that is there.
        kept: the bundle that heads were added to. Its heads keep what was calibrated of them, and their
            files.

    Returns:
        The bundle, loaded from disk.

    Raises:
        BundleError: the directory is there, or the graph's outputs are not the network's: the message
            names the output, the image and the difference.
        ConfigError: no images, or a bad name.
    """
    out = Path(out_dir).expanduser().absolute()
    check_target(out, force)
    batch = prepare_images(images, network.spec.input)
    served = _for_export(network)
    with draft_folder(out) as part:
        graph = export_graph(served, batch)
        differences = verify_graph(served, graph, batch)
        (part / GRAPH).write_bytes(graph)
        save_network(served, part / WEIGHTS, training, metrics)
        write_card(part, name, served, training or {}, metrics or {}, card, differences)
        if kept is not None:
            copy_head_files(kept, part)
        calibration = kept.calibration if kept is not None else None
        write_manifest(part, name, served.spec, training or {}, metrics or {}, calibration)
        bundle = ModelBundle.load(part)  # what a robot would check, before anything is replaced
    return dataclasses.replace(bundle, path=out)


def prepare_images(images: Sequence[NDArray[np.uint8]], spec: InputSpec) -> NDArray[np.uint8]:
    """Resizes images as the pipeline does, into (N, height, width, 3) with N >= 2.

    Raises:
        ConfigError: there are none.
    """
    if not len(images):
        raise ConfigError("Export needs real images to verify the graph on: give at least one")
    batch = network_inputs(images, spec)
    # A batch of several is always verified: a single image is joined by its mirror image.
    return batch if len(batch) > 1 else np.concatenate([batch, batch[:, :, ::-1]])


def export_graph(network: MultiHeadNetwork, batch: NDArray[np.uint8]) -> bytes:
    """Returns the ONNX graph of a network: dynamic batch, named outputs, batch norms folded.

    Args:
        network: on the CPU, in float32 and evaluation mode.
        batch: uint8 (N, height, width, 3), N >= 2, to trace with.

    Raises:
        BundleError: the graph would be larger than ONNX can hold in one file, or has an operator that
            ONNX lacks.
    """
    assert not network.training and len(batch) > 1
    size = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    if size >= MAX_FILE_BYTES:
        raise BundleError(
            f"{network.spec.backbone} with these heads has {size / 2**30:.1f} GiB of weights: one ONNX "
            "file holds less than 2 GiB; use fewer clusters, a smaller whitened_size or backbone"
        )
    names = list(network.spec.outputs)
    images = torch.from_numpy(np.ascontiguousarray(batch[:2]))
    ordered = _Ordered(network, names, _inner(network, images))
    # The TorchScript exporter folds batch norms, needs no further package and writes one file.
    with (
        warnings.catch_warnings(),
        torch.no_grad(),
        exact_pooling(network, images),
        _no_fused_attention(),
        _distinct_constants(network) as constants,
        tempfile.TemporaryDirectory() as folder,
    ):
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Converting a tensor")
        try:
            torch.onnx.export(
                ordered.eval(),
                (images,),
                os.path.join(folder, GRAPH),
                input_names=[INPUT_NAME],
                output_names=[*names, *ordered.inner],
                dynamic_axes={key: {0: "N"} for key in (INPUT_NAME, *names, *ordered.inner)},
                opset_version=OPSET,
                dynamo=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise BundleError(
                f"{network.spec.backbone} cannot be exported to ONNX: {str(error).splitlines()[0]}"
            ) from error
        model = onnx.load(os.path.join(folder, GRAPH))
    model.graph.value_info.extend(model.graph.output[len(names) :])  # the values keep their names
    del model.graph.output[len(names) :]
    _state_shapes(model, network.spec.outputs)
    _name_constants(model, constants)
    return model.SerializeToString(deterministic=True)


class _Ordered(nn.Module):
    """The network with its outputs as a tuple, which ONNX has instead of names to values."""

    def __init__(
        self, network: MultiHeadNetwork, names: Sequence[str], inner: Mapping[str, tuple[str, str]]
    ) -> None:
        super().__init__()
        self.network = network
        self.names = names
        self.inner = inner

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        raw = self.network.raw(images)
        outputs = self.network.decode(raw)
        inner = [raw[head][word] for head, word in self.inner.values()]
        return (*(outputs[name] for name in self.names), *inner)


def _inner(network: MultiHeadNetwork, images: Tensor) -> dict[str, tuple[str, str]]:
    """Returns the name in the graph of what fitters need, to head and word."""
    with torch.no_grad():
        raw = network.raw(images)
    return {
        inner_name(head.name, word): (head.name, word)
        for head, _ in network.spec.bound
        if (fitter := head.fitter())
        for word in fitter.inner
        if word in raw[head.name]
    }


@contextlib.contextmanager
def _no_fused_attention() -> Iterator[None]:
    """Torch's fused attention, which transformers take in evaluation mode, has no ONNX operator."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _state_shapes(model: onnx.ModelProto, outputs: Mapping[str, Output]) -> None:
    """Writes the outputs' shapes into the graph, some of which the exporter could not infer."""
    for value in model.graph.output:
        shape = value.type.tensor_type.shape
        del shape.dim[:]
        shape.dim.add().dim_param = "N"
        for size in outputs[value.name].shape:
            shape.dim.add().dim_value = size


@contextlib.contextmanager
def _distinct_constants(network: MultiHeadNetwork) -> Iterator[dict[str, NDArray[Any]]]:
    """Gives each constant a value of its own, since the exporter makes one initialiser of equal ones.

    Yields:
        `constants.HEAD.NAME` to the value that it has before and after.
    """
    found = {
        constant_name(head, name): value
        for head, module in network.heads.items()
        for inner in module.modules()
        if isinstance(inner, Constants)
        for name, value in inner.named_buffers()
    }
    before = {name: value.clone() for name, value in found.items()}
    generator = torch.Generator().manual_seed(0)
    for value in found.values():
        value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    try:
        yield {name: value.numpy() for name, value in before.items()}
    finally:
        for name, value in found.items():
            value.copy_(before[name])


def _name_constants(model: onnx.ModelProto, values: Mapping[str, NDArray[Any]]) -> None:
    """Gives what calibration sets the names by which it is found, and its values.

    Raises:
        BundleError: the exporter folded one into others.
    """
    names = {t.name: name for t in model.graph.initializer if (name := graph_name(t.name))}
    for name in values:
        if name not in names.values():
            raise BundleError(
                f"The graph does not hold {name}: a constant must meet data as it is, without a cast or "
                "any other function of it alone"
            )
    for tensor in model.graph.initializer:
        if name := names.get(tensor.name):
            tensor.CopyFrom(onnx.numpy_helper.from_array(values[name], name))
    for node in model.graph.node:
        for i, old in enumerate(node.input):
            node.input[i] = names.get(old, old)


def _for_export(network: MultiHeadNetwork) -> MultiHeadNetwork:
    """A copy on the CPU, in float32 and evaluation mode, so that the caller's is left as it is."""
    return copy.deepcopy(network).to("cpu", torch.float32).eval()
