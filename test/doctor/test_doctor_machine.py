"""`robot-vision doctor` without ROS: what it reads of the machine, and what it advises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from robot_vision.cli import main
from robot_vision.doctor import machine
from robot_vision.doctor.finding import ERROR, OK, WARNING, Finding
from robot_vision.doctor.machine import cpu_quota, machine_findings


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/robot.slice/nodes\n",
                "sys/fs/cgroup/robot.slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/robot.slice/nodes/cpu.max": "max 100000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({"sys/fs/cgroup/cpu.max": "nonsense"}, None),
    ],
)
def test_limits_of_a_container(files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    write(tmp_path, files)
    assert cpu_quota(tmp_path) == quota


def by_subject(root: Path) -> dict[str, Finding]:
    return {finding.subject: finding for finding in machine_findings(root)}


def test_a_small_container_is_warned_of(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "sys/fs/cgroup/cpu.max": "50000 100000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            "proc/meminfo": "MemTotal:  2097152 kB\nMemAvailable:  524288 kB\n",
        },
    )
    found = by_subject(tmp_path)
    assert found["cores"].level == WARNING and "threads:=1" in found["cores"].remedy
    assert "may use 0.5" in found["cores"].text
    assert found["memory"] == Finding(
        "memory", "0.5 of 2.0 GiB are available", WARNING, found["memory"].remedy
    )
    assert "performance" in found["CPU frequency"].remedy


def test_a_machine_that_says_nothing_is_fine(tmp_path: Path) -> None:
    found = by_subject(tmp_path)
    assert found["cores"].level == OK and "memory" not in found and "CPU frequency" not in found


def test_this_machine() -> None:
    found = by_subject(Path("/"))
    assert found["engines"].level == OK and "onnx (" in found["engines"].text
    assert found["cores"].text.startswith(str(len(os.sched_getaffinity(0))))


@pytest.mark.parametrize(("state", "level"), [(0, OK), (5, WARNING)])
def test_the_clock_is_what_the_kernel_says(
    state: int, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_clock_state", lambda: state)
    assert by_subject(Path("/"))["clock"].level == level


def test_a_cache_that_cannot_be_used_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert "XDG_CACHE_HOME" in by_subject(Path("/"))["cache"].remedy


def test_a_clock_that_a_container_hides_is_not_said_to_be_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forbidden = SimpleNamespace(adjtimex=lambda buffer: -1)
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: forbidden)
    assert not list(machine._clock())


def test_a_cache_below_a_folder_that_may_not_be_read_is_warned_of(tmp_path: Path) -> None:
    private = tmp_path / "private"
    (private / "cache").mkdir(parents=True)
    private.chmod(0)
    code = (
        "import os; from robot_vision.doctor.machine import _disk; "
        "os.getuid() or os.setuid(65534); print(*_disk())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XDG_CACHE_HOME": str(private / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).resolve().parents[2],
    )
    private.chmod(0o700)
    assert "cannot be written" in done.stdout, done.stderr


def test_errors_are_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "available_engines", dict)
    assert main(["doctor", "--seconds", "0"]) == 1
    assert "ERROR   engines: none is installed\n        -> pip install" in capsys.readouterr().out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--seconds", "0", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {"subject", "text", "level", "remedy"} == set(found[0])
    assert status == any(each["level"] == ERROR for each in found)


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "soon"])
def test_seconds_are_seconds(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--seconds", seconds])
    assert ended.value.code == 2
    assert re.search("invalid number value|must be from 0 to 3600", capsys.readouterr().err)


@pytest.mark.slow
def test_without_ros_it_says_what_works(tmp_path: Path) -> None:
    (tmp_path / "rclpy.py").write_text("raise ImportError('no ROS here')")
    done = subprocess.run(
        [sys.executable, "-m", "robot_vision.cli", "doctor"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).resolve().parents[2]}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "ROS 2: cannot be imported (no ROS here): evaluation, training" in done.stdout
