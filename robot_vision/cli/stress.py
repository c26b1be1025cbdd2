"""`robot-vision stress --bag BAG --model BUNDLE`: what is a model worth when its images get worse?"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from pathlib import Path

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.cli.arguments import (
    add_data_set,
    add_engine,
    add_model,
    add_output,
    add_resamples,
    add_topic,
    add_truth,
    open_split,
    progress,
    say_program,
)
from robot_vision.cli.evaluate.arguments import check_data_set
from robot_vision.contract.metrics import pixel_classes
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError
from robot_vision.evaluation.evaluate import with_images
from robot_vision.evaluation.predict.cache import bag_sha256
from robot_vision.evaluation.predict.replay import GPU_BATCH
from robot_vision.evaluation.predict.runner import image_topic
from robot_vision.evaluation.predict.samples import SampleSource, sample_truth
from robot_vision.files.folders import make_folder
from robot_vision.files.whole import write_whole
from robot_vision.pipeline import Pipeline
from robot_vision.recordings import open_source
from robot_vision.recordings.recording_folder import is_bag
from robot_vision.studies.stress.degradations import DEGRADATIONS
from robot_vision.studies.stress.measure import METRICS
from robot_vision.studies.stress.report import page, picture, tables
from robot_vision.studies.stress.run import StressPlan, StressRecording, frames_to_do, stress
from robot_vision.truth.images import parse_images
from robot_vision.truth.reading import TruthRequest, read_truth
from robot_vision.truth.tracks import LABEL, Truth

SHOWN = ("accuracy", "ece", "kept", "wrong_and_kept", "auroc_unknown", "median_m", "nees")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    ways = "\n".join(
        f"  {d.name:10} {', '.join(f'{s:g}' for s in d.strengths)} {d.unit}"
        for d in DEGRADATIONS.values()
    )
    parser.epilog = (
        f"degradations and their five strengths:\n{ways}\n\nexamples:\n"
        "  robot-vision stress --bag run1 --model demo\n"
        "  robot-vision stress --data image_folder lights --model BUNDLE --unknown kitchen_photos\n"
        "  robot-vision stress --data seven_scenes RedKitchen --option split=blocks --model BUNDLE\n"
    )
    what = parser.add_argument_group("what")
    add_model(what)
    what.add_argument(
        "--bag",
        metavar="BAG",
        help="rosbag to degrade; its truth is found as `robot-vision evaluate` finds it",
    )
    add_topic(what)
    add_truth(what)
    what.add_argument(
        "--base-to-camera",
        default="",
        metavar="X,Y,Z,QX,QY,QZ,QW",
        help="pose of the camera in the frame of the true poses, if they are those of the robot or an "
        "IMU (metres, unit quaternion)",
    )
    add_data_set(what, "a bag")
    what.add_argument(
        "--unknown",
        metavar="PATH",
        help="images, video or bag that show none of the model's classes; they are degraded in the same "
        "way, for the AUROC",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--degradations",
        default=",".join(DEGRADATIONS),
        metavar="NAMES",
        help="degradations to apply, separated by commas (default: all)",
    )
    how.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="use one frame out of every N (default: %(default)s)",
    )
    how.add_argument(
        "--limit", type=int, default=0, metavar="N", help="stop after N used frames (default: all)"
    )
    how.add_argument(
        "--seed", type=int, default=0, help="random seed of the degradations (default: %(default)s)"
    )
    add_resamples(how, "; 0 gives no intervals")
    add_engine(how, threads=True)
    add_output(parser.add_argument_group("output"), "stress", ("markdown", "json"))


def run(args: argparse.Namespace) -> int:
    """Stresses, writes `stress.json`, `stress.svg`, `stress.md` and `report.html`, and prints tables."""
    names = tuple(name.strip() for name in args.degradations.split(",") if name.strip())
    plan = StressPlan(names, args.seed, args.every, args.limit)
    settings = EvaluationSettings(resamples=args.resamples)
    bundle = ModelBundle.load(find_model(args.model))
    recording = _recording(args, bundle)
    _check_labels(bundle, recording)
    strangers = _strangers(args.unknown) if args.unknown else None
    recordings = [recording, *([strangers] if strangers else [])]
    make_folder(args.output, sources=[*filter(None, [args.bag]), *(args.data or ())[1:]])
    with (
        Pipeline.load(
            bundle.path, args.engine, args.device, args.precision, args.threads, GPU_BATCH
        ) as pipeline,
        progress() as bar,
    ):
        say_program(pipeline)
        task = bar.add_task("stressing", total=frames_to_do(plan, recordings))
        try:
            document = stress(
                pipeline,
                recording,
                plan,
                args.output / "cache",
                strangers,
                lambda n: bar.advance(task, n),
                settings,
            )
        except KeyboardInterrupt:
            print("what is done is kept: the same command continues from there", file=sys.stderr)
            raise
    document["command"] = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    write_whole(args.output / "stress.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_whole(args.output / "stress.svg", picture(document))
    write_whole(args.output / "stress.md", "\n".join(tables(document)) + "\n")
    write_whole(args.output / "report.html", page(document))
    if args.format == "json":
        print(json.dumps(document, allow_nan=False))
    else:
        shown = [*(m for m in METRICS if m in SHOWN), *document["headlines"]]
        print("\n".join(tables(document, shown, intervals=False)))
    if not any(condition["numbers"] for condition in document["conditions"]):
        print(
            "warning: nothing was measured: the recording has no truth of what the model says; name it, for "
            "example by --label-topic, --poses or --truth-image",
            file=sys.stderr,
        )
    for line in document["problems"]:
        print(f"note: {line}", file=sys.stderr)
    print(f"report: {args.output / 'report.html'}", file=sys.stderr)
    return 0


def _recording(args: argparse.Namespace, bundle: ModelBundle) -> StressRecording:
    if bool(args.bag) == bool(args.data):
        raise ConfigError("What should be degraded? Give either --bag BAG or --data KIND PATH")
    check_data_set(args)
    if args.data:
        return _data_set(args, bundle)
    path = str(Path(args.bag).expanduser())
    true_images = parse_images(args.truth_image)
    topic = image_topic(path, args.topic, [source.where for source in true_images])
    with open_source(path, [topic]) as source:
        first, count = next(iter(source), None), source.count
    request = TruthRequest(
        label_spans=args.labels,
        label_topic=args.label_topic,
        pose_file=args.poses,
        pose_topic=args.pose_topic,
        base_to_camera=args.base_to_camera,
        images=true_images,
        image_within_s=args.truth_image_within,
    )
    request = with_images(request, bundle.spec.bound)
    truth = read_truth(Path(path), request, first.frame_id if first else "")
    name = Path(path).name
    return StressRecording(name, lambda: open_source(path, [topic]), bag_sha256(path), count, truth)


def _check_labels(bundle: ModelBundle, recording: StressRecording) -> None:
    """Refuses a recording whose truth is of other classes alone: there would be no number."""
    truth = recording.truth
    facts = [
        h.judge().facts(spec)
        for h, spec in bundle.spec.bound
        if h.name == h.kind and LABEL in h.judge().truth
    ]
    labels = next((own["labels"] for own in facts if "labels" in own), None)
    if labels is None or truth.labels is None or truth.poses is not None:
        return
    shown = sorted({name for name in truth.labels.names if name})
    if shown and not set(shown) & set(labels):
        raise ConfigError(
            f"{recording.name} shows {', '.join(shown[:5])}, but {bundle.name} knows "
            f"{', '.join(labels[:5])}: give a recording with labels of the model, or with poses"
        )


def _data_set(args: argparse.Namespace, bundle: ModelBundle) -> StressRecording:
    splits, samples = open_split(args)
    name = f"{Path(args.data[1]).name} ({args.split})"
    posed = any(s.T_map_camera is not None for s in samples)
    return StressRecording(
        name,
        lambda: SampleSource(name, samples),
        splits.fingerprint(args.split),
        len(samples),
        sample_truth(splits, samples, pixel_classes(bundle.spec.bound)),
        in_order=posed or any(s.stamp_ns is not None for s in samples),
    )


def _strangers(path: str) -> StressRecording:
    place = Path(path).expanduser()
    topics = [image_topic(str(place), "")] if place.exists() and is_bag(place) else None
    with open_source(place, topics) as source:
        count = source.count
    if place.exists():
        digest = bag_sha256(place)
    else:  # a pattern
        with open_source(place) as source:
            digest = hashlib.sha256("\n".join(f.name for f in source).encode()).hexdigest()
    return StressRecording(place.name, lambda: open_source(place, topics), digest, count, Truth())
