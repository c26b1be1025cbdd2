"""Variants of a bundle with all heads answer nearly as it does, on every engine that runs graphs."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
from network_helpers import Samples
from onnx import numpy_helper

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.calibration.run import Data, calibrate
from robot_vision.contract.calibration import Options
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.contract.spec import NetworkSpec
from robot_vision.datasets.sample import Sample, Splits
from robot_vision.engines import create_engine
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.images.input import InputSpec
from robot_vision.networks.export import export_bundle
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.optimising.quantise import VARIANTS
from robot_vision.training.config import TrainingConfig
from robot_vision.training.ship.quantise import make_variant

pytestmark = pytest.mark.slow
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 64, 96, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """The first half of a ResNet-18, random weights, with all heads, and its variants."""
    spec = NetworkSpec(
        "resnet18",
        InputSpec(64, 96),
        heads={
            "classifier": ClassifierSpec(("door", "hall", "stairs"), tap="layer2"),
            "lights": ClassifierSpec(("on", "off"), tap="layer2"),
            "pose": PoseSpec(tap="layer2"),
            "place": PlaceSpec(tap="layer2", clusters=4, whitened_size=16),
        },
    )
    folder = tmp_path_factory.mktemp("variants")
    export_bundle(MultiHeadNetwork(spec).eval(), folder / "float32", "resnet", list(IMAGES))
    config = TrainingConfig(heads=("classifier",))
    for kind in VARIANTS:
        make_variant(folder / "float32", folder / kind, kind, Samples(IMAGES), config)
    return {kind: ModelBundle.load(folder / kind) for kind in ("float32", *VARIANTS)}


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
@pytest.mark.parametrize("kind", VARIANTS)
def test_variant_answers_nearly_as_the_original(bundles, engine, kind):
    tolerance = 2e-3 if kind == "float16" else 5e-2
    expected = create_engine(bundles["float32"], engine, "cpu", threads=1).run(IMAGES)
    found = create_engine(bundles[kind], engine, "cpu", threads=1).run(IMAGES)
    assert found.keys() == expected.keys()
    for name in ("probabilities", "position", "orientation_xyzw", "descriptor"):
        assert found[name].dtype == np.float32
        scale = np.abs(expected[name]).max()
        assert np.abs(found[name] - expected[name]).mean() < tolerance * scale, name


def test_no_pair_of_int8s_weights_overflows_and_most_have_more_than_seven_bits(bundles):
    """255 times two weights of one sign, which kernels may add in 16 bits, whatever their layout."""
    largest, worst = {}, {}
    for kind in ("int8", "int8-vnni"):
        graph = onnx.load(str(bundles[kind].path / "model.onnx")).graph
        constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        layers = [a for a in constants.values() if a.dtype == np.int8 and a.ndim == 4]
        assert len(layers) == 10  # of half a ResNet-18
        largest[kind] = [np.abs(a.reshape(len(a), -1)).max(axis=1) for a in layers]
        fours = [a.transpose(0, 2, 3, 1).reshape(len(a), -1, 4) for a in layers[1:]]
        two = [
            np.sort(np.maximum(s * a.astype(int), 0))[..., 2:].sum(-1).max()
            for a in fours
            for s in (1, -1)
        ]
        worst[kind] = max(two)
    assert worst["int8"] <= 32767 // 255 < worst["int8-vnni"]
    assert np.mean(np.concatenate(largest["int8"]) > 64) > 0.5


def test_tensorrts_variant_is_as_tensorrt_takes_it(bundles):
    """What its parser refuses else: zero points that are not zero, and integers where it wants floats."""
    graph = onnx.load(str(bundles["int8-tensorrt"].path / "model.onnx")).graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    steps = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    made_by = {name: node for node in graph.node for name in node.output}
    assert len(steps) > 25
    for node in steps:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8 and not zero.any(), node.name
        if node.op_type == "DequantizeLinear":
            assert made_by[node.input[0]].op_type == "QuantizeLinear", node.name
            assert readers[node.input[0]] == 1, node.name


@pytest.mark.parametrize("kind", ["int8", "int8-vnni", "int8-tensorrt"])
def test_what_an_activation_drops_is_not_quantised(bundles, kind):
    graph = onnx.load(str(bundles[kind].path / "model.onnx")).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    left = [n for n in graph.node if n.op_type in ("Relu", "Clip") and "/backbone/" in n.name]
    assert "DequantizeLinear" not in {made_by[n.input[0]] for n in left}


def test_variants_are_smaller_and_say_whose_they_are(bundles):
    whole = (bundles["float32"].path / "model.onnx").stat().st_size
    for kind, share in (
        ("int8", 0.35),
        ("int8-vnni", 0.35),
        ("int8-tensorrt", 1.1),
        ("float16", 0.6),
    ):
        variant = bundles[kind]
        assert (variant.path / "model.onnx").stat().st_size < share * whole
        assert variant.training["variant"] == kind
        assert variant.training["variant_of"] == bundles["float32"].sha256


@dataclass(frozen=True)
class Memory:
    pixels: np.ndarray

    def load(self, min_size=None):
        return self.pixels

    def encoded(self):
        return self.pixels.tobytes()


@pytest.mark.parametrize("kind", ["int8", "int8-tensorrt", "float16"])
def test_a_named_head_of_a_variant_can_be_calibrated(bundles, kind, tmp_path):
    """Its constant and its logits keep their names, whatever optimisers fold and fuse."""
    samples = tuple(
        Sample(str(i), None, None, None, "s", Memory(IMAGES[i % 8]), truth={"label:lights": "on"})
        for i in range(120)
    )
    data = Data(Splits((), samples, ()), "validation", "pictures", {})
    options = Options(("lights.classifier",), settings=EvaluationSettings(resamples=0))
    new, found = calibrate(bundles[kind], data, options, tmp_path / "new")
    fitted = found.heads["lights.classifier"]
    assert new.spec.heads["lights"].temperature == pytest.approx(fitted.spec["temperature"])
    before, after = (
        create_engine(b, "onnx", "cpu").run(IMAGES)["lights.probabilities"]
        for b in (bundles[kind], new)
    )
    assert np.abs(before - after).max() > 1e-3


def channel_means(path, nodes):
    """Returns the mean over images and pixels of each channel of convolutions, by their names."""
    model = onnx.load(str(path))
    outputs = {n.name: n.output[0] for n in model.graph.node}
    del model.graph.output[:]
    kind = onnx.TensorProto.FLOAT
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(outputs[name], kind, None) for name in nodes
    )
    options = onnxruntime.SessionOptions()  # in floats, as they were corrected
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    found = session.run([outputs[name] for name in nodes], {"images": IMAGES})
    return [value.mean(axis=(0, 2, 3)) for value in found]


@pytest.mark.parametrize("kind", ["int8", "int8-tensorrt"])
def test_rounding_moves_no_channels_mean(bundles, kind):
    """The images that calibrated it are those asked here, so that only a bias's own step is left."""
    quantised, original = (bundles[k].path / "model.onnx" for k in (kind, "float32"))
    layers = onnx.load(str(quantised)).graph.node
    nodes = [n.name for n in layers if n.op_type == "Conv" and "/backbone/" in n.name]
    assert len(nodes) == 10  # of half a ResNet-18
    pairs = zip(channel_means(quantised, nodes), channel_means(original, nodes), strict=True)
    for found, expected in pairs:
        assert np.abs(found - expected).max() < 5e-3 * np.abs(expected).max()


def test_making_a_variant_fills_no_screen(bundles, tmp_path, capfd):
    """ONNX Runtime warned of each number that a part of the graph does not need, once a layer."""
    config = TrainingConfig(heads=("classifier",))
    make_variant(bundles["float32"].path, tmp_path / "int8", "int8", Samples(IMAGES), config)
    assert capfd.readouterr() == ("", "")
