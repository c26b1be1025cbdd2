"""What a bundle says of the samples of a data set, by the same graph and the same pixels as on the robot."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import GRAPH, ModelBundle
from robot_vision.bundle.signature import INPUT_NAME
from robot_vision.calibration.old_graphs import GraphEditor
from robot_vision.datasets.sample import Sample
from robot_vision.errors import BundleError, ImageError, SourceError
from robot_vision.images.resizing import network_inputs, source_size
from robot_vision.text.counts import counted

MAX_UNREADABLE = 0.05
BATCH = 16
_THREADS = 2

Outputs = dict[str, NDArray[Any]]


def predict(
    bundle: ModelBundle,
    samples: Sequence[Sample],
    graph: bytes | None = None,
    progress: Callable[[int], None] = lambda n: None,
) -> Outputs:
    """Runs a bundle's graph over samples.

    Args:
        bundle: whose graph and input size.
        samples: read and resized as the node does it.
        graph: instead of the bundle's own, to which what fitters need is added as outputs.
        progress: is called with the number of images done since.

    Returns:
        The graph's outputs, (N, ...), and `rows`, int64 (N,): which samples could be read.

    Raises:
        SourceError: more than a twentieth of the images cannot be read.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    content = exposed(bundle) if graph is None else graph
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    spec = bundle.spec.input
    least = source_size(spec)
    problems: list[str] = []

    def read(sample: Sample) -> NDArray[np.uint8] | None:
        try:
            image = sample.source.load(least)
        except ImageError as error:
            problems.append(str(error))
            return None
        pixels: NDArray[np.uint8] = network_inputs([image], spec)[0]
        return pixels

    rows: list[int] = []
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(samples), BATCH):
            group = list(pool.map(read, samples[start : start + BATCH]))
            good = [(start + i, pixels) for i, pixels in enumerate(group) if pixels is not None]
            if good:
                batch = np.stack([pixels for _, pixels in good])
                for name, value in zip(names, session.run(None, {INPUT_NAME: batch}), strict=True):
                    parts[name].append(value)
                rows += [i for i, _ in good]
            progress(len(group))
    if len(problems) > MAX_UNREADABLE * len(samples) or not rows:
        first = problems[0] if problems else "there are none"
        raise SourceError(
            f"{len(problems)} of {counted(len(samples), 'image cannot', 'images cannot')} be read: "
            f"{first}; repair the data set"
        )
    return {**{n: np.concatenate(p) for n, p in parts.items()}, "rows": np.array(rows, np.int64)}


def exposed(bundle: ModelBundle) -> bytes:
    """Returns a bundle's graph with what fitters need of it as further outputs, where it can be found."""
    fitters = [(head, fitter) for head, _ in bundle.spec.bound if (fitter := head.fitter())]
    wanted = [(head, word) for head, fitter in fitters for word in fitter.inner]
    if not wanted:
        return bundle.graph
    editor = GraphEditor(bundle.graph, str(bundle.path / GRAPH))
    for head, word in wanted:
        with contextlib.suppress(BundleError):  # fits that need it say so
            editor.expose(head.key(word), head.name, word)
    return editor.to_bytes()
