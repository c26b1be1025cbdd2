"""What every place map does, held against the file and the real server alike."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forked import said_in_a_fork
from place_maps import DIMENSION, assert_same, keyframe, make_map, server, server_uri, unit, uri
from scipy.spatial.transform import Rotation
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.errors import ConfigError
from robot_vision.geometry.rigid import pose_matrix
from robot_vision.places.map.base import KeyframeThereError, MapError, MapReadOnlyError
from robot_vision.places.map.copying import copy_map, merge_map
from robot_vision.places.map.opening import create_map, create_map_for, open_map

__all__ = ["server", "server_uri", "uri"]  # fixtures


def test_keyframes_come_back_bit_for_bit_after_reopening(uri: str) -> None:
    given = [keyframe(i) for i in range(7)]
    with make_map(uri, frame_id="warehouse") as places:
        ids = [places.add(given[0]), *places.add_many(given[1:])]
        info = places.info
    with open_map(uri) as places:
        assert places.info == info
        assert (info.bundle_name, info.bundle_sha256) == ("tiny", "ab" * 32)
        assert (info.frame_id, info.dimension) == ("warehouse", DIMENSION)
        assert len(places) == 7
        for number, expected, read in zip(ids, given, places.keyframes(), strict=True):
            assert_same(read, replace(expected, keyframe_id=number))
            assert_same(places.get(number), read)
        poses = places.poses()
        np.testing.assert_array_equal(poses.ids, ids)
        np.testing.assert_array_equal(poses.positions, [k.position for k in given])
        np.testing.assert_array_equal(poses.quaternions_xyzw, [k.quaternion_xyzw for k in given])
        np.testing.assert_array_equal(poses.stamps_ns, [k.stamp_ns for k in given])
        numbers, descriptors = places.descriptors([ids[4], ids[1], 10**9])
        np.testing.assert_array_equal(numbers, [ids[1], ids[4]])
        np.testing.assert_array_equal(descriptors, [given[1].descriptor, given[4].descriptor])
        assert [k.keyframe_id for k in places.keyframes([ids[3], ids[0]])] == [ids[3], ids[0]]
        places.check()


def test_descriptors_of_half_precision_are_rounded_once(uri: str) -> None:
    with make_map(uri, descriptor_dtype="float16") as places:
        number = places.add(keyframe(1))
        expected = unit(1).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(places.get(number).descriptor, expected)
        np.testing.assert_array_equal(places.descriptors()[1], [expected])


def test_ids_are_never_used_again_after_a_removal(uri: str) -> None:
    with make_map(uri) as places:
        ids = places.add_many(keyframe(i) for i in range(4))
        before = places.revision
        assert places.remove([ids[3], ids[1], 999]) == 2
        again = places.add(keyframe(9))
        assert again > max(ids)
        changes = places.changes(before)
        np.testing.assert_array_equal(changes.added, [again])
        np.testing.assert_array_equal(changes.removed, [ids[1], ids[3]])
        assert changes.revision == places.revision > before
        assert not len(places.changes(changes.revision).added)
        with pytest.raises(MapError, match=f"no keyframe {ids[1]}"):
            places.get(ids[1])
        with pytest.raises(KeyframeThereError, match="removed before"):
            places.add(replace(keyframe(20), keyframe_id=ids[1]))


def test_structure_lives_and_goes_with_its_keyframe(uri: str) -> None:
    with make_map(uri) as places:
        first, second = places.add_many([keyframe(0), keyframe(1)])
        blob = bytes(range(256)) * 300
        places.set_structure(first, b"old")
        places.set_structure(first, blob)
        assert places.structure(first) == blob
        assert places.structure(second) is None
        np.testing.assert_array_equal(places.structure_ids(), [first])
        with pytest.raises(MapError, match="no keyframe 77"):
            places.set_structures({second: b"x", 77: b"y"})
        assert places.structure(second) is None  # all or none
        places.remove([first])
        assert places.structure(first) is None


def test_a_batch_with_one_bad_keyframe_adds_none(uri: str) -> None:
    with make_map(uri) as places:
        places.add(keyframe(3))
        with pytest.raises(KeyframeThereError, match="source of its own"):
            places.add_many([keyframe(1), keyframe(2), keyframe(3)])
        assert len(places) == 1
        with pytest.raises(KeyframeThereError):
            places.add(replace(keyframe(5), keyframe_id=1))
        places.add(keyframe(4))
        assert len(places) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"descriptor": unit(1, 8)}, "has 8 numbers and the map's have 16"),
        ({"descriptor": np.full(16, np.nan, np.float32)}, "NaN or infinity"),
        ({"descriptor": unit(1) * 3}, "norm is 3 and must be 1"),
        ({"position": np.array([0.0, np.inf, 0.0])}, "three finite numbers"),
        ({"quaternion_xyzw": np.zeros(4)}, "must be of length 1"),
        ({"covariance": -np.eye(6)}, "not positive semidefinite"),
        ({"camera": "a\0b"}, "must be Unicode"),
        ({"source": "\ud800"}, "must be Unicode"),
        ({"stamp_ns": 1 << 63}, "64 bits"),
        ({"thumbnail": b"x" * (2 << 20)}, "only a preview"),
        ({"keyframe_id": 0}, "keyframe_id 0"),
    ],
)
def test_a_bad_keyframe_is_refused_and_the_map_lives_on(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with make_map(tmp_path / "m") as places:
        with pytest.raises(ConfigError, match=message) as caught:
            places.add(keyframe(1, **changes))
        assert "\n" not in str(caught.value)
        assert places.add(keyframe(1)) == 1


def test_a_map_of_another_model_is_refused_by_both_names(uri: str, tmp_path: Path) -> None:
    bundle = ModelBundle.load(make_tiny_bundle(tmp_path / "one", name="hall-net"))
    other = ModelBundle.load(make_tiny_bundle(tmp_path / "two", name="home-net"))
    create_map_for(uri, bundle).close()
    open_map(uri, bundle=bundle).close()
    with pytest.raises(MapError, match=r"hall-net .*home-net.*cannot be compared") as caught:
        open_map(uri, bundle=other)
    assert bundle.sha256[:12] in str(caught.value) and other.sha256[:12] in str(caught.value)


def test_a_map_opened_for_reading_is_not_written(uri: str) -> None:
    with make_map(uri) as places:
        places.add(keyframe(1))
    with open_map(uri, "read") as places:
        assert len(places) == 1
        for write in (
            lambda: places.add(keyframe(2)),
            lambda: places.remove([1]),
            lambda: places.set_structure(1, b"x"),
        ):
            with pytest.raises(MapReadOnlyError):
                write()
        assert len(places) == 1


def test_a_forked_process_neither_uses_a_map_nor_closes_it(uri: str) -> None:
    with make_map(uri) as places:
        number = places.add(keyframe(1))
        assert f"forked from {os.getpid()}" in said_in_a_fork(lambda: len(places))
        assert f"forked from {os.getpid()}" in said_in_a_fork(lambda: places.add(keyframe(2)))
        assert said_in_a_fork(places.close) == "None"
        assert places.poses().ids.tolist() == [number]
        places.add(keyframe(2))
        assert len(places) == 2


def test_an_empty_map_answers(uri: str) -> None:
    with make_map(uri) as places:
        assert len(places) == 0 and list(places.keyframes()) == []
        assert places.descriptors()[1].shape == (0, DIMENSION)
        assert places.poses().positions.shape == (0, 3)
        assert places.add_many([]) == [] and places.remove([1]) == 0
        places.check()


def test_making_or_opening_in_the_wrong_place_says_so(uri: str) -> None:
    with pytest.raises(MapError, match="does not exist"):
        open_map(uri)
    make_map(uri).close()
    with pytest.raises(MapError, match="exists already"):
        make_map(uri)
    places = open_map(uri)
    places.close()
    places.close()
    with pytest.raises(MapError, match="was closed"):
        len(places)


def test_two_writers_and_a_follower_see_one_order(uri: str) -> None:
    """Every change is seen exactly once by a reader that asks again and again."""
    make_map(uri).close()

    def drive(robot: int) -> None:
        with open_map(uri) as places:
            for i in range(15):
                places.add(keyframe(100 * robot + i, source=f"robot{robot}"))

    drivers = [threading.Thread(target=drive, args=(robot,)) for robot in (1, 2)]
    seen: list[int] = []
    revision = 0
    with open_map(uri, "read") as places:
        for driver in drivers:
            driver.start()
        while any(d.is_alive() for d in drivers) or places.revision != revision:
            changes = places.changes(revision)
            seen += changes.added.tolist()
            revision = changes.revision
        for driver in drivers:
            driver.join()
        assert sorted(seen) == places.poses().ids.tolist() and len(seen) == 30


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_map_copied_to_the_server_and_back_is_the_same(
    server_uri: str, tmp_path: Path, dtype: str
) -> None:
    with make_map(tmp_path / "a", descriptor_dtype=dtype, frame_id="hall") as places:
        ids = places.add_many(keyframe(i) for i in range(450))
        places.set_structures({ids[0]: b"\0\1\2" * 1000, ids[449]: b""})
        places.remove([3, 450 - 5])
        assert copy_map(places, server_uri) == 448
    with open_map(server_uri, "read") as places:
        copy_map(places, tmp_path / "b")
    with open_map(tmp_path / "a") as a, open_map(tmp_path / "b") as b:
        for left, right in zip(a.keyframes(), b.keyframes(), strict=True):
            assert_same(left, right)
        assert b.structure(ids[0]) == b"\0\1\2" * 1000 and b.structure(ids[449]) == b""
        np.testing.assert_array_equal(a.structure_ids(), b.structure_ids())
        assert replace(a.info, uri="", map_id="", created_ns=0) == replace(
            b.info, uri="", map_id="", created_ns=0
        )
        assert a.info.map_id != b.info.map_id
        with pytest.raises(MapError, match="exists already"):
            copy_map(a, tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_merge_moves_poses_and_covariances_and_can_be_repeated(uri: str, tmp_path: Path) -> None:
    T = pose_matrix(np.array([5.0, -2.0, 0.5]), Rotation.from_euler("z", 40, True).as_quat())
    with make_map(uri) as target, make_map(tmp_path / "other") as other:
        target.add(keyframe(0))
        ids = other.add_many([keyframe(0), *(keyframe(i, source="robot2") for i in (1, 2))])
        other.set_structure(ids[2], b"points in the camera's frame")
        merged = merge_map(target, other, T)
        assert (merged.added, merged.known) == (2, 1)
        again = merge_map(target, other, T)
        assert (again.added, again.known) == (0, 3)
        moved = target.get(2)
        np.testing.assert_allclose(
            moved.T_map_camera, T @ keyframe(1).T_map_camera, rtol=0, atol=1e-12
        )
        # The oracle: random errors of the old pose, moved one by one.
        rotation = Rotation.from_matrix(T[:3, :3])
        rng = np.random.default_rng(0)
        errors = rng.multivariate_normal(np.zeros(6), keyframe(1).covariance, 200_000)
        turned = np.hstack((rotation.apply(errors[:, :3]), rotation.apply(errors[:, 3:])))
        np.testing.assert_allclose(moved.covariance, np.cov(turned.T), atol=2e-3)
        assert target.structure(3) == b"points in the camera's frame"
        with pytest.raises(MapError, match="same map"):
            merge_map(target, target)
        with pytest.raises(ConfigError, match="rigid"):
            merge_map(target, other, 2 * T)
    with (
        create_map(
            tmp_path / "third", bundle_name="big", bundle_sha256="cd" * 32, dimension=DIMENSION
        ) as third,
        open_map(uri) as target,
    ):
        with pytest.raises(MapError, match=r"tiny .*big"):
            merge_map(target, third)


def test_a_file_system_without_locks_is_an_error_that_says_so(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with make_map(tmp_path / "a") as places, pytest.raises(MapError, match="cannot be locked"):
        copy_map(places, tmp_path / "b")


def test_two_copies_to_one_file_at_once_do_not_spoil_each_other(tmp_path: Path) -> None:
    with make_map(tmp_path / "a") as places:
        places.add_many(keyframe(i) for i in range(450))
        refused = []

        def say(done: int, _all: int) -> None:
            if done < 450:
                with pytest.raises(MapError, match="made by another copy"):
                    copy_map(places, tmp_path / "b")
                refused.append(done)

        assert copy_map(places, tmp_path / "b", say) == 450 and refused
    with open_map(tmp_path / "b", "read") as copied:
        assert len(copied) == 450
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
