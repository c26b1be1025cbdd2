"""What make sets up, leaves alone and says. Nothing is installed: that is seen wherever the tests run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", "-C", str(ROOT), "--no-print-directory", f"PYTHON={sys.executable}"]
    command += arguments
    return subprocess.run(
        command, capture_output=True, text=True, env=clean | environment, timeout=60
    )


def test_make_help_lists_every_target():
    done = _make("help")

    assert done.returncode == 0, done.stderr
    for target in ("demo", "drive", "test", "test-fast", "test-core", "bench", "lint", "clean"):
        assert re.search(rf"^  {target} +\w", done.stdout, re.M), target


@pytest.mark.slow
def test_demo_installs_no_torch_and_test_does(tmp_path):
    fresh = f"VENV={tmp_path / 'env'}"

    demo, test = _make("-n", "demo", fresh).stdout, _make("-n", "test", fresh).stdout
    drive = _make("-n", "drive", fresh).stdout
    assert "bin/robot-vision drive live" in drive and "[openvino" not in drive
    assert "bin/robot-vision demo" in demo and "ros_env/build.py" in demo
    assert "[openvino" not in demo
    assert "[openvino,timm,places,parquet,ray,dev]" in test


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ROS_DISTRO=humpty"], "jazzy kilted"),
        (["PYTHON=/no/such/python"], "Install Python 3.10 or newer"),
    ],
)
def test_make_refuses_in_one_line_what_it_cannot_use(arguments, told, tmp_path):
    done = _make("demo", f"VENV={tmp_path / 'env'}", *arguments, AMENT_PREFIX_PATH="")

    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
    assert len(errors) == 1 and errors[0].startswith("error: ") and told in errors[0]
    assert not (tmp_path / "env").exists()


@pytest.mark.slow
def test_make_names_the_package_where_python_has_no_venv(tmp_path):
    (tmp_path / "ensurepip.py").write_text("raise ImportError('left out, as Debian does')")

    done = _make("demo", f"VENV={tmp_path / 'env'}", PYTHONPATH=str(tmp_path), AMENT_PREFIX_PATH="",
                 ROS_DISTRO="kilted")  # fmt: skip

    assert done.returncode != 0
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    (error,) = [x for x in done.stderr.splitlines() if not re.match(r"make(\[1\])?:", x)]
    assert f"apt install python{version}-venv" in error
    assert not (tmp_path / "env").exists()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["demo", "clean"])
def test_make_leaves_an_environment_alone_that_it_did_not_make(target, tmp_path):
    mine = tmp_path / "env" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("dear")

    done = _make(target, f"VENV={mine.parent}")

    assert done.returncode != 0 and "was not made by make" in done.stderr
    assert mine.read_text() == "dear"


@pytest.fixture
def made(tmp_path):
    """Returns a function that runs make on a copy, whose environment's Python does nothing."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("Makefile", "setup.py", "setup.cfg"):
        shutil.copy(ROOT / name, copy)
    for name in ("constraints", "tools"):
        shutil.copytree(ROOT / name, copy / name)
    program = copy / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    stamps = copy / ".venv" / ".stamps"
    stamps.mkdir()
    (stamps / f"venv-py{version}-kilted").touch()

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        words = ("-C", str(copy), "ROS_DISTRO=kilted", *arguments)
        return _make(*words, **{"AMENT_PREFIX_PATH": "", **environment})

    return run, copy


@pytest.mark.slow
def test_make_repeats_a_step_whose_edit_was_taken_back(made):
    run, copy = made
    first = (copy / "setup.py").read_text()

    assert run("setup").returncode == 0
    assert "==>" not in run("setup").stdout
    (copy / "setup.py").write_text(first + "\n# another requirement\n")
    assert "==> torch" in run("setup").stdout
    (copy / "setup.py").write_text(first)
    assert "==> torch" in run("setup").stdout
    assert "==>" not in run("setup").stdout


@pytest.mark.slow
def test_two_makes_at_once_make_the_environment_once(made):
    run, copy = made
    (copy / ".venv/bin/python").write_text('#!/bin/sh\n/bin/sleep 0.2\necho "$@" >> "$0.log"\n')
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(run, ("setup", "setup")))

    assert [done.returncode for done in both] == [0, 0]
    assert sorted("waiting for it" in done.stdout for done in both) == [False, True]
    assert "==> torch" in both["waiting for it" in both[0].stdout].stdout
    lines = (copy / ".venv/bin/python.log").read_text().splitlines()
    assert sum("[openvino,timm" in line for line in lines) == 1


@pytest.mark.parametrize("target", ["clean", "setup"])
@pytest.mark.slow
def test_make_takes_no_half_removed_environment_for_whole(target, made, tmp_path):
    run, _ = made
    assert run("setup").returncode == 0 and "-m venv" not in run("-n", "setup").stdout
    rm = tmp_path / "bin" / "rm"
    rm.parent.mkdir()
    rm.write_text(  # Ctrl-C while it removes
        '#!/bin/sh\nif [ -d "$2/bin" ]; then /bin/rm -r "$2/bin"; exit 130; fi\nexec /bin/rm "$@"\n'
    )
    rm.chmod(0o755)

    path = f"{rm.parent}{os.pathsep}{os.environ['PATH']}"
    other = ["ROS_DISTRO=jazzy"] if target == "setup" else []
    assert run(target, *other, PATH=path).returncode != 0

    assert "-m venv" in run("-n", "setup").stdout


@pytest.mark.parametrize("venv", ["my env", ""])
def test_make_refuses_names_that_it_would_divide(venv):
    done = _make("clean", f"VENV={venv}")

    assert done.returncode != 0 and "neither name may have a space" in done.stderr
    assert len(done.stderr.splitlines()) == 1
