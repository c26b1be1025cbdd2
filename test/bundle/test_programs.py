"""Programs: several graphs in one bundle, each verified, each with the settings that were fitted for it."""

import copy

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper
from tiny_bundle import expected_colour, make_tiny_bundle, two_classifiers

from robot_vision.bundle.bundle import GRAPH, ModelBundle, write_manifest
from robot_vision.bundle.programs import Certificate, Program, parse_programs
from robot_vision.engines import create_engine
from robot_vision.errors import BundleError, ConfigError
from robot_vision.files.whole import file_sha256

HEADS = ("classifier", "pose", "place")
CERTIFICATE = Certificate(
    engine="onnx",
    engine_version="1.23",
    device="cpu",
    instructions="avx2",
    images={"count": 400, "sha256": "ab", "blocks": 12, "data": "image_folder lights"},
    versions={"robot_vision": "0.1.0"},
    heads={
        "classifier": {"passed": True, "agreement": 0.99, "agreement_lower": 0.98, "limit": 0.97},
        "pose": {"passed": True},
        "place": {"passed": True},
    },
    passed=True,
)
INT8 = Program(
    "int8",
    "model.int8.onnx",
    heads={"classifier": {"temperature": 2.0, "unknown_threshold": 0.4}},
    calibration={"classifier": {"images": 400}},
    certificates=(CERTIFICATE,),
)
BFLOAT16 = Program("bfloat16", precision="bfloat16")


@pytest.fixture
def bundle(tmp_path):
    """A bundle whose program int8 sees half of each colour."""
    path = make_tiny_bundle(tmp_path / "tiny", unknown_threshold=0.7)
    model = onnx.load(path / GRAPH)
    for tensor in model.graph.initializer:
        if tensor.name == "c255":
            tensor.CopyFrom(numpy_helper.from_array(np.array(510.0, np.float32), "c255"))
    onnx.save(model, path / "model.int8.onnx")
    spec = ModelBundle.load(path).spec
    write_manifest(path, "tiny", spec, {}, {}, {"classifier": {"images": 7}}, [INT8, BFLOAT16])
    return path


def rewrite(bundle, change):
    data = yaml.safe_load((bundle / "bundle.yaml").read_text())
    change(data)
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(data))


def test_a_program_brings_its_graph_its_settings_and_its_calibration(bundle):
    float32, int8 = (ModelBundle.load(bundle, name) for name in ("float32", "int8"))
    assert (float32.program, int8.program) == ("float32", "int8")
    assert float32.programs == int8.programs == (INT8, BFLOAT16)
    assert int8.graph == (bundle / "model.int8.onnx").read_bytes()
    assert float32.graph == (bundle / GRAPH).read_bytes()
    assert int8.spec.heads["classifier"].unknown_threshold == 0.4
    assert float32.spec.heads["classifier"].unknown_threshold == 0.7
    assert int8.spec.heads["pose"] == float32.spec.heads["pose"]
    assert int8.calibration == {"classifier": {"images": 400}}
    assert float32.calibration == {"classifier": {"images": 7}}
    assert float32.sha256 == int8.sha256 and float32.cache != int8.cache

    image = np.full((1, 32, 48, 3), (200, 100, 50), np.uint8)
    seen = [create_engine(b, "onnx").run(image)["position"][0] for b in (float32, int8)]
    np.testing.assert_allclose(seen[0], expected_colour(image[0]), rtol=1e-6)
    np.testing.assert_allclose(seen[1], expected_colour(image[0]) / 2, rtol=1e-6)


def test_a_mode_runs_the_graph_of_the_bundle(bundle):
    mode = ModelBundle.load(bundle, "bfloat16")
    assert mode.graph == (bundle / GRAPH).read_bytes()
    assert mode.calibration == {"classifier": {"images": 7}}


def test_a_program_that_is_not_there_is_named_with_those_that_are(bundle):
    with pytest.raises(ConfigError, match="'int9'.*did you mean 'int8'.*float32, int8, bfloat16"):
        ModelBundle.load(bundle, "int9")


@pytest.mark.parametrize("program", ["float32", "int8"])
def test_the_graphs_of_all_programs_are_verified(bundle, program):
    with (bundle / "model.int8.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"model\.int8\.onnx .*was altered"):
        ModelBundle.load(bundle, program)


def test_a_graph_of_a_program_must_give_what_the_heads_promise(bundle, tmp_path):
    other = make_tiny_bundle(tmp_path / "other", heads=("classifier",))
    (bundle / "model.int8.onnx").write_bytes((other / GRAPH).read_bytes())
    tiny = yaml.safe_load((bundle / "bundle.yaml").read_text())
    tiny["files"]["model.int8.onnx"] = file_sha256(bundle / "model.int8.onnx")
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(tiny))
    ModelBundle.load(bundle)
    with pytest.raises(BundleError, match=r"model\.int8\.onnx does not fit"):
        ModelBundle.load(bundle, "int8")


def test_a_bundle_without_programs_says_nothing_of_them(tmp_path):
    path = make_tiny_bundle(tmp_path / "tiny")
    assert "programs" not in (path / "bundle.yaml").read_text()
    assert ModelBundle.load(path).programs == ()


def test_a_certificate_counts_for_its_engine_device_and_instructions_only():
    assert INT8.certificate("onnx", "cpu", "avx2") is CERTIFICATE
    for place in (("openvino", "cpu", "avx2"), ("onnx", "cuda", "avx2"), ("onnx", "cpu", "avx512")):
        assert INT8.certificate(*place) is None
    on_gpu = Certificate(**{**vars(CERTIFICATE), "device": "cuda", "instructions": "H200"})
    assert on_gpu.counts("onnx", "cuda:1", "H200")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.update(name="Int 8"), "name of a program is 'Int 8'"),
        (lambda p: p.update(graph="../model.onnx"), "graph of program int8.*model.int8.onnx"),
        (lambda p: p.update(graph=3), "graph of program int8"),
        (lambda p: p.update(precision="int8"), "precision of program int8"),
        (lambda p: p.update(precision=["float32"]), "precision of program int8"),
        (lambda p: p.pop("graph"), "float32 is the name of"),
        (lambda p: p.update(name="float32", graph="model.float32.onnx"), "float32 is the name of"),
        (lambda p: (p.update(name="float32"), p.pop("graph")), "float32 has heads"),
        (lambda p: p.update(speed=1), "Unknown key of a program 'speed'"),
        (lambda p: p.update(heads=[]), r"heads of program int8 is \[\]"),
        (lambda p: p.update(heads={"depth": {}}), "head of program int8 'depth'"),
        (lambda p: p.update(heads={"pose": 3}), "pose of program int8 is 3"),
        (lambda p: p.update(heads={"pose": {"kind": "depth"}}), "pose of program int8"),
        (lambda p: p.update(calibration=[1]), "calibration of program int8"),
        (lambda p: p.update(certificates={}), "certificates of program int8"),
        (
            lambda p: p.update(certificates=p["certificates"] * 2),
            "two certificates for onnx on cpu",
        ),
        (
            lambda p: p["certificates"][0].pop("engine"),
            "certificate 1 of program int8 lacks engine",
        ),
        (lambda p: p["certificates"][0].update(device=""), "device is ''"),
        (lambda p: p["certificates"][0].update(images=4), "images is 4"),
        (lambda p: p["certificates"][0].update(passed=False), "passed is False.*true, by what"),
        (lambda p: p["certificates"][0]["heads"].pop("pose"), "passed is True.*false, by what"),
        (
            lambda p: p["certificates"][0]["heads"].update(depth={}),
            "head of certificate 1.*'depth'",
        ),
        (
            lambda p: p["certificates"][0]["heads"]["pose"].update(passed=1),
            "pose passed is 1: it must be true or false",
        ),
        (
            lambda p: p["certificates"][0]["heads"]["pose"].update(passed=False),
            "passed is True.*false, by what",
        ),
    ],
)
def test_what_does_not_fit_is_named_in_a_line(change, words):
    data = copy.deepcopy(INT8.to_dict())
    assert parse_programs([data], HEADS) == (INT8,)
    change(data)
    with pytest.raises(ConfigError, match=words) as caught:
        parse_programs([data], HEADS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(programs={}), r"programs is \{\}: it must be a list"),
        (lambda d: d.update(programs=[3]), "a program is int"),
        (lambda d: d["programs"].append(d["programs"][1]), "programs has bfloat16 twice"),
        (lambda d: d["files"].pop("model.int8.onnx"), "files lacks model.int8.onnx"),
        (lambda d: d["programs"].pop(0), "Unknown key of files 'model.int8.onnx'"),
        (lambda d: d["programs"][0]["heads"]["classifier"].update(temperature="2"), "temperature"),
    ],
)
def test_a_manifest_that_contradicts_its_programs_is_refused_in_a_line(bundle, change, words):
    rewrite(bundle, change)
    with pytest.raises(BundleError, match=words) as caught:
        ModelBundle.load(bundle, "int8" if "temperature" in words else "float32")
    assert "\n" not in str(caught.value)


def test_programs_of_heads_with_names(tmp_path):
    path = two_classifiers(tmp_path / "two")
    loaded = ModelBundle.load(path)
    mode = Program("bfloat16", precision="bfloat16", heads={"lights": {"temperature": 3.0}})
    write_manifest(path, "two", loaded.spec, {}, {}, programs=[mode])
    both = [ModelBundle.load(path, name).spec.heads for name in ("float32", "bfloat16")]
    assert [heads["lights"].temperature for heads in both] == [1.0, 3.0]
    assert both[0]["classifier"] == both[1]["classifier"]
