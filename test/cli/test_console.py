"""What commands print is printed as it is, whatever labels and files are called."""

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.progress import Progress
from rich.table import Table

from robot_vision.cli import main
from robot_vision.cli.arguments import progress
from robot_vision.text.console import plain_console

SOURCE = Path(__file__).resolve().parents[2] / "robot_vision"
ODD = ["[red]lamp", ":cat:", "[/]", "hall [2]", "\\[bold]"]


@pytest.mark.parametrize("text", ODD)
def test_text_titles_and_cells_are_printed_as_they_are(text: str) -> None:
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text + " cell")
    for what in (text, table):
        console = plain_console(file=io.StringIO(), width=60)
        console.print(what)
        assert text in console.file.getvalue()


def test_progress_shows_names_as_they_are() -> None:
    bar = progress()
    assert isinstance(bar, Progress)
    for text in ODD:
        number = bar.add_task(text, total=2)
        assert str(bar.columns[0].render(bar.tasks[number])) == text


def test_classes_named_as_markup_are_named_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("[red]lamp", ":cat:"):
        for i in range(3):
            file = tmp_path / "train" / label / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), np.full((8, 8, 3), 40 * i, np.uint8))
    assert main(["data", "inspect", "image_folder", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "[red]lamp" in out and ":cat:" in out


def test_consoles_are_made_in_one_place() -> None:
    made = [
        str(path.relative_to(SOURCE))
        for path in sorted(SOURCE.rglob("*.py"))
        if re.search(r"(?<!\w)Console\(|rich\.markup|from_markup", path.read_text())
    ]
    assert made == ["text/console.py"]
