"""Segmentation from label images to a bundle, its evaluation, and topics in a running node."""

import json

import cv2
import numpy as np
import pytest
from train_data import configuration

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main
from robot_vision.contract import registry
from robot_vision.errors import ConfigError
from robot_vision.heads.segmentation.drawing import palette
from robot_vision.pipeline import Pipeline
from robot_vision.recordings.writing import RecordingWriter

HEAD = registry.head("segmentation")
CLASSES = ("floor", "wall", "box")
COLOURS = np.array([(150, 110, 70), (90, 110, 160), (200, 60, 50)])
SIZE = (64, 96)
START_NS = 1_700_000_000 * 10**9


def scene(rng):
    """Returns a picture of a floor, a wall and a box, RGB (64, 96, 3), and the class of each pixel."""
    ids = np.ones(SIZE, np.uint8)
    ids[rng.integers(26, 42) :] = 0
    left, top = rng.integers(4, 60), rng.integers(14, 34)
    ids[top : top + rng.integers(14, 26), left : left + rng.integers(14, 30)] = 2
    image = COLOURS[ids] + rng.normal(0, 12, (*SIZE, 3)) + rng.normal(0, 10, 3)
    return np.clip(image, 0, 255).astype(np.uint8), ids


def folders(root, train=48, test=12, seed=0):
    """Writes images and label images, of which some pixels have no truth, and the table of classes."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", train), ("test", test)):
        for kind in ("images", "labels"):
            (root / part / kind).mkdir(parents=True)
        for i in range(count):
            image, ids = scene(rng)
            ids[:, :3] = 255
            cv2.imwrite(str(root / part / "images" / f"{i:03d}.png"), image[..., ::-1])
            cv2.imwrite(str(root / part / "labels" / f"{i:03d}.png"), ids)
    lines = [f"{r} {g} {b} {name}" for name, (r, g, b) in zip(CLASSES, COLOURS, strict=True)]
    (root / "classes.txt").write_text("\n".join(lines) + "\n")
    return root


def segmentation(path, output, **groups):
    settings = {
        "heads": ["segmentation"],
        "network": {
            "backbone": "shufflenet_v2_x0_5",
            "weights": None,
            "input": {"height": 64, "width": 96},
            "segmentation": {"channels": 16, "dropout": 0.0},
        },
        "loop": {"epochs": 12, "batch_size": 8, "threads": 1, "accelerator": "cpu"},
        "optimiser": {"learning_rate": 4e-3, "ema": 0.9},
        "data": {"options": {"validation": 0}},
        "baselines": ["most_frequent", "prior"],
    }
    return configuration("mask_folder", path, output, **{**settings, **groups})


def drive(path, count=20, seed=7):
    """Writes a bag of pictures with the true class of each pixel."""
    rng = np.random.default_rng(seed)
    with RecordingWriter(path) as bag:
        for i in range(count):
            image, ids = scene(rng)
            ns = START_NS + i * 10**8
            bag.image("/camera/image_raw", ns, "camera", image)
            bag.image("/truth/segmentation", ns, "camera", ids, "mono8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("torch")
    from robot_vision.training.run import train

    folder = tmp_path_factory.mktemp("segmentation")
    config = segmentation(folders(folder / "data"), folder / "run", variants=["int8", "float16"])
    return train(config, quiet=True, command="test")


@pytest.mark.slow
def test_it_learns_from_label_images_and_says_class_ids(trained):
    metrics = trained.report["metrics"]["test"]["segmentation"]
    baselines = trained.report["baselines"]["segmentation"]
    assert metrics["mean_iou"] > 0.8 and metrics["pixel_accuracy"] > 0.9
    assert set(metrics["iou"]) == set(CLASSES)
    assert set(baselines) == {"most_frequent", "prior"}
    assert all(metrics["mean_iou"] > b["mean_iou"] + 0.2 for b in baselines.values())
    rng = np.random.default_rng(11)
    image, ids = scene(rng)
    with Pipeline.load(trained.bundle, "onnx", threads=1) as pipeline:
        answer = pipeline([image])[0]["segmentation"]
    colours = palette(ModelBundle.load(trained.bundle).spec.heads["segmentation"])
    np.testing.assert_array_equal(colours[:3], COLOURS)
    assert answer.class_ids.shape == answer.confidence.shape == (16, 24)
    assert (answer.class_ids == ids[2::4, 2::4]).mean() > 0.85


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["int8", "float16"])
def test_variants_say_nearly_the_same(trained, variant):
    rng = np.random.default_rng(12)
    images = [scene(rng)[0] for _ in range(8)]
    said = []
    for bundle in (trained.bundle, trained.folder / f"bundle-{variant}"):
        with Pipeline.load(bundle, "onnx", threads=1) as pipeline:
            said.append(np.stack([p["segmentation"].class_ids for p in pipeline(images)]))
    assert (said[0] == said[1]).mean() > (0.9 if variant == "int8" else 0.99)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_engines_say_the_same(trained, engine):
    pytest.importorskip(engine)
    rng = np.random.default_rng(13)
    images = [scene(rng)[0] for _ in range(4)]
    said = []
    for name in ("onnx", engine):
        with Pipeline.load(trained.bundle, name, threads=1) as pipeline:
            said.append([p["segmentation"] for p in pipeline(images)])
    for a, b in zip(*said, strict=True):
        assert b.class_ids.dtype == b.confidence.dtype == np.uint8
        assert (a.class_ids == b.class_ids).mean() > 0.995
        assert np.abs(a.confidence.astype(int) - b.confidence).max() <= 3


@pytest.mark.slow
def test_evaluation_of_a_bag_agrees_with_scikit_learn_and_with_its_own_replay(
    trained, tmp_path, capsys
):
    sklearn = pytest.importorskip("sklearn.metrics")
    bag, out = drive(tmp_path / "drive"), tmp_path / "out"
    evaluate = ["evaluate", "--bag", str(bag), "--model", str(trained.bundle)]
    more = ["--topic", "/camera/image_raw", "--resamples", "50", "--format", "json"]
    assert main([*evaluate, "--output", str(out), *more]) == 0
    found = json.loads(capsys.readouterr().out)
    rng, said, true = np.random.default_rng(7), [], []
    with Pipeline.load(trained.bundle, "onnx", threads=1) as pipeline:
        for _ in range(20):
            image, ids = scene(rng)
            small = pipeline([image])[0]["segmentation"].class_ids
            said.append(small.repeat(4, 0).repeat(4, 1))
            true.append(ids)
    y, x = np.stack(true).ravel(), np.stack(said).ravel()
    numbers = found["segmentation"]
    assert numbers["frames"] == 20 and numbers["pixels"] == y.size
    wanted = sklearn.jaccard_score(y, x, average="macro")
    assert numbers["mean_iou"]["value"] == pytest.approx(wanted, abs=1e-9)
    assert numbers["mean_iou"]["low"] < wanted < numbers["mean_iou"]["high"]
    assert numbers["pixel_accuracy"]["value"] == pytest.approx(sklearn.accuracy_score(y, x))
    assert numbers["mean_iou"]["value"] > numbers["baselines"]["most_frequent"]["mean_iou"]["value"]
    assert 0 <= numbers["ece"]["value"] < 0.3
    each = {c["label"]: c["iou"]["value"] for c in found["segmentation_classes"]["classes"]}
    assert list(each) == list(CLASSES)
    np.testing.assert_allclose(list(each.values()), sklearn.jaccard_score(y, x, average=None))
    page = (out / "report.html").read_text()
    for title in ("Best frames", "Worst frames", "Frames from the middle", "IoU of each class"):
        assert title in page
    assert page.count('alt="frame"') >= 6

    # What the node would have published is in the results' bag, and is judged the same.
    recorded = ["evaluate", "--predictions", str(out / "results/drive"), "--bag", str(bag)]
    recorded += ["--model", str(trained.bundle), "--output", str(tmp_path / "again")]
    assert main([*recorded, *more]) == 0
    again = json.loads(capsys.readouterr().out)
    for key in ("mean_iou", "boundary_f", "ece"):
        assert again["segmentation"][key] == numbers[key]


@pytest.mark.slow
def test_infer_writes_masks_next_to_its_lines(trained, tmp_path, capsys):
    image, _ = scene(np.random.default_rng(3))
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    out = tmp_path / "out.jsonl"
    asked = ["infer", "--model", str(trained.bundle), "--engine", "onnx", str(tmp_path / "a.png")]
    assert main([*asked, "--output", str(out), "--attach", str(tmp_path / "files")]) == 0
    (line,) = map(json.loads, out.read_text().splitlines())
    said = line["segmentation"]
    ids, sure = (
        cv2.imread(str(tmp_path / said[key]), cv2.IMREAD_UNCHANGED)
        for key in ("class_ids", "confidence")
    )
    with Pipeline.load(trained.bundle, "onnx", threads=1) as pipeline:
        answer = pipeline([image])[0]["segmentation"]
    np.testing.assert_array_equal(ids, answer.class_ids)
    np.testing.assert_array_equal(sure, answer.confidence)
    shares = {CLASSES[i]: (ids == i).mean() for i in np.unique(ids)}
    assert said["shares"] == pytest.approx(shares, abs=1e-6)


@pytest.mark.slow
@pytest.mark.ros
def test_node_publishes_what_nav2s_semantic_layer_reads(trained, tmp_path):
    pytest.importorskip("rclpy")
    from ros_helpers import rgb_message, running, stamp_ns, wait_until
    from sensor_msgs.msg import CameraInfo, Image
    from vision_msgs.msg import LabelInfo

    from robot_vision.ros.node.qos import profile

    image, _ = scene(np.random.default_rng(5))
    with Pipeline.load(trained.bundle, "onnx", threads=1) as pipeline:
        expected = pipeline([image])[0]["segmentation"]
    given = {"model": trained.bundle, "engine": "onnx", "cameras": "[front]"}
    with running(tmp_path, "perception_node", **given) as (_, client):
        masks = client.listen(Image, "/perception/front/segmentation")
        sure = client.listen(Image, "/perception/front/segmentation/confidence")
        infos = client.listen(CameraInfo, "/perception/front/segmentation/camera_info")
        labels = client.listen(
            LabelInfo, "/perception/segmentation_label_info", profile("reliable", 1, latched=True)
        )
        stamp = START_NS + 123_456_789
        info = CameraInfo(height=64, width=96, distortion_model="plumb_bob", d=[0.0] * 5)
        info.k = [80.0, 0.0, 47.5, 0.0, 80.0, 31.5, 0.0, 0.0, 1.0]
        info.header.frame_id = "front_optical"

        def send():
            message = rgb_message(image, stamp)
            info.header = message.header
            client.publisher(CameraInfo, "/front/camera_info").publish(info)
            client.publisher(Image, "/front/image_raw").publish(message)

        wait_until(lambda: masks and sure and infos and labels, what="masks", each=send)
        for message, wanted in ((masks[-1], expected.class_ids), (sure[-1], expected.confidence)):
            assert (message.encoding, message.height, message.width) == ("mono8", 16, 24)
            assert message.step == message.width and len(message.data) == 16 * 24
            np.testing.assert_array_equal(np.reshape(message.data, (16, 24)), wanted)
        headers = [m.header for m in (masks[-1], sure[-1], infos[-1])]
        assert {stamp_ns(m) for m in (masks[-1], sure[-1], infos[-1])} == {stamp}
        assert len({h.frame_id for h in headers}) == 1
        scaled = infos[-1]
        assert (scaled.height, scaled.width) == (16, 24)
        # Pixel centres are whole numbers: 47.5 is the middle of 96 columns, and 11.5 that of 24.
        np.testing.assert_allclose(scaled.k, [20, 0, 11.5, 0, 20, 7.5, 0, 0, 1])
        names = {c.class_id: c.class_name for c in labels[-1].class_map}
        assert names == dict(enumerate(CLASSES))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": ["a", "b"]}, "labels cannot be set"),
        ({"decoder": "fcn8"}, "did you mean 'fcn8s'"),
    ],
)
def test_settings_that_the_data_say_are_refused(tmp_path, settings, message):
    pytest.importorskip("torch")
    from robot_vision.training.run import train

    network = {
        "backbone": "shufflenet_v2_x0_5",
        "weights": None,
        "input": {"height": 64, "width": 96},
        "segmentation": settings,
    }
    config = segmentation(folders(tmp_path / "data", 4, 2), tmp_path / "run", network=network)
    with pytest.raises(ConfigError, match=message):
        train(config, quiet=True, command="test")


@pytest.mark.slow
def test_stress_says_what_worse_images_cost(trained, tmp_path):
    bag, out = drive(tmp_path / "drive"), tmp_path / "out"
    asked = ["stress", "--bag", str(bag), "--topic", "/camera/image_raw", "--engine", "onnx"]
    asked += ["--model", str(trained.bundle), "--resamples", "20", "--output", str(out)]
    assert main([*asked, "--degradations", "noise,rotation,dropped"]) == 0
    document = json.loads((out / "stress.json").read_text())
    good, *others = document["conditions"]
    assert good["numbers"]["segmentation.mean_iou"] > 0.8
    assert set(good["numbers"]) == set(good["intervals"])
    by_name = {(c["degradation"], c["index"]): c["numbers"] for c in others}
    worst = by_name["noise", 4]["segmentation.mean_iou"]
    assert worst < good["numbers"]["segmentation.mean_iou"] - 0.05
    assert by_name["rotation", 0]["segmentation.mean_iou"] > worst
    assert by_name["dropped", 4]["segmentation.pixel_accuracy"] < 0.9
    assert "Mean IoU" in (out / "report.html").read_text()


@pytest.mark.slow
def test_bag_that_names_its_classes_is_judged_by_the_names(trained, tmp_path, capsys):
    """The same drive with other ids has the same numbers; foreign classes are left out, or refused."""
    found = {}
    for name, order, labels in (
        ("plain", [0, 1, 2], None),
        ("named", [2, 0, 1], ("wall", "box", "floor")),
        ("foreign", [0, 1, 2], ("sea", "sky", "ship")),
    ):
        rng = np.random.default_rng(7)
        bag = tmp_path / f"{name}-bag"
        with RecordingWriter(bag) as out:
            if labels:
                out.label_info("/truth/segmentation_label_info", START_NS, "camera", labels)
            for i in range(6):
                image, ids = scene(rng)
                ns = START_NS + i * 10**8
                out.image("/camera/image_raw", ns, "camera", image)
                out.image(
                    "/truth/segmentation", ns, "camera", np.array(order, np.uint8)[ids], "mono8"
                )
        asked = ["evaluate", "--bag", str(bag), "--model", str(trained.bundle), "--resamples", "10"]
        assert main([*asked, "--output", str(tmp_path / name)]) == 0
        document = json.loads((tmp_path / name / "metrics.json").read_text())
        found[name] = document["segmentation"]
    assert found["named"] == found["plain"] and found["plain"]["mean_iou"]["value"] > 0.7
    assert found["foreign"] is None
    assert "images of segmentation are left out" in capsys.readouterr().out
    explicit = [
        "--truth-image",
        "segmentation=/truth/segmentation",
        "--output",
        str(tmp_path / "x"),
    ]
    assert main([*asked, *explicit]) == 2
    assert "classes of segmentation are sea, sky, ship" in capsys.readouterr().err


@pytest.mark.slow
def test_calibrate_makes_the_confidence_true_and_changes_no_class(trained, tmp_path, capsys):
    data = folders(tmp_path / "data", train=30, test=4, seed=21)
    new = tmp_path / "calibrated"
    asked = ["calibrate", str(trained.bundle), "--data", "mask_folder", str(data)]
    assert main([*asked, "--split", "train", "--output", str(new), "--resamples", "50"]) == 0
    record = ModelBundle.load(new).material["segmentation"].calibration["segmentation"]
    assert record["images"] == 30
    assert record["after"]["nll"][0] < record["before"]["nll"][0]
    images = [scene(np.random.default_rng(30 + i))[0] for i in range(4)]
    with Pipeline.load(trained.bundle, "onnx") as old, Pipeline.load(new, "onnx") as fitted:
        for a, b in zip(old(images), fitted(images), strict=True):
            before, after = a["segmentation"], b["segmentation"]
            np.testing.assert_array_equal(before.class_ids, after.class_ids)
            assert (before.confidence != after.confidence).any()


@pytest.mark.slow
def test_calibrate_takes_true_classes_by_their_names(trained, tmp_path, capsys):
    """Data that number the same classes in another order give the same temperature."""
    data = folders(tmp_path / "data", train=30, test=4, seed=21)
    other = folders(tmp_path / "other", train=30, test=4, seed=21)
    order = [2, 0, 1]  # their id of each of ours
    for file in (other / "train" / "labels").iterdir():
        table = np.full(256, 255, np.uint8)
        table[:3] = order
        cv2.imwrite(str(file), table[cv2.imread(str(file), cv2.IMREAD_UNCHANGED)])
    (other / "classes.txt").write_text("wall\nbox\nfloor\n")
    found = []
    for number, folder in enumerate((data, other)):
        new = tmp_path / f"calibrated{number}"
        asked = ["calibrate", str(trained.bundle), "--data", "mask_folder", str(folder)]
        assert main([*asked, "--split", "train", "--output", str(new), "--resamples", "10"]) == 0
        found.append(ModelBundle.load(new).material["segmentation"].calibration["segmentation"])
    assert found[0]["temperature"] == found[1]["temperature"]
    assert found[0]["before"] == found[1]["before"] and found[0]["images"] == 30


@pytest.mark.slow
def test_calibrate_says_which_true_classes_it_leaves_out(trained, tmp_path, capsys):
    data = folders(tmp_path / "data", train=30, test=4, seed=21)
    asked = [
        "calibrate",
        str(trained.bundle),
        "--data",
        "mask_folder",
        str(data),
        "--split",
        "train",
    ]
    (data / "classes.txt").write_text("floor\nwall\nchair\n")
    out = ["--output", str(tmp_path / "new"), "--resamples", "10"]
    assert main([*asked, *out]) == 0
    assert "classes that the model does not know are left out: chair" in capsys.readouterr().err
    (data / "classes.txt").write_text("sea\nsky\nship\n")
    assert main([*asked, "--output", str(tmp_path / "none"), "--heads", "segmentation"]) == 2
    said = capsys.readouterr().err
    assert "sea, sky, ship, and the model's floor, wall, box" in said
    assert "no truth for it" in said
