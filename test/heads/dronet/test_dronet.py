"""DroNet: loss, measures, the published weights, and training from tables and bags to a verdict."""

import csv
import json
import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from train_data import configuration

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main
from robot_vision.contract import registry
from robot_vision.contract.prediction import Prediction
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError
from robot_vision.evaluation.measure.metrics import score_recording
from robot_vision.evaluation.merge import document
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.messages.types import message_types
from robot_vision.pipeline import Pipeline
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.truth.tracks import NumberTrack, Truth

HEAD = registry.head("dronet")
WEIGHTS = Path(os.environ.get("ROBOT_VISION_DATA", "../shared/data")) / "weights"
GREY = {"height": 28, "width": 28, "channels": 1}


def picture(steering, blocked, rng):
    """A dark road with a bright line, to the left where steering is positive; a bright block in the way."""
    image = rng.normal(60, 8, (28, 28, 3))
    left = round(13 - 10 * steering)
    image[14:, left : left + 3] += 120
    if blocked:
        image[2:11, 6:22] += 130
    return np.clip(image, 0, 255).astype(np.uint8)


def frames(count, seed=0):
    """Yields pictures with their steering and whether something is in the way."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        steering, blocked = float(rng.uniform(-1, 1)), bool(rng.integers(0, 2))
        yield picture(steering, blocked, rng), steering, blocked


# Loss


def test_weight_of_collisions_grows_as_in_the_paper():
    pytest.importorskip("torch")
    loss = HEAD.trainer().make_loss("dronet")
    found = [loss.weight(epoch) for epoch in (0, 9, 10, 11, 20, 1000)]
    expected = [0, 0, 0, 1 - math.exp(-0.1), 1 - math.exp(-1), 1]
    np.testing.assert_allclose(found, expected)
    assert [loss.kept(32, 10 / 32, epoch) for epoch in (0, 30, 60, 10_000)] == [32, 32, 18, 10]
    assert loss.kept(1, 5 / 32, 10_000) == 1


@pytest.mark.parametrize("epoch", [0, 15, 60, 1000])
def test_loss_is_that_of_the_hardest_examples(epoch):
    torch = pytest.importorskip("torch")
    loss = HEAD.trainer().make_loss("dronet")
    raw = {"steering": torch.randn(32), "collision_logit": torch.randn(32)}
    steering, collision = torch.rand(32) * 2 - 1, (torch.rand(32) > 0.5).float()
    steering[16:], collision[:16] = torch.nan, torch.nan
    batch = {"steering": steering, "collision": collision, "epoch": torch.tensor(epoch)}
    squares = sorted(((raw["steering"] - steering)[:16] ** 2).tolist(), reverse=True)
    p = torch.sigmoid(raw["collision_logit"])[16:]
    entropies = sorted(
        torch.where(collision[16:] == 1, -p.log(), -(1 - p).log()).tolist(), reverse=True
    )
    mined = max(0.0, 1 - math.exp(-(epoch - 30) / 30))
    k = round(32 - 22 * mined), round(32 - 27 * mined)
    weight = max(0.0, 1 - math.exp(-(epoch - 10) / 10))
    expected = sum(squares[: k[0]]) / k[0] + weight * sum(entropies[: k[1]]) / k[1]
    value = loss(raw, batch)
    assert float(value.total) == pytest.approx(expected, rel=1e-5)
    assert float(value.parts["collision_weight"]) == pytest.approx(weight)


@pytest.mark.parametrize("settings", [{"decay": 0}, {"hard_steering": 0}, {"hard_collision": 1.5}])
def test_wrong_settings_of_the_loss_are_refused(settings):
    pytest.importorskip("torch")
    with pytest.raises(ConfigError, match=f"dronet loss: {next(iter(settings))} is"):
        HEAD.trainer().make_loss("dronet", **settings)


# Measures


def judged(head, steering, collision, true_steering, true_collision):
    stamps = (np.arange(len(steering)) * 1e8).astype(np.int64)
    answers = [head.Answer(s, c) for s, c in zip(steering, collision, strict=True)]
    said = [Prediction({head.name: answer}) for answer in answers]
    found = Predictions.of(stamps, said, "drive", bound=[(head, head.Spec())])
    numbers = {}
    for word, true in (("steering", true_steering), ("collision", true_collision)):
        known = np.isfinite(true)
        if not known.any():
            continue
        numbers[head.key(word)] = NumberTrack.held(stamps[known], true[known], hold_ns=0)
    settings = EvaluationSettings(resamples=20)
    scores = score_recording(found, Truth(numbers=numbers), settings, bound=[(head, head.Spec())])
    return document(scores, settings)


@pytest.mark.parametrize("name", ["dronet", "front"])
def test_measures_agree_with_scikit_learn(name):
    sklearn = pytest.importorskip("sklearn.metrics")
    rng, head = np.random.default_rng(0), HEAD.named(name)
    steering, collision = rng.uniform(-1, 1, 200), rng.uniform(0, 1, 200)
    true = np.clip(steering + rng.normal(0, 0.3, 200), -1, 1)
    hit = (collision + rng.normal(0, 0.3, 200) > 0.6).astype(float)
    true[::2], hit[1::2] = np.nan, np.nan
    metrics = judged(head, steering, collision, true, hit)
    turned, known = np.isfinite(true), np.isfinite(hit)

    def expected(said, p):
        return {
            "rmse": sklearn.mean_squared_error(true[turned], said) ** 0.5,
            "explained_variance": sklearn.explained_variance_score(true[turned], said),
            "accuracy": sklearn.accuracy_score(hit[known], p >= 0.5),
            "f1": sklearn.f1_score(hit[known], p >= 0.5),
            "auroc": sklearn.roc_auc_score(hit[known], p),
        }

    draws = [np.random.default_rng(0) for _ in range(2)]
    answers = {
        "": (steering[turned], collision[known]),
        "constant": (np.full(100, true[turned].mean()), np.full(100, hit[known].mean() > 0.5)),
        "random": (
            draws[0].normal(true[turned].mean(), true[turned].std(), 100),
            draws[1].integers(0, 2, 100),
        ),
    }
    for baseline, answer in answers.items():
        wanted, found = expected(*answer), {}
        for section in ("steering", "collision"):
            part = metrics[head.key(section)]
            assert part["frames"] == 100
            found |= part["baselines"][baseline] if baseline else part
        for key, value in wanted.items():
            assert found[key]["value"] == pytest.approx(value, abs=1e-6), (baseline, key)
    assert expected(*answers["random"])["explained_variance"] < -0.5
    assert metrics[head.key("steering")]["rmse"]["low"] is not None


def test_steering_without_collisions_is_judged_alone():
    none = np.full(20, np.nan)
    metrics = judged(HEAD, np.zeros(20), np.ones(20), np.linspace(-1, 1, 20), none)
    assert metrics["steering"]["frames"] == 20 and metrics["collision"] is None


# The published network


@pytest.mark.slow
def test_published_weights_give_the_published_outputs(tmp_path):
    torch = pytest.importorskip("torch")
    onnxruntime = pytest.importorskip("onnxruntime")
    if not WEIGHTS.is_dir():
        pytest.skip("no weights: set ROBOT_VISION_DATA to the folder above them")
    arguments = ["--torchvision", "pulp_resnet8", "--heads", "dronet", "--input", "200x200"]
    weights = ["--weights", str(WEIGHTS / "pulp_dronet_v2.pth")]
    assert main(["export", *arguments, *weights, "--out", str(tmp_path / "bundle")]) == 0
    bundle = ModelBundle.load(tmp_path / "bundle")
    assert "not trained" not in (tmp_path / "bundle/README.md").read_text()
    rng = np.random.default_rng(0)
    grey = [
        cv2.GaussianBlur(rng.integers(0, 256, (200, 200), np.uint8), (0, 0), s) for s in (1, 4, 9)
    ]
    own = onnxruntime.InferenceSession(bundle.graph, providers=["CPUExecutionProvider"])
    theirs = onnxruntime.InferenceSession(
        str(WEIGHTS / "pulp_dronet_v2.onnx"), providers=["CPUExecutionProvider"]
    )
    for image in grey:
        said = own.run(
            ["steering", "collision"], {"images": np.repeat(image[None, ..., None], 3, 3)}
        )
        wanted = theirs.run(None, {"input.1": image[None, None].astype(np.float32) / 255})
        np.testing.assert_allclose(np.ravel(said), np.ravel(wanted), atol=1e-4)
    assert torch is not None


@pytest.mark.parametrize(("backbone", "side"), [("lenet", 28), ("resnet8", 200)])
def test_a_last_layer_of_two_numbers_goes_to_the_head_that_says_the_same(backbone, side, tmp_path):
    """Two classes are no steering, and steering and collision are no two classes."""
    torch = pytest.importorskip("torch")
    from robot_vision.backbones.small import LeNet, ResNet8
    from robot_vision.contract.spec import NetworkSpec
    from robot_vision.heads.classifier.spec import ClassifierSpec
    from robot_vision.images.input import InputSpec
    from robot_vision.networks.network import MultiHeadNetwork

    whole = LeNet(2) if backbone == "lenet" else ResNet8()
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    size = InputSpec(side, side, channels=1)
    heads = {"classifier": ClassifierSpec(("left", "right")), "dronet": HEAD.Spec()}
    network = MultiHeadNetwork(NetworkSpec(backbone, size, heads), str(tmp_path / "weights.pth"))
    (taken,) = network.pretrained
    assert taken == ("classifier" if backbone == "lenet" else "dronet")
    last = whole.fc2 if backbone == "lenet" else whole.fc
    assert torch.equal(network.heads[taken].linear.weight, last.weight)


# Training


def table(root, count=240):
    """Writes pictures of which each has one of the two truths, in a table."""
    root.mkdir(parents=True)
    with (root / "drive.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "steering", "collision"])
        for i, (image, steering, blocked) in enumerate(frames(count)):
            cv2.imwrite(str(root / f"{i:03d}.png"), image)
            rows.writerow(
                [f"{i:03d}.png", *((f"{steering:.3f}", "") if i % 2 else ("", int(blocked)))]
            )
    return root / "drive.csv"


def dronet(kind, path, output, **groups):
    settings = {
        "heads": ["dronet"],
        "network": {
            "backbone": "lenet",
            "weights": None,
            "input": GREY,
            "dronet": {"dropout": 0.1},
        },
        "dronet": {"settings": {"start_epoch": 2, "decay": 1.0}},
        "loop": {"epochs": 25, "batch_size": 24, "threads": 1, "accelerator": "cpu"},
        "augmentation": {"name": "none"},
        "baselines": ["constant", "random"],
    }
    return configuration(kind, path, output, **{**settings, **groups})


def drive(path, count=60, seed=5):
    """Writes a bag of pictures with the twist that steers, and labels of what is in the way."""
    types = message_types().types
    vector, twist = types["geometry_msgs/msg/Vector3"], types["geometry_msgs/msg/Twist"]
    with RecordingWriter(path) as bag:
        for i, (image, steering, blocked) in enumerate(frames(count, seed)):
            ns = 1_700_000_000 * 10**9 + i * 10**8
            label = types["std_msgs/msg/String"]("collision" if blocked else "free")
            turn = twist(vector(0.0, 0.0, 0.0), vector(0.0, 0.0, 2 * steering))
            bag.write("/cmd_vel", ns, turn)
            bag.write("/label", ns, label)
            bag.image("/camera/image_raw", ns, "camera", image)
    return path


def facts(steering, collision):
    torch = pytest.importorskip("torch")
    from robot_vision.contract.training import Features

    targets = {
        "steering": torch.tensor(steering),
        "collision": torch.tensor(collision),
        "sequence": torch.zeros(len(steering), dtype=torch.int64),
    }
    return Features(targets, lambda rows: ())


def test_head_begins_at_the_average_of_what_is_known():
    torch = pytest.importorskip("torch")
    nan = math.nan
    module = HEAD.trainer().module(HEAD.Spec(), [(600,)]).eval()
    before = [p.clone() for p in module.parameters()]
    HEAD.trainer().prepare(module, HEAD.Spec(), facts([nan, nan], [nan, nan]), 0)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    seen = facts([0.5, nan, -0.1, 0.2], [nan, 1.0, 0.0, 0.0])
    HEAD.trainer().prepare(module, HEAD.Spec(), seen, 0)
    said = module.decode(module(torch.randn(5, 600)))
    torch.testing.assert_close(said["steering"], torch.full((5,), 0.2))
    torch.testing.assert_close(said["collision"], torch.full((5,), 1 / 3))
    HEAD.trainer().prepare(
        module, HEAD.Spec(), facts([0.1], [1.0]), 0
    )  # one word alone is no certainty
    assert module.decode(module(torch.randn(1, 600)))["collision"].item() == pytest.approx(0.5)


@pytest.mark.slow
def test_last_layer_that_came_with_the_weights_is_what_training_begins_with(tmp_path):
    torch = pytest.importorskip("torch")
    from robot_vision.backbones.small import ResNet8
    from robot_vision.training.config import resolved
    from robot_vision.training.fit.model import build_network, prepare_heads
    from robot_vision.training.setup import facts_of, open_splits, sample_set
    from robot_vision.training.ship.evaluate import Views

    whole = ResNet8()
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    for weights in (str(tmp_path / "weights.pth"), None):
        network = {
            "backbone": "resnet8",
            "weights": weights,
            "input": {"height": 200, "width": 200, "channels": 1},
        }
        path = tmp_path / f"data-{weights is None}"
        config = resolved(dronet("labels_csv", table(path, 24), tmp_path / "run", network=network))
        splits = open_splits(config)
        built = build_network(config, facts_of(config, splits))
        prepare_heads(config, built, Views(sample_set(config, splits, "train", built.spec)))
        weight = built.heads["dronet"].linear.weight
        assert torch.equal(weight, torch.zeros_like(weight) if weights is None else whole.fc.weight)


@pytest.mark.slow
def test_dronet_learns_from_a_table_and_is_judged_on_a_bag(tmp_path, capsys):
    from robot_vision.training.run import train

    data = table(tmp_path / "data")
    result = train(dronet("labels_csv", data, tmp_path / "run"), quiet=True, command="test")
    metrics = result.report["metrics"]["test"]["dronet"]
    assert metrics["rmse"] < 0.25 and metrics["accuracy"] > 0.9
    baselines = result.report["baselines"]["dronet"]
    assert set(baselines) == {"constant", "random"}
    assert all(metrics["rmse"] < 0.6 * b["rmse"] for b in baselines.values())
    history = [entry["train"]["dronet.collision_weight"] for entry in result.report["history"]]
    np.testing.assert_allclose(history[:4], [0, 0, 0, 1 - math.exp(-1)], rtol=1e-6)

    image = next(frames(1, seed=9))
    with Pipeline.load(result.bundle) as pipeline:
        answer = pipeline([image[0]])[0]["dronet"]
    assert abs(answer.steering - image[1]) < 0.4 and (answer.collision > 0.5) == image[2]

    bag, out = drive(tmp_path / "drive"), tmp_path / "out"
    numbers = "steering=/cmd_vel*0.5,collision=label:collision"
    evaluate = ["evaluate", "--bag", str(bag), "--model", str(result.bundle), "--output", str(out)]
    more = [
        "--label-topic",
        "/label",
        "--numbers",
        numbers,
        "--resamples",
        "50",
        "--format",
        "json",
    ]
    capsys.readouterr()
    assert main([*evaluate, *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steering"]["frames"] == found["collision"]["frames"] == 60
    assert found["steering"]["explained_variance"]["value"] > 0.7
    assert found["collision"]["f1"]["value"] > 0.9
    assert found["steering"]["baselines"]["constant"]["explained_variance"][
        "value"
    ] == pytest.approx(0)

    # What the node would have published is in the results' bag, and is judged the same.
    recorded = ["evaluate", "--predictions", str(out / "results/drive"), "--bag", str(bag)]
    recorded += ["--model", str(result.bundle), "--output", str(tmp_path / "again")]
    assert main([*recorded, *more]) == 0
    again = json.loads(capsys.readouterr().out)
    for section, key in (("steering", "rmse"), ("collision", "accuracy")):
        assert again[section][key]["value"] == pytest.approx(found[section][key]["value"], abs=1e-6)


@pytest.mark.slow
def test_dronet_learns_from_a_bag(tmp_path):
    from robot_vision.training.run import train

    options = {
        "numbers": "steering=/cmd_vel*0.5,collision=label:collision",
        "label_topic": "/label",
    }
    data = {"options": {**options, "split": "blocks", "block_frames": 20}}
    loop = {"epochs": 15}
    config = dronet(
        "rosbag", drive(tmp_path / "drive", 200), tmp_path / "run", data=data, loop=loop
    )
    metrics = train(config, quiet=True, command="test").report["metrics"]["test"]["dronet"]
    assert metrics["steering_images"] == metrics["collision_images"] == metrics["images"]
    assert metrics["explained_variance"] > 0.5 and metrics["accuracy"] > 0.8


@pytest.mark.parametrize(
    ("rows", "groups", "message"),
    [
        (
            ["a,0.5,", "b,3,", "c,,1", "d,,0"],
            {},
            "steering of b.png .* is 3, and 1 of 2 .*scale it",
        ),
        (["a,0.5,", "b,0,", "c,,1", "d,,0.5"], {}, "collision of d.png .* is 0.5.*0 or 1"),
        (["a,0.5,", "b,0,", "c,0,", "d,,0"], {}, "needs number:collision; 1 of 4 training images"),
        (["a,0.5,", "b,0,", "c,,1", "d,,0"], {"loop": {"epochs": 3}}, "after epoch 2.*has 3"),
        (
            ["a,0.5,", "b,0,", "c,,1", "d,,0"],
            {"augmentation": {"name": "labels", "mixup": 0.2}},
            "mixup makes the truth of the dronet head untrue",
        ),
    ],
)
def test_data_and_settings_that_teach_nothing_true_are_refused(tmp_path, rows, groups, message):
    pytest.importorskip("torch")
    from robot_vision.training.run import train

    rng = np.random.default_rng(0)
    for name in "abcd":
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture(0, False, rng))
    lines = ["image,steering,collision", *(row[0] + ".png" + row[1:] for row in rows)]
    (tmp_path / "drive.csv").write_text("\n".join(lines))
    data = {"options": {"validation": 0, "test": 0}}
    config = dronet("labels_csv", tmp_path / "drive.csv", tmp_path / "run", data=data, **groups)
    with pytest.raises(ConfigError, match=message):
        train(config, quiet=True, command="test")


def test_mirroring_may_be_turned_off(tmp_path):
    pytest.importorskip("torch")
    from robot_vision.contract.spec import NetworkSpec
    from robot_vision.training.samples.augmentation import make_augment

    config = dronet("labels_csv", tmp_path, tmp_path, augmentation={"name": "labels", "flip": 0})
    spec = NetworkSpec(heads={"dronet": HEAD.Spec()})
    augment = make_augment(config, spec)
    assert augment is not None
    assert augment(a_batch_that_turns(), 0)["steering"].tolist() == [0.5, -0.25, 0.0, 1.0]


def test_a_mirror_image_turns_the_other_way(tmp_path):
    torch = pytest.importorskip("torch")
    from robot_vision.contract.spec import NetworkSpec
    from robot_vision.training.samples.augmentation import augmentation_settings, make_augment

    still = {"crop_scale": 1, "crop_ratio": 1, "rotation_deg": 0, "white_balance": 0, "gamma": 0}
    still |= dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0)
    still |= dict.fromkeys(("blur", "noise", "jpeg", "occlusion"), 0)
    config = dronet("labels_csv", tmp_path, tmp_path, augmentation={"name": "labels", **still})
    augment = make_augment(config, NetworkSpec(heads={"dronet": HEAD.Spec()}))
    assert augment is not None
    seen = set()
    for epoch in range(8):
        batch = a_batch_that_turns()
        out = augment(batch, epoch)
        for i in range(4):
            mirrored = not torch.equal(out["images"][i], batch["images"][i])
            seen.add(mirrored)
            if mirrored:
                assert torch.equal(out["images"][i], batch["images"][i].flip(1))
            sign = -1 if mirrored else 1
            assert out["steering"][i] == sign * batch["steering"][i]
        assert torch.equal(out["collision"], batch["collision"])
    assert seen == {True, False}
    plain = dronet("labels_csv", tmp_path, tmp_path, augmentation=None)
    assert augmentation_settings(plain)["name"] == "poses"  # a crop moves what is straight ahead


def a_batch_that_turns():
    import torch

    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 12, 16, 3), np.uint8))
    steering, collision = torch.tensor([0.5, -0.25, 0.0, 1.0]), torch.tensor([0.0, 1.0, 1.0, 0.0])
    return {
        "images": images, "index": torch.arange(4), "steering": steering, "collision": collision,
    }  # fmt: skip


@pytest.mark.slow
def test_lenet_learns_digits(tmp_path):
    """The package's own training, on the first half of scikit-learn's digits: 8 x 8 pixels."""
    datasets = pytest.importorskip("sklearn.datasets")
    from robot_vision.training.run import train

    digits = datasets.load_digits()
    for i, (image, label) in enumerate(zip(digits.images[:900], digits.target, strict=False)):
        folder = tmp_path / "digits" / ("test" if i % 4 == 3 else "train") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{i:04d}.png"), (image * 255 / 16).astype(np.uint8))
    config = configuration(
        "image_folder",
        tmp_path / "digits",
        tmp_path / "run",
        network={"backbone": "lenet", "weights": None, "input": GREY},
        data={"options": {"validation": 0}},
        loop={"epochs": 4, "batch_size": 16, "accelerator": "cpu"},
        optimiser={"learning_rate": 2e-3, "ema": 0.9},
    )
    result = train(config, quiet=True, command="test")
    assert result.report["metrics"]["test"]["classifier"]["accuracy"] >= 0.95


@pytest.mark.slow
@pytest.mark.ros
def test_node_publishes_steering_and_collision(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("rclpy")
    from geometry_msgs.msg import TwistStamped
    from ros_helpers import rgb_message, running, stamp_ns, wait_until
    from sensor_msgs.msg import Image
    from vision_msgs.msg import Classification

    bundle, image = tmp_path / "bundle", next(frames(1))[0]
    made = ["--torchvision", "lenet", "--weights", "none", "--heads", "dronet", "--input", "28x28"]
    assert main(["export", *made, "--out", str(bundle)]) == 0
    with Pipeline.load(bundle, "onnx", threads=1) as pipeline:
        expected = pipeline([image])[0]["dronet"]
    given = {"model": bundle, "engine": "onnx", "cameras": "[front]"}
    with running(tmp_path, "perception_node", **given) as (_, client):
        turns = client.listen(TwistStamped, "/perception/front/steering")
        hits = client.listen(Classification, "/perception/front/collision")
        stamp = 1_700_000_000_123_456_789

        def send():
            client.publisher(Image, "/front/image_raw").publish(rgb_message(image, stamp))

        wait_until(lambda: turns and hits, what="steering and collision", each=send)
        assert turns[-1].twist.angular.z == pytest.approx(expected.steering, abs=1e-6)
        scores = {h.class_id: h.score for h in hits[-1].results}
        assert scores["collision"] == pytest.approx(expected.collision, abs=1e-6)
        assert hits[-1].results[0].score >= 0.5 and sum(scores.values()) == pytest.approx(1)
        assert {stamp_ns(m) for m in (turns[-1], hits[-1])} == {stamp}


@pytest.mark.slow
def test_an_epoch_before_collisions_are_learned_is_not_chosen(tmp_path):
    """Though it scores best: in validation the sides are swapped, and only what is not learned is right."""
    pytest.importorskip("torch")
    from robot_vision.training.fit import loop
    from robot_vision.training.run import train

    rows = ["image,steering,collision,split"]
    for split, seed, swapped in (("train", 1, False), ("val", 2, True)):
        for i, (image, steering, blocked) in enumerate(frames(48, seed)):
            name = f"{split}{i}.png"
            cv2.imwrite(str(tmp_path / name), image)
            rows.append(
                f"{name},{-steering if swapped else steering:.3f},{int(blocked != swapped)},{split}"
            )
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    run = dronet("labels_csv", tmp_path, tmp_path / "run", loop={"epochs": 5, "patience": 2})
    result = train(run, quiet=True, command="test")
    state = loop.read_header(result.folder / "all" / loop.LAST)["state"]
    scores = [entry["score"] for entry in state["history"]]
    assert int(np.argmax(scores)) < 3 <= state["best_epoch"] and len(scores) > 4
    assert HEAD.trainer().suggested(None)["settings"]["start_epoch"] == 0
