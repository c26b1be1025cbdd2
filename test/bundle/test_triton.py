"""A bundle for Triton: the configuration is read by protobuf and compared with the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.triton import CONFIG, MAX_BATCH, write_model
from robot_vision.cli import main
from robot_vision.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]

# Of Triton's model_config.proto (tritonclient 2.73.0): message, fields with number, type and whether
# repeated; types in capitals are the values of DataType.
TYPES = (
    "TYPE_INVALID TYPE_BOOL TYPE_UINT8 TYPE_UINT16 TYPE_UINT32 TYPE_UINT64 TYPE_INT8 TYPE_INT16 TYPE_INT32 "
    "TYPE_INT64 TYPE_FP16 TYPE_FP32 TYPE_FP64 TYPE_STRING TYPE_BF16"
).split()
MESSAGES: dict[str, list[tuple[str, int, str, bool]]] = {
    "ModelTensorReshape": [("shape", 1, "int64", True)],
    "ModelInput": [
        ("name", 1, "string", False),
        ("data_type", 2, "DataType", False),
        ("dims", 4, "int64", True),
        ("reshape", 5, "ModelTensorReshape", False),
    ],
    "ModelOutput": [
        ("name", 1, "string", False),
        ("data_type", 2, "DataType", False),
        ("dims", 3, "int64", True),
        ("label_filename", 4, "string", False),
        ("reshape", 5, "ModelTensorReshape", False),
    ],
    "ModelDynamicBatching": [("preferred_batch_size", 1, "int32", True)],
    "ModelParameter": [("string_value", 1, "string", False)],
    "ParametersEntry": [("key", 1, "string", False), ("value", 2, "ModelParameter", False)],
    "ModelConfig": [
        ("name", 1, "string", False),
        ("max_batch_size", 4, "int32", False),
        ("input", 5, "ModelInput", True),
        ("output", 6, "ModelOutput", True),
        ("default_model_filename", 8, "string", False),
        ("dynamic_batching", 11, "ModelDynamicBatching", False),
        ("parameters", 14, "ParametersEntry", True),
        ("backend", 17, "string", False),
    ],
}
OF_ONNX = {
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.INT64: "TYPE_INT64",
    onnx.TensorProto.INT32: "TYPE_INT32",
    onnx.TensorProto.BOOL: "TYPE_BOOL",
}


def read(path: Path) -> Any:
    """Reads a configuration strictly: protobuf refuses what is no field and no value of an enumeration."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    field = descriptor_pb2.FieldDescriptorProto
    plain = {"string": field.TYPE_STRING, "int32": field.TYPE_INT32, "int64": field.TYPE_INT64}
    file = descriptor_pb2.FileDescriptorProto(name="m.proto", package="t", syntax="proto3")
    types = file.enum_type.add(name="DataType")
    for number, name in enumerate(TYPES):
        types.value.add(name=name, number=number)
    for message, fields in MESSAGES.items():
        made = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            added = made.field.add(name=name, number=number, label=label)
            if kind in plain:
                added.type = plain[kind]
            else:
                added.type = field.TYPE_ENUM if kind == "DataType" else field.TYPE_MESSAGE
                added.type_name = f".t.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.ModelConfig"))()
    return text_format.Parse(path.read_text(), config)


def tensors(values: Any) -> dict[str, tuple[str, list[int]]]:
    """Returns type and shape of a graph's tensors, -1 for an axis without a size."""
    return {
        value.name: (
            OF_ONNX[value.type.tensor_type.elem_type],
            [d.dim_value or -1 for d in value.type.tensor_type.shape.dim],
        )
        for value in values
    }


def served(values: Any) -> dict[str, tuple[str, list[int]]]:
    """Returns type and shape that Triton gives the backend: a reshape's where there is one, and the batch."""
    return {
        v.name: (TYPES[v.data_type], [-1, *(v.reshape.shape if v.HasField("reshape") else v.dims)])
        for v in values
    }


def models(tmp_path: Path) -> list[Path]:
    return [ROOT / "models" / "demo", make_tiny_bundle(tmp_path / "tiny")]


def test_names_types_and_shapes_are_those_of_the_graph(tmp_path: Path) -> None:
    for path in models(tmp_path):
        bundle = ModelBundle.load(path)
        folder = write_model(bundle, tmp_path / "repository", bundle.name)
        config = read(folder / CONFIG)
        graph = onnx.load(str(folder / "1" / config.default_model_filename)).graph
        assert served(config.input) == tensors(graph.input)
        assert served(config.output) == tensors(graph.output)
        assert all(d > 0 for v in (*config.input, *config.output) for d in v.dims)
        assert config.name == folder.name and config.backend == "onnxruntime"
        assert config.max_batch_size == MAX_BATCH and config.HasField("dynamic_batching")
        values = {p.key: p.value.string_value for p in config.parameters}
        assert values == {"bundle": bundle.name, "bundle_sha256": bundle.sha256}


def test_the_served_graph_answers_a_full_batch(tmp_path: Path) -> None:
    """What Triton's ONNX Runtime backend does with a batch of the configured size."""
    import onnxruntime

    bundle = ModelBundle.load(make_tiny_bundle(tmp_path / "tiny"))
    folder = write_model(bundle, tmp_path / "repository", "tiny")
    config = read(folder / CONFIG)
    session = onnxruntime.InferenceSession(
        str(folder / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    batch = np.zeros((MAX_BATCH, *config.input[0].dims), np.uint8)
    answers = session.run([o.name for o in config.output], {config.input[0].name: batch})
    for output, answer in zip(config.output, answers, strict=True):
        dims = output.reshape.shape if output.HasField("reshape") else output.dims
        assert answer.shape == (MAX_BATCH, *dims), output.name


def test_export_writes_it_and_replaces_only_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_tiny_bundle(tmp_path / "tiny")
    words = ["export", "--triton", str(model), "--out", str(tmp_path / "models")]
    assert main(words) == 0
    assert "images: uint8 RGB, N x 32 x 48 x 3" in capsys.readouterr().out
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0
    assert main([*words, "--name", "eyes"]) == 0
    assert read(tmp_path / "models" / "eyes" / CONFIG).name == "eyes"
    (tmp_path / "models" / "photos").mkdir()
    assert main([*words, "--name", "photos", "--force"]) == 2
    assert "is not replaced" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no name of a model"):
        write_model(ModelBundle.load(model), tmp_path, "../up")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--input", "64x64"], "--input has no effect with --triton"),
        (["--heads", "pose", "--resize", "crop"], "--resize, --heads has no effect with --triton"),
        (["--monte-carlo", "8"], "--monte-carlo has no effect with --triton"),
    ],
)
def test_options_of_other_exports_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], why: str
) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    out = tmp_path / "models"
    assert main(["export", "--triton", str(bundle), "--out", str(out), *words]) == 2
    assert why in capsys.readouterr().err and not out.exists()


def test_a_repository_that_is_a_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, file = make_tiny_bundle(tmp_path / "tiny"), tmp_path / "file"
    file.touch()
    assert main(["export", "--triton", str(bundle), "--out", str(file)]) == 2
    assert f"--out {file} cannot be made" in capsys.readouterr().err
