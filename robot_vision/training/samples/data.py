"""Samples as tensors: images at the network's size, labels and poses, in batches read ahead of the step.

Images pass through `robot_vision.images.resizing`, as they do on the robot, so training and serving
see the same pixels. What fits in memory is decoded once; more is decoded by threads ahead of each step.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_vision.contract.training import Dense, Target
from robot_vision.datasets.sample import Sample, different_size, true_values
from robot_vision.errors import ConfigError, ImageError, SourceError
from robot_vision.images.input import InputSpec
from robot_vision.images.resizing import resize_into, source_size
from robot_vision.images.window import Window
from robot_vision.training.samples.augmentation import BatchAugmentation as Augment

MAX_UNREADABLE = 0.05  # of a split: above, the data set is broken and not just one file of it
CHUNK = 64  # images of 224 x 224 that are predicted at a time on a GPU
CPU_CHUNK = 4  # a processor's caches hold no more: 40 at a time took three times as long an image
_AHEAD = 3  # batches that are being prepared while one is trained on

Batch = dict[str, Tensor]
Advance = Callable[[int], None]


@dataclass
class SampleSet:
    """One split's samples, and their images once `load` was called.

    Attributes:
        samples: those that can be read, as far as is known.
        targets: `label` int64 (N,), -1 for none; `T_map_camera` float32 (N, 4, 4), the identity for
            none; `has_pose` bool (N,); `sequence` int64 (N,); and what else the heads learn.
        none: for targets that say so themselves, the value for none.
        input: the size to which images are resized.
        dense: word of truth to what heads learn of every pixel.
        pixels: RGB uint8 (N, height, width, 3), or None where images are read again for every batch.
        maps: word to the truth of every pixel (N, h, w) in the size of the heads' maps, once loaded.
        whole: the same in the input's size (N, height, width), for augmentation; empty where that is read
            again for every batch.
        maps_sha256: hash of `maps`; empty without.
        unreadable: name of each image that could not be read to the reason.
    """

    samples: tuple[Sample, ...]
    targets: dict[str, Tensor]
    none: dict[str, Any]
    input: InputSpec
    dense: Mapping[str, Dense] = field(default_factory=dict)
    pixels: Tensor | None = None
    maps: dict[str, Tensor] = field(default_factory=dict)
    whole: dict[str, Tensor] = field(default_factory=dict)
    maps_sha256: str = ""
    unreadable: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        samples: Sequence[Sample],
        labels: Sequence[str],
        spec: InputSpec,
        learned: Callable[[Sequence[Sample]], Mapping[str, Target]] = lambda samples: {},
        dense: Mapping[str, Dense] | None = None,
    ) -> SampleSet:
        """Takes samples.

        Args:
            samples: of one split.
            labels: of the training samples; a label that is not among them counts as none.
            spec: of the network's input.
            learned: returns what else the heads learn of samples.
            dense: see the attribute.
        """
        index = {label: i for i, label in enumerate(labels)}
        sequences = {name: i for i, name in enumerate(dict.fromkeys(s.sequence for s in samples))}
        poses = np.tile(np.eye(4, dtype=np.float32), (len(samples), 1, 1))
        for i, sample in enumerate(samples):
            if sample.T_map_camera is not None:
                poses[i] = sample.T_map_camera
        targets = {
            "label": torch.tensor(
                [index.get(s.label or "", -1) for s in samples], dtype=torch.int64
            ),
            "T_map_camera": torch.from_numpy(poses),
            "has_pose": torch.tensor(
                [s.T_map_camera is not None for s in samples], dtype=torch.bool
            ),
            "sequence": torch.tensor([sequences[s.sequence] for s in samples], dtype=torch.int64),
        }
        none: dict[str, Any] = {"label": -1, "has_pose": False}
        for name, target in learned(samples).items():
            targets[name], none[name] = target
        return cls(tuple(samples), targets, none, spec, dense or {})

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def truth(self) -> dict[str, Tensor]:
        """All targets, with those of every pixel."""
        return {**self.targets, **self.maps}

    @property
    def bytes(self) -> int:
        """What all its resized images take in memory."""
        return len(self) * self.input.height * self.input.width * 3

    @property
    def identity(self) -> dict[str, Any]:
        """How many samples, and a hash of their names and targets: JSON, without reading images.

        The order of an epoch follows from their number, so a run goes on only with the same ones.
        """
        digest = hashlib.sha256("\0".join(sample.name for sample in self.samples).encode())
        for value in self.targets.values():
            digest.update(value.contiguous().numpy().tobytes())
        digest.update(self.maps_sha256.encode())
        return {"images": len(self), "sha256": digest.hexdigest()[:16]}

    @property
    def pixel_aspect(self) -> float:
        """Width over height of the resized pixels of the first image, if its own are square."""
        if self.input.resize != "squash":
            return 1.0
        for sample in self.samples:
            try:
                height, width = sample.source.load(source_size(self.input)).shape[:2]
                return (width / self.input.width) / (height / self.input.height)
            except (ImageError, ZeroDivisionError):
                continue
        return 1.0

    def load(
        self,
        threads: int,
        keep: bool = True,
        advance: Advance = lambda n: None,
        augmented: bool = False,
    ) -> None:
        """Decodes and resizes every image with its truth, and leaves out those that cannot be read.

        Args:
            threads: that decode.
            keep: the images in memory; else they are only checked. The truth of every pixel lies in files
                without a name, which the system has in memory as far as there is some.
            advance: called for every image.
            augmented: keep that truth in the input's size too.

        Raises:
            SourceError: more than `MAX_UNREADABLE` of them, with the first ones' names.
        """
        shape = (self.input.height, self.input.width, 3)
        pixels = np.empty((len(self) if keep else 0, *shape), np.uint8)
        readable = np.ones(len(self), bool)
        maps = {w: mapped((len(self), *d.size), d.dtype) for w, d in self.dense.items()}
        whole = {
            w: mapped((len(self), *shape[:2]), d.dtype)
            for w, d in self.dense.items()
            if augmented and keep
        }

        def one(i: int) -> None:
            image = pixels[i] if keep else np.empty(shape, np.uint8)
            outs = [(w, m[i]) for kind in (maps, whole) for w, m in kind.items()]
            readable[i] = self._read(i, image, outs, first=True)
            advance(1)

        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(one, range(len(self))):
                pass
        good = np.flatnonzero(readable)
        if keep:
            self.pixels = torch.from_numpy(pixels if readable.all() else pixels[good])
        self.maps, self.whole = (
            {w: torch.from_numpy(_only(m, good)) for w, m in kind.items()} for kind in (maps, whole)
        )
        digest = hashlib.sha256()
        for values in self.maps.values():
            for row in values:
                digest.update(row.numpy().data)
        self.maps_sha256 = digest.hexdigest() if self.maps else ""
        self.samples = tuple(self.samples[i] for i in good)
        self.targets = {key: value[torch.from_numpy(good)] for key, value in self.targets.items()}

    def batch(self, index: Tensor, augmented: bool = False) -> Batch:
        """Returns one batch; images that cannot be read become black, without a truth.

        Args:
            index: int64 (n,).
            augmented: with the truth of every pixel in the input's size, not in that of the heads' maps.
        """
        batch = {key: value[index] for key, value in self.targets.items()}
        batch["index"] = index
        ready = self.whole if augmented else self.maps
        size = (len(index), self.input.height, self.input.width)
        read = {}
        for word, dense in self.dense.items():
            if word in ready:
                batch[word] = ready[word][index]
            else:
                shape = size if augmented else (len(index), *dense.size)
                read[word] = np.full(shape, dense.none, dense.dtype)
        if self.pixels is not None:
            batch["images"] = self.pixels[index]
        if self.pixels is None or read:
            images = np.zeros((*size, 3), np.uint8)
            for k, i in enumerate(index.tolist()):
                if not self._read(i, images[k], [(w, out[k]) for w, out in read.items()]):
                    images[k] = 0
                    for key, value in self.none.items():
                        batch[key][k] = value
                    for word, dense in self.dense.items():
                        (read[word] if word in read else batch[word])[k] = dense.none
            batch.setdefault("images", torch.from_numpy(images))
        return {**batch, **{word: torch.from_numpy(out) for word, out in read.items()}}

    def names(self, index: Tensor) -> list[str]:
        """Returns the names of samples."""
        return [self.samples[i].name for i in index.tolist()]

    def _read(
        self,
        i: int,
        out: NDArray[np.uint8],
        maps: Sequence[tuple[str, NDArray[Any]]] = (),
        first: bool = False,
    ) -> bool:
        """Reads an image, and truth by its words into arrays of any size; False where either fails."""
        sample = self.samples[i]
        try:
            # A JPEG comes at a half or less of its size where that is enough, as on the robot.
            image = sample.source.load(source_size(self.input))
            if 0 in image.shape:
                raise ImageError("size", f"{sample.source} has no pixels")
            resize_into(image, out, self.input.resize, self.input.crop_fraction)
            found: dict[str, NDArray[Any]] = {}
            for word, target in maps:
                dense, truth = self.dense[word], sample.of(word)
                if truth is None:
                    target[:] = dense.none
                    continue
                if word not in found:
                    found[word] = true_values(truth, dense.dtype, dense.none)
                    if first:
                        _check_size(sample, image, word, found[word])
                values = found[word]
                window = Window.of(values.shape, self.input)
                target[:] = window.truth(values, target.shape, dense.none)
            return True
        except ImageError as error:
            self.unreadable[sample.name] = str(error)
            share = len(self.unreadable) / len(self)
            if share > MAX_UNREADABLE and len(self.unreadable) > 1:
                some = "; ".join(list(self.unreadable.values())[:3])
                raise SourceError(
                    f"{len(self.unreadable)} of {len(self)} images cannot be read, which is more than "
                    f"{MAX_UNREADABLE:.0%}: {some}"
                ) from error
            return False


def _check_size(sample: Sample, image: NDArray[np.uint8], word: str, values: NDArray[Any]) -> None:
    """Raises ImageError unless truth is as large as its image, which may come smaller than it is."""
    if image.shape[:2] == values.shape:
        return
    size = sample.source.load().shape[:2]
    if size != values.shape:
        raise ImageError("size", different_size(sample, word, values.shape, size))


def chunk_of(spec: InputSpec, device: torch.device) -> int:
    """Returns how many images are predicted at a time: fewer where they are large, for the sake of memory."""
    most = CPU_CHUNK if device.type == "cpu" else CHUNK
    return max(1, min(most, most * 224 * 224 // (spec.height * spec.width)))


def mapped(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Returns an array in a file without a name, which goes with it: memory that the system can take back.

    Raises:
        ConfigError: the folder of temporary files has no room.
    """
    if 0 in shape:
        return np.empty(shape, dtype)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile() as file:
        try:
            # Else a full disk would end the process later
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise ConfigError(
                f"{tempfile.gettempdir()} has no room for {size / 2**30:.1f} GiB of what is said of pixels "
                f"({error.strerror}): set TMPDIR to a folder that has"
            ) from error
        return np.memmap(file, dtype, "w+", shape=shape)


def _only(values: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Returns increasing rows of an array, which it moves within it, for it may not fit into memory."""
    for to, row in enumerate(rows.tolist()):
        if to != row:
            values[to] = values[row]
    return values[: len(rows)]


def batches(
    samples: SampleSet,
    indices: Sequence[Tensor],
    threads: int = 2,
    augment: Augment | None = None,
    epoch: int = 0,
    more: Sequence[Batch] | None = None,
) -> Iterator[Batch]:
    """Yields a batch for each index tensor, in order, while threads prepare those that follow.

    Args:
        samples: where they come from.
        indices: int64 (n,) each.
        threads: that prepare batches.
        augment: changes a batch, by the run's seed, the epoch and the images' numbers alone: neither the
            number of threads nor a resumed run changes a pixel.
        epoch: for the augmentation.
        more: for each index tensor, what else is in its batch.
    """
    extras: Sequence[Batch] = more if more is not None else [{}] * len(indices)

    def make(index: Tensor, extra: Batch) -> Batch:
        batch = {**samples.batch(index, augment is not None), **extra}
        return batch if augment is None else augment(batch, epoch)

    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Future[Batch]] = []
        try:
            for index, extra in zip(indices, extras, strict=True):
                waiting.append(pool.submit(make, index, extra))
                if len(waiting) > max(_AHEAD, threads):
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def epoch_order(
    targets: dict[str, Tensor], sampler: str, seed: int, epoch: int, classes: str = "label"
) -> Tensor:
    """Returns the order of an epoch's samples, the same in every process.

    Args:
        targets: of the training set.
        sampler: `shuffle`, each sample once; `balanced`, as many draws with replacement, every class
            equally often.
        seed: of the run.
        epoch: whose order.
        classes: the target that is balanced.

    Returns:
        int64 (N,).
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    labels = targets[classes]
    if sampler == "shuffle":
        return torch.randperm(len(labels), generator=generator)
    known = labels >= 0
    counts = torch.bincount(labels[known]).double()
    weights = torch.zeros(len(labels), dtype=torch.float64)
    weights[known] = 1.0 / counts[labels[known]]
    return torch.multinomial(weights, len(labels), replacement=True, generator=generator)


def times_drawn(order: Tensor) -> Tensor:
    """Returns how often each sample of an epoch's order was drawn before in it, int64 (N,)."""
    _, which, counts = order.unique(return_inverse=True, return_counts=True)
    by_sample = which.argsort(stable=True)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    before = torch.empty_like(order)
    before[by_sample] = torch.arange(len(order)) - first
    return before


def split_order(order: Tensor, batch_size: int, rank: int = 0, world: int = 1) -> list[Tensor]:
    """Cuts an epoch's order into global batches and returns this process's part of each.

    The last, incomplete batch is left out unless it is the only one: another epoch has other samples there.
    """
    size = min(batch_size, len(order))
    parts = [order[i : i + size][rank::world] for i in range(0, len(order) - size + 1, size)]
    smallest = size // world
    return [part[: max(smallest, 1)] for part in parts]
