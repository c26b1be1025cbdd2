"""Tab in a real bash completes verbs, options, choices, models and files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("argcomplete")

pytestmark = pytest.mark.slow
SCRIPTS = Path(sys.executable).parent

# What bash itself does on Tab: calls the function that is registered for the command, with the line and the
# cursor, and takes COMPREPLY.
TAB = """
eval "$(register-python-argcomplete robot-vision)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9 COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
read -ra COMP_WORDS <<< "$COMP_LINE"
function=$(complete -p robot-vision | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
$function robot-vision
printf '%s\\n' "${COMPREPLY[@]}"
"""


def tab(line: str, folder: Path) -> list[str]:
    """Returns what bash offers for a line."""
    done = subprocess.run(
        [str(shutil.which("bash")), "--norc", "-c", TAB, "bash", line],
        env={"PATH": f"{SCRIPTS}:/usr/bin:/bin", "HOME": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [word.strip() for word in done.stdout.splitlines()]


@pytest.fixture(autouse=True)
def registered() -> None:
    if not (SCRIPTS / "register-python-argcomplete").is_file():
        pytest.skip("register-python-argcomplete is not next to this Python")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("robot-vision ev", ["evaluate"]),
        ("robot-vision map bu", ["build"]),
        ("robot-vision evaluate --requ", ["--require"]),
        ("robot-vision evaluate --format m", ["markdown"]),
        ("robot-vision evaluate --model dem", ["demo"]),
        ("robot-vision info dem", ["demo"]),
        ("robot-vision train tr", ["training.yaml"]),
        ("robot-vision no_such_verb --", ["--help", "--version"]),
    ],
)
def test_tab_offers(line: str, offered: list[str], tmp_path: Path) -> None:
    (tmp_path / "training.yaml").write_text("")
    assert [word for word in tab(line, tmp_path) if word] == offered


def test_nothing_runs_on_tab(tmp_path: Path) -> None:
    tab("robot-vision init project --data . ", tmp_path)
    assert not (tmp_path / "project").exists()
