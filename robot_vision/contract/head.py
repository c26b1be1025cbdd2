"""What a head is to all who use it. Each has one folder, `robot_vision/heads/KIND`, or a package of its own.

The network, the bundle, the node and the command line know this class and not the heads. What is here needs
NumPy alone; the sides for judging, fitting and training are imported when they are asked for.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.errors import ConfigError, unknown

if TYPE_CHECKING:
    from robot_vision.contract.attachments import Attachments
    from robot_vision.contract.topics import Latched, LeftOut, Shot, Topic
    from robot_vision.images.canvas import Canvas

DTYPES = ("float32", "float16", "uint8", "uint16", "int32", "int64", "bool")
COMPARISONS = {"relative": 1e-3, "up_to_sign": 1e-3, "share": 0.999}  # to their tolerances

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Output:
    """One output of the graph, without the batch axis.

    Attributes:
        shape: sizes; fixed, as the input's size is.
        dtype: one of `DTYPES`.
        same: how export compares torch's and ONNX Runtime's: `relative` (largest difference over largest
            value), `up_to_sign` (quaternions), `share` (class ids: share of numbers that are equal).
        tolerance: of that comparison; None for the default in `COMPARISONS`.
    """

    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    same: str = "relative"
    tolerance: float | None = None

    def __post_init__(self) -> None:
        for what, value, allowed in (
            ("dtype of an output", self.dtype, DTYPES),
            ("comparison of an output", self.same, tuple(COMPARISONS)),
        ):
            if value not in allowed:
                raise ConfigError(unknown(what, value, allowed))

    @property
    def text(self) -> str:
        """The shape with the batch axis, and the type where it is not float32."""
        shape = f"({', '.join(['N', *map(str, self.shape)])})"
        return shape if self.dtype == "float32" else f"{self.dtype} {shape}"


@dataclass(frozen=True)
class Tap:
    """What a head reads of the backbone.

    Attributes:
        name: of the backbone's tap; empty for its default.
        kind: of the default: `features` (a vector), `map` (a feature map) or `token` (a vector of the whole
            image: a transformer's class token, else the features).
        stride: of the map that is wanted, in pixels of the input; None for the last.
    """

    name: str = ""
    kind: str = "features"
    stride: int | None = None


@dataclass(frozen=True)
class Answer:
    """What a head says of one image: NumPy arrays and numbers."""

    CHECKED: ClassVar[Mapping[str, str]] = {}  # field to its name in a refusal

    def not_finite(self) -> str:
        """Returns why nobody may be given this: NaN or infinity in a field of `CHECKED`; else empty."""
        for name, words in self.CHECKED.items():
            value = getattr(self, name)
            if value is not None and not np.isfinite(value).all():
                return f"the network's {words} is not finite"
        return ""


@dataclass(frozen=True)
class Material:
    """What a bundle holds for a head next to the graph.

    Attributes:
        calibration: the records of `robot-vision calibrate` for this head, by part.
        files: what `Head.read_files` made of the bundle's files that this head owns.
    """

    calibration: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NoOptions:
    """The options of a head that has none."""


@dataclass(frozen=True)
class Column:
    """What is kept of an answer between prediction and evaluation.

    Attributes:
        shape: without the frame's axis; -1 is taken from the first answer.
        dtype: as NumPy names it.
        stream: whether it is of the size of images: it then stays on disk (`files.array_stream.Stream`), each
            array as `dtype`, and a frame may have none.
    """

    shape: tuple[int, ...] = ()
    dtype: str = "float64"
    stream: bool = False


class Side(ABC):  # noqa: B024 (what is abstract is up to each)
    """A class that a head's package subclasses. One that is not complete is refused when it is made.

    Attributes:
        NEEDED: attributes that a subclass must have, besides the abstract methods.
    """

    NEEDED: ClassVar[tuple[str, ...]] = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Refuses a class that lacks something.

        Raises:
            ConfigError: the message names the class and all that it lacks.
        """
        if missing := cls.missing():
            raise ConfigError(f"{cls.__module__}.{cls.__qualname__} lacks {', '.join(missing)}")
        return super().__new__(cls)

    @classmethod
    def missing(cls) -> list[str]:
        """Returns the methods and attributes that every such class must have and this one has not."""
        return [*sorted(cls.__abstractmethods__), *(n for n in cls.NEEDED if not hasattr(cls, n))]


S = TypeVar("S")
A = TypeVar("A", bound=Answer)
H = TypeVar("H", bound="Head[Any, Any]")


class Head(Side, Generic[S, A]):
    """A head under a name. Each kind has one subclass; its `HEAD` is named as its kind.

    Attributes:
        kind: the folder's or entry point's name, and the default name.
        name: key under `network: heads:` in bundle.yaml, in `Prediction` and in the training config.
        answer_key: key in JSON lines of a head that is named as its kind.
        Spec: frozen dataclass of what bundle.yaml says, with `KIND`.
        Answer: what it says of an image.
        Options: frozen dataclass of settings of node and command line.
        sampled: whether it may answer several times; its `Spec` then has `dropout`.
        large_json: whether its JSON is long, so that `infer --no-descriptor` leaves it out.
        files: of a bundle, besides the graph and the weights.
        needs: what the node must listen to: `mounting`, for where the camera is on the robot; `camera_info`,
            for `Shot.intrinsics`.
        sides: of `judge`, `fitter` and `trainer` those that there are, to `module:Class`, which is imported
            when it is asked for.
    """

    NEEDED = ("kind", "answer_key", "Spec", "Answer")

    kind: ClassVar[str]
    answer_key: ClassVar[str]
    Spec: type[S]
    Answer: type[A]
    Options: type[Any] = NoOptions
    sampled: ClassVar[bool] = False
    large_json: ClassVar[bool] = False
    files: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[frozenset[str]] = frozenset()
    sides: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        self.name = self.kind

    def named(self: H, name: str) -> H:
        """Returns this head under another name."""
        if name == self.name:
            return self
        other = copy.copy(self)
        other.name = name
        return other

    def key(self, word: str) -> str:
        """Returns the name of an output, constant, column, section, option or file of this head."""
        return word if self.name == self.kind else f"{self.name}.{word}"

    def topic(self, word: str) -> str:
        """Returns the name of a topic of this head."""
        return word if self.name == self.kind else f"{self.name}/{word}"

    @property
    def json_key(self) -> str:
        """Key in JSON lines."""
        return self.answer_key if self.name == self.kind else self.name

    def own(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the entries of a mapping whose keys `key` made, by their words."""
        prefix = self.key("")
        return {
            key[len(prefix) :]: value
            for key, value in record.items()
            if key.startswith(prefix) and "." not in key[len(prefix) :]
        }

    # The graph

    def taps(self, spec: S) -> tuple[Tap, ...]:
        """Returns what it reads of the backbone."""
        return (Tap(getattr(spec, "tap", "")),)

    @abstractmethod
    def outputs(self, spec: S, several: EpistemicSpec | None) -> dict[str, Output]:
        """Returns its outputs of the graph; names are made by `key`."""

    @abstractmethod
    def decoder(
        self, spec: S, several: EpistemicSpec | None, material: Material
    ) -> Callable[[Arrays], Sequence[A]]:
        """Returns what turns the arrays (N, ...) of a batch into N answers; threads may share it."""

    # The bundle

    def to_bundle(self, spec: S) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Returns what bundle.yaml says of the head, and content of its files that come from the spec."""
        return plain(spec), {}

    def from_bundle(
        self, settings: Mapping[str, Any], files: Mapping[str, bytes]
    ) -> Mapping[str, Any]:
        """Returns the spec's settings, from bundle.yaml's and the files; the reverse of `to_bundle`.

        Raises:
            ConfigError: a file cannot be read.
        """
        return settings

    def read_files(self, spec: S, files: Mapping[str, bytes]) -> dict[str, Any]:
        """Returns what the decoder needs of the files.

        Raises:
            ConfigError: one is missing, is not needed, or cannot be read.
        """
        return {}

    # Topics

    def topics(self, spec: S | None) -> Sequence[Topic]:
        """Returns its topics; for None all that there could be, for recordings without a bundle."""
        return ()

    def options(self, given: Mapping[str, Any]) -> Any:
        """Returns its options out of flat settings; those that are not given have their defaults.

        Args:
            given: by `key`, or by the option's name for all heads of a kind.
        """
        names = [f.name for f in dataclasses.fields(self.Options)]
        keys = {name: self.key(name) if self.key(name) in given else name for name in names}
        return self.Options(**{name: given[key] for name, key in keys.items() if key in given})

    def resolve(self, options: Any, spec: S, material: Material) -> Any:
        """Returns the options as they hold for a model: thresholds and frames are filled in."""
        return options

    def ineffective(self, options: Any, spec: S, material: Material) -> str:
        """Returns why options have no effect on a model; empty where they have."""
        return ""

    def published(self, answer: A, shot: Shot, spec: S, options: Any) -> A | LeftOut:
        """Returns what is published of an answer, or why nothing is: once a frame, for all topics."""
        return answer

    def latched(self, spec: S | None) -> Sequence[Latched]:
        """Returns what is published once at activation and after a change of options; None as in `topics`."""
        return ()

    # For people

    def draw(self, canvas: Canvas, answer: A, spec: S, options: Any) -> None:
        """Draws an answer onto the image that it is about."""

    @abstractmethod
    def json(self, answer: A, spec: S, options: Any, attach: Attachments | None) -> Any:
        """Returns an answer as plain data for a JSON line; None leaves it out.

        Args:
            answer: to be said.
            spec: of the head.
            options: in force.
            attach: writes what is said of each pixel to files; None where nobody wants them.
        """

    def heading(self, spec: S) -> str:
        """Returns the heading of the column in the table of answers."""
        return self.name

    @abstractmethod
    def cell(self, answer: A, spec: S, options: Any) -> str:
        """Returns an answer as one line of the table."""

    def tally(self, answer: A, spec: S, options: Any) -> str | None:
        """Returns the word by which frames are counted below the table; None for no count."""
        return None

    def about(self, spec: S) -> str:
        """Returns one line for `robot-vision info` and the model card."""
        return self.kind

    def doubts(self, answer: A) -> Mapping[str, float]:
        """Returns by how much several answers differ, as named numbers for `~/uncertainty`."""
        return {}

    def from_doubts(self, said: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Returns the columns of what `doubts` said of N images; NaN where nothing was."""
        return {}

    # What is kept between prediction and evaluation

    @abstractmethod
    def columns(self, spec: S) -> Mapping[str, Column]:
        """Returns the columns; names are made by `key`."""

    @abstractmethod
    def pack(self, answer: A) -> dict[str, Any]:
        """Returns an answer's row of the columns."""

    @abstractmethod
    def unpack(self, row: Mapping[str, Any], spec: S, material: Material) -> A:
        """Returns the answer of a row."""

    # What `contract/check.py` tries it with

    def example(self) -> S:
        """Returns small settings."""
        names = {f.name for f in dataclasses.fields(cast("Any", self.Spec))}
        return self.Spec(**({"dropout": 0.2} if "dropout" in names else {}))

    def example_outputs(
        self, spec: S, several: EpistemicSpec | None, count: int, rng: np.random.Generator
    ) -> dict[str, NDArray[Any]]:
        """Returns outputs of the graph (N, ...) as a network might give them.

        Numbers are in [0.1, 1), integers 0 or 1, vectors sum to 1, square matrices are positive definite.
        """
        found = {}
        for name, output in self.outputs(spec, several).items():
            shape, dtype = (count, *output.shape), np.dtype(output.dtype)
            values = rng.uniform(0.1, 1, shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
            if dtype.kind == "f" and len(output.shape) == 1:
                values = values / values.sum(axis=1, keepdims=True)
            if dtype.kind == "f" and len(output.shape) == 2 and shape[1] == shape[2]:
                values = (values + values.swapaxes(1, 2)) / 20 + shape[1] * np.eye(shape[1])
            found[name] = values.astype(dtype)
        return found

    # The other sides

    def judge(self) -> Any:
        """Returns what scores its answers against the truth.

        Raises:
            ConfigError: the head has nothing that does, or it cannot be imported.
        """
        return self._side("judge", "judges")()

    def fitter(self) -> Any | None:
        """Returns what `robot-vision calibrate` fits with; None where there is nothing to fit."""
        return self._side("fitter", "fits")(self) if "fitter" in self.sides else None

    def trainer(self) -> Any:
        """Returns what builds and trains its module; imports torch.

        Raises:
            ConfigError: the head has nothing that does, or it cannot be imported.
        """
        return self._side("trainer", "trains")(self)

    def _side(self, word: str, does: str) -> Any:
        if word not in self.sides:
            raise ConfigError(
                f"Nothing {does} a {self.kind} head: its package has no `{word}` for it"
            )
        module, _, name = self.sides[word].partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except Exception as error:  # a package of others may fail in any way
            if module.startswith("robot_vision."):
                raise
            raise ConfigError(
                f"The {word} of the {self.kind} head cannot be imported ({self.sides[word]}): "
                f"{type(error).__name__}: {error}"
            ) from error


def plain(spec: Any) -> dict[str, Any]:
    """Returns a dataclass of settings as plain data for YAML."""
    items = dataclasses.asdict(spec).items()
    return {key: list(value) if isinstance(value, tuple) else value for key, value in items}


def short(value: float) -> float:
    """Returns a number in the digits that float32 has, for JSON."""
    return float(f"{value:.7g}")


def short_numbers(values: NDArray[Any]) -> list[float]:
    """Returns the numbers of a vector in the digits that float32 has."""
    return [short(value) for value in values.tolist()]
