"""One of two commits at work in its own process, for `benchmarks.check`: its package, our measurement.

It is run with `python -c` in the commit's tree, so that its `robot_vision` is imported, and so uses of it
only what both commits have. Standard input has one JSON object a line, {"do": what}; a line out says how many
frames that were, the seconds, and those of the processor.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from robot_vision.pipeline import Pipeline

# Names of today, and of commit c44c9b3.
REPLAY = ("robot_vision.evaluation.predict.replay", "robot_vision.evaluation.replay")
SOURCES = ("robot_vision.recordings", "robot_vision.sources")


def _module(names: tuple[str, ...]) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(f"this commit has none of {', '.join(names)}")


def main() -> None:
    """Serves commands until standard input ends: arguments are bundle, images (.npy), bag, engine."""
    bundle, images_file, bag, engine = sys.argv[1:]
    images = list(np.load(images_file))
    pipeline = Pipeline.load(bundle, engine, "cpu")
    batch = pipeline.preprocess(images[:1]).copy()
    replay, open_source = _module(REPLAY).replay, _module(SOURCES).open_source

    def run_engine() -> int:
        for _ in range(32):
            pipeline.engine.run(batch)
        return 32

    def run_pipeline() -> int:
        for image in (images * 32)[:32]:
            pipeline([image])
        return 32

    def evaluate() -> int:
        with open_source(Path(bag)) as source:
            return int(replay(pipeline, source).meta["speed"]["frames"])

    work: dict[str, Callable[[], int]] = {
        "engine": run_engine,
        "pipeline": run_pipeline,
        "evaluate": evaluate,
    }
    for run in work.values():
        run()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        run = work[json.loads(line)["do"]]
        start, used = time.perf_counter(), time.process_time()
        frames = run()
        taken = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}
        print(json.dumps({"frames": frames, **taken}), flush=True)


main()
