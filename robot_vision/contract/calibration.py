"""How a head's numbers are made true on images that were not trained on: what it is given, and gives back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.head import Head, NoOptions, Side
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.errors import ConfigError
from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.statistics.bootstrap import Headline, Resampler
from robot_vision.statistics.judging import Judgement

FOLDS = 5
S = TypeVar("S")
Array = NDArray[np.float64]
Numbers = dict[str, Headline]


@dataclass(frozen=True)
class Options:
    """What is calibrated, and how.

    Attributes:
        parts: words of fitters' parts, as `Head.key` makes them.
        given: values of fitters' own options, by name; others are their defaults.
        settings: what the same place is, and the bootstrap.
        seed: of the folds.
    """

    parts: tuple[str, ...]
    given: Mapping[str, Any] = field(default_factory=dict)
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    seed: int = 0


@dataclass
class Fit(Generic[S]):
    """What a part is fitted on: N images, and what the network says of them.

    Attributes:
        spec: the head's settings, with what parts before found.
        outputs: of the graph, and what `Fitter.inner` names, by names that `Head.key` makes; (N, ...).
        truth: (N), what `Fitter.truth` asks for; None where there is none. For a word that begins with
            `image:` a map (h, w) each, as `Trainer.dense` says.
        folds: (N,), for cross-fitting.
        units: (N,), which images are alike and so count as one.
        blocks: (N,), blocks of time.
        constants: present values, by their words.
        resampler: over the images.
        times: gap in seconds between recordings to stamps (N,), ns.
        reference: outputs and truth of training images, where there are any and they are asked for.
        record: the bundle's record of this part.
        was: the settings in the bundle.
        model: the bundle's name.
        seed: of what is drawn.
        settings: what the same place is.
        old: whether the graph is from before constants had names.
        apart: outputs and truth of training images, each by a head that was trained without its part of the
            data (`Trainer.parts`), and the part (M,); None where there are none.
    """

    spec: S
    outputs: Mapping[str, NDArray[Any]]
    truth: Sequence[Any]
    folds: NDArray[np.int64]
    units: NDArray[np.int64]
    blocks: NDArray[np.int64]
    constants: Mapping[str, NDArray[Any]]
    resampler: Resampler
    times: Callable[[float], NDArray[np.int64]]
    reference: tuple[Mapping[str, NDArray[Any]], Sequence[Any]] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    was: S | None = None
    model: str = ""
    seed: int = 0
    settings: EvaluationSettings = field(default_factory=EvaluationSettings)
    old: bool = False
    apart: tuple[Mapping[str, NDArray[Any]], Sequence[Any], NDArray[np.int64]] | None = None


@dataclass
class Fitted:
    """One part's calibration.

    Attributes:
        values: what was found, for the bundle.
        before: numbers of the bundle as it is; `after`: cross-fitted.
        images: that it was fitted on.
        left: why the bundle is left as it is, with both numbers; empty where it gets what follows.
        constants: word to new value.
        spec: changes of the head's settings.
        files: word to new content of the head's files; None takes one away.
        edit: changes the graph in another way, after its constants are set; gets a `bundle.onnx_graph`.
        expected: outputs (N, ...) as the changed graph must give them.
        undoes: other parts whose record does not hold any more, with what to say of it.
        said: lines for the user.
    """

    values: dict[str, Any]
    before: Numbers
    after: Numbers
    images: int
    left: str = ""
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes | None] = field(default_factory=dict)
    edit: Callable[[Any], None] | None = None
    expected: dict[str, NDArray[Any]] = field(default_factory=dict)
    undoes: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def with_temperature(self, temperature: float) -> Fitted:
        """Adds a softmax's temperature, for the graph and the head's settings; returns itself."""
        self.constants = {"temperature": np.array(temperature, np.float32)}
        self.spec = {"temperature": float(np.float32(temperature))}
        return self

    @classmethod
    def tuned(cls, temperature: float, judgement: Judgement, images: int) -> Fitted:
        """Returns what `Fitter.tune` says of a temperature: it stays 1 where another is no better."""
        if judgement.better:
            return cls({"temperature": temperature}, {}, {}, images).with_temperature(temperature)
        left = f"temperature {temperature:.4g} gives a negative log likelihood of {judgement}"
        return cls({"temperature": 1.0}, {}, {}, images, left)

    def record(self) -> dict[str, Any]:
        """Returns plain data for `bundle.yaml`."""
        sides = {"before": self.before, "after": self.after}
        shortened = {k: {name: _short(v) for name, v in n.items()} for k, n in sides.items()}
        return {**self.values, "images": self.images, **shortened}


def _short(value: Headline) -> list[float | None]:
    numbers = (value["value"], value["low"], value["high"])
    return [None if v is None else float(f"{v:.4g}") for v in numbers]


class Fitter(Side, Generic[S]):
    """What `robot-vision calibrate` fits a head with, and training in its end.

    Attributes:
        parts: what can be fitted, in this order; words of `--heads`.
        Options: frozen dataclass of `settings.declared` options.
        inner: what the module computes before its answer is decoded, and fits need.
        turned: whether a true pose needs its rotation, which some data sets do not have
            (`Splits.has_orientation`).
        titles: of the numbers before and after.
    """

    NEEDED = ("parts",)

    parts: ClassVar[tuple[str, ...]]
    Options: type[Any] = NoOptions
    inner: ClassVar[tuple[str, ...]] = ()
    turned: ClassVar[bool] = False
    titles: ClassVar[Mapping[str, str]] = {}

    def __init__(self, head: Head[S, Any]) -> None:
        self.head = head
        self.key = head.key

    @abstractmethod
    def truth(self, part: str) -> str:
        """Returns what images must have: `label`, `pose`, ..."""

    def knows(self, spec: S, value: Any) -> bool:
        """Whether a fit can use this truth."""
        return value is not None

    def notes(self, spec: S, model: str, truth: Sequence[Any]) -> list[str]:
        """Returns what truth and head do not have in common, a line each."""
        return []

    def compares(self, part: str, options: Any) -> bool:
        """Whether images are compared with those that were trained on."""
        return False

    @abstractmethod
    def fit(self, part: str, material: Fit[S], options: Any) -> Fitted:
        """Fits and measures a part.

        Raises:
            ConfigError: too few images; the message says how many are needed.
        """

    def tune(self, material: Fit[S]) -> Fitted | None:
        """Fits what a trained network gets before it is shipped; None for nothing.

        Numbers before and after are not measured, and `values` are for the report.
        """
        return None

    def require(self, part: str, count: int, needed: int, what: str) -> None:
        """Raises ConfigError where there are too few; it says how many are needed."""
        if count < needed:
            raise ConfigError(
                f"{self.key(part)}: {count} {what} are too few to calibrate on: at least {needed} are "
                "needed; give more, or leave it out with --heads"
            )


def poses_of(truth: Sequence[Any]) -> tuple[NDArray[np.bool_], Array, Array]:
    """Returns which (N,) have a pose, and positions (N, 3) and quaternions (N, 4); NaN and one where not."""
    rows = np.array([pose is not None for pose in truth], bool)
    positions = np.full((len(rows), 3), np.nan)
    xyzw = np.tile([0.0, 0.0, 0.0, 1.0], (len(rows), 1))
    for i in np.flatnonzero(rows).tolist():
        positions[i], xyzw[i] = truth[i][:3, 3], xyzw_from_matrix(truth[i][:3, :3])
    return rows, positions, xyzw


def left_alone(
    judgement: Judgement,
    numbers: tuple[Numbers, Numbers],
    what: str,
    stays: str,
    sure: bool = False,
) -> str:
    """Returns why what was fitted is not written, with both numbers; nothing where it is.

    Args:
        judgement: by negative log likelihood.
        numbers: before and after.
        what: was fitted.
        stays: what is kept.
        sure: whether what was fitted must be better beyond noise, and not only better.
    """
    if judgement.worse or (sure and not judgement.better):
        return f"{stays}, since {what} gives a negative log likelihood of {judgement}"
    before, after = (n.get("ece") for n in numbers)
    if before and after and before["high"] is not None and after["value"] is not None:
        if after["value"] > before["high"]:
            return (
                f"{stays}, since {what} gives an expected calibration error of {after['value']:.4f} on "
                f"images left out, and without it {before['value']:.4f} ({before['low']:.4f} to "
                f"{before['high']:.4f})"
            )
    return ""
