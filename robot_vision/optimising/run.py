"""`robot-vision optimise` without its arguments: from a bundle and images to a bundle with programs."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.bundle.bundle import PROBE_IMAGES, PROBES, SHARED, ModelBundle, write_manifest
from robot_vision.bundle.programs import FLOAT32, Certificate, Program
from robot_vision.calibration.fit import Calibration, FitMaterial, calibrated_graph, fit
from robot_vision.calibration.folds import folds_of
from robot_vision.calibration.predict import predict
from robot_vision.calibration.run import Data, heads_with_truth, verify, without_trained_on
from robot_vision.contract.calibration import Options
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.datasets.image_sketch import found_in, sketch
from robot_vision.datasets.sample import Sample, content_hash
from robot_vision.engines import create_engine
from robot_vision.engines.base import Engine
from robot_vision.engines.factory import places
from robot_vision.engines.nvidia import TENSORRT_VARIANT
from robot_vision.engines.probes import COUNT, place_of, probe_outputs
from robot_vision.errors import ConfigError, EngineError, ImageError, SourceError, unknown
from robot_vision.files.tensors import dump_tensors
from robot_vision.files.whole import draft_folder
from robot_vision.images.resizing import network_inputs, source_size
from robot_vision.optimising.certify import Certifier, HeldOut
from robot_vision.optimising.quantise import RANGE_IMAGES, VARIANTS, caution, variant_graph
from robot_vision.statistics.paired import LEAST_RESAMPLES
from robot_vision.text.counts import counted

MODES = ("bfloat16",)
PROGRAMS = (*VARIANTS, *MODES)
DEFAULT = ("int8", "int8-vnni", "bfloat16")
_PARTS = 3  # of the images one chooses, the others certify
_BATCH = 32
_LARGE = 1 << 10  # bytes of a constant

Say = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass
class Optimised:
    """A bundle with programs.

    Attributes:
        bundle: the new one, as float32 runs it.
        notes: a line each.
    """

    bundle: ModelBundle
    notes: list[str]


def optimise(
    bundle: ModelBundle,
    data: Data,
    names: Sequence[str],
    out: Path,
    settings: EvaluationSettings | None = None,
    remake: bool = False,
    say: Say = lambda line: None,
) -> Optimised:
    """Makes programs, fits their calibration, certifies them on this machine, and writes the bundle.

    A third of the images (blocks of time of recordings) choose: ranges, biases, calibration. The others
    certify. Programs that the bundle has already keep their graphs, and get certificates for this machine.

    Args:
        bundle: as float32 runs it.
        data: images that were not trained on.
        names: of `PROGRAMS`.
        out: directory of the new bundle; may be the old one, which is then replaced.
        settings: of the bootstrap, and what the same place is.
        remake: make programs again that are there.
        say: takes a line on what is being done.

    Raises:
        ConfigError: no program or an unknown one, too few resamples, images that were trained on or too few,
            or a package is missing.
        SourceError: the images cannot be read.
    """
    if not names:
        raise ConfigError(f"no program is named: name some of {', '.join(PROGRAMS)}")
    for name in names:
        if name not in PROGRAMS:
            raise ConfigError(unknown("program", name, PROGRAMS))
    settings = settings or EvaluationSettings()
    if settings.resamples < LEAST_RESAMPLES:
        raise ConfigError(
            f"resamples is {settings.resamples}: a certificate needs at least {LEAST_RESAMPLES}"
        )
    samples, notes = without_trained_on(bundle, data.samples)
    kept = {p.name: p for p in bundle.programs if p.name != FLOAT32}
    reused = [name for name in names if name in kept and not remake]
    chosen = _choosing(bundle, [kept[name] for name in reused], samples, settings.seed)
    choosing = [s for s, c in zip(samples, chosen, strict=True) if c]
    certifying = [s for s, c in zip(samples, chosen, strict=True) if not c]
    if not choosing or not certifying:
        raise ConfigError(
            f"{counted(len(samples), 'image')} are too few to choose by some and certify by others: give more"
        )
    say(f"{counted(len(choosing), 'image')} choose, {len(certifying)} others certify")
    programs = dict(kept)
    graphs: dict[str, bytes] = {}
    batches: list[NDArray[np.uint8]] = []
    for name in names:
        if name in MODES:
            programs.setdefault(name, Program(name, precision=name))
        elif name not in reused:
            say(f"making {name}")
            batches = batches or _range_batches(bundle, choosing)
            programs[name], graphs[name] = _variant(
                bundle, name, batches, choosing, data, settings, notes
            )
            notes += filter(None, [caution(bundle.graph, name)])
    made = list(graphs)
    reference = [s for s in data.reference if s.T_map_camera is not None]
    held_out = HeldOut(data.splits, certifying, reference or choosing, data.name, data.split)
    certifier = Certifier(bundle, held_out, settings)
    with draft_folder(out) as part:
        part.chmod(bundle.path.stat().st_mode & 0o777)
        for name, program in kept.items():
            if program.graph and name not in graphs:
                graphs[name] = ModelBundle.load(bundle.path, name).graph
        gone = {PROBES, SHARED, *(programs[name].graph for name in graphs)}
        for file in bundle.files:
            if file not in gone:
                shutil.copyfile(bundle.path / file, part / file)
        for file, content in _files(programs, graphs).items():
            (part / file).write_bytes(content)
        _manifest(bundle, part, programs)
        probes = _Probes(bundle, certifying, made)
        for name in names:
            # As a robot loads it: with its settings, its calibration and its graph.
            view = ModelBundle.load(part, name)
            found = _certified(view, programs[name], certifier, probes, notes, say)
            programs[name] = replace(programs[name], certificates=tuple(found))
        (part / PROBES).write_bytes(probes.content(programs))
        _manifest(bundle, part, programs)
        written = [ModelBundle.load(part, name) for name in (FLOAT32, *programs)]
    return Optimised(replace(written[0], path=out), notes)


def _manifest(bundle: ModelBundle, folder: Path, programs: Mapping[str, Program]) -> None:
    write_manifest(
        folder,
        bundle.name,
        bundle.spec,
        bundle.training,
        bundle.metrics,
        bundle.calibration,
        list(programs.values()),
    )


def _files(programs: Mapping[str, Program], graphs: Mapping[str, bytes]) -> dict[str, bytes]:
    """Returns files of programs' graphs; large constants that all of them have are in one of their own."""
    if len(graphs) < 2:
        return {programs[name].graph: graph for name, graph in graphs.items()}
    import onnx

    models = {name: onnx.load_model_from_string(graph) for name, graph in graphs.items()}
    constants = [
        {t.SerializeToString(deterministic=True) for t in model.graph.initializer}
        for model in models.values()
    ]
    shared = [c for c in set.intersection(*constants) if len(c) >= _LARGE]
    common = onnx.ModelProto()
    common.graph.initializer.extend(map(onnx.TensorProto.FromString, sorted(shared)))
    files = {SHARED: common.SerializeToString(deterministic=True)} if shared else {}
    for name, model in models.items():
        own = [
            t
            for t in model.graph.initializer
            if t.SerializeToString(deterministic=True) not in shared
        ]
        model.graph.ClearField("initializer")
        model.graph.initializer.extend(own)
        files[programs[name].graph] = model.SerializeToString(deterministic=True)
    return files


def _choosing(
    bundle: ModelBundle, reused: Sequence[Program], samples: Sequence[Sample], seed: int
) -> NDArray[np.bool_]:
    """Returns which samples (N,) choose: one part of three, and all by which anything was chosen before."""
    chosen = folds_of(samples, _PARTS, seed) == 0
    records = [bundle.calibration, *(program.calibration for program in reused)]
    hashes = [content_hash(sample) for sample in samples]
    for record in records:
        earlier = record.get("data", {}).get("image_sketch")
        if earlier is not None:
            shared, _ = found_in(earlier, hashes)
            chosen |= np.array([h in shared for h in hashes], bool)
    return np.asarray(chosen)


def _inputs(bundle: ModelBundle, samples: Sequence[Sample], count: int) -> NDArray[np.uint8]:
    """Returns evenly spaced samples as the network takes them, (count or less, H, W, 3)."""
    spec = bundle.spec.input
    every = np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int)
    found, problems = [], []
    for i in dict.fromkeys(every.tolist()):
        try:
            found.append(network_inputs([samples[i].source.load(source_size(spec))], spec)[0])
        except ImageError as error:
            problems.append(str(error))
    if not found:
        raise SourceError(f"None of the images can be read: {problems[0]}")
    return np.stack(found)


def _range_batches(bundle: ModelBundle, samples: Sequence[Sample]) -> list[NDArray[np.uint8]]:
    images = _inputs(bundle, samples, RANGE_IMAGES)
    return [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]


def _variant(
    bundle: ModelBundle,
    name: str,
    batches: Sequence[NDArray[np.uint8]],
    choosing: Sequence[Sample],
    data: Data,
    settings: EvaluationSettings,
    notes: list[str],
) -> tuple[Program, bytes]:
    """Returns a variant and its graph, with the calibration that was fitted for it."""
    graph = variant_graph(bundle.graph, name, batches)
    view = replace(bundle, graph=graph, program=name)
    record = {
        "data": {
            "name": data.name,
            "split": data.split,
            "images": len(choosing),
            "image_sketch": sketch(content_hash(sample) for sample in choosing),
        },
        "of_bundle": bundle.sha256,
    }
    found = Calibration(bundle.spec)
    parts = heads_with_truth(bundle, choosing, data.splits.has_orientation)
    if parts:
        outputs = predict(view, choosing)
        material = FitMaterial([choosing[i] for i in outputs["rows"]], outputs)
        for part in parts:
            recorded = bundle.calibration.get(part) or {}
            try:
                one = fit(view, material, None, Options((part,), recorded, settings))
            except ConfigError as error:  # too few images, which it says
                notes.append(f"{name}: {part} keeps the calibration of float32: {error}")
                continue
            fitted = one.heads[part]
            head = one.owners[part]
            files = [
                head.key(word) for word, content in fitted.files.items() if content is not None
            ]
            files += [head.key(word) for word in fitted.files if head.key(word) in bundle.files]
            why = fitted.left
            if files:
                why = "what was fitted is in files, which all programs share"
            if not fitted.constants and not recorded:
                # How many images may be called unknown, say, is a choice and no truth of the images.
                why = "the bundle does not say by which settings it was fitted"
            undone = [head.key(word) for word in fitted.undoes]
            lost = [w for w in undone if w not in parts or not bundle.calibration.get(w)]
            if lost and not why:
                why = f"it would undo {', '.join(lost)}, and the bundle does not say how that was fitted"
            if why:
                notes.append(f"{name}: {part} keeps the calibration of float32: {why}")
                continue
            graph = calibrated_graph(view, one)
            view = replace(view, graph=graph, spec=one.spec)
            verify(view, graph, material, one)
            found.heads[part], found.owners[part] = fitted, one.owners[part]
            found.spec = one.spec
            # What comes next is fitted on what this one says.
            outputs = predict(view, choosing)
            material = FitMaterial([choosing[i] for i in outputs["rows"]], outputs)
    changed = {}
    for head, own in found.spec.bound:
        said, _ = head.to_bundle(own)
        before, _ = head.to_bundle(bundle.spec.heads[head.name])
        if differing := {key: v for key, v in said.items() if before.get(key) != v}:
            changed[head.name] = differing
    calibration = found.merged({**bundle.calibration, **record})
    return Program(name, f"model.{name}.onnx", heads=changed, calibration=calibration), graph


class _Probes:
    """A few inputs, and what programs gave for them on the engines of this and of earlier machines."""

    def __init__(
        self, bundle: ModelBundle, samples: Sequence[Sample], new: Collection[str]
    ) -> None:
        # What a program gave before it was made again is of another graph.
        self.tensors: dict[str, NDArray[Any]] = {
            n: a for n, a in bundle.probes.items() if n.partition("/")[0] not in new
        }
        if PROBE_IMAGES not in self.tensors:
            self.tensors[PROBE_IMAGES] = _inputs(bundle, samples, COUNT)
        if not any(name.startswith(f"{FLOAT32}/") for name in self.tensors):
            with closing(create_engine(bundle, "onnx", "cpu")) as engine:
                self.add(FLOAT32, engine)

    def add(self, program: str, engine: Engine) -> None:
        for name, value in probe_outputs(engine, self.tensors[PROBE_IMAGES]).items():
            self.tensors[f"{place_of(engine, program)}/{name}"] = value

    def content(self, programs: Collection[str]) -> bytes:
        """Returns the file, without what programs gave that are gone."""
        names = {PROBE_IMAGES, FLOAT32, *programs}
        return dump_tensors({n: a for n, a in self.tensors.items() if n.partition("/")[0] in names})


def _engines(view: ModelBundle, program: Program) -> Iterator[Engine]:
    """Yields the engines of this machine that run a program, of each kind of device one."""
    seen = set()
    for name, device in places("auto", "auto"):
        kind = device.partition(":")[0]
        for_tensorrt = program.name == TENSORRT_VARIANT
        if (name, kind) in seen or (program.graph and for_tensorrt != (kind == "tensorrt")):
            continue
        seen.add((name, kind))
        try:
            engine = create_engine(view, name, device, program.precision)
        except EngineError as error:
            _log.debug("%s: %s", program.name, error)
            continue
        with closing(engine):
            yield engine


def _certified(
    view: ModelBundle,
    program: Program,
    certifier: Certifier,
    probes: _Probes,
    notes: list[str],
    say: Say,
) -> list[Certificate]:
    """Returns the certificates of a program: those of other machines, and those for the engines of this."""
    found = list(program.certificates)
    count = 0
    for engine in _engines(view, program):
        count += 1
        say(f"certifying {program.name} in {engine.name} on {engine.device}")
        made = certifier.certificate(view, engine)
        here = (made.engine, made.device, made.instructions)
        found = [c for c in found if not c.counts(*here)] + [made]
        probes.add(program.name, engine)
    if not count:
        notes.append(
            f"{program.name}: no engine of this machine runs it: it has no certificate here"
        )
    return found
