"""Depth and segmentation of one model: what Nav2's semantic layer reads of both fits pixel by pixel."""

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from robot_vision.contract import registry
from robot_vision.contract.head import Material
from robot_vision.contract.topics import Shot
from robot_vision.contract.training import DataFacts
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.heads.depth import topics as depth_topics
from robot_vision.heads.depth.answer import DepthAnswer
from robot_vision.heads.depth.spec import DepthSpec
from robot_vision.images.input import InputSpec
from robot_vision.images.window import Window
from robot_vision.messages.making import rosbags_maker
from robot_vision.messages.serialized import Stamp
from robot_vision.messages.types import RANGE, message_types

K = np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
LABELS = ("floor", "wall", "chair")


@pytest.mark.parametrize(("resize", "size"), [("squash", (240, 320)), ("letterbox", (233, 321))])
def test_a_mask_and_the_points_have_one_size_stamp_and_order(resize, size):
    facts = DataFacts({"image:segmentation": LABELS}, input=size)
    lens = Intrinsics.of_matrix(K, 640, 480)
    shot = Shot(
        Stamp(12, 345),
        "optical",
        "front",
        window=Window.of((480, 640), InputSpec(*size, resize=resize)),
        intrinsics=lambda: lens,
    )
    make, said, rng = rosbags_maker(message_types()), {}, np.random.default_rng(0)
    for kind in ("segmentation", "depth"):
        head = registry.head(kind)
        spec = head.trainer().spec({}, facts)
        arrays = head.example_outputs(spec, None, 1, rng)
        (answer,) = head.decoder(spec, None, Material())(arrays)
        options = head.resolve(head.options({}), spec, Material())
        shown = head.published(answer, shot, spec, options)
        for topic in head.topics(spec):
            said[topic.name] = topic.writer(make)(shot, shown, options)
        if kind == "depth":
            depth = shown.depth
    mask, cloud = said["segmentation"], said["points"]
    assert (cloud.height, cloud.width) == (mask.height, mask.width) == depth.shape
    assert cloud.row_step == cloud.width * cloud.point_step and mask.step == mask.width
    assert mask.header == cloud.header
    # As the layer walks: the point of a pixel of the mask lies on that pixel's ray.
    xyz = cloud.data.view("<f4").reshape(*depth.shape, -1)
    known = np.isfinite(xyz[..., 2])
    np.testing.assert_array_equal(known, np.isfinite(depth))
    camera = shot.window.pixels(depth.shape)
    seen = xyz[known] @ K.T
    np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], camera[known], atol=0.01)
    inside = (camera >= -0.5).all(axis=-1) & (camera <= (639.5, 479.5)).all(axis=-1)
    np.testing.assert_array_equal(known, inside)


LENS = Intrinsics.of_matrix(K, 640, 480)
# Straight ahead from half a metre above the floor.
AHEAD = np.array([[0, 0, 1, 0.0], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1]])


def wall(metres: float) -> tuple[Shot, DepthAnswer]:
    """A wall across the way, and the image that it is seen in."""
    window = Window.of((480, 640), InputSpec(120, 160))
    shot = Shot(
        Stamp(12, 345), "optical", "front", "base", lambda frame: AHEAD, window, lambda: LENS
    )
    depth = np.full((30, 40), metres, np.float32)
    return shot, DepthAnswer(depth, 0.1 * depth)


def test_what_is_nearest_is_computed_once_for_each_answer(monkeypatch):
    calls = []

    def counted(*given):
        calls.append(given)
        return nearest(*given)

    nearest = depth_topics.nearest_obstacle
    monkeypatch.setattr(depth_topics, "nearest_obstacle", counted)
    head, make = registry.head("depth"), rosbags_maker(message_types())
    write = {t.name: t.writer(make) for t in head.topics(DepthSpec(size=(30, 40)))}
    options = head.options({})
    for number, metres in enumerate((2.0, 3.0), 1):
        shot, answer = wall(metres)
        said = [write[name](shot, answer, options) for name in ("obstacle", "obstacle_near")]
        assert len(calls) == number
        assert said[0].range == pytest.approx(metres) and said[1].range < 0.95 * metres
    free = write["obstacle"](shot, answer, head.options({"obstacle_low_m": 9.0}))
    assert len(calls) == 3 and free.range == free.max_range


def test_ranges_have_a_variance_where_their_definition_does():
    """Since Iron; Humble's has none."""
    shot, answer = wall(2.0)
    head, humble = registry.head("depth"), get_typestore(Stores.ROS2_HUMBLE)
    found = []
    for types in (humble, message_types()):
        (topic,) = (t for t in head.topics(DepthSpec(size=(30, 40))) if t.name == "obstacle")
        message = topic.writer(rosbags_maker(types))(shot, answer, head.options({}))
        found.append(bytes(types.serialize_cdr(message, RANGE)))
    variance = np.frombuffer(found[1][-4:], "<f4")
    assert found[0] == found[1][:-4] and variance == pytest.approx(0.04)
