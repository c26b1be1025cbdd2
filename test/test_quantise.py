"""Variants of a bundle with all heads answer nearly as it does, on every engine that runs graphs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robot_vision.bundle import ModelBundle
from robot_vision.engines import create_engine
from robot_vision.networks.export import export_bundle
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.spec import ClassifierSpec, InputSpec, NetworkSpec, PlaceSpec, PoseSpec
from robot_vision.training.config import TrainingConfig
from robot_vision.training.quantise import make_variant

pytestmark = pytest.mark.slow
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 64, 96, 3), dtype=np.uint8)


class Samples:
    """Ready images in the place of a sample set."""

    def __len__(self):
        return len(IMAGES)

    def batch(self, index):
        return {"images": torch.from_numpy(IMAGES)[index]}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """A ResNet-18 with random weights and all heads, and its variants."""
    torch.manual_seed(0)
    spec = NetworkSpec(
        "resnet18",
        InputSpec(64, 96),
        ClassifierSpec(("door", "hall", "stairs")),
        PoseSpec(),
        PlaceSpec(clusters=4, whitened_size=16),
    )
    folder = tmp_path_factory.mktemp("variants")
    export_bundle(MultiHeadNetwork(spec).eval(), folder / "float32", "resnet", list(IMAGES))
    config = TrainingConfig(heads=("classifier",))
    for kind in ("int8", "float16"):
        make_variant(folder / "float32", folder / kind, kind, Samples(), config)
    return SimpleNamespace(
        **{kind: ModelBundle.load(folder / kind) for kind in ("float32", "int8", "float16")}
    )


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
@pytest.mark.parametrize(("kind", "tolerance"), [("float16", 2e-3), ("int8", 5e-2)])
def test_variant_answers_nearly_as_the_original(bundles, engine, kind, tolerance):
    expected = create_engine(bundles.float32, engine, "cpu", threads=1).run(IMAGES)
    found = create_engine(getattr(bundles, kind), engine, "cpu", threads=1).run(IMAGES)
    assert found.keys() == expected.keys()
    for name in ("probabilities", "position", "orientation_xyzw", "descriptor"):
        assert found[name].dtype == np.float32
        scale = np.abs(expected[name]).max()
        assert np.abs(found[name] - expected[name]).mean() < tolerance * scale, name


def test_variants_are_smaller_and_say_whose_they_are(bundles):
    whole = (bundles.float32.path / "model.onnx").stat().st_size
    for kind, share in (("int8", 0.35), ("float16", 0.6)):
        variant = getattr(bundles, kind)
        assert (variant.path / "model.onnx").stat().st_size < share * whole
        assert variant.training["variant"] == kind
        assert variant.training["variant_of"] == bundles.float32.sha256
