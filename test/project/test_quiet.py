"""How the benchmark tells a quiet machine from a disturbed one, and two commits' figures apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("psutil")

from ros_helpers import ROOT, wait_until

from benchmarks import check, quiet
from benchmarks.quiet import OTHERS, REPEATS, Product, Watch

BUSY = "import time\nend = time.time() + 90\nwhile time.time() < end: pass"
SECOND = BUSY.replace("90", "1")


@pytest.mark.slow
@pytest.mark.parametrize("is_child", [True, False])
def test_what_a_child_uses_is_ours_and_what_another_process_uses_is_not(is_child):
    # The shell ends at once, so that its child is none of ours.
    shell = ["sh", "-c", f'"{sys.executable}" -c "$0" & echo $!', BUSY]
    command = [sys.executable, "-c", BUSY] if is_child else shell
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watched = quiet.psutil.Process(process.pid if is_child else int(process.stdout.readline()))
    try:
        start, before = quiet._used(), sum(watched.cpu_times()[:2])
        wait_until(lambda: sum(watched.cpu_times()[:2]) > before + 0.5, 60)
        end = quiet._used()
    finally:
        watched.kill()
        process.wait()
    assert end.busy - start.busy > 0.4
    ours = end.ours - start.ours
    assert ours > 0.4 if is_child else ours < 0.2


@pytest.mark.slow
def test_the_processor_time_of_a_child_that_ended_is_ours():
    start = quiet._used()
    subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True)
    assert quiet._used().ours - start.ours > 0.1


class Machine(Watch):
    """A watch on a machine whose readings are given: others' shares, and a product's seconds, in turns."""

    def __init__(self, monkeypatch, others, seconds=(1.0,), **settings):
        super().__init__(**settings)
        self.seconds = [*seconds]
        shares = iter(others)
        monkeypatch.setattr(quiet, "_shares", lambda *_: (next(shares), 0.0))

    def _probe(self, fresh=False):
        taken = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        self._products.append(Product(taken, 1.0, 0.0))
        return self._products[-1]


def numbers():
    return iter(range(100)).__next__


def test_a_disturbed_trial_is_dropped_and_repeated(monkeypatch):
    watch = Machine(monkeypatch, [0.5, OTHERS * 2, 0.0, 0.0])
    count = numbers()
    assert [watch.trial(count), watch.trial(count)] == [2, 3]
    assert watch.repeated == 2
    assert (watch.found()["trials"], watch.found()["disturbed"]) == (2, 0)


def test_a_trial_that_stays_disturbed_counts_as_such(monkeypatch):
    watch = Machine(monkeypatch, [0.5] * 10)
    assert watch.trial(numbers()) == REPEATS
    found = watch.found()
    assert found["disturbed"] == 1 and watch.repeated == REPEATS
    assert found["reasons"] == ["other processes used 50 % of the cores"]


def test_repeats_end_when_their_time_is_up(monkeypatch):
    watch = Machine(monkeypatch, [0.5] * 10, repeats_s=0.0)
    watch.trial(lambda: time.sleep(0.01))
    count = numbers()
    assert watch.trial(count) == 0 and watch.repeated == 1


def test_a_slow_product_is_judged_by_the_best_of_the_run(monkeypatch):
    watch = Machine(monkeypatch, [0.0] * 20, seconds=[2.0, 2.0, 1.0, 1.0])
    watch.trial(lambda: None)
    assert watch.found()["disturbed"] == 0  # nothing better is known yet
    watch.trial(lambda: None)
    assert [watch.found(0, 1)["disturbed"], watch.found(1, 2)["disturbed"]] == [1, 0]
    assert watch.found()["reasons"] == ["a matrix product took 2.0 times its best"]


@pytest.mark.slow
def test_the_product_is_measured():
    watch = Watch(repeats_s=0.0)
    watch.trial(lambda: None)
    (trial,) = watch.trials
    floor = 2 * quiet._MATRIX**3 / 1e14  # no machine of today does 100 TFLOP/s in float32
    assert floor < trial.before.seconds < 5 and 0 < trial.before.share


@pytest.mark.slow
def test_a_product_is_timed_after_what_the_trial_left_behind():
    """A process of ours that is still busy for a second would get half of the product's time."""
    watch = Watch(repeats_s=0.0)
    left: list[subprocess.Popen] = []
    watch.trial(lambda: left.append(subprocess.Popen([sys.executable, "-c", SECOND])))
    assert left[0].poll() is not None or watch.trials[0].after.at - watch.trials[0].before.at >= (
        quiet._SETTLE_S
    )
    left[0].wait()


def test_intervals_hold_the_median_as_often_as_they_say():
    rng = np.random.default_rng(3)
    for count in (6, 9, 12, 15):
        hits = 0
        for _ in range(4000):
            low, high = check.interval(rng.lognormal(0.0, 0.1, count))
            hits += low <= 1.0 <= high
        assert hits / 4000 > 0.94
    assert check.interval([1.0] * 5) == (0.0, float("inf"))


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ([0.90, 0.91, 0.92, 0.93, 0.94, 0.95], "SLOWER"),
        ([0.99, 0.99, 1.0, 1.0, 1.0, 1.01], "no slower"),
        ([0.90, 0.95, 1.0, 1.0, 1.05, 1.1], "undecided"),
        ([0.5, 0.5], "undecided"),
    ],
)
def test_only_what_is_surely_beyond_the_noise_is_slower(ratios, said):
    assert check.verdict(ratios, 0.02) == said


def test_of_a_rate_more_is_faster_and_of_a_time_less():
    figures = {"node, Hz": [(10.0, 20.0)] * 6, "pipeline, ms": [(10.0, 20.0)] * 6}
    said = {row[0]: (row[3], row[-1]) for row in check.rows(figures, 0.02)}
    assert said == {"node, Hz": ("2.000", "no slower"), "pipeline, ms": ("0.500", "SLOWER")}


def test_a_faster_engine_is_no_loss_of_the_pipeline():
    (row,) = check.rows({check.SHARE: [(1.1, 1.5)] * 6}, 0.02)
    assert row[-1] == ""


def test_trees_are_measured_there_and_back_in_pairs(monkeypatch):
    monkeypatch.setattr(check, "WATCH", Machine(monkeypatch, [0.0] * 2))
    sides = [check.Side(name, ROOT, 1) for name in ("base", "this")]
    asked = []

    def measure(side):
        asked.append(side.name)
        return {"figure": float(len(asked))}

    pairs = check.in_turns(sides, 2, measure)["figure"]
    assert asked == ["base", "this", "this", "base"]
    assert pairs == [(1.0, 2.0), (4.0, 3.0)]


@pytest.mark.slow
def test_a_commit_is_put_into_the_build_folder_and_is_what_runs():
    done = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip("this tree is not a repository of git")
    root = check.checked_out(done.stdout.strip())
    side = check.Side("base", root, 1)
    code = "import robot_vision; print(robot_vision.__file__)"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=root, env=side.environment, capture_output=True, text=True)
    assert run.stdout.strip() == str(root / "robot_vision" / "__init__.py")
    assert (root / "models" / "demo" / "bundle.yaml").is_file()


def test_a_commit_that_is_not_there_is_named(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["check", "no-such-commit"])
    assert check.main() == 2
    assert capsys.readouterr().err == "error: BASE=no-such-commit is no commit here\n"


INTERRUPTED = """
import sys, time
from benchmarks import interrupts
interrupts.end_quietly()
from benchmarks import peers
try:
    with peers.running([sys.executable, "-c", "import time; print('child', flush=True); time.sleep(60)"]):
        time.sleep(60)
finally:
    peers.end_all()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_in_a_line_and_leaves_no_process(number):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "child\n"
    children = quiet.psutil.Process(process.pid).children()
    process.send_signal(number)
    assert process.wait(30) == 130 or process.returncode == -signal.SIGINT
    assert process.stderr.read() == "interrupted\n"
    assert len(children) == 1
    wait_until(lambda: not children[0].is_running(), 5)


@pytest.mark.slow
def test_what_a_benchmark_has_started_ends_with_it_when_it_is_killed():
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "child\n"
    (child,) = quiet.psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    wait_until(lambda: not child.is_running(), 10)


@pytest.mark.slow
@pytest.mark.ros
def test_ctrl_c_at_the_terminal_ends_the_benchmark_of_a_node_without_a_traceback(tmp_path):
    """The whole group gets the signal, as from a terminal, while camera and listener are at work."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.check",
        "HEAD",
        "--only",
        "start_up",
        "--turns",
        "9",
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    watched = quiet.psutil.Process(process.pid)
    wait_until(lambda: len(watched.children()) >= 3, 60)
    children = watched.children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors + output and errors.splitlines()[-1] == "interrupted"
    assert not [child for child in children if child.is_running()]
