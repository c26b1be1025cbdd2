"""What pip, colcon, rosdep and make are told about the package agrees with the package."""

from __future__ import annotations

import ast
import functools
import itertools
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import setuptools

import robot_vision

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "robot_vision"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
DISTROS = ("kilted", "jazzy")

# The module's name where it is not the distribution's.
DISTRIBUTION_OF = {"cv2": "opencv-python-headless", "yaml": "pyyaml", "sklearn": "scikit-learn"}
DISTRIBUTION_OF |= {"faiss": "faiss-cpu", "backports": "backports.zstd", "rerun": "rerun-sdk"}

# Packages of ROS that robot_vision may import, as package.xml has to name them.
ROS_PACKAGES = {
    "action_msgs",
    "ament_index_python",
    "bond",
    "builtin_interfaces",
    "cv_bridge",
    "diagnostic_msgs",
    "geometry_msgs",
    "launch",
    "launch_ros",
    "lifecycle_msgs",
    "nav_msgs",
    "rcl_interfaces",
    "rclpy",
    "rosgraph_msgs",
    "sensor_msgs",
    "std_msgs",
    "std_srvs",
    "tf2_msgs",
    "tf2_ros",
    "vision_msgs",
    "visualization_msgs",
}

# Packages of ROS that are run, not imported.
ROS_TOOLS = {"ros2bag", "rosbag2_storage_mcap"}

# Keys that rosdep resolves on Ubuntu 22.04 and 24.04, as its list of 2026-08-22 says. For a new one:
#   rosdep resolve KEY --os=ubuntu:noble
ROSDEP_KEYS = {
    "python3-hypothesis",
    "python3-numpy",
    "python3-onnxruntime-pip",
    "python3-opencv",
    "python3-psutil",
    "python3-pytest",
    "python3-pytest-timeout",
    "python3-rich",
    "python3-rosbags-pip",
    "python3-scipy",
    "python3-yaml",
}


@functools.cache
def _setup_arguments() -> dict[str, Any]:
    """Return what setup.py hands to setuptools.

    Not the installed metadata: those of an older build may lie in the source tree.
    """
    given: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
        patch.chdir(ROOT)
        runpy.run_path(str(ROOT / "setup.py"))
    return given


def _requirements() -> dict[str, list[Any]]:
    """Return the parsed requirements by extra; the core's under ""."""
    requirement = pytest.importorskip("packaging.requirements").Requirement
    texts = {"": _setup_arguments()["install_requires"], **_setup_arguments()["extras_require"]}
    return {extra: [requirement(text) for text in listed] for extra, listed in texts.items()}


def _names(requirements) -> set[str]:
    return {requirement.name.lower() for requirement in requirements}


def _imports(folder: Path) -> dict[str, set[str]]:
    """Return the top-level modules imported anywhere below a folder, and by which files."""
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                found.setdefault(name.split(".")[0], set()).add(str(path.relative_to(ROOT)))
    return found


def _package_xml():
    return pytest.importorskip("catkin_pkg.package").parse_package(str(ROOT / "package.xml"))


@pytest.fixture(scope="module")
def source_copy(tmp_path_factory) -> Path:
    """Return a copy of what a clone would hold, so that builds leave nothing in the sources."""
    copy = tmp_path_factory.mktemp("packaging") / "robot_vision"
    # Not `.hypothesis` and other hidden folders, where tests in other processes make and remove files.
    skip = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "build", "install", "log", "out", "runs"
    )
    shutil.copytree(ROOT, copy, ignore=skip)
    return copy


@pytest.fixture(scope="module")
def wheel(source_copy) -> Path:
    """Return the package's wheel, with files added that the globs have to find."""
    for name in ("launch/extra.launch.py", "config/deep/er/extra.yaml", "models/b/labels.txt"):
        path = source_copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (source_copy / "models" / "__pycache__").mkdir(exist_ok=True)
    (source_copy / "models" / "__pycache__" / "x.pyc").write_text("")
    folder = source_copy.parent / "wheels"
    command = [sys.executable, "-m", "pip", "-q", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(folder), str(source_copy)], check=True, timeout=120)
    (path,) = folder.iterdir()
    return path


def test_version_is_the_same_everywhere():
    assert _package_xml().version == robot_vision.__version__
    assert _setup_arguments()["version"] == robot_vision.__version__


def test_package_xml_follows_the_format_of_ros_packages():
    package = _package_xml()

    package.validate()
    assert package.package_format == 3
    assert package.name == "robot_vision"
    assert package.get_build_type() == "ament_python"
    assert package.licenses == ["Apache-2.0"]
    assert (ROOT / "resource" / package.name).is_file()


@pytest.mark.slow
def test_package_xml_names_the_ros_packages_that_are_imported():
    package = _package_xml()
    named = {d.name for d in [*package.exec_depends, *package.build_export_depends]}

    imported = _imports(SOURCE)
    missing = {n: imported[n] for n in ROS_PACKAGES & imported.keys() if n not in named}
    assert not missing
    assert {d for d in named if d in ROS_PACKAGES} >= {"rclpy", "sensor_msgs", "vision_msgs"}


def test_package_xml_names_what_rosdep_knows():
    package = _package_xml()
    names = {
        d.name
        for kind in ("build", "buildtool", "build_export", "exec", "test", "doc")
        for d in getattr(package, f"{kind}_depends")
    }

    assert names - ROS_PACKAGES - ROS_TOOLS == ROSDEP_KEYS


def test_package_xml_names_all_that_the_core_needs():
    """What pip installs with the package is there after rosdep too, by the name that rosdep has for it."""
    key = {"opencv-python-headless": "python3-opencv", "pyyaml": "python3-yaml"}
    key |= {name: f"python3-{name}-pip" for name in ("onnxruntime", "rosbags")}
    named = {d.name for d in _package_xml().exec_depends}

    assert {key.get(name, f"python3-{name}") for name in _names(_requirements()[""])} <= named


@pytest.mark.slow
def test_setup_names_the_packages_that_are_imported():
    requirement = pytest.importorskip("packaging.requirements").Requirement
    # What rosbags cannot do without (the compressions of bags) comes with it.
    of_rosbags = map(requirement, distribution("rosbags").requires or [])
    requirements = _names([*of_rosbags, *itertools.chain(*_requirements().values())])
    imported = _imports(SOURCE)
    # compression is of the standard library since Python 3.14; _typeshed exists for type checkers only.
    known = ROS_PACKAGES | set(sys.stdlib_module_names)
    known |= {"robot_vision", "compression", "_typeshed"}

    missing = {
        name: files
        for name, files in imported.items()
        if name not in known
        and DISTRIBUTION_OF.get(name, name.replace("_", "-")) not in requirements
    }
    assert not missing


def test_core_stays_small():
    assert _names(_requirements()[""]) == {
        "numpy",
        "onnxruntime",
        "opencv-python-headless",
        "pyyaml",
        "rich",
        "rosbags",
    }


def test_extras_are_those_that_are_documented():
    assert set(_requirements()) == {
        "",
        "gpu",
        "openvino",
        "train",
        "timm",
        "optimise",
        "places",
        "xfeat",
        "fleet",
        "fuzz",
        "ray",
        "parquet",
        "view",
        "wandb",
        "completion",
        "hub",
        "docs",
        "dev",
        "test",
    }


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_pin_all_requirements_within_their_bounds(python):
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints" / f"py{python}.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )

    for extra, requirements in _requirements().items():
        if extra in ("gpu", "xfeat"):
            continue  # make installs no GPU build, and no weights of XFeat
        for wanted in requirements:
            assert wanted.specifier.contains(pins[wanted.name.lower()]), wanted


@pytest.mark.parametrize("distro", DISTROS)
def test_constraints_pin_all_ros_wheels(distro):
    folder = ROOT / "constraints"
    wanted = re.findall(r"^(ros-\S+)", (folder / f"ros-{distro}.in").read_text(), re.M)
    pinned = set(re.findall(r"^(ros-[^=]+)==", (folder / f"ros-{distro}.txt").read_text(), re.M))

    assert f"ros-{distro}-rclpy" in wanted
    assert set(wanted) <= pinned


@pytest.mark.slow
def test_wheel_holds_the_package_and_its_shared_files(wheel):
    names = zipfile.ZipFile(wheel).namelist()

    data = f"robot_vision-{robot_vision.__version__}.data/data/share"
    for name in (
        "ament_index/resource_index/packages/robot_vision",
        "robot_vision/package.xml",
        "robot_vision/launch/extra.launch.py",
        "robot_vision/config/deep/er/extra.yaml",
        "robot_vision/models/b/labels.txt",
    ):
        assert f"{data}/{name}" in names
    modules = {str(p.relative_to(ROOT)) for p in SOURCE.rglob("*.py")}
    assert modules <= set(names), "a folder of the package has no __init__.py"
    assert "robot_vision/py.typed" in names
    assert not [n for n in names if n.split("/")[0] in ("test", "benchmarks", "tools")]
    assert not [n for n in names if n.endswith(".pyc")]


@pytest.mark.slow
def test_wheel_holds_the_demo_once_and_its_licence(wheel):
    archive = zipfile.ZipFile(wheel)
    models = [i for i in archive.infolist() if "/models/demo/" in i.filename]

    large = {Path(i.filename).name for i in models if i.file_size > 2**20}
    assert large == {"model.onnx", "model.int8-vnni.onnx"}
    assert wheel.stat().st_size < 16 * 2**20
    licences = [n for n in archive.namelist() if n.endswith("LICENSE") and ".dist-info/" in n]
    assert len(licences) == 1
    assert archive.read(licences[0]) == (ROOT / "LICENSE").read_bytes()
    (metadata,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
    text = archive.read(metadata).decode()
    for python in PYTHONS:
        assert f"Classifier: Programming Language :: Python :: {python}\n" in text
    assert "\nLicense-File: LICENSE\n" in text


@pytest.mark.slow
def test_the_demo_without_its_weights_runs_and_says_what_it_lacks(wheel, tmp_path, capsys):
    import numpy as np

    from robot_vision import Pipeline
    from robot_vision.cli import main
    from robot_vision.errors import EngineError

    prefix = f"robot_vision-{robot_vision.__version__}.data/data/share/robot_vision/models/demo/"
    archive = zipfile.ZipFile(wheel)
    bundle = tmp_path / "demo"
    bundle.mkdir()
    for name in archive.namelist():
        if name.startswith(prefix):
            (bundle / name[len(prefix) :]).write_bytes(archive.read(name))

    with Pipeline.load(bundle, engine="onnx") as pipeline:
        assert pipeline(np.zeros((48, 64, 3), np.uint8))["classifier"].top_k(1)
    assert main(["info", str(bundle)]) == 0
    assert "weights.safetensors is not here" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(EngineError, match="no weights.safetensors"):
        Pipeline.load(bundle, engine="torch")


@pytest.fixture(scope="module")
def sdist(source_copy, wheel) -> Path:
    """Return the source archive, made as `python -m build` makes it: by setuptools' own hook."""
    folder = source_copy.parent / "sdist"
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=source_copy,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (path,) = folder.iterdir()
    return path


@pytest.mark.slow
def test_source_archive_holds_what_builds_the_same_wheel(sdist, wheel, tmp_path):
    archive = tarfile.open(sdist)
    tops = {"/".join(n.split("/")[1:2]) for n in archive.getnames()}
    assert not tops & {"docs", "test", "benchmarks", "fuzz", "tools", "constraints"}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "package.xml", "setup.py"} <= tops
    assert sdist.stat().st_size < 16 * 2**20

    archive.extractall(tmp_path)
    (source,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "pip", "-q", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path / "w"), str(source)], check=True, timeout=120)
    (again,) = (tmp_path / "w").iterdir()
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
def test_installed_wheel_has_commands_and_index_entry(wheel, tmp_path):
    prefix = tmp_path / "env"
    venv.create(prefix, with_pip=False, symlinks=True)
    python = prefix / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "-q", "install", "--no-deps"]
    # Where colcon's installation is sourced, pip would find the package there and leave it at that.
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*command, str(wheel)], check=True, timeout=120, env=bare)

    for name in ("robot-vision", "perception_node", "camera_player"):
        assert os.access(prefix / "bin" / name, os.X_OK), name
    assert (prefix / "share/ament_index/resource_index/packages/robot_vision").is_file()
    assert (prefix / "share/robot_vision/launch/extra.launch.py").is_file()


@pytest.mark.slow
def test_colcon_builds_what_ros2_run_and_launch_look_for(source_copy, tmp_path):
    colcon = Path(sys.prefix) / "bin" / "colcon"
    program = str(colcon) if colcon.is_file() else shutil.which("colcon")
    if program is None:
        pytest.skip("colcon is not installed: pip install colcon-common-extensions")
    command = [program, "--log-base", str(tmp_path / "log"), "build"]
    command += ["--base-paths", str(source_copy), "--packages-select", "robot_vision"]
    command += [
        "--build-base",
        str(tmp_path / "build"),
        "--install-base",
        str(tmp_path / "install"),
    ]

    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=200)

    assert done.returncode == 0, done.stdout + done.stderr
    prefix = tmp_path / "install" / "robot_vision"
    for name in ("robot-vision", "perception_node", "camera_player"):
        executable = prefix / "lib" / "robot_vision" / name
        assert os.access(executable, os.X_OK), name
        # Not colcon's own Python: apt's colcon runs outside of the user's virtual environment.
        assert executable.read_text().splitlines()[0] == "#!/usr/bin/env python3"
    assert (prefix / "share/ament_index/resource_index/packages/robot_vision").is_file()
    assert (prefix / "share/robot_vision/package.xml").is_file()
    for top in ("launch", "config", "models"):
        for path in (source_copy / top).rglob("*"):
            # Weights to train on stay in the sources: the graph has the same numbers.
            kept = path.name[0] != "." and path.name != "weights.safetensors"
            if path.is_file() and "__pycache__" not in path.parts and kept:
                assert (prefix / "share/robot_vision" / path.relative_to(source_copy)).is_file()
    listed = [program, "list", "--base-paths", str(source_copy), "--names-only"]
    names = subprocess.run(listed, capture_output=True, text=True, cwd=tmp_path, timeout=60).stdout
    assert names.split() == ["robot_vision"], "colcon must not build tools/ros_env beside ROS"


@pytest.mark.slow
def test_sources_can_be_packed_without_data_or_environments():
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    archive = subprocess.run(
        [git, "-C", str(ROOT), "archive", "HEAD"], capture_output=True, check=True, timeout=60
    )
    from io import BytesIO

    members = tarfile.open(fileobj=BytesIO(archive.stdout)).getmembers()
    assert not [m.name for m in members if m.size > 25 * 2**20]
    assert not [m.name for m in members if m.name.startswith((".venv", "build", "install", "log/"))]
