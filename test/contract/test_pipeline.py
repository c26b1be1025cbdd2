"""The path from RGB arrays to predictions, against the numbers that the bundle is known to give."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import LABELS, expected_colour, make_tiny_bundle

from robot_vision.contract.prediction import Prediction
from robot_vision.errors import EngineError
from robot_vision.heads.classifier.answer import UNKNOWN, Classification
from robot_vision.heads.place.answer import Descriptor
from robot_vision.heads.pose.answer import PoseAnswer
from robot_vision.pipeline import Pipeline

SIZE = (32, 48)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    path = make_tiny_bundle(tmp_path_factory.mktemp("bundle"), SIZE)
    with Pipeline.load(path, engine="onnx", max_batch=4) as pipeline:
        yield pipeline


def images(count, size=SIZE):
    return list(np.random.default_rng(count).integers(0, 256, (count, *size, 3), dtype=np.uint8))


def test_predictions_are_the_networks_answers(pipeline):
    image = images(1)[0]
    (prediction,) = pipeline([image])
    colour = expected_colour(image)
    np.testing.assert_allclose(prediction["pose"].position, colour, atol=1e-6)
    expected = np.exp(20 * colour) / np.exp(20 * colour).sum()
    np.testing.assert_allclose(prediction["classifier"].probabilities, expected, rtol=1e-4)
    np.testing.assert_allclose(np.diag(prediction["pose"].covariance), colour[2] + 0.01, atol=1e-6)
    assert abs(np.linalg.norm(prediction["pose"].orientation_xyzw) - 1) < 1e-12
    assert prediction["place"].values.shape == (8,)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 11])
def test_a_batch_answers_as_its_images_one_by_one_and_in_order(pipeline, count):
    batch = images(count)
    together = pipeline(batch)
    assert len(together) == count
    for image, prediction in zip(batch, together, strict=True):
        (alone,) = pipeline([image])
        np.testing.assert_allclose(prediction["pose"].position, alone["pose"].position, atol=1e-6)
        np.testing.assert_allclose(prediction["place"].values, alone["place"].values, atol=1e-6)


def test_results_survive_the_next_call(pipeline):
    first, second = images(2)
    (kept,) = pipeline([first])
    before = kept["place"].values.copy(), kept["classifier"].probabilities.copy()
    pipeline([second, second, second])
    np.testing.assert_array_equal(kept["place"].values, before[0])
    np.testing.assert_array_equal(kept["classifier"].probabilities, before[1])


def test_cameras_of_different_sizes_share_a_batch(pipeline):
    red = np.zeros((480, 640, 3), np.uint8)
    red[..., 0] = 255
    blue = np.zeros((1080, 1920, 3), np.uint8)
    blue[..., 2] = 255
    labels = [p["classifier"].top_k(1)[0].label for p in pipeline([red, blue, red[:, ::-1]])]
    assert labels == ["red", "blue", "red"]


def test_stage_times_add_up(pipeline):
    pipeline(images(6))
    times = pipeline.times
    assert times.preprocess > 0 and times.inference > 0 and times.decode > 0


@pytest.mark.parametrize("heads", [("classifier",), ("pose",), ("place",), ("classifier", "place")])
def test_absent_heads_are_none(tmp_path, heads):
    with Pipeline.load(make_tiny_bundle(tmp_path, heads=heads), engine="onnx") as pipeline:
        (prediction,) = pipeline(images(1))
    assert (prediction.get("classifier") is not None) == ("classifier" in heads)
    assert (prediction.get("pose") is not None) == ("pose" in heads)
    assert (prediction.get("place") is not None) == ("place" in heads)


@pytest.mark.slow
@given(
    st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3),
    st.integers(1, 5),
    st.one_of(st.none(), st.floats(0, 1)),
)
def test_top_k_is_one_distribution_in_falling_order(scores, k, threshold):
    probabilities = np.array(scores, np.float32) / max(np.float32(sum(scores)), np.float32(1))
    result = Classification(LABELS, probabilities, known_score=max(scores))
    top = result.top_k(k, threshold)
    known = [h.score for h in top if h.label != UNKNOWN]
    says_unknown = threshold is not None and max(scores) < threshold
    left = 1 - top[0].score if says_unknown else 1.0
    expected = sorted(map(float, probabilities), reverse=True)[:k]
    np.testing.assert_allclose(known, np.multiply(expected, left), rtol=1e-6)
    assert (top[0].label == UNKNOWN) == says_unknown
    listed = [h.score for h in top]
    assert listed == sorted(listed, reverse=True) and sum(listed) <= 1 + 1e-6
    assert len(top) == min(k, 3) + says_unknown


_SHORT_OF_MEMORY = """
import resource, sys
import numpy.testing  # before memory is short
import numpy as np
from robot_vision.pipeline import Pipeline
pipeline = Pipeline.load("models/demo", "onnx", "cpu", "float32", threads=1, max_batch=128)
images = [np.full((224, 224, 3), i, np.uint8) for i in range(128)]
alone = pipeline(images[:1]) + pipeline(images[-1:])
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 150 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
together = pipeline(images)
assert len(together) == 128
for a, b in zip(alone, (together[0], together[-1])):
    np.testing.assert_allclose(a["place"].values, b["place"].values, atol=1e-4)
print(pipeline.max_batch)
"""


@pytest.mark.slow
def test_a_batch_that_the_memory_cannot_hold_is_halved():
    done = subprocess.run(
        [sys.executable, "-c", _SHORT_OF_MEMORY], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 1 <= int(done.stdout) < 128


class Small:
    """An engine whose device has room for so many images at once."""

    def __init__(self, engine, most):
        self._engine, self._most = engine, most
        self.streams = engine.streams

    def run(self, batch):
        if len(batch) > self._most:
            raise EngineError("out of memory")
        return self._engine.run(batch)


@pytest.mark.slow
@pytest.mark.parametrize("most", [8, 5, 1])
def test_no_image_is_lost_while_the_batch_becomes_smaller(most):
    pipeline = Pipeline.load("models/demo", "onnx", "cpu", "float32")
    images = [np.full((30, 40, 3), 7 * i, np.uint8) for i in range(35)]
    expected = [p["place"].values for p in pipeline(images)]
    pipeline.engine = Small(pipeline.engine, most)
    for answers in (
        pipeline.another()(images),
        pipeline.another().infer(pipeline.preprocess(images)),
    ):
        np.testing.assert_allclose([p["place"].values for p in answers], expected, atol=1e-5)
    pipeline.warm_up((1, 16, 15, 8))
    assert pipeline.max_batch <= most


def of(answer):
    return Prediction({"head": answer})


@pytest.mark.parametrize(
    ("prediction", "name"),
    [
        (Prediction(), ""),
        (of(Classification(("a", "b"), np.array([0.5, 0.5], np.float32), 3e38)), ""),
        (of(Classification(("a",), np.array([np.nan], np.float32), 1.0)), "probabilities"),
        (of(Classification(("a",), np.ones(1, np.float32), math.nan)), "known_score"),
        (of(PoseAnswer(np.array([0, np.inf, 0]), np.ones(4), np.eye(6))), "position"),
        (of(PoseAnswer(np.ones(3), np.full(4, np.nan), np.eye(6))), "orientation"),
        (of(Descriptor(np.array([1, -np.inf, np.inf], np.float32))), "descriptor"),
    ],
)
def test_a_prediction_names_its_first_answer_that_is_not_finite(prediction, name):
    assert prediction.not_finite() == (f"the network's {name} is not finite" if name else "")


def test_an_engine_that_fails_on_one_image_is_an_error():
    pipeline = Pipeline.load("models/demo", "onnx", "cpu", "float32")
    with pytest.raises(EngineError):  # the graph refuses another size
        pipeline.infer(np.zeros((3, 10, 10, 3), np.uint8))
    assert pipeline.max_batch == 16
