"""Build the interface packages that the ROS 2 wheels lack into the virtual environment.

The wheels make a virtual environment a ROS prefix, but there is none for `vision_msgs`, `tf2_msgs`
and `bond`. This builds them with the wheels' own generators and installs them next to the wheels'
packages, so that `python -c "import vision_msgs.msg"` works with nothing sourced. Run it with the
environment's Python:

    .venv/bin/python tools/ros_env/build.py

Three things stand between the wheels and a build, and are seen to here:

- The exported CMake files name folders of the machine that built the wheels (`/opt/python/...`).
  They are rewritten to this Python's and this NumPy's.
- No CMake comes with them. The one on PATH is taken, else that of the wheel `cmake`.
- Nothing sets `AMENT_PREFIX_PATH`, so packages are not found by name. A `.pth` file adds the
  environment to it whenever its Python starts (see `path_hook.py`).

CMake is run directly: packages that do not depend on each other need no workspace around them.
Only the standard library is imported until the compiler and the headers have been found, so that
what is missing is reported as one line that says what to install.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = ("vision_msgs", "tf2_msgs", "bond")

# An absolute folder of the wheels' build machine, up to the end of that entry of a CMake list.
_BUILD_MACHINE_PATH = re.compile(r'/opt/python/[^";]*')


class SetupError(Exception):
    """Something that the person who runs this can put right; one line says what and how."""


def require_toolchain() -> None:
    """Check for a C and C++ compiler and the Python headers.

    Raises:
        SetupError: naming what is missing and the package that has it.
    """
    for variable, names in (("CC", ("cc", "gcc", "clang")), ("CXX", ("c++", "g++", "clang++"))):
        wanted = os.environ.get(variable)
        candidates = (wanted.split()[0],) if wanted else names
        if not any(shutil.which(name) for name in candidates):
            raise SetupError(
                f"no C++ compiler: none of {', '.join(candidates)} is on PATH. Install one "
                "(Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++) and run make again."
            )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        raise SetupError(
            f"no Python headers: {header} is missing. Install them (Debian, Ubuntu: apt install "
            "python3-dev; Fedora: dnf install python3-devel) and run make again."
        )


def find_cmake() -> tuple[str, list[str]]:
    """Return the CMake to run and the generator arguments for it.

    Raises:
        SetupError: if there is neither a CMake nor something to drive (Ninja or make).
    """
    environment_bin = Path(sys.prefix) / "bin"
    search = os.pathsep.join((os.environ.get("PATH", ""), str(environment_bin)))
    cmake = shutil.which("cmake", path=search)
    if cmake is None:
        raise SetupError(f"no CMake: install it with {sys.executable} -m pip install cmake")
    if shutil.which("ninja", path=search):
        return cmake, ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={shutil.which('ninja', path=search)}"]
    if shutil.which("make"):
        return cmake, ["-G", "Unix Makefiles"]
    raise SetupError(f"neither ninja nor make: run {sys.executable} -m pip install ninja")


def repair_exported_cmake(prefix: Path) -> int:
    """Point the wheels' exported CMake files at this Python's headers; return how many changed."""
    import numpy

    include, numpy_include = sysconfig.get_path("include"), numpy.get_include()

    def local(match: re.Match[str]) -> str:
        return numpy_include if "numpy" in match.group() else include

    changed = 0
    for path in sorted(prefix.glob("share/*/cmake/*.cmake")):
        text = path.read_text(encoding="utf-8")
        repaired = _BUILD_MACHINE_PATH.sub(local, text)
        if repaired != text:
            # Wheels may be hard links into a cache: replace the file, never write through it.
            path.unlink()
            path.write_text(repaired, encoding="utf-8")
            changed += 1
    return changed


def install_path_hook() -> None:
    """Make this environment findable through `AMENT_PREFIX_PATH` from now on."""
    site_packages = Path(sysconfig.get_path("purelib"))
    shutil.copyfile(HERE / "path_hook.py", site_packages / "_robot_vision_prefix.py")
    (site_packages / "robot_vision_prefix.pth").write_text("import _robot_vision_prefix\n")


def _first_error(log: Path) -> str:
    """Return the start of the first error that a build's output reports, as one line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    lines = [line for line in lines if line]
    for number, line in enumerate(lines):
        if re.search(r"CMake Error|\berror:|^FAILED", line):
            return " ".join(lines[number : number + 2])
    return "no line of its output says why"


def build_package(name: str, prefix: Path, build_root: Path, log: Path) -> None:
    """Configure, build and install one interface package of this folder.

    Args:
        name: folder next to this file.
        prefix: the virtual environment, both underlay and install prefix.
        build_root: where build trees go.
        log: file that all output is appended to.

    Raises:
        SetupError: if a step fails, with the log's path.
    """
    cmake, generator = find_cmake()
    build = build_root / name
    environment = dict(os.environ, AMENT_PREFIX_PATH=str(prefix), CMAKE_PREFIX_PATH=str(prefix))
    # A Python of the environment must come first: generators run as `python3` scripts.
    environment["PATH"] = os.pathsep.join((str(prefix / "bin"), os.environ.get("PATH", "")))
    environment["PYTHONPATH"] = ""
    configure = [
        cmake, "-S", str(HERE / name), "-B", str(build), *generator,
        f"-DCMAKE_INSTALL_PREFIX={prefix}",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_TESTING=OFF",
        f"-DPython3_EXECUTABLE={sys.executable}",
        f"-DPython3_ROOT_DIR={prefix}",
        "-DPython3_FIND_VIRTUALENV=ONLY",
    ]  # fmt: skip
    jobs = str(len(os.sched_getaffinity(0)))
    for command in (
        configure,
        [cmake, "--build", str(build), "--parallel", jobs],
        [cmake, "--install", str(build)],
    ):
        with log.open("a", encoding="utf-8") as stream:
            stream.write("$ " + " ".join(command) + "\n")
            stream.flush()
            result = subprocess.run(
                command, stdout=stream, stderr=subprocess.STDOUT, env=environment, check=False
            )
        if result.returncode:
            raise SetupError(f"building {name} failed: {_first_error(log)}; see {log}")


def check_import(name: str) -> None:
    """Import a freshly built package the way a user will, in a new process."""
    code = f"import {name}.msg, ament_index_python as a; a.get_package_share_directory({name!r})"
    environment = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}
    environment.pop("AMENT_PREFIX_PATH", None)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise SetupError(f"{name} was built but cannot be imported: {reason}")


def main(argv: list[str] | None = None) -> int:
    """Build what is asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", choices=PACKAGES, action="append", help="default: all")
    parser.add_argument("--hook-only", action="store_true", help="only install the path hook")
    parser.add_argument("--log", type=Path, help="default: <environment>/ros_env.log")
    options = parser.parse_args(argv)
    prefix = Path(sys.prefix)
    log = options.log or prefix / "ros_env.log"
    try:
        if sys.prefix == sys.base_prefix:
            raise SetupError("run this with the Python of a virtual environment")
        install_path_hook()
        if options.hook_only:
            return 0
        require_toolchain()
        log.write_text("", encoding="utf-8")
        repair_exported_cmake(prefix)
        with tempfile.TemporaryDirectory(prefix="robot_vision_ros_env_") as build_root:
            for name in options.package or PACKAGES:
                start = time.monotonic()
                build_package(name, prefix, Path(build_root), log)
                check_import(name)
                print(f"    {name}: {time.monotonic() - start:.0f} s", flush=True)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
