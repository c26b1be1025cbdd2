"""docs/security.md is true: limits on what comes from outside, no code in data, no way out of a bundle."""

from __future__ import annotations

import ast
import bz2
import io
import json
import os
import re
import resource
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.bundle import GRAPH, MANIFEST, ModelBundle
from robot_vision.errors import BundleError, ConfigError, ImageError, RobotVisionError, SourceError
from robot_vision.files.arrays import load_npy, load_npz
from robot_vision.files.plain_yaml import MAX_BYTES, MAX_DEPTH, YamlError, load_yaml
from robot_vision.files.whole import file_sha256
from robot_vision.images.decode import to_rgb
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.recordings.base import CompressedImage, RawImage
from robot_vision.recordings.unpacking import unpack

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "robot_vision").rglob("*.py"))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# Code in data


def _calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [(ast.unparse(call.func), call) for call in calls]


def _keyword(call: ast.Call, name: str) -> object:
    found = [k.value for k in call.keywords if k.arg == name]
    return found[0].value if found and isinstance(found[0], ast.Constant) else None


@pytest.mark.slow
def test_no_source_reads_pickles_objects_or_code() -> None:
    forbidden = {
        "eval", "exec", "pickle.load", "pickle.loads", "marshal.loads", "yaml.load", "yaml.unsafe_load",
        "yaml.full_load", "shelve.open", "joblib.load", "os.system", "np.fromfile",
    }  # fmt: skip
    bad = []
    for path in SOURCES:
        for name, call in _calls(ast.parse(path.read_text())):
            wrong = name in forbidden
            wrong |= name == "torch.load" and _keyword(call, "weights_only") is not True
            wrong |= name == "np.load" and _keyword(call, "allow_pickle") is not False
            wrong |= name.startswith("subprocess.") and _keyword(call, "shell") is True
            wrong |= name.endswith((".extractall", ".unpack_archive"))
            if wrong:
                bad.append(f"{path.relative_to(ROOT)}:{call.lineno}: {name}")
    assert not bad


class _Mark:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_in_an_array_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    array = np.array([_Mark(mark)], object)
    single, several = io.BytesIO(), io.BytesIO()
    np.save(single, array, allow_pickle=True)
    np.savez(several, a=array)
    np.load(io.BytesIO(single.getvalue()), allow_pickle=True)
    assert mark.is_file(), "this pickle runs code where it is allowed to"
    mark.unlink()
    with pytest.raises(ValueError, match="may run code"):
        load_npy(single.getvalue())
    with pytest.raises(ValueError, match="may run code"):
        load_npz(several.getvalue())
    assert not mark.exists()


def test_weights_with_code_are_not_run(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from robot_vision.backbones import pretrained

    mark = tmp_path / "was-run"
    torch.save({"a": _Mark(mark)}, tmp_path / "weights.pth")
    with pytest.raises(BundleError, match="can be read safely") as refused:
        pretrained.read_file(tmp_path / "weights.pth")
    assert "weights_only" not in str(refused.value)  # torch's advice is to run it
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world, this is no pickle",
        b"<!DOCTYPE html><html>404</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        b"PK\x03\x04" + bytes(60),
        b"\x80\x04\x95\x00",
        bytes(range(256)),
        b"(lp0\nI1\na.",
        b"\x80\x02c",
    ],
)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    pytest.importorskip("torch")
    from robot_vision.backbones import pretrained

    (tmp_path / name).write_bytes(content)
    try:
        found = pretrained.read_file(tmp_path / name)
    except BundleError as error:
        assert "can be read safely" in str(error) and "\n" not in str(error)
    else:
        assert found == [1]  # a list, which callers refuse


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system [touch /tmp/was-run]",
        "!!python/name:os.system",
        "a: !!python/tuple [1]",
    ],
)
def test_yaml_makes_no_objects(text: str) -> None:
    with pytest.raises(YamlError, match="could not determine a constructor"):
        load_yaml(text)


# YAML that is larger than it looks


def _laughs(levels: int) -> str:
    lines = ["l0: &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    for i in range(1, levels):
        lines.append(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_laughs(9), "stand for more than"),
        (
            "\n".join(
                f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9) if i else ''}], k: 1}}"
                for i in range(9)
            ),
            "stand for more than",
        ),
        ("\n".join(f"a{i}: &a{i} [{f'*a{i - 1}' if i else 1}]" for i in range(900)), "nested"),
        ("a: &a [*a]", "what it is part of"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "nested more than"),
        ("[" * 100_000, "YAML|depth|recursion|nested|parsing"),
        ("a" * (MAX_BYTES + 1), "at most"),
        ("2020-99-99", "month"),
    ],
    ids=["laughs", "merges", "chain", "loop", "deep", "deeper", "long", "date"],
)
def test_yaml_bombs_are_refused_at_once(text: str, message: str) -> None:
    start, before_mb = time.process_time(), _peak_mb()
    with pytest.raises(YamlError, match=message):
        load_yaml(text)
    assert time.process_time() - start < 5 and _peak_mb() < before_mb + 200


def test_yaml_with_a_few_aliases_is_read_as_pyyaml_reads_it() -> None:
    text = "a: &a {x: 1, y: [2, .5, null, yes]}\nb: {<<: *a, x: 3}\nc: [*a, *a]\nd: 2020-01-02\n"
    assert load_yaml(text) == yaml.safe_load(text)
    assert load_yaml("") is None


def test_yaml_bombs_in_every_file_that_is_read_are_errors_of_one_line(tmp_path: Path) -> None:
    from robot_vision.filters.class_file import read_class_file
    from robot_vision.training.config_file import read_config
    from robot_vision.truth.bag_labels import read_spans

    file = tmp_path / "bomb.yaml"
    file.write_text(_laughs(9))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / MANIFEST).write_text(_laughs(9))
    readers = (
        (ConfigError, lambda: read_config(file)),
        (ConfigError, lambda: read_class_file(file, ("a", "b"))),
        (SourceError, lambda: read_spans(file)),
        (BundleError, lambda: ModelBundle.load(tmp_path / "bundle")),
    )
    for kind, read in readers:
        with pytest.raises(kind) as caught:
            read()
        assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_error_messages_neither_fill_a_log_nor_steer_a_terminal() -> None:
    message = str(RobotVisionError("x" * 1_000_000 + "\x1b[2J\r\x9b the end"))
    assert len(message) < 5000 and message.endswith("\\x1b[2J\\x0d\\x9b the end")


# Images that are larger than they look


def _png(width: int, height: int, data: bytes = b"", claimed: int | None = None) -> bytes:
    def chunk(kind: bytes, content: bytes, size: int | None = None) -> bytes:
        length = len(content) if size is None else size
        return (
            struct.pack(">I", length)
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", data, claimed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


def test_compressed_images_take_no_more_than_their_limit() -> None:
    wide = zlib.compress(bytes(1 << 20))
    jpeg = (
        b"\xff\xd8\xff\xc0\x00\x11\x08" + struct.pack(">HH", 16384, 16384) + bytes(64) + b"\xff\xd9"
    )
    bombs = {
        "size": [_png(16384, 16384, wide), _png(65535, 1, wide), _png(0, 4, wide), jpeg],
        "corrupt": [_png(8, 8, wide, claimed=3_000_000_000), _png(8, 8, wide, claimed=0xFFFFFFFF)],
    }
    before_mb = _peak_mb()
    for reason, images in bombs.items():
        for data in images:
            with pytest.raises(ImageError) as caught:
                to_rgb(CompressedImage("jpeg", data))
            assert caught.value.reason == reason
    assert _peak_mb() < before_mb + 100


def test_raw_images_whose_size_lies_take_no_memory() -> None:
    before_mb = _peak_mb()
    for height, width, step in ((1 << 31, 1 << 31, 1), (16384, 16384, 49152), (2, 1, 1 << 32)):
        with pytest.raises(ImageError):
            to_rgb(RawImage(height, width, "rgb8", step, bytes(100)))
    assert _peak_mb() < before_mb + 50


# Bundles


def _reseal(bundle: Path) -> None:
    """Makes the hashes right, as anyone who made the bundle can."""
    manifest = yaml.safe_load((bundle / MANIFEST).read_text())
    manifest["files"] = {name: file_sha256(bundle / name) for name in manifest["files"]}
    (bundle / MANIFEST).write_text(yaml.safe_dump(manifest, sort_keys=False))


def test_a_graph_with_weights_outside_of_the_bundle_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    bundle = make_tiny_bundle(tmp_path / "bundle")
    model = onnx.load(str(bundle / GRAPH))
    tensor = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    content = tensor.raw_data
    for place in ("../secret", str(tmp_path / "secret"), "secret"):
        (tmp_path / "secret").write_bytes(content)
        (bundle / "secret").write_bytes(content)
        tensor.ClearField("raw_data")
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", place), ("offset", "0"), ("length", str(len(content)))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        (bundle / GRAPH).write_bytes(model.SerializeToString())
        _reseal(bundle)
        with pytest.raises(BundleError, match="no ONNX graph that can be loaded"):
            ModelBundle.load(bundle)


def test_a_bundle_cannot_name_or_link_files_elsewhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a\nb\nc\n")
    for name in ("../secret", str(secret)):
        bundle = make_tiny_bundle(tmp_path / f"named{len(name)}")
        manifest = yaml.safe_load((bundle / MANIFEST).read_text())
        manifest["files"][name] = file_sha256(secret)
        (bundle / MANIFEST).write_text(yaml.safe_dump(manifest))
        with pytest.raises(BundleError, match="Unknown key of files"):
            ModelBundle.load(bundle)
    linked = make_tiny_bundle(tmp_path / "linked")
    (linked / "labels.txt").unlink()
    (linked / "labels.txt").symlink_to(secret)
    _reseal(linked)
    with pytest.raises(BundleError, match=r"labels\.txt is a link"):
        ModelBundle.load(linked)


def test_every_byte_of_a_bundle_is_hashed(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    graph = bytearray((bundle / GRAPH).read_bytes())
    graph[len(graph) // 2] ^= 1
    (bundle / GRAPH).write_bytes(bytes(graph))
    with pytest.raises(BundleError, match="altered"):
        ModelBundle.load(bundle)


# Bags


@pytest.mark.slow
def test_chunks_of_bags_unpack_to_no_more_than_their_limit() -> None:
    import lz4.frame

    zeros = bytes(1 << 26)
    packed = {"bz2": bz2.compress(zeros), "lz4": lz4.frame.compress(zeros)}
    before_mb = _peak_mb()
    for name, data in packed.items():
        with pytest.raises(ValueError, match="bomb"):
            unpack(name, data, 1 << 20)
        assert unpack(name, data) == zeros
    assert _peak_mb() < before_mb + 400


@pytest.mark.parametrize("packing", ["lz4", "zstd"])
def test_chunk_of_a_bag_unpacks_to_no_more_than_it_says(tmp_path: Path, packing: str) -> None:
    import lz4.frame

    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    packed = {"lz4": lz4.frame.compress, "zstd": zstd.compress}[packing](bytes(1 << 26))
    name = packing.encode()
    chunk = struct.pack("<QQQII", 1, 1, 999, 0, len(name)) + name
    chunk += struct.pack("<Q", len(packed)) + packed
    file = tmp_path / "bomb.mcap"
    magic = b"\x89MCAP0\r\n"
    file.write_bytes(magic + struct.pack("<BQ", 6, len(chunk)) + chunk + magic)
    before_mb = _peak_mb()
    with pytest.raises(SourceError, match="bomb.mcap cannot be read as a bag.*more than 999"):
        BagFile(file)
    assert _peak_mb() < before_mb + 40


def test_a_bag_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    from robot_vision.recordings.bag import BagSource
    from robot_vision.recordings.writing import RecordingWriter

    for name in ("secret", "bag"):
        with RecordingWriter(tmp_path / name) as writer:
            writer.image(f"/{name}/image", 5, "camera", np.zeros((2, 2, 3), np.uint8))
    file = tmp_path / "bag" / "metadata.yaml"
    text = file.read_text()
    assert "bag.db3" in text
    for elsewhere in ("../secret/secret.db3", str(tmp_path / "secret" / "secret.db3")):
        file.write_text(text.replace("bag.db3", elsewhere))
        try:
            frames = [f.topic for f in BagSource(tmp_path / "bag")]
        except SourceError:
            frames = []
        assert "/secret/image" not in frames


# Arrays and maps


def test_arrays_take_no_more_than_is_there() -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}
    )
    lies = buffer.getvalue() + bytes(64)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(1 << 26))
    before_mb = _peak_mb()
    with pytest.raises(ValueError, match="it is damaged"):
        load_npy(lies)
    with pytest.raises(ValueError, match="at most"):
        load_npz(bomb.getvalue(), 1 << 20)
    assert _peak_mb() < before_mb + 100


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_reads_them(order: Any, tmp_path: Path) -> None:
    array = np.asarray(np.arange(12, dtype=np.float32).reshape(3, 4), order=order)
    np.savez_compressed(tmp_path / "a.npz", a=array, text=np.array("hällo"), none=np.zeros((0, 3)))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as expected:
        read = load_npz(tmp_path / "a.npz")
        assert set(read) == set(expected.files)
        for name in expected.files:
            np.testing.assert_array_equal(read[name], expected[name])
            assert read[name].dtype == expected[name].dtype


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE TRIGGER t AFTER INSERT ON keyframe BEGIN DELETE FROM map; END", "has a trigger"),
        ("CREATE VIEW v AS SELECT 1", "has a view"),
        ("CREATE VIRTUAL TABLE v USING fts5(a)", "has a virtual table"),
        ("UPDATE map SET dimension = 1000000000", "its description"),
        ("UPDATE map SET descriptor_dtype = 'object'", "its description"),
        ("UPDATE map SET bundle_name = hex(zeroblob(100000))", "its description"),
    ],
)
def test_a_map_with_code_or_absurd_sizes_is_refused(
    statement: str, message: str, tmp_path: Path
) -> None:
    import sqlite3

    from robot_vision.places.map.base import MapError
    from robot_vision.places.map.opening import create_map, open_map

    path = tmp_path / "a.map"
    create_map(path, bundle_name="b", bundle_sha256="ab" * 32, dimension=4).close()
    database = sqlite3.connect(path)
    database.execute(statement)
    database.commit()
    database.close()
    with pytest.raises(MapError, match=message):
        open_map(path, "read")


@pytest.mark.slow
def test_an_index_cache_that_another_account_made_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    from place_maps import keyframe, make_map

    from robot_vision.places.index import index_cache
    from robot_vision.places.index.index import PlaceIndex
    from robot_vision.places.index.options import IndexOptions

    options = IndexOptions(exact_numbers=4)
    with make_map(tmp_path / "a.map", dimension=4) as places:
        places.add_many(keyframe(i, dimension=4) for i in range(7600))
        index = PlaceIndex(4, options)
        index.add(*places.descriptors())
        index.wait()
        index.revision = places.revision
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
        assert index_cache.save(index, places.info, *places.checksums())
        key = tmp_path / "mine" / "robot_vision" / "index.key"
        assert key.stat().st_mode & 0o077 == 0
        path = index_cache.cache_path(places.info)
        assert index_cache._load(path, places, options) is not None
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
        assert index_cache._load(path, places, options) is None


# Messages


def test_a_frame_id_that_is_no_name_is_refused() -> None:
    from robot_vision.messages import cdr
    from robot_vision.messages.serialized import read_image

    message = RawImage(1, 1, "mono8", 1, b"\0")
    assert read_image(cdr.image(1, "x" * 4000, message)).header.frame_id == "x" * 4000
    with pytest.raises(ImageError, match="no name"):
        read_image(cdr.image(1, "x" * 5000, message))


# Supply chain


def test_every_dependency_is_pinned_and_the_audit_reads_all_pins() -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import audit
    finally:
        sys.path.pop(0)
    files = sorted((ROOT / "constraints").glob("py3.*.txt"))
    assert len(files) == 5
    for file in files:
        lines = [x for x in file.read_text().splitlines() if x and not x.startswith("#")]
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^=\s]+", line) for line in lines), file
    pins = audit.pinned(files)
    assert f"numpy=={np.__version__}" in pins or len(pins) > 100
    batches = audit._without_repeats(pins)
    assert sorted(pin for batch in batches for pin in batch) == pins
    assert all(len({pin.partition("==")[0] for pin in b}) == len(b) for b in batches)
    assert json.dumps(audit.ignored(ROOT / "absent")) == "{}"


@pytest.mark.slow
def test_nothing_is_reported_to_the_makers_of_the_engines(tmp_path):
    """ONNX Runtime's official builds keep an identifier and a queue of events in the home, and send them."""
    code = (
        "from robot_vision.pipeline import Pipeline; import numpy as np; "
        "Pipeline.load('models/demo', 'onnx', 'cpu')([np.zeros((9, 9, 3), np.uint8)])"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    environment.pop("XDG_CACHE_HOME", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    own = tmp_path / ".cache" / "robot_vision"  # where it is remembered which program was fastest
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and not p.is_relative_to(own)]
