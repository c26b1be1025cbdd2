import pickle
import subprocess
import sys

import pytest
from network_helpers import BIG, seed_networks, torch
from safetensors.torch import save_file
from torchvision import models

from robot_vision.backbones import architectures
from robot_vision.backbones.architectures import look_inside
from robot_vision.backbones.backbone import Backbone
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import BundleError, ConfigError
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.images.input import InputSpec
from robot_vision.networks.network import MultiHeadNetwork

IMAGENET = ClassifierSpec(tuple(f"class {i}" for i in range(1000)))


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", seed_networks(heavy=()))
def test_classifier_network_has_torchvisions_parameter_count(name):
    with torch.device("meta"):
        network = MultiHeadNetwork(NetworkSpec(name, heads={"classifier": IMAGENET}))
    # torchvision's own figure, which counts GoogLeNet without its auxiliary classifiers.
    expected = models.get_model_weights(name).DEFAULT.meta["num_params"]
    assert parameters(network) == expected


def families():
    """Returns the networks of each torchvision family, the smallest first."""
    found = {}
    for name in models.list_models(module=models):
        size = models.get_model_weights(name).DEFAULT.meta["num_params"]
        found.setdefault(models.get_model_builder(name).__module__, []).append((size, name))
    return [[name for _, name in sorted(family)] for family in found.values()]


def test_every_torchvision_network_is_named():
    named = {name for family in families() for name in family}
    assert named == {n for n in architectures.names() if n not in architectures.OWN}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted({n for family in families() for n in (family[0], family[-1])})
)
def test_every_torchvision_family_is_understood(name):
    inside = look_inside(name)
    assert inside.features and inside.stages
    # a convolution; a layer without bias
    assert inside.linear_end != name.startswith(("squeezenet", "maxvit"))


def smallest_of_each_family():
    """Those that end in a linear layer."""
    smallest = sorted(family[0] for family in families())
    return [name for name in smallest if not name.startswith(("squeezenet", "maxvit"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", smallest_of_each_family())
def test_classifier_network_is_the_whole_network(name):
    with torch.device("meta"):
        network = MultiHeadNetwork(NetworkSpec(name, heads={"classifier": IMAGENET}))
        without_auxiliary = architectures.skeleton(name)
    assert parameters(network) == parameters(without_auxiliary)


@pytest.mark.slow
@pytest.mark.parametrize("name", seed_networks(heavy=(*BIG, "alexnet", "resnet50")))
def test_weights_file_gives_torchvisions_logits(name, tmp_path):
    options = {"init_weights": False, "transform_input": True} if name == "googlenet" else {}
    if name == "googlenet":
        options["aux_logits"] = True  # its files have auxiliary classifiers, which we leave out
    theirs = models.get_model(name, weights=None, **options).eval()
    file = tmp_path / "weights.safetensors"
    save_file(theirs.state_dict(), file)
    size = InputSpec(96, 80)
    ours = MultiHeadNetwork(
        NetworkSpec(name, size, heads={"classifier": IMAGENET}), str(file)
    ).eval()
    images = torch.randint(0, 256, (2, 96, 80, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (size.mean, size.std))
    normalised = (images.permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        expected, actual = theirs(normalised), ours.raw(images)["classifier"]["logits"]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert ours.pretrained == {"classifier"}
    file.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "googlenet", "resnet18", "mobilenet_v2"])
def test_shapes_are_those_of_a_run_at_every_stage(name):
    stages = look_inside(name).stages
    backbone = Backbone(name, stages, input_size=(96, 128)).eval()
    with torch.inference_mode():
        features = backbone(torch.randn(1, 3, 96, 128))
    assert set(features) == set(stages)
    for tap, value in features.items():
        assert tuple(value.shape[1:]) == backbone.shapes[tap], tap


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "features", "feature_map"),
    [
        ("resnet18", (512,), (512, 7, 7)),
        ("mobilenet_v2", (1280,), (1280, 7, 7)),
        ("vgg16", (4096,), (512, 7, 7)),
        ("alexnet", (4096,), (256, 6, 6)),
        ("googlenet", (1024,), (1024, 7, 7)),
        ("swin_t", (768,), (768, 7, 7)),
    ],
)
def test_default_taps_are_before_the_classifier_and_before_pooling(name, features, feature_map):
    inside = look_inside(name)
    assert inside.nodes[inside.features] == features
    assert inside.nodes[inside.feature_map] == feature_map


@pytest.mark.slow
def test_layers_after_the_last_tap_are_not_built():
    names = {name.split(".")[0] for name in Backbone("resnet18", ["layer2"]).body.state_dict()}
    assert names == {"conv1", "bn1", "layer1", "layer2"}


@pytest.mark.slow
def test_tap_is_the_stages_output():
    backbone = Backbone("resnet18", ["layer2", "layer3"], input_size=(64, 64)).eval()
    theirs = models.resnet18().eval()
    theirs.load_state_dict(backbone.body.state_dict(), strict=False)
    seen = {}
    theirs.layer3.register_forward_hook(lambda module, args, out: seen.update(out=out))
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        theirs(images)
        assert torch.equal(backbone(images)["layer3"], seen["out"])


def test_unknown_name_names_near_ones():
    with pytest.raises(ConfigError, match="Unknown backbone 'resnet-18'.*resnet18"):
        Backbone("resnet-18")


def test_unknown_tap_lists_taps():
    with pytest.raises(ConfigError, match="resnet18: Unknown tap 'layer5'.*layer3, layer4"):
        Backbone("resnet18", ["layer5"])


def test_input_too_small_is_a_config_error():
    with pytest.raises(ConfigError, match="alexnet cannot take an input of 32 x 32"):
        Backbone("alexnet", input_size=(32, 32))


@pytest.mark.slow
def test_transformer_has_no_default_feature_map():
    with pytest.raises(ConfigError, match="vit_b_16 ends in tokens"):
        look_inside("vit_b_16").require_feature_map()


@pytest.mark.slow
def test_frozen_stages_keep_parameters_and_statistics():
    backbone = Backbone("resnet18", ["layer3"], input_size=(64, 64))
    backbone.freeze(["conv1", "bn1", "layer1"])
    backbone.train()
    before = {k: v.clone() for k, v in backbone.body.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    backbone(torch.randn(4, 3, 64, 64))["layer3"].square().mean().backward()
    optimiser.step()
    changed = {
        k.split(".")[0] for k, v in backbone.body.state_dict().items() if not v.equal(before[k])
    }
    assert changed == {"layer2", "layer3"}
    running = [
        k for k, v in backbone.body.state_dict().items() if "running" in k and v.equal(before[k])
    ]
    assert {k.split(".")[0] for k in running} == {"bn1", "layer1"}


def test_thawing_gives_gradients_and_training_mode_back():
    backbone = Backbone("resnet18", ["layer1"])
    backbone.train()
    backbone.freeze(["layer1"])
    assert not backbone.body.get_submodule("layer1.0.bn1").training
    backbone.freeze([])
    assert backbone.body.get_submodule("layer1.0.bn1").training
    assert all(p.requires_grad for p in backbone.parameters())


def test_unknown_frozen_stage_lists_those_built():
    with pytest.raises(ConfigError, match="unknown stage 'layer4'.*layer1"):
        Backbone("resnet18", ["layer1"]).freeze(["layer4"])


@pytest.mark.slow
def test_missing_and_unexpected_keys_are_named(tmp_path):
    state = models.resnet18().state_dict()
    del state["layer1.0.conv1.weight"]
    state["neck.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(BundleError, match="missing 1: layer1.0.conv1.weight; unexpected 1: neck"):
        Backbone("resnet18", weights=str(tmp_path / "w.pth"))


@pytest.mark.slow
def test_weights_of_another_size_are_refused(tmp_path):
    state = models.resnet18().state_dict()
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(BundleError, match=r"conv1.weight has shape \(64, 3, 3, 3\) and not"):
        Backbone("resnet18", weights=str(tmp_path / "w.pth"))


WRAPPED = {
    "plain": lambda state: state,
    "data parallel": lambda state: {f"module.{k}": v for k, v in state.items()},
    "compiled": lambda state: {f"_orig_mod.{k}": v for k, v in state.items()},
    "both": lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
    "a stage compiled": lambda state: {k.replace("e2.", "e2._orig_mod."): v for k, v in state.items()},
    "checkpoint": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"state": {}}},
    "reference": lambda state: {"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 3},
    "lightning": lambda state: {
        "state_dict": {**{f"net.{k}": v for k, v in state.items()}, "loss.weight": torch.ones(3)},
        "pytorch-lightning_version": "2.4.0",
        "hyper_parameters": {"rate": 0.1},
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("form", WRAPPED)
def test_checkpoints_of_trainings_give_their_weights_and_say_what_was_taken_off(form, tmp_path):
    state = models.shufflenet_v2_x0_5().state_dict()
    torch.save(WRAPPED[form](state), tmp_path / "w.pth")
    backbone = Backbone("shufflenet_v2_x0_5", ["stage2"], weights=str(tmp_path / "w.pth"))
    for name, tensor in backbone.body.state_dict().items():
        torch.testing.assert_close(tensor, state[name])
    torch.testing.assert_close(backbone.classification_layer[0], state["fc.weight"])
    notes = "\n".join(backbone.weight_notes)
    expected = {
        "plain": "",
        "data parallel": "the weights are those of module, a prefix that is taken off",
        "compiled": "_orig_mod in names of weights is taken out",
        "checkpoint": "the weights are those of state_dict, ",
        "reference": "the weights are those of model.module, ",
        "lightning": "1 other entries are not used: loss.weight",
    }
    assert expected.get(form, "") in notes and (form != "plain" or not notes)


@pytest.mark.slow
def test_file_with_two_networks_or_none_is_refused(tmp_path):
    state = models.shufflenet_v2_x0_5().state_dict()
    file = tmp_path / "w.pth"
    torch.save({"model": state, "model_ema": {f"module.{k}": v for k, v in state.items()}}, file)
    with pytest.raises(BundleError, match=r"holds 2 networks \(model, model_ema.module\)"):
        Backbone("shufflenet_v2_x0_5", weights=str(file))
    torch.save({**state, **{f"teacher.{k}": v for k, v in state.items()}}, file)
    with pytest.raises(BundleError, match="holds 2 networks"):
        Backbone("shufflenet_v2_x0_5", weights=str(file))
    for content, found in (
        ({"epoch": 3, "args": {}}, "holds epoch, args and no"),
        ([1], "list and no"),
    ):
        torch.save(content, file)
        with pytest.raises(BundleError, match=found):
            Backbone("shufflenet_v2_x0_5", weights=str(file))
    torch.save({"state_dict": models.mobilenet_v2().state_dict(), "epoch": 1}, file)
    with pytest.raises(BundleError, match="no tensors by this network's names"):
        Backbone("shufflenet_v2_x0_5", weights=str(file))


class Attack:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.slow
def test_pickled_code_is_not_run(tmp_path):
    evil = tmp_path / "evil"
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"w": Attack(evil)}, protocol=2))
    torch.save({"w": Attack(evil)}, tmp_path / "z.pth")
    for name in ("w.pth", "z.pth"):
        with pytest.raises(BundleError, match="no file of weights that can be read safely"):
            Backbone("resnet18", weights=str(tmp_path / name))
    assert not evil.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_truncated_or_absent_file_is_a_bundle_error(tmp_path, name):
    file = tmp_path / name
    with pytest.raises(BundleError, match="No weights file"):
        Backbone("resnet18", weights=str(file))
    state = models.mobilenet_v2().state_dict()
    torch.save(state, file) if name == "w.pth" else save_file(state, file)
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(BundleError, match="can be read safely"):
        Backbone("mobilenet_v2", weights=str(file))


@pytest.mark.slow
def test_download_without_internet_says_to_use_a_file(tmp_path):
    code = (
        "from robot_vision.backbones.backbone import Backbone\n"
        "try: Backbone('resnet18', weights='torchvision')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    # A proxy on a closed port is a machine without internet, whatever this one has.
    nowhere = {"https_proxy": "http://127.0.0.1:9", "TORCH_HOME": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=nowhere, capture_output=True, text=True, timeout=120
    )
    last = done.stdout.splitlines()[-1]  # torchvision says first what it downloads
    assert last.startswith("ConfigError torchvision's weights for resnet18 could not"), done.stdout
    assert last.endswith("give the file's path")


# LeNet: 520 + 25,050 + 1,225,500 + 5,010. DroNet: the 320 thousand of the paper; PULP-DroNet's batch norms
# follow the convolutions, which doubles the channels of three of them.
@pytest.mark.parametrize(
    ("name", "size", "features", "feature_map", "count"),
    [
        ("lenet", 28, (500,), (50, 7, 7), 1_256_080),
        ("resnet8", 200, (6272,), (128, 7, 7), 320_930),
        ("pulp_resnet8", 200, (6272,), (128, 7, 7), 321_122),
    ],
)
def test_small_networks_have_the_sizes_of_their_papers(name, size, features, feature_map, count):
    inside = look_inside(name)
    assert inside.input == (1, size, size) and inside.linear_end
    assert inside.nodes[inside.features] == features
    assert inside.nodes[inside.feature_map] == feature_map
    assert parameters(architectures.build(name)) == count


def test_published_weights_of_pulp_dronet_give_the_outputs_of_its_onnx_file(data_dir):
    onnxruntime = pytest.importorskip("onnxruntime")
    weights = data_dir / "weights"
    network = Backbone("pulp_resnet8", (), str(weights / "pulp_dronet_v2.pth"), (200, 200)).eval()
    images = torch.rand(4, 1, 200, 200)
    weight, bias = network.classification_layer
    with torch.no_grad():
        numbers = network(images)["flatten"] @ weight.T + bias
    oracle = onnxruntime.InferenceSession(str(weights / "pulp_dronet_v2.onnx"))
    for image, (steering, collision) in zip(images, numbers, strict=True):
        expected = oracle.run(None, {oracle.get_inputs()[0].name: image[None].numpy()})
        assert float(steering) == pytest.approx(float(expected[0][0]), abs=1e-4)
        assert float(collision.sigmoid()) == pytest.approx(float(expected[1][0]), abs=1e-4)
