"""Predicts many recordings: one after another, in several processes, or on a Ray cluster.

Each recording is a task of its own that leaves its predictions in the cache. What is done is done: a run that
was interrupted goes on with what is missing.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robot_vision import __version__
from robot_vision.errors import ConfigError, RobotVisionError, SourceError, unknown
from robot_vision.evaluation.predict.cache import Key, bag_sha256, load_cached, store
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.evaluation.predict.replay import GPU_BATCH, replay
from robot_vision.pipeline import Pipeline
from robot_vision.recordings import Source, open_source
from robot_vision.recordings.recording_folder import is_bag
from robot_vision.recordings.storage import slashed

RUNNERS = ("processes", "ray")
_STEP_S = 0.2

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Job:
    """One recording to predict, and how.

    Attributes:
        bag: its path.
        name: by which it is known in the results.
        cache: file for its predictions.
        model: the bundle's directory.
        topic: image topic; empty takes the only one that is no truth.
        truth: topics of true images, which are no camera's.
        engine: see `Pipeline.load`, as the next three.
        device: of the engine.
        precision: of the arithmetic, or a program.
        threads: of the CPU; 0 leaves it to the engine.
        batch: frames in one run of the network; 0 chooses by the device.
        limit: frames at most; 0 for all.
    """

    bag: str
    name: str
    cache: str
    model: str
    topic: str = ""
    truth: tuple[str, ...] = ()
    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    batch: int = 0
    limit: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a job: where its predictions are, or why there are none.

    Attributes:
        job: that ran.
        error: one line; empty if all went well.
        note: for people; why kept predictions could not be used.
        reused: the predictions are of an earlier run.
    """

    job: Job
    error: str = ""
    note: str = ""
    reused: bool = False

    def predictions(self) -> Predictions:
        """Reads the predictions."""
        return Predictions.load(self.job.cache)


def image_topic(bag: str, topic: str, truth: Sequence[str] = ()) -> str:
    """Returns the image topic that is meant: the only one that neither calls itself truth nor is named so.

    Args:
        bag: a recording.
        topic: the one that is asked for; empty for the only one.
        truth: topics of true images.

    Raises:
        ConfigError: several to choose from.
        SourceError: not a bag that can be read, no image topic, or an unknown one; the message lists those
            that are there.
    """
    path = Path(bag).expanduser()
    if not path.exists():
        raise SourceError(f"{bag} does not exist: give a rosbag (folder, .bag, .db3 or .mcap)")
    if not is_bag(path):
        raise SourceError(
            f"{bag} is no rosbag: give a folder with metadata.yaml, a .bag, .db3 or .mcap; "
            "robot-vision make-bag makes one of images"
        )
    with open_source(path, [topic] if topic else None) as source:
        there = source.topics
    if not topic:
        true = {slashed(name) for name in truth}
        there = tuple(t for t in there if t not in true) or there
    if len(there) > 1:
        raise ConfigError(
            f"{bag} has {len(there)} image topics: set --topic to one of {', '.join(there)}"
        )
    return there[0]


def predict(job: Job, pipeline: Pipeline, progress: Progress | None = None) -> Outcome:
    """Predicts one recording, unless the cache has it.

    Raises:
        RobotVisionError: it cannot be read, or nothing in it can be predicted.
    """
    topic = image_topic(job.bag, job.topic, job.truth)
    opened = functools.partial(open_source, job.bag, [topic])
    return predict_source(job, opened, topic, bag_sha256(job.bag), pipeline, progress)


def predict_source(
    job: Job,
    opened: Callable[[], Source],
    topic: str,
    sha256: str,
    pipeline: Pipeline,
    progress: Progress | None = None,
) -> Outcome:
    """Predicts frames of whatever kind, unless the cache has them.

    Args:
        job: where they are kept, and how many.
        opened: opens what gives them.
        topic: that they are of.
        sha256: over them all.
        pipeline: that predicts.
        progress: is called with the number of frames that were done since.

    Raises:
        RobotVisionError: nothing in it can be predicted.
    """
    engine = pipeline.engine
    key = Key(
        sha256,
        pipeline.bundle.sha256,
        topic,
        f"{engine.name} on {engine.device}",
        pipeline.program,
        job.limit,
        __version__,
    )
    file = Path(job.cache)
    kept, note = load_cached(file, key)
    if kept is not None:
        if progress:
            progress(len(kept))
        return Outcome(job, reused=True)
    with opened() as source:
        limit, batch = job.limit or None, job.batch or None
        found = replay(pipeline, source, limit, batch, progress, file.parent)
    found.meta["path"] = str(Path(job.bag).expanduser().resolve())
    store(file, found, key)
    return Outcome(job, note=note)


def load_pipeline(job: Job) -> Pipeline:
    """Returns the pipeline that a job asks for."""
    return Pipeline.load(
        job.model,
        job.engine,
        job.device,
        job.precision,
        job.threads,
        max_batch=max(job.batch, GPU_BATCH),
    )


def count_frames(jobs: list[Job]) -> int | None:
    """Returns how many frames there will be at most; None where that is not known."""
    total = 0
    for job in jobs:
        try:
            with open_source(job.bag, [image_topic(job.bag, job.topic, job.truth)]) as source:
                count = source.count
        except RobotVisionError:
            continue
        if count is None:
            return None
        total += min(count, job.limit) if job.limit else count
    return total


def run(
    jobs: list[Job], processes: int = 1, runner: str = "processes", progress: Progress | None = None
) -> list[Outcome]:
    """Predicts all jobs and returns their outcomes in the same order.

    Args:
        jobs: with the same model, engine, device and precision.
        processes: how many at once.
        runner: one of `RUNNERS`; with `ray`, bags, model and cache must be on a file system that all
            machines of the cluster see.
        progress: is called with the number of frames that were done since.

    Raises:
        ConfigError: an unknown runner, or Ray is not installed.
        BundleError: the model cannot be loaded.
        EngineError: the engine cannot be started.
    """
    if runner not in RUNNERS:
        raise ConfigError(unknown("runner", runner, RUNNERS))
    if runner == "ray":
        return _run_ray(jobs, progress)
    if processes > 1 and len(jobs) > 1:
        return _run_processes(jobs, min(processes, len(jobs)), progress)
    with load_pipeline(jobs[0]) as pipeline:
        return [_guarded(job, pipeline, progress) for job in jobs]


def _guarded(job: Job, pipeline: Pipeline, progress: Progress | None) -> Outcome:
    try:
        return predict(job, pipeline, progress)
    except RobotVisionError as error:
        return Outcome(job, error=str(error))


# What a worker process has for all its jobs.
_pipeline: Pipeline | None = None
_done: Any = None


def _begin(job: Job, done: Any) -> None:
    global _pipeline, _done
    # Ctrl-C reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _pipeline, _done = load_pipeline(job), done


def _work(job: Job) -> Outcome:
    assert _pipeline is not None

    def progress(count: int) -> None:
        with _done.get_lock():
            _done.value += count

    return _guarded(job, _pipeline, progress)


def _run_processes(jobs: list[Job], processes: int, progress: Progress | None) -> list[Outcome]:
    with load_pipeline(jobs[0]) as pipeline:  # what is wrong with it is said once, and here
        if pipeline.bundle.programs:
            # Each process would choose for itself, while the others disturb its timing.
            name, device = pipeline.engine.name, pipeline.engine.device
            ran = pipeline.program
            jobs = [replace(job, engine=name, device=device, precision=ran) for job in jobs]
    # Not forked: engines have threads, which a fork does not take along.
    context = multiprocessing.get_context("spawn")
    done = context.Value("q", 0)
    reported = 0
    with ProcessPoolExecutor(processes, context, _begin, (jobs[0], done)) as pool:
        waiting: set[Future[Outcome]] = set()
        futures = [pool.submit(_work, job) for job in jobs]
        waiting.update(futures)
        try:
            while waiting:
                _, waiting = wait(waiting, _STEP_S, FIRST_COMPLETED)
                if progress and done.value > reported:
                    now = int(done.value)
                    progress(now - reported)
                    reported = now
        except BaseException:
            workers = list((getattr(pool, "_processes", None) or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:  # in the middle of a recording, which may take long
                worker.terminate()
            raise
        return [future.result() for future in futures]


def _run_ray(jobs: list[Job], progress: Progress | None) -> list[Outcome]:
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("Runner 'ray' needs Ray: pip install 'robot_vision[ray]'")
    ray = importlib.import_module("ray")
    started = not ray.is_initialized()
    if started:
        # Starting a cluster would start Ray's dashboard, which asks the cloud's metadata servers where it
        # runs, whatever its settings say. A cluster that runs already is the user's.
        try:
            ray.init(address=os.environ.get("RAY_ADDRESS") or "auto", log_to_driver=False)
        except ConnectionError as error:
            raise ConfigError(
                "no Ray cluster is running: start one (ray start --head) or name it in RAY_ADDRESS; on one "
                "machine use --runner processes"
            ) from error
    try:
        task = ray.remote(_ray_work)
        pending = {task.remote(job): i for i, job in enumerate(jobs)}
        outcomes: dict[int, Outcome] = {}
        for reference, outcome in _as_completed(ray, list(pending)):
            outcomes[pending[reference]] = outcome
            if progress and not outcome.error:
                progress(len(outcome.predictions()))
        return [outcomes[i] for i in range(len(jobs))]
    finally:
        if started:
            ray.shutdown()


def _ray_work(job: Job) -> Outcome:
    with load_pipeline(job) as pipeline:
        return _guarded(job, pipeline, None)


def _as_completed(ray: Any, references: list[Any]) -> Iterator[tuple[Any, Outcome]]:
    while references:
        ready, references = ray.wait(references, num_returns=1)
        for reference in ready:
            yield reference, ray.get(reference)
