"""Neighbours, triplets, places and clips against brute force; the same batches for the same seed."""

import copy
import time

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robot_vision.errors import ConfigError
from robot_vision.geometry.rigid import rotation_error_deg
from robot_vision.heads.place.mining import TripletSampler
from robot_vision.heads.place.neighbours import PlaceRelation, PoseNeighbours, cover
from robot_vision.heads.place.place_batches import PlaceSampler
from robot_vision.heads.pose.clips import ClipSampler

N = 150
RELATION = PlaceRelation(positive_m=1.0, positive_deg=60, negative_m=2.0, negative_deg=90)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def turned(heading):
    return Rotation.from_rotvec(heading[:, None] * [0, 0, 1]).as_quat()


def floor(rng, n=N, size=6.0, relation=RELATION):
    """Cameras on a floor, at random headings."""
    xyzw = turned(rng.uniform(-np.pi, np.pi, n))
    xyzw *= rng.choice([-1, 1], (n, 1))  # q and -q are one heading
    return PoseNeighbours(rng.uniform(0, size, (n, 3)) * [1, 1, 0], relation, xyzw)


def triplets(neighbours, **settings):
    settings = {"queries_per_batch": 3, "negatives": 4, "pool": 60, "queries": 20, **settings}
    return TripletSampler(neighbours, **settings)


def differences(neighbours, i, j):
    distance = np.linalg.norm(neighbours.positions[i] - neighbours.positions[j])
    return distance, float(rotation_error_deg(neighbours.xyzw[i], neighbours.xyzw[j]))


def split(batch, positives, negatives):
    size = 1 + positives + negatives
    return [batch[i : i + size] for i in range(0, len(batch), size)]


@pytest.mark.slow
def test_positives_and_negatives_are_those_of_brute_force(rng):
    neighbours = floor(rng)
    negative = neighbours.is_negative(np.arange(N), np.arange(N))
    for i in range(N):
        near = set()
        for j in range(N):
            distance, angle = differences(neighbours, i, j)
            assert negative[i, j] == (distance > 2 or angle > 90)
            if i != j and distance <= 1 and angle <= 60:
                near.add(j)
        found = neighbours.positives(i)
        assert set(found.tolist()) == near and len(found) == len(near)
        few = neighbours.positives(i, 2)
        assert len(few) <= 2 and set(few.tolist()) <= near and bool(len(few)) == bool(near)
    expected = [i for i in range(N) if len(neighbours.positives(i))]
    np.testing.assert_array_equal(neighbours.with_positives(), expected)
    assert 0 < len(expected) < N


def test_positions_alone_are_enough_without_angles(rng):
    positions = rng.uniform(0, 300, (200, 2))  # UTM: east, north
    neighbours = PoseNeighbours(positions, PlaceRelation())
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    for i in range(200):
        near = np.flatnonzero((distance[i] <= 10) & (np.arange(200) != i))
        np.testing.assert_array_equal(np.sort(neighbours.positives(i)), near)
        found = neighbours.positives(i)
        assert (np.diff(distance[i][found]) >= 0).all()  # nearest first
    np.testing.assert_array_equal(neighbours.is_negative([3], np.arange(200))[0], distance[3] > 25)


def test_images_without_a_pose_are_nobodys_neighbours(rng):
    positions = rng.uniform(0, 5, (30, 3))
    positions[4] = np.nan
    neighbours = PoseNeighbours(positions, PlaceRelation())
    assert not len(neighbours.positives(4)) and 4 not in neighbours.with_positives()
    assert not any(4 in neighbours.positives(i) for i in range(30))
    assert not neighbours.is_negative([0, 4], [4]).any()
    assert cover(neighbours)[4] == -1


@pytest.mark.slow
def test_frames_of_a_robot_that_stands_still_are_found_quickly():
    positions = np.zeros((20000, 3))
    xyzw = np.tile([0.0, 0, 0, 1], (20000, 1))
    neighbours = PoseNeighbours(positions, RELATION, xyzw)
    assert len(neighbours.with_positives()) == 20000
    assert len(neighbours.positives(7, 32)) == 32
    assert (cover(neighbours) == 0).all()


def test_places_are_mutual_positives_and_cover_everything(rng):
    neighbours = floor(rng, 400)
    place = cover(neighbours, seed=1)
    assert place.min() == 0 and len(np.unique(place)) == place.max() + 1
    for label in np.unique(place):
        members = np.flatnonzero(place == label)
        assert neighbours.is_positive(members, members).all()
    assert len(np.unique(place)) < 300  # and they are not all alone


def test_wider_places_hold_positives_of_their_centre(rng):
    neighbours = floor(rng, 400)
    place = cover(neighbours, reach=1.0)
    for label in np.unique(place):
        members = np.flatnonzero(place == label)
        assert neighbours.is_positive(members, members).all(axis=1).any()
    assert place.max() < cover(neighbours).max()


def test_angles_need_orientations():
    with pytest.raises(ConfigError, match="orientation for each image"):
        PoseNeighbours(np.zeros((3, 3)), RELATION)


def test_tuples_hold_a_query_its_positives_and_definite_negatives(rng):
    neighbours = floor(rng)
    sampler = triplets(neighbours, queries=0)
    queries = []
    for batch in sampler:
        for query, positive, *negatives in split(batch, 1, 4):
            queries.append(query)
            assert neighbours.is_positive([query], [positive]).all() and query != positive
            assert neighbours.is_negative([query], negatives).all()
            assert len(set(negatives)) == 4
    assert sorted(queries) == neighbours.with_positives().tolist()


def test_mined_tuples_are_the_hardest_of_brute_force(rng):
    neighbours, sampler = floor(rng), triplets(floor(np.random.default_rng(5)))
    described = rng.standard_normal((N, 8)).astype(np.float32)
    sampler.mine(np.arange(N), described)
    pool = sampler._pool()
    distance = ((described[:, None] - described[None]) ** 2).sum(axis=2)
    tuples = [t for batch in sampler for t in split(batch, 1, 4)]
    assert [t[0] for t in tuples] == sampler.epoch_queries().tolist()
    for query, positive, *negatives in tuples:
        near = neighbours.positives(query)
        assert positive == near[distance[query, near].argmin()]
        allowed = pool[neighbours.is_negative([query], pool)[0]]
        hardest = allowed[np.argsort(distance[query, allowed])[:4]]
        assert negatives == hardest.tolist()


@pytest.mark.slow
def test_positives_may_be_chosen_at_random_instead_of_the_best(rng):
    neighbours = floor(rng, 400)
    described = rng.standard_normal((400, 8)).astype(np.float32)
    chosen = {}
    for epoch in range(2):
        sampler = triplets(neighbours, queries=0, choose="random")
        sampler.set_epoch(epoch)
        sampler.mine(np.arange(400), described)
        chosen[epoch] = {t[0]: t[1] for batch in sampler for t in split(batch, 1, 4)}
        assert all(neighbours.is_positive([q], [p])[0, 0] for q, p in chosen[epoch].items())
    assert chosen[0] != chosen[1]
    with pytest.raises(ConfigError, match="did you mean 'random'"):
        triplets(neighbours, choose="randm")


def test_hard_negatives_of_last_time_are_remembered(rng):
    described = rng.standard_normal((N, 8)).astype(np.float32)
    sampler = triplets(floor(rng), queries=0, pool=12)
    pools = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        pools.append(sampler._pool())
        wanted = sampler.wanted()
        assert len(wanted) <= N
        sampler.mine(wanted, described[wanted])
    pool = np.unique(np.concatenate(pools))
    distance = ((described[:, None] - described[None]) ** 2).sum(axis=2)
    # The descriptors stay the same here, so what was hardest of all pools so far has been kept.
    for query, _, *negatives in (t for batch in sampler for t in split(batch, 1, 4)):
        allowed = pool[sampler.neighbours.is_negative([query], pool)[0]]
        assert set(negatives) == set(allowed[np.argsort(distance[query, allowed])[:4]].tolist())


def test_mining_wants_only_what_it_needs_and_says_what_is_missing(rng):
    sampler = triplets(floor(rng), queries=5, pool=10)
    wanted = sampler.wanted()
    assert len(wanted) < N and (np.diff(wanted) > 0).all()
    with pytest.raises(ConfigError, match="1 descriptor that mining needs is missing"):
        sampler.mine(wanted[1:], np.zeros((len(wanted) - 1, 4)))
    with pytest.raises(ConfigError, match="not finite"):
        sampler.mine(wanted, np.full((len(wanted), 4), np.nan))


def test_each_query_comes_once_in_every_pass(rng):
    sampler = triplets(floor(rng), queries=7)
    total, seen = len(sampler.queries), []
    for epoch in range(2 * total):
        sampler.set_epoch(epoch)
        seen += sampler.epoch_queries().tolist()
    for turn in range(7):
        assert sorted(seen[turn * total : (turn + 1) * total]) == sampler.queries.tolist()
    assert seen[:total] != seen[total : 2 * total]


@pytest.mark.parametrize("kind", ["triplets", "places", "clips"])
def test_batches_follow_from_seed_and_epoch_and_go_on_in_the_middle(rng, kind):
    neighbours = floor(rng, 400)

    def sampler(seed=0):
        if kind == "triplets":
            return triplets(neighbours, seed=seed)
        if kind == "places":
            return PlaceSampler(neighbours, places_per_batch=4, images_per_place=2, seed=seed)
        return ClipSampler(np.zeros(400), clips=8, seed=seed)

    def batches(made, epoch, start=0):
        made.set_epoch(epoch, start)
        found = list(made)
        assert len(found) == len(made)
        return found

    first = batches(sampler(), 3)
    assert batches(sampler(), 3) == first
    assert batches(sampler(), 3, 2) == first[2:]
    assert batches(sampler(), 4) != first
    assert batches(sampler(1), 3) != first
    used = sampler()
    batches(used, 0)
    assert batches(used, 3) == first  # whatever came before


def test_resumed_mining_goes_on_with_the_same_batches(rng):
    neighbours = floor(rng)
    described = rng.standard_normal((N, 8)).astype(np.float32)
    whole, cut = triplets(neighbours), triplets(neighbours)
    for epoch in range(2):
        for sampler in (whole, cut):
            sampler.set_epoch(epoch)
            sampler.mine(np.arange(N), described)
    state = copy.deepcopy(cut.state_dict())
    resumed = triplets(neighbours)
    resumed.load_state_dict(state)
    resumed.set_epoch(1, 3)
    assert list(resumed) == list(whole)[3:]
    for sampler in (whole, resumed):
        sampler.set_epoch(2)
        sampler.mine(np.arange(N), described[::-1])
    assert list(resumed) == list(whole)


def test_state_of_other_images_is_refused(rng):
    state = triplets(floor(rng)).state_dict()
    with pytest.raises(ConfigError, match="resume with the data"):
        triplets(floor(rng, 90)).load_state_dict(state)


def test_processes_share_the_batches_evenly(rng):
    neighbours = floor(rng, 400)
    whole = list(PlaceSampler(neighbours, 4, 2))
    shares = [list(PlaceSampler(neighbours, 4, 2, rank=r, world_size=2)) for r in range(2)]
    assert len(shares[0]) == len(shares[1]) == len(whole) // 2
    mixed = [batch for pair in zip(*shares, strict=True) for batch in pair]
    assert mixed == whole[: len(mixed)]


def test_batches_of_places_hold_several_images_of_places_far_apart(rng):
    neighbours = floor(rng, 600, size=15.0)
    sampler = PlaceSampler(neighbours, places_per_batch=6, images_per_place=3)
    seen = []
    for batch in sampler:
        place = sampler.place[batch]
        labels, counts = np.unique(place, return_counts=True)
        assert 2 <= len(labels) <= 6 and counts.min() >= 2 and counts.max() <= 3
        seen += labels.tolist()
        different = place[:, None] != place[None]
        negative = neighbours.is_negative(batch, batch)
        assert (negative == different).all()
    assert len(seen) == len(set(seen))
    assert np.mean([len(np.unique(sampler.place[b])) for b in sampler]) > 4


def test_places_that_cannot_be_told_apart_are_refused(rng):
    relation = PlaceRelation(positive_m=1.0, negative_m=50.0)
    neighbours = PoseNeighbours(rng.uniform(0, 6, (80, 3)), relation)
    with pytest.raises(ConfigError, match="choose a smaller one"):
        list(PlaceSampler(neighbours, 4, 2))


def test_queries_without_any_negative_are_refused(rng):
    neighbours = PoseNeighbours(rng.uniform(0, 6, (80, 3)), PlaceRelation())  # 10 m and 25 m
    sampler = TripletSampler(neighbours)
    wanted = sampler.wanted()
    with pytest.raises(ConfigError, match="negative_m = 25 m .*choose a smaller one"):
        sampler.mine(wanted, rng.normal(size=(len(wanted), 4)))


def test_images_all_alone_are_refused():
    neighbours = PoseNeighbours(100.0 * np.arange(30).reshape(10, 3), PlaceRelation())
    with pytest.raises(ConfigError, match="choose larger ones"):
        TripletSampler(neighbours)
    with pytest.raises(ConfigError, match="two are needed"):
        PlaceSampler(neighbours)


def test_clips_are_evenly_spaced_frames_of_one_sequence():
    sequence = np.repeat([0, 1, 2], [40, 7, 25])
    sampler = ClipSampler(sequence, clips=4, frames=3, spacing=5)
    starts = []
    for batch in sampler:
        for clip in np.reshape(batch, (-1, 3)):
            assert (np.diff(clip) == 5).all() and len(set(sequence[clip])) == 1
            starts.append(int(clip[0]))
    assert sorted(starts) == [*range(30), *range(47, 62)]


def test_short_sequences_are_refused():
    with pytest.raises(ConfigError, match="choose a smaller spacing"):
        ClipSampler(np.arange(10))


@pytest.mark.slow
def test_a_hundred_thousand_images_are_planned_in_seconds(rng):
    n = 100_000
    along = np.linspace(0, 20_000, n)  # a drive of 20 km, there and back
    where = np.stack([np.minimum(along, 20_000 - along), 2.0 * (along > 10_000)], axis=1)
    heading = np.where(along > 10_000, 180.0, 0.0)
    xyzw = turned(np.radians(heading))
    start = time.perf_counter()
    neighbours = PoseNeighbours(where, PlaceRelation(10, 30, 25, None), xyzw)
    sampler = TripletSampler(neighbours)
    wanted = sampler.wanted()
    sampler.mine(wanted, rng.standard_normal((len(wanted), 64)))
    assert len(list(sampler)) == 250
    assert len(list(PlaceSampler(neighbours))) > 100
    assert time.perf_counter() - start < 120
