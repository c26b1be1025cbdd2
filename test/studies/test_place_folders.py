"""Place recognition on two folders: ranks and recalls counted one by one, and the command from end to end."""

import json

import cv2
import numpy as np
import pytest

from robot_vision.cli import main
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.studies.place_folders import RECALLS, look_up, score


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def sets(seed=0, queries=40, database=60):
    rng = np.random.default_rng(seed)
    asked, known = unit(rng.normal(size=(queries, 6))), unit(rng.normal(size=(database, 6)))
    right = [np.sort(rng.choice(database, rng.integers(0, 4), False)) for _ in range(queries)]
    return asked, known, right


def test_ranks_are_those_of_a_sorted_list():
    asked, known, right = sets()
    known[7] = known[3]  # equally similar: the first counts as more similar
    right[0] = np.array([7])
    found = look_up(asked, known, right)
    for i, row in enumerate(asked @ known.T):
        order = np.argsort(-row, kind="stable")
        places = [k for k, image in enumerate(order) if image in right[i]]
        assert found["match"][i] == order[0]
        assert found["rank"][i] == (places[0] if places else -1)
    assert found["positives"].tolist() == [len(r) for r in right]


def test_images_without_a_descriptor_are_not_found_and_queries_find_nothing():
    asked, known, right = sets()
    right[0] = np.array([5])
    right[1] = np.array([5, 6])
    known[5] = np.nan
    asked[2] = np.nan
    found = look_up(asked, known, right)
    assert 5 not in found["match"] and found["rank"][0] == -1 and found["rank"][1] >= 0
    assert found["match"][2] == found["rank"][2] == -1
    document = score(found, EvaluationSettings(resamples=50))
    assert document["without_descriptor"] == 1


def test_recalls_are_over_all_queries_and_over_those_that_have_an_answer():
    asked, known, right = sets()
    found = look_up(asked, known, right)
    document = score(found, EvaluationSettings(resamples=200))
    for k in RECALLS:
        firsts = np.argsort(-(asked @ known.T), axis=1)[:, :k]
        hits = [bool(set(first) & set(r)) for first, r in zip(firsts, right, strict=True)]
        with_answer = [hit for hit, r in zip(hits, right, strict=True) if len(r)]
        ours = document["of_all"][f"recall_at_{k}"]
        assert (
            ours["value"] == pytest.approx(np.mean(hits))
            and ours["low"] <= ours["value"] <= ours["high"]
        )
        assert document["of_answerable"][f"recall_at_{k}"]["value"] == pytest.approx(
            np.mean(with_answer)
        )
    # Average precision over thresholds, as it is defined.
    order = np.argsort(-found["similarity"])
    hit = (found["rank"] == 0)[order]
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    expected = (precision * hit).sum() / document["answerable"]
    assert document["average_precision"]["value"] == pytest.approx(expected)


@pytest.fixture
def route(tmp_path):
    """A texture driven along twice, the second time darker; the model's descriptors tell it apart."""
    rng = np.random.default_rng(1)
    wall = rng.integers(0, 256, (12, 200, 3), np.uint8)
    wall = cv2.resize(wall, (4000, 240), interpolation=cv2.INTER_CUBIC)
    for name, light in (("day", 1.0), ("dusk", 0.7)):
        (tmp_path / name).mkdir()
        for i in range(12):
            view = wall[:, 300 * i : 300 * i + 320]
            cv2.imwrite(
                str(tmp_path / name / f"@{300 * i}@0@32@T@.png"), (light * view).astype(np.uint8)
            )
    return tmp_path


def places(route, *more):
    """Returns a command on a route's folders."""
    folders = ["--database", str(route / "day"), "--queries", str(route / "dusk")]
    return ["evaluate", "places", *folders, "--output", str(route / "out"), *more]


@pytest.mark.slow
def test_command_prints_the_table_and_writes_every_query(route, capsys):
    arguments = places(route, "--model", "demo", "--engine", "onnx", "--threads", "1")
    assert main([*arguments, "--within", "10"]) == 0
    printed = capsys.readouterr().out
    document = json.loads((route / "out" / "places.json").read_text())
    hits = [row["query"].split("@")[1] == row["match"].split("@")[1] for row in document["rows"]]
    assert len(hits) == 12 and document["answerable"] == 12 and np.mean(hits) > 0.7
    assert document["of_all"]["recall_at_1"]["value"] == pytest.approx(np.mean(hits))
    assert f"R@1: {100 * np.mean(hits):.1f}, R@5: " in printed and "at most 10 m away" in printed
    # Along the route by numbers: the same images, so that the same answers are right.
    assert main([*arguments, "--tolerance", "0", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["of_all"] == document["of_all"]


def test_what_hloc_retrieved_is_scored_as_our_own_ranks_are(route, capsys):
    asked = [f"dusk/@{300 * i}@0@32@T@.png" for i in range(12)]
    shifts = [0] * 6 + [1] * 3 + [None] * 2 + [5]  # how far down the right image is listed
    lines = ["# hloc"]
    for i, (query, shift) in enumerate(zip(asked, shifts, strict=True)):
        others = [(i + k) % 12 for k in (3, 4, 5, 6, 7)]
        order = others if shift is None else [*others[:shift], i, *others[shift:]]
        lines += [f"{query} day/@{300 * k}@0@32@T@.png" for k in order if i != 10]
    lines.append(lines[1])
    file = route / "pairs.txt"
    file.write_text("\n".join(lines))
    arguments = places(route, "--pairs", str(file), "--within", "10")
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "R@1: 50.0, R@5: 75.0, R@10: 83.3, R@20: 83.3" in said.out
    assert (
        "1 pair left out that an earlier line has" in said.err
        and "1 of 12 queries are in no pair" in said.err
        and "11 of 12 queries have fewer" in said.err
    )
    document = json.loads((route / "out" / "places.json").read_text())
    assert [row["rank"] for row in document["rows"]] == [0] * 6 + [1] * 3 + [None] * 2 + [5]
    assert document["pairs"] == str(file) and "average_precision" not in document
    for wrong, word in (
        (f"{asked[0]} day/x.png", "day/x.png is no image of the database"),
        (asked[0], "a pair is 'QUERY IMAGE'"),
    ):
        file.write_text(f"\n{wrong}\n")
        assert main(arguments) == 2
        assert f"pairs.txt:2: {word}" in capsys.readouterr().err
    assert main([*arguments, "--model", "demo"]) == 2
    assert main([*arguments, "--engine", "onnx", "--no-cache"]) == 2
    assert "--engine, --no-cache has no effect with --pairs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["places", "--database", "a"], "places needs --database DIR, --queries DIR and --model"),
        (["--tolerance", "3"], "--tolerance belongs to folders: robot-vision evaluate places"),
        (["--within", "25"], "--within belongs to folders: robot-vision evaluate places"),
        (["places", "--bag", "x"], "--bag does not go with places"),
        (["places", "--labels", "x"], "--labels does not go with places"),
        (
            ["places", "--place-radius", "9"],
            "--place-radius does not go with places: a right image",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(more, said, capsys):
    assert main(["evaluate", *more]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error
