"""Heads of other packages, and several heads of one kind: from bundle.yaml to JSON, table and picture."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from robot_vision.annotate import annotate
from robot_vision.bundle.bundle import GRAPH, ModelBundle, write_manifest
from robot_vision.cli import main
from robot_vision.contract import check, registry
from robot_vision.contract.head import NoOptions
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import BundleError, ConfigError
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.images.input import InputSpec
from robot_vision.pipeline import Pipeline

SIZE = (32, 48)
ROOM = ClassifierSpec(("red room", "green room", "blue room"))
LIGHTS = ClassifierSpec(("stop", "wait", "go"), unknown_threshold=0.4)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Returns what installs packages: name, entry points and modules, in a folder of Python's path."""
    folder = tmp_path / "site"
    folder.mkdir()

    def install(package: str, entries: dict[str, str], **modules: str) -> None:
        info = folder / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{kind} = {value}\n" for kind, value in entries.items())
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{lines}")
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        registry._installed.cache_clear()

    monkeypatch.syspath_prepend(folder)
    yield install
    monkeypatch.undo()
    registry._installed.cache_clear()
    registry._load.cache_clear()


@pytest.mark.parametrize(
    "info", ["a-1.0.dist-info", "a.egg-info", "A-1.0.DIST-INFO", "a.egg/EGG-INFO", "a.zip", ""]
)
def test_an_entry_point_is_seen_wherever_importlib_finds_one(tmp_path, monkeypatch, info):
    text = f"[{registry.GROUP}]\nsonar = sonar:HEAD\n"
    if info.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / info, "w") as archive:
            archive.writestr("a-1.0.dist-info/METADATA", "Name: a\nVersion: 1.0\n")
            archive.writestr("a-1.0.dist-info/entry_points.txt", text)
    elif info:
        (tmp_path / info).mkdir(parents=True)
        for name in ("METADATA", "PKG-INFO"):
            (tmp_path / info / name).write_text("Name: a\nVersion: 1.0\n")
        (tmp_path / info / "entry_points.txt").write_text(text)
    inside = info if info.endswith(".zip") else Path(info).parent
    monkeypatch.setattr(sys, "path", [str(tmp_path / "absent"), str(tmp_path / inside)])
    found = [entry.name for entry in metadata.entry_points(group=registry.GROUP)]
    assert found == (["sonar"] if info else [])
    assert registry._any_installed() is bool(info)


@pytest.mark.parametrize("kind", registry.BUILT_IN)
def test_a_built_in_heads_options_are_known_without_it(kind):
    given = registry.options().get(kind, NoOptions)
    assert given is registry.head(kind).Options


@pytest.fixture
def toys(site):
    names = {"toy_steering": "STEERING", "toy_segments": "SEGMENTS", "toy_dense": "DENSE"}
    site("toys", {kind: f"toy_heads:{name}" for kind, name in names.items()})
    return site


def write(path: Path, heads) -> Path:
    from toy_heads import graph

    spec = NetworkSpec(input=InputSpec(*SIZE), heads=heads)
    path.mkdir()
    (path / GRAPH).write_bytes(graph(spec))
    (path / "README.md").write_text("Test bundle.\n")
    write_manifest(path, "toy", spec, {}, {})
    return path


def picture(path: Path, red: int, green: int, blue: int) -> Path:
    cv2.imwrite(str(path), np.full((*SIZE, 3), (blue, green, red), np.uint8))
    return path


@pytest.fixture
def toy_bundle(toys, tmp_path):
    from toy_heads import SegmentsSpec, SteeringSpec

    heads = {
        "toy_segments": SegmentsSpec(),
        "toy_steering": SteeringSpec(gain=2.0),
        "other_steering": SteeringSpec(),
        "classifier": ROOM,
    }
    return write(tmp_path / "bundle", heads)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_heads_of_another_package_answer(toy_bundle, engine):
    pytest.importorskip({"onnx": "onnxruntime"}.get(engine, engine))
    image = np.full((*SIZE, 3), (255, 51, 0), np.uint8)
    image[:, 24:] = 255
    with Pipeline.load(toy_bundle, engine) as pipeline:
        first, second = pipeline([image, image[::-1]])
    order = ["classifier", "toy_segments", "toy_steering", "other_steering"]
    assert list(first.answers) == order
    ids = first["toy_segments"].ids
    assert ids.dtype == np.uint8 and ids[:, :24].max() == 0 and ids[:, 24:].min() == 1
    np.testing.assert_array_equal(second["toy_segments"].ids, ids)
    assert first["toy_steering"].angle == pytest.approx(2.0, abs=1e-5)
    assert first["other_steering"].angle == pytest.approx(1.0, abs=1e-5)
    assert first["other_steering"].collision == pytest.approx(0.6, abs=1e-5)


def test_infer_writes_tables_and_draws_heads_of_another_package(toy_bundle, tmp_path, capsys):
    source = picture(tmp_path / "a.png", 255, 51, 0)
    out, drawn = tmp_path / "out.jsonl", tmp_path / "drawn"
    arguments = ["--output", str(out), "--annotate", str(drawn)]
    assert main(["infer", "--model", str(toy_bundle), str(source), *arguments]) == 0
    line = json.loads(out.read_text())
    assert line["toy_steering"] == {"angle": 2.0, "collision": pytest.approx(0.2)}
    assert line["other_steering"]["angle"] == 1.0
    assert line["toy_segmentation"]["shares"] == {"floor": 1.0, "wall": 0.0}
    assert line["classification"]["results"][0]["label"] == "red room"
    assert "+2.00, 20%" in capsys.readouterr().out
    shown = cv2.imread(str(next(drawn.iterdir())))
    assert shown[-20:].mean(axis=(0, 1))[0] > 100  # blue of the palette over an image without blue


def test_infer_attaches_what_is_said_of_each_pixel(toy_bundle, tmp_path, capsys):
    sources = tmp_path / "sources"
    sources.mkdir()
    picture(sources / "a.png", 255, 255, 255)
    (sources / "b.png").write_bytes(b"no picture")
    picture(sources / "c.png", 0, 0, 0)
    out, files = tmp_path / "runs" / "out.jsonl", tmp_path / "files"
    command = ["infer", "--model", str(toy_bundle), str(sources), "--output", str(out)]
    assert main([*command, "--attach", str(files)]) == 1  # b is no picture
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    said = [line["toy_segmentation"] for line in lines if "toy_segmentation" in line]
    assert [s["png"] for s in said] == ["../files/000000.ids.png", "../files/000001.ids.png"]
    for answer, value in zip(said, (1, 0), strict=True):
        ids = cv2.imread(str(out.parent / answer["png"]), cv2.IMREAD_UNCHANGED)
        assert ids.dtype == np.uint8 and ids.shape == SIZE and (ids == value).all()
        numbers = np.load(out.parent / answer["npy"])
        assert numbers.dtype == np.float16 and (numbers == value).all()
    assert sorted(p.name for p in files.iterdir()) == [
        f"00000{i}.ids.{form}" for i in (0, 1) for form in ("npy", "png")
    ]
    assert main(command) == 1
    assert "png" not in json.loads(out.read_text().splitlines()[0])["toy_segmentation"]
    assert main([*command[:4], "--attach", str(files)]) == 2
    assert "--attach needs --output" in capsys.readouterr().err


def test_topics_below_a_topic_are_recorded_and_named(toys):
    from robot_vision.ros.perception.recorded_topics import topic_pattern
    from tools.parameter_files import topic_rows

    pattern = topic_pattern("/perception")
    names = [t.name for t in registry.head("toy_dense").topics(None)]
    assert "dense/camera_info" in names
    for name in (*names, *(f"other_dense/{name}" for name in names)):
        assert re.search(pattern, f"/perception/front/{name}"), name
    assert not re.search(pattern, "/perception/front/camera_info")
    rows = "".join(topic_rows())
    assert "| `~/<camera>/dense/points` | `sensor_msgs/PointCloud2`, `x y z` | points |" in rows


def test_a_head_whose_options_are_another_heads_is_refused_when_the_node_configures(toys):
    pytest.importorskip("rclpy", reason="the node needs ROS 2")
    text = (
        "from dataclasses import dataclass\n"
        "from toy_heads import SteeringHead, SteeringSpec\n"
        "from robot_vision.settings.parameters import parameter\n"
        "@dataclass(frozen=True)\n"
        "class Options:\n"
        "    top_k: int = parameter(5, 'Something else.', low=1, high=9)\n"
        "class Spec(SteeringSpec):\n    KIND = 'alike'\n"
        "class Alike(SteeringHead):\n"
        "    kind = answer_key = 'alike'\n"
        "    Spec, Options = Spec, Options\n"
        "HEAD = Alike()\n"
    )
    toys("alikes", {"alike": "alike_head:HEAD"}, alike_head=text)
    from robot_vision.ros.perception.parameters import PerceptionParameters, named_settings

    spec = NetworkSpec(heads={"classifier": ROOM, "alike": registry.head("alike").Spec()})
    with pytest.raises(ConfigError, match="alike head's option 'top_k'.*rename it"):
        named_settings(spec, PerceptionParameters())
    named_settings(spec.with_heads(alike=None), PerceptionParameters())


@pytest.mark.slow
def test_a_dense_head_passes_the_tests_of_every_head(tmp_path):
    from toy_heads import install

    install(tmp_path / "site", toy_dense="DENSE")
    path = os.pathsep.join(map(str, (tmp_path / "site", *sys.path)))
    environment = {**os.environ, "PYTHONPATH": path, "ROBOT_VISION_HEAD": "toy_dense"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs"]
    done = subprocess.run(
        [*command, "robot_vision.contract.check"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20


def test_results_of_a_recording_lack_what_needs_a_calibration_and_it_is_said(toys, tmp_path):
    from toy_heads import DenseSpec

    from robot_vision.evaluation.predict.columns import Predictions
    from robot_vision.evaluation.predict.recorded import write_results
    from robot_vision.recordings.bag_reader import BagFile

    path = write(tmp_path / "bundle", {"toy_dense": DenseSpec()})
    images = [np.full((*SIZE, 3), grey, np.uint8) for grey in (50, 200)]
    with Pipeline.load(path, "onnx") as pipeline:
        bundle, said = pipeline.bundle, pipeline(images)
    bound = [(registry.head("toy_dense"), DenseSpec())]
    meta = {"topic": "/front/image_raw", "frame_id": "optical"}
    found = Predictions.of([10**9, 2 * 10**9], said, "drive", meta=meta, bound=bound)
    [line] = write_results(tmp_path / "results", found, bundle)
    assert line.endswith(
        "/perception/front lacks 2 messages of dense/camera_info, dense/points: "
        "the calibration of its images is not known"
    )
    bag = BagFile(tmp_path / "results")
    kinds = {t for t in bag.kinds if "/dense/" in t}
    bag.close()
    assert kinds == {"/perception/front/dense/z", "/perception/front/dense/mask"}


def test_info_and_bundle_say_what_heads_of_another_package_are(toy_bundle, capsys):
    data = yaml.safe_load((toy_bundle / "bundle.yaml").read_text())
    assert data["network"]["heads"]["other_steering"] == {"kind": "toy_steering", "gain": 1.0}
    assert main(["info", str(toy_bundle)]) == 0
    assert "other_steering" in capsys.readouterr().out


def test_a_graph_of_another_type_is_refused(toy_bundle):
    file = toy_bundle / "bundle.yaml"
    data = yaml.safe_load(file.read_text())
    del data["network"]["heads"]["toy_segments"]
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(BundleError, match="'ids' is not in the bundle's heads"):
        ModelBundle.load(toy_bundle)


def test_two_classifiers_of_one_network_keep_their_labels_and_answers_apart(tmp_path, capsys):
    path = write(tmp_path / "bundle", {"lights": LIGHTS, "classifier": ROOM})
    assert (path / "lights.labels.txt").read_text() == "stop\nwait\ngo\n"
    assert (path / "labels.txt").read_text().startswith("red room")
    bundle = ModelBundle.load(path)
    assert list(bundle.spec.outputs) == [
        "lights.probabilities",
        "lights.known_score",
        "probabilities",
        "known_score",
    ]
    assert bundle.spec.heads == {"lights": LIGHTS, "classifier": ROOM}
    source = picture(tmp_path / "a.png", 255, 0, 0)
    out = tmp_path / "out.jsonl"
    arguments = ["--top-k", "2", "--output", str(out)]
    assert main(["infer", "--model", str(path), str(source), *arguments]) == 0
    line = json.loads(out.read_text())
    assert [r["label"] for r in line["classification"]["results"]] == ["red room", "green room"]
    assert [r["label"] for r in line["lights"]["results"]] == ["go", "stop"]
    capsys.readouterr()


def test_each_of_two_classifiers_has_its_own_threshold_and_title(tmp_path):
    path = write(tmp_path / "bundle", {"lights": LIGHTS, "classifier": ROOM})
    grey = np.full((480, 640, 3), 90, np.uint8)
    with Pipeline.load(path, "onnx") as pipeline:
        [found] = pipeline([grey])
        options = pipeline.bundle.options({"top_k": 1})
        said = {
            head.name: head.cell(found[head.name], own, options[head.name])
            for head, own in pipeline.bundle.spec.bound
        }
        drawn = annotate(grey, found, pipeline.bundle.spec, options)
        one = annotate(grey, found, pipeline.bundle.spec.with_heads(lights=None), options)
    assert said["lights"].startswith("unknown") and said["classifier"].startswith("red room 33%")
    assert (drawn != one).any()


@pytest.mark.parametrize(
    ("heads", "words"),
    [
        ({"Lights": LIGHTS}, "small letters"),
        ({"place": LIGHTS}, "the name of another kind"),
        ({"error": LIGHTS}, "'error' would be said by two heads"),
        ({"classification": LIGHTS, "classifier": ROOM}, "'classification' would be said by two"),
    ],
)
def test_names_that_would_be_mistaken_are_refused(heads, words):
    with pytest.raises(ConfigError, match=words):
        NetworkSpec(heads=heads)


def test_a_broken_package_is_named_when_its_head_is_asked_for_and_not_before(site, tmp_path):
    site("broken-heads", {"sonar": "broken_sonar:HEAD"}, broken_sonar="import no_such_library\n")
    assert "sonar" in registry.names()
    NetworkSpec(heads={"classifier": ROOM})  # nobody asks for it
    with pytest.raises(ConfigError, match=r"'sonar' of broken-heads.*no_such_library"):
        NetworkSpec.from_dict({"backbone": "resnet18", "heads": {"sonar": {}}})


def test_a_head_that_two_packages_bring_is_refused(toys):
    toys("more-toys", {"toy_steering": "more_toys:HEAD"})
    with pytest.raises(ConfigError, match="more-toys and toys: uninstall all but one"):
        registry.head("toy_steering")
    assert registry.head("toy_segments").kind == "toy_segments"


@pytest.mark.parametrize("value", ["toy_heads:SEGMENTS", "toy_heads:SIZE", "toy_heads:NOTHING"])
def test_an_entry_point_to_something_else_is_refused(site, value):
    site("odd", {"odd_head": value})
    with pytest.raises(ConfigError, match="'odd_head' of odd"):
        registry.head("odd_head")


def test_a_head_that_lacks_what_every_head_has_is_refused_by_its_names(site):
    text = (
        "from toy_heads import SteeringHead\n"
        "from robot_vision.contract.head import Head\n"
        "class Half(Head):\n"
        "    kind = answer_key = 'half_head'\n"
        "    outputs, decoder, json, cell, pack = [vars(SteeringHead)[n] for n in "
        "('outputs', 'decoder', 'json', 'cell', 'pack')]\n"
        "HEAD = Half()\n"
    )
    site("half", {"half_head": "half_of_a_head:HEAD"}, half_of_a_head=text)
    with pytest.raises(
        ConfigError, match=r"'half_head' of half.*Half lacks columns, unpack, Spec, Answer$"
    ):
        registry.head("half_head")


def test_a_judge_fitter_or_trainer_that_is_not_complete_is_refused_by_what_it_lacks(
    site, tmp_path, capsys
):
    pytest.importorskip("torch", reason="torch is not installed")
    text = (
        "from robot_vision.contract.calibration import Fitter\n"
        "from robot_vision.contract.metrics import Judge\n"
        "from robot_vision.contract.training import Trainer\n"
        "from toy_heads import SteeringHead, SteeringSpec\n"
        "class Spec(SteeringSpec):\n    KIND = 'half_done'\n"
        "class HalfJudge(Judge):\n    truth = frozenset({'pose'})\n"
        "class HalfFitter(Fitter):\n    def fit(self, part, material, options): ...\n"
        "class HalfTrainer(Trainer):\n    truth, chooses = 'pose', lambda self: True\n"
        "class Half(SteeringHead):\n"
        "    kind = answer_key = 'half_done'\n"
        "    Spec = Spec\n"
        "    sides = {s.lower(): f'half_done:Half{s}' for s in ('Judge', 'Fitter', 'Trainer')}\n"
        "HEAD = Half()\n"
    )
    site("half", {"half_done": "half_done:HEAD"}, half_done=text)
    half = registry.head("half_done")
    with pytest.raises(ConfigError, match=r"^half_done\.HalfJudge lacks sections, score$"):
        half.judge()
    with pytest.raises(ConfigError, match=r"^half_done\.HalfFitter lacks truth, parts$"):
        half.fitter()
    config = tmp_path / "train.yaml"
    config.write_text("heads: [half_done]\ndata: {kind: image_folder, path: .}\n")
    assert main(["train", str(config)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "half_done.HalfTrainer lacks measure, module, spec, chooser" in line


def test_a_side_that_cannot_be_imported_is_refused_with_the_reason(site):
    text = (
        "from toy_heads import SteeringHead, SteeringSpec\n"
        "class Spec(SteeringSpec):\n    KIND = 'one_sided'\n"
        "class OneSided(SteeringHead):\n"
        "    kind = answer_key = 'one_sided'\n"
        "    Spec = Spec\n"
        "    sides = {'judge': 'no_such_module:Judge', 'trainer': 'toy_heads:NoTrainer'}\n"
        "HEAD = OneSided()\n"
    )
    site("sided", {"one_sided": "one_sided:HEAD"}, one_sided=text)
    head = registry.head("one_sided")
    with pytest.raises(ConfigError, match=r"judge of the one_sided head.*no_such_module"):
        head.judge()
    with pytest.raises(ConfigError, match=r"trainer of the one_sided head.*NoTrainer"):
        head.trainer()
    assert head.fitter() is None


def test_the_check_finds_a_head_that_forgets_what_it_said(toys):
    text = (
        "from toy_heads import Steering, SteeringHead, SteeringSpec\n"
        "class Spec(SteeringSpec):\n    KIND = 'forgetful'\n"
        "class Forgetful(SteeringHead):\n"
        "    kind = answer_key = 'forgetful'\n"
        "    Spec = Spec\n"
        "    def unpack(self, row, spec, material): return Steering(0.0, float(row[self.key('collision')]))\n"
        "HEAD = Forgetful()\n"
    )
    toys("forgets", {"forgetful": "forgetful:HEAD"}, forgetful=text)
    check.test_answer_is_read_back_from_its_columns("toy_steering", "")
    with pytest.raises(AssertionError):
        check.test_answer_is_read_back_from_its_columns("forgetful", "")
    with pytest.raises(pytest.skip.Exception, match="the toy_steering head has no judge"):
        check.test_judge_gives_every_number_of_its_table("toy_steering", "")


def test_a_head_without_a_trainer_or_a_judge_is_refused_where_one_is_needed(
    toy_bundle, tmp_path, capsys
):
    pytest.importorskip("torch", reason="torch is not installed")
    config = tmp_path / "train.yaml"
    config.write_text("heads: [toy_steering]\ndata: {kind: image_folder, path: .}\n")
    assert main(["train", str(config)]) == 2
    assert "Nothing trains a toy_steering head" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="Nothing judges a toy_steering head"):
        registry.head("toy_steering").judge()


def test_a_head_that_is_called_as_one_of_the_package_is_not_used_and_said(site, caplog):
    site("their-poses", {"pose": "toy_heads:STEERING"})
    assert registry.names().count("pose") == 1
    assert "pose head of their-poses is not used" in caplog.text
    assert registry.head("pose").answer_key == "pose"


def test_a_bundle_whose_head_is_not_installed_says_what_to_do(toy_bundle, tmp_path):
    path = tmp_path / "elsewhere"
    shutil.copytree(toy_bundle, path)
    text = (path / "bundle.yaml").read_text().replace("toy_steering", "toy_sterring")
    (path / "bundle.yaml").write_text(text)
    with pytest.raises(BundleError, match="'toy_steering'.*or pip install the package"):
        ModelBundle.load(path)
