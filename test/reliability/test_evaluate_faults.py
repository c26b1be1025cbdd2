"""`robot-vision evaluate` on what is damaged, missing or contradicts itself."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_bags import PERIOD, START, label, orientation, picture, position, write_bag
from tiny_bundle import make_tiny_bundle

from robot_vision.cli import main
from robot_vision.evaluation.predict.recorded import read_results, with_times_of, write_results
from robot_vision.evaluation.predict.replay import replay
from robot_vision.pipeline import Pipeline
from robot_vision.recordings import open_source
from robot_vision.recordings.writing import RecordingWriter


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny")


class Run:
    """Runs the verb in this process and gives what it said."""

    def __init__(self, bundle: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.bundle, self.output, self._capfd = bundle, folder / "out", capfd

    def __call__(self, *words: object, model: Path | None = None) -> int:
        common = ("--model", model or self.bundle, "--engine", "onnx", "--output", self.output)
        fast = ("--resamples", 0, "--no-results-bag")
        self.status = main(["evaluate", *(str(w) for w in (*words, *common, *fast))])
        self.out, self.err = self._capfd.readouterr()
        return self.status

    def refused(self, *words: object, model: Path | None = None) -> str:
        """Returns the one line by which it refused."""
        assert self(*words, model=model) == 2, self.out + self.err
        lines = [x for x in self.err.splitlines() if not x.startswith("note:")]
        assert len(lines) == 1 and lines[0].startswith("robot-vision evaluate: "), self.err
        assert not (self.output / "metrics.json").exists()
        return lines[0]

    @property
    def metrics(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.output / "metrics.json").read_text())
        return data


@pytest.fixture
def run(bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    return Run(bundle, tmp_path, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_truncated_bag_is_scored_as_far_as_it_can_be_read(
    storage: str, run: Run, tmp_path: Path
) -> None:
    bag = write_bag(tmp_path / "drive", count=200, storage=storage)
    (file,) = [p for p in bag.iterdir() if p.suffix in (".db3", ".mcap")]
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 6 // 10])
    assert run("--bag", bag) == 0, run.err
    frames = run.metrics["frames"]
    assert 20 < frames < 200
    assert run.metrics["pose"]["median_m"]["value"] == pytest.approx(0.1, abs=1e-6)
    assert "is damaged, what is whole is read" in run.out
    assert "is damaged" in (run.output / "report.html").read_text()


def test_missing_topic_lists_those_that_are_there(run: Run, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "drive", count=3)
    said = run.refused("--bag", bag, "--topic", "/rear/image_raw")
    assert "'/rear/image_raw'" in said and "/front/image_raw" in said


def test_several_image_topics_ask_for_one(run: Run, tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "two") as bag:
        for topic in ("/front/image_raw", "/rear/image_raw"):
            bag.image(topic, START, "camera", picture(0))
    said = run.refused("--bag", tmp_path / "two")
    assert "--topic" in said and "/front/image_raw, /rear/image_raw" in said
    assert run("--bag", tmp_path / "two", "--topic", "rear/image_raw") == 0
    assert run.metrics["recordings"][0]["meta"]["topic"] == "/rear/image_raw"


def test_bag_without_images_says_what_it_has(run: Run, tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "talk") as bag:
        bag.label("/chatter", START, "hello")
    assert "/chatter (std_msgs/msg/String)" in run.refused("--bag", tmp_path / "talk")


def test_empty_bag_is_said(run: Run, tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "empty"):
        pass
    assert "no image topic: it has no topic at all" in run.refused("--bag", tmp_path / "empty")


def test_topic_without_messages_is_said(run: Run, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "drive", count=2, labels=False, poses=False)
    (file,) = bag.glob("*.db3")
    with sqlite3.connect(file) as database:
        database.execute("delete from messages")
    database.close()
    assert "no frame of /front/image_raw can be used" in run.refused("--bag", bag)


def test_bag_without_message_definitions_is_scored(run: Run, tmp_path: Path) -> None:
    """Bags of Humble hold none; vision_msgs is then known all the same."""
    from robot_vision.messages.types import CLASSIFICATION

    with RecordingWriter(tmp_path / "humble") as bag:
        make = bag.types
        for i in range(12):
            stamp = START + i * PERIOD
            hypothesis = make["vision_msgs/msg/ObjectHypothesis"](label(i), 1.0)
            truth = make[CLASSIFICATION](bag.header(stamp, "front"), [hypothesis])
            bag.write("/truth/label", stamp, truth)
            bag.image("/front/image_raw", stamp, "front", picture(i))
    (file,) = (tmp_path / "humble").glob("*.db3")
    with sqlite3.connect(file) as database:
        database.execute("delete from message_definitions")
    database.close()
    assert run("--bag", tmp_path / "humble") == 0, run.err
    assert run.metrics["classification"]["frames"] == 12
    assert run.metrics["classification"]["top1"]["value"] == 1.0


def write_stamps(path: Path, stamps: list[int]) -> Path:
    """Writes images whose headers have these stamps in this order; the log's times increase."""
    with RecordingWriter(path) as bag:
        for i, stamp in enumerate(sorted(set(stamps))):
            bag.camera_pose("/truth/pose", stamp, [float(i), 0, 0], [0, 0, 0, 1])
        for i, stamp in enumerate(stamps):
            image = bag.types["sensor_msgs/msg/Image"]
            pixels = picture(0)
            message = image(bag.header(stamp, "front"), 32, 48, "rgb8", 0, 144, pixels.reshape(-1))
            bag.write("/front/image_raw", START + i * PERIOD, message)
    return path


def test_unsorted_and_duplicate_stamps_are_sorted_counted_and_said(
    run: Run, tmp_path: Path
) -> None:
    stamps = [START + i * PERIOD for i in (0, 2, 1, 3, 3, 5, 4)]
    assert run("--bag", write_stamps(tmp_path / "drive", stamps)) == 0, run.err
    association = run.metrics["association"]
    assert association["unsorted_stamps"] == 2 and association["duplicate_stamps"] == 1
    assert run.metrics["frames"] == 6 and association["frames"] == 7
    assert "2 frames had a stamp before" in run.out and "1 frame had a stamp that" in run.out
    rows = (run.output / "drive.estimate.tum").read_text().splitlines()[1:]
    times = [float(row.split()[0]) for row in rows]
    assert times == sorted(times) and len(times) == 6


@pytest.mark.slow
def test_results_of_images_of_one_stamp_are_all_read(run: Run, tmp_path: Path) -> None:
    """A driver repeats its stamps: twenty images have four."""
    bag = write_stamps(tmp_path / "drive", [START + i // 5 * PERIOD for i in range(20)])
    with Pipeline.load(run.bundle, "onnx") as pipeline, open_source(bag) as source:
        made = replay(pipeline, source)
        write_results(tmp_path / "results", made, pipeline.bundle)
        write_results(tmp_path / "few", made.take(np.arange(17)), pipeline.bundle)
        found = with_times_of(read_results(tmp_path / "results"), source)
        assert found.log_ns is not None and found.position is not None
        assert found.log_ns.tolist() == [START + i * PERIOD for i in range(20)]
        assert np.allclose(found.position, made.position, atol=1e-6)
        few = with_times_of(read_results(tmp_path / "few"), source)
    assert len(few) == 15
    notes = few.meta["problems"]
    assert any("3 of 20 images have no result" in note for note in notes)
    assert any("2 results were left out: several images have their stamp" in n for n in notes)
    assert run("--predictions", tmp_path / "results", "--bag", bag) == 0, run.err
    assert run.metrics["association"]["frames"] == 20
    assert "16 frames had a stamp that another one has" in run.out


def test_truth_of_another_time_is_said(run: Run, tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "drive") as bag:
        for i in range(5):
            stamp = START + i * PERIOD
            bag.image("/front/image_raw", stamp, "front", picture(i))
            bag.camera_pose("/truth/pose", stamp + 10**12, position(i), orientation(i))
    said = run.refused("--bag", tmp_path / "drive")
    assert "No frame has true poses" in said and "clocks" in said


@pytest.mark.slow
def test_nan_in_the_truth_is_said_or_left_out(run: Run, tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "drive") as bag:
        for i in range(12):
            stamp = START + i * 10 * PERIOD
            bag.image("/front/image_raw", stamp, "front", picture(i))
            where = position(i) if i != 4 else np.array([np.nan, 0, 0])
            bag.camera_pose("/truth/pose", stamp, where, orientation(i))
    said = run.refused("--bag", tmp_path / "drive")
    assert "/truth/pose#4" in said and "finite" in said and "skip" in said
    assert run("--bag", tmp_path / "drive", "--bad-poses", "skip") == 0, run.err
    assert run.metrics["pose"]["frames"] == 11
    assert run.metrics["association"]["truth_refused"] == {"poses": 1}
    assert "1 of 12 frames has no true pose" in run.out


@pytest.mark.parametrize(
    ("heads", "labels", "poses", "word"),
    [
        (("pose", "place"), True, False, "no classifier head"),
        (("classifier",), False, True, "neither a pose nor a place nor a cells"),
    ],
)
def test_bundle_without_the_head_that_the_truth_asks_for_is_said(
    heads: tuple[str, ...], labels: bool, poses: bool, word: str, run: Run, tmp_path: Path
) -> None:
    bag = write_bag(tmp_path / "drive", count=6, labels=labels, poses=poses)
    model = make_tiny_bundle(tmp_path / "part", heads=heads)
    assert word in run.refused("--bag", bag, model=model)


def test_recording_too_short_to_look_places_up_in_is_said(run: Run, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "drive", count=6, labels=False)
    model = make_tiny_bundle(tmp_path / "places", heads=("place",))
    assert run("--bag", bag, model=model) == 0
    assert run.metrics["place"] is None and "--place-exclude" in run.out
    assert run("--bag", bag, "--no-poses", model=model) == 0
    assert "no truth was found" in run.out


def test_images_that_cannot_be_decoded_are_counted(run: Run, tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "drive") as bag:
        for i in range(12):
            stamp = START + i * PERIOD
            bag.label("/truth/room", stamp, label(i))
            data = b"\xff\xd8\xff\xe0 no picture" if i in (3, 7) else jpeg(i)
            bag.compressed_image("/front/image_raw/compressed", stamp, "front", data, "jpeg")
    assert run("--bag", tmp_path / "drive") == 0, run.err
    assert run.metrics["frames"] == 10
    assert run.metrics["recordings"][0]["meta"]["refused"] == {"corrupt": 2}
    assert "2 frames could not be used (corrupt)" in run.out


def jpeg(i: int) -> bytes:
    import cv2

    ok, data = cv2.imencode(".jpg", picture(i)[..., ::-1])
    assert ok
    return bytes(data.tobytes())


def test_labels_that_the_model_does_not_know_make_the_open_set(run: Run, tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "drive") as bag:
        for i in range(12):
            stamp = START + i * PERIOD
            bag.label("/truth/room", stamp, label(i) if i % 3 else "garage")
            bag.image("/front/image_raw", stamp, "front", picture(i))
    assert run("--bag", tmp_path / "drive") == 0, run.err
    assert run.metrics["open_set"]["unknown"] == 4 and run.metrics["open_set"]["known"] == 8
    assert "garage (4" in run.out


def test_one_bad_bag_of_several_is_left_out_and_said(run: Run, tmp_path: Path) -> None:
    write_bag(tmp_path / "good", count=12)
    (tmp_path / "bad.bag").write_bytes(b"#ROSBAG V2.0\nno more")
    assert run("--bag", tmp_path / "good", "--bag", tmp_path / "bad.bag") == 1
    assert "warning: bad.bag is left out" in run.err
    assert run.metrics["failed"] == ["bad.bag"] and run.metrics["frames"] == 12


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--bag", "{tmp}/nothing"), "does not exist"),
        (("--bag", "{tmp}/no*"), "matches nothing"),
        (("--bag", "{tmp}/text.txt"), "is no rosbag"),
        ((), "nothing to evaluate"),
        (("--bag", "{bag}", "--bag", "{bag}/"), ""),
        (("--bag", "{bag}", "--compare", "{tmp}/text.txt"), "cannot be read as JSON"),
        (("--bag", "{bag}", "--pose-topic", "/nowhere"), "/truth/pose"),
        (("--bag", "{bag}", "--label-topic", "/nowhere"), "/truth/room"),
        (("--bag", "{bag}", "--tf", "map", "front"), "tf does not connect"),
        (("--bag", "{bag}", "--labels", "{tmp}/text.txt"), "text.txt:1"),
        (("--bag", "{bag}", "--device", "cuda:7"), "Device 'cuda:7' is not there"),
        (("--bag", "{bag}", "--confidence", "2"), "confidence is 2.0"),
        (("merge",), "at least one evaluation"),
        (("marge", "a.json"), "'marge' is no option"),
        (("merge", "{tmp}/text.txt"), "cannot be read as JSON"),
        (("--predictions", "{bag}"), "holds no results of the node"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    words: tuple[str, ...], said: str, run: Run, tmp_path: Path
) -> None:
    bag = write_bag(tmp_path / "drive", count=6)
    (tmp_path / "text.txt").write_text("nothing of use\n")
    given = [w.format(tmp=tmp_path, bag=bag) for w in words]
    if not said:  # the same bag twice counts once
        assert run(*given) == 0 and run.metrics["frames"] == 6
    else:
        assert said in run.refused(*given)


@pytest.mark.parametrize("words", [["--predictions", "missing"], ["merge", "missing.json"]])
def test_an_impossible_output_is_told_before_the_work(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["evaluate", *words, "--output", str(tmp_path / "file" / "out")]) == 2
    said = capsys.readouterr().err
    assert "--output" in said and "missing" not in said


def test_labels_of_a_head_that_the_model_lacks_are_refused(run: Run, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "drive", count=4)
    for words, said in (
        ("lights=/truth/room", "no classifier of the model has a name of its own"),
        ("/truth/room", "is not HEAD=WHERE"),
    ):
        assert said in run.refused("--bag", bag, "--labels-of", words)
