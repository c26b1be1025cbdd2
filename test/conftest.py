"""Fixtures and rules that all tests share."""

from __future__ import annotations

import fcntl
import gc
import importlib.util
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import IO, Any

import hypothesis
import pytest

from robot_vision.ros.node.dds import use_large_image_profile

# How fast this machine is at the moment is no property of the code.
hypothesis.settings.register_profile(
    "any_machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any_machine")
pytest.register_assert_rewrite("robot_vision.contract.check")  # tests that other packages run too

ROOT = Path(__file__).resolve().parents[1]

# ROS domains that tests may claim. Above 101 the ports of a domain run into those that Linux hands
# out to outgoing connections; the low ones are what people use by hand.
_DOMAINS = range(52, 101)
_claimed: list[IO[str]] = []  # A claim lasts as long as its file stays open.

_LONGEST = (
    "test_demo",
    "test_faults",
    "test_outbound",
    "test_repeat_loop",
    "test_train",
    "test_tutorials",
    "test_view_in_browser",
    "test_viewer_node",
)

# Of the extras train and dev. rosdep installs what the nodes need, and colcon test runs with that.
_NOT_ON_A_ROBOT = ("onnx", "psycopg", "sklearn", "torch")


def _claim_ros_domain() -> IO[str]:
    """Claim a ROS domain that no other test on this machine has, until the file is closed.

    Two test runs at once, or two workers of one, would otherwise hear each other's topics.

    Returns:
        The file that holds the claim. Its name is the number of the domain.
    """
    folder = Path(tempfile.gettempdir()) / f"robot_vision_test_domains_{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for domain in _DOMAINS:
        lock = (folder / str(domain)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return lock
    raise pytest.UsageError(f"all ROS domains from {_DOMAINS[0]} to {_DOMAINS[-1]} are in use")


def _hide(*packages: str) -> None:
    """Let this process import as if these were not installed (`make test-core`)."""
    found = PathFinder.find_spec

    def find(name: str, path: Any = None, target: Any = None) -> Any:
        return None if name in packages else found(name, path, target)

    if packages:
        PathFinder.find_spec = find  # type: ignore[method-assign]


def pytest_configure(config: pytest.Config) -> None:
    """Give this process a ROS domain of its own, on this machine only, and let Ctrl-C reach it."""
    # A shell starts background jobs with SIGINT ignored, and children inherit that: the tests that
    # interrupt a process would wait for its end in vain.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # by nohup, and nodes heed that
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    _hide(*os.environ.get("TEST_WITHOUT", "").split())
    starts_workers = bool(getattr(config.option, "numprocesses", None))
    # Workers share the cores already: threads of theirs, and of processes that they start, would only wait
    # for each other. A process alone sums in the same order.
    for name in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        os.environ.setdefault(name, "1")
    if starts_workers and not hasattr(config, "workerinput"):
        return
    _claimed.append(_claim_ros_domain())
    os.environ["ROS_DOMAIN_ID"] = Path(_claimed[0].name).name
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if os.environ.get("ROS_DISTRO") == "humble":  # which does not know that variable yet
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
    # Fast DDS reads its profile at the first context of a process, whichever test makes that.
    use_large_image_profile()


def pytest_collection() -> None:
    """Look for no garbage while all tests and what they import are loaded."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what is loaded out of each later look for garbage: it stays, and is a million objects."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let what was loaded be freed: some libraries complain at the end about what is not."""
    gc.unfreeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seed the global generators, which tests, and the libraries that they compare with, draw from."""
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A ROS domain of this test alone, for those that look at all nodes: others' linger in theirs."""
    with _claim_ros_domain() as claim:
        monkeypatch.setenv("ROS_DOMAIN_ID", Path(claim.name).name)
        yield


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which ROS domain to look at from another terminal."""
    if "ROS_DOMAIN_ID" in os.environ and not getattr(config.option, "numprocesses", None):
        return f"ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}, this machine only"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that start nodes where there is no ROS, and run the longest modules first."""
    # A worker that came to one of them last would keep the others waiting.
    items.sort(key=lambda item: item.path.stem not in _LONGEST)
    if importlib.util.find_spec("rclpy") is not None:
        return
    skip = pytest.mark.skip(reason="rclpy is not installed: run make test, or source a ROS 2")
    for item in items:
        if item.get_closest_marker("ros"):
            item.add_marker(skip)


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Skip the files that need what a robot does not have; `make test` installs all of it."""
    outcome: Any = yield
    report = outcome.get_result()
    # The packages themselves: where torch is there and torch.x is not, a test has to fail.
    missing = re.search(rf"No module named '({'|'.join(_NOT_ON_A_ROBOT)})'", str(report.longrepr))
    if report.failed and missing:
        report.outcome = "skipped"
        report.longrepr = (collector.nodeid, 0, f"Skipped: {missing[1]} is not installed")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real recordings; skip the test where there is none."""
    folder = Path(os.environ.get("ROBOT_VISION_DATA") or ROOT / ".." / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}: set ROBOT_VISION_DATA to their folder")
    return folder
