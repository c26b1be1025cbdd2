"""Each step by which a frame's path was shortened, compared with the usual code."""

from __future__ import annotations

import gc
import time
from typing import Any

import cv2
import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from benchmarks import camera, inputs, models
from benchmarks.quiet import WATCH
from benchmarks.timing import percentiles, ratio, side_by_side
from robot_vision.bundle.signature import INPUT_NAME
from robot_vision.engines import create_engine
from robot_vision.engines.bound import BoundSession
from robot_vision.engines.openvino import core
from robot_vision.heads.place.answer import Descriptor
from robot_vision.heads.place.topics import descriptor_topic
from robot_vision.images.decode import to_rgb
from robot_vision.images.resizing import resize_into, source_size
from robot_vision.messages.making import rclpy_maker, set_header, set_pixels
from robot_vision.messages.serialized import read_compressed_image, read_image

USUAL, OURS = "usual", "ours"
Runs = dict[str, Any]


def steps(images: list[Any], seconds: float) -> dict[str, Any]:
    """Times the usual way and ours in turns.

    Returns:
        For each step the percentiles of both and `usual_over_ours`.
    """
    bundle = models.bundle("three_heads", images)
    found = {}
    for name, runs in {**_messages(bundle), **_images(bundle, images), **_results(images)}.items():
        found[name] = side_by_side(runs, seconds / 4)
    found["run a graph compiled for a batch of one, not of any size"] = _compiled(bundle, seconds)
    found |= _bound(bundle, seconds)
    found["full garbage collection (this process, torch loaded), start-up frozen"] = WATCH.trial(
        _collections
    )
    return {
        name: {"times": times, "usual_over_ours": ratio(times, USUAL, OURS)}
        for name, times in found.items()
    }


def _messages(bundle: Any) -> dict[str, Runs]:
    """From the bytes of a message to RGB pixels that are large enough for the network."""
    least = source_size(bundle.spec.input)
    runs = {}
    for size in inputs.SIZES:
        raw = bytes(camera.prepare(size, "raw")[0])
        jpeg = bytes(camera.prepare(size, "compressed")[0])

        def usual_raw(raw: bytes = raw) -> Any:
            message = deserialize_message(raw, Image)
            pixels = np.frombuffer(message.data, np.uint8)
            return pixels.reshape(message.height, message.width, 3)

        def usual_jpeg(jpeg: bytes = jpeg) -> Any:
            message = deserialize_message(jpeg, CompressedImage)
            decoded = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
            return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)

        def our_jpeg(jpeg: bytes = jpeg) -> Any:
            return to_rgb(read_compressed_image(jpeg), least)

        runs[f"view the pixels of a raw {size} message"] = {
            USUAL: usual_raw,
            OURS: lambda raw=raw: to_rgb(read_image(raw), least),
        }
        runs[f"decode a {size} JPEG at reduced scale"] = {USUAL: usual_jpeg, OURS: our_jpeg}
    return runs


def _images(bundle: Any, images: list[Any]) -> dict[str, Runs]:
    """From RGB pixels to the network's input."""
    from PIL import Image as PilImage
    from torchvision import transforms

    spec = bundle.spec.input
    prepare = transforms.Compose(
        [transforms.Resize((spec.height, spec.width)), transforms.ToTensor(),
         transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )  # fmt: skip
    batch = np.empty((1, spec.height, spec.width, 3), np.uint8)
    return {
        f"resize {size} into the batch's buffer, as uint8": {
            USUAL: lambda i=image: prepare(PilImage.fromarray(i)).unsqueeze(0).numpy(),
            OURS: lambda i=image: resize_into(i, batch[0], spec.resize, spec.crop_fraction),
        }
        for size, (image, *_) in (
            (size, inputs.enlarged(images[:1], shape)) for size, shape in inputs.SIZES.items()
        )
    }


def _results(images: list[Any]) -> dict[str, Runs]:
    """From arrays to messages; `bytes` is what `ndarray.tobytes` gives."""
    header, image = Header(), images[0]
    descriptor = np.random.default_rng(0).normal(size=512).astype(np.float32)

    def usual(values: Any, width: int) -> Any:
        message = Image(header=header, height=1, width=width)
        message.data = values.tobytes()
        return message

    write = descriptor_topic("descriptor", "descriptor").writer(rclpy_maker)

    def filled(pixels: Any) -> Any:
        message = Image()
        set_header(message.header, header)
        set_pixels(message, pixels, "rgb8")
        return message

    return {
        "fill a descriptor's message": {
            USUAL: lambda: usual(descriptor, 512),
            OURS: lambda: write(header, Descriptor(descriptor), None),
        },
        "fill the message of a 480p image": {
            USUAL: lambda: usual(image, 640),
            OURS: lambda: filled(image),
        },
    }


def _compiled(bundle: Any, seconds: float) -> dict[str, dict[str, float]]:
    batch = np.zeros((1, bundle.spec.input.height, bundle.spec.input.width, 3), np.uint8)
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16"}
    requests = {}
    for name in (USUAL, OURS):
        model = core().read_model(bundle.graph)
        if name == OURS:
            shape = model.input(0).get_partial_shape()
            shape[0] = 1
            model.reshape(shape)
        requests[name] = core().compile_model(model, "CPU", config).create_infer_request()
    return side_by_side(
        {n: lambda r=r: r.infer([batch], share_inputs=True) for n, r in requests.items()}, seconds
    )


def _bound(bundle: Any, seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    """A session's own run against one with bound buffers, on a GPU if ONNX Runtime has a working one.

    The node binds on GPUs only; the CPU's row shows why.
    """
    engine: Any = create_engine(bundle, "onnx")
    kind = engine.device.partition(":")[0]
    names = list(bundle.spec.outputs)
    session = engine._session
    bound = BoundSession(session, INPUT_NAME, names, "cpu" if kind == "cpu" else "cuda")
    batch = np.zeros((1, bundle.spec.input.height, bundle.spec.input.width, 3), np.uint8)
    runs = {
        USUAL: lambda: session.run(names, {INPUT_NAME: batch}),
        OURS: lambda: bound.run(batch),
    }
    times = side_by_side(runs, seconds)
    engine.close()
    return {f"run ONNX Runtime's session on {kind} with bound buffers": times}


def _collections() -> dict[str, dict[str, float]]:
    """A full collection in this process, which has loaded much; afterwards all is as it was."""
    times: dict[str, list[float]] = {USUAL: [], OURS: []}
    for _ in range(20):
        for name, samples in times.items():
            gc.collect()
            if name == OURS:
                gc.freeze()
            start = time.perf_counter()
            gc.collect()
            samples.append(time.perf_counter() - start)
            gc.unfreeze()
    return {name: percentiles(values) for name, values in times.items()}
