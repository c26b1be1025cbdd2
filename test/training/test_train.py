"""Training runs from beginning to end on small generated data."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torchvision
import yaml
from safetensors.torch import load_file
from train_data import configuration, make_labelled, make_posed

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.calibration.run import Data, calibrate
from robot_vision.contract.calibration import Options
from robot_vision.datasets import open_dataset
from robot_vision.errors import ConfigError, RobotVisionError, SourceError
from robot_vision.networks.checkpoint import load_network
from robot_vision.pipeline import Pipeline
from robot_vision.training.config import resolved
from robot_vision.training.config_file import plain
from robot_vision.training.fit import loop
from robot_vision.training.folder import LOCK, locked
from robot_vision.training.run import train


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    return make_labelled(tmp_path_factory.mktemp("labelled") / "data")


@pytest.fixture(scope="module")
def posed(tmp_path_factory):
    return make_posed(tmp_path_factory.mktemp("posed") / "data")


def run(config, **options):
    result = train(config, quiet=True, command="test", **options)
    assert result is not None
    return result


def weights(result, stage):
    return load_file(result.folder / stage / loop.BEST)


def assert_same(a, b):
    assert a.keys() == b.keys()
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different


@pytest.mark.slow
def test_classifier_run_learns_and_ships_what_it_measured(labelled, tmp_path):
    config = configuration(
        "image_folder",
        labelled,
        tmp_path / "run",
        loop={"epochs": 20},
        baselines=["knn", "softmax", "svm"],
        variants=["int8", "float16"],
    )
    result = run(config)
    test = result.report["metrics"]["test"]["classifier"]
    assert test["accuracy"] == 1.0 and test["images"] == 18
    assert set(result.report["baselines"]["classifier"]) == {
        "5 nearest neighbours",
        "linear softmax",
        "linear SVM",
    }
    assert "Baselines look at the features of the trained backbone" in (
        result.bundle / "README.md"
    ).read_text(encoding="utf-8")
    for name in ("bundle", "bundle-int8", "bundle-float16"):
        bundle = ModelBundle.load(result.folder / name)
        assert bundle.spec.heads["classifier"].labels == ("blue", "green", "red")
        with Pipeline.load(result.folder / name, engine="onnx") as pipeline:
            red = np.full((40, 50, 3), (200, 50, 40), np.uint8)
            assert pipeline([red])[0]["classifier"].top_k(1)[0].label == "red"
    for variant in ("float32", "int8", "float16"):
        measured = result.report["variants"][variant]
        assert measured["metrics"]["classifier"]["accuracy"] > 0.9 and measured["ms"] > 0
    card = (result.folder / "bundle" / "README.md").read_text()
    for part in ("this model", "linear SVM", "int8 bundle", "Seed 0", "fingerprint"):
        assert part in card
    assert (result.folder / "curves.png").stat().st_size > 5000
    log = [json.loads(line) for line in (result.folder / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == list(range(1, 21))
    assert log[-1]["train"]["loss"] < log[0]["train"]["loss"]


@pytest.mark.slow
def test_same_seed_gives_the_same_weights_and_another_seed_others(labelled, tmp_path):
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        config = configuration(
            "image_folder",
            labelled,
            tmp_path / name,
            loop={"epochs": 1, "seed": seed},
            network={"classifier": {"dropout": 0.3}},
            augmentation={"name": "labels", "mixup": 0.2},
        )
        made.append(weights(run(config), "all"))
    assert_same(made[0], made[1])
    assert any(not torch.equal(made[0][k], made[2][k]) for k in made[0])


@pytest.mark.slow
def test_run_killed_at_any_step_resumes_to_the_same_weights(labelled, tmp_path):
    base = {
        "loop": {"epochs": 4, "checkpoint_seconds": 0.0},
        "network": {"classifier": {"dropout": 0.3}},
        "augmentation": {"name": "labels"},
    }
    whole = run(configuration("image_folder", labelled, tmp_path / "whole", **base))
    config = configuration("image_folder", labelled, tmp_path / "cut", **base)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(plain(config)))
    command = [sys.executable, "-m", "robot_vision.cli", "train", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = tmp_path / "cut" / "all" / loop.LAST
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if last.is_file() and loop.read_header(last)["state"]["step"] >= 4:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    state = loop.read_header(last)["state"]
    assert not state["finished"] and 0 < state["step"] < 12
    again = run(config, resume=True)
    assert_same(weights(whole, "all"), weights(again, "all"))
    losses = [[entry["train"] for entry in r.report["history"]] for r in (whole, again)]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_interrupted_run_says_how_to_go_on_and_two_never_share_a_folder(labelled, tmp_path):
    config = configuration("image_folder", labelled, tmp_path / "run", loop={"epochs": 400})
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(plain(config)))
    command = [sys.executable, "-m", "robot_vision.cli", "train", str(file)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "log.jsonl").is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        for resume in (False, True):
            with pytest.raises(ConfigError, match=rf"process {process.pid}\)"):
                run(config, resume=resume)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in said
    assert said.splitlines()[-1] == f"interrupted: {tmp_path / 'run'} continues with --resume"
    assert not list((tmp_path / "run").glob(LOCK))


@pytest.mark.slow
def test_folder_in_use_is_refused_before_torch_is_imported(labelled, tmp_path):
    config = configuration("image_folder", labelled, tmp_path / "run")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(plain(config)))
    code = "import sys; sys.modules['torch'] = None; import robot_vision.cli as cli; "
    code += "cli.main(['train', sys.argv[1]])"

    def said():
        command = [sys.executable, "-c", code, str(file)]
        return subprocess.run(command, capture_output=True, text=True).stderr

    with locked(tmp_path / "run"):
        assert f"in use by another training (process {os.getpid()})" in said()
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(plain(resolved(config))))
    assert "holds a run already" in said()


@pytest.mark.slow
def test_place_run_stopped_in_an_epoch_resumes_to_the_same_weights(posed, tmp_path, monkeypatch):
    if threading.current_thread() is not threading.main_thread():
        # A worker of pytest-xdist may run tests in another; the signal would end the worker.
        pytest.skip("Ctrl-C reaches the main thread alone")
    base = {
        "heads": ["place"],
        "network": {"freeze": ["all"], "place": {"clusters": 4}},
        "place": {"positive_m": 0.4, "positive_deg": 20, "negative_m": 0.8, "negatives": 3},
        "loop": {"epochs": 3, "batch_size": 10},
    }
    whole = run(configuration("seven_scenes", posed, tmp_path / "whole", **base))
    config = configuration("seven_scenes", posed, tmp_path / "cut", **base)
    steps = 0

    def set_rate(*arguments):
        nonlocal steps
        steps += 1
        if steps == 7:
            # Ctrl-C in the seventh step: what the loop put there is called as Python calls it.
            signal.getsignal(signal.SIGINT)(signal.SIGINT, None)
        return true_set_rate(*arguments)

    true_set_rate = loop.set_rate
    monkeypatch.setattr(loop, "set_rate", set_rate)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    monkeypatch.undo()
    state = loop.read_header(tmp_path / "cut" / "heads" / loop.LAST)["state"]
    assert not state["finished"] and state["step"] == 7
    again = run(config, resume=True)
    assert_same(weights(whole, "heads"), weights(again, "heads"))
    assert again.report["metrics"] == whole.report["metrics"]


@pytest.mark.slow
def test_two_processes_whose_clocks_differ_train_to_the_loss_of_one(labelled, tmp_path):
    """Each says by its own clock when a checkpoint is due; no collective operation may hang on that."""
    script = tmp_path / "train.py"
    script.write_text(
        "import itertools, os, sys, types\n"
        "from robot_vision.cli import main\n"
        "from robot_vision.training.fit import loop\n"
        "pace = 1e6 if os.environ['RANK'] == '1' else 0.0\n"
        "clock = itertools.count()\n"
        "loop.time = types.SimpleNamespace(monotonic=lambda: pace * next(clock))\n"
        "sys.exit(main(['train', sys.argv[1]]))\n"
    )
    losses = []
    for name in ("one", "two"):
        config = configuration(
            "image_folder",
            labelled,
            tmp_path / name,
            network={"freeze_batch_norm": True},
            optimiser={"name": "sgd", "learning_rate": 0.1, "ema": 0.0},
            classifier={"settings": {"label_smoothing": 0.0}},
        )
        if name == "one":
            run(config)
        else:
            file = tmp_path / "two.yaml"
            file.write_text(yaml.safe_dump(plain(config)))
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            command += ["--nproc-per-node", "2", str(script), str(file)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=200, env=environment
            )
            assert done.returncode == 0, done.stderr[-2000:]
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["train"]["loss"] for line in lines])
    assert len(losses[0]) == 3
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-4)
    assert losses[0][-1] != losses[0][0]


@pytest.mark.slow
def test_cached_features_train_to_the_same_head(labelled, tmp_path):
    made = []
    for name, cached in (("cached", True), ("uncached", False)):
        config = configuration(
            "image_folder",
            labelled,
            tmp_path / name,
            network={"freeze": ["all"]},
            loop={"epochs": 3, "cache_features": cached},
            classifier={"solve": False},
        )
        made.append(weights(run(config), "heads"))
    for key, value in made[0].items():
        torch.testing.assert_close(made[1][key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_heads_are_added_without_changing_what_the_others_answer(labelled, posed, tmp_path):
    first = run(configuration("image_folder", labelled, tmp_path / "first", loop={"epochs": 2}))
    config = configuration(
        "seven_scenes",
        posed,
        tmp_path / "second",
        heads=["pose", "place"],
        network={
            "init_from": str(first.bundle),
            "pose": {"tap": "stage2", "hidden": 32},
            "place": {"tap": "stage2", "clusters": 4},
            "input": {},
        },
        place={"positive_m": 0.4, "negative_m": 0.8},
        loop={"epochs": 2},
    )
    second = run(config)
    old = load_network(first.bundle / "weights.safetensors")
    new = load_network(second.bundle / "weights.safetensors")
    assert tuple(new.spec.heads) == ("classifier", "pose", "place")
    images = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        before, after = old(images), new(images)
    for name in ("probabilities", "known_score"):
        # Sums of equal weights at other addresses may differ in their last bit.
        torch.testing.assert_close(after[name], before[name], rtol=1e-5, atol=1e-6)
    state = new.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in old.state_dict().items())
    with pytest.raises(ConfigError, match="has a place head already"):
        again = replace(config.network, init_from=str(second.bundle))
        run(replace(config, heads=("place",), network=again, output=str(tmp_path / "third")))


@pytest.mark.slow
def test_added_heads_leave_what_was_calibrated_of_the_others(tmp_path):
    """What is unknown, and the known images that it is judged by, lie next to the graph."""
    labelled = make_labelled(tmp_path / "data", test=40)
    first = run(configuration("image_folder", labelled, tmp_path / "first", loop={"epochs": 2}))
    data = Data(open_dataset("image_folder", str(labelled)), "test", "colours", {})
    options = Options(("open_set",), {"score": "knn", "keep": 0.8})
    old, _ = calibrate(ModelBundle.load(first.bundle), data, options, tmp_path / "calibrated")
    rows = ["image,steering,collision"]
    for i, file in enumerate(sorted(labelled.glob("train/*/*.png"))):
        rows.append(f"{file},{(-1) ** i * 0.5},{i % 2}")
    table = tmp_path / "drives.csv"
    table.write_text("\n".join(rows))
    config = configuration(
        "labels_csv",
        table,
        tmp_path / "second",
        heads=["dronet"],
        network={"init_from": str(old.path), "input": {}, "dronet": {"tap": "stage2"}},
        dronet={"settings": {"start_epoch": 0}},
        loop={"epochs": 2},
        variants=["float16"],
    )
    second = run(config)
    assert tuple(second.report["variants"]) == ("float32", "float16")
    for name in ("bundle", "bundle-float16"):
        new = ModelBundle.load(second.folder / name)
        assert new.calibration == old.calibration and "open_set" in new.calibration
        assert new.training["heads_added_to"] == {"name": "tiny", "sha256": old.sha256}
    images = [data.samples[i].source.load() for i in (0, 8, 16)]
    images.append(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    with Pipeline.load(old.path) as before, Pipeline.load(second.bundle) as after:
        for a, b in zip(before(images), after(images), strict=True):
            one, two = a["classifier"], b["classifier"]
            assert two.known_score == pytest.approx(one.known_score, rel=1e-5)
            assert two.rarity == pytest.approx(one.rarity, abs=1e-6)
            assert abs(b["dronet"].steering) <= 1


@pytest.mark.slow
def test_joint_run_trains_every_head_and_calibrates_the_variances(tmp_path):
    config = configuration(
        "seven_scenes",
        make_posed(tmp_path / "data", frames=96),
        tmp_path / "run",
        heads=["pose", "place"],
        data={"options": {"block_frames": 8, "validation": 0.4}},
        network={"pose": {"hidden": 64}, "place": {"clusters": 4, "whitened_size": 8}},
        place={"positive_m": 0.4, "negative_m": 0.8, "negatives": 3},
        pose={"regions": 0},
        loop={"epochs": 12, "batch_size": 20},
        baselines=["mean_pose", "retrieval", "pooling"],
    )
    result = run(config)
    report = result.report
    pose = report["metrics"]["test"]["pose"]
    assert (
        pose["median_position_m"]
        < report["baselines"]["pose"]["always the mean pose"]["median_position_m"]
    )
    found = report["calibration"]["pose"]
    assert found["frames"] >= 20 and found["position_variance_scale"] > 0
    assert report["metrics"]["validation"]["pose"]["nees"] == pytest.approx(1.0, rel=1e-3)
    assert {"average pooling", "GeM pooling", "flattened map"} == set(report["baselines"]["place"])
    assert ModelBundle.load(result.bundle).spec.heads["place"].descriptor_size == 8


@pytest.mark.slow
def test_pose_head_alone_learns_which_views_it_knows_from_regions_left_out(tmp_path):
    data = make_posed(tmp_path / "data", frames=96)
    config = configuration(
        "seven_scenes",
        data,
        tmp_path / "run",
        heads=["pose"],
        data={"options": {"block_frames": 8, "validation": 0}},
        network={"pose": {"hidden": 64}, "freeze": ["all"]},
        loop={"epochs": 6, "batch_size": 20},
    )
    result = run(config)
    found = result.report["calibration"]["pose"]
    assert found["regions"] == 5 and found["position_growth"] > 0
    bundle = ModelBundle.load(result.bundle)
    assert bundle.spec.heads["pose"].unknown_threshold == found["unknown_view_below"] <= 1
    images = [cv2.imread(str(f))[..., ::-1] for f in sorted(data.glob("**/*.color.*"))[:20]]
    noise = [
        np.random.default_rng(i).integers(0, 256, images[0].shape, np.uint8) for i in range(20)
    ]
    pipeline = Pipeline.load(result.bundle, "onnx")
    known, new = (np.array([p["pose"].known_view for p in pipeline(x)]) for x in (images, noise))
    assert np.median(new) < np.median(known)
    sigma = [np.trace(p["pose"].covariance) for p in pipeline([*images, *noise])]
    assert np.isfinite(sigma).all()


@pytest.mark.slow
def test_baselines_of_a_fine_tuned_network_are_those_of_the_weights_it_started_from(
    labelled, tmp_path
):
    file = tmp_path / "weights.pth"
    torch.save(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict(), file)
    found, cards = [], []
    for freeze in ([], ["all"]):
        config = configuration(
            "image_folder",
            labelled,
            tmp_path / f"run{len(freeze)}",
            network={"weights": str(file), "freeze": freeze},
            loop={"epochs": 1, "head_epochs": 1},
            baselines=["knn", "softmax"],
        )
        result = run(config)
        found.append(result.report["baselines"])
        cards.append((result.bundle / "README.md").read_text(encoding="utf-8"))
    assert found[0] == found[1]
    assert "the backbone as it was before it was fine-tuned" in cards[0]
    assert "the backbone, which was not trained" in cards[1]


@pytest.mark.slow
def test_solved_head_is_kept_unless_fine_tuning_is_shown_to_be_better(labelled, tmp_path):
    file = tmp_path / "weights.pth"
    torch.save(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict(), file)
    config = configuration(
        "image_folder",
        labelled,
        tmp_path / "run",
        network={"weights": str(file), "freeze": []},
        loop={"epochs": 1, "head_epochs": 1},
        baselines=["softmax"],
    )
    result = run(config)
    assert [entry["stage"] for entry in result.report["history"]] == ["heads"]
    assert_same(weights(result, "heads"), weights(result, "all"))
    own = result.report["metrics"]["test"]["classifier"]
    assert own["accuracy"] >= result.report["baselines"]["classifier"]["linear softmax"]["accuracy"]
    assert result.report["calibration"]["classifier"]["on"] == "training images left out in turn"
    card = (result.bundle / "README.md").read_text()
    assert "The validation images chose whether fine-tuning is kept: their numbers" in card
    assert "**this model**, validation (chosen on it), 6 images" in card
    again = run(config, resume=True)
    assert again.report["calibration"] == result.report["calibration"]
    assert again.report["metrics"] == result.report["metrics"]
    by_steps = replace(
        config,
        output=str(tmp_path / "steps"),
        settings={"classifier": replace(config.settings["classifier"], solve=False)},
    )
    assert [e["stage"] for e in run(by_steps).report["history"]] == ["heads", "all"]


@pytest.mark.slow
def test_unreadable_images_are_named_and_the_run_goes_on(tmp_path):
    data = make_labelled(tmp_path / "data", train=20)
    (data / "train" / "red" / "007.png").write_bytes(b"\x89PNG but no more")
    (data / "test" / "blue" / "001.png").write_bytes(b"")
    shutil.copy(data / "train/red/003.png", data / "test/red/copy.png")
    os.rename(data / "train/red/004.png", data / "train/red" / os.fsdecode(b"k\xfcche.png"))
    result = run(configuration("image_folder", data, tmp_path / "run", loop={"epochs": 1}))
    unreadable = result.report["data"]["unreadable"]
    named = [name for names in unreadable.values() for name in names]
    assert len(named) == 2 and any("007" in n for n in named) and any("001" in n for n in named)
    card = (result.bundle / "README.md").read_text()
    assert "could not be read" in card
    shared = r"\*\*1 of \d+ test images are, byte for byte, also in \w+, such as train/red/003.png"
    assert re.search(shared, card) and "name is no UTF-8" in card
    for i in range(6):
        (data / "train" / "green" / f"{i:03d}.png").write_bytes(b"nothing")
    with pytest.raises(SourceError, match="more than 5%"):
        run(configuration("image_folder", data, tmp_path / "again"))


def test_one_class_data_set_is_refused(tmp_path):
    folder = tmp_path / "data" / "only"
    folder.mkdir(parents=True)
    for i in range(4):
        cv2.imwrite(str(folder / f"{i}.png"), np.zeros((20, 20, 3), np.uint8))
    with pytest.raises(ConfigError, match="at least two classes"):
        run(configuration("image_folder", tmp_path / "data", tmp_path / "run"))
    shutil.copytree(folder, folder.with_name("unknown"))
    with pytest.raises(ConfigError, match="has a class 'unknown', as answers call"):
        run(configuration("image_folder", tmp_path / "data", tmp_path / "run"))


@pytest.mark.slow
def test_run_in_a_folder_that_holds_another_is_refused(labelled, tmp_path):
    config = configuration("image_folder", labelled, tmp_path / "run", loop={"epochs": 1})
    without = replace(config.network, weights=str(tmp_path / "none.pth"))
    with pytest.raises(RobotVisionError, match="none.pth"):
        run(replace(config, network=without))  # it could not begin, and is in nobody's way
    run(config)
    with pytest.raises(ConfigError, match="--resume"):
        run(config)
    other = replace(config, loop=replace(config.loop, seed=5))
    with pytest.raises(ConfigError, match="differs from this configuration in loop"):
        run(other, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "epoch"), [(0.2, 2), (3.0, 0)])
def test_later_weights_win_within_the_noise_of_the_validation_set(
    tmp_path, labelled, monkeypatch, gain, epoch
):
    """The first epoch's losses are lower by a little of their own noise, or by much of it."""
    config = configuration("image_folder", labelled, tmp_path / "run")
    real, calls = loop.evaluate, []

    def noisy(*args):
        metrics, each = real(*args), args[-1]
        count = len(each["classifier"])
        noise = np.random.default_rng(len(calls)).normal(0, 1, count)
        noise += gain * (not calls) - noise.mean()
        each["classifier"][:] = 1 + 0.01 * noise[:, None]
        metrics["classifier"].update(accuracy=1.0, nll=-float(noise.mean()))
        calls.append(count)
        return metrics

    monkeypatch.setattr(loop, "evaluate", noisy)
    result = run(config)
    state = loop.read_header(result.folder / "all" / loop.LAST)["state"]
    assert state["best_score"] == pytest.approx(1 + 0.01 * gain)
    assert (state["peak_epoch"], state["best_epoch"]) == (0, epoch)
    card = (result.bundle / "README.md").read_text()
    assert "validation (chosen on it)" in card and "are no test" in card  # too few to calibrate on
    assert "nothing was tested" not in card  # there is a test folder


@pytest.mark.slow
def test_validation_that_says_nothing_exports_the_last_epoch(tmp_path):
    root = make_labelled(tmp_path / "data")
    for name in ("blue", "green", "red"):  # classes that training does not know
        shutil.copytree(root / "test" / name, root / "val" / name.upper())
    result = run(configuration("image_folder", root, tmp_path / "run", optimiser={"ema": 0.0}))
    state = loop.read_header(tmp_path / "run" / "all" / loop.LAST)["state"]
    assert state["best_epoch"] == 2 and state["best_score"] is None
    last = load_file(tmp_path / "run" / "all" / loop.LAST)
    for key, value in weights(result, "all").items():
        assert torch.equal(value, last[f"trainee.network.{key}"])
    json.loads((tmp_path / "run" / "report.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.slow
def test_stop_while_the_last_epoch_is_validated_stops(labelled, tmp_path, monkeypatch):
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("Ctrl-C reaches the main thread alone")
    config = configuration("image_folder", labelled, tmp_path / "run", loop={"epochs": 1})

    def validate(*arguments):
        signal.getsignal(signal.SIGINT)(signal.SIGINT, None)
        return true_validate(*arguments)

    true_validate = loop._validate
    monkeypatch.setattr(loop, "_validate", validate)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert loop.read_header(tmp_path / "run" / "all" / loop.LAST)["state"]["finished"]
    monkeypatch.undo()
    assert run(config, resume=True).bundle.is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("finished", [True, False])
def test_run_is_not_resumed_on_other_images(tmp_path, monkeypatch, finished):
    root = make_labelled(tmp_path / "data")
    base = {"loop": {"epochs": 2, "checkpoint_seconds": 0.0}}
    config = configuration("image_folder", root, tmp_path / "run", **base)
    if finished:
        run(config)
    else:
        monkeypatch.setattr(loop, "_validate", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config)
        monkeypatch.undo()
    shutil.copy(root / "test" / "red" / "000.png", root / "train" / "red" / "another.png")
    with pytest.raises(ConfigError, match="other images than there are now .then 42"):
        run(config, resume=True)
    (root / "train" / "red" / "another.png").unlink()
    assert run(config, resume=True).bundle.is_dir()


@pytest.mark.slow
def test_patience_waits_for_a_validation(labelled, tmp_path):
    loop_settings = {"epochs": 8, "patience": 1, "validate_every": 3}
    optimiser = {"learning_rate": 1e-12, "ema": 0.0}  # nothing gets better
    config = configuration(
        "image_folder",
        labelled,
        tmp_path / "run",
        loop=loop_settings,
        optimiser=optimiser,
        network={"freeze": ["all"]},
        classifier={"solve": False},
    )
    history = run(config).report["history"]
    assert [("score" in entry) for entry in history] == [False, False, True] * 2


def offline_records(folder):
    """Returns the records of an offline run of Weights & Biases, from blocks as LevelDB's log has them."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data, at, part, records = file.read_bytes(), 7, b"", []  # a head of 7 bytes
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:  # a block ends with what is too small for a head
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part, at = part + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # whole, or the last part
            records.append(wandb_internal_pb2.Record.FromString(part))
            part = b""
    return records


@pytest.mark.slow
def test_weights_and_biases_get_offline_what_tensorboard_gets(labelled, tmp_path, capsys):
    pytest.importorskip("wandb")
    config = configuration("image_folder", labelled, tmp_path / "run")
    train(replace(config, wandb="rooms"))
    assert "wandb sync " in capsys.readouterr().err
    records = offline_records(tmp_path / "run")
    (run,) = {r.run.project for r in records if r.HasField("run")}
    rows = [
        {"/".join(i.nested_key) or i.key: i.value_json for i in r.history.item}
        for r in records
        if r.HasField("history")
    ]
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert run == "rooms" and len(rows) == len(log) == 3
    for row, entry in zip(rows, log, strict=True):
        said = {key.partition("/")[2]: json.loads(value) for key, value in row.items()}
        assert said["train/loss"] == pytest.approx(entry["train"]["loss"])


def test_weights_and_biases_that_are_not_installed_are_asked_for_at_once(
    labelled, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = replace(configuration("image_folder", labelled, tmp_path / "run"), wandb="rooms")
    with pytest.raises(ConfigError, match=r"pip install 'robot_vision\[wandb\]'"):
        train(config)
