"""Variants of a bundle's graph: int8 (static, calibrated on training images) and float16, measured.

- `int8`, for every CPU: 7 bits for weights, since CPUs without VNNI add pairs of products in 16 bits.
- `int8-vnni`, for CPUs with VNNI and ARM with dot products: 8 bits for weights, half the error.
- `int8-tensorrt`, for TensorRT, which refuses the others: zero is zero, so numbers are signed, which costs a
  bit of what is never negative; weights and biases are stored in float32 and quantised by the engine.
- `float16`, for GPUs.

Source: ONNX Runtime's page on quantisation, "Explicit quantization" in TensorRT's documentation.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from robot_vision.bundle.bundle import CARD, GRAPH, WEIGHTS, ModelBundle, write_manifest
from robot_vision.bundle.signature import INPUT_NAME
from robot_vision.engines.base import EngineSettings
from robot_vision.engines.nvidia import TENSORRT_VARIANT
from robot_vision.engines.onnx import OnnxEngine
from robot_vision.errors import ConfigError
from robot_vision.files.whole import draft_folder
from robot_vision.training.config import TrainingConfig
from robot_vision.training.fit.record import Recorder
from robot_vision.training.samples.data import SampleSet, chunk_of
from robot_vision.training.ship.bias_correction import correct_biases
from robot_vision.training.ship.evaluate import measure

CALIBRATION_IMAGES = 128
_CHUNK = 32
_TIMED_RUNS = 30


def make_variant(
    bundle: Path, target: Path, variant: str, train: SampleSet, config: TrainingConfig
) -> Path:
    """Writes another bundle with the same network at a lower precision.

    Args:
        bundle: the float32 bundle.
        target: the folder to write; what is there is replaced.
        variant: one of `VARIANTS`.
        train: images to calibrate on.
        config: `name` and `loop.seed`.

    Returns:
        `target`.

    Raises:
        ConfigError: the graph cannot be converted.
    """
    source = ModelBundle.load(bundle)
    with draft_folder(target) as part:
        try:
            if variant == "float16":
                _float16(bundle / GRAPH, part / GRAPH)
            else:
                _int8(bundle / GRAPH, part / GRAPH, train, config.loop.seed, variant)
        except ConfigError:
            raise
        except Exception as error:  # the converters raise whatever their graph rewriting ran into
            first = (str(error).splitlines() or [""])[0]
            raise ConfigError(f"{variant}: the graph cannot be converted ({first})") from error
        shutil.copy2(bundle / WEIGHTS, part / WEIGHTS)
        card = (bundle / CARD).read_text(encoding="utf-8")
        name = f"{source.name}-{variant}"
        title = f"# {name}\n\nThe {variant} variant of {source.name}, whose card follows.\n\n"
        (part / CARD).write_text(title + card, encoding="utf-8")
        training = {**source.training, "variant": variant, "variant_of": source.sha256}
        write_manifest(part, name, source.spec, training, source.metrics)
        ModelBundle.load(part)
    return target


def _int8(source: Path, target: Path, train: SampleSet, seed: int, variant: str) -> None:
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    generator = torch.Generator().manual_seed(seed)
    some = torch.randperm(len(train), generator=generator)[:CALIBRATION_IMAGES]
    images = [train.batch(index)["images"].numpy() for index in some.split(_CHUNK)]

    class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Training images, in batches."""

        def __init__(self) -> None:
            self.waiting = list(images)

        def get_next(self) -> dict[str, Any] | None:
            return {INPUT_NAME: self.waiting.pop()} if self.waiting else None

    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        # Symbolic shape inference is for transformers; folding constants is what the quantiser needs.
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        for_tensorrt = variant == TENSORRT_VARIANT
        layers = ["Conv", "Gemm", "MatMul"]
        # What goes into an activation is not rounded, only what comes out: no range is wasted on negative
        # numbers, and engines fuse the two. Where zero is zero, the range of the layer's output cannot do
        # the activation's work, so that it is left out.
        quantised = layers if for_tensorrt else [*layers, "Clip", "Relu"]
        nodes = onnx.load(str(ready)).graph.node
        backbone = [n.name for n in nodes if n.op_type in quantised and "/backbone/" in n.name]
        if not backbone:
            raise ConfigError("int8: the graph has no layers that are named as the backbone's")
        signed, unsigned = quantization.QuantType.QInt8, quantization.QuantType.QUInt8
        symmetric = {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": True,
            "OpTypesToExcludeOutputQuantization": layers,
        }
        quantization.quantize_static(
            str(ready),
            str(target),
            Images(),
            quant_format=quantization.QuantFormat.QDQ,
            # The backbone alone, where the time goes: NetVLAD divides small sums by smaller ones, and its
            # descriptors came out as zeros; poses are decoded from few numbers.
            op_types_to_quantize=quantised,
            nodes_to_quantize=backbone,
            per_channel=True,
            reduce_range=variant == "int8",
            activation_type=signed if for_tensorrt else unsigned,
            weight_type=signed,
            extra_options=symmetric if for_tensorrt else {},
        )
        correct_biases(target, ready, images)


def _float16(source: Path, target: Path) -> None:
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise ConfigError("float16 needs onnxruntime with its transformers tools") from error
    model = onnx.load(str(source))
    # Outputs stay float32, and so does what squares or divides small numbers.
    blocked = ["Div", "ReduceL2", "ReduceSum", "Sqrt", "Pow", "Exp", "Log", "Softmax", "Max", "Min"]
    blocked += ["ReduceMax", "ReduceLogSumExp", "Where", "GreaterOrEqual", "Less", "Clip"]
    half = convert_float_to_float16(
        model, keep_io_types=True, op_block_list=blocked, disable_shape_infer=False
    )
    # A value that two blocked nodes read gets the same cast twice, which no engine takes.
    made: set[str] = set()
    for node in list(half.graph.node):
        if node.op_type == "Cast" and node.output[0] in made:
            half.graph.node.remove(node)
        made.update(node.output)
    onnx.save(half, str(target))


def measure_bundle(
    path: Path, train: SampleSet, held_out: SampleSet, config: TrainingConfig, recorder: Recorder
) -> dict[str, Any]:
    """Runs a bundle on ONNX Runtime's CPU: its metrics on a split, and its time for one image.

    Returns:
        `metrics` by head, `ms` (median of single images), `megabytes` of the graph.
    """
    bundle = ModelBundle.load(path)
    engine = OnnxEngine(bundle, EngineSettings("cpu", threads=config.loop.threads))
    recorder.say(f"measuring {path.name}")

    bound = {head.name: head for head, _ in bundle.spec.bound}
    looking = [name for name, trainer in config.trainers.items() if trainer.looks_up]

    def outputs(samples: SampleSet, heads: Iterable[str]) -> dict[str, dict[str, torch.Tensor]]:
        parts: dict[str, dict[str, list[Any]]] = {name: {} for name in heads}
        for index in torch.arange(len(samples)).split(chunk_of(samples.input)):
            found = engine.run(samples.batch(index)["images"].numpy())
            for name, words in parts.items():
                for word, value in bound[name].own(found).items():
                    words.setdefault(word, []).append(value)
        return {
            name: {word: torch.from_numpy(np.concatenate(v)) for word, v in words.items()}
            for name, words in parts.items()
        }

    stored = (outputs(train, looking), train.truth) if looking else None
    metrics = measure(
        outputs(held_out, config.heads), held_out.truth, stored, bundle.spec.heads, config
    )
    image = held_out.batch(torch.tensor([0]))["images"].numpy()
    times = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        engine.run(image)
        times.append(time.perf_counter() - start)
    engine.close()
    megabytes = (path / GRAPH).stat().st_size / 1e6
    return {
        "metrics": metrics,
        "ms": float(np.median(times)) * 1e3,
        "megabytes": round(megabytes, 2),
    }
