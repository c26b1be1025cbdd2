"""Every input that ever broke a reader is read again, with the inputs that fuzzing starts from."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings

from fuzz import table, targets

CORPUS = Path(__file__).parents[1] / "fuzz_corpus"
KEPT = sorted(path for path in CORPUS.glob("*/*") if path.is_file())
MOST_MB = 1024
SLOW = ("checkpoint_file", "map_index", "node_messages")  # they wait for torch, FAISS and ROS
WITH_STRATEGY = (
    "checkpoint_file", "config_files", "map_rows", "map_server", "pose_file", "raw_image", "serialized_image",
)  # fmt: skip


def _target(name: str) -> ModuleType:
    try:
        return targets.load(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed, which the target {name} needs")


def _within_limits(
    read: Callable[[bytes], None], data: bytes, allowed_s: float, most_mb: float = MOST_MB
) -> None:
    # The peak from here on, not of what other tests of this process ever had.
    Path("/proc/self/clear_refs").write_text("5")
    before_mb = _peak_mb()
    start = time.process_time()
    read(data)
    assert time.process_time() - start < allowed_s
    assert _peak_mb() < before_mb + most_mb


def _peak_mb() -> float:
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) / 1024


def test_the_corpus_belongs_to_targets() -> None:
    assert KEPT
    assert {path.parent.name for path in KEPT} <= set(targets.names())
    assert all(path.stat().st_size < 128 << 10 for path in KEPT), "keep the corpus small"


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_input_that_broke_a_reader_is_read_or_refused(path: Path) -> None:
    target = _target(path.parent.name)
    _within_limits(target.one_input, path.read_bytes(), target.ALLOWED_S)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in targets.names()
    ],
)
def test_the_inputs_that_fuzzing_starts_from_are_read_or_refused(name: str) -> None:
    target = _target(name)
    rng = np.random.default_rng(0)
    seeds = target.seeds()
    chosen = seeds if len(seeds) <= 40 else [seeds[i] for i in rng.choice(len(seeds), 40, False)]
    for data in chosen:
        assert len(data) <= target.MAX_LEN, "libFuzzer would cut the seed off"
        _within_limits(target.one_input, data, target.ALLOWED_S)
        cut = data[: rng.integers(len(data) + 1)]
        _within_limits(target.one_input, cut, target.ALLOWED_S)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_STRATEGY)
def test_well_formed_inputs_are_read_or_refused(name: str) -> None:
    target = _target(name)
    options = settings(max_examples=30, database=None, suppress_health_check=list(HealthCheck))
    seed(1)(options(given(target.strategy())(target.one_input)))()


@pytest.mark.slow
def test_a_reader_that_breaks_is_noticed() -> None:
    """The limits of this test can fail."""

    def slow(data: bytes) -> None:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    def large(data: bytes) -> None:
        np.ones(64 << 17).sum()  # 64 MiB

    with pytest.raises(AssertionError):
        _within_limits(slow, b"", 0.01)
    with pytest.raises(AssertionError):
        _within_limits(large, b"", 60.0, most_mb=1.0)


def test_the_document_has_the_table_of_the_results() -> None:
    import json

    pytest.importorskip("torch")
    root = Path(__file__).resolve().parents[2]
    rows = json.loads((root / "docs" / "fuzzing.json").read_text())
    assert table.render(rows) in (root / "docs" / "reliability.md").read_text()
    assert importlib.import_module("fuzz.__main__")
