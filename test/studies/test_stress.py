"""Images made worse, what is measured of them, and the command from a bag to its report."""

import json
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from eval_data import recording as random_recording
from evaluation_bags import write_bag
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.stats import binom, bootstrap
from sklearn.metrics import roc_auc_score
from tiny_bundle import make_tiny_bundle

from robot_vision.cli import main
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError
from robot_vision.evaluation.measure.metrics import evaluate_frames
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.studies.stress.degradations import (
    DEGRADATIONS,
    DROPPED,
    ROLL,
    generator,
    kept_frames,
    roll_of,
    rotation_of,
)
from robot_vision.studies.stress.measure import (
    ROLLS,
    StressReference,
    auroc,
    held,
    measure,
    measure_intervals,
)
from robot_vision.studies.stress.run import StressPlan
from robot_vision.truth.tracks import Truth

IMAGES = [name for name, d in DEGRADATIONS.items() if d.apply]
SCENE = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8), (5, 5), 1.5
)


def worse(name, index, frame=0, image=SCENE, seed=0):
    kind = DEGRADATIONS[name]
    return kind.apply(image.copy(), kind.strengths[index], generator(seed, name, frame))


def apart(a, b):
    return float(np.abs(a.astype(float) - b).mean())


@pytest.mark.parametrize("name", IMAGES)
def test_degradation_grows_with_its_strength_and_repeats_itself(name):
    before = SCENE.copy()
    images = [worse(name, i) for i in range(5)]
    distances = [apart(image, SCENE) for image in images]
    assert distances[0] > 0
    assert distances == sorted(distances)
    assert all(i.shape == SCENE.shape and i.dtype == np.uint8 for i in images)
    np.testing.assert_array_equal(SCENE, before)
    np.testing.assert_array_equal(worse(name, 2), images[2])


@pytest.mark.parametrize("name", ["blur", "noise", "occlusion", "dark"])
def test_frames_and_seeds_differ_in_what_is_random(name):
    assert apart(worse(name, 3), worse(name, 3, frame=1)) > 0
    assert apart(worse(name, 3), worse(name, 3, seed=1)) > 0


def test_blur_spreads_a_point_along_a_line_of_the_stated_length():
    point = np.zeros((121, 161, 3), np.uint8)
    point[60, 80] = 255
    for frame in range(5):
        smeared = DEGRADATIONS["blur"].apply(point, 8.0, generator(0, "blur", frame))
        y, x = np.nonzero(smeared[..., 0])
        points = np.column_stack([x, y]).astype(float)
        length = np.ptp(points @ np.linalg.svd(points - points.mean(0))[2][0])
        assert length == pytest.approx(0.08 * np.hypot(121, 161), abs=2.5)
        across = np.linalg.svd(points - points.mean(0))[1][1] / np.sqrt(len(points))
        assert across < 1  # pixel
    flat = np.full((40, 60, 3), 77, np.uint8)
    np.testing.assert_array_equal(worse("blur", 4, image=flat), flat)


@given(st.integers(0, 255), st.sampled_from([0.5, 1.0, 2.0]))
def test_brightening_multiplies_the_light(value, stops):
    image = np.full((2, 2, 3), value, np.uint8)
    light = (value / 255) ** 2.2 * 2**stops
    expected = 255 * min(light, 1.0) ** (1 / 2.2)
    assert abs(int(DEGRADATIONS["bright"].apply(image, stops, None)[0, 0, 0]) - expected) <= 0.5001


def test_noise_has_the_stated_deviation():
    grey = np.full((200, 200, 3), 128, np.uint8)
    assert worse("noise", 2, image=grey).std() == pytest.approx(20, rel=0.02)


@given(st.integers(0, 1000), st.sampled_from([5.0, 20.0, 50.0]))
def test_occlusion_covers_one_rectangle_of_the_stated_area(frame, percent):
    image = SCENE.copy()
    covered = DEGRADATIONS["occlusion"].apply(image, percent, generator(0, "occlusion", frame))
    changed = np.argwhere((covered != image).any(axis=2))
    (top, left), (bottom, right) = changed.min(0), changed.max(0) + 1
    assert (bottom - top) * (right - left) == pytest.approx(percent / 100 * 120 * 160, rel=0.06)
    inside = covered[top + 1 : bottom - 1, left + 1 : right - 1].reshape(-1, 3)
    assert (inside == inside[0]).all()


def test_rotation_is_what_the_training_calls_a_turned_camera():
    viewpoint = pytest.importorskip("robot_vision.training.samples.viewpoint")
    K = viewpoint.ViewpointSettings().matrix(120, 160)
    for frame in range(4):
        roll = roll_of(10.0, generator(0, ROLL, frame))
        assert abs(roll) == 10
        expected, pose, _ = viewpoint.turn(SCENE, np.eye(4), K, rotation_of(roll), 1.0)
        found = DEGRADATIONS[ROLL].apply(SCENE, 10.0, generator(0, ROLL, frame))
        assert apart(found[40:80, 50:110], expected[40:80, 50:110]) < 1.5
        assert apart(SCENE[40:80, 50:110], expected[40:80, 50:110]) > 10
        by_hand = Rotation.from_euler("z", roll, degrees=True).as_matrix()
        np.testing.assert_allclose(pose[:3, :3], by_hand, atol=1e-12)


def test_dropped_frames_are_nested_and_their_share_is_as_stated():
    shares = DEGRADATIONS[DROPPED].strengths
    kept = [kept_frames(20_000, s, 0) for s in shares]
    for mask, share in zip(kept, shares, strict=True):
        assert mask.mean() == pytest.approx(1 - share / 100, abs=0.01)
        assert mask[0]
    for more, fewer in zip(kept, kept[1:], strict=False):
        assert not (fewer & ~more).any()


def test_held_answers_are_those_of_the_last_frame_that_came():
    predictions, _ = random_recording(n=50)
    shuffled = predictions.take(np.random.default_rng(0).permutation(50))
    found = held(shuffled, 50.0, 3)
    kept = kept_frames(50, 50.0, 3)
    np.testing.assert_array_equal(found.stamps_ns, predictions.stamps_ns)
    last = 0
    for i in range(50):
        last = i if kept[i] else last
        np.testing.assert_array_equal(found.position[i], predictions.position[last])


def test_numbers_of_good_frames_are_those_of_evaluate():
    predictions, truth = random_recording(seed=2)
    threshold = float(np.median(predictions.known_score))
    found = measure(predictions, StressReference(predictions, truth, threshold))
    metrics = evaluate_frames(predictions, truth, EvaluationSettings(resamples=0))
    classes, pose = metrics["classification"], metrics["pose"]
    for mine, theirs in (
        ("accuracy", classes["top1"]), ("ece", classes["ece"]), ("nll", classes["nll"]),
        ("auroc_unknown", metrics["open_set"]["auroc"]), ("median_m", pose["median_m"]),
        ("median_deg", pose["median_deg"]), ("nees", pose["covariance"]["nees"]["mean_over_ideal"]),
        ("coverage_95", pose["covariance"]["nees"]["coverage_95"]),
    ):  # fmt: skip
        assert found[mine] == pytest.approx(theirs["value"], rel=1e-9), mine
    assert found["similarity"] == pytest.approx(1, abs=1e-5)
    known = np.array([name != "garden" for name in truth.labels.names])
    assert found["kept"] == pytest.approx((predictions.known_score >= threshold)[known].mean())


def test_intervals_of_good_frames_are_those_of_evaluate():
    predictions, truth = random_recording(seed=2)
    quick = EvaluationSettings(resamples=200)
    found = measure_intervals(predictions, StressReference(predictions, truth), None, quick)
    metrics = evaluate_frames(predictions, truth, quick)
    classes, pose = metrics["classification"], metrics["pose"]
    for mine, theirs in (
        ("accuracy", classes["top1"]), ("ece", classes["ece"]), ("median_m", pose["median_m"]),
        ("auroc_unknown", metrics["open_set"]["auroc"]),
        ("nees", pose["covariance"]["nees"]["mean_over_ideal"]),
    ):  # fmt: skip
        assert found[mine] == pytest.approx(theirs, rel=1e-9), mine
        assert found[mine]["low"] < found[mine]["high"]


def test_intervals_of_single_pictures_are_binomial_and_of_unknown_ones_scipys():
    random = np.random.default_rng(3)
    n, m = 400, 90
    probabilities = random.dirichlet([1.5, 1, 1], n)
    right = random.random(n) < 0.8
    names = [
        int(p.argmax()) if ok else int(p.argmin())
        for p, ok in zip(probabilities, right, strict=True)
    ]
    stamps = np.arange(n) * 10**8
    known, strange = random.normal(1.5, 1, n), random.normal(0, 1, m)
    predictions = Predictions(stamps, None, tuple("abc"), probabilities, known)
    unknown = Predictions(np.arange(m) * 10**8, None, tuple("abc"), probabilities[:m], strange)
    truth = Truth.of_arrays(stamps, ["abc"[i] for i in names])
    reference = StressReference(predictions, truth, in_order=False)
    found = measure_intervals(predictions, reference, unknown)
    share = right.mean()
    low, high = binom.ppf([0.025, 0.975], n, share) / n
    assert found["accuracy"]["low"] == pytest.approx(low, abs=0.006)
    assert found["accuracy"]["high"] == pytest.approx(high, abs=0.006)

    def auroc_of(a, b, axis=-1):
        return (a[..., :, None] > b[..., None, :]).mean(axis=(-1, -2))

    theirs = bootstrap(
        (known, strange), auroc_of, n_resamples=1000, batch=50, method="percentile", rng=random
    ).confidence_interval
    assert found["auroc_unknown"]["low"] == pytest.approx(theirs.low, abs=0.012)
    assert found["auroc_unknown"]["high"] == pytest.approx(theirs.high, abs=0.012)


def test_truth_of_turned_frames_is_turned_with_them():
    predictions, truth = random_recording(seed=1, n=60)
    rolls = np.random.default_rng(0).choice([-30.0, 30.0], 60)
    turned = [
        (Rotation.from_quat(q) * Rotation.from_euler("z", r, degrees=True)).as_quat()
        for q, r in zip(predictions.orientation_xyzw, rolls, strict=True)
    ]
    reference = StressReference(predictions, truth)
    good = measure(predictions, reference)["median_deg"]
    seen = replace(predictions, orientation_xyzw=np.array(turned), meta={ROLLS: rolls.tolist()})
    unmoved = replace(predictions, meta={ROLLS: rolls.tolist()})
    assert measure(seen, reference)["median_deg"] == pytest.approx(good, abs=1e-6)
    assert measure(unmoved, reference)["median_deg"] == pytest.approx(30, abs=good + 1)


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_auroc_is_scikit_learns(seed):
    random = np.random.default_rng(seed)
    high, low = random.integers(3, 9, 40).astype(float), random.integers(0, 7, 30).astype(float)
    expected = roc_auc_score([1] * 40 + [0] * 30, np.concatenate([high, low]))
    assert auroc(high, low) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(auroc(high, low[:0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"degradations": ("blurr",)}, "blur"),
        ({"every": 0}, "every is 0"),
        ({"seed": -1}, "seed"),
        ({"limit": -1}, "limit is -1"),
        ({"degradations": ()}, "no degradation"),
    ],
)
def test_plan_out_of_range_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        StressPlan(**changes)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stress")
    make_tiny_bundle(folder / "model", unknown_threshold=0.9)
    write_bag(folder / "bag", 24, wrong=frozenset({3}))
    return folder


def command(tiny, output, *more):
    return main(
        ["stress", "--bag", str(tiny / "bag"), "--model", str(tiny / "model"), "--engine", "onnx",
         "--threads", "1", "--output", str(output), *more]
    )  # fmt: skip


@pytest.mark.slow
def test_command_measures_draws_and_goes_on_where_it_stopped(tiny, tmp_path, capsys):
    ways = ("--degradations", "dark,rotation,dropped")
    assert command(tiny, tmp_path / "out", *ways, "--format", "json") == 0
    document = json.loads(capsys.readouterr().out)
    conditions = document["conditions"]
    assert len(conditions) == 1 + 3 * 5
    good = conditions[0]["numbers"]
    assert good["accuracy"] == pytest.approx(23 / 24)
    assert good["median_m"] == pytest.approx(0.1, abs=1e-3)
    dark = {c["index"]: c["numbers"] for c in conditions if c["degradation"] == "dark"}
    # The tiny bundle's position is the mean colour: five stops down it is 2^(-5 / 2.2) of it.
    assert dark[4]["median_m"] > dark[0]["median_m"] > good["median_m"]
    assert dark[4]["confidence"] < good["confidence"]
    assert dark[4]["kept"] < good["kept"] == 1
    turned = [c["numbers"] for c in conditions if c["degradation"] == "rotation"]
    # Images of one colour stay as they are: so do the answers, and the true orientation turns away.
    for numbers, angle in zip(turned, DEGRADATIONS[ROLL].strengths, strict=True):
        assert numbers["median_m"] == pytest.approx(good["median_m"], abs=1e-3)
        assert numbers["median_deg"] == pytest.approx(angle, abs=0.1)
    lost = [c["numbers"] for c in conditions if c["degradation"] == "dropped"]
    # The colour changes with every frame, so that an old answer is rarely right.
    assert lost[4]["accuracy"] < lost[0]["accuracy"] < good["accuracy"]
    assert lost[4]["median_m"] > 0.3
    svg = (tmp_path / "out" / "stress.svg").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert svg.startswith("<svg xmlns") and svg.count("<svg") == 1 + 2 * 3
    assert "dark" in page and "src=" not in page and "<script" not in page
    low, high = conditions[0]["intervals"]["accuracy"]
    assert low < good["accuracy"] <= high
    assert svg.count("<polygon") == svg.count("<polyline") == 3 * (4 + 2)  # each line has a band
    assert "| dark | 1, 2, 3, 4, 5 stops |" in (tmp_path / "out" / "stress.md").read_text()

    kept = sorted((tmp_path / "out" / "cache").iterdir())
    assert len(kept) == 11
    kept[3].unlink()  # as if it had been interrupted there
    kept[4].write_bytes(b"cut off")
    stamps = {p: p.stat().st_mtime_ns for p in kept[5:]}
    time.sleep(0.01)
    assert command(tiny, tmp_path / "out", *ways, "--format", "json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["conditions"] == conditions
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert len(list((tmp_path / "out" / "cache").iterdir())) == 11


def test_labelled_folder_without_order_has_no_dropped_frames(tiny, tmp_path, capsys):
    colours = {"red": (200, 40, 60), "green": (30, 190, 50), "unseen": (90, 90, 90)}
    for name, colour in colours.items():
        for split in ("train", "test"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            picture = np.full((20, 30, 3), colour[::-1], np.uint8)
            cv2.imwrite(str(tmp_path / "data" / split / name / "0.png"), picture)
    output = tmp_path / "out"
    status = main(
        ["stress", "--data", "image_folder", str(tmp_path / "data"), "--model",
         str(tiny / "model"), "--engine", "onnx", "--threads", "1", "--output", str(output),
         "--degradations", "jpeg,dropped", "--unknown", str(tmp_path / "data/test/unseen")]
    )  # fmt: skip
    assert status == 0
    assert "| jpeg |" in capsys.readouterr().out
    document = json.loads((output / "stress.json").read_text())
    assert {c["degradation"] for c in document["conditions"]} == {"none", "jpeg"}
    assert document["conditions"][0]["numbers"]["auroc_unknown"] == 1.0
    assert document["unknown"]["name"] == "unseen"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--bag BAG or --data"),
        (["--bag", "gone"], "gone does not exist"),
        (["--data", "image_folder", "gone"], "does not exist"),
        (["--bag", "x", "--option", "a=b"], "--option belongs to a data set"),
        (["--bag", "x", "--split", "train"], "--split belongs to a data set"),
        (["--data", "image_folder", ".", "--option", "ab"], "KEY=VALUE"),
        (["--data", "image_folder", ".", "--poses", "x"], "--poses does not go with --data"),
    ],
)
def test_mistakes_are_one_line(tiny, tmp_path, capsys, words, message):
    status = main(
        ["stress", "--model", str(tiny / "model"), "--output", str(tmp_path / "o"), *words]
    )
    said = capsys.readouterr().err
    assert status == 2
    assert message in said and said.count("\n") == 1


def test_turned_camera_sees_what_its_image_shows():
    # A point above the optical axis of a camera that rolls by +90 degrees (z forward, so clockwise as the
    # camera looks) moves to the left of its image.
    seen = rotation_of(90).T @ np.array([0.0, -1.0, 5.0])
    np.testing.assert_allclose(seen, [-1, 0, 5], atol=1e-12)
    image = np.zeros((101, 101, 3), np.uint8)
    image[10, 50] = 255  # above the centre
    frame = next(f for f in range(99) if roll_of(90.0, generator(0, ROLL, f)) > 0)
    rolled = DEGRADATIONS[ROLL].apply(image, 90.0, generator(0, ROLL, frame))
    assert rolled[50, 10, 0] == 255


def test_recording_that_shows_nothing_the_model_knows_is_refused(tiny, tmp_path, capsys):
    for name in ("kitchen", "office"):
        (tmp_path / "test" / name).mkdir(parents=True)
        (tmp_path / "train" / name).mkdir(parents=True)
        for split in ("test", "train"):
            picture = np.full((20, 30, 3), 90, np.uint8)
            cv2.imwrite(str(tmp_path / split / name / "0.png"), picture)
    arguments = ["--data", "image_folder", str(tmp_path), "--model", str(tiny / "model")]
    assert main(["stress", *arguments, "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "shows kitchen, office" in said and "red" in said
    assert not (tmp_path / "out").exists()


def test_labels_that_the_model_does_not_know_leave_the_rest_to_measure():
    predictions, truth = random_recording()
    truth = replace(
        truth, labels=replace(truth.labels, names=("elsewhere",) * len(truth.labels.names))
    )
    found = measure(predictions, StressReference(predictions, truth, 0.5))
    assert "median_m" in found and "accuracy" not in found and "auroc_clean" not in found


def test_output_that_cannot_be_made_is_refused_before_the_network_is_built(tiny, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert command(tiny, tmp_path / "file" / "out", "--engine", "none") == 2
    assert "cannot be made" in capsys.readouterr().err
