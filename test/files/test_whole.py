"""Files that are whole or not there."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from robot_vision.files.whole import draft_folder, draft_of, write_whole


@pytest.mark.parametrize("alone", [False, True])
def test_an_interrupted_write_leaves_the_old_file_and_no_draft(tmp_path: Path, alone: bool) -> None:
    file = tmp_path / "deep" / "file"
    write_whole(file, "old", alone=alone)
    with pytest.raises(KeyboardInterrupt), draft_of(file, alone=alone) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert file.read_text() == "old" and os.listdir(file.parent) == ["file"]


def test_a_written_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    with draft_of(tmp_path / "file", sync=True) as part:
        os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_link_is_kept_and_what_it_points_at_replaced(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_whole(tmp_path / "pipe", "through")
    reader.join(10)
    assert read == ["through"] and (tmp_path / "pipe").is_fifo()


def test_an_interrupted_folder_leaves_what_stood_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with draft_folder(out) as part:
        (part / "old").touch()
    with pytest.raises(KeyboardInterrupt), draft_folder(out) as part:
        raise KeyboardInterrupt
    assert os.listdir(out) == ["old"] and os.listdir(tmp_path) == ["out"]
    with draft_folder(out) as part:
        (part / "new").touch()
    assert os.listdir(out) == ["new"] and os.listdir(tmp_path) == ["out"]
