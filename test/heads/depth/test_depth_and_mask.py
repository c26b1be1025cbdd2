"""Depth and segmentation of one model: what Nav2's semantic layer reads of both fits pixel by pixel."""

import numpy as np
import pytest

from robot_vision.contract import registry
from robot_vision.contract.head import Material
from robot_vision.contract.topics import Shot
from robot_vision.contract.training import DataFacts
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.images.input import InputSpec
from robot_vision.images.window import Window
from robot_vision.messages.making import rosbags_maker
from robot_vision.messages.serialized import Stamp
from robot_vision.messages.types import message_types

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
