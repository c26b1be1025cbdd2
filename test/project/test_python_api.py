"""What the names imported from `robot_vision` promise, and that the documentation's code runs."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from evaluation_bags import write_bag
from test_tutorials import walk, write_lab
from tiny_bundle import make_tiny_bundle
from written_commands import QUICK

import robot_vision
from robot_vision import Pipeline, PlaceMap, evaluate
from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main
from robot_vision.errors import ConfigError, EngineError, ImageError, RobotVisionError, SourceError
from robot_vision.places.map.base import MapError, MapMissingError
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.opening import create_map_for, open_map
from robot_vision.truth.reading import TruthRequest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
COLOURS = ((250, 5, 5), (5, 250, 5), (5, 5, 250), (240, 240, 10), (10, 240, 240))


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((32, 48, 3), colour, np.uint8)


def make_map(path: Path, model: Path, images: list[np.ndarray]) -> Path:
    """Makes a map with a keyframe for each image, ten metres from one another."""
    with Pipeline.load(model) as pipeline, create_map_for(path, pipeline.bundle) as places:
        for i, image in enumerate(images):
            T = np.eye(4)
            T[0, 3] = 10.0 * i
            places.add(
                Keyframe.checked(
                    stamp_ns=1_700_000_000_000_000_000 + i * 10**9,
                    camera="front",
                    source="drive",
                    T_map_camera=T,
                    descriptor=pipeline(image)["place"].values,
                )
            )
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("api") / "tiny")


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, robot_vision, json; names = dir(robot_vision);"
        "print(json.dumps([n for n in ('numpy', 'cv2', 'torch', 'onnxruntime', 'rclpy', 'faiss') "
        "if n in sys.modules] + [n for n in robot_vision.__all__ if n not in names]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.slow
def test_the_three_names_load_no_torch() -> None:
    code = "import sys; from robot_vision import Pipeline, PlaceMap, evaluate; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Pipelin'"):
        _ = robot_vision.Pipelin  # type: ignore[attr-defined]


# What programs pass by name or by place. More may come behind; these stay.
SIGNATURES: dict[str, tuple[Any, list[str]]] = {
    "load": (
        Pipeline.load,
        ["path", "engine", "device", "precision", "threads", "max_batch", "streams"],
    ),
    "call": (Pipeline.__call__, ["self", "images"]),
    "open": (PlaceMap.open, ["path", "model"]),
    "query": (PlaceMap.query, ["self", "what", "k"]),
    "evaluate": (
        evaluate,
        [
            *("bag", "model", "output", "topic", "truth", "settings"),
            *("engine", "device", "precision", "limit"),
        ],
    ),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_keep_their_arguments(name: str) -> None:
    function, known = SIGNATURES[name]
    there = list(inspect.signature(function).parameters.values())
    assert [p.name for p in there[: len(known)]] == known
    assert all(p.default is not p.empty for p in there[len(known) :])
    assert all(p.annotation is not p.empty for p in there if p.name != "self")


def test_a_pipeline_takes_one_image_or_several(tiny: Path) -> None:
    with Pipeline.load(tiny) as pipeline:
        images = [plain(colour) for colour in COLOURS[:3]]
        several = pipeline(images)
        one = pipeline(images[1])
        batch = pipeline(np.stack(images))
        assert isinstance(several, list) and isinstance(batch, list)
        assert (
            one["classifier"].top_k(1)[0].label
            == several[1]["classifier"].top_k(1)[0].label
            == "green"
        )
        assert [p["classifier"].top_k(1)[0].label for p in batch] == ["red", "green", "blue"]
        assert pipeline([]) == []


def test_threads_that_share_a_pipeline_get_their_own_answers(tiny: Path) -> None:
    with Pipeline.load(tiny, engine="onnx") as pipeline, ThreadPoolExecutor(4) as pool:
        asked = [plain(COLOURS[i % 3]) for i in range(200)]
        said = [p["classifier"].top_k(1)[0].label for p in pool.map(pipeline, asked)]
    assert said == [("red", "green", "blue")[i % 3] for i in range(200)]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((32, 48), np.uint8),
        np.zeros((32, 48, 4), np.uint8),
        np.zeros((32, 48, 3), np.float32),
        np.zeros((0, 48, 3), np.uint8),
        np.zeros((1, 1, 32, 48, 3), np.uint8),
    ],
    ids=["grey", "rgba", "float", "empty", "five"],
)
def test_what_is_no_rgb_image_is_refused_in_one_line(tiny: Path, image: np.ndarray) -> None:
    with Pipeline.load(tiny) as pipeline:
        for given in (image, [plain(COLOURS[0]), image]):
            with pytest.raises(ImageError, match="RGB uint8|empty"):
                pipeline(given)
        with pytest.raises(ImageError, match="str"):
            pipeline(["image.jpg"])  # type: ignore[list-item]


class Tensor:
    """As a library's own array is, of which each row would be taken for an image."""

    shape, ndim, dtype = (32, 48, 3), 3, "torch.uint8"

    def __iter__(self) -> Iterator[int]:
        return iter(range(32))


@pytest.mark.parametrize(
    "given", [None, 3, Path("a.jpg"), np.uint8(3), Tensor()], ids=lambda v: type(v).__name__
)
def test_what_is_no_array_is_refused_as_an_image(tiny: Path, given: Any) -> None:
    with Pipeline.load(tiny) as pipeline, pytest.raises(ImageError, match="give RGB uint8"):
        pipeline(given)


def test_batches_and_heads_that_cannot_be_are_refused_in_one_line(tiny: Path) -> None:
    for name, wrong in (("max_batch", 0), ("threads", -1), ("threads", 10**9), ("streams", -1)):
        for value in (wrong, 1.5, "2", None, True):
            with pytest.raises(EngineError, match=f"{name} is {value!r}"):
                Pipeline.load(tiny, **{name: value})  # type: ignore[arg-type]
    for device in (0, None):
        with pytest.raises(EngineError, match=f"Device '{device}' is not there"):
            Pipeline.load(tiny, device=device)  # type: ignore[arg-type]
    with Pipeline.load(tiny) as pipeline:
        prediction = pipeline(plain(COLOURS[0]))
    for limit in (-1, 1.5, "a"):
        with pytest.raises(ConfigError, match="limit is"):
            evaluate("drive", tiny, limit=limit)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no head 'depht': it answers with classifier"):
        _ = prediction["depht"]
    assert prediction.get("depht") is None and "depht" not in prediction
    assert "pose" in prediction and dict(prediction.items()) == prediction.answers
    assert len(prediction) == len(list(prediction)) == len(prediction.answers)


def test_what_is_no_path_is_refused_in_one_line(tiny: Path, tmp_path: Path) -> None:
    for wrong in (None, 3, b"models/demo"):
        calls: list[Callable[[Any], object]] = [
            Pipeline.load,
            PlaceMap.open,
            lambda path: PlaceMap.open("home.map", model=path or 0),
            lambda path: evaluate("drive", path),
            lambda path: evaluate(path, tiny),
            lambda path: evaluate([path], tiny),
            lambda path: evaluate("drive", tiny, output=path or 0),
        ]
        for call in calls:
            with pytest.raises(ConfigError, match="give a path"):
                call(wrong)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_a_pipeline_that_was_closed_says_so(tiny: Path, engine: str) -> None:
    pipeline = Pipeline.load(tiny, engine=engine)
    other = pipeline.another()
    pipeline.close()
    for closed in (pipeline, other):
        with pytest.raises(EngineError, match="tiny was closed: load it again"):
            closed(plain(COLOURS[0]))


@pytest.mark.parametrize(
    "query",
    [
        "x",
        np.array(["a"] * 8),
        np.ones(8, complex),
        np.ones(8, bool),
        [[1.0], [1.0, 2.0]],
        object(),
    ],
    ids=["text", "texts", "complex", "bool", "ragged", "object"],
)
def test_queries_that_are_no_numbers_are_refused(tiny: Path, tmp_path: Path, query: Any) -> None:
    path = make_map(tmp_path / "home.map", tiny, [plain(COLOURS[0])])
    with PlaceMap.open(path) as places:
        with pytest.raises(ConfigError):
            places.query(query)
        for k in (2.5, "a", None):
            with pytest.raises(ConfigError, match="k is .*: give a whole number"):
                places.query(np.eye(8)[0], k=k)  # type: ignore[arg-type]


def test_an_output_that_is_a_file_is_refused(tiny: Path, tmp_path: Path) -> None:
    bag, file = write_bag(tmp_path / "drive"), tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match="output .*file cannot be made"):
        evaluate(bag, tiny, output=file)


def test_a_map_answers_descriptors_and_images_alike(tiny: Path, tmp_path: Path) -> None:
    path = make_map(tmp_path / "home.map", tiny, [plain(colour) for colour in COLOURS])
    asked = plain((235, 20, 10))
    with Pipeline.load(tiny) as pipeline, PlaceMap.open(path, pipeline) as places:
        assert len(places) == len(COLOURS) and places.info.frame_id == "map"
        found = places.query(pipeline(asked)["place"].values, k=3)
        assert len(found.candidates) == 3 and found.candidates[0].position[0] == 0.0
        similarities = [c.similarity for c in found.candidates]
        assert similarities[0] == max(similarities) > 0.9
        assert 0.0 <= found.probability <= 1.0
        again = places.query(asked)
        assert again.candidates[0].keyframe_id == found.candidates[0].keyframe_id
        assert len(again.candidates) == len(COLOURS)
    with PlaceMap.open(path, model=tiny) as places:  # it loads the model itself
        assert places.query(asked).candidates[0].position[0] == 0.0


def test_a_query_does_not_remember_the_one_before(tiny: Path, tmp_path: Path) -> None:
    path = make_map(tmp_path / "home.map", tiny, [plain(colour) for colour in COLOURS])
    with PlaceMap.open(path, tiny) as places:
        first = places.query(plain(COLOURS[2])).probability
        for colour in COLOURS:
            places.query(plain(colour))
        assert places.query(plain(COLOURS[2])).probability == first


def test_a_query_sees_what_was_added_since(tiny: Path, tmp_path: Path) -> None:
    path = make_map(tmp_path / "home.map", tiny, [plain(colour) for colour in COLOURS[:4]])
    with Pipeline.load(tiny) as pipeline, PlaceMap.open(path, pipeline) as places:
        assert places.query(plain(COLOURS[4])).candidates[0].similarity < 0.999
        T = np.eye(4)
        T[0, 3] = 99.0
        with open_map(path) as writer:
            writer.add(
                Keyframe.checked(
                    stamp_ns=1,
                    camera="front",
                    source="later",
                    T_map_camera=T,
                    descriptor=pipeline(plain(COLOURS[4]))["place"].values,
                )
            )
        assert places.query(plain(COLOURS[4])).candidates[0].position[0] == 99.0


def test_maps_and_queries_that_cannot_be_used_say_why(tiny: Path, tmp_path: Path) -> None:
    path = make_map(tmp_path / "home.map", tiny, [plain(COLOURS[0])])
    with pytest.raises(MapMissingError, match="nowhere"):
        PlaceMap.open(tmp_path / "nowhere.map")
    with pytest.raises(MapError, match="was made by model tiny"):
        PlaceMap.open(path, make_tiny_bundle(tmp_path / "other", name="other"))
    with PlaceMap.open(path) as places:
        with pytest.raises(ConfigError, match="without a model.*tiny"):
            places.query(plain(COLOURS[0]))
        with pytest.raises(RobotVisionError):
            places.query(np.ones(3, np.float32))  # of another length
        with pytest.raises(ConfigError, match="top_k is 0"):
            places.query(np.eye(8, dtype=np.float32)[0], k=0)


@pytest.mark.slow
def test_evaluate_says_what_the_command_says(tiny: Path, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "drive")
    words = ["--model", str(tiny), "--no-cache", "--output", str(tmp_path / "command")]
    assert main(["evaluate", "--bag", str(bag), *words]) == 0
    command = json.loads((tmp_path / "command" / "metrics.json").read_text())
    quiet = evaluate(bag, tiny)
    assert quiet.files == ()
    for part in ("classification", "pose", "place", "association", "frames"):
        assert json.loads(json.dumps(quiet.metrics[part])) == command[part]
    assert quiet.metrics["pose"]["median_m"]["value"] == pytest.approx(0.1, abs=1e-3)
    assert "0.1" in str(quiet)
    kept = evaluate([bag], str(tiny), tmp_path / "out", truth=TruthRequest(label_source="none"))
    assert kept.files[0] == tmp_path / "out" / "report.html" and all(f.exists() for f in kept.files)
    assert kept.metrics["classification"] is None


@pytest.mark.slow
def test_evaluate_leaves_a_broken_bag_of_several_out_by_name(tiny: Path, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "drive")
    found = evaluate([bag, tmp_path / "absent"], tiny)
    assert found.metrics["failed"] == ["absent"]
    assert len(found.notes) == 1 and "absent is left out" in found.notes[0]
    with pytest.raises(SourceError, match="absent does not exist"):
        evaluate(tmp_path / "absent", tiny)
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        evaluate([], tiny)
    with pytest.raises(ConfigError, match="given twice"):
        evaluate([bag, bag], tiny)


@pytest.mark.slow
def test_the_three_lines_of_the_reference_run(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    make_map(tmp_path / "home.map", tmp_path / "models" / "demo", [plain(c) for c in COLOURS])
    write_bag(tmp_path / "drive", labels=False)
    (code,) = re.findall(r"```python\n(.*?)```", PYTHON, flags=re.DOTALL)
    code = "import numpy\nimage = numpy.zeros((48, 64, 3), numpy.uint8)\n" + code
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "40 frames of 1 recording" in done.stdout


@pytest.mark.slow
def test_the_notebook_runs_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells in order, in one namespace, on the small recordings of the map's tutorial."""
    pytest.importorskip("torch")
    matplotlib = pytest.importorskip("matplotlib")
    yaml = pytest.importorskip("yaml")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    write_lab(tmp_path / "lab")
    write_lab(tmp_path / "second_drive", frames=24)
    cv2.imwrite("view.jpg", next(iter(walk(240)))[0])
    assert main(["init", "my_lab", "--data", "lab"]) == 0
    monkeypatch.chdir(tmp_path / "my_lab")
    config = yaml.safe_load(Path("training.yaml").read_text())
    for key, value in QUICK.items():
        section, _, name = key.partition(".")
        config.setdefault(section, {})[name] = yaml.safe_load(value)
    Path("training.yaml").write_text(yaml.safe_dump(config))
    page = (ROOT / "docs" / "tutorials" / "python.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for language, block in re.findall(r"```(\w*)\n(.*?)```", page, flags=re.DOTALL):
        if language == "python":
            exec(compile(block, "python.md", "exec"), names)
        else:
            assert main(block.split()[1:]) == 0, block
    assert ModelBundle.load("runs/my_lab/bundle").name
    assert Path("lab_map.png").stat().st_size > 1000
    assert Path("out/second_drive/report.html").is_file()
    said = capsys.readouterr().out
    assert "95 % interval" in said and "believe it" in said
