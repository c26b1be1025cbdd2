"""Topics of heads: one writer for the node and for recordings, and readers of what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ImageError
from robot_vision.messages.making import Maker, set_header
from robot_vision.messages.types import DIAGNOSTICS
from robot_vision.text.counts import counted

if TYPE_CHECKING:
    from robot_vision.geometry.intrinsics import Intrinsics
    from robot_vision.images.window import Window

# An image's stamp in nanoseconds, and its number among the images of that stamp
Row = tuple[int, int]


@dataclass(frozen=True)
class LeftOut:
    """Why an answer has no message; it is counted, and said.

    Attributes:
        reason: a counter's name.
        text: what is wrong and what to do; empty where it was said already.
        fault: whether something is wrong with the robot; not where an image shows what nobody knows.
    """

    reason: str
    text: str = ""
    fault: bool = True


NO_CALIBRATION = LeftOut("no_camera_info", "the calibration of its images is not known")


@dataclass(frozen=True)
class Shot:
    """The image that an answer is about; it has the fields of a header.

    Attributes:
        stamp: its sec and nanosec.
        frame_id: the camera's optical frame.
        camera: the camera's name.
        base_frame: the frame whose pose is wanted; empty for the camera's own.
        mounting: returns `T_base_camera` of an optical frame; None while it is not known.
        window: which part of the camera's image the network saw; None where its size is not known.
        intrinsics: returns those of the camera's image, or why they are not known. Only what the node listens
            to (`Head.needs`) can be known. It is the same object while nothing changes.
    """

    stamp: Any
    frame_id: str
    camera: str
    base_frame: str = ""
    mounting: Callable[[str], NDArray[np.float64] | None] = lambda frame: None
    window: Window | None = None
    intrinsics: Callable[[], Intrinsics | LeftOut] = lambda: NO_CALIBRATION


class Reader(Protocol):
    """Reads the messages of one topic of a recording back to columns."""

    def add(self, row: Row, message: Any) -> None:
        """Takes the message about an image."""

    def finish(
        self, rows: Sequence[Row], latched: Mapping[str, Any], notes: list[str]
    ) -> Mapping[str, Any]:
        """Returns what `Predictions` takes: columns over the rows, NaN where nothing was said.

        Args:
            rows: of the whole recording.
            latched: the last message of each latched topic, by `Latched.name`.
            notes: gets a line for each thing that a recording does not hold.

        Raises:
            SourceError: the messages do not fit each other.
        """


def always(options: Any) -> bool:
    """A topic that no option turns off."""
    return True


@dataclass(frozen=True)
class Look:
    """How a viewer shows the messages of a topic; by default as their type is shown, else field by field.

    Attributes:
        labels: for an image whose numbers are ids of classes: name of the latched topic that names them.
        shown: False for what says nothing to people.
    """

    labels: str = ""
    shown: bool = True


PLAIN, HIDDEN = Look(), Look(shown=False)


@dataclass(frozen=True)
class Topic:
    """A topic with one message for an image.

    Attributes:
        name: below `~/<camera>/`; or `/tf`, which all cameras share, and which is not recorded.
        kind: the messages' type.
        text: what it holds, for the docs.
        writer: looks up its types and returns what writes a message, or says why there is none, of
            `Head.published`'s answer and the head's options in force.
        reader: makes a reader; None where nobody reads it back.
        wanted: says of the options in force whether it is published.
        form: for the docs: what the type alone does not say.
        of_camera: whether its messages are in the camera's frame.
        look: how a viewer shows it.
    """

    name: str
    kind: str
    text: str
    writer: Callable[[Maker], Callable[[Shot, Any, Any], Any | LeftOut]]
    reader: Callable[[], Reader] | None = None
    wanted: Callable[[Any], bool] = always
    form: str = ""
    of_camera: bool = True
    look: Look = PLAIN


@dataclass(frozen=True)
class Latched:
    """A topic with one message for all that follows, sent again when options change.

    Attributes:
        name: below `~/`.
        kind: the message's type.
        text: what it holds, for the docs.
        writer: looks up its types and returns what writes a message, of its stamp and the options in force.
    """

    name: str
    kind: str
    text: str
    writer: Callable[[Maker], Callable[[Any, Any], Any]]


def _uncertainty_writer(make: Maker) -> Callable[[Shot, Any, Any], Any]:
    array, status, pair = map(
        make, (DIAGNOSTICS, "diagnostic_msgs/msg/DiagnosticStatus", "diagnostic_msgs/msg/KeyValue")
    )

    def write(shot: Shot, numbers: Mapping[str, float], options: Any) -> Any:
        message, entry = array(), status()
        set_header(message.header, shot)
        entry.name = shot.camera
        entry.values = [pair(key=key, value=f"{value:.4g}") for key, value in numbers.items()]
        message.status = [entry]
        return message

    return write


class _UncertaintyReader:
    def __init__(self) -> None:
        self._rows: dict[Row, dict[str, float]] = {}

    def add(self, row: Row, message: Any) -> None:
        self._rows[row] = {v.key: float(v.value) for s in message.status for v in s.values}

    def finish(
        self, rows: Sequence[Row], latched: Mapping[str, Any], notes: list[str]
    ) -> Mapping[str, Any]:
        """Each number is a column, which heads put together (`Head.from_doubts`)."""
        names = dict.fromkeys(name for values in self._rows.values() for name in values)
        said = [self._rows.get(row, {}) for row in rows]
        return {name: np.array([v.get(name, np.nan) for v in said]) for name in names}


UNCERTAINTY = Topic(
    "uncertainty",
    DIAGNOSTICS,
    "for a model whose heads answer several times: how much the answers differ "
    "([docs/uncertainty.md](docs/uncertainty.md))",
    _uncertainty_writer,
    _UncertaintyReader,
)


class ImageReader:
    """Reads a topic of images of one number a pixel back to a column that stays on disk; a `Reader`.

    Args:
        column: its name.
        dtype: of its arrays.
        values: turns what a message holds (`images.planes`) into what the head said.
    """

    def __init__(
        self,
        column: str,
        dtype: str,
        values: Callable[[NDArray[Any]], NDArray[Any]] = lambda plane: plane,
    ) -> None:
        from robot_vision.files.array_stream import StreamWriter  # only recordings are read with it

        self._column, self._dtype, self._values = column, dtype, values
        self._writer = StreamWriter()
        self._numbers: dict[Row, int] = {}
        self._damaged: list[str] = []

    def add(self, row: Row, message: Any) -> None:
        """Takes the message about an image."""
        from robot_vision.images.planes import to_plane  # OpenCV, which launch files need not have

        try:
            plane = to_plane(message)
        except ImageError as error:
            self._damaged.append(str(error))
            return
        number = len(self._numbers)
        self._writer.put(self._column, number, np.asarray(self._values(plane), self._dtype))
        self._numbers[row] = number

    def finish(
        self, rows: Sequence[Row], latched: Mapping[str, Any], notes: list[str]
    ) -> Mapping[str, Any]:
        """Returns the column; a row without a message has None."""
        if self._damaged:
            lost = counted(len(self._damaged), "image")
            notes.append(f"{lost} of {self._column} cannot be read: {self._damaged[0]}")
        numbers = np.array([self._numbers.get(row, -1) for row in rows], np.int64)
        return {self._column: self._writer.stream(self._column, numbers, self._dtype)}


def stack(values: Mapping[Row, Any], rows: Sequence[Row], dtype: Any = np.float64) -> NDArray[Any]:
    """Returns values of one shape as a column over the rows, NaN where one is missing."""
    missing = np.full(np.shape(next(iter(values.values()))), np.nan, dtype)
    return np.array([values.get(row, missing) for row in rows], dtype)
