"""Cells: the quadtree, its settings, soft labels, grids and points in the map, answers and their measures."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_vision.contract import registry
from robot_vision.contract.calibration import Fit
from robot_vision.contract.head import Material
from robot_vision.contract.prediction import Prediction
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.contract.topics import Shot
from robot_vision.contract.training import DataFacts
from robot_vision.errors import ConfigError
from robot_vision.evaluation.measure.metrics import score_recording
from robot_vision.evaluation.merge import document
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.geometry.rigid import matrix_from_xyzw
from robot_vision.geometry.squares import centres, distances
from robot_vision.heads.cells.ground import Plane
from robot_vision.heads.cells.partition import Grid, divide
from robot_vision.messages.making import rosbags_maker
from robot_vision.messages.serialized import Stamp
from robot_vision.messages.types import message_types
from robot_vision.statistics.bootstrap import Resampler
from robot_vision.truth.tracks import Truth

HEAD = registry.head("cells")


def spec_of(cells, images=None, **more):
    corners = np.asarray(cells, np.float64).reshape(-1).tolist()
    return HEAD.Spec(tuple(corners), tuple(images or [1] * (len(corners) // 4)), **more)


def trained_spec(positions, **network):
    points = np.asarray(positions, np.float64)
    return HEAD.trainer().spec(network, DataFacts(positions=points))


# Partition


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 400),
    st.integers(1, 40),
    st.integers(1, 5),
    st.sampled_from([0.1, 0.25, 1.0, 3.0]),
)
def test_cells_hold_what_the_quadtree_promises(seed, count, most, least, smallest):
    rng = np.random.default_rng(seed)
    points = rng.normal(rng.uniform(-50, 50, 2), rng.uniform(0.01, 20, 2), (count, 2))
    cells, images = divide(points, most, least, smallest)
    inside = (points[:, None] >= cells[:, :2]) & (points[:, None] < cells[:, 2:])
    holds = inside.all(axis=2)
    assert (holds.sum(axis=1) <= 1).all(), "no position is in two cells"
    np.testing.assert_array_equal(holds.sum(axis=0), images)
    assert (images >= least).all()
    sides = cells[:, 2:] - cells[:, :2]
    np.testing.assert_allclose(sides[:, 0], sides[:, 1])
    steps = sides[:, 0] / smallest
    np.testing.assert_allclose(np.log2(steps), np.rint(np.log2(steps)), atol=1e-6)
    assert ((images <= most) | (steps < 1.5)).all(), "what is too full was quartered"
    if least == 1:
        assert images.sum() == count
    again = divide(points[rng.permutation(count)], most, least, smallest)
    np.testing.assert_array_equal(again[0], cells)
    np.testing.assert_array_equal(again[1], images)


def test_a_robot_that_stands_still_makes_one_small_cell():
    cells, images = divide(np.full((10_000, 2), 3.3), 10, 1, 0.25)
    np.testing.assert_array_equal(cells, [[3.25, 3.25, 3.5, 3.5]])
    assert images.tolist() == [10_000]


def test_cells_are_small_where_many_images_were_taken():
    rng = np.random.default_rng(0)
    busy, quiet = rng.uniform(0, 2, (900, 2)), rng.uniform(8, 16, (100, 2))
    cells, _ = divide(np.concatenate([busy, quiet]), 30, 2, 0.25)
    sides = cells[:, 2] - cells[:, 0]
    in_busy = (cells[:, 2:] <= 4).all(axis=1)
    assert sides[in_busy].max() < sides[~in_busy].min()


def test_distances_are_those_to_rectangles():
    cells = np.array([[0.0, 0, 2, 2], [2, 0, 3, 1]])
    points = np.array([[1.0, 1], [5, 1], [-3, -4], [2.5, 2]])
    np.testing.assert_allclose(distances(points, cells), [[0, 1], [3, 2], [5, 41**0.5], [0.5, 1]])


# Settings


def test_cells_come_from_the_positions_of_the_training_images_in_the_plane_that_is_asked_for():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 4, (200, 3))
    points[:, 1] = 1.5
    spec = trained_spec(points, plane="xz", most_images=40)
    assert len(spec.images) > 4 and sum(spec.images) >= 190
    assert spec.most_images == 40 and trained_spec(points, plane="xz") != spec
    assert trained_spec(points, most_images=40) == spec, "y does not vary"
    assert trained_spec(points[:, [0, 2, 1]]).plane == "xy"
    line = np.column_stack([np.linspace(0, 9, 50), np.zeros(50), np.zeros(50)])
    assert trained_spec(line).plane == "xy", "on a line along x"
    with pytest.raises(ConfigError, match="make 1 cell .* 0.. x 0 m of xy"):
        trained_spec(np.array([[0.1 * i, 0.0, 0.0] for i in range(2)]), most_images=5)


@pytest.mark.parametrize(
    ("network", "text"),
    [
        ({"corners": [0.0]}, "the cells are made from the training images"),
        ({"plane": "xw"}, "plane 'xw'"),
        ({"smallest_m": 0.0}, "smallest_m is 0.0"),
        ({"least_images": 0}, "least_images is 0"),
        ({"most_image": 3}, "did you mean 'most_images'"),
    ],
)
def test_wrong_settings_are_refused(network, text):
    with pytest.raises(ConfigError, match=text):
        trained_spec(np.random.default_rng(0).uniform(0, 5, (100, 3)), **network)


def test_without_positions_there_is_no_head():
    with pytest.raises(ConfigError, match="positions of training images.*robot-vision train"):
        HEAD.trainer().spec({}, DataFacts())


@pytest.mark.parametrize(
    "table",
    [
        b"a,b\n1,2\n", b"h\n0,0,1,1,x\n", b"h\n0,0,1\n", b"\xff\xfe", b"h\n0,0,1,1,2.5\n",
        b"h\n0,0,1,1,2\n0,0,nan,1,2\n", b"h\n0,0,1,1,2\n0,0,inf,1,2\n", b"h\n0,0,1,1,2\n-1e300,0,1,1,2\n",
        b"h\n" + b"1" * 200_000,
    ],
)  # fmt: skip
def test_a_damaged_table_of_cells_is_refused(table):
    with pytest.raises(ConfigError):
        HEAD.Spec(**HEAD.from_bundle({}, {"cells.csv": table}))


# Loss


@pytest.mark.parametrize("sigma", [0.0, 0.2, 1.5])
def test_soft_labels_are_shares_of_a_gaussian(sigma):
    torch = pytest.importorskip("torch")
    cells = np.array([[0.0, 0, 1, 1], [1, 0, 2, 1], [0, 1, 2, 3], [6, 6, 7, 7]])
    loss = HEAD.trainer().make_loss(
        "soft_cells", cells=torch.tensor(cells), plane="xz", sigma_m=sigma
    )
    points = np.array([[0.4, 0.5], [1.0, 1.2], [6.5, 6.5], [900.0, 900.0]])
    poses = np.tile(np.eye(4, dtype=np.float32), (5, 1, 1))
    poses[:4, [0, 2], 3] = points
    has = torch.tensor([True] * 4 + [False])
    found = loss.labels(torch.from_numpy(poses), has).numpy()
    drawn = np.random.default_rng(0).normal(0, 1, (200_000, 2)) * sigma
    for i, point in enumerate(points[:3]):
        at = point + drawn if sigma else point[None]
        held = ((at[:, None] >= cells[:, :2]) & (at[:, None] < cells[:, 2:])).all(axis=2)
        expected = held.mean(axis=0) / held.mean(axis=0).sum()
        np.testing.assert_allclose(found[i], expected, atol=0.01)
    assert (found[3:] == 0).all(), "too far away, and no pose: nothing is learned"


@pytest.mark.parametrize("sigma", [-1, float("nan")])
def test_wrong_sigma_is_refused(sigma):
    torch = pytest.importorskip("torch")
    cells = torch.tensor([[0.0, 0, 1, 1]])
    with pytest.raises(ConfigError, match="sigma_m is"):
        HEAD.trainer().make_loss("soft_cells", cells=cells, sigma_m=sigma)


# Grid and messages


def random_cells(seed, extent=(12, 7)):
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.uniform(0, 2, (300, 2)), rng.uniform(-5, extent, (100, 2))])
    return divide(points, 20, 2, 0.25)


@pytest.mark.parametrize("most", [1_000_000, 400, 9])
def test_grid_holds_the_probability_of_every_cell(monkeypatch, most):
    monkeypatch.setattr(Grid, "MOST", most)
    cells, _ = random_cells(0)
    p = np.random.default_rng(1).dirichlet(np.ones(len(cells)))
    grid = Grid(cells)
    masses = grid.masses(p)
    assert masses.size <= most and masses.sum() == pytest.approx(1)
    side = grid.resolution_m
    for i in (0, 7, len(cells) - 1):
        alone = grid.masses(np.eye(len(cells))[i])
        rows, columns = np.nonzero(alone)
        low = grid.origin + side * np.array([columns.min(), rows.min()])
        high = grid.origin + side * np.array([columns.max() + 1, rows.max() + 1])
        if side <= cells[i, 2] - cells[i, 0] + 1e-9:
            np.testing.assert_allclose([*low, *high], cells[i])
            np.testing.assert_allclose(alone[rows, columns], 1 / len(rows))
        else:
            assert len(rows) == 1 and (low <= cells[i, :2]).all() and (high >= cells[i, 2:]).all()


def message_of(topic, spec, answer, frame="map"):
    make = rosbags_maker(message_types())
    options = HEAD.resolve(HEAD.options({"map_frame": frame}), spec, Material())
    shot = Shot(Stamp(5, 7), "optical", "front")
    topics = {t.name: t for t in HEAD.topics(spec)}
    return topics[topic].writer(make)(shot, answer, options)


@pytest.mark.parametrize("plane", ["xy", "xz", "yz"])
def test_grid_lies_in_the_map_where_the_cells_are(plane):
    cells, images = random_cells(2)
    spec = spec_of(cells, images.tolist(), plane=plane, map_frame="hall")
    p = np.full(len(cells), 0.1 / (len(cells) - 1), np.float32)
    p[3] = 0.9
    message = message_of("cells", spec, HEAD.Answer(spec.ground, p), frame="")
    assert message.header.frame_id == "hall" and message.header.stamp.sec == 5
    info = message.info
    data = np.asarray(message.data).reshape(info.height, info.width)
    row, column = np.argwhere(data == 100)[0]
    q, o = info.origin.orientation, info.origin.position
    flat = np.array([(column + 0.5) * info.resolution, (row + 0.5) * info.resolution, 0])
    world = matrix_from_xyzw(np.array([q.x, q.y, q.z, q.w])) @ flat + (o.x, o.y, o.z)
    in_plane = world[list(spec.axes)]
    assert (in_plane > cells[3, :2]).all() and (in_plane < cells[3, 2:]).all()
    assert np.delete(world, spec.axes) == pytest.approx(0)
    assert (data == -1).any() and data.max() == 100


def test_points_say_centre_side_and_probability():
    cells, images = random_cells(3)
    spec = spec_of(cells, images.tolist())
    p = np.random.default_rng(0).dirichlet(np.ones(len(cells))).astype(np.float32)
    message = message_of("cell_points", spec, HEAD.Answer(spec.ground, p), frame="site")
    assert message.header.frame_id == "site"
    assert [f.name for f in message.fields] == ["x", "y", "z", "size", "probability"]
    found = np.frombuffer(bytes(message.data), "<f4").reshape(-1, 5)
    np.testing.assert_allclose(found[:, :2], centres(cells), rtol=1e-6)
    np.testing.assert_allclose(found[:, 3], cells[:, 2] - cells[:, 0], rtol=1e-6)
    assert (found[:, 4] == p).all() and (found[:, 2] == 0).all()


# Answers


def test_two_peaks_are_said_as_two_peaks():
    cells = np.array([[0.0, 0, 1, 1], [1, 0, 2, 1], [10, 0, 11, 1]])
    answer = HEAD.Answer(Plane("xy", cells), np.array([0.5, 0.1, 0.4], np.float32))
    np.testing.assert_allclose(answer.centre, [0.5, 0.5])
    np.testing.assert_allclose(answer.expected, [0.5 * 0.5 + 0.1 * 1.5 + 0.4 * 10.5, 0.5])
    assert answer.within(0.5) == pytest.approx(0.5) and answer.within(2) == pytest.approx(0.6)
    assert answer.entropy == pytest.approx(-sum(p * np.log(p) for p in (0.5, 0.1, 0.4)))
    said = HEAD.json(answer, spec_of(cells), HEAD.options({}), None)
    assert [b["centre"] for b in said["best"]] == [[0.5, 0.5], [10.5, 0.5], [1.5, 0.5]]
    assert said["within"] == {"0.5": 0.5, "1": 0.6, "2": 0.6, "5": 0.6}


# Measures


def judged(spec, probabilities, positions):
    count = len(positions)
    stamps = (np.arange(count) * 10**8).astype(np.int64)
    said = [Prediction({"cells": HEAD.Answer(spec.ground, p)}) for p in probabilities]
    found = Predictions.of(stamps, said, "drive", bound=[(HEAD, spec)])
    truth = Truth.of_arrays(stamps, None, positions, np.tile([0.0, 0, 0, 1], (count, 1)))
    options = EvaluationSettings(resamples=20)
    return document(score_recording(found, truth, options, bound=[(HEAD, spec)]), options)["cells"]


def test_measures_agree_with_their_definitions():
    sklearn = pytest.importorskip("sklearn.metrics")
    cells, images = random_cells(4)
    spec = spec_of(cells, images.tolist(), plane="xz")
    rng, n = np.random.default_rng(0), 300
    positions = np.column_stack(
        [rng.uniform(-5, 12, n), rng.uniform(0, 9, n), rng.uniform(-5, 7, n)]
    )
    flat = positions[:, [0, 2]]
    away = np.linalg.norm(centres(cells) - flat[:, None], axis=2) + rng.normal(
        0, 1, (n, len(cells))
    )
    p = np.exp(-away)
    p = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
    found = judged(spec, p, positions)
    true = distances(flat, cells).argmin(axis=1)
    best = p.argmax(axis=1)
    error = np.linalg.norm(centres(cells)[best] - flat, axis=1)
    value = {name: found[name]["value"] for name in ("median_m", "p90_m", "nll", "top1", "covered")}
    assert found["frames"] == n
    assert value["median_m"] == pytest.approx(np.median(error))
    assert value["p90_m"] == pytest.approx(np.quantile(error, 0.9))
    for radius in (0.5, 1, 2, 5):
        assert found[f"within_{radius:g}m"]["value"] == pytest.approx((error <= radius).mean())
    loss = sklearn.log_loss(true, p.astype(np.float64), labels=range(len(cells)))
    assert value["nll"] == pytest.approx(loss, rel=1e-5)
    assert value["top1"] == pytest.approx((best == true).mean())
    inside = (distances(flat, cells) == 0).any(axis=1)
    assert value["covered"] == pytest.approx(inside.mean()) and 0 < inside.mean() < 1
    prior = images / images.sum()
    expected = -np.log(prior[true]).mean()
    assert found["baselines"]["prior"]["nll"]["value"] == pytest.approx(expected)
    assert found["nll"]["low"] is not None


def test_a_recording_without_the_model_says_that_it_needs_it():
    cells, images = random_cells(5)
    spec = spec_of(cells, images.tolist())
    stamps = (np.arange(40) * 10**8).astype(np.int64)
    p = np.full(len(cells), 1 / len(cells), np.float32)
    said = [Prediction({"cells": HEAD.Answer(spec.ground, p)})] * 40
    found = Predictions.of(stamps, said, "drive", bound=[(HEAD, spec)])
    truth = Truth.of_arrays(stamps, None, np.zeros((40, 3)), np.tile([0.0, 0, 0, 1], (40, 1)))
    options = EvaluationSettings(resamples=20)
    metrics = document(score_recording(found, truth, options), options)
    assert metrics["cells"] is None
    assert "--model" in HEAD.judge().why_not(metrics["settings"])


# Calibration


@pytest.mark.slow
def test_a_temperature_that_is_off_is_found_and_measured_in_both_ways():
    cells, images = random_cells(6)
    spec = spec_of(cells, images.tolist())
    rng, n, off = np.random.default_rng(0), 1000, 2.5
    z = rng.normal(0, 2, (n, len(cells)))
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    true = np.array([rng.choice(len(cells), p=row) for row in p])
    poses = [np.eye(4) for _ in range(n)]
    for pose, cell in zip(poses, centres(cells)[true], strict=True):
        pose[:2, 3] = cell
    order = np.arange(n)
    given_ = Fit(
        spec=spec,
        outputs={"cell_logits": off * z},
        truth=poses,
        folds=order % 5,
        units=order,
        blocks=order,
        constants={"temperature": np.array(1.0)},
        resampler=Resampler(order * 10**11, [(0, n)], EvaluationSettings(resamples=50)),
        times=lambda gap_s: order,
    )
    fitter = HEAD.fitter()
    found = fitter.fit("cells", given_, None)
    assert not found.left and found.spec["temperature"] == pytest.approx(off, rel=0.1)
    assert found.after["ece"]["value"] < 0.5 * found.before["ece"]["value"]
    assert found.after["nll"]["value"] < found.before["nll"]["value"]
    expected = z * off / found.spec["temperature"]
    expected = np.exp(expected - expected.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.expected["cell_probabilities"], expected, rtol=1e-5)
    assert fitter.tune(given_).spec == found.spec
    with pytest.raises(ConfigError, match="99 images with a true pose are too few"):
        fitter.fit("cells", replace(given_, truth=[*poses[:99], *[None] * (n - 99)]), None)
