"""What every head promises, as tests for pytest: of all heads that are installed, or of your own.

    ROBOT_VISION_HEAD=height pytest -rs --pyargs robot_vision.contract.check

Several are named with commas between. What a head need not have (a judge, a trainer, ...) is skipped, and
named by `-rs`. Nothing else of the package imports this, and it may import what is above the contract.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from robot_vision.contract import registry
from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.contract.head import Arrays, Head, Material, plain
from robot_vision.contract.prediction import Prediction
from robot_vision.contract.rows import from_json, joined, to_json
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.contract.spec import NetworkSpec
from robot_vision.contract.topics import Latched, LeftOut, Shot, Topic
from robot_vision.contract.training import Asked
from robot_vision.errors import ConfigError
from robot_vision.evaluation.measure.metrics import score_recording
from robot_vision.evaluation.merge import document
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.evaluation.report.compare import compare
from robot_vision.evaluation.report.headlines import chapters
from robot_vision.evaluation.report.page import Report, render
from robot_vision.evaluation.report.tables import trajectory_kind
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.images.canvas import Canvas
from robot_vision.images.input import InputSpec
from robot_vision.images.raw import row_bytes
from robot_vision.images.window import Window
from robot_vision.messages.making import rclpy_maker, rosbags_maker
from robot_vision.messages.serialized import Stamp
from robot_vision.messages.types import message_types
from robot_vision.ros.perception.recorded_topics import topic_pattern
from robot_vision.settings.mappings import from_mapping
from robot_vision.settings.parameters import settings
from robot_vision.statistics.bootstrap import Resampler
from robot_vision.statistics.paired import PairedEvidence
from robot_vision.truth.images import ImageTrack
from robot_vision.truth.tracks import LABEL, POSE, NumberTrack, Truth

NAMES = ["", "other"]  # of a head: its kind, and another
KINDS = tuple(filter(None, os.environ.get("ROBOT_VISION_HEAD", "").split(","))) or registry.names()

every_head = pytest.mark.parametrize("kind", KINDS)
under_names = pytest.mark.parametrize("name", NAMES)


def bound(kind: str, name: str = "") -> tuple[Head[Any, Any], Any]:
    """Returns a head under a name, and small settings for it."""
    head = registry.head(kind)
    return head.named(name or kind), head.example()


def several(head: Head[Any, Any]) -> EpistemicSpec | None:
    """Returns that it answers twice, if it can."""
    return EpistemicSpec(passes=2) if head.sampled else None


def answers(head: Head[Any, Any], spec: Any, count: int = 3) -> list[Any]:
    """Returns answers of a decoder to numbers of the promised shapes and types."""
    arrays = head.example_outputs(spec, several(head), count, np.random.default_rng(0))
    return list(head.decoder(spec, several(head), Material())(arrays))


def side(head: Head[Any, Any], word: str) -> Any:
    """Returns a head's judge, fitter or trainer; skips where it has none."""
    if word not in head.sides:
        pytest.skip(f"the {head.kind} head has no {word}")
    return getattr(head, word)()


# Serving


@every_head
@under_names
def test_spec_is_read_back_through_yaml(kind: str, name: str) -> None:
    head, spec = bound(kind, name)
    network = NetworkSpec(heads={head.name: spec}, epistemic=several(head))
    assert NetworkSpec.from_dict(yaml.safe_load(yaml.safe_dump(network.to_dict()))) == network


@every_head
def test_unknown_setting_is_refused_with_the_nearest(kind: str) -> None:
    head, spec = bound(kind)
    data = NetworkSpec(heads={kind: spec}).to_dict()
    setting = next(iter(data["heads"][kind]), None)
    if setting is None:
        pytest.skip("the head has no settings")
    data["heads"][kind][setting + "x"] = 1
    with pytest.raises(ConfigError, match=f"did you mean '{setting}'"):
        NetworkSpec.from_dict(data)


@every_head
def test_sides_are_known_and_complete(kind: str) -> None:
    head, _ = bound(kind)
    assert set(head.sides) <= {"judge", "fitter", "trainer"}
    if "trainer" in head.sides:
        pytest.importorskip("torch", reason="torch is not installed")
    assert all(getattr(head, word)() for word in head.sides)


@every_head
@under_names
def test_decoder_gives_a_finite_answer_a_row(kind: str, name: str) -> None:
    head, spec = bound(kind, name)
    found = answers(head, spec)
    assert len(found) == 3 and all(isinstance(a, head.Answer) for a in found)
    assert not any(a.not_finite() for a in found)


@every_head
def test_outputs_and_keys_are_no_other_heads(kind: str) -> None:
    others = [bound(other.kind, name) for other in registry.installed() for name in NAMES]
    head, spec = bound(kind)
    mine = {head.json_key, *head.outputs(spec, several(head)), *head.columns(spec)}
    for other, own in others:
        if other.name != kind:
            theirs = {other.json_key, *other.outputs(own, several(other)), *other.columns(own)}
            assert not mine & theirs
            kind_of = trajectory_kind(head)
            assert not kind_of or kind_of != trajectory_kind(other)


@every_head
@under_names
def test_answer_is_read_back_from_its_columns(kind: str, name: str) -> None:
    head, spec = bound(kind, name)
    columns = head.columns(spec)
    for answer in answers(head, spec):
        row = head.pack(answer)
        assert set(row) == set(columns)
        for key, value in row.items():
            shape = columns[key].shape
            assert value is None or len(np.shape(value)) == len(shape)
            assert all(n in (-1, m) for n, m in zip(shape, np.shape(value), strict=True))
        again = head.unpack(row, spec, Material())
        for field in dataclasses.fields(answer):
            np.testing.assert_array_equal(getattr(again, field.name), getattr(answer, field.name))


@every_head
@under_names
def test_answer_is_shown_to_people_and_programs(kind: str, name: str) -> None:
    head, spec = bound(kind, name)
    options = head.resolve(head.options({}), spec, Material())
    for answer in answers(head, spec):
        said = head.json(answer, spec, options, None)
        assert json.loads(json.dumps(said, allow_nan=False)) == said
        lines = [head.cell(answer, spec, options), head.heading(spec), head.about(spec)]
        assert all(line and "\n" not in line for line in lines)
        assert all(np.isfinite(v) for v in head.doubts(answer).values())
        image = np.full((240, 320, 3), 120, np.uint8)
        canvas = Canvas(image)
        head.draw(canvas, answer, spec, options)
        if type(head).draw is not Head.draw:
            assert (canvas.finish() != 120).any()
        assert (image == 120).all()


@every_head
@under_names
def test_what_a_bundle_holds_of_a_head_is_read_back(kind: str, name: str) -> None:
    head, spec = bound(kind, name)
    settings, files = head.to_bundle(spec)
    assert set(files) <= set(head.files)
    settings = yaml.safe_load(yaml.safe_dump(settings))
    assert from_mapping(head.Spec, head.name, head.from_bundle(settings, files)) == spec


def test_serving_loads_neither_torch_nor_ros_nor_charts() -> None:
    heavy = ("torch", "matplotlib", "rclpy", "robot_vision.charts")
    code = (
        "import sys; from robot_vision.contract import registry\n"
        f"[registry.head(kind) for kind in {KINDS}]\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Topics


BARE = Shot(Stamp(12, 345), "optical", "front")  # of a recording
CAMERA = Intrinsics.of_matrix(np.array([[500.0, 0, 319], [0, 500, 241], [0, 0, 1]]), 640, 480)
SHOT = replace(
    BARE, window=Window.of((480, 640), InputSpec(resize="crop")), intrinsics=lambda: CAMERA
)
# What sees forward from half a metre above the floor.
T_BASE_CAMERA = np.array([[0, 0, 1, 0.1], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1.0]])
ON_A_ROBOT = replace(SHOT, base_frame="base_link", mounting=lambda frame: T_BASE_CAMERA)


def written(
    head: Head[Any, Any], spec: Any, answer: Any, make: Any, shot: Shot = SHOT
) -> dict[Topic, Any]:
    """Returns the messages of an answer by their topics, or why there is none."""
    options = head.resolve(head.options({}), spec, Material())
    shown = head.published(answer, shot, spec, options)
    if isinstance(shown, LeftOut):
        return dict.fromkeys(head.topics(spec), shown)
    return {t: t.writer(make)(shot, shown, options) for t in head.topics(spec)}


def once(head: Head[Any, Any], spec: Any, make: Any) -> dict[Latched, Any]:
    """Returns the messages that are sent once, by their topics."""
    options = head.resolve(head.options({}), spec, Material())
    return {t: t.writer(make)(Stamp(12, 345), options) for t in head.latched(spec)}


def live_types() -> Any:
    """Returns the types of bags, with Humble's definition where this machine's ROS has that one."""
    types, humble = message_types(), get_typestore(Stores.ROS2_HUMBLE)
    for name, (_, fields) in humble.fielddefs.items():
        if name in types.fielddefs and types.fielddefs[name][1] != fields:
            live = rclpy_maker(name).get_fields_and_field_types()
            if list(live) == [field for field, _ in fields]:
                types.fielddefs[name] = humble.fielddefs[name]
                types.types[name] = humble.types[name]
    return types


@every_head
@under_names
def test_messages_of_rclpy_and_of_rosbags_have_equal_fields(kind: str, name: str) -> None:
    pytest.importorskip("rclpy")
    pytest.importorskip("vision_msgs")
    from rclpy.serialization import serialize_message

    head, spec = bound(kind, name)
    types = live_types()
    answer = answers(head, spec)[0]
    live = {
        t.name: serialize_message(message)
        for made in (
            written(head, spec, answer, rclpy_maker, ON_A_ROBOT),
            once(head, spec, rclpy_maker),
        )
        for t, message in made.items()
    }
    make = rosbags_maker(types)
    recorded: dict[Any, Any] = {
        **written(head, spec, answer, make, ON_A_ROBOT),
        **once(head, spec, make),
    }
    assert len(recorded) == len(live)
    for topic, message in recorded.items():  # padding may differ, so both are written again
        read = types.deserialize_cdr(live[topic.name], topic.kind)
        assert types.serialize_cdr(read, topic.kind) == types.serialize_cdr(message, topic.kind)


@every_head
@under_names
def test_what_a_topic_lacks_is_said(kind: str, name: str) -> None:
    head, spec = bound(kind, name)
    make = rosbags_maker(message_types())
    for shot in (BARE, SHOT, replace(ON_A_ROBOT, frame_id=""), ON_A_ROBOT):
        for answer in answers(head, spec):
            made = written(head, spec, answer, make, shot)
            left_out = [m for m in made.values() if isinstance(m, LeftOut)]
            for message in made.values():
                if hasattr(message, "encoding"):
                    assert message.step == row_bytes(message.encoding, message.width)
                    assert len(message.data) == message.step * message.height
            assert all(m.reason and m.text for m in left_out)
            assert not left_out or shot is not ON_A_ROBOT


@every_head
@under_names
def test_what_was_written_is_read_back_to_the_columns(kind: str, name: str) -> None:
    head, spec = bound(kind, name)
    types = message_types()
    found = answers(head, spec)
    rows = [(i, 0) for i in range(len(found))]
    readers = {t.name: t.reader() for t in head.topics(spec) if t.reader}
    latched = {t.name: message for t, message in once(head, spec, rosbags_maker(types)).items()}
    for row, answer in zip(rows, found, strict=True):
        for topic, message in written(head, spec, answer, rosbags_maker(types)).items():
            if topic.name in readers and not isinstance(message, LeftOut):
                raw = types.serialize_cdr(message, topic.kind)
                readers[topic.name].add(row, types.deserialize_cdr(raw, topic.kind))
    packed = {key: np.array([head.pack(a)[key] for a in found]) for key in head.pack(found[0])}
    for reader in readers.values():
        columns = reader.finish(rows, latched, [])
        read = set(columns) & set(head.columns(spec))  # a message may say more than an answer
        assert read
        for key in read:
            again = np.array([columns[key][i] for i in range(len(rows))])
            wanted = packed[key].astype(head.columns(spec)[key].dtype)
            np.testing.assert_allclose(again, wanted, rtol=1e-5, atol=1e-7)
    said = [head.doubts(answer) for answer in found]
    doubts = {key: np.array([row[key] for row in said]) for key in said[0]}
    assert set(head.from_doubts(doubts)) <= set(head.columns(spec))
    assert bool(doubts) == bool(head.from_doubts(doubts)) == head.sampled


@every_head
@under_names
def test_every_topic_is_recorded(kind: str, name: str) -> None:
    head, spec = bound(kind, name)
    pattern = topic_pattern("/robot/perception")
    names = [f"front/{t.name}" for t in head.topics(spec) if not t.name.startswith("/")]
    names += [t.name for t in head.latched(spec)]
    assert all(re.search(pattern, f"/robot/perception/{n}") for n in names)


@every_head
@under_names
def test_options_come_from_flat_settings(kind: str, name: str) -> None:
    head, _ = bound(kind, name)
    for setting in settings(head.Options):
        value = setting.coerce({"int": 7, "float": 0.5, "str": "x", "bool": True}[setting.kind])
        assert getattr(head.options({setting.name: value}), setting.name) == value
        both = {setting.name: setting.default, head.key(setting.name): value}
        assert getattr(head.options(both), setting.name) == value


# Training


def learner(
    kind: str, name: str, known: bool = True
) -> tuple[Any, Any, Any, dict[str, Any], list[Any]]:
    """Returns a trainer, its head's settings, a module, a batch of 12 samples and what it taps.

    Args:
        kind: of the head.
        name: of the head.
        known: whether the samples have a truth.
    """
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from robot_vision.datasets.sample import Sample
    from robot_vision.training.samples.data import SampleSet

    head, spec = bound(kind, name)
    trainer = side(head, "trainer")
    torch.manual_seed(0)
    rng, labels, samples = np.random.default_rng(0), ("a", "b", "c"), []
    for i in range(12):
        pose = np.eye(4)
        pose[:3, 3] = 100 * (i % 4), *rng.uniform(-1, 1, 2)
        values = {"label": labels[i % 3], "number": float(np.sin(i) > 0)}
        words = [word for word in trainer.words() if ":" in word]
        truth: dict[str, Any] = {}
        for word in words if known else ():
            kind_of_truth = word.partition(":")[0]
            truth[word] = PixelTruth(i) if kind_of_truth == "image" else values[kind_of_truth]
        label, T = (labels[i % 3], pose) if known else (None, None)
        samples.append(Sample(str(i), label, T, None, "s", cast("Any", None), truth=truth))
    found = SampleSet.of(samples, labels, InputSpec(), lambda s: trainer.targets(s, spec))
    shapes = [(8,) if tap.kind == "features" else (8, 4, 4) for tap in head.taps(spec)]
    module = trainer.module(spec, shapes)
    maps = {
        word: torch.from_numpy(np.stack([_map_of(s.of(word), dense) for s in samples]))
        for word, dense in trainer.dense(spec).items()
    }
    batch = trainer.own({**found.targets, **maps})
    batch |= {"index": torch.arange(12), "images": torch.zeros(12, 8, 8, 3, dtype=torch.uint8)}
    features = [torch.randn(12, *shape) for shape in shapes]
    return trainer, trainer.built(spec, module), module, batch, features


def _map_of(truth: Any, dense: Any) -> NDArray[Any]:
    """Returns the truth of each pixel of a head's map, `none` where a sample has no truth."""
    from robot_vision.datasets.sample import true_values

    if truth is None:
        return np.full(dense.size, dense.none, dense.dtype)
    values = true_values(truth, dense.dtype, dense.none)
    window = Window.of((values.shape[0], values.shape[1]), InputSpec(32, 48))
    return window.truth(values, dense.size, dense.none)


# Fitting

Exported = tuple[Any, bytes, NDArray[np.uint8]]


@pytest.fixture(scope="module")
def exported() -> Exported:
    """A network with every head that can be trained under both names, with its graph and images."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from robot_vision.networks.export import export_graph
    from robot_vision.networks.network import MultiHeadNetwork

    torch.manual_seed(0)
    pairs = [bound(kind, name) for kind in KINDS for name in NAMES]
    pairs = [pair for pair in pairs if "trainer" in pair[0].sides]
    heads = {head.name: spec for head, spec in pairs if head.name != "other"}
    heads |= {f"other_{head.kind}": spec for head, spec in pairs if head.name == "other"}
    twice = next(filter(None, (several(head) for head, _ in pairs)), None)
    if not heads:
        pytest.skip("no head has a trainer")
    spec = NetworkSpec("shufflenet_v2_x0_5", InputSpec(64, 64), heads, twice)
    network = MultiHeadNetwork(spec).eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    return network, export_graph(network, images), images


def graph_outputs(graph: bytes, images: NDArray[np.uint8]) -> Arrays:
    """Returns what ONNX Runtime makes of images."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()  # each graph runs once: optimising it takes longer
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def test_graph_gives_outputs_of_the_promised_types_and_shapes(exported: Exported) -> None:
    network, graph, images = exported
    found = {n: (v.dtype.name, v.shape[1:]) for n, v in graph_outputs(graph, images).items()}
    assert found == {n: (o.dtype, o.shape) for n, o in network.spec.outputs.items()}


def test_every_constant_is_in_the_graph_by_name_and_moves_its_own_head_alone(
    exported: Exported,
) -> None:
    """All are ones before: the exporter would make one initialiser of those that are equal."""
    from robot_vision.bundle.onnx_graph import OnnxGraph

    network, graph, images = exported
    before = graph_outputs(graph, images)
    for head, spec in network.spec.bound:
        own = set(head.outputs(spec, network.spec.epistemic))
        constants = getattr(network.heads[head.name], "constants", None)
        words = set(dict(constants.named_buffers())) if constants else set()
        assert set(OnnxGraph(graph).constants(head.name)) == words
        for word in words:
            editor = OnnxGraph(graph)
            editor.set_constant(head.name, word, 2 * editor.constants(head.name)[word])
            after = graph_outputs(editor.to_bytes(), images)
            moved = {n for n in before if not np.array_equal(before[n], after[n])}
            assert moved and moved <= own


def test_graph_gives_what_fitters_need_as_the_module_computes_it(exported: Exported) -> None:
    import torch

    from robot_vision.bundle.onnx_graph import OnnxGraph

    network, graph, images = exported
    with torch.inference_mode():
        raw = network.raw(torch.from_numpy(images))
    editor, wanted = OnnxGraph(graph), {}
    for head, _ in network.spec.bound:
        fitter = head.fitter()
        for word in fitter.inner if fitter else ():
            if word in raw[head.name]:
                editor.expose(head.key(word), head.name, word)
                wanted[head.key(word)] = raw[head.name][word].numpy()
    found = graph_outputs(editor.to_bytes(), images)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


@every_head
@under_names
def test_steps_on_one_batch_lower_every_loss(kind: str, name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for loss_name in side(registry.head(kind), "trainer").losses:
        trainer, spec, module, batch, features = learner(kind, name)
        trainer.settings = trainer.Settings(loss=loss_name)
        loss = trainer.loss(spec, batch)
        optimiser = torch.optim.Adam([*module.parameters(), *loss.parameters()], lr=1e-3)
        values = []
        for _ in range(10):
            value = loss(module(*features), batch).total
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            values.append(float(value.detach()))
        assert values[-1] < values[0], loss_name


@every_head
@under_names
def test_batch_without_truth_has_a_loss_of_zero_and_gradients(kind: str, name: str) -> None:
    trainer, spec, module, batch, features = learner(kind, name, known=False)
    value = trainer.loss(spec, batch)(module(*features), batch).total
    value.backward()
    assert float(value.detach()) == 0


@every_head
@under_names
def test_module_decodes_to_the_outputs_that_are_promised(kind: str, name: str) -> None:
    trainer, spec, module, _, features = learner(kind, name)
    module.eval()
    outputs = module.decode(module(*features))
    promised = trainer.head.outputs(spec, None)
    assert {trainer.head.key(word) for word in outputs} == set(promised)
    for word, value in outputs.items():
        output = promised[trainer.head.key(word)]
        assert tuple(value.shape) == (12, *output.shape)
        assert str(value.dtype) == f"torch.{output.dtype}"


@every_head
@under_names
def test_evidence_of_an_answer_has_gradients_where_the_head_can_be_asked(
    kind: str, name: str
) -> None:
    trainer, spec, module, _, features = learner(kind, name)
    module.eval()
    one = [tensor[:1].clone().requires_grad_() for tensor in features]
    window = Window.of((60, 80), InputSpec(30, 40))
    labels, explained = getattr(spec, "labels", ()), 0
    for asked in (
        Asked(window),
        Asked(window, labels[-1] if labels else ""),
        Asked(window, box=(7, 9, 1, 1)),
    ):
        raw = module(*one)
        evidence = trainer.evidence(module, raw, spec, asked)
        if evidence is None:
            continue
        explained += 1
        evidence.value.backward()
        assert all(t.grad is not None and t.grad.isfinite().all() for t in one)
        assert evidence.value.dim() == 0 and evidence.text and "\n" not in evidence.text
        if asked.at_pixel:
            assert evidence.region is not None and evidence.region.sum() == 1
    if labels:
        asked = Asked(window, "nobody's label")
        assert trainer.evidence(module, module(*one), spec, asked) is None
    if not explained:
        pytest.skip("its trainer has no evidence of an answer to show")


@every_head
def test_settings_of_training_load_no_torch(kind: str) -> None:
    if kind not in registry.BUILT_IN:
        pytest.skip("another package may import what it needs")
    code = (
        "import sys; from robot_vision.contract import registry\n"
        f"registry.head({kind!r}).trainer().Settings()\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Judging


@dataclass(frozen=True)
class PixelTruth:
    """What is true of the pixels of an image: ones and twos, and 255 for none."""

    seed: int
    size: tuple[int, int] = (32, 48)
    none: tuple[float, ...] = (255.0,)
    unit: float = 1.0

    def load(self) -> NDArray[np.uint8]:
        """Returns uint8 (height, width)."""
        rng = np.random.default_rng(self.seed)
        values = rng.integers(1, 3, self.size).astype(np.uint8)
        values[: -(-self.size[0] // 8)] = 255
        return values

    def encoded(self) -> bytes:
        """Returns what tells it from others."""
        return self.load().tobytes()


def recorded(head: Head[Any, Any], spec: Any, count: int = 60) -> tuple[Predictions, Truth]:
    """Returns what a head said of a drive, and what is true of it, under its name too."""
    judge, said = side(head, "judge"), answers(head, spec, count)
    stamps = (np.arange(count) * 1e8).astype(np.int64)
    predictions = Predictions.of(
        stamps.tolist(),
        [Prediction({head.name: a}) for a in said],
        "drive",
        meta={"input": plain(InputSpec(32, 48))},
        bound=[(head, spec)],
    )
    angle = np.linspace(0, 4 * np.pi, count)
    positions = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    labels = ["abcx"[i % 4] for i in range(count)]
    truth = Truth.of_arrays(stamps, labels, positions, np.tile([0.0, 0, 0, 1], (count, 1)))
    numbers = {
        head.key(word.partition(":")[2]): NumberTrack.held(stamps, np.sin(angle))
        for word in judge.truth
        if word.startswith("number:")
    }
    # A head under another name has images of its own, by that name.
    names = [word.partition(":")[2] for word in judge.truth if word.startswith("image:")]
    images = {
        word if head.name == head.kind else head.name: ImageTrack(
            stamps, [PixelTruth(i) for i in range(count)]
        )
        for word in names
    }
    return predictions, replace(
        truth, others={head.name: cast("Any", truth.labels)}, numbers=numbers, images=images
    )


QUICK = EvaluationSettings(resamples=10, place_exclude_s=1.0)


@every_head
@under_names
def test_judge_gives_every_number_of_its_table(kind: str, name: str) -> None:
    head, spec = bound(kind, name)
    predictions, truth = recorded(head, spec)
    scores = score_recording(predictions, truth, QUICK, bound=[(head, spec)])
    metrics = document(scores, QUICK)
    assert scores.heads == (head.name,)
    json.dumps(metrics, allow_nan=False)
    for section in head.judge().sections():
        numbers = metrics[head.key(section.key)]
        assert numbers, section.key
        missing = {m.key for m in section.metrics} - set(numbers)
        assert not missing or all(part.optional for part in section.parts), missing
        for baseline in section.baselines.values():
            assert baseline.words
    titles = [chapter.title for chapter in chapters(metrics)]
    assert titles and all((f"({name})" in title) == bool(name) for title in titles)
    drawn = render(Report("one head", metrics, scores)).count("<svg")
    assert drawn or not any(section.figures for section in head.judge().sections())


@every_head
@under_names
def test_judge_says_that_a_program_loses_nothing_against_itself(kind: str, name: str) -> None:
    head, spec = bound(kind, name)
    scores = score_recording(*recorded(head, spec), QUICK, bound=[(head, spec)])
    rows = next(rows for rows in scores.each() if rows.head.name == head.name)
    drawn = Resampler(scores["stamps_ns"], scores.bounds, QUICK)
    bounds = head.judge().certify(rows, rows, PairedEvidence(np.arange(len(scores)), drawn))
    if not bounds:
        pytest.skip("its judge does not say what a program may lose")
    for word, found in bounds.items():
        assert found.value in (0, 1), word
        assert not found.passed and "not enough images" in found.why(word)  # of 60
    assert any(found.text for found in bounds.values()), "words for people"


@every_head
@under_names
def test_rows_come_back_from_json_and_compare_with_themselves(kind: str, name: str) -> None:
    head, spec = bound(kind, name)
    scores = score_recording(*recorded(head, spec), QUICK, bound=[(head, spec)])
    again = from_json(json.loads(json.dumps(to_json(scores))))
    assert again.table.keys() == scores.table.keys()
    for column in scores.table:
        assert again[column].tobytes() == scores[column].tobytes(), column
    metrics = document(scores, QUICK)
    changes, _ = compare(metrics, metrics)
    assert changes and {change.verdict for change in changes} == {"same"}


@every_head
@under_names
def test_rows_of_two_parts_are_those_of_the_whole(kind: str, name: str) -> None:
    head, spec = bound(kind, name)
    if side(head, "judge").reference:
        pytest.skip("what is looked up depends on the whole recording")
    predictions, truth = recorded(head, spec)
    parts = []
    for part, rows in (("a", np.arange(25)), ("b", np.arange(25, 60))):
        some = replace(predictions.take(rows), recording=part)
        parts.append(score_recording(some, truth, QUICK, bound=[(head, spec)]))
    whole = score_recording(predictions, truth, QUICK, bound=[(head, spec)])
    both = joined(parts)
    for column in set(whole.table) - {"source_index"}:
        assert both[column].tobytes() == whole[column].tobytes(), column


@every_head
@under_names
def test_training_measures_what_the_judge_does(kind: str, name: str) -> None:
    """The heads here have one function for both: equal to the bit, unless a column rounds the answer.

    True pixels have the size of the answer here, at which training measures. The judge may enlarge both, on
    which measures of boundaries depend: of dense heads the first three numbers are compared.
    """
    torch = pytest.importorskip("torch", reason="torch is not installed")
    trainer, spec, module, batch, features = learner(kind, name)
    head, judge = trainer.head, side(trainer.head, "judge")
    if trainer.looks_up:
        pytest.skip("training looks up its own images, and the judge those of a recording")
    pixels = {
        word: [PixelTruth(i, dense.size) for i in range(12)]
        for word, dense in trainer.dense(spec).items()
    }
    maps = {
        word: torch.from_numpy(np.stack([_map_of(t, trainer.dense(spec)[word]) for t in truths]))
        for word, truths in pixels.items()
    }
    batch = trainer.own({**batch, **maps})
    with torch.inference_mode():
        outputs = module.eval().decode(module(*features))
    said = head.decoder(spec, None, Material())(
        {head.key(word): value.numpy() for word, value in outputs.items()}
    )
    truth = judge.truth
    stamps_ns = np.arange(len(said)) * 10**8
    positions = np.full((len(said), 3), np.nan)
    if "T_map_camera" in batch:
        positions = batch["T_map_camera"][:, :3, 3].numpy().astype(np.float64)
    names = getattr(spec, "labels", ())
    labels = [names[i] for i in batch["label"].tolist()] if names else ["a"] * len(said)
    tracks = Truth.of_arrays(stamps_ns, labels, positions, np.tile([0.0, 0, 0, 1], (len(said), 1)))
    numbers = {
        head.key(word): NumberTrack.held(stamps_ns, batch[word].numpy().astype(np.float64))
        for word in (w.partition(":")[2] for w in truth if w.startswith("number:"))
    }
    images = {
        word.partition(":")[2]: ImageTrack(stamps_ns, truths) for word, truths in pixels.items()
    }
    tracks = replace(
        tracks, others={head.name: cast("Any", tracks.labels)}, numbers=numbers, images=images
    )
    predictions = Predictions.of(
        stamps_ns.tolist(),
        [Prediction({head.name: answer}) for answer in said],
        "drive",
        meta={"input": plain(InputSpec(32, 48))},
        bound=[(head, spec)],
    )
    metrics = document(score_recording(predictions, tracks, QUICK, bound=[(head, spec)]), QUICK)
    judged = {
        metric: metrics[head.key(section.key)][metric.key]["value"]
        for section in reversed(judge.sections())  # of two with one key the first counts
        for metric in section.metrics
        if metric.key in (metrics[head.key(section.key)] or {})
    }
    measured, _ = trainer.measure(outputs, batch, spec)
    shown = list(trainer.shown().items())[: 3 if pixels else None]
    both = {key: judged[metric] for key, metric in shown if key in measured and metric in judged}
    assert both
    rounded = any(column.dtype == "float16" for column in head.columns(spec).values())
    exact = kind in registry.BUILT_IN and not rounded
    expected = both if exact else pytest.approx(both, rel=1e-3 if rounded else 1e-6)
    assert {key: measured[key] for key in both} == expected


@every_head
@under_names
def test_fitter_names_its_truth_and_options(kind: str, name: str) -> None:
    head, spec = bound(kind, name)
    fitter = side(head, "fitter")
    assert fitter.parts and len(set(fitter.parts)) == len(fitter.parts)
    for part in fitter.parts:
        assert fitter.truth(part).partition(":")[0] in (LABEL, POSE, "number", "image")
    assert not fitter.knows(spec, None)
    assert all(field.metadata["text"] for field in dataclasses.fields(fitter.Options))
