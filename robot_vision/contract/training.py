"""What a head brings to its training. Torch is imported by what uses it, so that settings are read without.

`heads/KIND/training.py` subclasses `Trainer`; its settings are the section of the head's name in a training
configuration. A head finds what is its own by the words of its kind: `targets["label"]` is the target
`lights.label` of a classifier that is named `lights`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.head import Head, Side
from robot_vision.contract.metrics import Metric
from robot_vision.errors import ConfigError, unknown
from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.settings.by_name import make_by_name
from robot_vision.settings.declared import option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robot_vision.geometry.intrinsics import Intrinsics
    from robot_vision.images.window import Window

NONE = "none"  # name of no loss, no augmentation, no weights
Metrics = dict[str, Any]
Targets = Mapping[str, "Tensor"]
Shape = tuple[int, ...]
S = TypeVar("S")


@dataclass(frozen=True)
class HeadSettings:
    """How a head is trained; each kind says which loss is the default."""

    loss: str = option("", "name of the head's loss, or none; empty takes its first")
    settings: dict[str, Any] = option(dict, "settings of the head's loss")
    weight: float = option(1.0, "weight of the head's loss in joint training")


@dataclass(frozen=True)
class FoldSettings(HeadSettings):
    """How a head is trained that may be calibrated on training images held out in turn."""

    folds: int = option(
        4,
        "folds of training blocks to calibrate on, if there are no validation frames and the "
        "backbone is frozen",
        low=2,
        high=100,
    )


@dataclass(frozen=True)
class FoldBlockSettings(FoldSettings):
    """The same, where how sure it is depends on how far away the training images are."""

    fold_block: int = option(
        50,
        "number of consecutive training images that are held out together: the further they are from the "
        "others, the less sure answers become; choose the distance that a robot's images will have",
        low=1,
        high=10**6,
    )


@dataclass(frozen=True)
class DataFacts:
    """What a head's settings take from the data and the network's input.

    Attributes:
        labels: of each word of truth that is a class, the classes of the training images, sorted; of one
            that is an image of class ids, the classes in the order of the ids.
        map_frame: of the poses.
        input: (height, width) of the network's input, pixels.
        colours: of the classes of each word that is an image, RGB; empty where nothing says them.
        positions: float64 (N, 3), metres, of the cameras of the training images that have poses.
        datum: `latitude,longitude` of the map's origin where x is east and y is north; `earth` for positions
            from its middle; empty where nobody knows it.
        camera: returns the camera of all training images, in pixels of the network's input; None where the
            data do not say it. It may read an image, and raises ConfigError where the images have several.
    """

    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    map_frame: str = "map"
    input: tuple[int, int] = (224, 224)
    colours: Mapping[str, tuple[tuple[int, int, int], ...]] = field(default_factory=dict)
    positions: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    camera: Callable[[], Intrinsics | None] = lambda: None
    datum: str = ""


class Target(NamedTuple):
    """What a head learns, of every sample.

    Attributes:
        values: (N, ...).
        none: the value that says that a sample has no truth.
    """

    values: Tensor
    none: Any


@dataclass(frozen=True)
class Dense:
    """What a head learns of every pixel, of truth under a word that begins with `image:`.

    Attributes:
        size: (height, width) of the map that its module gives, which covers the network's whole input.
        dtype: uint8 for ids of classes, float16 or float32 for numbers in the unit of the truth.
        none: the value of pixels without truth; also where the network sees no image.
        along_axis: numbers are distances along the camera's optical axis, which change where augmentation
            turns the camera.
    """

    size: tuple[int, int]
    dtype: str = "float32"
    none: float = 0.0
    along_axis: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in ("uint8", "float16", "float32"):
            raise ConfigError(
                unknown("dtype of dense truth", self.dtype, ("uint8", "float16", "float32"))
            )


@dataclass(frozen=True)
class Features:
    """One split, as a head sees it.

    Attributes:
        targets: of all samples, those of the head by their words.
        of: returns what the head's taps give for the samples of these numbers, on the CPU.
        device: of the head.
    """

    targets: Targets
    of: Callable[[Tensor], tuple[Tensor, ...]]
    device: Any = "cpu"

    def __len__(self) -> int:
        return len(self.targets["sequence"])

    def first(self) -> Tensor:
        """Returns the first tap of every sample as float32."""
        import torch

        return self.of(torch.arange(len(self)))[0].float()


@dataclass(frozen=True)
class Published:
    """What a checkpoint of another program is here.

    Attributes:
        name: of the method, for people.
        backbone: that it has.
        spec: of the head.
        size: (height, width) of the input.
        pairs: what names in the file begin with, to what ours begin with: `BACKBONE` or `HEAD` and what
            follows it there. The first that fits counts.
        changed: names in the file to tensors that take the place of theirs.
        unused: what names begin with whose tensors its own program does not use either.
    """

    BACKBONE: ClassVar[str] = "backbone."
    HEAD: ClassVar[str] = "head."

    name: str
    backbone: str
    spec: Any
    size: tuple[int, int]
    pairs: tuple[tuple[str, str], ...]
    changed: Mapping[str, Tensor] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Share:
    """This process's share of the batches.

    Attributes:
        batch_size: images in a step, of all processes.
        seed: of everything random.
        rank: of this process.
        world: number of processes.
    """

    batch_size: int
    seed: int = 0
    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class Asked:
    """What `robot-vision explain` explains of the answer to an image.

    Attributes:
        window: where the image lies in the network's input.
        label: a class; empty for what the head itself says.
        box: x, y, width and height in pixels of the image, for heads that answer for each pixel; None for a
            region that the head chooses.
    """

    window: Window
    label: str = ""
    box: tuple[int, int, int, int] | None = None

    def region(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Returns which pixels of a map of a size (h, w) are asked about; without a box, all of the image.

        Raises:
            ConfigError: the box is not in the image, or the network sees none of its pixels.
        """
        if self.box is None:
            return self.window.covered(size)
        (x, y, across, down), (height, width) = self.box, self.window.camera
        numbers = np.arange(size[0] * size[1]).reshape(size)
        found: Any = ()
        if (
            0 <= x
            and 0 <= y
            and across >= 1
            and down >= 1
            and x + across <= width
            and y + down <= height
        ):
            found = np.unique(self.window.to_camera(numbers, -1)[y : y + down, x : x + across])
        region = np.isin(numbers, found)
        if not region.any():
            what = f"Pixel {x} {y}" if self.at_pixel else f"Region {x} {y} {across} {down}"
            raise ConfigError(
                f"{what}: the network sees no such {'pixel' if self.at_pixel else 'pixels'} of an image of "
                f"{width} x {height}; x is counted from the left and y from the top"
            )
        return region

    @property
    def at_pixel(self) -> bool:
        """Whether one pixel is asked about."""
        return self.box is not None and self.box[2:] == (1, 1)

    @property
    def where(self) -> str:
        """Where that is, for people; empty without a box."""
        return "" if self.box is None else "at the pixel" if self.at_pixel else "in the region"


class Evidence(NamedTuple):
    """The number by whose gradient an answer is explained.

    Attributes:
        value: ().
        text: what it speaks for, in a line.
        region: pixels of the head's map of which that is said, bool (h, w); None for the image.
        both: whether parts that lower the number count as those that raise it do, as for a measurement.
    """

    value: Tensor
    text: str
    region: NDArray[np.bool_] | None = None
    both: bool = False


class Solved(NamedTuple):
    """A head that was trained on features to the minimum of its loss, without epochs.

    Attributes:
        outputs: what it computes and decodes of each training sample, by a fit without it: (N, ...) by words.
        best: share in the score (`Trainer.shares`) of a sample that is answered without any error.
        text: how it was trained, in a line.
    """

    outputs: dict[str, Tensor]
    best: float
    text: str


class Chooser(Protocol):
    """Chooses a process's batches, from the seed and what it remembers."""

    def batches(self, epoch: int) -> Sequence[dict[str, Tensor]]:
        """Returns the batches of an epoch: `index` int64 (n,), and more if the loss wants it."""

    def state(self) -> dict[str, Tensor]:
        """Returns what it remembers, for a checkpoint."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from a checkpoint."""


class Sampled:
    """A chooser whose sampler is determined by seed and epoch alone."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def batches(self, epoch: int) -> Sequence[dict[str, Tensor]]:
        """See `Chooser.batches`."""
        import torch

        self.sampler.set_epoch(epoch)
        return [{"index": torch.tensor(batch, dtype=torch.int64)} for batch in self.sampler]

    def state(self) -> dict[str, Tensor]:
        """Nothing is remembered."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Nothing is remembered."""


class Trainer(Side, Generic[S]):
    """What training knows of a kind of head, for one head of that kind.

    A head's module is called with the tensors of its taps, (N, C) or (N, C, h, w), and returns what losses
    are computed on; its `decode` makes final values of these, by the words of `Head.outputs`. A head that
    may answer several times has `set_passes(passes, seed)`, and `join(answers)` for those of an ensemble.

    Attributes:
        Settings: a `HeadSettings`.
        losses: name to `module:Class`; the first is the default where `Settings` names none.
        baselines: word in `baselines:` to what it does.
        harms: of flip, crop, mixup and viewpoint: augmentations that make its truth untrue.
        mirrored: of its numbers, as the head calls them, those that change their sign in a mirror image.
        truth: the word of what a sample must have, or what such words begin with.
        looks_up: measured by what it finds among the training images.
        balances: it learns classes, which batches may have equally often.
        settings: a run's; the defaults of `Settings` until they are set.
        linear: a linear layer, whose members all learn the same of the same features.
        takes: what a backbone's last layer must say (`Architecture.says`) to become the module's `linear`,
            where it fits; empty takes none.
    """

    NEEDED = ("truth",)

    Settings: type[HeadSettings] = HeadSettings
    losses: ClassVar[Mapping[str, str]] = {}
    baselines: ClassVar[Mapping[str, str]] = {}
    harms: ClassVar[frozenset[str]] = frozenset()
    mirrored: ClassVar[frozenset[str]] = frozenset()
    truth: ClassVar[str]
    looks_up: ClassVar[bool] = False
    balances: ClassVar[bool] = False
    linear: ClassVar[bool] = False
    takes: ClassVar[str] = ""

    @classmethod
    def missing(cls) -> list[str]:
        """See `Side.missing`."""
        lacks = cls.chooses is not Trainer.chooses and cls.chooser is Trainer.chooser
        return [*super().missing(), *(["chooser"] if lacks else [])]

    def __init__(self, head: Head[Any, Any]) -> None:
        self.head = head
        self.name = head.name
        self.settings: Any = self.Settings()

    # Settings and data

    @abstractmethod
    def spec(self, settings: Mapping[str, Any], facts: DataFacts) -> S:
        """Returns what the network is built from: the section `network.NAME`, and the data.

        Raises:
            ConfigError: an unknown setting, or one that the data say.
        """

    def word(self) -> str:
        """Returns the word of truth that the head learns from: `truth`, and `image:NAME` for `image`."""
        return f"image:{self.name}" if self.truth == "image" else self.truth

    def words(self) -> tuple[str, ...]:
        """Returns the words of truth of a head that learns from several."""
        return (self.word(),)

    def own(self, targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns targets, or a batch, as the head knows them: its own under their words.

        Dense truth of a head that is not named as its kind comes under `image:KIND` too.
        """
        found = {**targets, **self.head.own(targets)}
        for word in self.words():
            if word.startswith("image:") and word in targets:
                found[f"image:{self.head.kind}"] = targets[word]
        return found

    def check(self, splits: Any, where: str) -> None:
        """Raises ConfigError where the data (a `datasets.sample.Splits`, of `where`) lack the truth."""
        for word in self.words():
            known = sum(sample.of(word) is not None for sample in splits.train)
            if known < 2:
                raise ConfigError(
                    f"The {self.name} head needs {word}; {known} of {len(splits.train)} training images "
                    f"of {where} have it"
                )

    def suggested(self, splits: Any) -> Mapping[str, Any]:
        """Returns the settings that these data (a `datasets.sample.Splits`) want otherwise than by default.

        They are written into a new project's configuration, where people see and change them.
        """
        return {}

    def suggested_network(self) -> Mapping[str, Any]:
        """Returns what a new project on MobileNetV2 has below `network` for this head."""
        return {}

    def check_epochs(self, epochs: int) -> None:
        """Raises ConfigError where a stage has too few epochs to teach the head all that it says."""

    def taught(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, may be chosen: the loss has taught all that the head says."""
        return True

    def targets(self, samples: Sequence[Any], spec: S) -> dict[str, Target]:
        """Returns targets by `Head.key`, besides label, pose and sequence, which every sample set has."""
        return {}

    def dense(self, spec: S) -> dict[str, Dense]:
        """Returns what it learns of every pixel, by words of truth such as `image:depth`.

        Batches, and the targets of `measure`, `reference`, `loss` and `Features`, then hold a map (N, h, w)
        under that word.
        """
        return {}

    def classes(self, spec: S) -> dict[str, int]:
        """Returns the targets that are classes, by `Head.key`, and how many classes there are."""
        return {}

    def chooses(self) -> bool:
        """Whether it chooses the batches; one head of a run can."""
        return type(self).chooser is not Trainer.chooser

    def needs_images(self) -> bool:
        """Whether the loss looks at the images, so that features alone are not enough."""
        return False

    def keeps_order(self) -> bool:
        """Whether images must stay next to their neighbours of the sequence."""
        return False

    # The module

    @abstractmethod
    def module(self, spec: S, shapes: Sequence[Shape]) -> nn.Module:
        """Builds it with random weights, for taps of these shapes."""

    def built(self, spec: S, module: Any) -> S:
        """Returns the spec with what follows from the module: sizes."""
        return spec

    def published(
        self, state: Mapping[str, Tensor], size: tuple[int, int] | None
    ) -> Published | None:
        """Returns the network that a file's tensors are, if they are a published one with this head.

        Args:
            state: names to tensors.
            size: (height, width) of the input that is wanted; None for the method's own.

        Raises:
            ConfigError: they are nearly such a network.
        """
        return None

    def notes(self, spec: S, facts: DataFacts) -> Sequence[str]:
        """Returns what its settings leave out of the training images, a line each."""
        return ()

    def untrained(self, pretrained: bool, images: int) -> str:
        """Returns what a bundle must say whose head has seen no training; empty where that is nothing.

        Args:
            pretrained: whether it has the backbone's last layer, or there was none to take.
            images: that it was prepared by.
        """
        return f"The {self.name} head is not trained: its answers mean nothing"

    def evidence(
        self, module: Any, raw: dict[str, Tensor], spec: S, asked: Asked
    ) -> Evidence | None:
        """Returns what `robot-vision explain` shows of an answer; None where it cannot be asked that.

        Args:
            module: of the head.
            raw: what it computed of one image.
            spec: of the head.
            asked: a label that the head does not have, or a pixel of one that answers for the whole image, is
                for other heads.
        """
        return None

    # A run, in its order

    def prepare(self, module: Any, spec: S, features: Features, seed: int) -> None:
        """Sets what data say before the first step: statistics, clusters."""

    def solve(
        self, module: Any, spec: S, features: Features, folds: NDArray[np.int64]
    ) -> Solved | None:
        """Trains the module on fixed features to the minimum of its loss; None where epochs have to.

        Args:
            module: of the head.
            spec: of the head.
            features: of the training samples, in memory.
            folds: (N,), which samples are left out together to choose settings.
        """
        return None

    def loss(self, spec: S, targets: Targets) -> nn.Module | None:
        """Builds the loss; None for none."""
        if self.settings.loss == NONE:
            return None
        name = self.settings.loss or next(iter(self.losses))
        return self.make_loss(name, **self.loss_settings(spec, targets))

    def loss_settings(self, spec: S, targets: Targets) -> dict[str, Any]:
        """Returns the settings of the loss, with what follows from the targets of the training samples."""
        return dict(self.settings.settings)

    def make_loss(self, name: str, **settings: Any) -> nn.Module:
        """Builds a loss of `losses`: a module called as `loss(raw, batch)` that gives a `LossValue`.

        Its parameters, if it has any, are learned with the network's and belong into the optimiser and
        the checkpoint (without weight decay).

        Raises:
            ConfigError: an unknown name or setting (the message names the nearest), or a value out of
                range.
        """
        made: nn.Module = make_by_name(f"{self.name} loss", self.losses, name, settings)
        return made

    def chooser(self, module: Any, features: Features, share: Share) -> Chooser | None:
        """Returns what chooses the batches of a head that `chooses`; else all images come in random order."""
        return None

    def finish(self, module: Any, spec: S, features: Features) -> None:
        """Sets what data say after the last step: whitening, views to compare with."""

    def parts(self, targets: Targets, spec: S) -> NDArray[np.int64] | None:
        """Returns of which part of what was taught each training sample (N,) is, -1 for none of them.

        After training each part is left out in turn, and what a head without it says of it is given to the
        fitter (`Fit.apart`); None where that is not needed.
        """
        return None

    # What it is worth

    @abstractmethod
    def measure(
        self,
        outputs: Targets,
        targets: Targets,
        spec: S,
        stored: tuple[Targets, Targets] | None = None,
    ) -> tuple[Metrics, NDArray[np.float64] | None]:
        """Measures final values, wherever they come from.

        Args:
            outputs: by the words of `Head.outputs`, (N, ...).
            targets: of the N samples, by their words.
            spec: of the head.
            stored: outputs and targets of the training images, where the head `looks_up`.

        Returns:
            The metrics, and what `score` averages, a row for each of the N samples: NaN where one has no
            truth; None where there is nothing.
        """

    def shown(self) -> dict[str, Metric]:
        """Returns what tables show of `measure`'s numbers, by their keys there: those of the head's judge.

        By the first it is said whether a baseline is stronger; the first three are in the line of an epoch.
        """
        if "judge" not in self.head.sides:
            return {}
        return {m.key: m for section in self.head.judge().sections() for m in section.metrics}

    def reference(self, train: Targets, targets: Targets) -> Any:
        """Returns what `score` and `shares` compare with: what an answer without an image is worth."""
        return None

    def score(self, metrics: Metrics, reference: Any) -> float | None:
        """Returns the number by which checkpoints are compared, higher is better; None without truth."""
        return None

    def shares(self, each: NDArray[np.float64], reference: Any) -> NDArray[np.float64]:
        """Returns each sample's share (N,) in the score, of the rows that `measure` gave."""
        mean: NDArray[np.float64] = each.mean(axis=1)
        return mean

    def run_baselines(
        self, names: Sequence[str], seen: Features, asked: Features, spec: S, seed: int
    ) -> dict[str, Metrics]:
        """Returns what simple methods make of the same features, by their titles."""
        return {}


def poses_of(targets: Targets) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the true positions (N, 3), NaN where there is none, and quaternions (N, 4) of samples."""
    poses = targets["T_map_camera"].double().numpy()
    known = targets["has_pose"].numpy()
    xyzw = np.array([xyzw_from_matrix(pose[:3, :3]) for pose in poses]).reshape(-1, 4)
    return np.where(known[:, None], poses[:, :3, 3], np.nan), xyzw


def require_poses(name: str, splits: Any, where: str) -> None:
    """Raises ConfigError unless two training samples have poses."""
    posed = sum(s.T_map_camera is not None for s in splits.train)
    if posed < 2:
        raise ConfigError(
            f"The {name} head needs poses; {posed} of {len(splits.train)} training images of {where} have one"
        )
