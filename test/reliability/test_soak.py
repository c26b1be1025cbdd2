"""What `make soak` makes of what it measures. `test_faults.py` and `test_map_faults.py` run its parts."""

import json
import sys
from xml.etree import ElementTree

import pytest

pytest.importorskip("psutil")

import soak
from fault_steady import grew, taken
from ros_helpers import ROOT
from soak import NAMES, PAGE, earlier, write
from soak_page import page


def samples(memory, files=20, threads=10):
    return [
        {"memory_mib": m, "files": files + (i == 11), "threads": threads, "cpu_percent": 5.0}
        for i, m in enumerate(memory)
    ]


def test_a_node_that_stays_as_it_is_did_not_grow():
    row = taken([{**s, "files": 20} for s in samples([100.0, 101.0] * 6)])
    assert grew(row) == [] and row["memory_growth_mib"] == 0


def test_a_leak_of_memory_or_files_is_named():
    leak = taken(samples([100.0 + i for i in range(12)]))
    assert leak["memory_growth_mib"] == 10
    assert grew(leak) == ["memory grew by 10.0 MiB", "files grew from 20 to 21"]


@pytest.fixture
def run():
    sample = {
        "minute": 1.0, "answers": 5, "p50_ms": 4.0, "p99_ms": 9.0, "load": 0.5,
        "nodes": {"perception": samples([100.0])[0]},
    }  # fmt: skip
    steady = {
        "rate_hz": 60, "rate_above": "no more was tried", "sent": 3600, "answered_percent": 99.9,
        "replaced_percent": 0.1, "p50_ms": [4.0] * 6, "p99_ms": [9.0] * 6, "load": 0.5,
        "nodes": {"perception": taken(samples([100.0] * 12))},
        "series": [sample, {**sample, "minute": 2.0}],
    }  # fmt: skip
    return {
        "date": "now", "command": "make soak",
        "machine": {"processor": "p", "cores": 2, "system": "s", "python": "3", "commit": "abc"},
        "rows": {
            "steady": {"seconds": 120, "lost": steady},
            "killed": {"seconds": 5, "lost": {}, "error": "it died"},
            "network_cut": {"seconds": 5, "skipped": "not root"},
        },
    }  # fmt: skip


def test_the_page_has_what_grew_what_failed_and_what_was_left_out(run, tmp_path):
    write(run, tmp_path)
    text = (tmp_path / f"{PAGE}.md").read_text()
    assert "| perception | 100.0 | 100.0 | 0.0 | 20, 21 |" in text
    assert "| NO | it died |" in text and "| left out | not root |" in text
    ElementTree.parse(tmp_path / "images" / "soak.svg")
    run["rows"]["steady"]["error"] = "perception: files grew from 20 to 21"
    assert "**Not flat: perception: files grew" in page(run)


def test_rows_are_kept_for_the_same_commit_alone(run, tmp_path):
    write(run, tmp_path)
    path = tmp_path / f"{PAGE}.json"
    assert set(earlier(path, "abc")) == {"steady", "killed", "network_cut"}
    assert earlier(path, "def") == {} and earlier(tmp_path / "absent.json", "abc") == {}


@pytest.mark.parametrize("commit", ["", "abc+changes"])
def test_rows_of_changed_files_are_not_kept(run, commit, tmp_path):
    run["machine"]["commit"] = commit
    write(run, tmp_path)
    assert earlier(tmp_path / f"{PAGE}.json", commit) == {}
    assert f"commit `{commit}`" in page(run)


@pytest.mark.parametrize("option", ["--minutes", "--fault-seconds"])
def test_a_time_of_nothing_is_refused_and_no_fault_that_was_not_survived(
    option, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["soak.py", option, "0", "--output", str(tmp_path)])
    monkeypatch.setattr(soak, "run", lambda *_: {})
    with pytest.raises(SystemExit):
        soak.main()
    assert "0 is not above 0" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_document_is_the_page_of_its_numbers():
    data = json.loads((ROOT / "docs" / f"{PAGE}.json").read_text())
    if data["schema"] != 2:
        pytest.skip("the numbers are those of an older suite: run make soak")
    assert set(data["rows"]) <= set(NAMES)
    assert (ROOT / "docs" / f"{PAGE}.md").read_text() == page(data)
