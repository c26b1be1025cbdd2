"""What an answer rests on, and the pictures of the stages."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from robot_vision.bundle.bundle import WEIGHTS, ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.cli import main
from robot_vision.contract.spec import NetworkSpec
from robot_vision.contract.training import Asked
from robot_vision.errors import ConfigError
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.images.input import InputSpec
from robot_vision.images.window import Window
from robot_vision.networks.checkpoint import load_network
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.simulation.drive import evaluation_drive
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.sensor import Sensor, render_frames
from robot_vision.studies.explain import (
    all_stages,
    backbone_alone,
    draw_cam,
    draw_layers,
    explain,
    layers,
    network_input,
)


@pytest.fixture(scope="module")
def network():
    spec = NetworkSpec(
        "resnet18", InputSpec(64, 96), heads={"classifier": ClassifierSpec(("a", "b", "c"))}
    )
    return MultiHeadNetwork(spec).eval()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)


@pytest.mark.slow
def test_a_linear_head_is_explained_by_its_class_activation_map(network, image):
    """Behind global average pooling and a linear layer, HiResCAM is CAM (Draelos and Carin, section 3.4)."""
    asked = Asked(Window.of((64, 96), network.spec.input), "b")
    heat, evidence = explain(network, "classifier", image, asked)
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
    label, probability = evidence.text.split()
    assert label == "b" and float(probability) == pytest.approx(float(p), abs=6e-4)
    np.testing.assert_allclose(heat, np.clip(expected, 0, 1), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["vit_b_16", "timm/vit_tiny_patch16_224"])
def test_an_answer_that_no_feature_map_leads_to_is_refused(backbone):
    """A class token is not computed from the last tokens of the patches."""
    if backbone.startswith("timm/"):
        pytest.importorskip("timm")
    spec = NetworkSpec(backbone, InputSpec(), heads={"classifier": ClassifierSpec(("a", "b"))})
    seen = np.zeros((224, 224, 3), np.uint8)
    with pytest.raises(ConfigError, match="use a convolutional backbone"):
        explain(
            MultiHeadNetwork(spec).eval(),
            "classifier",
            seen,
            Asked(Window.of((224, 224), spec.input)),
        )


@pytest.fixture(scope="module")
def demo():
    bundle = ModelBundle.load(find_model("demo"))
    return load_network(bundle.path / WEIGHTS)


@pytest.fixture(scope="module")
def home():
    """Ten images of the rendered home, as the demo's camera takes them and as its network sees them."""
    frames = evaluation_drive(default_world(), rate_hz=0.2, seed=2)[:12]
    whole = list(render_frames(default_world(), frames, Sensor(seed=2)))
    return whole, [network_input(image, InputSpec(120, 160)) for image in whole]


def hidden(image, heat):
    """The image with the hottest tenth of its pixels in the image's mean colour."""
    hottest = np.argsort(-heat.ravel(), kind="stable")[: heat.size // 10]
    covered = image.copy()
    covered.reshape(-1, 3)[hottest] = image.reshape(-1, 3).mean(axis=0)
    return covered


def somewhere(rng):
    """A heat of as large patches, anywhere."""
    return cv2.resize(rng.random((15, 20), np.float32), (160, 120), interpolation=cv2.INTER_CUBIC)


@pytest.mark.slow
def test_hiding_what_a_class_of_pixels_rests_on_lowers_it_more_than_hiding_as_many_others(
    demo, home
):
    rng, asked_of, lost, elsewhere = np.random.default_rng(0), set(), [], []
    for image in home[1]:
        with torch.no_grad():
            logits = demo.raw(torch.from_numpy(image[None]))["segmentation"]["logits"][0]
        heats = {}
        for k, label in enumerate(demo.spec.heads["segmentation"].labels):
            said = logits.argmax(dim=0) == k
            if said.sum() < 60:
                continue
            asked = Asked(Window.of((240, 320), demo.spec.input), label)
            heats[label], evidence = explain(demo, "segmentation", image, asked)
            np.testing.assert_array_equal(evidence.region, said.numpy())

            def mean(shown, k=k, said=said):
                with torch.no_grad():
                    raw = demo.raw(torch.from_numpy(shown[None]))["segmentation"]
                return float(raw["logits"][0, k][said].mean())

            assert float(evidence.value.detach()) == pytest.approx(mean(image), abs=1e-4)
            lost.append(mean(image) - mean(hidden(image, heats[label])))
            elsewhere.append(
                np.mean([mean(image) - mean(hidden(image, somewhere(rng))) for _ in range(3)])
            )
            asked_of.add(label)
        for one in heats:  # another class rests on other pixels
            for other in heats:
                overlap = np.minimum(heats[one], heats[other]).sum() / heats[one].sum()
                assert one == other or overlap < 0.8
    assert len(lost) >= 12 and len(asked_of) >= 4
    assert np.mean(np.array(lost) > elsewhere) >= 0.8
    assert np.mean(lost) > 1.5 * np.mean(elsewhere) > 0


@pytest.mark.slow
@pytest.mark.parametrize("pixel", [None, (161, 121)])
def test_hiding_what_a_depth_rests_on_changes_it_more_than_hiding_as_many_others(demo, home, pixel):
    rng, changed, elsewhere = np.random.default_rng(0), [], []
    for image in home[1]:
        box = pixel and (*pixel, 1, 1)
        asked = Asked(Window.of((240, 320), demo.spec.input), box=box)
        heat, evidence = explain(demo, "depth", image, asked)
        with torch.no_grad():
            depth = demo(torch.from_numpy(image[None]))["depth"][0].numpy()
        if pixel is None:
            assert 12 <= evidence.region.sum() <= 40  # a hundredth, and what is at the range's end
            assert depth[evidence.region].max() <= depth[~evidence.region].min()
        else:
            assert np.argwhere(evidence.region).tolist() == [[15, 20]]

        def log(shown, region=evidence.region):
            with torch.no_grad():
                raw = demo.raw(torch.from_numpy(shown[None]))["depth"]["log_depth"]
            return float(raw[0][region].mean())

        changed.append(abs(log(hidden(image, heat)) - log(image)))
        elsewhere.append(
            np.mean([abs(log(hidden(image, somewhere(rng))) - log(image)) for _ in range(3)])
        )
    assert np.mean(np.array(changed) > elsewhere) >= 0.7
    assert np.mean(changed) > 1.25 * np.mean(elsewhere) > 0


@pytest.mark.slow
def test_what_is_said_in_a_box_is_explained(demo, home):
    """The cells of the map that show the box, and of a class those of which it is said."""
    image, box = home[1][0], (80, 160, 80, 60)
    asked = Asked(Window.of((240, 320), demo.spec.input), box=box)
    inside = np.zeros((30, 40), bool)
    inside[20:28, 10:20] = True
    _, of_depth = explain(demo, "depth", image, asked)
    with torch.no_grad():
        said = demo(torch.from_numpy(image[None]))
    assert inside[of_depth.region].all() and of_depth.region.sum() == pytest.approx(80, abs=20)
    metres = np.median(said["depth"][0].numpy()[of_depth.region])
    assert of_depth.text == f"{metres:.2f} m in the region"
    _, of_class = explain(demo, "segmentation", image, asked)
    ids = said["class_ids"][0].numpy()
    (only,) = set(ids[of_class.region].tolist())
    assert only == np.bincount(ids[of_depth.region]).argmax()
    share = 100 * of_class.region.sum() / of_depth.region.sum()
    assert of_class.text.endswith(f"of {share:.1f} % of the pixels in the region")


@pytest.mark.slow
def test_picture_names_the_head_and_has_a_scale(demo, home):
    whole, image = home[0][0], home[1][0]
    heat, evidence = explain(
        demo, "depth", image, Asked(Window.of(whole.shape[:2], demo.spec.input))
    )
    pictures = [draw_cam(image, heat, evidence, name) for name in ("depth", "")]
    assert (pictures[0][:30] != pictures[1][:30]).any()
    np.testing.assert_array_equal(pictures[0][30:], pictures[1][30:])
    scale = pictures[0][-42 + 4 : -42 + 16, pictures[0].shape[1] // 2 + 6 : -6]
    assert np.abs(scale[0, 0].astype(int) - 128).max() <= 1  # nothing is laid over the image
    assert scale[0, -1, 0] > scale[0, -1, 2] and (scale[0] == scale[-1]).all()


@pytest.mark.slow
def test_command_explains_by_the_heads_that_can_be_asked(tmp_path, home, capsys):
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"{i}.png"), home[0][i][..., ::-1])
    out, files = tmp_path / "out", [str(tmp_path / f"{i}.png") for i in range(2)]
    arguments = ["explain", "--model", "demo", "--output"]
    assert main([*arguments, str(out / "all"), *files]) == 0
    heads = ("classifier", "depth", "layers", "segmentation")
    names = [f"00{i}-{i}-{word}.png" for i in range(2) for word in heads]
    assert sorted(p.name for p in (out / "all").iterdir()) == names
    assert main([*arguments, str(out / "wall"), "--label", "wall", files[0]]) == 0
    names = ["000-0-layers.png", "000-0-segmentation.png"]
    assert sorted(p.name for p in (out / "wall").iterdir()) == names
    assert main([*arguments, str(out / "pixel"), "--pixel", "30", "200", files[0]]) == 0
    assert sorted(p.name for p in (out / "pixel").iterdir()) == ["000-0-depth.png", *names]
    assert (
        main([*arguments, str(out / "region"), "--region", "20", "190", "40", "30", files[0]]) == 0
    )
    assert sorted(p.name for p in (out / "region").iterdir()) == ["000-0-depth.png", *names]
    said = capsys.readouterr().err
    assert said.count("note: no picture of pose, place: nothing says what it rests on") == 1
    for refused, words in (
        (["--label", "dorway"], "did you mean 'doorway'"),
        (["--pixel", "320", "0"], "320 x 240"),
        (["--region", "300", "0", "30", "5"], "Region 300 0 30 5: the network sees no such pixels"),
        (["--region", "3", "0", "0", "5"], "Region 3 0 0 5"),
        (["--label", "kitchen", "--pixel", "1", "1"], "No head of this model"),
    ):
        assert main([*arguments, str(out / "none"), files[0], *refused]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2", "alexnet", "resnet18"])
def test_every_stage_is_shown_with_its_shape(name, image):
    check_stages(name, image)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "resnet50"])
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


@pytest.mark.slow
def test_command_explains_an_image_of_a_recording(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3)).astype(np.uint8)
    with RecordingWriter(tmp_path / "drive") as bag:
        for second, image in enumerate(images):
            bag.image("/camera/image_raw", (1_700_000_000 + second) * 10**9, "camera", image)
    cv2.imwrite(str(tmp_path / "third.png"), images[2, ..., ::-1])
    words = ["explain", "--backbone", "mobilenet_v2", "--size", "64", "--output"]

    bag, out = str(tmp_path / "drive"), tmp_path / "why"
    assert main([*words, str(out), "--start", "1.5", bag, str(tmp_path / "third.png")]) == 0
    drawn = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(drawn) == ["000-drive-1.5s-layers.png", "001-third-layers.png"]
    assert drawn["000-drive-1.5s-layers.png"] == drawn["001-third-layers.png"]

    assert main([*words, str(out), "--start", "9", bag]) == 1
    assert "lasts 3.000 s" in capsys.readouterr().err
    assert main([*words, str(out), "--start", "1", str(tmp_path / "third.png")]) == 2
    assert "--start belongs to a rosbag or video" in capsys.readouterr().err
