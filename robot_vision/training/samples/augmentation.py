"""Augmentation by name: for labels alone, or true to poses. Reproducible by seed, epoch and sample.

What happens to a sample depends on (seed, epoch, index) and on nothing else: not on the batch that it is
in, nor on how many threads or processes load data. One that a balanced epoch draws several times looks
otherwise each time. Images are changed one by one, as RGB uint8 (H, W, 3):
OpenCV's uint8 kernels on an image that stays in the cache are faster on a CPU than tensors of a batch, and
they let go of Python's lock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_vision.contract.spec import NetworkSpec
from robot_vision.contract.training import NONE, Dense
from robot_vision.errors import ConfigError, unknown
from robot_vision.training.config import TrainingConfig
from robot_vision.training.samples.mixup import Mixup
from robot_vision.training.samples.photometric import PhotometricSettings, photometric
from robot_vision.training.samples.viewpoint import (
    FILL,
    ViewpointSettings,
    draw_turn,
    seen_before,
    turn,
)

Image = NDArray[np.uint8]
NAMES = ("none", "labels", "poses")
_DRAW_BITS = 40  # of a sample's number: above them stands how often it was drawn before


class Augmented(NamedTuple):
    """An augmented sample.

    Attributes:
        image: RGB uint8 (H, W, 3), as large as before.
        T_map_camera: float64 (4, 4), of the camera that would have taken this image.
        camera_matrix: K (3, 3) of that camera, in pixels; None where it is not known.
        moved: the homography (3, 3) from its pixels to those of the image before; None where all stay. Its
            third coordinate is by how much further along its axis the camera saw a point before.
    """

    image: Image
    T_map_camera: NDArray[np.float64]
    camera_matrix: NDArray[np.float64] | None
    moved: NDArray[np.float64] | None = None


Augmentation = Callable[[Image, Any, int, int], Augmented]


@dataclass(frozen=True)
class LayoutSettings:
    """For labels that hold wherever in the image a thing is, and whichever way it is turned.

    Attributes:
        crop_scale: smallest share of the image's area that is kept; 1 crops nothing.
        crop_ratio: largest change of the aspect ratio.
        flip: probability of a mirror image. 0 where left and right matter: arrows, text, rooms that are
            each other's mirror image.
        rotation_deg: largest rotation.
    """

    crop_scale: float = 0.5
    crop_ratio: float = 4 / 3
    flip: float = 0.5
    rotation_deg: float = 8.0

    def __post_init__(self) -> None:
        limits = {
            "crop_scale": (0.01, 1.0),
            "crop_ratio": (1.0, 10.0),
            "flip": (0.0, 1.0),
            "rotation_deg": (0.0, 180.0),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}: it must be from {low:g} to {high:g}")


class LabelAugmentation:
    """Random resized crop, rotation, mirroring and light, for classification; poses are lost.

    Crop, rotation and mirroring are one affine map and one resampling. torchvision's transforms would
    take three, and draw from a generator that all threads of a process share.

    Args:
        layout: how much may move.
        light: how much may change otherwise.
        seed: of everything random.
    """

    def __init__(
        self,
        layout: LayoutSettings | None = None,
        light: PhotometricSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.layout = layout or LayoutSettings()
        self.light = light or PhotometricSettings()
        self.seed = seed

    def __call__(self, image: Image, T_map_camera: Any, epoch: int, index: int) -> Augmented:
        """Returns the view; its pose is NaN, because cropping and mirroring make it untrue."""
        rng = np.random.default_rng(_seed(self.seed, epoch, index))
        affine = draw_layout(self.layout, image.shape[0], image.shape[1], rng)
        image = photometric(moved(image, affine), self.light, rng)
        return Augmented(image, np.full((4, 4), np.nan), None, np.vstack([affine, [0, 0, 1.0]]))


def draw_layout(
    s: LayoutSettings, height: int, width: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Returns the affine map (2, 3) from pixels of the result to pixels of the image.

    The crop is torchvision's RandomResizedCrop: an area uniform in [crop_scale, 1] and a log-uniform
    ratio, inside the image. The image may have been squashed, so ratios are relative to its own.
    """
    area = rng.uniform(s.crop_scale, 1.0)
    stretch = np.exp(rng.uniform(-1, 1) * np.log(s.crop_ratio) / 2)
    kept = np.minimum(np.sqrt(area) * np.array([stretch, 1 / stretch]), 1.0)  # of width, height
    size = np.array([width, height])
    corner = rng.uniform(0, 1, 2) * (1 - kept) * size
    mirrored, angle = rng.random() < s.flip, np.radians(rng.uniform(-1, 1) * s.rotation_deg)
    scale = np.diag(kept * ([-1, 1] if mirrored else [1, 1]))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ scale
    # Centres meet: pixel (x, y) covers [x - 1/2, x + 1/2].
    centre = corner + kept * size / 2 - 0.5
    return np.concatenate([matrix, (centre - matrix @ ((size - 1) / 2))[:, None]], axis=1)


def moved(image: Image, affine: NDArray[np.float64]) -> Image:
    """Returns the image resampled by an affine map (2, 3) from the result's pixels to its own."""
    height, width = image.shape[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(image, affine, (width, height), flags=flags, borderValue=FILL)
    return np.asarray(out, np.uint8)


@dataclass(frozen=True)
class PoseSettings:
    """For poses: light, lens, occlusion, and turns of the camera that are entered into its pose."""

    photometric: PhotometricSettings = field(default_factory=PhotometricSettings)
    viewpoint: ViewpointSettings = field(default_factory=ViewpointSettings)


class PoseAugmentation:
    """Changes that keep poses true; also the one to use when heads are trained together. No mirroring.

    Args:
        settings: how much.
        seed: of everything random.
    """

    def __init__(self, settings: PoseSettings | None = None, seed: int = 0) -> None:
        self.settings = settings or PoseSettings()
        self.seed = seed

    def __call__(self, image: Image, T_map_camera: Any, epoch: int, index: int) -> Augmented:
        """Returns the view, its true pose, and its K."""
        rng = np.random.default_rng(_seed(self.seed, epoch, index))
        viewpoint = self.settings.viewpoint
        K = viewpoint.matrix(image.shape[0], image.shape[1])
        rotation, zoom = draw_turn(viewpoint, rng)
        pose = np.asarray(T_map_camera, np.float64)
        before = None
        if viewpoint.moves:
            image, pose, turned_K = turn(image, pose, K, rotation, zoom)
            before, K = seen_before(K, turned_K, rotation), turned_K
        return Augmented(photometric(image, self.settings.photometric, rng), pose, K, before)


def unchanged(image: Image, T_map_camera: Any, epoch: int, index: int) -> Augmented:
    """Returns the sample as it is."""
    return Augmented(image, np.asarray(T_map_camera, np.float64), None)


def make_augmentation(name: str, seed: int = 0, **settings: Any) -> Augmentation:
    """Returns an augmentation, called as `augment(image, T_map_camera, epoch, index)`.

    Args:
        name: `none`; `labels`, for classification alone; `poses`, which keeps poses true.
        seed: of everything random.
        settings: fields of `PhotometricSettings`, and of `LayoutSettings` (for `labels`) or
            `ViewpointSettings` (for `poses`).

    Raises:
        ConfigError: an unknown name or setting, or a value out of range.
    """
    if name not in NAMES:
        raise ConfigError(unknown("augmentation", name, NAMES))
    kinds: dict[str, tuple[Any, ...]] = {
        "none": (),
        "labels": (LayoutSettings, PhotometricSettings),
        "poses": (PhotometricSettings, ViewpointSettings),
    }
    allowed = {f.name: kind for kind in kinds[name] for f in dataclasses.fields(kind)}
    for key in settings:
        if key not in allowed:
            raise ConfigError(unknown(f"setting of augmentation {name!r}", key, allowed))
    made = [
        kind(**{k: v for k, v in settings.items() if allowed[k] is kind}) for kind in kinds[name]
    ]
    if name == "labels":
        return LabelAugmentation(made[0], made[1], seed)
    return PoseAugmentation(PoseSettings(*made), seed) if name == "poses" else unchanged


def moved_truth(
    values: NDArray[Any], moved: NDArray[np.float64] | None, dense: Dense
) -> NDArray[Any]:
    """Returns what is true of the pixels of a head's map after an augmentation moved the image.

    Args:
        values: (H, W), of the network's input before.
        moved: as in `Augmented`.
        dense: the map's size, and the value for pixels that come from outside of the image.

    Returns:
        (h, w), of the nearest pixel each, of the type of `values`.
    """
    height, width = values.shape
    rows, columns = dense.size
    x = (np.arange(columns) + 0.5) * width / columns - 0.5
    y = (np.arange(rows) + 0.5) * height / rows - 0.5
    matrix = np.eye(3) if moved is None else moved
    a, b, further = (m[0] * x[None, :] + m[1] * y[:, None] + m[2] for m in matrix)
    column, row = (np.floor(c / further + 0.5) for c in (a, b))
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    at = np.where(inside, row * width + column, 0).astype(np.intp)
    found = values.reshape(-1)[at]
    if dense.along_axis:
        said = found != np.asarray(dense.none, found.dtype)
        found = np.where(said, found / further, found).astype(values.dtype)
    found[~inside] = dense.none
    return found


class BatchAugmentation:
    """Applies an augmentation, then mixup, to a batch of tensors.

    Args:
        augment: what `make_augmentation` returned.
        mixup: or None.
        dense: word of truth to what a head learns of every pixel.
        mirrored: targets that change their sign in a mirror image.
    """

    def __init__(
        self,
        augment: Augmentation,
        mixup: Mixup | None = None,
        dense: Mapping[str, Dense] | None = None,
        mirrored: frozenset[str] = frozenset(),
    ) -> None:
        self.augment, self.mixup, self.dense = augment, mixup, dense or {}
        self.mirrored = mirrored

    def __call__(self, batch: dict[str, Tensor], epoch: int | torch.Generator) -> dict[str, Tensor]:
        """Returns a changed copy.

        Args:
            batch: `images` uint8 (N, H, W, 3), `index` (N,), and what there is of `T_map_camera` (N, 4,
                4) with `has_pose` (N,), `label` (N,), `draw` (N,): how often the epoch had the sample
                before; and dense truth (N, H, W) of the images' size.
            epoch: its number; or a generator, whose next number then stands for it.

        Returns:
            The batch with other `images`. Poses follow the turned cameras, and `camera_matrix` float32
            (N, 3, 3) is added; where poses become untrue, `has_pose` is false and they are the
            identity. Dense truth has the size of the heads' maps. With mixup, `soft_label` is added.
        """
        if isinstance(epoch, torch.Generator):
            epoch = int(torch.randint(2**62, (), generator=epoch))
        out = dict(batch)
        images, index = batch["images"].numpy(), batch["index"].tolist()
        if "draw" in batch:
            index = [
                i + (n << _DRAW_BITS) for i, n in zip(index, batch["draw"].tolist(), strict=True)
            ]
        poses = (
            batch["T_map_camera"].numpy() if "T_map_camera" in batch else [np.eye(4)] * len(images)
        )
        views = [
            self.augment(image, pose, epoch, i)
            for image, pose, i in zip(images, poses, index, strict=True)
        ]
        if views:
            out["images"] = torch.from_numpy(np.stack([view.image for view in views]))
        if "T_map_camera" in batch and views:
            changed = torch.from_numpy(np.stack([view.T_map_camera for view in views]))
            true = changed.isfinite().all(dim=2).all(dim=1)
            identity = torch.eye(4, dtype=changed.dtype)
            kept = torch.where(true[:, None, None], changed, identity)
            out["T_map_camera"] = kept.to(batch["T_map_camera"].dtype)
            out["has_pose"] = batch["has_pose"] & true
        if self.mirrored and views:
            sign = torch.tensor([-1.0 if _is_mirrored(view) else 1.0 for view in views])
            out |= {key: batch[key] * sign for key in self.mirrored}
        for word, dense in self.dense.items():
            maps = [
                moved_truth(values, view.moved, dense)
                for values, view in zip(batch[word].numpy(), views, strict=True)
            ]
            out[word] = torch.from_numpy(np.stack(maps))
        matrices = [view.camera_matrix for view in views if view.camera_matrix is not None]
        if matrices and len(matrices) == len(views):
            out["camera_matrix"] = torch.from_numpy(np.stack(matrices)).float()
        return out if self.mixup is None else self.mixup(out, epoch)


def _is_mirrored(view: Augmented) -> bool:
    return view.moved is not None and bool(np.linalg.det(view.moved[:2, :2]) < 0)


def _seed(seed: int, epoch: int, index: int) -> int:
    """Mixes three numbers into one of 64 bits, so that neighbours have nothing in common."""
    return int(np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)[0] >> 1)


def augmentation_settings(config: TrainingConfig) -> dict[str, Any]:
    """Returns the augmentation's name and settings, the defaults filled in."""
    if config.augmentation is not None:
        return {"name": NONE, **config.augmentation}
    if "all" in config.network.freeze or config.network.init_from:
        return {"name": NONE}
    harms = harms_of(config)
    # A crop moves what is straight ahead, on which what a mirror turns depends.
    if not harms.keys() & {"flip", "crop"} and not mirrored_of(config):
        return {"name": "labels"}
    return {"name": "poses", **({"roll_deg": 0.0} if "viewpoint" in harms else {})}


def harms_of(config: TrainingConfig) -> dict[str, str]:
    """Returns the augmentations that make the truth of a head untrue, to its name."""
    return {harm: name for name, t in config.trainers.items() for harm in sorted(t.harms)}


def mirrored_of(config: TrainingConfig) -> frozenset[str]:
    """Returns the targets that change their sign in a mirror image."""
    return frozenset(t.head.key(word) for t in config.trainers.values() for word in t.mirrored)


def make_augment(
    config: TrainingConfig, spec: NetworkSpec, pixel_aspect: float = 1.0
) -> BatchAugmentation | None:
    """Builds the augmentation, or None where there is none.

    Args:
        config: of the run.
        spec: of the network.
        pixel_aspect: of the network's input, see `SampleSet.pixel_aspect`: a camera that is turned about its
            axis turns a squashed image otherwise.

    Raises:
        ConfigError: an unknown name or setting, or one that makes poses or labels untrue.
    """
    settings = augmentation_settings(config)
    name, alpha = settings.pop("name"), settings.pop("mixup", 0.0)
    harms = harms_of(config)
    still = {"flip"} if settings.get("flip") == 0 else set()
    if settings.get("crop_scale") == settings.get("crop_ratio") == 1:
        still.add("crop")
    if name == "labels" and harms.keys() & {"flip", "crop"} - still:
        raise ConfigError(f"augmentation 'labels' makes {_untrue(harms, 'flip', 'crop')}")
    mixup = None
    if alpha:
        classes = {n: t.classes(spec.heads[n]) for n, t in config.trainers.items()}
        for head, own in classes.items():
            if not own:
                harms["mixup"] = head
        if "mixup" in harms:
            raise ConfigError(f"mixup makes {_untrue(harms, 'mixup')}")
        counts = {key: count for own in classes.values() for key, count in own.items()}
        mixup = Mixup(counts, float(alpha), config.loop.seed)
    if name == NONE and mixup is None:
        return None
    if name == "poses":
        settings.setdefault("pixel_aspect", pixel_aspect)
        matrix, size = settings.get("camera_matrix") or (), (spec.input.width, spec.input.height)
        if any(not 0 <= c <= side for c, side in zip(matrix[2:], size, strict=False)):
            raise ConfigError(
                f"augmentation.camera_matrix is {tuple(matrix)}, whose centre lies outside of the network's "
                f"input of {size[0]} x {size[1]}: give it in pixels of the input"
            )
    augment = make_augmentation(name, config.loop.seed, **settings)
    if isinstance(augment, PoseAugmentation) and augment.settings.viewpoint.moves:
        if "viewpoint" in harms:
            raise ConfigError(
                f"a turned camera makes the truth of the {harms['viewpoint']} head untrue: use roll_deg: 0, "
                "tilt_deg: 0 and zoom: 1"
            )
    return BatchAugmentation(augment, mixup, dense_of(config, spec), mirrored_of(config))


def dense_of(config: TrainingConfig, spec: NetworkSpec) -> dict[str, Dense]:
    """Returns what the heads of a run learn of every pixel, by words of truth.

    Raises:
        ConfigError: two heads want one word in two ways.
    """
    found: dict[str, tuple[str, Dense]] = {}
    for name, trainer in config.trainers.items():
        for word, dense in trainer.dense(spec.heads[name]).items():
            first, before = found.setdefault(word, (name, dense))
            if before != dense:
                raise ConfigError(
                    f"The heads {first} and {name} learn {word} as {before} and as {dense}: give them one "
                    "size"
                )
    return {word: dense for word, (_, dense) in found.items()}


def _untrue(harms: dict[str, str], *which: str) -> str:
    name = next(harms[harm] for harm in which if harm in harms)
    return f"the truth of the {name} head untrue: use name: poses, without mixup"
