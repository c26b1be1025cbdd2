"""Image files: one, a folder of them, or what a pattern matches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from robot_vision.errors import SourceError
from robot_vision.files.natural_order import natural_key
from robot_vision.images.decode import to_rgb
from robot_vision.messages.stamps import nanoseconds
from robot_vision.recordings.base import (
    DEFAULT_FRAME,
    DEFAULT_TOPIC,
    CompressedImage,
    Frame,
    Source,
)
from robot_vision.recordings.image_formats import (
    AS_THEY_ARE,
    IMAGE_SUFFIXES,
    Look,
    look_at,
    read_image,
)
from robot_vision.text.counts import agreeing, counted


@dataclass
class FoundImages:
    """The images below a folder, and what else is there.

    Attributes:
        folder: the folder.
        images: their paths from there, with `/`, in natural order; linked folders are followed.
        left_out: what is wrong with the others, to their paths from there.
    """

    folder: Path
    images: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """The images' paths."""
        return [self.folder / image for image in self.images]

    def notes(self) -> list[str]:
        """Returns a line for each reason to leave files out."""
        return [
            f"{counted(len(names), 'file')} under {self.folder} "
            f"{agreeing(len(names), reason + ' and are')} left out: {some(names)}"
            for reason, names in self.left_out.items()
        ]


def find_images(folder: Path) -> FoundImages:
    """Finds the image files of a folder and of those below it, by their names.

    Strings and one walk: with paths as objects 100,000 files took twice as long. A folder that several links
    lead to is read once, so that a loop of links ends.
    """
    found = FoundImages(folder)
    seen: set[tuple[int, int]] = set()

    def leave_out(reason: str, name: str) -> None:
        found.left_out.setdefault(reason, []).append(name)

    def unreadable(error: OSError) -> None:
        leave_out(
            f"cannot be looked at ({error.strerror})", os.path.relpath(error.filename, folder)
        )

    for place, below, names in os.walk(folder, onerror=unreadable, followlinks=True):
        inside = os.path.relpath(place, folder).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        hidden_place = any(part.startswith(".") for part in prefix.split("/"))
        state = os.stat(place)
        if (state.st_dev, state.st_ino) in seen:
            leave_out("are links to a folder that is read already", inside)
            below.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        below.sort(key=lambda name: os.path.islink(os.path.join(place, name)))
        for name in names:
            is_image = name.lower().endswith(IMAGE_SUFFIXES)
            if is_image and (hidden_place or name.startswith(".")):
                leave_out("are hidden images (a name begins with a dot)", prefix + name)
            elif is_image:
                found.images.append(prefix + name)
            elif not hidden_place and not name.startswith("."):
                leave_out("are no images by their names", prefix + name)
    found.images.sort(key=lambda image: [natural_key(part) for part in image.split("/")])
    return found


def image_notes(files: Iterable[str | Path], turn: bool = True) -> list[str]:
    """Returns notes about image files, from a look at the first bytes of each.

    They count those that cannot be read (which stay in the set, where loading counts them), those whose name
    and content are of two formats, those of which only the first picture counts, and those that are turned
    upright, or (`turn` False) are not.
    """
    return _counted({str(file): look_at(file) for file in files}, turn)


def _counted(looks: Mapping[str, Look], turn: bool = True) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for name, look in looks.items():
        for reason in _remarks(look, turn):
            by_reason.setdefault(reason, []).append(name)
    return [
        f"{counted(len(names), 'image file')} {agreeing(len(names), reason)}: {some(names)}"
        for reason, names in by_reason.items()
    ]


def _remarks(look: Look, turn: bool) -> Iterator[str]:
    if look.problem:
        yield look.problem
        return
    if look.kind != look.named:
        yield f"are {look.kind.upper()} by their content, whatever their names say, and read as such"
    if look.several:
        yield "hold more than one picture (pages or an animation), of which the first counts"
    if look.orientation != 1 and turn:
        yield "lie on their side or head by their EXIF orientation, and are turned upright"
    elif look.orientation != 1:
        yield (
            "have an EXIF orientation, which is not applied: poses and camera matrix belong to the "
            "pixels as stored"
        )


def some(names: Sequence[str]) -> str:
    """Returns the first three of several names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(readable(name) for name in names[:3])}{more}"


def readable(text: str) -> str:
    r"""Returns a file's name as text that can be written: bytes that are no UTF-8 become `\udcNN`."""
    return text.encode("utf-8", "backslashreplace").decode()


class FileSource(Source):
    """Image files as a camera's frames.

    Args:
        name: what was opened.
        files: in their order.
        rate: frames per second; files bear no stamps, so the first is 0.
        start_s: seconds from which frames are given.
        duration_s: seconds to read; None until the end.
        root: names are relative to it.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Path],
        rate: float = 30.0,
        start_s: float = 0.0,
        duration_s: float | None = None,
        root: Path | None = None,
    ) -> None:
        if not files:
            ends = ", ".join(IMAGE_SUFFIXES)
            raise SourceError(f"{name} has no image: files must end in one of {ends}")
        stamps = [nanoseconds(i / rate) for i in range(len(files))]
        first = nanoseconds(start_s)
        last = None if duration_s is None else first + nanoseconds(duration_s)
        self._chosen = [
            (stamp, file)
            for stamp, file in zip(stamps, files, strict=True)
            if stamp >= first and (last is None or stamp < last)
        ]
        self._root = root
        super().__init__(name, (DEFAULT_TOPIC,), len(self._chosen))
        self._check_start(start_s, stamps[-1] / 1e9)
        looks = {str(file): look_at(file) for _, file in self._chosen}
        passed_on = {(look.kind or look.named) in AS_THEY_ARE for look in looks.values()}
        # What cannot be read is a problem when its turn comes.
        self.notes += _counted({name: look for name, look in looks.items() if not look.problem})
        self.forms = tuple(
            form for form, there in (("raw", False), ("compressed", True)) if there in passed_on
        )

    @property
    def files(self) -> dict[str, Path]:
        """The file of each frame's name, in their order."""
        return {self._name(file): file for _, file in self._chosen}

    def _name(self, file: Path) -> str:
        return readable(str(file.relative_to(self._root) if self._root else file))

    def __iter__(self) -> Iterator[Frame]:
        for stamp_ns, file in self._chosen:
            try:
                message = read_image(file)
            except (OSError, ValueError) as error:
                self.problems.append(f"{readable(str(file))} cannot be read: {error}")
                continue
            yield Frame(stamp_ns, DEFAULT_TOPIC, DEFAULT_FRAME, message, self._name(file), stamp_ns)


def upright_message(message: Any) -> Any:
    """Returns a message without an orientation of its own, as cameras send it; turned files are encoded."""
    if getattr(message, "orientation", 1) == 1:
        return message
    bgr = cv2.cvtColor(to_rgb(message), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return CompressedImage("jpeg", data.tobytes())
