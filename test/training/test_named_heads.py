"""Two classifiers on one backbone, each with its own labels, from a table to a bundle."""

import csv

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from train_data import COLOURS, configuration

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main
from robot_vision.errors import ConfigError
from robot_vision.networks.checkpoint import load_network
from robot_vision.pipeline import Pipeline
from robot_vision.training.config import TrainingConfig
from robot_vision.training.config_file import parse, plain
from robot_vision.training.fit import loop
from robot_vision.training.run import train
from robot_vision.training.setup import facts_of, open_splits

NAMED = {"room": {"kind": "classifier"}, "lights": {"kind": "classifier"}}


def picture(room, lit, rng=None):
    """A one-coloured picture whose upper half is bright where the lights are on."""
    image = np.full((40, 48, 3), COLOURS[room], np.float64) * 0.6
    image[:20] += 120 if lit else -40
    noise = 0 if rng is None else rng.normal(0, 15, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of rooms and lights; every fourth image has no word for its lights."""
    root, rng = tmp_path_factory.mktemp("rooms"), np.random.default_rng(0)
    with (root / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "room", "lights"])
        for i in range(96):
            room, lit = list(COLOURS)[i % 3], i // 3 % 2 == 0
            cv2.imwrite(str(root / f"{i:03d}.png"), picture(room, lit, rng)[..., ::-1])
            rows.writerow([f"{i:03d}.png", room, "" if i % 4 == 3 else "on" if lit else "off"])
    return root / "labels.csv"


def two_heads(table, folder, **groups):
    return configuration("labels_csv", table, folder, heads=NAMED, **groups)


def test_configuration_of_named_heads_reads_back(tmp_path, table):
    config = two_heads(
        table,
        tmp_path,
        lights={"weight": 0.5},
        network={"room": {"dropout": 0.2}},
        augmentation={"name": "labels", "mixup": 0.2},
    )
    assert config.heads == ("room", "lights")
    assert (config.settings["room"].weight, config.settings["lights"].weight) == (1.0, 0.5)
    assert config.network.heads["room"]["dropout"] == 0.2
    assert "dropout" not in config.network.heads["lights"]
    data = plain(config)
    assert data["heads"] == NAMED and data["lights"]["weight"] == 0.5
    assert parse(TrainingConfig, "", data) == config


@pytest.mark.parametrize(
    ("heads", "groups", "named"),
    [
        ({"room": {"kind": "clasifier"}}, {}, "did you mean 'classifier'"),
        ({"room": {"kind": "classifier", "weight": 2}}, {}, "settings go to room:"),
        ({"loop": {"kind": "classifier"}}, {}, "name of a setting"),
        ({"weights": {"kind": "classifier"}}, {}, "name of a setting"),
        (NAMED, {"lights": {"weigth": 2}}, "did you mean 'lights.weight'"),
        (NAMED, {"light": {"weight": 2}}, "did you mean 'lights'"),
        (NAMED, {"network": {"light": {}}}, "did you mean 'network.lights'"),
        (NAMED, {"lights": {"class_weights": "invers"}}, "lights.class_weights 'invers'"),
    ],
)
def test_wrong_configuration_of_named_heads_is_refused(tmp_path, heads, groups, named):
    with pytest.raises(ConfigError) as caught:
        configuration("labels_csv", tmp_path, tmp_path, heads=heads, **groups)
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_each_head_takes_its_column(tmp_path, table):
    config = two_heads(table, tmp_path)
    splits = open_splits(config)
    labels = facts_of(config, splits).labels
    assert labels == {"label:room": ("blue", "green", "red"), "label:lights": ("off", "on")}
    assert splits.labels == () and len(splits.samples) == 96
    lit = [sample.of("label:lights") for sample in splits.samples]
    assert lit.count(None) == 24
    with pytest.raises(
        ConfigError, match="Unknown column of classes 'light'.*did you mean 'lights'"
    ):
        heads = {"light": {"kind": "classifier"}}
        open_splits(configuration("labels_csv", table, tmp_path, heads=heads))


def test_data_without_the_truth_of_a_named_head_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "data" / name / "0.png"), np.zeros((20, 20, 3), np.uint8))
        cv2.imwrite(str(tmp_path / "data" / name / "1.png"), np.ones((20, 20, 3), np.uint8))
    config = configuration("image_folder", tmp_path / "data", tmp_path / "run", heads=NAMED)
    with pytest.raises(ConfigError, match="Classifier room needs .* has 0 of label:room"):
        open_splits(config)


@pytest.mark.slow
def test_two_classifiers_learn_their_labels_in_one_pass(tmp_path, table):
    config = two_heads(
        table,
        tmp_path / "run",
        loop={"epochs": 25, "batch_size": 16},
        augmentation={"name": "labels", "flip": 0, "crop_scale": 1, "mixup": 0.1},
        lights={"class_weights": "inverse"},
        network={"lights": {"tap": "stage3"}},
        baselines=["knn"],
    )
    result = train(config, quiet=True, command="test")
    assert result is not None
    test = result.report["metrics"]["test"]
    assert test["room"]["accuracy"] > 0.9 and test["lights"]["accuracy"] > 0.9
    assert test["lights"]["images"] < test["room"]["images"]  # some have no word for their lights
    assert set(test["lights"]["recall"]) == {"off", "on"}
    assert set(result.report["baselines"]) == {"room", "lights"}
    data = result.report["data"]
    assert sum(data["training_images_by_room"].values()) > sum(
        data["training_images_by_lights"].values()
    )
    measured = result.report["variants"]["float32"]["metrics"]
    assert measured["lights"]["accuracy"] == test["lights"]["accuracy"]
    network = load_network(result.bundle / "weights.safetensors")
    assert network.taps["lights"] == ("stage3",) != network.taps["room"]
    bundle = ModelBundle.load(result.bundle)
    assert list(bundle.spec.outputs) == [
        "room.probabilities",
        "room.known_score",
        "lights.probabilities",
        "lights.known_score",
    ]
    with Pipeline.load(result.bundle, engine="onnx") as pipeline:
        (found,) = pipeline([picture("green", lit=False)])
    assert found["room"].top_k(1)[0].label == "green"
    assert found["lights"].top_k(1)[0].label == "off"
    card = (result.bundle / "README.md").read_text(encoding="utf-8")
    assert "| room |" in card and "| lights |" in card
    # Resumed, it is the same run.
    again = train(config, resume=True, quiet=True, command="test")
    assert again is not None and again.report["metrics"] == result.report["metrics"]
    weights = str(result.bundle / "weights.safetensors")
    assert main(["export", weights, "--out", str(tmp_path / "again")]) == 0
    assert ModelBundle.load(tmp_path / "again").spec == bundle.spec


@pytest.mark.slow
def test_members_of_named_heads_are_trained_and_added(tmp_path, table):
    config = two_heads(
        table,
        tmp_path / "run",
        loop={"epochs": 2},
        network={"room": {"dropout": 0.2}, "lights": {"dropout": 0.2}},
        epistemic={"members": 2, "passes": 4},
    )
    result = train(config, quiet=True, command="test")
    assert result is not None
    network = load_network(result.bundle / "weights.safetensors")
    masks = [head.masks for name in ("room", "lights") for head in network.every(name)]
    assert len(masks) == 4 and len({str(m.tolist()) for m in masks}) == 4
    assert "lights.mutual_information" in network.spec.outputs


@pytest.mark.slow
def test_no_head_is_solved_where_another_needs_epochs(table, tmp_path):
    found = []
    for solve in (True, False):
        config = two_heads(
            table,
            tmp_path / f"run{solve}",
            network={"freeze": ["all"]},
            loop={"epochs": 1},
            room={"solve": solve},
            lights={"solve": False},
        )
        train(config, quiet=True, command="test")
        stages = sorted((tmp_path / f"run{solve}").glob("*/" + loop.BEST))
        found.append([load_file(stage) for stage in stages])
    assert found[0] and len(found[0]) == len(found[1])
    for one, other in zip(*found, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)
