"""timm's networks as backbones, with random weights, against timm itself."""

import sys

import cv2
import numpy as np
import onnxruntime
import pytest
from network_helpers import Samples, torch
from safetensors.torch import save_file
from train_data import configuration, make_labelled

from robot_vision.backbones.architectures import look_inside
from robot_vision.backbones.backbone import Backbone
from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main
from robot_vision.contract.spec import NetworkSpec
from robot_vision.engines import create_engine
from robot_vision.errors import BundleError, ConfigError
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.images.input import InputSpec
from robot_vision.networks.checkpoint import load_network, save_network
from robot_vision.networks.export import export_bundle
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.optimising.quantise import caution
from robot_vision.pipeline import Pipeline
from robot_vision.training.config import NetworkConfig, TrainingConfig
from robot_vision.training.fit.model import frozen_stages
from robot_vision.training.run import train
from robot_vision.training.ship.quantise import make_variant

timm = pytest.importorskip("timm", reason="timm is not installed (extra `timm`)")
CONVOLUTIONS, TOKENS = "test_resnet", "test_vit"
SALAD = PlaceSpec(pooling="salad", clusters=4, channels=8, token_size=8, hidden=16)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 96, 128, 3), np.uint8)


def theirs(name, **options):
    """timm's own network, whose position embeddings and norms are not at their start."""
    model = timm.create_model(name, **options).eval()
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def saved(model, path):
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return str(path)


def normalised(images, model):
    mean, std = (torch.tensor(model.pretrained_cfg[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    return (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"), [(CONVOLUTIONS, {}), (TOKENS, {"dynamic_img_size": True})]
)
def test_weights_file_gives_timms_logits_at_another_size(name, options, tmp_path):
    model = theirs(name, **options)
    labels = ClassifierSpec(tuple(f"class {i}" for i in range(model.num_classes)))
    spec = NetworkSpec(f"timm/{name}", InputSpec(96, 128), heads={"classifier": labels})
    ours = MultiHeadNetwork(spec, saved(model, tmp_path / "w.safetensors")).eval()
    assert ours.pretrained == {"classifier"}
    with torch.inference_mode():
        expected = model(normalised(IMAGES, model))
        logits = ours.raw(torch.from_numpy(IMAGES))["classifier"]["logits"]
    assert expected.std() > 0.01
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_taps_of_a_transformer_are_its_tokens(tmp_path):
    model = theirs(TOKENS)
    taps = ("blocks.1", "feature_map", "class_token", "features")
    backbone = Backbone(
        f"timm/{TOKENS}", taps, saved(model, tmp_path / "w.safetensors"), (160, 160)
    )
    images = torch.randn(2, 3, 160, 160)
    with torch.inference_mode():
        found = backbone.eval()(images)
        tokens = model.forward_features(images)
        first = model.blocks[1](model.blocks[0](model._pos_embed(model.patch_embed(images))))
    grid = tokens[:, 1:].reshape(2, 10, 10, 64)  # row by row
    torch.testing.assert_close(found["feature_map"], grid.permute(0, 3, 1, 2))
    torch.testing.assert_close(found["class_token"], tokens[:, 0])
    torch.testing.assert_close(found["features"], tokens[:, 0])  # its pooling takes that one
    torch.testing.assert_close(found["blocks.1"].flatten(2).transpose(1, 2), first[:, 1:])
    assert backbone.shapes == {k: tuple(v.shape[1:]) for k, v in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [CONVOLUTIONS, TOKENS, "test_convnext", "test_efficientnet", "swin_tiny_patch4_window7_224"]
    + ["vit_small_patch16_dinov3", "vit_small_patch14_reg4_dinov2", "mobilenetv3_small_050"],
)
def test_shapes_are_those_of_a_run_at_every_tap(name):
    inside = look_inside(f"timm/{name}")
    size = (112, 224) if "patch14" in name else (96, 128)
    size = (224, 224) if name.startswith("swin") else size
    backbone = Backbone(f"timm/{name}", inside.stages, input_size=size).eval()
    with torch.inference_mode():
        found = backbone(torch.randn(1, 3, *size))
    assert backbone.shapes == {tap: tuple(value.shape[1:]) for tap, value in found.items()}
    assert len(backbone.shapes[inside.require_feature_map()]) == 3
    assert len(backbone.shapes[inside.token]) == 1
    strides = {round(inside.input[1] / s[1]) for s in inside.nodes.values() if len(s) == 3}
    assert inside.of_stride(max(strides)) == "feature_map"


@pytest.mark.parametrize("name", [CONVOLUTIONS, TOKENS])
@pytest.mark.parametrize("number", [0, 1, "feature_map", "features"])
def test_nothing_is_built_that_the_taps_do_not_need(name, number):
    tap = look_inside(f"timm/{name}").stages[number] if isinstance(number, int) else number
    backbone = Backbone(f"timm/{name}", (tap,), input_size=(96, 96))
    backbone(torch.randn(2, 3, 96, 96))[tap].square().sum().backward()
    assert not [n for n, p in backbone.body.named_parameters() if p.grad is None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "place"),
    [
        (CONVOLUTIONS, SALAD),
        (TOKENS, SALAD),
        # Rotary position embeddings, cut off behind the first block.
        ("vit_small_patch16_dinov3", PlaceSpec(tap="blocks.0", pooling="cosplace", channels=8)),
    ],
)
def test_bundle_checkpoint_and_variants_answer_as_torch_does(name, place, tmp_path):
    spec = NetworkSpec(f"timm/{name}", InputSpec(96, 128), heads={"place": place})
    network = MultiHeadNetwork(spec).eval()
    with torch.no_grad():
        expected = network(torch.from_numpy(IMAGES))["descriptor"].numpy()
    save_network(network, tmp_path / "network.safetensors")
    again = load_network(tmp_path / "network.safetensors")
    with torch.no_grad():
        np.testing.assert_array_equal(again(torch.from_numpy(IMAGES))["descriptor"], expected)
    bundle = tmp_path / "float32"
    export_bundle(network, bundle, "places", list(IMAGES))
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"))
    for count in (1, 3):
        (found,) = session.run(["descriptor"], {session.get_inputs()[0].name: IMAGES[:count]})
        np.testing.assert_allclose(found, expected[:count], atol=2e-5)

    config = TrainingConfig(heads=("place",))
    path = make_variant(bundle, tmp_path / "int8", "int8-vnni", Samples(IMAGES), config)
    graph = ModelBundle.load(bundle).graph
    assert ("transformer" in caution(graph, "int8-vnni")) == (name != CONVOLUTIONS)
    assert not caution(graph, "float16")
    found = create_engine(ModelBundle.load(path), "onnx", "cpu", threads=1).run(IMAGES)
    assert (found["descriptor"] * expected).sum(axis=1).min() > 0.98


def test_freezing_all_freezes_what_belongs_to_no_layer_too():
    spec = NetworkSpec(f"timm/{TOKENS}", InputSpec(96, 128), heads={"place": SALAD})
    network = MultiHeadNetwork(spec)
    network.backbone.freeze(frozen_stages(network, NetworkConfig(freeze=("all",))))
    assert not any(p.requires_grad for p in network.backbone.parameters())
    network.backbone.freeze(frozen_stages(network, NetworkConfig(freeze_until="blocks.2")))
    learned = {
        n.split(".")[0] for n, p in network.backbone.body.named_parameters() if p.requires_grad
    }
    blocks = {n.split(".")[1] for n, p in network.backbone.body.named_parameters()
              if n.startswith("blocks") and p.requires_grad}  # fmt: skip
    assert learned == {"blocks", "norm"} and blocks == {"3", "4", "5"}
    network.backbone.freeze(())
    assert all(p.requires_grad for p in network.backbone.parameters())


def test_without_timm_one_line_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "timm", None)
    look_inside.cache_clear()
    arguments = ["export", "--torchvision", "timm/test_vit", "--out", str(tmp_path / "bundle")]
    assert main([*arguments, "--weights", "none", "--heads", "place"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0 and "pip install 'robot_vision[timm]'" in said


@pytest.mark.slow
def test_wrong_names_sizes_and_weights_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"timm/vit_small_patch14_dinov2"):
        look_inside("timm/vit_smal_patch14_dinov2")
    with pytest.raises(ConfigError, match="patches of 16 x 16; use 96x112 for instance"):
        Backbone(f"timm/{TOKENS}", input_size=(100, 120))
    with pytest.raises(ConfigError, match="torchvision has no weights for timm/test_vit: say timm"):
        Backbone(f"timm/{TOKENS}", weights="torchvision", input_size=(96, 96))
    with pytest.raises(ConfigError, match="say torchvision"):
        Backbone("resnet18", weights="timm")
    with pytest.raises(BundleError, match="no tensors by this network's names|missing"):
        file = saved(timm.create_model("test_resnet"), tmp_path / "other.safetensors")
        Backbone(f"timm/{TOKENS}", weights=file, input_size=(96, 96))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("efficientvim_m1", "its last ones are 4 tensors"),
        ("pit_ti_224", "timm does not say where its tokens lie"),
        ("deepseek_vit_412m_enc", "does not support classification"),
    ],
)
def test_networks_without_a_map_are_refused_with_the_reason(name, why):
    with pytest.raises(
        ConfigError, match=f"timm/{name} has no features that can be tapped .*{why}"
    ):
        look_inside(f"timm/{name}")


@pytest.mark.slow
def test_a_transformer_trains_with_a_frozen_half_and_ships(tmp_path, capsys):
    config = configuration(
        "image_folder",
        make_labelled(tmp_path / "data"),
        tmp_path / "run",
        network={"backbone": f"timm/{TOKENS}", "freeze_until": "blocks.3"},
        loop={"epochs": 6, "batch_size": 16},
        variants=["int8-vnni"],
    )
    train(config)
    said = capsys.readouterr().err
    print(said)  # docs/training.md has numbers of it
    assert "note: int8-vnni: the backbone is a transformer" in said
    bundle = ModelBundle.load(tmp_path / "run" / "bundle")
    assert bundle.spec.backbone == f"timm/{TOKENS}"
    files = sorted((tmp_path / "data" / "test").rglob("*.png"))
    images = [cv2.imread(str(file))[:, :, ::-1] for file in files]
    with Pipeline.load(bundle.path, engine="onnx", threads=1) as pipeline:
        said = [answer["classifier"].top_k(1)[0].label for answer in pipeline(images)]
    right = [label == file.parent.name for label, file in zip(said, files, strict=True)]
    assert len(files) >= 18 and np.mean(right) > 0.8  # of three colours
