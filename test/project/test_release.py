"""tools/release.py: a whole release in a clone, and that nothing is left where it cannot be made."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "release.py"
CHANGELOG = """# Changelog

## Unreleased

- A verb, `robot-vision sing` ([sing](docs/sing.md)),
  in two lines.
- Fixed: it was `silent`.

## 0.1.0 - 2026-01-02

- First version.
"""


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Returns a repository with all that a release builds, of the files as they are now."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    root = tmp_path / "repository"
    root.mkdir()
    for name in (
        "setup.py",
        "package.xml",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "CONTRIBUTING.md",
    ):
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, root)
    shutil.copytree(
        ROOT / "robot_vision", root / "robot_vision", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(ROOT / "resource", root / "resource")
    (root / "CHANGELOG.md").write_text(CHANGELOG)
    (root / ".gitignore").write_text("dist/\n")
    git(root, "init", "-q")
    git(root, "config", "user.name", "Releaser")
    git(root, "config", "user.email", "releaser@example.com")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Begin")
    return root


def release(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--root", str(root), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_release_is_a_commit_a_tag_two_files_and_a_changelog_for_bloom(repository: Path) -> None:
    changelog = pytest.importorskip("catkin_pkg.changelog")
    package = pytest.importorskip("catkin_pkg.package")
    before = git(repository, "rev-parse", "HEAD")
    done = release(repository, "0.2.0", "--date", "2026-02-03", "--unchecked")
    assert done.returncode == 0, done.stderr
    assert git(repository, "log", "-2", "--format=%s").split("\n")[:2] == ["Release 0.2.0", "Begin"]
    assert git(repository, "rev-parse", "0.2.0^{commit}") == git(repository, "rev-parse", "HEAD")
    assert git(repository, "rev-parse", "HEAD~") == before
    assert git(repository, "status", "--porcelain") == ""
    assert {f.name for f in (repository / "dist").iterdir()} == {
        "robot_vision-0.2.0-py3-none-any.whl",
        "robot_vision-0.2.0.tar.gz",
    }
    for name in ("setup.py", "package.xml", "robot_vision/__init__.py"):
        assert "0.2.0" in (repository / name).read_text()
    assert package.parse_package(str(repository / "package.xml")).version == "0.2.0"
    text = (repository / "CHANGELOG.md").read_text()
    assert "## Unreleased\n\n## 0.2.0 - 2026-02-03\n\n- A verb" in text
    # What bloom and catkin_prepare_release read.
    read = changelog.get_changelog_from_path(str(repository))
    found = {version: (date, entries) for version, date, entries in read.foreach_version()}
    assert set(found) == {"0.2.0", "0.1.0"}
    date, entries = found["0.2.0"]
    assert date.date() == datetime.date(2026, 2, 3)
    (bullets,) = [entry.bullets for entry in entries]
    assert len(bullets) == 2
    assert "* A verb, ``robot-vision sing`` (sing),\n" in (repository / "CHANGELOG.rst").read_text()
    assert not re.search(r"\]\(|(?<!`)`(?!`)", (repository / "CHANGELOG.rst").read_text())
    # A second one needs something to release, and a version that comes later.
    again = release(repository, "0.3.0", "--unchecked")
    assert again.returncode == 1 and "nothing under '## Unreleased'" in again.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["0.2"], "three numbers"),
        (["0.0.9", "--unchecked"], "does not come after 0.1.0"),
    ],
)
def test_what_cannot_be_released_is_one_line_and_changes_nothing(
    repository: Path, words: list[str], said: str
) -> None:
    before = git(repository, "rev-parse", "HEAD")
    done = release(repository, *words)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and said in done.stderr
    assert git(repository, "rev-parse", "HEAD") == before and not git(repository, "tag")


def test_uncommitted_changes_and_a_tag_that_is_there_stop_it(repository: Path) -> None:
    git(repository, "tag", "0.2.0")
    assert "a tag 0.2.0 already" in release(repository, "0.2.0", "--unchecked").stderr
    (repository / "README.md").write_text("changed\n")
    assert "not committed" in release(repository, "0.2.1", "--unchecked").stderr


@pytest.mark.slow
def test_a_check_that_fails_leaves_the_repository_as_it_was(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, status in (("twine", 0), ("check-wheel-contents", 1)):
        (tools / name).write_text(f"#!/bin/sh\necho W009 in $#\nexit {status}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    before = git(repository, "rev-parse", "HEAD")
    done = release(repository, "0.2.0")
    assert done.returncode == 1 and "check-wheel-contents" in done.stderr
    assert "W009 in 1" in done.stderr
    assert git(repository, "rev-parse", "HEAD") == before and not git(repository, "tag")
    assert not (repository / "dist").exists()


def test_the_projects_own_changelog_can_be_read_by_bloom(tmp_path: Path) -> None:
    changelog = pytest.importorskip("catkin_pkg.changelog")
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import release as script
    finally:
        sys.path.remove(str(SCRIPT.parent))
    markdown = (ROOT / "CHANGELOG.md").read_text()
    text = script.restructured(script.with_version(markdown, "9.9.9", "2026-01-01"))
    read = changelog.populate_changelog_from_rst(changelog.Changelog("robot_vision"), text)
    entries = {version: entries for version, _, entries in read.foreach_version()}["9.9.9"]
    unreleased = markdown.partition("## Unreleased")[2].partition("\n## ")[0]
    bullets = [bullet for entry in entries for bullet in getattr(entry, "bullets", ())]
    assert len(bullets) == len(re.findall(r"^- ", unreleased, flags=re.MULTILINE))
    assert "###" not in text
