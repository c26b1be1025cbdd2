"""Keeping a map true: what counts against a keyframe, when it goes, and what a map keeps of it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from place_maps import assert_same, keyframe, make_map, server, server_uri, unit, uri

from robot_vision.cli.map.build import ViewStructure
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.geometry.rigid import pose_matrix
from robot_vision.places.map.base import Added, KeyframeThereError, MapError, PlaceMap
from robot_vision.places.map.building import MapView
from robot_vision.places.map.copying import copy_map, merge_map
from robot_vision.places.map.evidence import Evidence, Replaced, Session
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.opening import open_map
from robot_vision.places.map.updating import (
    Seen,
    UpdatePolicy,
    apply_update,
    plan_update,
    with_structure,
)
from robot_vision.places.verification.builder import StructureBuilder
from robot_vision.places.verification.structure import KeyframeStructure
from robot_vision.simulation.drive import look
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.renderer import Camera, Renderer

__all__ = ["server", "server_uri", "uri"]  # fixtures
DAY_NS = 86_400 * 10**9
PLACES = 12
AHEAD = np.array([0.0, 0.0, 0.0, 1.0])


def looks(place: int, changed: int = 0, drive: int = 0) -> NDArray[np.float32]:
    """Returns what a place looks like: another direction for each way it was changed, and a little noise."""
    vector = unit(100 * place + changed) + 0.1 * unit(10_000 + 100 * drive + place)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def drive(number: int, changed: dict[int, int], shift_m: float = 0.05) -> list[Seen]:
    """Returns a drive past places 2 m apart, each seen twice."""
    seen = []
    for i in range(2 * PLACES):
        place = i // 2
        T = pose_matrix(np.array([2.0 * place + shift_m * (1 + i % 2), 0.0, 1.0]), AHEAD)
        view = MapView(str(i), number * DAY_NS + i, "front", f"day {number}", T, lambda _: None)  # type: ignore[arg-type, return-value]
        seen.append(Seen(view, looks(place, changed.get(place, 0), number), b"now"))
    return seen


@pytest.fixture
def places(tmp_path: Path) -> PlaceMap:
    """Returns a map of the places as they were."""
    target = make_map(tmp_path / "home.map")
    target.add_many(
        Keyframe.checked(
            stamp_ns=place,
            camera="front",
            source="first",
            T_map_camera=pose_matrix(np.array([2.0 * place, 0.0, 1.0]), AHEAD),
            descriptor=looks(place),
            thumbnail=b"then",
        )
        for place in range(PLACES)
    )
    return target


def test_where_nothing_changes_nothing_is_done_but_counted(places: PlaceMap) -> None:
    for number in range(1, 4):
        update = plan_update(places, drive(number, {}))
        assert (update.views, update.placed, update.recognised) == (24, 24, 24)
        assert not update.changes and not update.added and not update.doubted
        apply_update(places, update)
    assert len(places) == PLACES
    for data in places.evidence().values():
        sessions = Evidence.from_bytes(data, "").sessions
        assert [s.source for s in sessions] == ["day 1", "day 2", "day 3"]
        assert all((s.seen, s.matched) == (2, 2) for s in sessions)


def test_a_changed_place_is_shown_at_once_and_its_keyframe_goes_with_evidence(
    places: PlaceMap,
) -> None:
    apply_update(places, plan_update(places, drive(1, {})))
    update = plan_update(places, drive(2, {3: 1}))
    assert update.doubted == (4,) and len(update.added) == 1 and not update.changes
    assert update.added[0].keyframe.position[0] == pytest.approx(6.05)
    (new,) = apply_update(places, update)
    days = []
    for number in range(3, 7):
        update = plan_update(places, drive(number, {3: 1}))
        assert not update.added
        apply_update(places, update)
        days += [number] * len(update.changes)
        if update.changes:
            (change,) = update.changes
            record = change.record
    assert days == [4], "one bad drive, or two after a good one, are not enough; three are"
    assert len(places) == PLACES and change.shown_by == new
    assert (record.keyframe_id, record.since_ns, record.replaced_ns) == (4, 2 * DAY_NS, 4 * DAY_NS)
    assert record.then is not None and record.then > 0.9 > 0.5 > record.now
    assert [(s.seen, s.matched) for s in record.sessions] == [(2, 2), (2, 0), (2, 0), (2, 0)]
    assert (record.thumbnail, record.shown) == (b"then", b"now")
    assert Evidence.from_bytes(places.evidence()[new], "").replaced == (record,)


def moved(seen: list[Seen], metres: float, since: int = 0) -> list[Seen]:
    """Returns a drive whose poses are wrong by so much from one of its images on."""
    shift = pose_matrix(np.array([0.0, metres, 0.0]), AHEAD)
    return [
        replace(one, view=replace(one.view, T_map_camera=shift @ one.view.T_map_camera))
        if i >= since
        else one
        for i, one in enumerate(seen)
    ]


def test_poses_that_no_place_of_the_map_confirms_are_refused(places: PlaceMap) -> None:
    with pytest.raises(MapError, match=r"none of 24 images of 'day 1' is at a place of the map"):
        plan_update(places, moved(drive(1, {}), 50.0))


def test_images_on_new_ground_that_look_like_places_elsewhere_are_counted(
    places: PlaceMap,
) -> None:
    update = plan_update(places, moved(drive(1, {}), 50.0, since=10))
    assert (update.placed, update.recognised, update.new_ground) == (10, 10, 7)
    assert 4 <= update.elsewhere <= 14, "as alike as half of the recognised ones are"
    new = [replace(one, descriptor=looks(50 + i // 2)) for i, one in enumerate(drive(2, {}))]
    ground = plan_update(places, [*drive(2, {})[:10], *moved(new, 50.0)[10:]])
    assert (ground.new_ground, ground.elsewhere) == (7, 0)


def test_a_place_that_changes_every_day_keeps_a_bounded_number_of_keyframes(
    places: PlaceMap,
) -> None:
    gone, most = 0, 0
    for number in range(1, 25):
        update = plan_update(places, drive(number, {3: number}), UpdatePolicy(capacity=2))
        apply_update(places, update)
        here = np.abs(places.poses().positions[:, 0] - 6.0) < 0.3
        gone, most = gone + len(update.changes), max(most, int(here.sum()))
        assert len(places) <= PLACES + 1
    assert most == 2 and gone > 15, "what looks new was left out"
    records = [
        r for data in places.evidence().values() for r in Evidence.from_bytes(data, "").replaced
    ]
    assert 0 < len(records) <= 4 * PLACES


def test_new_ground_is_added(places: PlaceMap) -> None:
    seen = drive(1, {0: 1, 1: 1})  # what two places look like now is elsewhere, 5 m away
    for i, one in enumerate(seen[:4]):
        T = pose_matrix(one.view.T_map_camera[:3, 3] + (0, 5, 0), AHEAD)
        seen[i] = replace(one, view=replace(one.view, T_map_camera=T))
    update = plan_update(places, seen)
    assert update.new_ground == len(update.added) == 2


def test_wrong_poses_and_a_drive_that_was_counted_are_refused(places: PlaceMap) -> None:
    seen = drive(1, {})
    shifted = [
        replace(s, view=replace(s.view, T_map_camera=seen[(i + 6) % 24].view.T_map_camera))
        for i, s in enumerate(seen)
    ]
    with pytest.raises(MapError, match="of 24 images of 'day 1'.* 0 look like them.*Nothing"):
        plan_update(places, shifted)
    apply_update(places, plan_update(places, seen))
    with pytest.raises(MapError, match="was updated with 'day 1' before.*--name"):
        plan_update(places, seen)
    own = [replace(s, view=replace(s.view, source="first", stamp_ns=i)) for i, s in enumerate(seen)]
    with pytest.raises(MapError, match="has keyframes of 'first' already"):
        plan_update(places, own)


def test_belief_needs_several_drives_and_forgets() -> None:
    def belief(*matched: int) -> float:
        kept = Evidence(tuple(Session("d", i, 9, m, 0.5) for i, m in enumerate(matched)))
        return kept.belief(0.5, 2.0)

    assert belief() == pytest.approx(0.5)
    assert belief(0) == pytest.approx(0.125, abs=1e-3)  # P(p > 0.5) of Beta(1, 3)
    assert belief(0, 0) == pytest.approx(0.5**4, abs=1e-3)
    assert belief(9, 9, 0) > belief(9, 0, 0) > 0.1 > belief(9, 9, 9, 0, 0, 0)
    assert belief(0, 0, 9) > 0.5


def evidence(number: int) -> Evidence:
    session = Session("drive", number, 3, 1, 0.25)
    record = Replaced(
        keyframe_id=number,
        stamp_ns=5,
        camera="front",
        source="old",
        pose=(1.0, 2.0, 3.0, *AHEAD.tolist()),
        since_ns=6,
        replaced_ns=7,
        then=None,
        now=0.5,
        sessions=(session,),
        thumbnail=b"\0\xff",
        shown=None,
    )
    return Evidence((session,), (record,))


def test_evidence_round_trip_and_damage() -> None:
    data = evidence(1).to_bytes()
    assert Evidence.from_bytes(data, "") == evidence(1)
    infinite, never_seen = data.replace(b"0.25", b"1e999"), data.replace(b'"seen":3', b'"seen":0')
    assert infinite != data != never_seen
    for bad in (b"", b"[]", b"{}", data[:-1], infinite, never_seen, b"[" * 10**6):
        with pytest.raises(MapError, match="^home: keyframe 3 is not as it was written"):
            Evidence.from_bytes(bad, "home: keyframe 3")


def test_revise_is_all_or_nothing_on_every_store(uri: str) -> None:
    with make_map(uri) as target:
        assert target.evidence() == {}
        target.add_many(keyframe(i) for i in range(4))
        kept = {i: evidence(i).to_bytes() for i in (2, 3)}
        ids = target.revise([1], [Added(keyframe(7), b"own", b"built"), Added(keyframe(8))], kept)
        assert target.poses().ids.tolist() == [2, 3, 4, *ids]
        assert target.evidence() == kept | {ids[0]: b"own"}
        assert target.structure(ids[0]) == b"built" and target.structure(ids[1]) is None
        assert_same(target.get(ids[0]), keyframe(7), ids=False)
        revision = target.revision
        with pytest.raises(KeyframeThereError):
            target.revise([2], [Added(keyframe(9)), Added(keyframe(7))], {3: b"lost"})
        assert target.revision == revision and target.evidence() == kept | {ids[0]: b"own"}
        assert target.poses().ids.tolist() == [2, 3, 4, *ids]
        assert target.changes(revision - 1).removed.tolist() in ([1], [])
        target.remove([2])
        assert sorted(target.evidence()) == [3, ids[0]]
        target.revise([], [], {2: b"of one that is gone"})
        assert sorted(target.evidence()) == [3, ids[0]]


def test_copies_and_merges_keep_the_evidence(tmp_path: Path) -> None:
    with make_map(tmp_path / "a.map") as source:
        source.add_many(keyframe(i) for i in range(4))
        source.revise([1], [], {2: b"two"})
        copy_map(source, tmp_path / "b.map")
        with open_map(tmp_path / "b.map") as copy, make_map(tmp_path / "c.map") as other:
            assert copy.evidence() == {2: b"two"} and copy.poses().ids.tolist() == [2, 3, 4]
            other.add(keyframe(9))
            merge_map(other, source)
            assert other.evidence() == {2: b"two"}  # its number there
            assert_same(other.get(2), source.get(2), ids=False)


def test_damaged_evidence_in_a_file_is_an_error_and_an_old_map_has_none(tmp_path: Path) -> None:
    path = tmp_path / "a.map"
    with make_map(path) as target:
        target.add(keyframe(1))
        target.revise([], [], {1: b"evidence"})
    with sqlite3.connect(path) as db:
        db.execute("UPDATE evidence SET data = x'00'")
    with open_map(path) as target, pytest.raises(MapError, match="evidence of keyframe 1"):
        target.evidence()


@pytest.mark.slow
def test_new_keyframes_can_be_verified_by_the_views_about_them(tmp_path: Path) -> None:
    world, camera = default_world(), Camera()
    renderer, (x, y) = Renderer(world, camera), world.room("kitchen").centre
    intrinsics = Intrinsics.of_matrix(camera.k, camera.width, camera.height)
    seen = []
    for i in range(11):
        T = look((x + 0.2 + 0.15 * i, y - 1.0, 1.1), 2.3)
        view = MapView(
            str(i), i, "front", "later", T, lambda _, T=T: renderer.render(T), None, intrinsics
        )  # type: ignore[misc]
        mixed = unit(0) + unit(i + 1)
        seen.append(Seen(view, (mixed / np.linalg.norm(mixed)).astype(np.float32)))
    with make_map(tmp_path / "home.map") as target:
        target.add(
            Keyframe.checked(
                stamp_ns=0,
                camera="front",
                source="first",
                T_map_camera=seen[0].view.T_map_camera,
                descriptor=seen[0].descriptor,
            )
        )
        target.add(keyframe(1))
        update = plan_update(target, seen)
        assert len(update.added) >= 3
        update = with_structure(update, seen, ViewStructure(StructureBuilder()), 2.0)
        for number in apply_update(target, update):
            structure = target.structure(number)
            assert structure is not None
            points = KeyframeStructure.from_bytes(structure).points
            assert np.isfinite(points[:, 2]).sum() > 30
