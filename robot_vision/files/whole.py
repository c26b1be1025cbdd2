"""Files and folders that are whole or not there: written next to their name, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path


def current_umask() -> int:
    """Returns the process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def draft_of(path: Path, sync: bool = False, alone: bool = False) -> Iterator[Path]:
    """Yields a name next to `path` to write to; when the block ends without an error, it becomes `path`.

    A crash, a kill or a full disk leaves the old file or the new one, whole.

    Args:
        path: the file; folders above it are made.
        sync: wait for the disk, so that a power failure too leaves one of both.
        alone: only one process ever writes this file. Then the draft's name is always the same, and
            processes that are killed leave one draft at most.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(os.path.realpath(path))  # what a link points at is replaced, not the link
    if path.exists() and not path.is_file():  # a pipe, a terminal
        yield path
        return
    who = "" if alone else f".{os.getpid()}-{threading.get_ident():x}"
    part = path.with_name(f".{path.name}{who}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        if sync:
            handle = os.open(part, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        # Some writers make files that only their owner can read
        part.chmod(0o666 & ~current_umask())
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_whole(path: Path, content: bytes | str, sync: bool = False, alone: bool = False) -> None:
    """Writes a file of these bytes, or of this text in UTF-8; see `draft_of`."""
    data = content.encode() if isinstance(content, str) else content
    with draft_of(path, sync, alone) as part:
        part.write_bytes(data)


@contextlib.contextmanager
def draft_folder(out: Path) -> Iterator[Path]:
    """Yields a folder next to `out`; when the block ends without an error, it takes the place of `out`.

    Raises:
        OSError: it cannot be written; what stood at `out` stands there still.
    """
    import shutil  # with bz2 and lzma, not for every node that starts

    out.parent.mkdir(parents=True, exist_ok=True)
    part = _folder_next_to(out, ".part")
    part.chmod(0o777 & ~current_umask())
    try:
        yield part
        _swap(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _folder_next_to(out: Path, suffix: str) -> Path:
    import tempfile

    return Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=suffix, dir=out.parent))


def _swap(part: Path, out: Path) -> None:
    if not out.exists():
        part.replace(out)
        return
    import shutil

    old = _folder_next_to(out, ".old")
    out.replace(old)  # an empty directory may be replaced by another
    try:
        part.replace(out)
    except OSError:
        old.replace(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
