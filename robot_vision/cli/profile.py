"""`robot-vision profile --model BUNDLE SOURCE`: where the time of a frame goes, as a trace for any viewer."""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np
from rich.table import Table

from robot_vision.bundle.installed import find_model
from robot_vision.cli.arguments import add_engine, add_model, say_program
from robot_vision.engines.layers import LayerTime, layer_times
from robot_vision.errors import ConfigError, ImageError
from robot_vision.images.decode import to_rgb
from robot_vision.images.resizing import source_size
from robot_vision.pipeline import Pipeline
from robot_vision.recordings import Source, open_source
from robot_vision.text.console import plain_console
from robot_vision.text.counts import agreeing, counted
from robot_vision.tracing import Trace

_MOST_LAYERS = 15  # in the table
STAGES = ("read", "image", "preprocess", "inference", "decode")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="image, folder of images, pattern such as 'run*/*.jpg', video or rosbag",
    )
    add_model(parser)
    parser.add_argument(
        "--topic",
        action="append",
        help="image topic of a bag to read; repeat for more (default: all)",
    )
    add_engine(parser)
    parser.add_argument(
        "--frames", type=int, default=200, help="number of frames to profile (default: %(default)s)"
    )
    parser.add_argument(
        "--layers",
        action="store_true",
        help="also time the layers of the network (CPU engines only)",
    )
    parser.add_argument(
        "--output",
        default="trace.json",
        help="trace file to write, for ui.perfetto.dev or chrome://tracing (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the node's path over the frames, one by one, and writes the trace."""
    if args.frames < 1:
        raise ConfigError(f"--frames {args.frames}: it must be 1 or more")
    with (
        open_source(args.source, args.topic) as source,
        Pipeline.load(
            find_model(args.model), args.engine, args.device, args.precision, max_batch=1
        ) as pipeline,
        Trace("robot-vision profile") as trace,
    ):
        if args.layers and pipeline.engine.device != "cpu":
            raise ConfigError(
                f"--layers times the layers of CPU engines, and this one is on {pipeline.engine.device}: "
                "use --device cpu, or leave --layers out"
            )
        pipeline.warm_up((1,) * 5)
        say_program(pipeline)
        frames, refused = _follow(trace, source, pipeline, args.frames)
        layers: list[LayerTime] = []
        if args.layers:
            engine = pipeline.engine
            layers = layer_times(pipeline.bundle, engine.name, engine.precision, 20)
            _lay_out(trace, layers)
        trace.write(args.output)
        if not frames:
            raise ConfigError(f"{args.source}: none of its frames could be decoded")
        engine = pipeline.engine
        console = plain_console()
        console.print(
            f"{engine.name} {engine.device} {pipeline.program}, {counted(frames, 'frame')}"
        )
        console.print(_stage_table(trace))
        if layers:
            console.print(_layer_table(layers))
        if refused:
            console.print(
                f"{counted(refused, 'frame')} could not be decoded and "
                f"{agreeing(refused, 'were')} left out"
            )
        for line in (*source.problems, *source.notes):
            console.print(f"note: {line}", soft_wrap=True)
        console.print(f"trace: {args.output} (open it at ui.perfetto.dev)")
    return 0


def _follow(trace: Trace, source: Source, pipeline: Pipeline, most: int) -> tuple[int, int]:
    """Does what the node does with each frame, noting every stage; returns (frames, refused)."""
    least = source_size(pipeline.bundle.spec.input)
    frames = refused = 0
    iterator = iter(source)
    for number in itertools.count():
        if frames == most:
            break
        with trace.span("read", number=number):
            frame = next(iterator, None)
        if frame is None:
            break
        with trace.span("frame", number=number, source=frame.name):
            try:
                with trace.span("image"):
                    image = to_rgb(frame.message, least)
            except ImageError:
                refused += 1
                continue
            with trace.span("preprocess"):
                batch = pipeline.preprocess([image])
            with trace.span("inference"):
                outputs = pipeline.engine.run(batch)
            with trace.span("decode"):
                pipeline.decode(outputs)
        frames += 1
    return frames, refused


def _lay_out(trace: Trace, layers: list[LayerTime]) -> None:
    """Adds the layers one after the other behind the frames: one run of the network, taken apart."""
    start = time.perf_counter()
    whole = sum(layer.seconds for layer in layers)
    trace.add("one run, by layer", start, whole, layers=len(layers))
    for layer in layers:
        trace.add(layer.name, start, layer.seconds, kind=layer.kind)
        start += layer.seconds


def _stage_table(trace: Trace) -> Table:
    table = Table("stage", "p50 ms", "p95 ms", "p99 ms", "max ms", "share")
    whole = sum(sum(trace.durations(stage)) for stage in STAGES)
    for stage in (*STAGES, "garbage collection"):
        ms = np.array(trace.durations(stage)) * 1e3
        if len(ms):
            shown = (*np.percentile(ms, (50, 95, 99)), ms.max())
            share = f"{100 * ms.sum() / 1e3 / whole:.1f} %"
            table.add_row(stage, *(f"{value:.3f}" for value in shown), share)
    return table


def _layer_table(layers: list[LayerTime]) -> Table:
    whole, shown = sum(layer.seconds for layer in layers), min(_MOST_LAYERS, len(layers))
    title = f"The {shown} slowest of {len(layers)} layers, {whole * 1e3:.2f} ms in all"
    table = Table("layer", "kind", "ms", "share", title=title, title_justify="left")
    table.columns[0].overflow = "fold"  # the ends of their names tell layers apart
    for layer in sorted(layers, key=lambda layer: -layer.seconds)[:_MOST_LAYERS]:
        share = f"{100 * layer.seconds / whole:.1f} %"
        table.add_row(layer.name, layer.kind, f"{layer.seconds * 1e3:.3f}", share)
    return table
