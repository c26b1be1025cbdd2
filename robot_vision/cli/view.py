"""`robot-vision view BAG --model BUNDLE`: a recording and what a model says of it, in Rerun's viewer."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from robot_vision.cli.arguments import (
    add_engine,
    add_model,
    add_topic,
    at_least_1,
    changed,
    number,
    progress,
)
from robot_vision.errors import ConfigError
from robot_vision.files.whole import draft_of
from robot_vision.text.counts import counted
from robot_vision.viewing.scene import Scene, load_rerun

_MATCHES = "/map_matches"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  robot-vision view run1 --model demo   (writes run1.rrd; open it with: rerun run1.rrd)\n"
        "  robot-vision view run1 --model BUNDLE --map house.map --serve\n"
        "  robot-vision view run1 --predictions recorded\n"
        "  robot-vision view --evaluation out/evaluation\n"
        "  robot-vision view --map house.map\n"
    )
    parser.add_argument("bag", nargs="?", metavar="BAG", help="rosbag whose topics are shown")
    what = parser.add_argument_group("what is shown with it")
    add_model(what, required=False)
    add_topic(what)
    what.add_argument(
        "--predictions",
        metavar="BAG",
        help="recording of the nodes' topics, or a bag of results that evaluate wrote",
    )
    what.add_argument(
        "--evaluation",
        type=Path,
        metavar="DIR",
        help="folder that evaluate wrote: its recordings, answers, true poses and errors over time",
    )
    what.add_argument(
        "--map",
        metavar="MAP",
        help="place map: its keyframes and, with --model, lines to the places that each image may show",
    )
    add_engine(what, threads=True)
    where = parser.add_argument_group("where")
    where.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write, for Rerun's viewer (default: the name of what is shown, and .rrd)",
    )
    where.add_argument(
        "--serve", action="store_true", help="serve it on a web page instead, until Ctrl-C"
    )
    where.add_argument(
        "--host",
        default="127.0.0.1",
        help="with --serve: address to listen on; 0.0.0.0 shows it to everybody in the network (default: "
        "%(default)s, this machine alone)",
    )
    where.add_argument(
        "--port",
        type=number(int, 1, 65534),
        default=9870,
        help="with --serve: port of the page; the data come over the next one (default: %(default)s)",
    )
    where.add_argument(
        "--memory",
        type=at_least_1,
        default=512,
        metavar="MB",
        help="with --serve: memory of the server; beyond it the oldest data are dropped (default: "
        "%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Shows what is asked for. Exit status: 1 if some of it could not be read or shown, else 0."""
    load_rerun()  # before hours of work
    _check(args)
    from robot_vision.viewing.bags import BagView  # NumPy and OpenCV, after the checks
    from robot_vision.viewing.messages import Shown

    with ExitStack() as stack:
        scene = Scene(_title(args))
        output = _output(args)
        server = None
        if args.serve:
            from robot_vision.viewing.server import WebViewer

            server = WebViewer(args.host, args.port, args.memory)
            stack.callback(server.close)
            scene.connect(server.sink)
        else:
            scene.save(stack.enter_context(draft_of(output)))
            stack.callback(scene.close)
        shown = Shown(scene)
        view = BagView(shown)
        keyframes = _map(args, scene) if args.map else 0
        if args.model:
            _modelled(args, shown, view, scene)
        elif args.evaluation:
            _evaluated(args, scene, view)
        else:
            for path in filter(None, (args.predictions, args.bag)):
                view.show(Path(path).expanduser(), skip=set(view.counts))
        scene.send_layout()
        scene.flush()
        for line in view.notes:
            print(f"note: {line}", file=sys.stderr)
        for line in view.problems:
            print(f"warning: {line}", file=sys.stderr)
        counts = {"message": sum(view.counts.values()), "keyframe": keyframes}
        total = " and ".join(counted(count, word) for word, count in counts.items() if count)
        if server is not None:
            print(f"{total} shown at {server.page} (Ctrl-C ends it)", flush=True)
            while server.alive:
                time.sleep(0.2)
            raise ConfigError("Rerun's server ended")
    print(f"{output}: {total} shown; open it with: rerun {output}")
    return 1 if view.problems else 0


def _check(args: argparse.Namespace) -> None:
    """Refuses what makes no sense together.

    Raises:
        ConfigError: which options those are.
    """
    if args.serve and args.output:
        raise ConfigError("--serve writes no file: leave out --serve or --output")
    kinds = [f"--{word}" for word in ("model", "predictions", "evaluation") if getattr(args, word)]
    if len(kinds) > 1:
        raise ConfigError(f"{' and '.join(kinds)} do not go together: give one of them")
    if args.evaluation and args.bag:
        raise ConfigError("--evaluation names its recordings itself: leave out BAG")
    if args.model and not args.bag:
        raise ConfigError("--model needs a recording: robot-vision view BAG --model BUNDLE")
    for need, names in (
        ("serve", ("host", "port", "memory")),
        ("model", ("topic", "engine", "device", "precision", "threads")),
    ):
        if not getattr(args, need) and (unused := changed(args, add_arguments, names)):
            raise ConfigError(f"{unused} has no effect without --{need}")
    if not (args.bag or kinds or args.map):
        raise ConfigError(
            "There is nothing to show: give BAG, --predictions BAG, --evaluation DIR or --map MAP"
        )


def _title(args: argparse.Namespace) -> str:
    """Returns a name of what is shown."""
    first = args.bag or args.evaluation or args.predictions or args.map
    return Path(str(first).partition("?")[0]).expanduser().resolve().name or "view"


def _output(args: argparse.Namespace) -> Path:
    path: Path = (args.output or Path(f"{_title(args)}.rrd")).expanduser()
    if path.suffix != ".rrd":
        raise ConfigError(f"--output {path} must end in .rrd, as Rerun's files do")
    if not path.parent.is_dir():
        raise ConfigError(f"--output {path}: there is no folder {path.parent}")
    return path


def _modelled(args: argparse.Namespace, shown: Any, view: Any, scene: Scene) -> None:
    """Predicts a bag, and shows the topics that the nodes would publish."""
    from robot_vision.bundle.bundle import ModelBundle
    from robot_vision.bundle.installed import find_model
    from robot_vision.cli.arguments import say_program
    from robot_vision.evaluation.predict import runner
    from robot_vision.evaluation.predict.recorded import write_results
    from robot_vision.evaluation.report.writing import lens_of

    model = ModelBundle.load(find_model(args.model))
    topic = runner.image_topic(args.bag, args.topic)
    with tempfile.TemporaryDirectory(prefix="robot_vision_view_") as folder:
        job = runner.Job(
            bag=args.bag,
            name=_title(args),
            cache=f"{folder}/predictions.npz",
            model=str(model.path),
            topic=topic,
            engine=args.engine,
            device=args.device,
            precision=args.precision,
            threads=args.threads,
        )
        with runner.load_pipeline(job) as pipeline, progress() as bar:
            task = bar.add_task("predicting", total=runner.count_frames([job]))
            found = runner.predict(job, pipeline, lambda n: bar.advance(task, n)).predictions()
            say_program(pipeline)
        view.problems += found.meta.get("problems", ())
        results = Path(folder) / "results"
        view.notes += write_results(results, found, model, lens=lens_of(args.bag, found, model))
        view.show(results, before=_places_before(args, shown, found, scene))
    view.show(Path(args.bag).expanduser(), skip=set(view.counts))


def _places_before(
    args: argparse.Namespace, shown: Any, found: Any, scene: Scene
) -> Callable[[int], None]:
    """Returns what shows the places of all images before a time, once."""
    if not args.map:
        return lambda log_ns: None
    from robot_vision.places.map.opening import open_map
    from robot_vision.studies.map_matches import matches

    with open_map(args.map, "read") as places:
        frame, said = places.info.frame_id, deque(matches(places, found))

    def before(log_ns: int) -> None:
        while said and said[0].stamp_ns < log_ns:
            one = said.popleft()
            scene.at(one.stamp_ns)
            shown.matches(_MATCHES, frame, one.ranked, one.accepted)

    return before


def _evaluated(args: argparse.Namespace, scene: Scene, view: Any) -> None:
    """Shows the recordings of an evaluation, its answers and its numbers of each frame."""
    from robot_vision.evaluation.merge import read_document, scores_of

    document = read_document(args.evaluation / "metrics.json")
    scores = scores_of(document)
    results = sorted(p for p in (args.evaluation / "results").glob("*") if p.is_dir())
    if not results:
        view.notes.append(
            f"{args.evaluation} has no bags of results (--no-results-bag): only its numbers are shown"
        )
    for path in results:
        view.show(path)
    seen = set(view.counts)
    for recording in scores.recordings:
        bag = Path(recording.get("meta", {}).get("path", ""))
        if bag.parts and bag.exists():
            view.show(bag, skip=seen)
        else:
            view.notes.append(f"recording {recording['name']} is not at {bag}: no images of it")
    for name in scores.table:
        values = scores[name]
        if values.ndim == 1 and values.dtype.kind == "f":
            for stamp_ns, value in zip(scores["stamps_ns"], values, strict=True):
                if np.isfinite(value):
                    scene.at(int(stamp_ns))
                    scene.numbers(f"/evaluation/{name}", {"value": float(value)})


def _map(args: argparse.Namespace, scene: Scene) -> int:
    """Shows the keyframes of a map: where they are by recording, and where they look; returns how many."""
    from robot_vision.places.map.opening import open_map
    from robot_vision.viewing.keyframes import show_keyframes

    with open_map(args.map, "read") as places:
        poses, frame = places.poses(), places.info.frame_id
    if not len(poses.ids):
        raise ConfigError(f"{args.map} is empty: there is nothing to show")
    where = poses.positions, poses.quaternions_xyzw
    show_keyframes(scene, frame, poses.ids, *where, poses.sources)
    return len(poses.ids)
