"""Grad-CAM and the pictures of the stages."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from robot_vision.cli import main
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import ConfigError
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.images.input import InputSpec
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.studies.explain import all_stages, backbone_alone, draw_layers, grad_cam, layers


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    spec = NetworkSpec(
        "resnet18", InputSpec(64, 96), heads={"classifier": ClassifierSpec(("a", "b", "c"))}
    )
    return MultiHeadNetwork(spec).eval()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)


@pytest.mark.slow
def test_grad_cam_of_a_linear_head_is_the_class_activation_map(network, image):
    """Behind global average pooling and a linear layer, Grad-CAM is CAM (Selvaraju et al., section 3)."""
    heat, label, probability = grad_cam(network, image, "b")
    with torch.no_grad():
        batch = torch.from_numpy(image[None])
        x = network.normalise(batch)
        body = dict(network.backbone.body.named_children())
        x = body["maxpool"](body["relu"](body["bn1"](body["conv1"](x))))
        for name in ("layer1", "layer2", "layer3", "layer4"):
            for block in body[name].children():  # without torchvision's own forward
                y = F.relu(block.bn1(block.conv1(x)))
                y = block.bn2(block.conv2(y))
                skip = block.downsample if hasattr(block, "downsample") else None
                x = F.relu(y + (x if skip is None else torch.nn.Sequential(*skip.children())(x)))
        cam = torch.einsum("c,chw->hw", network.heads["classifier"].linear.weight[1], x[0]).clamp(
            min=0
        )
        expected = cv2.resize((cam / cam.max()).numpy(), (96, 64), interpolation=cv2.INTER_CUBIC)
        p = network(batch)["probabilities"][0, 1]
    assert label == "b" and probability == pytest.approx(float(p), abs=1e-5)
    np.testing.assert_allclose(heat, np.clip(expected, 0, 1), atol=1e-4)


def test_grad_cam_names_a_wrong_label(network, image):
    with pytest.raises(ConfigError, match="'d'.*use one of a, b, c"):
        grad_cam(network, image, "d")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2", "alexnet", "resnet18"])
def test_every_stage_is_shown_with_its_shape(name, image):
    check_stages(name, image)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "googlenet", "resnet50", "resnext101_32x8d"])
def test_every_stage_of_a_large_network_is_shown(name, image):
    check_stages(name, image)


def check_stages(name, image):
    network = backbone_alone(name, None, (64, 96))
    found = layers(all_stages(network), image)
    assert len(found) >= 5
    names = [layer.name for layer in found]
    stages = network.backbone.architecture.stages
    assert names[:5] == list(stages[:5]) and network.taps["classifier"][0] in names
    with torch.no_grad():
        features = network.forward_features(torch.from_numpy(image[None]))["classifier"][0][0]
    last = next(x for x in found if x.name == network.taps["classifier"][0])
    torch.testing.assert_close(last.values, features)
    picture = draw_layers(found, image)
    assert picture.shape[0] == (len(found) + 1) * 76 and picture.std() > 10


@pytest.mark.slow
def test_command_writes_pictures_and_goes_on_after_a_bad_image(tmp_path, image, capsys):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    cv2.imwrite(str(good), image)
    bad.write_bytes(b"no picture")
    out = tmp_path / "out"
    arguments = ["explain", "--backbone", "mobilenet_v2", "--size", "64", str(bad), str(good)]
    assert main([*arguments, "--output", str(out)]) == 1
    assert [p.name for p in out.iterdir()] == ["001-good-layers.png"]
    assert "bad.png" in capsys.readouterr().err


@pytest.mark.slow
def test_network_of_all_stages_answers_the_same(network, image):
    wide = all_stages(network)
    with torch.no_grad():
        batch = torch.from_numpy(image[None])
        torch.testing.assert_close(wide(batch)["probabilities"], network(batch)["probabilities"])
