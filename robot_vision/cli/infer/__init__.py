"""`robot-vision infer --model BUNDLE SOURCE...`: predictions for images, folders, videos and bags."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, Union

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from robot_vision.annotate import annotate
from robot_vision.bundle.installed import find_model
from robot_vision.cli.arguments import add_engine, add_model, at_least_1, progress, say_program
from robot_vision.cli.infer.output import JsonLines, SampledTable
from robot_vision.contract.prediction import Prediction
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import ConfigError, ImageError
from robot_vision.files.folders import refuse_source
from robot_vision.images.decode import to_rgb
from robot_vision.images.resizing import source_size
from robot_vision.pipeline import Pipeline
from robot_vision.recordings import Frame, Source, open_source
from robot_vision.text.console import plain_console
from robot_vision.text.counts import counted

_DECODERS = 2
_NAMED_PROBLEMS = 20

T = TypeVar("T")
Decoded = Union[NDArray[np.uint8], ImageError]  # noqa: UP007 (evaluated in Python 3.10 too)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "sources",
        nargs="+",
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
        "--top-k",
        type=at_least_1,
        default=3,
        help="classes per frame, most probable first (default: %(default)s)",
    )
    parser.add_argument(
        "--batch",
        type=at_least_1,
        default=1,
        help="frames in one run of the network (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the predictions to FILE as JSON lines; - writes to standard output",
    )
    parser.add_argument(
        "--no-descriptor", action="store_true", help="leave the descriptors out of the JSON"
    )
    parser.add_argument(
        "--annotate", metavar="DIR", help="write annotated JPEG pictures to this folder"
    )
    parser.add_argument(
        "--attach",
        metavar="DIR",
        help="folder for the answers to each pixel: PNG files of classes, NPY files of numbers; the lines of "
        "--output name them (default: these answers are left out)",
    )
    parser.add_argument(
        "--start",
        type=float,
        default=0.0,
        metavar="S",
        help="time to skip at the start, in seconds (default: 0)",
    )
    parser.add_argument(
        "--duration",
        type=float,
        metavar="S",
        help="length of the part to read, in seconds (default: to the end)",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=30.0,
        help="rate assumed for the stamps of image files, in Hz (default: %(default)s)",
    )
    parser.add_argument(
        "--limit", type=at_least_1, metavar="N", help="stop after N frames (default: all)"
    )


def run(args: argparse.Namespace) -> int:
    """Predicts every frame. Exit status: 0 if all went well, 1 if something could not be read."""
    console = plain_console(stderr=args.output == "-")
    _check_paths(args)
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_source(s, args.topic, args.start, args.duration, args.rate))
            for s in args.sources
        ]
        pipeline = stack.enter_context(
            Pipeline.load(
                find_model(args.model),
                args.engine,
                args.device,
                args.precision,
                max_batch=args.batch,
            )
        )
        pipeline.warm_up((args.batch,))
        say_program(pipeline)
        spec = pipeline.bundle.spec
        options = pipeline.bundle.options({"top_k": args.top_k})
        pictures = _folder("--annotate", args.annotate)
        attached = _folder("--attach", args.attach)
        output = stack.enter_context(
            JsonLines(args.output, pipeline, options, not args.no_descriptor, attached)
        )
        table = SampledTable(spec, options)
        tally = Tally(opened)
        bar = stack.enter_context(_bar(opened, args.limit))
        task = bar.tasks[0].id
        try:
            # A JPEG is decoded no larger than the network needs, as the node does.
            least = source_size(spec.input)
            for frame, image, prediction in _predicted(
                pipeline, opened, args.batch, args.limit, least
            ):
                if isinstance(image, ImageError):
                    reason, why = image.reason, str(image)
                else:
                    assert prediction is not None
                    reason, why = "result", prediction.not_finite()
                if why:
                    tally.refuse(frame, reason, why)
                    output.error(frame, reason, why)
                else:
                    assert prediction is not None
                    tally.frames += 1
                    table.add(frame, prediction)
                    output.prediction(frame, prediction, tally.frames - 1)
                    if pictures:
                        _picture(
                            pictures,
                            tally.frames - 1,
                            frame,
                            to_rgb(frame.message),  # whole, where the network's may be reduced
                            prediction,
                            spec,
                            options,
                        )
                bar.advance(task)
        except KeyboardInterrupt:
            tally.interrupted = True
    console.print(table.render())
    return tally.report(console)


def _check_paths(args: argparse.Namespace) -> None:
    """Refuses an output that is a source, and says which source is given twice."""
    places = [Path(source).expanduser().resolve() for source in args.sources]
    for place, count in Counter(places).items():
        if count > 1:
            print(f"note: {place} is given {count} times, and so are its frames", file=sys.stderr)
    if args.attach and not args.output:
        raise ConfigError("--attach needs --output: its lines say which file is of which frame")
    folders = (("--annotate", args.annotate), ("--attach", args.attach))
    output = None if args.output in (None, "-") else Path(args.output)
    if output and output.is_file() and output.resolve() in places:
        raise ConfigError(f"--output {args.output} is a source: name another place")
    for option, path in folders:
        if path and not Path(path).is_file():
            refuse_source(path, option, args.sources)
    for _, path in folders:
        if path and Path(path).is_dir() and any(Path(path).iterdir()):
            print(
                f"note: {path} is not empty: files of the same name are replaced, and others stay",
                file=sys.stderr,
            )


class Tally:
    """Counts what went well and names what did not."""

    def __init__(self, sources: list[Source]) -> None:
        self.frames = 0
        self.interrupted = False
        self._sources = sources
        self._reasons: Counter[str] = Counter()
        self._named: list[str] = []
        self._begin = time.perf_counter()

    def refuse(self, frame: Frame, reason: str, message: str) -> None:
        """Counts a frame that could not be decoded, or has no answer."""
        self._reasons[reason] += 1
        if len(self._named) < _NAMED_PROBLEMS:
            self._named.append(f"{frame.name}: {message}")

    def report(self, console: Console) -> int:
        """Prints problems and, as the last line, the count; returns the exit status."""
        took = time.perf_counter() - self._begin
        problems = [p for source in self._sources for p in source.problems]
        bad = sum(self._reasons.values())
        for line in [note for source in self._sources for note in source.notes]:
            print(f"note: {line}", file=sys.stderr)
        for line in (self._named + problems)[:_NAMED_PROBLEMS]:
            print(f"warning: {line}", file=sys.stderr)
        unnamed = bad + len(problems) - min(len(self._named) + len(problems), _NAMED_PROBLEMS)
        if unnamed > 0:
            print(f"warning: and {unnamed} more", file=sys.stderr)
        sys.stderr.flush()
        words = [
            f"{counted(self.frames, 'frame predicted', 'frames predicted')} in {took:.1f} s "
            f"({self.frames / took:.1f} per second)"
        ]
        if bad:
            reasons = ", ".join(f"{n} {reason}" for reason, n in self._reasons.most_common())
            words.append(f"{bad} bad ({reasons})")
        if problems:
            words.append(counted(len(problems), "reading problem"))
        if self.interrupted:
            words.append("interrupted")
        console.print("; ".join(words), soft_wrap=True)
        if self.interrupted:
            return 130
        return 1 if bad or problems or not self.frames else 0


@dataclass
class _Pending:
    frame: Frame
    image: Future[Decoded]


def _predicted(
    pipeline: Pipeline,
    sources: list[Source],
    batch: int,
    limit: int | None,
    min_size: tuple[int, int] | None,
) -> Iterator[tuple[Frame, Decoded, Prediction | None]]:
    """Yields frames in order, each with its image and prediction, or with the error instead."""
    frames = itertools.islice(itertools.chain.from_iterable(sources), limit)
    for group in _grouped(_decoded(frames, batch, min_size), batch):
        good = [image for _, image in group if not isinstance(image, ImageError)]
        predictions = iter(pipeline(good)) if good else iter(())
        for frame, image in group:
            yield frame, image, None if isinstance(image, ImageError) else next(predictions)


def _decoded(
    frames: Iterable[Frame], batch: int, min_size: tuple[int, int] | None
) -> Iterator[tuple[Frame, Decoded]]:
    """Decodes ahead of the network in other threads; OpenCV does so without Python's lock."""
    with ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode") as pool:
        pending: deque[_Pending] = deque()
        try:
            for frame in frames:
                pending.append(_Pending(frame, pool.submit(_decode, frame, min_size)))
                if len(pending) > batch + _DECODERS:
                    first = pending.popleft()
                    yield first.frame, first.image.result()
            while pending:
                first = pending.popleft()
                yield first.frame, first.image.result()
        finally:
            for waiting in pending:
                waiting.image.cancel()


def _decode(frame: Frame, min_size: tuple[int, int] | None) -> Decoded:
    try:
        return to_rgb(frame.message, min_size)
    except ImageError as error:
        return error


def _grouped(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(itertools.islice(iterator, size)):
        yield group


def _folder(option: str, path: str | None) -> Path | None:
    if path is None:
        return None
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{option} {folder} cannot be made: {error}") from error
    return folder


def _picture(
    folder: Path,
    number: int,
    frame: Frame,
    image: NDArray[np.uint8],
    prediction: Prediction,
    spec: NetworkSpec,
    options: Mapping[str, Any],
) -> None:
    drawn = annotate(image, prediction, spec, options)
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in frame.name)[-80:]
    file = folder / f"{number:06d}_{name}.jpg"
    if not cv2.imwrite(str(file), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)):
        raise ConfigError(f"{file} cannot be written")


def _bar(sources: list[Source], limit: int | None) -> Progress:
    counts = [s.count for s in sources]
    total = sum(c for c in counts if c is not None) if None not in counts else None
    if limit is not None:
        total = limit if total is None else min(total, limit)
    bar = progress()
    bar.add_task("predicting", total=total)
    return bar
