"""Measures of depth against plain transcriptions, obstacles, and the fit of the uncertainty."""

import numpy as np
import pytest

from robot_vision.geometry.obstacles import Corridor, bearings, nearest_obstacle, planar_scan
from robot_vision.heads.depth import evaluation as measures
from robot_vision.heads.depth.answer import REACH
from robot_vision.heads.depth.drawing import colours
from robot_vision.heads.depth.judging import frame_row
from robot_vision.heads.depth.topics import _Mounted as Mounted
from robot_vision.statistics.bootstrap import values

RANGE = {"minimum": 0.5, "maximum": 8.0}


def made_up(frames=6, seed=0, size=(24, 32)):
    """Returns depths, sigmas and truths (n, h, w), whose errors have these sigmas; some pixels have none."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.4, 9.0, (frames, *size))
    sigma = rng.uniform(0.02, 0.3, true.shape)
    said = (
        true * np.exp(sigma * rng.normal(size=true.shape)) * rng.uniform(0.8, 1.2, (frames, 1, 1))
    )
    true[rng.random(true.shape) < 0.2] = np.nan
    said[rng.random(true.shape) < 0.05] = np.nan
    return said, sigma, true


def measured(said, sigma, true):
    rows = [frame_row(*frame, RANGE) for frame in zip(said, sigma, true, strict=True)]
    column = {word: np.array([row[word] for row in rows]) for word in rows[0]}
    found = values(measures.statistics(column["depth_sums"]), len(rows))
    scaled = values(measures.statistics(column["depth_scaled"]), len(rows))
    found |= {f"scaled_{word}": value for word, value in scaled.items()}
    pixels = column["depth_sums"][:, 0]
    found |= values(measures.coverages(pixels, column["depth_inside"]), len(rows))
    found |= values(measures.sparsification(column["depth_order"], column["depth_best"]), len(rows))
    return found, column


def transcribed(d, t):
    """The measures of Eigen et al. (2014), as their table writes them, of pixels (n,)."""
    ratio = np.maximum(d / t, t / d)
    return {
        "abs_rel": np.mean(np.abs(d - t) / t),
        "sq_rel": np.mean((d - t) ** 2 / t),
        "rmse": np.sqrt(np.mean((d - t) ** 2)),
        "rmse_log": np.sqrt(np.mean((np.log(d) - np.log(t)) ** 2)),
        "log10": np.mean(np.abs(np.log10(d) - np.log10(t))),
        **{f"delta_{k}": np.mean(ratio < 1.25**k) for k in (1, 2, 3)},
    }


def test_measures_are_those_of_all_pixels_with_truth_and_an_answer():
    said, sigma, true = made_up()
    found, column = measured(said, sigma, true)
    with np.errstate(invalid="ignore"):
        inside = (true >= 0.5) & (true <= 8.0)
    known = inside & np.isfinite(said)
    scales = [np.median(t[k]) / np.median(d[k]) for d, t, k in zip(said, true, known, strict=True)]
    wanted = transcribed(said[known], true[known])
    scaled = transcribed((said * np.array(scales)[:, None, None])[known], true[known])
    wanted |= {f"scaled_{word}": value for word, value in scaled.items()}
    for word, value in wanted.items():
        assert found[word] == pytest.approx(value, rel=1e-9), word
    np.testing.assert_allclose(column["depth_scale"], scales)
    assert column["depth_silent"].sum() == (inside & ~np.isfinite(said)).sum() > 0
    off = np.abs(np.log(said) - np.log(true))
    share = (off <= 1.6448536 * sigma)[known].mean()
    assert found["coverage_90"] == pytest.approx(share) and 0.5 < share < 0.95


def test_sparsification_is_that_of_sorted_pixels():
    said, sigma, true = made_up(seed=3, size=(48, 64))
    found, _ = measured(said, sigma, true)
    with np.errstate(invalid="ignore"):
        known = (true >= 0.5) & (true <= 8.0) & np.isfinite(said)
    error = (np.abs(said - true) / true)[known]

    def curve(keys):
        ordered = error[np.argsort(keys, kind="stable")]
        kept = [ordered[: round((1 - r) * len(ordered))].mean() for r in np.linspace(0, 0.95, 20)]
        return np.array(kept)

    by_sigma, best = curve(sigma[known]), curve(error)
    surest = error[np.argsort(sigma[known])][: round(0.7 * len(error))].mean()
    assert found["surest_70"] == pytest.approx(surest / error.mean(), rel=0.01)
    assert found["ause"] == pytest.approx((by_sigma - best).mean() / error.mean(), abs=0.01)
    assert found["surest_70"] < 0.9  # sigmas are true, so the surest err less


def test_a_perfect_answer_has_no_error_and_one_in_order_of_its_errors_no_area():
    said, _, true = made_up(seed=1)
    error = np.abs(said - true) / true
    found, _ = measured(true, np.full(true.shape, 0.1), true)
    assert found["abs_rel"] == found["rmse_log"] == 0 and found["delta_1"] == 1
    assert measured(said, error, true)[0]["ause"] == pytest.approx(0, abs=1e-12)


def test_a_frame_without_truth_or_answer_counts_for_nothing():
    said, sigma, true = made_up(2)
    for row in (
        frame_row(said[0], sigma[0], np.full_like(true[0], np.nan), RANGE),
        frame_row(np.full_like(said[0], np.nan), sigma[0], true[0], RANGE),
    ):
        assert not row["depth_sums"].any()


# Obstacles: a camera 0.4 m above the floor that looks ahead, x of base

AHEAD = np.array([[0, 0, 1, 0.2], [-1, 0, 0, 0], [0, -1, 0, 0.4], [0, 0, 0, 1]], np.float64)
CORRIDOR = Corridor(0.1, 1.0, 0.6, 3)


def room(box=None, wall=5.0, size=(60, 80)):
    """Returns optical points and rays (n, 3) of a floor, a wall ahead, and a box: x, y, width in base."""
    h, w = size
    v, u = np.mgrid[:h, :w]
    rays = np.stack([(u - w / 2 + 0.5) / w, (v - h / 2 + 0.5) / w, np.ones(size)], axis=-1)
    depth = np.full(size, wall)
    with np.errstate(divide="ignore"):
        floor = np.where(rays[..., 1] > 0, 0.4 / rays[..., 1], np.inf)
    depth = np.minimum(depth, floor)
    if box is not None:
        x, y, width = box
        z = x - 0.2
        left = -rays[..., 0] * z
        seen = (
            (np.abs(left - y) <= width / 2) & (0.4 - rays[..., 1] * z >= 0) & (rays[..., 1] > -0.1)
        )
        depth = np.where(seen & (z < depth), z, depth)
    return (rays * depth[..., None]).reshape(-1, 3), rays.reshape(-1, 3)


def in_base(points, T=AHEAD):
    return T[:3, :3] @ points.T + T[:3, 3:]


def nearest(points):
    return nearest_obstacle(in_base(points), np.full(len(points), 0.1), AHEAD[0, 3], CORRIDOR)


def scanned(points, rays, low=0.1, high=1.0):
    return planar_scan(in_base(points), bearings(AHEAD[:3, :3] @ rays.T), low, high, 80)


def test_the_nearest_obstacle_is_the_box_in_the_way_and_not_the_floor():
    points, _ = room((2.0, 0.1, 0.3))
    found = nearest(points)
    assert found.distance == pytest.approx(2.0)
    assert found.near == pytest.approx(0.2 + 1.8 * np.exp(-REACH * 0.1))
    assert found.deviation == pytest.approx(0.18)
    beside, _ = room((2.0, 1.0, 0.3))
    assert nearest(beside).distance == pytest.approx(5.2)


def test_single_pixels_are_no_obstacle_and_nothing_known_is_nan():
    points, _ = room()
    some = points.copy()
    ahead = np.flatnonzero((np.abs(points[:, :2]) < 0.3).all(axis=1) & (points[:, 2] > 4.9))
    some[ahead[:2]] *= 0.2
    assert nearest(some).distance == pytest.approx(5.2)
    some[ahead[2]] *= 0.2
    assert nearest(some).distance == pytest.approx(1.2)
    free = points[points[:, 2] < 2.0]  # floor alone
    assert nearest(free).distance == np.inf
    assert np.isnan(nearest(points * np.nan).distance)


def test_the_scan_has_the_box_where_it_is():
    points, rays = room((2.0, 0.5, 0.4))
    scan = scanned(points, rays)
    angles = scan.first + scan.step * np.arange(80)
    x, y = scan.ranges * np.cos(angles), scan.ranges * np.sin(angles)
    box = np.isfinite(x) & (np.abs(x - 2.0) < 0.05)
    wall = np.isfinite(x) & (np.abs(x - 5.2) < 0.1)
    assert (box | wall | ~np.isfinite(x)).all() and box.sum() > 5 and wall.sum() > 40
    assert y[box].min() == pytest.approx(0.3, abs=0.08) and y[box].max() == pytest.approx(
        0.7, abs=0.08
    )
    nothing = scanned(points, rays, 3.0, 4.0)
    assert np.isposinf(nothing.ranges[np.isfinite(scan.ranges)]).all()
    assert np.isnan(scanned(points * np.nan, rays).ranges).all()


def test_a_scan_goes_all_around_the_robot():
    """As by arctan2, point by point: of a rear camera all points lie behind."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3, 4000)).astype(np.float32)
    points[:, ::7] = np.nan
    points[:2, 0] = points[0, 1] = 0
    scan = planar_scan(points, (-np.pi, np.pi), 0.1, 1.0, 73)
    expected = np.full(73, np.nan)
    for x, y, z in points.T.astype(np.float64):
        if np.isfinite(x):
            beam = round((np.arctan2(y, x) + np.pi) / scan.step)
            far = np.hypot(x, y) if 0.1 <= z <= 1.0 else np.inf
            expected[beam] = np.fmin(expected[beam], far)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(scan.ranges, expected, rtol=1e-6)


def test_scan_of_a_tilted_camera_is_in_the_robots_plane():
    """The camera looks down by 20 degrees; the same room comes out."""
    points, rays = room((2.0, 0.0, 0.4))
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    tilt = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    turned = AHEAD @ np.linalg.inv(tilt)
    mounted = Mounted.of((rays @ tilt[:3, :3].T).astype(np.float32), turned)
    seen = mounted.ahead * points[:, 2] + mounted.camera  # depth is that of the room's camera
    camera_x = float(mounted.camera[0, 0])
    found = nearest_obstacle(seen, np.full(len(points), 0.1), camera_x, CORRIDOR)
    assert found.distance == pytest.approx(2.0, rel=1e-6)
    level = scanned(points, rays)
    assert mounted.span == pytest.approx((level.first, -level.first), abs=1e-6)
    tilted = planar_scan(seen, mounted.span, 0.1, 1.0, 80)
    same = np.isclose(tilted.ranges, level.ranges, rtol=1e-5)
    assert same.mean() > 0.95  # rounding moves a point from beam to beam


# For people


def test_near_is_bright_far_is_dark_and_nothing_is_black():
    row = np.geomspace(1, 8, 64, dtype=np.float32)
    shown = colours(np.stack([row, np.where(row > 4, np.nan, row)]), 1, 8)
    brightness = shown[0].astype(float) @ (0.299, 0.587, 0.114)
    assert (np.diff(brightness) <= 1).all() and brightness[0] > 200 and brightness[-1] < 40
    assert not shown[1][row > 4].any() and shown[1][row <= 4].any(axis=1).all()


def test_heights_between_which_nothing_is_are_said():
    from robot_vision.contract import registry
    from robot_vision.contract.head import Material

    head = registry.head("depth")

    def said(**options):
        return head.ineffective(head.options(options), head.Spec(), Material())

    assert not said() and not said(obstacle_low_m=-0.5)
    assert "obstacle_high_m 0.1" in said(obstacle_low_m=0.1, obstacle_high_m=0.1)
