"""Parts of training against independent oracles, and what goes wrong."""

import resource
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from sklearn import metrics as sk
from torch import nn
from torchmetrics.functional.classification import multiclass_calibration_error
from train_data import configuration, make_labelled

from robot_vision.contract import registry
from robot_vision.contract.constants import Constants
from robot_vision.contract.training import DataFacts
from robot_vision.datasets import open_dataset
from robot_vision.errors import ConfigError
from robot_vision.heads.classifier.training import classifier_metrics
from robot_vision.heads.place.training import PlaceConfig
from robot_vision.heads.pose.baselines import nearest
from robot_vision.heads.pose.training import pose_metrics, score
from robot_vision.heads.pose.variance_scales import fit_variance_scales
from robot_vision.images.input import InputSpec
from robot_vision.training.config import OptimiserConfig, resolved
from robot_vision.training.fit import loop
from robot_vision.training.fit.checkpoint import (
    SaveError,
    load_state,
    save_state,
    with_constants,
    write_whole,
)
from robot_vision.training.fit.model import Trainee, build_network, make_losses
from robot_vision.training.fit.optimiser import make_optimiser, rate_factor
from robot_vision.training.fit.record import Recorder, _line
from robot_vision.training.samples.augmentation import (
    BatchAugmentation,
    make_augment,
    make_augmentation,
)
from robot_vision.training.samples.data import (
    SampleSet,
    batches,
    epoch_order,
    split_order,
    times_drawn,
)
from robot_vision.training.setup import facts_of, make_fabric, open_splits
from robot_vision.training.ship.evaluate import Scoring, Views


def random_poses(count, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.random(count, rng=rng).as_matrix()
    poses[:, :3, 3] = rng.normal(0, spread, (count, 3))
    return torch.from_numpy(poses)


def test_classifier_metrics_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 300)
    y = rng.integers(-1, 4, 300)
    labels = ("a", "b", "c", "d")
    ours = classifier_metrics(torch.from_numpy(p), {"label": torch.from_numpy(y)}, labels)
    known = y >= 0
    best = p[known].argmax(1)
    assert ours["images"] == known.sum()
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(y[known], best))
    assert ours["macro_recall"] == pytest.approx(sk.balanced_accuracy_score(y[known], best))
    assert ours["nll"] == pytest.approx(sk.log_loss(y[known], p[known], labels=range(4)))
    ece = multiclass_calibration_error(
        torch.from_numpy(p[known]), torch.from_numpy(y[known]), 4, n_bins=15
    )
    assert ours["ece"] == pytest.approx(float(ece), abs=1e-6)


def test_pose_errors_agree_with_scipy():
    true, predicted = random_poses(50, 1), random_poses(50, 2)
    r_true = Rotation.from_matrix(true[:, :3, :3].numpy())
    r_predicted = Rotation.from_matrix(predicted[:, :3, :3].numpy())
    xyzw = torch.from_numpy(-r_predicted.as_quat())  # -q is the same rotation
    known = torch.ones(50, dtype=torch.bool)
    estimates = {"position": predicted[:, :3, 3], "orientation_xyzw": xyzw}
    errors = score(estimates, {"T_map_camera": true, "has_pose": known})["pose_error"]
    np.testing.assert_allclose(errors[:, 3:], (r_true * r_predicted.inv()).as_rotvec(), atol=1e-6)
    np.testing.assert_allclose(errors[:, :3], true[:, :3, 3] - predicted[:, :3, 3], atol=1e-9)


def test_nees_of_errors_drawn_from_the_covariance_is_one():
    count, rng = 4000, np.random.default_rng(3)
    true = random_poses(count, 4)
    sigma = np.array([0.1, 0.2, 0.3, 0.01, 0.02, 0.03])
    delta = rng.normal(0, 1, (count, 6)) * sigma
    turned = Rotation.from_rotvec(delta[:, 3:]).inv() * Rotation.from_matrix(
        true[:, :3, :3].numpy()
    )
    outputs = {
        "position": true[:, :3, 3] - torch.from_numpy(delta[:, :3]),
        "orientation_xyzw": torch.from_numpy(turned.as_quat()),
        "pose_covariance": torch.diag(torch.from_numpy(sigma**2)).expand(count, 6, 6),
    }
    targets = {"T_map_camera": true, "has_pose": torch.ones(count, dtype=torch.bool)}
    found = pose_metrics(score(outputs, targets))
    assert found["nees"] == pytest.approx(1.0, abs=0.05)
    assert found["within_95_percent_ellipsoid"] == pytest.approx(0.95, abs=0.015)
    errors = score(outputs, targets)["pose_error"]
    scales = fit_variance_scales(errors, outputs["pose_covariance"].numpy() / 4)
    np.testing.assert_allclose(scales, 4, rtol=0.06)


def test_recall_counts_answerable_queries_and_what_is_near_and_turned_alike():
    stored = torch.eye(4).repeat(4, 1, 1)
    stored[1, 0, 3] = 0.24
    stored[2, 0, 3] = 0.26
    stored[3, :3, :3] = torch.from_numpy(Rotation.from_euler("y", 21, degrees=True).as_matrix())
    has = torch.tensor([True, True, True, True])
    known = {"T_map_camera": stored, "has_pose": has}
    origin = torch.eye(4).repeat(4, 1, 1)
    origin[3, 0, 3] = 50.0  # far from all
    asked = {"T_map_camera": origin, "has_pose": torch.tensor([True, True, False, True])}
    # The first query is most like the image that is too far, the second like the one that is turned.
    similarity = torch.tensor(
        [[0.5, 0.4, 0.9, 0.1], [0.3, 0.2, 0.1, 0.8], [0.9, 0.1, 0.1, 0.1], [0.9, 0.1, 0.1, 0.1]]
    )
    strict = PlaceConfig(positive_m=0.25, positive_deg=20.0)

    def measured(settings):
        stored = {"descriptor": torch.eye(4)}, known
        trainer = registry.head("place").trainer()
        trainer.settings = settings
        return trainer.measure({"descriptor": similarity}, asked, None, stored)[0]

    found = measured(strict)
    assert (found["queries"], found["answerable"]) == (3, 2)
    assert (found["recall_at_1"], found["recall_at_5"]) == (0.0, 1.0)
    found = measured(PlaceConfig(positive_m=0.25))
    assert (found["answerable"], found["recall_at_1"]) == (2, 0.5)


@pytest.mark.slow
def test_noise_of_two_scores_is_that_of_paired_samples():
    """36 images all right, as in a small validation set: what differs is what hard images cost."""
    rng = np.random.default_rng(0)
    trainers = {kind: registry.head(kind).trainer() for kind in ("classifier", "pose")}

    def noise_of(now, best, spread, units):
        return Scoring(trainers, {"classifier": None, "pose": spread}, units).noise(now, best)

    scores, told, alone = [], [], []
    for row in rng.gamma(0.3, size=(3000, 36)):
        best, now = (1 - 0.01 * row * rng.gamma(20, 1 / 20, 36) for _ in range(2))
        scores.append(now.mean() - best.mean())
        alone.append(now.mean())
        each = {"classifier": now[:, None]}, {"classifier": best[:, None]}
        told.append(noise_of(*each, (1.0, 1.0), np.arange(36)))
    assert np.sqrt(np.mean(np.square(told))) == pytest.approx(np.std(scores), rel=0.1)
    assert np.std(scores) < 0.5 * np.std(alone)  # what pairing is worth
    poses = {"pose": rng.gamma(2, size=(40, 2))}
    assert noise_of(poses, poses, (1.0, 1.0), np.arange(40)) == 0
    poses["pose"][3] = np.nan
    assert noise_of(poses, {"pose": poses["pose"] / 3}, (9.0, 9.0), np.arange(40)) > 0
    assert noise_of({}, {}, (1.0, 1.0), np.arange(0)) == 0


def test_order_is_the_same_in_every_process_and_parts_make_up_the_batches():
    targets = {"label": torch.tensor([0] * 90 + [1] * 10)}
    order = epoch_order(targets, "shuffle", 3, 5)
    assert sorted(order.tolist()) == list(range(100))
    assert torch.equal(order, epoch_order(targets, "shuffle", 3, 5))
    assert not torch.equal(order, epoch_order(targets, "shuffle", 3, 6))
    whole = split_order(order, 16)
    parts = [split_order(order, 16, rank, 2) for rank in (0, 1)]
    for batch, *both in zip(whole, *parts, strict=True):
        assert sorted(batch.tolist()) == sorted(torch.cat(both).tolist())
    drawn = torch.cat([epoch_order(targets, "balanced", 3, e) for e in range(20)])
    assert float((drawn >= 90).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_images_without_a_label_take_nothing_from_the_balance_of_classes():
    targets = {"label": torch.tensor([-1] * 60 + [0] * 10 + [1] * 20 + [2] * 10)}
    drawn = torch.cat([epoch_order(targets, "balanced", 3, e) for e in range(30)])
    counts = torch.bincount(targets["label"][drawn] + 1, minlength=4) / len(drawn)
    assert counts.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=0.03)


def test_rate_rises_then_falls_to_its_end():
    config = OptimiserConfig(warmup=0.1, final=0.02)
    factors = [rate_factor(step, 100, config) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == factors[10] == pytest.approx(1.0)
    assert all(a >= b for a, b in zip(factors[10:], factors[11:], strict=False))
    assert factors[-1] == pytest.approx(0.02, abs=1e-3)


def test_batches_come_in_order_whatever_the_threads(tmp_path):
    samples = sample_set(tmp_path)
    indices = list(torch.randperm(len(samples)).split(5))
    made = [list(batches(samples, indices, threads)) for threads in (1, 4)]
    for a, b, index in zip(*made, indices, strict=True):
        assert torch.equal(a["index"], index)
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_images_read_for_each_batch_are_those_in_memory(tmp_path):
    samples, in_memory = sample_set(tmp_path), sample_set(tmp_path)
    in_memory.load(2)
    index = torch.tensor([3, 0, 20])
    assert torch.equal(samples.batch(index)["images"], in_memory.batch(index)["images"])


def sample_set(folder):
    if not (folder / "data").exists():
        make_labelled(folder / "data", train=8, test=1)
    config = configuration("image_folder", folder / "data", folder / "run")
    splits = open_splits(config)
    return SampleSet.of(splits.train, splits.labels, config.network.input)


@pytest.mark.slow
def test_nan_loss_stops_with_the_names_of_the_batch(tmp_path):
    config = resolved(
        configuration("image_folder", make_labelled(tmp_path / "data"), tmp_path / "run")
    )
    splits = open_splits(config)
    network = build_network(config, facts_of(config, splits))
    samples = SampleSet.of(splits.train, splits.labels, network.spec.input)
    samples.load(2)
    with torch.no_grad():
        network.heads["classifier"].linear.weight[0, 0] = torch.nan
    losses = make_losses(config, network.spec, samples.targets)
    fabric = make_fabric(config)
    fabric.launch()
    with pytest.raises(loop.NonFiniteLossError, match=r"nan in step 1: .*images are .*\.png"):
        loop.fit(
            Trainee(network, losses, {"classifier": 1.0}, False),
            Views(samples),
            None,
            config,
            loop.Stage("all", 1),
            tmp_path / "run" / "all",
            fabric,
            Recorder(None, quiet=True),
        )
    assert not (tmp_path / "run" / "all" / loop.LAST).exists()


def small_state(scale=1.0):
    torch.manual_seed(0)
    backbone, head = nn.Linear(300, 300), nn.Linear(300, 2)
    optimiser = make_optimiser(backbone, [head], OptimiserConfig(backbone_learning_rate=1e-4))
    (scale * head(backbone(torch.ones(2, 300)))).sum().backward()
    optimiser.step()
    return backbone, optimiser


def test_checkpoint_gives_back_every_number(tmp_path):
    module, optimiser = small_state()
    state = {"state": {"step": 3, "sums": {"loss": [0.1 + 0.2, 3]}}}
    save_state(tmp_path / "last.safetensors", {"module": module.state_dict()}, optimiser, state)
    _, other = small_state(scale=5.0)
    header, tensors = load_state(tmp_path / "last.safetensors", other)
    assert header["state"] == state["state"]
    assert torch.equal(tensors["module"]["weight"], module.weight)
    a, b = optimiser.state_dict(), other.state_dict()
    assert a["state"].keys() == b["state"].keys() != set()
    for index, numbers in a["state"].items():
        assert all(torch.equal(value, b["state"][index][key]) for key, value in numbers.items())


def test_checkpoint_of_before_constants_had_names_is_read(tmp_path):
    def module():
        made = nn.Sequential(nn.Linear(2, 2), Constants(temperature=(), factor=(2,)))
        made.constants = made[1]
        return made

    new, old = module(), module()
    old[0].weight.data.fill_(7.0)
    old.constants["temperature"].fill_(3.0)
    state = {
        key.replace(".constants.", "."): value
        for key, value in {f"head.{k}": v for k, v in old.state_dict().items()}.items()
        if not key.endswith("factor") and ".1." not in key
    }
    assert "head.temperature" in state
    whole = nn.ModuleDict({"head": new})
    expected = {k: v for k, v in whole.state_dict().items() if ".1." not in k}
    found = with_constants(state, expected)
    assert found.keys() == expected.keys()
    assert found["head.constants.temperature"] == 3 and found["head.constants.factor"].eq(1).all()


def test_last_good_checkpoint_survives_a_full_disk(tmp_path):
    module, optimiser = small_state()
    path = tmp_path / "last.safetensors"
    save_state(path, {"module": module.state_dict()}, optimiser, {"state": {"step": 1}})
    good = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # a write beyond it fails
    try:
        with pytest.raises(SaveError, match="untouched.*--resume"):
            save_state(path, {"module": module.state_dict()}, optimiser, {"state": {"step": 2}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == good
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]


def test_file_that_cannot_be_written_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError) as caught:
        write_whole(tmp_path / "file" / "inside", b"x")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["classifier", "pose", "place"])
def test_one_batch_is_learned_by_heart(head):
    from robot_vision.contract.spec import NetworkSpec
    from robot_vision.heads.classifier.spec import ClassifierSpec
    from robot_vision.heads.place.spec import PlaceSpec
    from robot_vision.heads.pose.spec import PoseSpec
    from robot_vision.images.input import InputSpec
    from robot_vision.networks.network import MultiHeadNetwork

    parts = {
        "classifier": ClassifierSpec(("a", "b", "c")),
        "pose": PoseSpec(hidden=64),
        "place": PlaceSpec(clusters=4),
    }
    network = MultiHeadNetwork(
        NetworkSpec("shufflenet_v2_x0_5", InputSpec(32, 32), {head: parts[head]})
    )
    poses = random_poses(8, 5).float()
    batch = {
        "images": torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8),
        "label": torch.arange(8) % 3,
        "T_map_camera": poses,
        "has_pose": torch.ones(8, dtype=torch.bool),
        "place": torch.arange(8) % 4,  # of pictures of noise: nothing but training makes two alike
    }
    name = {"classifier": "cross_entropy", "pose": "homoscedastic", "place": "triplet"}[head]
    trainee = Trainee(
        network, {head: registry.head(head).trainer().make_loss(name)}, {head: 1.0}, False
    ).train()
    optimiser = torch.optim.Adam(trainee.parameters(), lr=3e-3)
    steps = {"classifier": 40, "pose": 100, "place": 40}[head]
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 5e-3 * (1 - step / steps)
        total, _ = trainee(batch)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    with torch.no_grad():
        raw = network.raw(batch["images"])[head]  # still in training mode, in which it was learned
    if head == "classifier":
        assert raw["logits"].argmax(1).tolist() == batch["label"].tolist()
    elif head == "pose":
        assert float((raw["position"] - poses[:, :3, 3]).norm(dim=1).median()) < 0.1
    else:
        similarity = (raw["descriptor"] @ raw["descriptor"].T).fill_diagonal_(-1)
        assert (similarity.argmax(1) % 4).tolist() == batch["place"].tolist()
        assert float(total.detach()) == 0.0  # no negative within the margin


def test_sample_that_is_drawn_again_looks_otherwise(tmp_path):
    order = torch.tensor([3, 1, 3, 3, 0, 1])
    assert times_drawn(order).tolist() == [0, 0, 1, 2, 0, 1]
    samples = sample_set(tmp_path)
    samples.load(2)
    augment = BatchAugmentation(make_augmentation("labels", seed=0))
    more = [{"draw": times_drawn(order)}]
    (batch,) = batches(samples, [order], 2, augment, 0, more)
    pictures = {tuple(image.flatten().tolist()) for image in batch["images"]}
    assert len(pictures) == len(order)
    (plain,) = batches(samples, [order], 2, augment, 0)
    assert torch.equal(plain["images"][[0, 1, 4]], batch["images"][[0, 1, 4]])
    assert torch.equal(plain["images"][0], plain["images"][3])


def test_nearest_training_pose_is_the_nearest_far_from_the_origin():
    rng = np.random.default_rng(0)
    seen = rng.uniform(300, 306, (400, 3))
    asked = seen[rng.integers(0, 400, 100)] + rng.normal(0, 0.02, (100, 3))

    def targets(positions):
        T = torch.eye(4).repeat(len(positions), 1, 1)
        T[:, :3, 3] = torch.from_numpy(positions).float()
        return {"T_map_camera": T, "has_pose": torch.ones(len(T), dtype=torch.bool)}

    found = pose_metrics(score(nearest(targets(seen), targets(asked)), targets(asked)))
    expected = cKDTree(seen).query(asked)[0]
    assert found["mean_position_m"] == pytest.approx(expected.mean(), abs=1e-4)


@pytest.mark.slow
def test_squashed_images_have_oblong_pixels(tmp_path):
    folder = tmp_path / "train" / "red"
    folder.mkdir(parents=True)
    (folder / "0.png").write_bytes(b"")
    cv2.imwrite(str(folder / "1.png"), np.zeros((48, 64, 3), np.uint8))
    splits = open_dataset("image_folder", tmp_path, validation=0.0, test=0.0)
    for resize, expected in (("squash", 4 / 3), ("crop", 1.0), ("letterbox", 1.0)):
        spec = InputSpec(height=32, width=32, resize=resize)
        samples = SampleSet.of(splits.train, splits.labels, spec)
        assert samples.pixel_aspect == pytest.approx(expected)
    config = configuration("image_folder", tmp_path, tmp_path / "run", heads=["pose"])
    for name, aspect in (("poses", 4 / 3), ("none", None)):
        augment = make_augment(
            replace(config, augmentation={"name": name}), resolved_spec(config), 4 / 3
        )
        viewpoint = augment and augment.augment.settings.viewpoint
        assert (viewpoint and viewpoint.pixel_aspect) == aspect
    wrong = replace(config, augmentation={"name": "poses", "camera_matrix": [525, 525, 320, 240]})
    with pytest.raises(ConfigError, match="outside of the network's input of 32 x 32"):
        make_augment(wrong, resolved_spec(config))


def resolved_spec(config):
    return build_network(resolved(config), DataFacts()).spec


@pytest.mark.parametrize("weights", ["", "none", "absent.pth"])
def test_weights_that_are_no_file_are_refused_with_what_there_is(weights, tmp_path):
    config = configuration("place_folder", tmp_path, tmp_path / "run", heads=["place"])
    config = replace(config, network=replace(config.network, weights=weights))
    with pytest.raises(ConfigError, match=f"network.weights is '{weights}'.* null for random"):
        resolved_spec(config)


def test_headings_are_not_asked_of_places_that_have_none(tmp_path):
    for i in range(8):
        name = f"@{1000 + i}@2000@.png"
        cv2.imwrite(str(tmp_path / name), np.full((16, 16, 3), i, np.uint8))
    options = {"split": "train"}
    place = {"positive_m": 2.0, "negative_m": 4.0}
    groups = {"heads": ["place"], "data": {"options": options}}
    config = configuration("place_folder", tmp_path, tmp_path / "run", **groups, place=place)
    assert len(open_splits(config).train) == 8
    turned = replace(
        config, settings={"place": replace(config.settings["place"], positive_deg=30.0)}
    )
    with pytest.raises(ConfigError, match="positive_deg.*need orientations"):
        open_splits(turned)


def test_names_in_brackets_are_said_as_they_are(capsys):
    text = "3 images are left out: lab [/2]/a.png, [red]/b.png"
    Recorder(None).say(text)
    assert capsys.readouterr().err == f"{text}\n"


@pytest.mark.parametrize(
    ("heads", "groups", "message"),
    [
        (["pose", "place"], {"pose": {"clips": 3}}, "pose and place would both choose the batches"),
        (["classifier", "place"], {"loop": {"sampler": "balanced"}}, "the place head chooses"),
        (["pose", "place"], {"pose": {"clips": 3}, "place": {"loss": "none"}}, ""),
        (["pose", "place"], {}, ""),
    ],
)
def test_one_head_of_a_run_can_choose_the_batches(tmp_path, heads, groups, message):
    def made():
        return configuration("seven_scenes", tmp_path, tmp_path, heads=heads, **groups)

    if message:
        with pytest.raises(ConfigError, match=message):
            made()
    else:
        assert made().heads == tuple(heads)


def test_an_epochs_line_has_the_first_numbers_of_every_head():
    entry = {"stage": "heads", "epoch": 3, "train": {"loss": 0.5}, "seconds": 2}
    entry["validation"] = {
        "lights": {"accuracy": 0.9312, "macro_recall": 0.9, "nll": 0.25, "ece": 0.01, "images": 9},
        "pose": {"median_position_m": 0.1234, "median_rotation_deg": 2.345},
        "dronet": {"rmse": 0.12345, "f1": 0.5},
    }
    heads = [registry.head(kind) for kind in ("classifier", "pose", "dronet")]
    heads[0] = heads[0].named("lights")
    line = _line(entry, {head.name: head.trainer().shown() for head in heads})
    for text in ("Top-1 accuracy 93.12 %", "Median position error 0.123 m", "F1 score 50.00 %"):
        assert text in line
    assert "Root mean square error 0.1235" in line and "calibration" not in line
