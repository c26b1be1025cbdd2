import json
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
from network_helpers import (
    ClassifierSpec,
    PlaceSpec,
    PoseSpec,
    random_batch,
    small_network,
    small_spec,
    tiny_network,
    torch,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision.transforms import v2

from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import BundleError, ConfigError
from robot_vision.images.input import InputSpec
from robot_vision.networks.checkpoint import KEY, load_network, read_header, save_network
from robot_vision.networks.export import export_bundle
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.pipeline import Pipeline

# Equal weights at other addresses: how products are summed depends on the alignment, on some CPUs.
NEARLY = {"rtol": 1e-5, "atol": 1e-6}


def assert_same_weights(loaded, network):
    state, expected = loaded.state_dict(), network.state_dict()
    assert state.keys() == expected.keys()
    assert all(value.equal(state[key]) for key, value in expected.items())


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def tiny():
    return tiny_network()


@pytest.fixture
def checkpoint(tiny, tmp_path):
    save_network(tiny, tmp_path / "n.safetensors", {"data": "none"}, {"top1": 0.5})
    return tmp_path / "n.safetensors"


def rewrite(path, change_tensors=lambda t: None, change_header=lambda h: None):
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[KEY])
    tensors = load_file(path)
    change_tensors(tensors)
    change_header(header)
    save_file(tensors, path, {KEY: json.dumps(header)})


@pytest.mark.slow
@pytest.mark.parametrize("heads", [{}, {"pose": None}, {"classifier": None, "place": None}])
@pytest.mark.parametrize("count", [1, 3])
def test_outputs_are_those_that_the_spec_names(heads, count):
    network = small_network(**heads)
    with torch.inference_mode():
        outputs = network(random_batch(count))
    shapes = {name: (count, *output.shape) for name, output in network.spec.outputs.items()}
    assert {name: tuple(value.shape) for name, value in outputs.items()} == shapes
    assert list(outputs) == list(shapes)
    assert all(value.dtype == torch.float32 for value in outputs.values())


@pytest.mark.slow
def test_descriptor_size_is_resolved():
    assert small_network().spec.heads["place"].descriptor_size == 4 * 512
    whitened = small_network(place=PlaceSpec(clusters=4, whitened_size=32))
    assert whitened.spec.heads["place"].descriptor_size == 32


def test_normalisation_is_torchvisions():
    network = small_network()
    images = random_batch(2)
    spec = network.spec.input
    theirs = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(spec.mean, spec.std)])
    torch.testing.assert_close(
        network.normalise(images), theirs(images.permute(0, 3, 1, 2)), rtol=1e-5, atol=1e-5
    )


@pytest.mark.slow
def test_googlenets_own_normalisation_is_folded_in():
    network = small_network(backbone="googlenet", pose=None, place=None)
    pixels = network.normalise(random_batch(1))
    assert float(pixels.min()) == pytest.approx(-1, abs=1e-3)
    assert float(pixels.max()) == pytest.approx(1, abs=1e-3)


def test_image_does_not_depend_on_its_company(network):
    images = random_batch(3)
    with torch.inference_mode():
        together = network(images)
        for i in range(3):
            alone = network(images[i : i + 1])
            for name, value in alone.items():
                torch.testing.assert_close(value[0], together[name][i], rtol=1e-3, atol=1e-4)


def test_heads_from_features_are_heads_from_images(network):
    images = random_batch(2)
    with torch.inference_mode():
        features = network.forward_features(images)
        assert {k: [tuple(v.shape) for v in taps] for k, taps in features.items()} == {
            "classifier": [(2, 512)],
            "pose": [(2, 512, 2, 2)],
            "place": [(2, 512, 2, 2)],
        }
        raw = network.raw_from_features(features)
        for name, value in network.decode(raw).items():
            assert value.equal(network(images)[name])
        assert network.raw_from_features({"pose": features["pose"]})["pose"].keys() == {
            "position",
            "quaternion_xyzw",
            "log_variance",
        }


def test_heads_share_one_backbone_run(network):
    runs = []
    handle = network.backbone.body.get_submodule("conv1").register_forward_hook(
        lambda *_: runs.append(1)
    )
    network(random_batch(1))
    handle.remove()
    assert runs == [1]


def test_backbone_whose_stages_are_all_frozen_trains_nothing():
    network = small_network()
    assert all(p.requires_grad for p in network.parameters())
    network.backbone.freeze(network.backbone.architecture.stages[:8])
    assert not any(p.requires_grad for p in network.backbone.parameters())
    assert all(p.requires_grad for p in network.heads.parameters())


@pytest.mark.slow
def test_heads_may_use_different_taps():
    heads = {
        "classifier": ClassifierSpec(("a", "b"), tap="layer2"),
        "pose": PoseSpec(tap="layer3", hidden=8, reduce_channels=4),
        "place": PlaceSpec(tap="layer2", clusters=2),
    }
    network = small_network(**heads)
    assert not any(name.startswith("layer4") for name in network.backbone.body.state_dict())
    assert network.spec.heads["place"].descriptor_size == 2 * 128
    assert network(random_batch(1))["position"].shape == (1, 3)


def test_checkpoint_gives_the_same_network(checkpoint, tiny):
    loaded = load_network(checkpoint)
    assert loaded.spec == tiny.spec
    assert not loaded.training
    assert_same_weights(loaded, tiny)
    images = random_batch(2)
    with torch.inference_mode():
        for name, value in tiny(images).items():
            torch.testing.assert_close(loaded(images)[name], value, **NEARLY)
    header = read_header(checkpoint)
    assert (header.training, header.metrics) == ({"data": "none"}, {"top1": 0.5})


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["googlenet", "mobilenet_v2", "regnet_y_400mf"])
def test_checkpoint_of_any_backbone_and_calibration_round_trips(backbone, tmp_path):
    network = small_network(backbone=backbone, place=PlaceSpec(clusters=2, whitened_size=8))
    network.heads["classifier"].constants["temperature"].fill_(2.5)
    network.heads["pose"].set_position_statistics(torch.randn(9, 3) + 4)
    save_network(network, tmp_path / "n.safetensors")
    loaded = load_network(tmp_path / "n.safetensors")
    assert_same_weights(loaded, network)
    images = random_batch(2)
    with torch.inference_mode():
        for name, value in network(images).items():
            torch.testing.assert_close(loaded(images)[name], value, **NEARLY)


def test_loaded_network_can_be_trained(checkpoint):
    network = load_network(checkpoint).train()
    network.raw(random_batch(2))["classifier"]["logits"].sum().backward()
    assert all(p.requires_grad for p in network.parameters())
    assert network.heads["classifier"].linear.weight.grad.abs().sum() > 0


def test_checkpoint_is_readable_by_others_and_leaves_no_part(checkpoint):
    assert [p.name for p in checkpoint.parent.iterdir()] == ["n.safetensors"]
    (checkpoint.parent / "ordinary").write_text("")
    assert checkpoint.stat().st_mode == (checkpoint.parent / "ordinary").stat().st_mode


@pytest.mark.slow
@pytest.mark.parametrize("name", ["n.pth", "n.pt", "n.ckpt", "n.pkl", "n.bin", "n"])
def test_pickles_are_refused_by_name(name, tmp_path):
    (tmp_path / name).write_bytes(pickle.dumps({}))
    with pytest.raises(BundleError, match="checkpoints are .safetensors"):
        load_network(tmp_path / name)
    with pytest.raises(ConfigError, match="must end in .safetensors"):
        save_network(tiny_network(), tmp_path / name)


def test_absent_checkpoint_is_a_bundle_error(tmp_path):
    with pytest.raises(BundleError, match="No checkpoint at"):
        load_network(tmp_path / "n.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 1000, 100_000])
def test_truncated_checkpoint_is_a_bundle_error(checkpoint, keep):
    checkpoint.write_bytes(checkpoint.read_bytes()[:keep])
    with pytest.raises(BundleError, match="damaged or cut off"):
        load_network(checkpoint)


@pytest.mark.slow
def test_checkpoint_is_read_while_a_training_replaces_it(checkpoint, tmp_path):
    """The two differ in length, as a checkpoint's JSON does from step to step."""
    content, spec = checkpoint.read_bytes(), read_header(checkpoint).spec
    read = tmp_path / "last.safetensors"
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["more"] = "x" * 4096
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    names = [tmp_path / "short", tmp_path / "long"]
    names[0].write_bytes(content)
    names[1].write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    read.write_bytes(content)
    replace = (
        "import os, sys\n*names, part, read = sys.argv[1:]\nprint(flush=True)\nwhile True:\n"
        " for name in names: os.link(name, part); os.replace(part, read)"
    )
    command = [sys.executable, "-c", replace, *map(str, names), str(tmp_path / "part"), str(read)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            for _ in range(300):
                assert read_header(read).spec == spec
        finally:
            process.kill()


@pytest.mark.slow
def test_missing_and_unexpected_tensors_are_named(checkpoint):
    rewrite(checkpoint, lambda t: t.pop("heads.place.centres"))
    with pytest.raises(BundleError, match="lacks heads.place.centres"):
        load_network(checkpoint)
    rewrite(checkpoint, lambda t: t.update({"heads.place.centres": torch.zeros(4, 128)}))
    load_network(checkpoint)
    rewrite(checkpoint, lambda t: t.update({"neck": torch.zeros(1)}))
    with pytest.raises(BundleError, match="has the unexpected neck"):
        load_network(checkpoint)


def test_tensor_of_another_shape_is_named(checkpoint):
    rewrite(checkpoint, lambda t: t.update({"heads.place.centres": torch.zeros(4, 127)}))
    with pytest.raises(
        BundleError, match=r"centres has shape \(4, 127\) and should have \(4, 128\)"
    ):
        load_network(checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h["network"].update(backbone="resnet19"), "Unknown backbone 'resnet19'"),
        (lambda h: h["network"]["heads"].update(depths={}), "Unknown key of heads 'depths'"),
        (lambda h: h.update(format_version=2), "format_version is 2: this robot_vision reads 1"),
        (lambda h: h.pop("network"), "checkpoint lacks network"),
        (lambda h: h["network"]["heads"]["pose"].update(hidden=0), "hidden is 0"),
        (lambda h: h["network"]["heads"]["pose"].update(tap="layer9"), "Unknown tap 'layer9'"),
    ],
)
def test_header_that_is_wrong_is_a_bundle_error(checkpoint, change, message):
    rewrite(checkpoint, change_header=change)
    with pytest.raises(BundleError, match=message) as caught:
        load_network(checkpoint)
    assert "\n" not in str(caught.value)


def test_weights_without_header_are_told_from_checkpoints(tmp_path):
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "n.safetensors")
    with pytest.raises(BundleError, match="no 'robot_vision' header.*--weights"):
        load_network(tmp_path / "n.safetensors")


@pytest.mark.slow
def test_network_runs_in_half_precision(network):
    images = random_batch(2)
    with torch.inference_mode():
        exact = network(images)
        half = small_network().to(torch.bfloat16)(images)
    for name, value in half.items():
        assert value.dtype == torch.float32
        scale = float(exact[name].abs().max())
        np.testing.assert_allclose(value, exact[name], atol=0.1 * scale)


def test_head_on_an_impossible_tap_is_a_config_error():
    with pytest.raises(ConfigError, match="place head needs a feature map"):
        MultiHeadNetwork(small_spec(place=PlaceSpec(tap="flatten", clusters=2)))


@pytest.mark.slow
def test_input_too_small_for_the_backbone_is_a_config_error():
    spec = NetworkSpec(
        "googlenet", InputSpec(16, 16), heads={"classifier": ClassifierSpec(("a", "b"))}
    )
    network = MultiHeadNetwork(spec).eval()  # GoogLeNet can; AlexNet cannot
    assert network(random_batch(1, 16))["probabilities"].shape == (1, 2)
    with pytest.raises(ConfigError, match="alexnet cannot take an input of 16 x 16"):
        MultiHeadNetwork(
            NetworkSpec(
                "alexnet", InputSpec(16, 16), heads={"classifier": ClassifierSpec(("a", "b"))}
            )
        )


@pytest.mark.slow
def test_network_of_grey_images_takes_rgb_and_sees_what_opencv_makes_grey(tmp_path):
    spec = NetworkSpec(
        "lenet",
        InputSpec(28, 28, channels=1),
        {"classifier": ClassifierSpec(tuple("0123456789"))},
    )
    network = MultiHeadNetwork(spec).eval()
    images = random_batch(2, 28)
    grey = [cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in images.numpy()]
    seen = network.normalise(images)
    assert seen.shape == (2, 1, 28, 28)
    np.testing.assert_allclose(seen[:, 0] * 255, np.array(grey), atol=0.51)  # OpenCV rounds
    bundle = export_bundle(network, tmp_path / "bundle", "digits", list(images.numpy()))
    assert bundle.spec == network.spec and bundle.spec.input.mean == (0.0,)
    (answer, _) = Pipeline.load(bundle.path, device="cpu")(list(images.numpy()))
    np.testing.assert_allclose(
        answer["classifier"].probabilities, network(images)["probabilities"][0].detach(), atol=1e-5
    )


def test_channels_that_are_not_the_backbones_are_refused():
    heads = {"classifier": ClassifierSpec(("a", "b"))}
    with pytest.raises(
        ConfigError, match=r"lenet takes grey images: set input\.channels to 1 .*28"
    ):
        MultiHeadNetwork(NetworkSpec("lenet", InputSpec(28, 28), heads))
    with pytest.raises(ConfigError, match="resnet18 takes RGB images"):
        MultiHeadNetwork(NetworkSpec("resnet18", InputSpec(64, 64, channels=1), heads))
    with pytest.raises(ConfigError, match="input channels is 2"):
        InputSpec(channels=2)
