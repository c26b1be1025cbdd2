"""Make a release: versions, changelogs, wheel, source archive, checks, and then commit and tag.

    python tools/release.py 0.2.0

All of it is done in a clone in a temporary folder. Only when everything has passed does this repository get
the commit and the tag, and `dist/` the files; nothing is pushed. `CHANGELOG.md` is the one place to write in:
`CHANGELOG.rst`, which bloom reads from the tag, is made of it here.
"""

from __future__ import annotations

import argparse
import datetime
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "robot_vision"
# Where the version stands, and what around it.
VERSIONS = {
    "setup.py": r'(version=")[^"]+(")',
    "package.xml": r"(<version>)[^<]+(</version>)",
    "robot_vision/__init__.py": r'(__version__ = ")[^"]+(")',
}
CHECKS = ("twine", "check-wheel-contents")


class ReleaseError(Exception):
    """Something that the person who releases can put right; one line says what and how."""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command and return what it wrote; its errors are the script's."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise ReleaseError(f"{' '.join(map(str, command[:3]))} failed: {said[-1]}")
    return done.stdout


def numbers(version: str) -> tuple[int, ...]:
    """Return the three numbers of a version."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ReleaseError(f"{version!r} is no version: give three numbers, such as 0.2.0")
    return tuple(map(int, version.split(".")))


def with_version(markdown: str, version: str, date: str) -> str:
    """Return the changelog with what is unreleased under a version's heading."""
    head, found, rest = markdown.partition("## Unreleased\n")
    body = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    if not found or not body.strip():
        raise ReleaseError("CHANGELOG.md has nothing under '## Unreleased': write what changed")
    return f"{head}{found}\n## {version} - {date}\n{rest}"


def restructured(markdown: str) -> str:
    """Return a changelog in the form that bloom and catkin_pkg read, of one in Markdown.

    Versions without entries are left out. Links become their text: their targets are files of the repository.
    """
    title = f"Changelog for package {NAME}"
    lines = ["^" * len(title), title, "^" * len(title), ""]
    for section in re.split(r"^## ", markdown, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        version, _, date = heading.partition(" - ")
        if not body.strip():
            continue
        heading = (
            "Forthcoming" if version.strip() == "Unreleased" else f"{version} ({date.strip()})"
        )
        lines += [heading, "-" * len(heading)]
        for line in body.strip().splitlines():
            line = re.sub(r"^### (.*)", r"**\1**", line)
            line = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line)
            line = re.sub(r"`([^`]+)`", r"``\1``", line)
            lines.append(re.sub(r"^- ", "* ", line))
        lines.append("")
    return "\n".join(lines)


def edit(path: Path, change: Callable[[str], str]) -> None:
    """Write a file's text changed."""
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def set_version(root: Path, version: str) -> None:
    """Write the version wherever it stands."""
    for name, pattern in VERSIONS.items():
        text, count = re.subn(
            pattern, rf"\g<1>{version}\g<2>", (root / name).read_text(encoding="utf-8"), count=1
        )
        if not count:
            raise ReleaseError(f"{name} has no version where one was expected: correct VERSIONS")
        (root / name).write_text(text, encoding="utf-8")


def build(root: Path, dist: Path) -> list[Path]:
    """Build wheel and source archive and return them."""
    pip = (sys.executable, "-m", "pip", "-q", "wheel", "--no-deps", "--no-build-isolation")
    run(*pip, "-w", dist, root, cwd=root)
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, dist, cwd=root)
    return sorted(dist.iterdir())


def check(files: list[Path], folder: Path) -> None:
    """Run the checks of package indexes."""
    for name in CHECKS:
        if not shutil.which(name):
            raise ReleaseError(
                f"{name} is not on PATH: install it in an environment of its own (pip install "
                f"{' '.join(CHECKS)}) and put that on PATH, or say --unchecked"
            )
    run("twine", "check", "--strict", *files, cwd=folder)
    wheels = [file for file in files if file.suffix == ".whl"]
    run("check-wheel-contents", *wheels, cwd=folder)


def release(root: Path, version: str, date: str, checked: bool) -> list[Path]:
    """Make the release of a repository and return the files of `dist`."""
    if run("git", "status", "--porcelain", cwd=root).strip():
        raise ReleaseError("there are changes that are not committed: commit them first")
    if run("git", "tag", "--list", version, cwd=root).strip():
        raise ReleaseError(f"there is a tag {version} already")
    found = re.search(VERSIONS["package.xml"], (root / "package.xml").read_text(encoding="utf-8"))
    released = bool(run("git", "tag", "--list", "[0-9]*", cwd=root).strip())
    old = found[0].partition(">")[2].partition("<")[0] if found else "0.0.0"
    if numbers(version) < numbers(old) or (released and numbers(version) == numbers(old)):
        raise ReleaseError(f"{version} does not come after {old}")
    if "<url" not in (root / "package.xml").read_text(encoding="utf-8"):
        print('note: package.xml names no <url type="repository">: bloom asks for one', flush=True)
    with tempfile.TemporaryDirectory(prefix="robot_vision_release_") as scratch:
        copy = Path(scratch) / NAME
        run("git", "clone", "-q", root, copy, cwd=root)
        set_version(copy, version)
        edit(copy / "CHANGELOG.md", lambda text: with_version(text, version, date))
        markdown = (copy / "CHANGELOG.md").read_text(encoding="utf-8")
        (copy / "CHANGELOG.rst").write_text(restructured(markdown), encoding="utf-8")
        for key in ("user.name", "user.email"):
            run("git", "config", key, run("git", "config", key, cwd=root).strip(), cwd=copy)
        run("git", "add", "-A", cwd=copy)
        run("git", "commit", "-q", "-m", f"Release {version}", cwd=copy)
        run("git", "tag", "-a", version, "-m", f"{NAME} {version}", cwd=copy)
        files = build(copy, Path(scratch) / "dist")
        if checked:
            check(files, Path(scratch))
        else:
            print(f"note: not checked by {' and '.join(CHECKS)}", flush=True)
        run("git", "pull", "-q", "--ff-only", copy, "HEAD", cwd=root)
        run("git", "fetch", "-q", copy, "tag", version, cwd=root)
        dist = root / "dist"
        dist.mkdir(exist_ok=True)
        return [Path(shutil.copy2(file, dist)) for file in files]


def main(argv: list[str] | None = None) -> int:
    """Release; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version", help="three numbers, such as 0.2.0")
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="the repository (default: this one)"
    )
    parser.add_argument("--date", default=datetime.date.today().isoformat(), help="of the release")
    parser.add_argument(
        "--unchecked", action="store_true", help=f"leave out {' and '.join(CHECKS)}"
    )
    options = parser.parse_args(argv)
    try:
        numbers(options.version)
        files = release(
            options.root.resolve(), options.version, options.date, not options.unchecked
        )
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for file in files:
        print(file)
    print(
        f"committed and tagged; to publish: git push --follow-tags, twine upload dist/*{options.version}*"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
