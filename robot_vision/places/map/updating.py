"""Keeps a map true to places that change, from drives whose poses are sure.

A keyframe should be recognised from where it was taken. It *matches* a view where it is more similar to it
than every keyframe of another place. Each drive past a keyframe is counted (`evidence`); one that failed in
enough drives is taken out, and a view that no keyframe there matches is added, up to a number of keyframes
for each position and heading. So what bounds the map is where the robot goes, and not how many days it does
so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, ImageError
from robot_vision.geometry.rigid import apart, xyzw_from_matrix
from robot_vision.pipeline import Pipeline
from robot_vision.places.map.base import Added, MapError, PlaceMap
from robot_vision.places.map.building import DECODERS, MapView, Structurer, load_view, thumbnail_of
from robot_vision.places.map.evidence import Evidence, Replaced, Session, kept_evidence
from robot_vision.places.map.keyframe import Keyframe
from robot_vision.places.map.keyframe_policy import KeyframePolicy, KeyframeSelector

_BATCH = 8
_EVEN = 0.5
_CHUNK_NUMBERS = 20_000_000  # of a table of views and keyframes
# Of the views that show places of the map, the share that is recognised there in a home that only changes.
LEAST_RECOGNISED = 0.5


@dataclass(frozen=True)
class UpdatePolicy:
    """When a keyframe has to match, when it is taken out, and how many there may be.

    The rules were chosen on simulated homes (`benchmarks/place_days.py`).

    Attributes:
        distance_m: a keyframe should match views within this distance,
        angle_deg: and this angle.
        place_radius_m: a keyframe farther away than this,
        place_heading_deg: or turned by more than this, shows another place.
        capacity: keyframes within `distance_m` and `angle_deg` of a view, from which on a new one takes the
            place of the least trusted, where that is less probably recognised in most drives than not.
        forget: what a drive counts against the next one.
        weight: independent images that one drive counts as, at most.
        doubt: a keyframe goes if it is recognised in most drives with less than this probability.
    """

    distance_m: float = 0.3
    angle_deg: float = 20.0
    place_radius_m: float = 1.0
    place_heading_deg: float = 45.0
    capacity: int = 3
    forget: float = 0.7
    weight: float = 2.0
    doubt: float = 0.1

    def __post_init__(self) -> None:
        if not (
            0 < self.distance_m <= self.place_radius_m
            and 0 < self.angle_deg <= self.place_heading_deg <= 180
        ):
            raise ConfigError(
                f"A keyframe within {self.distance_m:g} m and {self.angle_deg:g} deg should match, and one "
                f"beyond {self.place_radius_m:g} m or {self.place_heading_deg:g} deg is another place: the "
                "first must be more than 0 and not more than the second"
            )
        if self.capacity < 1:
            raise ConfigError(f"Capacity is {self.capacity}: use 1 or more")


@dataclass(frozen=True, eq=False)
class Seen:
    """A view of the drive, and what the network made of it.

    Attributes:
        view: with its pose.
        descriptor: float32 (D,), L2 norm 1.
        thumbnail: JPEG, or None.
    """

    view: MapView
    descriptor: NDArray[np.float32]
    thumbnail: bytes | None = None


@dataclass(frozen=True, eq=False)
class Change:
    """A keyframe that goes.

    Attributes:
        record: what was there and what is there now.
        shown_by: id of the keyframe that stays and shows the place now; or None.
        shown_by_new: place in `Update.added` of the one that comes and shows it; or None.
    """

    record: Replaced
    shown_by: int | None
    shown_by_new: int | None


@dataclass(frozen=True, eq=False)
class Update:
    """What one drive changes in a map.

    Attributes:
        views: of the drive.
        placed: of them, those that are within a place's radius of a keyframe.
        recognised: of these, those to which a keyframe of their place is the most similar.
        elsewhere: of the views that are at no place of the map, those that are as similar to a keyframe as
            recognised views are in the median: their poses may be wrong.
        changes: keyframes that go.
        added: keyframes that come; the first `len(changes)` need not be of the same places.
        new_ground: those of them where no keyframe was near.
        doubted: ids of keyframes that failed in this drive and stay until there is more evidence.
        full: views that no keyframe near matches and that were not added, since there are enough keyframes.
        evidence: of the keyframes that stay and were seen, by id.
    """

    views: int
    placed: int
    recognised: int
    elsewhere: int
    changes: tuple[Change, ...]
    added: tuple[Added, ...]
    new_ground: int
    doubted: tuple[int, ...]
    full: int
    evidence: dict[int, Evidence] = field(repr=False)


def described(
    views: Sequence[MapView],
    pipeline: Pipeline,
    policy: UpdatePolicy,
    thumbnail: int = 128,
    say: Callable[[int], None] | None = None,
    unreadable: Counter[str] | None = None,
) -> Iterator[Seen]:
    """Yields the views of one drive that are apart: a robot that stands says nothing new.

    Args:
        views: of one recording and camera.
        pipeline: of the map's model.
        policy: says how far apart.
        thumbnail: longer side of the pictures in pixels; 0 for none.
        say: called with the number of views that were gone through since.
        unreadable: counts images that cannot be decoded, by reason.
    """
    moved = KeyframeSelector(KeyframePolicy(policy.distance_m, policy.angle_deg, revisits=True))
    size = pipeline.bundle.spec.input
    smallest = max(size.height, thumbnail), max(size.width, thumbnail)
    with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:
        for start in range(0, len(views), _BATCH):
            few = []
            for view in views[start : start + _BATCH]:
                if moved.moved(view.T_map_camera):
                    moved.added(view.T_map_camera)
                    few.append(view)
            loaded = list(pool.map(lambda view: load_view(view, smallest), few))
            good = []
            for view, image in zip(few, loaded, strict=True):
                if isinstance(image, ImageError):
                    if unreadable is not None:
                        unreadable[image.reason] += 1
                else:
                    good.append((view, image))
            predictions = pipeline([image for _, image in good]) if good else []
            for (view, image), found in zip(good, predictions, strict=True):
                yield Seen(view, found["place"].values, thumbnail_of(image, thumbnail))
            if say:
                say(len(views[start : start + _BATCH]))


def plan_update(
    places: PlaceMap, seen: Sequence[Seen], policy: UpdatePolicy | None = None
) -> Update:
    """Returns what a drive changes; the map stays as it is.

    Args:
        places: the map.
        seen: views of one drive with sure poses, in the order in which they were taken.
        policy: the rules.

    Raises:
        MapError: the drive is in the map, or was counted before; or none of its views is at a place of the
            map, or most of these show other places, so that the poses are not to be trusted.
    """
    policy = policy or UpdatePolicy()
    if not seen:
        raise ConfigError("The drive has no image that can be read")
    first = seen[0].view
    before = kept_evidence(places)
    _refuse_known(places, before, [s.view for s in seen])
    near = _compare(places, seen, policy)
    if not near.placed:
        raise MapError(
            f"{places.info.uri}: none of {len(seen)} images of {first.source!r} is at a place of the map, so "
            "that nothing shows whether its poses are in the map's frame. Nothing was changed. Begin the "
            "drive in the map, or let robot-vision map add trust its poses"
        )
    if near.recognised < LEAST_RECOGNISED * near.placed:
        raise MapError(
            f"{places.info.uri}: of {near.placed} images of {first.source!r} that its poses put near "
            f"keyframes, {near.recognised} look like them: these poses are not in the map's frame, or are "
            "wrong. Nothing was changed. Check them with robot-vision map evaluate; if all of the place is "
            "new, build a new map"
        )
    evidence, gone, doubted = _judge(near, before, first, policy)
    added, new_ground, full = _choose(seen, near, evidence, gone, policy)
    changes, takers = _changes(places, seen, near, evidence, sorted(gone), added)
    for taker, record in takers:
        if isinstance(taker, _New):
            taker.replaced.append(record)
        else:
            evidence[taker] = evidence[taker].replacing([record])
    return Update(
        len(seen),
        near.placed,
        near.recognised,
        near.elsewhere,
        tuple(changes),
        tuple(new.added(seen) for new in added),
        new_ground,
        tuple(number for number in doubted if number not in gone),
        full,
        {i: kept for i, kept in evidence.items() if i not in gone},
    )


def with_structure(
    update: Update, seen: Sequence[Seen], structurer: Structurer, reach_m: float
) -> Update:
    """Returns an update whose new keyframes have local features and points, from the views about them.

    Args:
        update: of `plan_update`.
        seen: the views that it was given.
        structurer: has not been used.
        reach_m: of views that help a keyframe.

    Raises:
        ConfigError: see `Structurer`.
    """
    chosen = {added.keyframe.stamp_ns for added in update.added}
    spots = np.array([added.keyframe.position for added in update.added]).reshape(-1, 3)
    apart_enough = KeyframeSelector(KeyframePolicy(similarity=0.0, revisits=True))
    made: dict[int, bytes] = {}
    for at, one in enumerate(seen):
        T = one.view.T_map_camera
        wanted = one.view.stamp_ns in chosen
        if wanted or (
            apart_enough.wants(T) and (np.linalg.norm(spots - T[:3, 3], axis=1) < reach_m).any()
        ):
            image = load_view(one.view, None)
            if not isinstance(image, ImageError):
                apart_enough.added(T)
                made |= structurer.add(at, one.view, image)
    made |= structurer.flush()
    of = {seen[at].view.stamp_ns: structure for at, structure in made.items()}
    added = (replace(new, structure=of.get(new.keyframe.stamp_ns)) for new in update.added)
    return replace(update, added=tuple(added))


def apply_update(places: PlaceMap, update: Update) -> list[int]:
    """Writes an update in one transaction; returns the ids of the keyframes that came.

    Raises:
        MapError: it cannot be written; the map is then as it was.
    """
    return places.revise(
        [change.record.keyframe_id for change in update.changes],
        update.added,
        {i: kept.to_bytes() for i, kept in update.evidence.items()},
    )


@dataclass(frozen=True, eq=False)
class _Near:
    """Keyframes that should match views.

    Attributes:
        pairs: for each view, (keyframe's id, similarity, whether it matches).
        best_other: for each view, the greatest similarity with a keyframe of another place.
        placed: views that show a place of the map.
        recognised: of them, those whose most similar keyframe is of the place.
        elsewhere: see `Update`.
    """

    pairs: list[list[tuple[int, float, bool]]]
    best_other: NDArray[np.float64]
    placed: int
    recognised: int
    elsewhere: int


def _compare(places: PlaceMap, seen: Sequence[Seen], policy: UpdatePolicy) -> _Near:
    poses = places.poses()
    ids, descriptors = places.descriptors()
    if not np.array_equal(ids, poses.ids):
        raise MapError(f"{places.info.uri} changed while it was read: try again")
    if not len(ids):
        raise MapError(f"{places.info.uri} is empty: use robot-vision map build")
    pairs: list[list[tuple[int, float, bool]]] = []
    others = []
    # Greatest similarities, of recognised views and of those at no place.
    right, strange = [np.zeros(0)], []
    placed = 0
    step = max(1, _CHUNK_NUMBERS // len(ids))
    for start in range(0, len(seen), step):
        few = seen[start : start + step]
        at = np.stack([s.view.T_map_camera for s in few])
        turns = np.stack([xyzw_from_matrix(T[:3, :3]) for T in at])
        metres = np.linalg.norm(at[:, None, :3, 3] - poses.positions, axis=2)  # (V, N)
        cosine = np.abs(turns @ poses.quaternions_xyzw.T)
        degrees = np.degrees(2 * np.arccos(np.minimum(cosine, 1)))
        similar = np.stack([s.descriptor for s in few]) @ descriptors.T
        here = (metres <= policy.place_radius_m) & (degrees <= policy.place_heading_deg)
        close = (metres <= policy.distance_m) & (degrees <= policy.angle_deg)
        best = np.where(here, -1.0, similar).max(axis=1)
        for v in range(len(few)):
            pairs.append(
                [
                    (int(ids[k]), float(similar[v, k]), bool(similar[v, k] > best[v]))
                    for k in np.flatnonzero(close[v])
                ]
            )
        some, most = here.any(axis=1), similar.max(axis=1)
        placed += int(some.sum())
        right.append(most[here[np.arange(len(few)), similar.argmax(axis=1)]])
        strange.append(most[~some])
        others.append(best)
    known = np.concatenate(right)
    alike = float(np.median(known)) if len(known) else np.inf
    elsewhere = int((np.concatenate(strange) >= alike).sum())
    other = np.concatenate(others).astype(np.float64)
    return _Near(pairs, other, placed, len(known), elsewhere)


def _refuse_known(places: PlaceMap, before: dict[int, Evidence], views: Sequence[MapView]) -> None:
    first = views[0]
    key = first.source, first.stamp_ns
    if any((s.source, s.stamp_ns) == key for kept in before.values() for s in kept.sessions):
        raise MapError(
            f"{places.info.uri} was updated with {first.source!r} before: a drive counts once. Another "
            "drive of that name needs --name"
        )
    poses = places.poses()
    there = set(zip(poses.sources, poses.cameras, poses.stamps_ns.tolist(), strict=True))
    if any((view.source, view.camera, view.stamp_ns) in there for view in views):
        raise MapError(
            f"{places.info.uri} has keyframes of {first.source!r} already: update it with a later drive, or "
            "give another drive of that name its own with --name"
        )


def _judge(
    near: _Near, before: dict[int, Evidence], first: MapView, policy: UpdatePolicy
) -> tuple[dict[int, Evidence], set[int], list[int]]:
    """Returns the evidence of keyframes that were seen; which of them go; and which failed and stay."""
    of: dict[int, list[tuple[float, bool]]] = {}
    for pairs in near.pairs:
        for number, similarity, matches in pairs:
            of.setdefault(number, []).append((similarity, matches))
    evidence, gone, doubted = {}, set(), []
    for number, rows in sorted(of.items()):
        session = Session(
            first.source,
            first.stamp_ns,
            len(rows),
            sum(matches for _, matches in rows),
            round(median(similarity for similarity, _ in rows), 4),
        )
        evidence[number] = before.get(number, Evidence()).after(session)
        if evidence[number].belief(policy.forget, policy.weight) < policy.doubt:
            gone.add(number)
        elif session.failed:
            doubted.append(number)
    return evidence, gone, doubted


@dataclass(frozen=True, eq=False)
class _New:
    """A view that becomes a keyframe, and what it replaces."""

    at: int
    replaced: list[Replaced] = field(default_factory=list)

    def added(self, seen: Sequence[Seen]) -> Added:
        one = seen[self.at]
        keyframe = Keyframe.checked(
            stamp_ns=one.view.stamp_ns,
            camera=one.view.camera,
            source=one.view.source,
            T_map_camera=one.view.T_map_camera,
            descriptor=one.descriptor,
            thumbnail=one.thumbnail,
        )
        kept = Evidence().replacing(self.replaced).to_bytes() if self.replaced else None
        return Added(keyframe, kept)


def _choose(
    seen: Sequence[Seen],
    near: _Near,
    evidence: dict[int, Evidence],
    gone: set[int],
    policy: UpdatePolicy,
) -> tuple[list[_New], int, int]:
    """Returns the views that become keyframes, how many had no keyframe near, and how many found no room.

    What goes to make room comes to `gone`.
    """
    chosen: list[_New] = []
    new_ground = full = 0
    for at, (one, pairs) in enumerate(zip(seen, near.pairs, strict=True)):
        staying = [number for number, _, _ in pairs if number not in gone]
        if any(matches for number, _, matches in pairs if number not in gone):
            continue
        mine = [new for new in chosen if _close(one, seen[new.at], policy)]
        if any(float(one.descriptor @ seen[n.at].descriptor) > near.best_other[at] for n in mine):
            continue
        if len(staying) + len(mine) >= policy.capacity:
            trust = {i: evidence[i].belief(policy.forget, policy.weight) for i in staying}
            least = min(staying, key=trust.__getitem__, default=None)
            if least is None or trust[least] >= _EVEN:
                full += 1
                continue
            gone.add(least)
        chosen.append(_New(at))
        new_ground += not pairs and not mine
    return chosen, new_ground, full


def _close(a: Seen, b: Seen, policy: UpdatePolicy) -> bool:
    metres, degrees = apart(a.view.T_map_camera, b.view.T_map_camera)
    return metres <= policy.distance_m and degrees <= policy.angle_deg


def _changes(
    places: PlaceMap,
    seen: Sequence[Seen],
    near: _Near,
    evidence: dict[int, Evidence],
    gone: Sequence[int],
    chosen: Sequence[_New],
) -> tuple[list[Change], list[tuple[int | _New, Replaced]]]:
    """Returns what goes, and which keyframe keeps the record of it."""
    lost = set(gone)
    changes: list[Change] = []
    takers: list[tuple[int | _New, Replaced]] = []
    for keyframe in places.keyframes(gone):
        assert keyframe.keyframe_id is not None
        number, T = keyframe.keyframe_id, keyframe.T_map_camera
        views = [v for v, pairs in enumerate(near.pairs) if any(i == number for i, _, _ in pairs)]
        at = min(views, key=lambda v: sum(apart(T, seen[v].view.T_map_camera)))
        sessions = evidence[number].sessions
        failed = len(sessions)
        while failed and sessions[failed - 1].failed:
            failed -= 1
        good = [s.similarity for s in sessions if not s.failed]
        record = Replaced(
            number,
            keyframe.stamp_ns,
            keyframe.camera,
            keyframe.source,
            tuple(float(v) for v in (*keyframe.position, *keyframe.quaternion_xyzw)),
            sessions[min(failed, len(sessions) - 1)].stamp_ns,
            sessions[-1].stamp_ns,
            round(median(good), 4) if good else None,
            sessions[-1].similarity,
            sessions,
            keyframe.thumbnail,
            seen[at].thumbnail,
        )
        # The keyframe that shows it now: the most similar one that stays or comes within the same reach.
        options: list[tuple[float, int | None, int | None]] = [
            (similarity, i, None) for i, similarity, _ in near.pairs[at] if i not in lost
        ]
        options += [
            (float(seen[at].descriptor @ seen[new.at].descriptor), None, n)
            for n, new in enumerate(chosen)
            if apart(seen[at].view.T_map_camera, seen[new.at].view.T_map_camera)[0] < 1.0
        ]
        _, stays, comes = max(options, key=lambda option: option[0], default=(0.0, None, None))
        changes.append(Change(record, stays, comes))
        if comes is not None:
            takers.append((chosen[comes], record))
        elif stays is not None:
            takers.append((stays, record))
    return changes, takers
