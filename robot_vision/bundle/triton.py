"""Writes a bundle as a model of NVIDIA's Triton Inference Server: `config.pbtxt` and the graph.

The graph takes and gives batches, so Triton gathers requests of several cameras itself (`dynamic_batching`).
Isaac ROS reads the same folder (`isaac_ros_triton`). Field names are those of Triton's `model_config.proto`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from robot_vision.bundle.bundle import GRAPH, ModelBundle
from robot_vision.bundle.signature import GraphSignature, Shape
from robot_vision.errors import ConfigError
from robot_vision.files.folders import make_folder
from robot_vision.files.whole import draft_folder

CONFIG = "config.pbtxt"
MAX_BATCH = 16
# ONNX Runtime's names of types, and Triton's.
_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
}


def config(bundle: ModelBundle, name: str) -> str:
    """Returns the text of `config.pbtxt`.

    Args:
        bundle: verified, so that its signature is that of its graph.
        name: of the model, which is also its folder's.

    Raises:
        ConfigError: an output has a type that Triton does not know.
    """
    signature = GraphSignature.of(bundle.spec)
    lines = [
        f"name: {json.dumps(name)}",
        'backend: "onnxruntime"',
        f'default_model_filename: "{GRAPH}"',
        f"max_batch_size: {MAX_BATCH}",
        "dynamic_batching { }",
    ]
    for kind, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor, (dtype, shape) in tensors.items():
            lines += [f"{kind} {{", *_tensor(tensor, dtype, shape), "}"]
    for key, value in (("bundle", bundle.name), ("bundle_sha256", bundle.sha256)):
        lines += ["parameters {", f'  key: "{key}"']
        lines += [f"  value {{ string_value: {json.dumps(value)} }}", "}"]
    return "\n".join(lines) + "\n"


def _tensor(name: str, dtype: str, shape: Shape) -> Iterator[str]:
    if dtype not in _TYPES:
        raise ConfigError(f"{name} is {dtype}: Triton takes {', '.join(_TYPES)}")
    yield f"  name: {json.dumps(name)}"
    yield f"  data_type: {_TYPES[dtype]}"
    dims = [-1 if size is None else size for size in shape[1:]]  # without the batch
    if dims:
        yield f"  dims: [ {', '.join(map(str, dims))} ]"
    else:  # one number an image: Triton has no empty dims
        yield "  dims: [ 1 ]"
        yield "  reshape { shape: [ ] }"


def write_model(bundle: ModelBundle, repository: Path, name: str, replace: bool = False) -> Path:
    """Writes `NAME/config.pbtxt` and `NAME/1/model.onnx` into a model repository and returns `NAME`.

    Args:
        bundle: to be served; its float32 graph.
        repository: folder of models, made if it is not there.
        name: of the model.
        replace: a model of that name.

    Raises:
        ConfigError: there is one already, or the name is none for a folder.
    """
    if not name or name.startswith(".") or "/" in name:
        raise ConfigError(f"{name!r} is no name of a model: it is the name of a folder; set --name")
    target = repository / name
    if target.exists() and not replace:
        raise ConfigError(f"{target} exists already: give --force to replace it, or another --name")
    if target.exists() and not (target / CONFIG).is_file():  # never a folder of something else
        raise ConfigError(
            f"{target} has no {CONFIG}, so it is not replaced: remove it, or use another --name"
        )
    text = config(bundle, name)
    make_folder(repository, "--out")
    with draft_folder(target) as part:
        (part / CONFIG).write_text(text, encoding="utf-8")
        (part / "1").mkdir()
        (part / "1" / GRAPH).write_bytes(bundle.graph)
    return target
