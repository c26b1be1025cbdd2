"""What six heads cost the running node: processor time of an image against the classifier alone.

    python -m benchmarks.dense_node

Each network runs in turns with six heads and with one, between a camera and a listener of every topic, each
in its own process; `base_frame` and `camera_info` are known, so that points, scans and ranges are written.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from benchmarks import inputs, models, node, peers
from benchmarks.quiet import WATCH
from benchmarks.timing import positive
from robot_vision.bundle.bundle import ModelBundle

_MOUNTED = ("-p", "base_frame:=base_link",
            "-p", "camera_to_base:=[0.2, 0.0, 0.4, -1.5708, 0.0, -1.5708]")  # fmt: skip


def topics(bundle: ModelBundle) -> dict[str, str]:
    """Returns the topics of a camera that the node publishes with default options, to their types."""
    found = {}
    for head, spec in bundle.spec.bound:
        options = head.resolve(head.options({}), spec, bundle.material[head.name])
        found |= {t.name: t.kind for t in head.topics(spec) if t.wanted(options)}
    return {name: kind for name, kind in found.items() if not name.startswith("/")}


def measure(
    pair: tuple[ModelBundle, ModelBundle], engine: str, rate: float, seconds: float, turns: int
) -> dict[str, Any]:
    """Runs the node with six heads and with one in turns; returns the medians of each and their ratio."""
    trials: dict[str, list[dict[str, Any]]] = {"six heads": [], "classifier alone": []}
    for _ in range(turns):
        for name, bundle in zip(trials, pair, strict=True):
            command = peers.perception(str(bundle.path), "raw", "float32", engine)
            with peers.bench([*command, *_MOUNTED], types=topics(bundle)) as peer:
                trials[name].append(node.trial(peer, rate, seconds))
    found: dict[str, Any] = {name: node.median_of(each) for name, each in trials.items()}
    six, one = (found[name]["cpu_ms_a_frame"]["node"] for name in trials)
    return {**found, "ratio": round(six / one, 3)}


def main() -> None:
    """Prints a line for each backbone and engine as it is measured, and everything as JSON at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dense_node", description=__doc__)
    parser.add_argument("--engine", nargs="+", default=["onnx", "openvino"])
    parser.add_argument("--backbone", nargs="+", default=list(models.DENSE_BACKBONES))
    parser.add_argument("--rate", type=positive, default=30.0, help="Hz (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=positive, default=20.0, help="a turn (default: %(default)s)"
    )
    parser.add_argument("--turns", type=int, default=2, choices=range(1, 100), metavar="N",
                        help="default: %(default)s")  # fmt: skip
    args = parser.parse_args()
    images, _ = inputs.frames()
    peers.isolate()
    results = {}
    try:
        for backbone in args.backbone:
            pair = models.six_and_one(backbone, models.DENSE_SIZE, images)
            for engine in args.engine:
                found = measure(pair, engine, args.rate, args.seconds, args.turns)
                results[f"{backbone} {engine}"] = found
                six, one = found["six heads"], found["classifier alone"]
                print(
                    f"{backbone} {engine}: {one['cpu_ms_a_frame']['node']} ms an image alone, "
                    f"{six['cpu_ms_a_frame']['node']} ms with six heads and {len(six['answered'])} topics, "
                    f"ratio {found['ratio']}; unanswered {one['loss']:.1%} and {six['loss']:.1%}; "
                    f"resident {one['memory_mib']['node']:.0f} and {six['memory_mib']['node']:.0f} MiB",
                    flush=True,
                )
    finally:
        peers.end_all()
    quiet = WATCH.found()
    print(json.dumps({**results, "quiet": quiet}, indent=1))
    if quiet["disturbed"]:
        print(
            f"{quiet['disturbed']} of {quiet['trials']} trials were disturbed: {quiet['reasons'][0]}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
