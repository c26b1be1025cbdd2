"""A model bundle: one directory that is everything a robot needs of a network.

    bundle.yaml          format version, name, network and heads, training, scores, sha256 of every file
    model.onnx           one graph: uint8 RGB (N, H, W, 3) in, final values out
    weights.safetensors  the same weights, to train on (only the torch engine reads them)
    labels.txt, ...      files of heads (`Head.files`): labels, features of known images
    model.int8.onnx, ... graphs of further programs (`programs.py`), where `robot-vision optimise` made them
    probes.safetensors   a few inputs and what each program gave for them
    README.md            the model card

Loading checks all of it. The graph's bytes are hashed and handed to the engine from memory, so what was
verified is what runs, and a graph that points at files outside itself cannot be run.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from robot_vision.bundle.programs import FLOAT32, Program, parse_programs
from robot_vision.bundle.signature import GraphSignature, read_signature
from robot_vision.contract import registry
from robot_vision.contract.head import Material
from robot_vision.contract.spec import NetworkSpec, bound_settings, kind_of
from robot_vision.errors import BundleError, ConfigError, unknown
from robot_vision.files.cache_folder import user_cache
from robot_vision.files.plain_yaml import YamlError, load_yaml
from robot_vision.files.tensors import load_tensors
from robot_vision.files.whole import file_sha256, write_whole
from robot_vision.settings.mappings import check_mapping

FORMAT_VERSION = 1
MANIFEST = "bundle.yaml"
GRAPH = "model.onnx"
WEIGHTS = "weights.safetensors"
CARD = "README.md"
PROBES = "probes.safetensors"
SHARED = "model.shared.onnx"  # what graphs of programs have in common
PROBE_IMAGES = "images"
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 2 << 30  # protobuf, and so ONNX without external data, ends at 2 GiB
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".npy", ".npz")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class ModelBundle:
    """A bundle that was loaded and verified, as one of its programs sees it.

    Attributes:
        path: its directory.
        name: the model's name.
        spec: backbone, input and heads.
        training: what it was trained on (free form).
        metrics: what it scored (free form).
        calibration: what `robot-vision calibrate` fitted, on what, and what it changed (free form, but for
            `open_set.known_scores` and `place.probability`, which consumers read).
        files: name of each file that is there to its sha256, as hexadecimal digits. The weights to train on
            may be absent, as from the package's wheel: the graph has its own.
        graph: the bytes of `model.onnx`, or of the program's own graph.
        material: head's name to what the bundle holds for it next to the graph.
        sha256: of `bundle.yaml`, which holds every other hash: it identifies the bundle, whichever program.
        program: the name of the one that `graph`, `spec` and `calibration` are of.
        programs: all that `bundle.yaml` lists; `float32` is one also where it is not listed.
        probes: arrays of `probes.safetensors` by name, see `engines.probes`; empty where there are none.
    """

    path: Path
    name: str
    spec: NetworkSpec
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    files: Mapping[str, str]
    graph: bytes = field(repr=False)
    sha256: str = ""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    material: Mapping[str, Material] = field(default_factory=dict, repr=False)
    program: str = FLOAT32
    programs: tuple[Program, ...] = ()
    probes: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: str | Path, program: str = FLOAT32) -> ModelBundle:
        """Loads and verifies the bundle in the directory `path`.

        Args:
            path: of the bundle.
            program: that is to run; all files are verified whichever it is.

        Raises:
            BundleError: it is absent, of another format version, has a missing (but for the weights, see
                `files`), additional pickled, altered or truncated file, or the program's graph does not have
                the inputs and outputs that `bundle.yaml` promises.
            ConfigError: it has no such program; the message lists those that it has.
        """
        path = _own_folder(Path(path).expanduser())
        manifest = _read_manifest(path)
        running = _program(manifest, program)
        _refuse_pickles(path, manifest.files)
        graph_file = running.graph or GRAPH
        listed = dict(manifest.files)
        if not (path / WEIGHTS).exists():  # what an installation leaves out, since no robot trains
            listed.pop(WEIGHTS, None)
        others = {WEIGHTS, GRAPH, *(p.graph for p in manifest.programs)} - {graph_file}
        contents = {
            name: _read_verified(path / name, sha, name not in others)
            for name, sha in listed.items()
        }
        heads = [
            (head, {**settings, **running.heads.get(head.name, {})})
            for head, settings in bound_settings(manifest.network["heads"])
        ]
        calibration = running.calibration or manifest.calibration
        files = {
            head.name: {f: contents[head.key(f)] for f in head.files if head.key(f) in contents}
            for head, _ in heads
        }
        network = dict(manifest.network)
        try:
            network["heads"] = {
                head.name: {**kind_of(head), **head.from_bundle(settings, files[head.name])}
                for head, settings in heads
            }
            spec = NetworkSpec.from_dict(network)
        except ConfigError as error:
            raise BundleError(f"{path / MANIFEST}: {error}") from error
        graph = contents[graph_file]
        if running.graph and SHARED in contents:
            graph += contents[SHARED]  # to protobuf, messages in a row are one
        _check_graph(path / graph_file, graph, spec)
        try:
            material = {
                head.name: Material(head.own(calibration), head.read_files(own, files[head.name]))
                for head, own in spec.bound
            }
        except ConfigError as error:
            raise BundleError(f"{path}: {error}") from error
        return cls(
            path=path,
            name=manifest.name,
            spec=spec,
            training=manifest.training,
            metrics=manifest.metrics,
            files=listed,
            graph=graph,
            sha256=manifest.sha256,
            calibration=calibration,
            material=material,
            program=running.name,
            programs=manifest.programs,
            probes=_probes(path / PROBES, contents[PROBES], spec) if PROBES in contents else {},
        )

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns each head's options as they hold for this model, out of flat settings."""
        return {
            head.name: head.resolve(head.options(given), spec, self.material[head.name])
            for head, spec in self.spec.bound
        }

    @property
    def running(self) -> Program:
        """What `program` names."""
        return next((p for p in self.programs if p.name == self.program), Program(self.program))

    @property
    def cache(self) -> Path:
        """Folder for what an engine builds from this very bundle; it need not exist, and is safe to delete.

        Not in the bundle's own folder: what comes with a bundle could run as code on the GPU, and what was
        built from its files of yesterday would still lie there after they were replaced.
        """
        folder = user_cache() / "bundles" / self.sha256[:32]
        return folder if self.program == FLOAT32 else folder / self.program


@dataclass(frozen=True)
class _Manifest:
    name: str
    network: Mapping[str, Any]
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    calibration: Mapping[str, Any]
    files: Mapping[str, str]
    sha256: str
    programs: tuple[Program, ...]


def check_bundle_name(name: object) -> None:
    """Refuses what is no name of a bundle; what takes long to make one asks before.

    Raises:
        ConfigError: with what a name may have.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"name is {name!r}: a bundle's has letters, digits, '.', '_' and '-', at most 100, and begins "
            "with a letter or digit"
        )


def write_manifest(
    path: Path,
    name: str,
    spec: NetworkSpec,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
    calibration: Mapping[str, Any] | None = None,
    programs: Sequence[Program] = (),
) -> None:
    """Writes `bundle.yaml`, and heads' files that come from the spec, for the files that lie in `path`.

    Args:
        path: the bundle's directory.
        name: of the model.
        spec: of the network, as `float32` runs it.
        training: what it was trained on.
        metrics: what it scored.
        calibration: what was fitted.
        programs: what else it can run, whose graphs lie in `path`; their probes are listed only with them.

    The manifest is written last and moved into place, so an interrupted write leaves no valid bundle.
    """
    check_bundle_name(name)
    network = spec.to_dict()
    owned = []
    for head, settings in spec.bound:
        said, contents = head.to_bundle(settings)
        network["heads"][head.name] = {**kind_of(head), **said}
        for file, content in contents.items():
            (path / head.key(file)).write_bytes(content)
        owned += [head.key(file) for file in head.files]
    listed = [GRAPH, WEIGHTS, *owned, CARD]
    if programs:
        listed += [*(program.graph for program in programs if program.graph), SHARED, PROBES]
    data = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "network": network,
        "training": dict(training),
        "metrics": dict(metrics),
        **({"calibration": dict(calibration)} if calibration else {}),
        **({"programs": [program.to_dict() for program in programs]} if programs else {}),
        "files": {n: file_sha256(path / n) for n in listed if (path / n).is_file()},
    }
    write_whole(path / MANIFEST, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def copy_head_files(bundle: ModelBundle, folder: Path) -> None:
    """Copies what a bundle's heads have besides graph and weights, such as features of known images."""
    for head, _ in bundle.spec.bound:
        for file in head.files:
            if head.key(file) in bundle.files:
                (folder / head.key(file)).write_bytes((bundle.path / head.key(file)).read_bytes())


def model_text(bundle: ModelBundle, program: str = FLOAT32, engine: str = "") -> str:
    """Returns which model it is in a line: name, backbone, heads and the sha256 of the bundle.

    Args:
        bundle: of the model.
        program: that ran; it is named where the bundle has several, and where it is not float32.
        engine: that ran it; named with the program.
    """
    heads = "+".join(bundle.spec.heads)
    words = [bundle.name, bundle.spec.backbone, heads]
    if bundle.programs or program != FLOAT32:
        words += [f"program:{program}", *([f"engine:{engine}"] if engine else [])]
    return " ".join([*words, f"sha256:{bundle.sha256}"])


def answered_topics(path: Path) -> frozenset[str]:
    """Returns the topics of a camera that a bundle's heads answer on, by its manifest: nothing is verified.

    Raises:
        BundleError: there is no bundle, or its manifest is none.
        ConfigError: a head that is not installed.
    """
    heads = bound_settings(_read_manifest(path).network["heads"])
    return frozenset(topic.name for head, _ in heads for topic in head.topics(None))


def _read_manifest(path: Path) -> _Manifest:
    if not path.is_dir():
        raise BundleError(
            f"No model bundle at {str(path)!r}: give a directory that holds {MANIFEST}"
        )
    file = path / MANIFEST
    if not file.is_file():
        found = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise BundleError(
            f"{str(path)!r} is not a model bundle: it has no {MANIFEST} (it holds {found}); "
            "make one with `robot-vision export`"
        )
    if file.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{file} is larger than {MAX_MANIFEST_BYTES} bytes: it is no bundle's manifest"
        )
    raw = file.read_bytes()
    try:
        data = load_yaml(raw)
    except YamlError as error:
        raise BundleError(f"{file} is not valid YAML: {error}") from error
    try:
        # The version is looked at first: a newer format may have keys that this one does not know.
        version = data.get("format_version") if isinstance(data, Mapping) else None
        if version != FORMAT_VERSION or isinstance(version, bool):
            raise ConfigError(
                f"format_version is {version!r}: this robot_vision reads {FORMAT_VERSION}; "
                "export the bundle again, or install the robot_vision that wrote it"
            )
        needed = ("format_version", "name", "network", "files")
        free_form = ("training", "metrics", "calibration")
        fields = check_mapping("bundle", data, needed, (*free_form, "programs"))
        check_bundle_name(fields["name"])
        optional = ("input", "epistemic")
        network = check_mapping("network", fields["network"], ("backbone", "heads"), optional)
        owned = []
        for head, settings in bound_settings(network["heads"]):
            if not isinstance(settings, Mapping):
                raise ConfigError(
                    f"{head.name} is {type(settings).__name__}: it must be a mapping of settings"
                )
            owned += [head.key(file) for file in head.files]
        programs = parse_programs(fields.get("programs"), tuple(map(str, network["heads"])))
        graphs = [program.graph for program in programs if program.graph]
        allowed = (WEIGHTS, *owned, CARD, *graphs, *([SHARED, PROBES] if programs else []))
        files = fields["files"]
        for file in files if isinstance(files, Mapping) else ():
            for kind in registry.BUILT_IN if file not in (GRAPH, *allowed) else ():
                if file in registry.head(kind).files:
                    raise ConfigError(f"files has {file}, but there is no {kind} head")
        files = check_mapping("files", files, (GRAPH, *graphs), allowed)
        free = {key: fields.get(key) or {} for key in free_form}
        for key, value in free.items():
            if not isinstance(value, Mapping):
                raise ConfigError(f"{key} is {type(value).__name__}: it must be a mapping")
    except ConfigError as error:
        raise BundleError(f"{file}: {error}") from error
    digest = hashlib.sha256(raw).hexdigest()
    return _Manifest(
        fields["name"],
        network,
        free["training"],
        free["metrics"],
        free["calibration"],
        files,
        digest,
        programs,
    )


def _own_folder(path: Path) -> Path:
    """Returns where a bundle's files lie: `colcon build --symlink-install` links each file of a folder."""
    if not (path / MANIFEST).is_symlink():
        return path
    real = Path(os.path.realpath(path / MANIFEST))
    return real.parent if real.name == MANIFEST and real.is_file() else path


def _program(manifest: _Manifest, name: str) -> Program:
    """Returns the program of this name.

    Raises:
        ConfigError: there is none.
    """
    programs = {p.name: p for p in (Program(FLOAT32), *manifest.programs)}
    if name not in programs:
        raise ConfigError(unknown(f"program of {manifest.name}", name, programs))
    return programs[name]


def _refuse_pickles(path: Path, listed: Collection[str]) -> None:
    # An .npy file may hold pickled objects: those of heads are read so that these are refused.
    names = [p for p in path.iterdir() if p.suffix != ".npy" or p.name not in listed]
    bad = sorted(p.name for p in names if p.suffix.lower() in _PICKLES)
    if bad:
        raise BundleError(
            f"{path / bad[0]} may be a pickle, which runs code when it is read: remove it; "
            f"a bundle's weights are {WEIGHTS}"
        )


def _read_verified(file: Path, sha256: object, wanted: bool) -> bytes:
    if file.is_symlink():
        raise BundleError(
            f"{file} is a link: a bundle's files are its own; copy it with what links point to (cp -rL)"
        )
    if not file.is_file():
        raise BundleError(f"{file} is missing: {MANIFEST} lists it; copy the whole bundle again")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise BundleError(
            f"{file} has {file.stat().st_size} bytes: at most {MAX_FILE_BYTES} are allowed"
        )
    # The weights and the graphs of other programs are only hashed, in blocks: the torch engine alone needs
    # weights, and reads them itself.
    content = file.read_bytes() if wanted else b""
    actual = hashlib.sha256(content).hexdigest() if wanted else file_sha256(file)
    if actual != sha256:
        raise BundleError(
            f"{file} ({file.stat().st_size} bytes) has sha256 {actual[:12]}... and not "
            f"{str(sha256)[:12]}...: it was altered or cut off; copy or export the bundle again"
        )
    return content


def _check_graph(file: Path, graph: bytes, spec: NetworkSpec) -> None:
    actual = read_signature(graph, str(file))
    problem = actual.difference(GraphSignature.of(spec))
    if problem:
        raise BundleError(f"{file} does not fit {MANIFEST}: {problem}; export the bundle again")


def _probes(file: Path, content: bytes, spec: NetworkSpec) -> dict[str, NDArray[Any]]:
    try:
        found = load_tensors(content)
    except ValueError as error:
        raise BundleError(f"{file} cannot be read: {error}; copy the whole bundle again") from error
    images, size = found.get(PROBE_IMAGES), (spec.input.height, spec.input.width, 3)
    if images is None or images.dtype != np.uint8 or images.shape[1:] != size or not len(images):
        raise BundleError(
            f"{file} has no {PROBE_IMAGES} of the network's input, uint8 (N, H, W, 3)"
        )
    return found


def check_target(out: Path, force: bool | None = None) -> None:
    """Refuses a directory that a new bundle may not take.

    Args:
        out: the bundle's directory.
        force: replace a bundle that is there; None where the command cannot.

    Raises:
        BundleError: it is there, and is not to be replaced or is no bundle.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        remedy = "give" if force is None else "use --force to replace it, or"
        raise BundleError(f"{out} exists already: {remedy} another directory")
    # Only what was a bundle is deleted: `--out ~ --force` must not empty a home directory.
    if (
        out.is_symlink()
        or not out.is_dir()
        or (any(out.iterdir()) and not (out / MANIFEST).is_file())
    ):
        raise BundleError(
            f"{out} is not a model bundle, so it is not replaced: use another directory"
        )
