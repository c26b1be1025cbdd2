"""A model bundle: one directory that is everything a robot needs of a network.

    bundle.yaml          format version, name, network and heads, training, scores, sha256 of every file
    model.onnx           one graph: uint8 RGB (N, H, W, 3) in, final values out
    weights.safetensors  the same weights, to train on (only the torch engine reads them)
    labels.txt           one label a line, when there is a classifier
    open_set.npy         features of known images, where the known score compares with them
    README.md            the model card

Loading checks all of it. The graph's bytes are hashed and handed to the engine from memory, so what was
verified is what runs, and a graph that points at files outside itself cannot be run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from robot_vision.bundle.signature import GraphSignature, read_signature
from robot_vision.contract.spec import FEATURE_SCORES, NetworkSpec
from robot_vision.errors import BundleError, ConfigError
from robot_vision.files.arrays import load_npy
from robot_vision.files.cache_folder import user_cache
from robot_vision.files.plain_yaml import YamlError, load_yaml
from robot_vision.files.whole import file_sha256, write_whole
from robot_vision.settings.mappings import check_mapping

FORMAT_VERSION = 1
MANIFEST = "bundle.yaml"
GRAPH = "model.onnx"
WEIGHTS = "weights.safetensors"
LABELS = "labels.txt"
CARD = "README.md"
REFERENCES = "open_set.npy"
FILES = (GRAPH, WEIGHTS, LABELS, REFERENCES, CARD)
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 2 << 30  # protobuf, hence ONNX without external data, ends at 2 GiB
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".npy", ".npz")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class ModelBundle:
    """A bundle that was loaded and verified.

    Attributes:
        path: its directory.
        name: the model's name.
        spec: backbone, input and heads.
        training: what it was trained on (free form).
        metrics: what it scored (free form).
        calibration: what `robot-vision calibrate` fitted, on what, and what it changed (free form, but for
            `open_set.known_scores` and `place.probability`, which consumers read).
        files: name of each file to its sha256, as hexadecimal digits.
        graph: the bytes of `model.onnx`.
        references: float32 (R, C), what `heads.classifier.known_scores` compares features with; None for a
            score of logits.
        sha256: of `bundle.yaml`, which holds every other hash: it identifies the bundle.
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
    references: NDArray[np.float32] | None = field(default=None, repr=False)

    @classmethod
    def load(cls, path: str | Path) -> ModelBundle:
        """Loads and verifies the bundle in the directory `path`.

        Raises:
            BundleError: it is absent, of another format version, has a missing, additional pickled,
                altered or truncated file, or its graph does not have the inputs and outputs that
                `bundle.yaml` promises.
        """
        path = Path(path).expanduser()
        manifest = _read_manifest(path)
        _refuse_pickles(path)
        contents = {name: _read_verified(path / name, sha) for name, sha in manifest.files.items()}
        network = dict(manifest.network)
        if LABELS in contents:
            _add_labels(network, contents[LABELS], path)
        try:
            spec = NetworkSpec.from_dict(network)
        except ConfigError as error:
            raise BundleError(f"{path / MANIFEST}: {error}") from error
        graph = contents[GRAPH]
        _check_graph(path / GRAPH, graph, spec)
        references = _references(path / REFERENCES, contents.get(REFERENCES), spec)
        return cls(
            path=path,
            name=manifest.name,
            spec=spec,
            training=manifest.training,
            metrics=manifest.metrics,
            files=dict(manifest.files),
            graph=graph,
            sha256=manifest.sha256,
            calibration=manifest.calibration,
            references=references,
        )

    @property
    def cache(self) -> Path:
        """Folder for what an engine builds from this very bundle; it need not exist, and is safe to delete.

        Not in the bundle's own folder: what comes with a bundle could run as code on the GPU, and what was
        built from its files of yesterday would still lie there after they were replaced.
        """
        return user_cache() / "bundles" / self.sha256[:32]


@dataclass(frozen=True)
class _Manifest:
    name: str
    network: Mapping[str, Any]
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    calibration: Mapping[str, Any]
    files: Mapping[str, str]
    sha256: str


def write_manifest(
    path: Path,
    name: str,
    spec: NetworkSpec,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
    calibration: Mapping[str, Any] | None = None,
) -> None:
    """Writes `labels.txt` and `bundle.yaml` for the other files that already lie in `path`.

    The manifest is written last and moved into place, so an interrupted write leaves no valid bundle.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"Bundle name {name!r}: use letters, digits, '.', '_' and '-', at most 100"
        )
    network = spec.to_dict()
    if spec.classifier:
        (path / LABELS).write_text("\n".join(spec.classifier.labels) + "\n", encoding="utf-8")
        del network["heads"]["classifier"]["labels"]
    data = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "network": network,
        "training": dict(training),
        "metrics": dict(metrics),
        **({"calibration": dict(calibration)} if calibration else {}),
        "files": {n: file_sha256(path / n) for n in FILES if (path / n).is_file()},
    }
    write_whole(path / MANIFEST, yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def model_text(bundle: ModelBundle) -> str:
    """Returns which model it is in a line: name, backbone, heads and the sha256 of the bundle."""
    heads = "+".join(bundle.spec.heads)
    return f"{bundle.name} {bundle.spec.backbone} {heads} sha256:{bundle.sha256}"


def set_unknown_threshold(spec: NetworkSpec, threshold: float | None) -> NetworkSpec:
    """Returns the spec with another open-set threshold; the graph does not depend on it."""
    assert spec.classifier is not None
    return replace(spec, classifier=replace(spec.classifier, unknown_threshold=threshold))


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
        fields = check_mapping("bundle", data, needed, free_form)
        if not isinstance(fields["name"], str) or not _NAME.fullmatch(fields["name"]):
            raise ConfigError(f"name is {fields['name']!r}: use letters, digits, '.', '_' and '-'")
        files = check_mapping("files", fields["files"], (GRAPH,), FILES[1:])
        optional = ("input", "epistemic")
        network = check_mapping("network", fields["network"], ("backbone", "heads"), optional)
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
    )


def _refuse_pickles(path: Path) -> None:
    # An .npy file may hold pickled objects: the one of the format is read so that these are refused.
    names = [p for p in path.iterdir() if p.name != REFERENCES]
    bad = sorted(p.name for p in names if p.suffix.lower() in _PICKLES)
    if bad:
        raise BundleError(
            f"{path / bad[0]} may be a pickle, which runs code when it is read: remove it; "
            f"a bundle's weights are {WEIGHTS}"
        )


def _read_verified(file: Path, sha256: object) -> bytes:
    if not file.is_file() or file.is_symlink():
        raise BundleError(f"{file} is missing: {MANIFEST} lists it; copy the whole bundle again")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise BundleError(
            f"{file} has {file.stat().st_size} bytes: at most {MAX_FILE_BYTES} are allowed"
        )
    # Weights are only hashed, in blocks: the torch engine alone needs them, and reads them itself.
    content = b"" if file.name == WEIGHTS else file.read_bytes()
    actual = file_sha256(file) if file.name == WEIGHTS else hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise BundleError(
            f"{file} ({file.stat().st_size} bytes) has sha256 {actual[:12]}... and not "
            f"{str(sha256)[:12]}...: it was altered or cut off; copy or export the bundle again"
        )
    return content


def _add_labels(network: dict[str, Any], content: bytes, path: Path) -> None:
    heads = network.get("heads")
    if not isinstance(heads, Mapping) or not isinstance(heads.get("classifier"), Mapping):
        raise BundleError(f"{path / LABELS} exists, but {MANIFEST} has no classifier head")
    try:
        labels = content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BundleError(f"{path / LABELS} is not UTF-8: {error}") from error
    network["heads"] = {**heads, "classifier": {**heads["classifier"], "labels": labels}}


def _references(file: Path, content: bytes | None, spec: NetworkSpec) -> NDArray[np.float32] | None:
    """Reads what features are compared with, and checks that it is there where it is needed."""
    classifier = spec.classifier
    wanted = classifier is not None and classifier.score in FEATURE_SCORES
    if content is None:
        if wanted and classifier is not None:
            raise BundleError(
                f"{file} is missing: the known score {classifier.score!r} compares with it; make it with "
                "`robot-vision calibrate`, or use a score of logits"
            )
        return None
    if not wanted or classifier is None:
        raise BundleError(f"{file} exists, but {MANIFEST} has no score that compares features")
    try:
        array = load_npy(content)
    except ValueError as error:
        raise BundleError(f"{file} cannot be read as an array of numbers: {error}") from error
    if array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != classifier.feature_size:
        raise BundleError(
            f"{file} holds {array.dtype} {array.shape}: it must be float32 (R, {classifier.feature_size})"
        )
    return np.asarray(array)


def _check_graph(file: Path, graph: bytes, spec: NetworkSpec) -> None:
    actual = read_signature(graph, str(file))
    problem = actual.difference(GraphSignature.of(spec))
    if problem:
        raise BundleError(f"{file} does not fit {MANIFEST}: {problem}; export the bundle again")


def check_target(out: Path, force: bool) -> None:
    """Refuses a directory that a new bundle may not take.

    Args:
        out: the bundle's directory.
        force: replace a bundle that is there.

    Raises:
        BundleError: it is there, and is not to be replaced or is no bundle.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        raise BundleError(f"{out} exists already: use --force to replace it, or another directory")
    # Only what was a bundle is deleted: `--out ~ --force` must not empty a home directory.
    if (
        out.is_symlink()
        or not out.is_dir()
        or (any(out.iterdir()) and not (out / MANIFEST).is_file())
    ):
        raise BundleError(
            f"{out} is not a model bundle, so it is not replaced: use another directory"
        )
