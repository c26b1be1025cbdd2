"""One bundle, several programs: made, fitted, certified and compared on real graphs and engines."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from colour_samples import colour_samples
from conv_bundle import make_conv_bundle
from onnx import numpy_helper

from robot_vision.bundle.bundle import ModelBundle, write_manifest
from robot_vision.calibration.run import Data
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.datasets.image_sketch import sketch
from robot_vision.datasets.sample import Splits, content_hash
from robot_vision.engines import create_engine
from robot_vision.engines.machine import instructions
from robot_vision.errors import ConfigError, EngineError
from robot_vision.optimising.run import optimise
from robot_vision.pipeline import Pipeline

pytestmark = pytest.mark.slow
SETTINGS = EvaluationSettings(resamples=200)
OTHER = "avx2" if instructions() != "avx2" else "neon"  # what another machine computes with


def pictures(count=1200, seed=0):
    """Labelled pictures of one colour each, which stand for themselves."""
    return tuple(colour_samples(count, np.random.default_rng(seed)))


def data(samples):
    splits = Splits((), samples, (), labels=("blue", "green", "red"))
    return Data(splits, "validation", "colours", {})


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conv") / "conv"
    return ModelBundle.load(make_conv_bundle(folder, heads=("classifier",)))


@pytest.fixture(scope="module")
def optimised(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("optimised") / "bundle"
    return optimise(source, data(pictures()), ("int8", "bfloat16"), out, SETTINGS)


def test_the_bundle_holds_its_programs_and_runs_float32_as_before(source, optimised):
    new = optimised.bundle
    assert new.path.name == "bundle" and [p.name for p in new.programs] == ["int8", "bfloat16"]
    assert new.graph == source.graph and new.spec == source.spec
    assert set(new.files) == {*source.files, "model.int8.onnx", "probes.safetensors"}
    int8 = ModelBundle.load(new.path, "int8")
    graph = onnx.load_model_from_string(int8.graph).graph
    assert "QuantizeLinear" in {node.op_type for node in graph.node}
    assert ModelBundle.load(new.path, "bfloat16").graph == source.graph


def test_each_engine_of_this_machine_gets_a_certificate(optimised):
    int8, bfloat16 = optimised.bundle.programs
    assert [c.engine for c in int8.certificates] == ["openvino", "onnx"]
    assert [c.engine for c in bfloat16.certificates] == [
        "openvino"
    ]  # ONNX Runtime has no such mode
    for c in (*int8.certificates, *bfloat16.certificates):
        assert c.device == "cpu" and c.instructions == instructions()
        assert c.images["count"] == c.images["blocks"] == 800  # two of three parts
        assert c.images["data"] == "colours" and len(c.images["sha256"]) == 64
        said = c.heads["classifier"]
        assert said["agreement"]["count"] == 800
        assert said["text"].startswith("first class agrees on")
    assert all(c.passed for c in int8.certificates)


def test_the_numbers_of_a_certificate_are_those_of_the_engine(optimised):
    """Counted again with the bare engines, on the images that the record says did not choose."""
    record = ModelBundle.load(optimised.bundle.path, "int8").calibration["data"]
    chose = record["image_sketch"]["smallest"].split()
    certified = [s for s in pictures() if content_hash(s)[:12] not in chose]
    images = [s.source.load() for s in certified]
    said = []
    for program in ("float32", "int8"):
        with Pipeline.load(optimised.bundle.path, "onnx", "cpu", program) as pipeline:
            said.append([p.answers["classifier"].probabilities.argmax() for p in pipeline(images)])
    agreement = np.mean(np.array(said[0]) == np.array(said[1]))
    found = optimised.bundle.programs[0].certificates[1].heads["classifier"]["agreement"]
    # A few colours are in both parts, and so not among these.
    assert found["value"] == pytest.approx(agreement, abs=0.01)
    assert found["limit"] == 0.97 and found["bound"] <= found["value"]


def test_calibration_is_fitted_for_the_program(optimised):
    """The labels follow a temperature of 3; float32 keeps its own until it is calibrated."""
    int8 = ModelBundle.load(optimised.bundle.path, "int8")
    assert int8.spec.heads["classifier"].temperature == pytest.approx(3, rel=0.25)
    assert optimised.bundle.spec.heads["classifier"].temperature == 1
    assert int8.calibration["classifier"]["images"] == 400


@pytest.mark.parametrize("told", [False, True])
def test_a_program_calls_images_unknown_as_float32_does(tmp_path, told):
    """A temperature moves the scores, so it is fitted only where the threshold can be fitted again."""
    path = make_conv_bundle(tmp_path / "conv", heads=("classifier",), unknown_threshold=0.4)
    source = ModelBundle.load(path)
    if told:
        how = {"open_set": {"score": "max_probability", "keep": 0.9, "images": 400}}
        write_manifest(path, "conv", source.spec, {}, {}, how)
        source = ModelBundle.load(path)
    made = optimise(source, data(pictures()), ("int8",), tmp_path / "new", SETTINGS)
    spec = ModelBundle.load(made.bundle.path, "int8").spec.heads["classifier"]
    if told:
        assert spec.temperature == pytest.approx(3, rel=0.25)
        assert spec.unknown_threshold is not None and spec.unknown_threshold != 0.4
    else:
        assert (spec.temperature, spec.unknown_threshold) == (1.0, 0.4)
        assert any("it would undo open_set" in note for note in made.notes)


def test_an_engine_that_gives_other_answers_is_refused(optimised):
    int8 = ModelBundle.load(optimised.bundle.path, "int8")
    create_engine(int8, "onnx", "cpu").close()
    model = onnx.load_model_from_string(int8.graph)
    for tensor in model.graph.initializer:
        if tensor.name == "c255":
            tensor.CopyFrom(numpy_helper.from_array(np.array(400.0, np.float32), "c255"))
    other = replace(int8, graph=model.SerializeToString())
    with pytest.raises(EngineError, match="int8 in onnx on cpu differs in probabilities from"):
        create_engine(other, "onnx", "cpu")
    create_engine(replace(other, probes={}), "onnx", "cpu").close()
    float32 = replace(optimised.bundle, graph=other.graph)
    with pytest.raises(EngineError, match="float32 in openvino on cpu differs in"):
        create_engine(float32, "openvino", "cpu")


def test_on_another_machine_programs_stay_and_certificates_are_added(
    optimised, tmp_path, monkeypatch
):
    monkeypatch.setattr("robot_vision.optimising.certify.instructions", lambda *_: OTHER)
    more = optimise(optimised.bundle, data(pictures()), ("int8",), tmp_path / "more", SETTINGS)
    before, after = optimised.bundle.programs[0], more.bundle.programs[0]
    graphs = [b.path / "model.int8.onnx" for b in (more.bundle, optimised.bundle)]
    assert graphs[0].read_bytes() == graphs[1].read_bytes()
    assert after.certificates[: len(before.certificates)] == before.certificates
    assert {(c.engine, c.instructions) for c in after.certificates} == {
        (engine, where) for engine in ("onnx", "openvino") for where in (OTHER, instructions())
    }
    assert more.bundle.programs[1] == optimised.bundle.programs[1]


def test_a_program_that_is_made_again_forgets_other_machines(optimised, tmp_path, monkeypatch):
    samples = data(pictures())
    with monkeypatch.context() as patch:
        patch.setattr("robot_vision.optimising.certify.instructions", lambda *_: OTHER)
        patch.setattr("robot_vision.engines.probes.instructions", lambda *_: OTHER)
        more = optimise(optimised.bundle, samples, ("int8",), tmp_path / "more", SETTINGS).bundle
    assert any(name.startswith(f"int8/onnx/cpu/{OTHER}/") for name in more.probes)
    again = optimise(more, samples, ("int8",), tmp_path / "again", SETTINGS, remake=True).bundle
    assert {c.instructions for c in again.programs[0].certificates} == {instructions()}
    assert not any(f"/{OTHER}/" in name for name in again.probes)
    assert any(name.startswith("bfloat16/openvino/") for name in again.probes)


def test_too_few_images_certify_nothing_and_say_how_many_would_do(source, tmp_path):
    few = optimise(source, data(pictures(150)), ("int8",), tmp_path / "few", SETTINGS)
    for c in few.bundle.programs[0].certificates:
        assert not c.passed
        why = c.heads["classifier"]["why"]
        assert "not enough images: agreement needs about 300, and there are 100" in why
        assert c.heads["classifier"]["agreement"]["needed"] == 300


def test_heads_without_truth_are_not_certified_and_the_record_is_json(tmp_path):
    source = ModelBundle.load(make_conv_bundle(tmp_path / "conv"))
    made = optimise(source, data(pictures(150)), ("bfloat16",), tmp_path / "new", SETTINGS).bundle
    (c,) = made.programs[0].certificates
    assert not c.heads["pose"]["passed"]
    assert c.heads["pose"]["mean_m_ratio"]["value"] is None
    json.dumps(made.programs[0].to_dict(), allow_nan=False)


def test_frames_of_one_video_count_by_blocks_of_time(tmp_path):
    source = ModelBundle.load(make_conv_bundle(tmp_path / "conv"))
    frames = tuple(colour_samples(900, np.random.default_rng(1), posed=True))
    made = optimise(source, data(frames), ("int8",), tmp_path / "new", SETTINGS).bundle
    for c in made.programs[0].certificates:
        assert c.images["count"] == 600 and c.images["blocks"] == 10  # of 2 s at 30 Hz
        assert not c.passed
        assert all("not enough images" in head["why"] for head in c.heads.values())
        assert set(c.heads) == {"classifier", "pose", "place"}
        assert c.heads["pose"]["mean_m_ratio"]["value"] == pytest.approx(1, abs=0.05)


def test_images_that_were_trained_on_are_refused(source, tmp_path):
    samples = pictures(400)
    trained = {"training_image_sketch": sketch(content_hash(s) for s in samples)}
    bundle = replace(source, training=trained)
    with pytest.raises(ConfigError, match="of these images were trained on"):
        optimise(bundle, data(samples), ("int8",), tmp_path / "new", SETTINGS)
    with pytest.raises(ConfigError, match="Unknown program 'int4'"):
        optimise(source, data(samples), ("int4",), tmp_path / "new", SETTINGS)
    assert not (tmp_path / "new").exists()
