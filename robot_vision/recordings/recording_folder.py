"""The files of a rosbag: which there are, what packs them, and what the folder's metadata.yaml says of them.

What metadata.yaml says is a promise to compare with: it is written apart from the data, by hand at times.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from robot_vision.files.natural_order import natural_key
from robot_vision.files.plain_yaml import YamlError, load_yaml
from robot_vision.recordings import storage_mcap, storage_ros1, storage_sqlite
from robot_vision.recordings.storage import Storage, slashed
from robot_vision.recordings.unpacking import unpack_file
from robot_vision.text.counts import counted

BAG_SUFFIXES = (".bag", ".db3", ".mcap")
_STORAGES = (".db3", ".mcap")
_PACKED = (".zstd", ".zst")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_METADATA = "metadata.yaml"
_FORMATS: tuple[tuple[bytes, type[Storage]], ...] = (
    (storage_mcap.MAGIC, storage_mcap.McapFile),
    (storage_ros1.MAGIC, storage_ros1.Ros1File),
    (storage_sqlite.MAGIC, storage_sqlite.SqliteFile),
)
_NAMED = 5
_SPLIT = re.compile(r"_\d+$")
_OTHER_PACKERS = {b"\x04\x22\x4d\x18": "lz4", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"PK": "zip"}


def is_bag(path: Path) -> bool:
    """Whether a path looks like a bag: by its suffix, or a folder with a rosbag2's files."""
    if path.is_dir():
        return (path / _METADATA).is_file() or any(_is_storage(p) for p in path.iterdir())
    return _suffix(path.name) in BAG_SUFFIXES


def _plain(name: str) -> str:
    """Returns a file's name without what packing, or a recorder at work, appends to it."""
    for end in (*_PACKED, ".active"):
        if name.lower().endswith(end):
            return name[: -len(end)]
    return name


def _suffix(name: str) -> str:
    return PurePosixPath(_plain(name)).suffix.lower()


def _is_storage(path: Path) -> bool:
    return _suffix(path.name) in _STORAGES and not path.name.startswith(".") and path.is_file()


def open_storage(path: Path, name: str) -> Storage:
    """Opens a file of a recording by what it begins with; a packed one is unpacked into a temporary folder.

    Raises:
        ValueError: it is no such file.
        OSError: of the system.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        magic = file.read(16)
    if magic.startswith(_ZSTD_MAGIC):
        folder = tempfile.TemporaryDirectory(prefix="robot-vision-")
        plain = Path(folder.name) / "unpacked"
        unpack_file(path, plain)
        with plain.open("rb") as file:
            magic = file.read(16)
    else:
        folder, plain = None, path
    for begin, make in _FORMATS:
        if magic.startswith(begin):
            storage = make(plain, name)
            storage.source, storage.folder = path, folder
            return storage
    if not magic:
        raise ValueError("it is empty")
    if magic.startswith(b"#ROSBAG V1"):
        raise ValueError("it is a ROS 1 bag of version 1 (rosbag migrate makes version 2)")
    for begin, packer in _OTHER_PACKERS.items():
        if magic.startswith(begin):
            raise ValueError(f"it is packed by {packer}: unpack it first")
    raise ValueError("it is neither MCAP nor SQLite nor a ROS 1 bag")


def surveyed(path: Path, name: str) -> Storage:
    """Opens a file and goes through it; raises as `open_storage`."""
    storage = open_storage(path, name)
    try:
        storage.survey()
    except BaseException:
        storage.close()
        raise
    return storage


@dataclass
class Folder:
    """What belongs to a recording.

    Attributes:
        files: by name, in natural order.
        metadata: of the folder, as it is; None where there is none.
        listed: names in it, and how many messages it says each has (None where it does not say).
        missing: files that metadata list, and that are not there, a line each.
        notes: what disagrees, a line each.
    """

    files: dict[str, Path]
    metadata: Mapping[str, Any] | None = None
    listed: dict[str, int | None] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_files(path: Path) -> Folder:
    """Finds the files of a recording."""
    if not path.is_dir():
        return Folder({path.name: path})
    inside = sorted(path.iterdir(), key=lambda p: natural_key(p.name))
    folder = Folder({})
    _read_metadata(path / _METADATA, folder)
    folder.files = {
        p.name: p for p in inside if _is_storage(p) or (p.name in folder.listed and p.is_file())
    }
    listed = {_plain(name): name for name in folder.listed}
    there = {_plain(name) for name in folder.files}
    for plain, name in listed.items():
        if plain not in there:
            count = folder.listed[name]
            has = "" if count is None else f", with {counted(count, 'message')},"
            folder.missing.append(f"{name}{has} is in {_METADATA} and not in the folder")
    if listed:
        for name in folder.files:
            if _plain(name) not in listed:
                folder.notes.append(
                    f"{name} is in the folder and not in {_METADATA}: it is read, too"
                )
    else:
        names = sorted({_SPLIT.sub("", PurePosixPath(_plain(name)).stem) for name in folder.files})
        if len(names) > 1:
            folder.notes.append(
                f"{len(folder.files)} files of different names ({', '.join(names[:_NAMED])}) are read as one "
                "recording: give one of them by itself if they are several"
            )
    for place in inside:
        if place.name in folder.files or place.name.startswith("."):
            continue
        if place.is_dir() and is_bag(place):
            folder.notes.append(f"{place.name} is a recording of its own, and is not read")
        elif place.is_file() and _looks_like_data(place.name):
            folder.notes.append(
                f"{place.name} is not read: it is no file of a rosbag2 by its name (give it by itself)"
            )
    return folder


def _looks_like_data(name: str) -> bool:
    """Whether a name has the suffix of a bag in it, as a ROS 1 bag or a copy that was put aside has."""
    parts = name.lower().split(".")[1:]
    return any(f".{part}" in BAG_SUFFIXES for part in parts)


def _read_metadata(file: Path, folder: Folder) -> None:
    if not file.is_file():
        return
    try:
        found = load_yaml(file.read_bytes(), foreign=True)
    except (OSError, YamlError) as error:
        folder.notes.append(f"{_METADATA} cannot be read ({error}): the files are read without it")
        return
    about = _at(found, "rosbag2_bagfile_information")
    if not isinstance(about, dict):
        folder.notes.append(f"{_METADATA} is not that of a rosbag2: the files are read without it")
        return
    folder.metadata = about
    for entry in _list(_at(about, "relative_file_paths")):
        # Never a place outside the folder, whatever it says.
        folder.listed.setdefault(_file_name(entry))
    for entry in _list(_at(about, "files")):
        name = _file_name(_at(entry, "path"))
        if name in folder.listed:
            folder.listed[name] = _number(_at(entry, "message_count"))


def _file_name(entry: Any) -> str:
    return PureWindowsPath(str(entry)).name  # which divides at both kinds of slashes


def promised(metadata: Mapping[str, Any]) -> tuple[Counter[str], dict[str, str], int | None]:
    """Returns how many messages of each topic metadata speak of, their types, and how many in all."""
    counts: Counter[str] = Counter()
    kinds: dict[str, str] = {}
    for entry in _list(_at(metadata, "topics_with_message_count")):
        name = _at(entry, "topic_metadata", "name")
        if not isinstance(name, str) or not name:
            continue
        counts[slashed(name)] += _number(_at(entry, "message_count")) or 0
        kinds[slashed(name)] = str(_at(entry, "topic_metadata", "type"))
    return counts, kinds, _number(_at(metadata, "message_count"))


def message_compression(metadata: Mapping[str, Any]) -> str:
    """Returns by what single messages are compressed, as metadata say; empty where they are not."""
    mode, form = (str(_at(metadata, f"compression_{key}") or "") for key in ("mode", "format"))
    return form if mode.upper() == "MESSAGE" else ""


def promised_span(metadata: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Returns the start and the duration that metadata speak of, in nanoseconds."""
    start = _number(_at(metadata, "starting_time", "nanoseconds_since_epoch"))
    return start, _number(_at(metadata, "duration", "nanoseconds"))


def differences(
    who: str, said: Counter[str], found: Counter[str], total: int | None = None
) -> tuple[list[str], list[str]]:
    """Returns what is missing of what was promised, and what is there beyond it, a line each."""
    less = {t: (n, found[t]) for t, n in said.items() if n > found[t]}
    more = {t: (said[t], n) for t, n in found.items() if n > said[t]}
    problems, notes = [], []
    if less:
        missing = sum(a - b for a, b in less.values())
        problems.append(
            f"{who} promises {_listing(less)}: {counted(missing, 'message is', 'messages are')} "
            "missing"
        )
    if more:
        notes.append(f"{who} speaks of {_listing(more)}: all are read")
    if total is not None and total != sum(said.values()):
        count = sum(found.values())
        text = f"{who} speaks of {counted(total, 'message')} in all, and {count} are there"
        if total > count:
            problems.append(text)
        elif total < count:
            notes.append(f"{text}: all are read")
    return problems, notes


def _listing(topics: Mapping[str, tuple[int, int]]) -> str:
    texts = [
        f"{counted(a, 'message')} on {topic}, where {b} {'is' if b == 1 else 'are'}"
        for topic, (a, b) in sorted(topics.items())
    ]
    more = (
        [f"other numbers on {counted(len(texts) - _NAMED, 'more topic')}"]
        if len(texts) > _NAMED
        else []
    )
    return ", ".join(texts[:_NAMED] + more)


def _at(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _list(data: Any) -> Iterable[Any]:
    return data if isinstance(data, list) else ()


def _number(data: Any) -> int | None:
    return data if isinstance(data, int) and not isinstance(data, bool) else None
