import shutil
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from network_helpers import (
    BIG,
    ClassifierSpec,
    PlaceSpec,
    PoseSpec,
    photographs,
    seed_networks,
    small_network,
    tiny_network,
    torch,
)
from torchvision.models import vision_transformer

from robot_vision import cli
from robot_vision.backbones.architectures import _cut, look_inside, shapes_at
from robot_vision.backbones.exact_pooling import ExactPool
from robot_vision.bundle.bundle import CARD, GRAPH, WEIGHTS, ModelBundle
from robot_vision.bundle.signature import GraphSignature, read_signature
from robot_vision.cli.export import read_labels
from robot_vision.errors import BundleError, ConfigError
from robot_vision.networks.checkpoint import load_network, save_network
from robot_vision.networks.export import export_bundle, export_graph, prepare_images
from robot_vision.networks.verification import _largest, verify_graph


def outputs_of(graph, batch):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": batch}), strict=True))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network with three heads, and its bundle."""
    network = tiny_network(place=PlaceSpec(tap="layer2", clusters=4, whitened_size=16))
    out = tmp_path_factory.mktemp("bundles") / "three"
    training, metrics = {"data": "photographs"}, {"top1": 0.25, "pose": {"median_m": 1.5}}
    return network, export_bundle(network, out, "three-heads", photographs(), training, metrics)


@pytest.mark.parametrize(
    "name", seed_networks(heavy=(*BIG, "alexnet", "resnet50", "googlenet", "mobilenet_v2"))
)
@pytest.mark.slow
def test_every_seed_architecture_exports_and_verifies(name, tmp_path):
    # Of the heavy ones the part with each kind of layer: what follows are more of the same, or 0.5 GB of
    # AlexNet's last layers.
    tap = {"vgg16": "features", "resnext101_32x8d": "layer2"}.get(name, "")
    heads = {
        "classifier": ClassifierSpec(("a", "b", "c"), tap=tap),
        "pose": PoseSpec(tap=tap, hidden=16, reduce_channels=4),
        "place": PlaceSpec(tap=tap, clusters=4),
    }
    network = small_network(backbone=name, size=80, **heads)
    bundle = export_bundle(network, tmp_path / "b", name, photographs())
    batch = prepare_images(photographs() * 2, network.spec.input)[:5]
    actual = outputs_of(bundle.graph, batch)  # five: not a batch size that was traced or verified
    with torch.inference_mode():
        expected = network(torch.from_numpy(batch))
    for output, value in expected.items():
        np.testing.assert_allclose(
            actual[output], value, atol=1e-3 * float(value.abs().max()), err_msg=output
        )
    shutil.rmtree(bundle.path)


def test_bundle_is_complete_and_loads(exported):
    network, bundle = exported
    loaded = ModelBundle.load(bundle.path)
    assert loaded.sha256 == bundle.sha256
    assert loaded.spec == network.spec == bundle.spec
    assert set(loaded.files) == {GRAPH, WEIGHTS, "labels.txt", CARD}
    assert (loaded.name, loaded.metrics["top1"]) == ("three-heads", 0.25)
    card = (bundle.path / "README.md").read_text()
    assert "# three-heads" in card and "median_m: 1.5" in card and "data: photographs" in card
    assert [p.name for p in bundle.path.parent.iterdir()] == [bundle.path.name]


def test_bundles_weights_are_the_network(exported):
    network, bundle = exported
    loaded = load_network(bundle.path / "weights.safetensors")
    state = loaded.state_dict()
    assert all(value.equal(state[key]) for key, value in network.state_dict().items())
    batch = torch.from_numpy(prepare_images(photographs(), network.spec.input))
    with torch.inference_mode():
        for name, value in network(batch).items():
            torch.testing.assert_close(loaded(batch)[name], value, rtol=1e-5, atol=1e-6)


def test_graph_takes_uint8_pixels_and_any_batch(exported):
    network, bundle = exported
    signature = read_signature(bundle.graph, "graph")
    assert signature.difference(GraphSignature.of(network.spec)) == ""
    for size in (1, 7):
        out = outputs_of(bundle.graph, np.zeros((size, 64, 64, 3), np.uint8))
        assert {len(value) for value in out.values()} == {size}
    onnx.checker.check_model(bundle.graph, full_check=True)


def test_pixels_are_cast_before_anything_else(exported):
    """TensorRT takes uint8 for an input alone; a transposition of it would stay outside of TensorRT."""
    model = onnx.load_from_string(exported[1].graph)
    assert [n.op_type for n in model.graph.node if "images" in n.input] == ["Cast"]


def test_batch_norms_are_folded_and_nothing_is_outside(exported):
    model = onnx.load_from_string(exported[1].graph)
    assert not {n.op_type for n in model.graph.node} & {
        "BatchNormalization",
        "Dropout",
        "If",
        "Loop",
    }
    assert not any(t.external_data for t in model.graph.initializer)


def test_openvino_gives_the_same(exported):
    openvino = pytest.importorskip("openvino", reason="needs openvino")
    _, bundle = exported
    batch = prepare_images(photographs(), bundle.spec.input)
    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(bundle.graph), "CPU", hints)
    result = compiled(batch)
    for name, expected in outputs_of(bundle.graph, batch).items():
        np.testing.assert_allclose(result[name], expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.slow
def test_network_is_left_as_it_was(tmp_path):
    network = tiny_network(pose=None, place=None).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    export_bundle(network, tmp_path / "b", "b", photographs())
    assert network.training
    assert all(v.equal(before[k]) for k, v in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "output"),
    [
        ("heads.classifier.linear.bias", "probabilities"),
        ("heads.pose.position.bias", "position"),
        ("heads.pose.quaternion.bias", "orientation_xyzw"),
        ("heads.pose.log_variance.bias", "pose_covariance"),
        ("heads.place.centres", "descriptor"),
    ],
)
def test_perturbed_graph_is_refused_by_the_outputs_name(part, output):
    network = tiny_network()
    batch = prepare_images(photographs(), network.spec.input)
    graph = export_graph(network, batch)
    assert max(verify_graph(network, graph, batch).values()) < 1e-3
    model = onnx.load_from_string(graph)
    touched = [t for t in model.graph.initializer if t.name.endswith(part)]
    assert len(touched) == 1
    values = onnx.numpy_helper.to_array(touched[0]).copy()
    values.flat[0] += 0.1
    touched[0].CopyFrom(onnx.numpy_helper.from_array(values, touched[0].name))
    with pytest.raises(BundleError, match=rf"output '{output}' differs .* on image \d in a batch"):
        verify_graph(network, model.SerializeToString(), batch)


@pytest.mark.slow
def test_answer_that_depends_on_the_batch_is_refused_and_nothing_is_written(tmp_path):
    network = tiny_network(pose=None, place=None)
    network.heads["classifier"].register_forward_hook(
        lambda module, args, out: {"logits": 9 * (out["logits"] - out["logits"].mean(0))}
    )
    with pytest.raises(
        BundleError, match="output 'probabilities' differs.*image 0 in a batch of 1"
    ):
        export_bundle(network, tmp_path / "b", "b", photographs())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_network_that_is_not_finite_is_refused(tmp_path):
    network = tiny_network(pose=None, place=None)
    with torch.no_grad():
        network.heads["classifier"].linear.bias[0] = float("nan")
    with pytest.raises(BundleError, match="output 'probabilities' is not finite on image 0"):
        export_bundle(network, tmp_path / "b", "b", photographs())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_whole_numbers_may_round_to_their_neighbour():
    sure = np.full((2, 3, 3), 36, np.uint8)  # a confidence of many classes before training
    other = sure.copy()
    other[1, 0, 0] += 1
    assert _largest("relative", other, sure, 36.0)[0] == 0
    other[1, 0, 0] += 1
    assert _largest("relative", other, sure, 36.0) == (1 / 36, 1)
    assert _largest("share", other, sure, 36.0) == (1 / 9, 1)


@pytest.mark.slow
def test_opposite_quaternions_are_one_rotation():
    network = tiny_network(classifier=None, place=None)
    with torch.no_grad():  # w = 0 exactly: whichever sign rounding gives
        network.heads["pose"].quaternion.weight[3] = 0
        network.heads["pose"].quaternion.bias[3] = 0
    batch = prepare_images(photographs(), network.spec.input)
    graph = export_graph(network, batch)
    with torch.no_grad():
        network.heads["pose"].quaternion.weight.neg_()
        network.heads["pose"].quaternion.bias.neg_()
    assert verify_graph(network, graph, batch)["orientation_xyzw"] < 1e-3


@pytest.mark.parametrize(("size", "bins"), [((2, 3), (6, 6)), ((9, 14), (7, 7)), ((5, 8), (3, 8))])
def test_uneven_pooling_is_exact(size, bins):
    x = torch.randn(2, 3, *size)
    expected = torch.nn.functional.adaptive_avg_pool2d(x, bins)
    torch.testing.assert_close(ExactPool(size, bins)(x), expected)


@pytest.mark.slow
def test_existing_directory_is_replaced_only_with_force_and_only_a_bundle(tmp_path):
    network, images = tiny_network(pose=None, place=None), photographs()[:1]
    out = tmp_path / "b"
    first = export_bundle(network, out, "first", images)
    with pytest.raises(BundleError, match="exists already: use --force"):
        export_bundle(network, out, "second", images)
    second = export_bundle(network, out, "second", images, force=True)
    assert first.sha256 != second.sha256
    assert ModelBundle.load(out).name == "second"
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="not a model bundle, so it is not replaced"):
        export_bundle(network, home, "b", images, force=True)
    assert (home / "thesis.tex").read_text() == "years of work"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "home"]


def test_export_without_images_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="real images"):
        export_bundle(tiny_network(), tmp_path / "b", "b", [])


@pytest.mark.slow
def test_imagenet_bundle_recognises_real_photographs(tmp_path, data_dir, capsys):
    weights = data_dir / "weights/mobilenet_v2_imagenet1k.pth"
    arguments = ["--torchvision", "mobilenet_v2", "--weights", str(weights)]
    assert cli.main(["export", *arguments, "--out", str(tmp_path / "imagenet")]) == 0
    assert "probabilities: (N, 1000)" in capsys.readouterr().out
    bundle = ModelBundle.load(tmp_path / "imagenet")
    labels = bundle.spec.heads["classifier"].labels
    out = outputs_of(bundle.graph, prepare_images(photographs(), bundle.spec.input))
    top = [[labels[i] for i in np.argsort(-p)[:5]] for p in out["probabilities"]]
    assert set(top[0]) & {"tabby", "tiger cat", "Egyptian cat"}, top[0]
    assert set(top[1][:2]) & {"espresso", "cup", "coffee mug"}, top[1]
    assert set(top[2]) & {"missile", "projectile"}, top[2]
    assert out["known_score"] == pytest.approx(out["probabilities"].max(1))


def test_imagenet_labels_are_a_thousand_different_ones():
    labels = read_labels("imagenet")
    assert len(labels) == len(set(labels)) == 1000
    assert (labels[134], labels[517]) == ("crane (bird)", "crane (machine)")


@pytest.mark.slow
def test_checkpoint_is_exported_from_the_command_line(tmp_path, capsys):
    network = tiny_network(pose=None)
    save_network(network, tmp_path / "run.safetensors", {"epochs": 3}, {"top1": 0.9})
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, image in enumerate(photographs()):
        cv2.imwrite(str(folder / f"{i}.png"), image[..., ::-1])
    command = ["export", str(tmp_path / "run.safetensors"), "--out", str(tmp_path / "robot")]
    assert cli.main([*command, "--images", str(folder)]) == 0
    bundle = ModelBundle.load(tmp_path / "robot")
    assert (bundle.name, bundle.training, bundle.metrics) == ("robot", {"epochs": 3}, {"top1": 0.9})
    assert "verifying on 3 real images" in capsys.readouterr().out
    assert cli.main([*command, "--images", str(folder)]) == 2
    assert "exists already: use --force" in capsys.readouterr().err
    assert cli.main([*command, "--images", str(folder), "--force", "--name", "again"]) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["there"], "there exists already: use --force"),
        (["there", "--force"], "is not a model bundle"),
        (["new", "--monte-carlo", "1"], "epistemic passes is 1"),
        (["there/file/new"], "--out"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_torch_is_imported(
    tmp_path, monkeypatch, capsys, given, message
):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    (tmp_path / "run.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)  # its import would be the error
    assert cli.main(["export", "run.safetensors", "--out", *given]) == 2
    assert message in capsys.readouterr().err
    assert cli.main(["export", "no.safetensors", "--out", "new"]) == 2
    assert "No checkpoint at 'no.safetensors'" in capsys.readouterr().err
    assert cli.main(["export", "run.pth", "--out", "new"]) == 2
    assert "checkpoints are .safetensors" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir() if p.name == "new"] == []


@pytest.mark.slow
def test_place_head_from_torchvision_is_initialised_on_the_images(tmp_path, capsys):
    labels = tmp_path / "labels.txt"
    labels.write_text("kitchen\noffice\n")
    command = ["export", "--torchvision", "resnet18", "--weights", "none", "--input", "96x128"]
    command += ["--heads", "classifier,pose,place", "--clusters", "8", "--labels", str(labels)]
    assert cli.main([*command, "--out", str(tmp_path / "b")]) == 0
    assert "measuring speed only" in capsys.readouterr().err
    bundle = ModelBundle.load(tmp_path / "b")
    assert tuple(bundle.spec.heads) == ("classifier", "pose", "place")
    assert (bundle.spec.input.height, bundle.spec.input.width) == (96, 128)
    assert bundle.spec.heads["place"].descriptor_size == 8 * 512
    head = load_network(bundle.path / "weights.safetensors").heads["place"]
    # Initialised, the assignment follows from the centres (a random one does not).
    weight, centres = head.assignment.weight.detach()[..., 0, 0], head.centres.detach()
    torch.testing.assert_close(weight / weight.norm(), centres / centres.norm())
    assert "random" in (bundle.path / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--torchvision", "resnet19"], "Unknown backbone 'resnet19'"),
        (["--torchvision", "resnet18", "--heads", "vlad"], "Unknown head 'vlad'"),
        (["--torchvision", "resnet18", "--input", "big"], "--input is 'big'"),
        (["--torchvision", "resnet18", "--labels", "absent.txt"], "Labels 'absent.txt' cannot"),
        (["--torchvision", "resnet18", "--weights", "absent.pth"], "No weights file 'absent.pth'"),
        (["absent.safetensors"], "No checkpoint at 'absent.safetensors'"),
        (["model.pth"], "checkpoints are .safetensors"),
        ([""], "checkpoints are .safetensors"),
        (["--torchvision", "resnet18", "--name", "a b"], "name is 'a b': a bundle's has letters"),
        (["--from", ""], "No weights file '.'"),
        (["--xfeat", ""], "No weights file '.'"),
        (["--torchvision", "resnet18", "--images", "absent"], "--images 'absent' is no folder"),
    ],
)
def test_wrong_argument_is_one_line(arguments, message, tmp_path, capsys):
    photographs()
    assert cli.main(["export", *arguments, "--out", str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_where_features_cannot_be_written_is_said_before_the_work(capsys):
    assert cli.main(["export", "--xfeat", "--out", "/proc/none/xfeat.onnx"]) == 2
    assert "--out /proc/none cannot be made" in capsys.readouterr().err


@pytest.fixture
def two_layers(monkeypatch):
    """Lets a vision transformer have two of its twelve equal layers; nobody remembers it afterwards."""
    kind, remembered = vision_transformer.VisionTransformer, (look_inside, shapes_at, _cut)
    short = lambda **settings: kind(**{**settings, "num_layers": 2})  # noqa: E731
    monkeypatch.setattr(vision_transformer, "VisionTransformer", short)
    for function in remembered:
        function.cache_clear()
    yield
    for function in remembered:
        function.cache_clear()


@pytest.mark.slow
def test_transformer_with_a_classifier_exports(tmp_path, two_layers):
    network = small_network(backbone="vit_b_32", size=224, pose=None, place=None)
    assert export_bundle(network, tmp_path / "b", "vit", photographs()[:1]).files
    assert torch.backends.mha.get_fastpath_enabled()
