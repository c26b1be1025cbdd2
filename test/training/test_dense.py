"""A head that says something of every pixel and is of no package of ours: from label images to a bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn
from torch.nn import functional
from toy_heads import SegmentsHead
from train_data import configuration, make_posed

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.contract import registry
from robot_vision.contract.head import Column, Output, Tap
from robot_vision.contract.losses import LossValue
from robot_vision.contract.training import DataFacts, Dense, HeadSettings, Trainer
from robot_vision.datasets import open_dataset
from robot_vision.datasets.image_files import FileImage
from robot_vision.datasets.pixel_truth import PixelFile
from robot_vision.datasets.sample import Sample
from robot_vision.engines.factory import create_engine
from robot_vision.errors import ConfigError, SourceError
from robot_vision.images.input import InputSpec
from robot_vision.images.resizing import resize_into
from robot_vision.settings.declared import option
from robot_vision.settings.mappings import from_mapping
from robot_vision.training.config import resolved
from robot_vision.training.fit.ensemble import part_of
from robot_vision.training.fit.model import build_network
from robot_vision.training.run import train
from robot_vision.training.samples.augmentation import (
    BatchAugmentation,
    make_augmentation,
    moved_truth,
)
from robot_vision.training.samples.data import SampleSet, batches, mapped
from robot_vision.training.samples.features import FeatureCache
from robot_vision.training.samples.viewpoint import seen_before, turn
from robot_vision.training.setup import open_splits
from robot_vision.training.ship.evaluate import Views

WORD = "image:pixels"
FLOOR, WALL = (40, 60, 200), (200, 50, 40)


@dataclass(frozen=True)
class PixelsSpec:
    KIND: ClassVar[str] = "pixels"
    labels: tuple[str, ...] = ()
    height: int = 0
    width: int = 0


class Module(nn.Module):
    def __init__(self, spec, shapes):
        super().__init__()
        self.size = (spec.height, spec.width)
        self.fine, self.coarse = (nn.Conv2d(s[0], len(spec.labels), 1) for s in shapes)

    def forward(self, fine, coarse):
        scores = [
            functional.interpolate(score, self.size, mode="bilinear")
            for score in (self.fine(fine), self.coarse(coarse))
        ]
        return {"scores": scores[0] + scores[1]}

    def decode(self, raw):
        return {"ids": raw["scores"].argmax(1).to(torch.uint8)}


class CrossEntropy(nn.Module):
    def forward(self, raw, batch):
        truth = batch[WORD].long()
        return LossValue(functional.cross_entropy(raw["scores"], truth, ignore_index=255), {})


@dataclass(frozen=True)
class Settings(HeadSettings):
    loss: str = option("entropy", "name of the loss")


class PixelsTrainer(Trainer[PixelsSpec]):
    Settings = Settings
    losses = {"entropy": "test_dense:CrossEntropy"}
    harms = frozenset({"mixup"})
    truth = "image"

    def spec(self, settings, facts):
        spec = from_mapping(PixelsSpec, f"network.{self.name}", settings)
        height, width = (side // 4 for side in facts.input)
        return replace(spec, labels=facts.labels[self.word()], height=height, width=width)

    def dense(self, spec):
        return {self.word(): Dense((spec.height, spec.width), "uint8", 255)}

    def module(self, spec, shapes):
        return Module(spec, shapes)

    def measure(self, outputs, targets, spec, stored=None):
        true, said = targets[WORD], outputs["ids"]
        assert said.dtype == torch.uint8 and "scores" not in outputs
        known = true != 255
        right = ((said == true) & known).sum((1, 2)).double() / known.sum((1, 2))
        accuracy = float(((said == true) & known).sum() / known.sum())
        return {"accuracy": accuracy}, right[:, None].numpy()

    def score(self, metrics, reference):
        return metrics["accuracy"]


class PixelsHead(SegmentsHead):
    kind = answer_key = "pixels"
    Spec = PixelsSpec
    sides = {"trainer": f"{__name__}:PixelsTrainer"}

    def taps(self, spec):
        return Tap(kind="map", stride=4), Tap(kind="map", stride=8)

    def outputs(self, spec, several):
        return {self.key("ids"): Output((spec.height, spec.width), "uint8", "share", 0.99)}

    def columns(self, spec):
        return {self.key("ids"): Column((spec.height, spec.width), "uint8", stream=True)}


HEAD = PixelsHead()


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setitem(registry.BUILT_IN, "pixels", "test_dense:HEAD")


def scene(rng, height=48, width=64):
    """Returns a noisy picture of a wall above a floor, and which is which; the last column says nothing."""
    edge = rng.integers(height // 4, 3 * height // 4, 2)
    line = np.linspace(edge[0], edge[1], width)
    floor = np.arange(height)[:, None] >= line[None, :]
    picture = np.where(floor[..., None], FLOOR, WALL) + rng.normal(0, 20, (height, width, 3))
    mask = np.where(floor, 0, 1).astype(np.uint8)
    mask[:, -1] = 255
    return np.clip(picture, 0, 255).astype(np.uint8), mask


def make_scenes(root: Path, train: int = 48, val: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for folder in ("images", "labels"):
            (root / part / folder).mkdir(parents=True)
        for i in range(count):
            picture, mask = scene(rng)
            cv2.imwrite(str(root / part / f"images/{i:03d}.png"), picture[..., ::-1])
            cv2.imwrite(str(root / part / f"labels/{i:03d}.png"), mask)
    (root / "classes.txt").write_text("floor\nwall\n")
    return root


def sample_set(root, size=(32, 32), dense=None, **rules):
    splits = open_dataset("mask_folder", root, word="pixels")
    wanted = {WORD: dense or Dense((8, 8), "uint8", 255)}
    return SampleSet.of(splits.train, (), InputSpec(*size, **rules), dense=wanted)


# Truth in batches


@pytest.mark.parametrize("rules", [{}, {"resize": "crop"}, {"resize": "letterbox"}])
def test_truth_lies_where_its_image_lies(rules, tmp_path):
    samples = sample_set(
        make_scenes(tmp_path, 4, 1), (64, 64), Dense((64, 64), "uint8", 255), **rules
    )
    samples.load(2)
    batch = samples.batch(torch.arange(4))
    for image, truth in zip(batch["images"].numpy(), batch[WORD].numpy(), strict=True):
        # The same resize of a picture of the classes: they agree but along the edges.
        known = truth != 255
        red = image[..., 0].astype(int) > image[..., 2]
        assert (red == (truth == 1))[known].mean() > 0.97
        if rules.get("resize") == "letterbox":
            assert not known[:8].any() and not known[-8:].any() and known[8:-8, :-1].all()
        else:
            assert known.mean() > 0.97


def test_truth_in_memory_and_read_again_are_the_same(tmp_path):
    root = make_scenes(tmp_path, 6, 1)
    kept, read = sample_set(root), sample_set(root)
    kept.load(2, augmented=True)
    read.load(2, keep=False, augmented=True)
    assert kept.whole and not read.whole and read.pixels is None
    index = torch.tensor([3, 0, 5])
    for augmented in (False, True):
        a, b = kept.batch(index, augmented), read.batch(index, augmented)
        assert torch.equal(a["images"], b["images"]) and torch.equal(a[WORD], b[WORD])
        assert a[WORD].shape == ((3, 32, 32) if augmented else (3, 8, 8))
    augment = BatchAugmentation(make_augmentation("labels", seed=1), dense=kept.dense)
    views = [next(batches(s, [index], augment=augment, epoch=2)) for s in (kept, read)]
    assert torch.equal(views[0][WORD], views[1][WORD]) and views[0][WORD].shape == (3, 8, 8)


@pytest.mark.slow
def test_features_of_copies_are_those_of_augmented_images_with_their_truth(known, tmp_path):
    samples = sample_set(make_scenes(tmp_path, 5, 1))
    samples.load(2, augmented=True)
    config = configuration("mask_folder", tmp_path, tmp_path, heads=["pixels"])
    facts = DataFacts({WORD: ("floor", "wall")}, "", (32, 32))
    network, cpu = build_network(resolved(config), facts).eval(), torch.device("cpu")
    augment = BatchAugmentation(make_augmentation("labels", seed=1), dense=samples.dense)
    cache = FeatureCache.compute(network, samples, ("pixels",), cpu, 1, augment=augment, copies=3)
    index = torch.arange(5)
    plain = network.forward_features(samples.batch(index)["images"])["pixels"]
    for tap, value in enumerate(plain):  # what heads are asked about
        assert torch.allclose(cache.features["pixels"][tap][index], value, atol=1e-5)
    taken = set()
    for epoch in range(3):
        found = cache.batch(samples, index, epoch)
        for i in index.tolist():
            copy = 1 + (epoch + i) % 3
            taken.add((i, copy))
            batch = augment(samples.batch(index[i : i + 1], augmented=True), copy)
            assert torch.equal(found[WORD][i], batch[WORD][0])
            for tap, value in enumerate(network.forward_features(batch["images"])["pixels"]):
                assert torch.allclose(found[f"feature:pixels:{tap}"][i], value[0], atol=1e-5)
        assert torch.equal(found["index"], index)
    assert len(taken) == 15
    # A sample that an epoch draws again is another copy of it, and some of the samples keep theirs.
    again = cache.batch(samples, index, 0, torch.ones(5, dtype=torch.int64))
    assert torch.equal(again[WORD], cache.batch(samples, index, 1)[WORD])
    some = torch.tensor([4, 1])
    part = part_of(Views(samples, cache), some)
    own = part.cache.batch(part.samples, torch.arange(2), 0)
    for i, (sample, copy) in enumerate(zip(some.tolist(), (0, 1), strict=True)):
        whole = cache.batch(samples, some[i : i + 1], copy - sample + 6)
        for key in (WORD, "feature:pixels:0", "feature:pixels:1"):
            assert torch.equal(own[key][i], whole[key][0])


def test_truth_of_another_size_is_refused_with_both_sizes(tmp_path):
    root = make_scenes(tmp_path, 4, 1)
    for file in sorted((root / "train/labels").iterdir())[:2]:
        cv2.imwrite(str(file), np.zeros((30, 40), np.uint8))
    with pytest.raises(
        SourceError, match=r"labels/000.png has 40 x 30 pixels, and its image .* 64 x 48"
    ):
        sample_set(root).load(1)


def test_a_jpeg_that_is_decoded_small_has_truth_of_its_own_size(tmp_path):
    root = make_scenes(tmp_path, 2, 1)
    for i in range(2):
        file = root / f"train/images/{i:03d}.png"
        large = cv2.resize(cv2.imread(str(file)), (512, 384))
        file.unlink()
        cv2.imwrite(str(file.with_suffix(".jpg")), large)
        mask = cv2.imread(str(root / f"train/labels/{i:03d}.png"), cv2.IMREAD_UNCHANGED)
        large = cv2.resize(mask, (512, 384), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(root / f"train/labels/{i:03d}.png"), large)
    samples = sample_set(root)
    samples.load(1)
    assert len(samples) == 2 and samples.maps[WORD].shape == (2, 8, 8)
    assert samples.samples[0].source.load((32, 32)).shape[0] < 384


def test_masks_that_cannot_be_read_leave_their_images_out(tmp_path):
    root = make_scenes(tmp_path, 40, 1)
    (root / "train/labels/007.png").write_bytes(b"nothing")
    cv2.imwrite(str(root / "train/labels/009.png"), np.full((48, 64), 9, np.uint8))
    samples = sample_set(root)
    samples.load(2, augmented=True)
    assert len(samples) == len(samples.maps[WORD]) == len(samples.whole[WORD]) == 38
    reasons = " ".join(samples.unreadable.values())
    assert (
        "007.png" in reasons
        and "3072 pixels have ids that the table of classes lacks: 9" in reasons
    )
    again = sample_set(root)
    again.load(2)
    for i, sample in enumerate(samples.samples):
        mask = cv2.imread(str(sample.of(WORD)), cv2.IMREAD_UNCHANGED)
        # The centre of a pixel of 8 x 8 lies between two of the 48 x 64: the later one is taken.
        np.testing.assert_array_equal(again.maps[WORD][i], mask[3::6, 4::8])


def test_a_run_is_of_the_masks_that_it_began_with(tmp_path):
    root = make_scenes(tmp_path, 4, 1)
    found = []
    for _ in range(2):
        samples = sample_set(root)
        samples.load(1)
        found.append(samples.identity)
    assert found[0] == found[1]
    cv2.imwrite(str(root / "train/labels/002.png"), np.zeros((48, 64), np.uint8))
    samples = sample_set(root)
    samples.load(1)
    assert samples.identity["images"] == 4 and samples.identity != found[0]


def test_no_room_for_maps_is_said_before_anything_is_read():
    with pytest.raises(ConfigError, match=r"no room for 1048576.0 GiB .* set TMPDIR"):
        mapped((1 << 50,), "uint8")
    kept = mapped((3, 4), "float16")
    kept[1] = 2
    assert kept.dtype == np.float16 and kept.sum() == 8


# Augmentation


def test_truth_moves_with_the_image_as_opencv_moves_it():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 5, (60, 80)).astype(np.uint8)
    matrix = np.array([[0.9, 0.2, 3.0], [-0.15, 1.1, -4.0], [2e-4, -1e-4, 1.0]])
    found = moved_truth(values, matrix, Dense((60, 80), "uint8", 255))
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    wanted = cv2.warpPerspective(values, matrix, (80, 60), flags=flags, borderValue=255)
    assert (found == wanted).mean() > 0.97  # OpenCV rounds to 1/32 of a pixel
    assert (found == 255).sum() > 50


@pytest.mark.parametrize("name", ["labels", "poses"])
def test_augmented_pixels_keep_their_truth(name, tmp_path):
    samples = sample_set(make_scenes(tmp_path, 8, 1), (48, 64), Dense((24, 32), "uint8", 255))
    samples.load(2, augmented=True)
    strong = (
        {"rotation_deg": 40.0, "flip": 1.0} if name == "labels" else {"roll_deg": 40.0, "zoom": 1.3}
    )
    augment = BatchAugmentation(make_augmentation(name, **strong), dense=samples.dense)
    before = samples.batch(torch.arange(8))
    batch = augment(samples.batch(torch.arange(8), augmented=True), 0)
    images, truth = batch["images"].numpy(), batch[WORD].numpy()
    assert truth.shape == (8, 24, 32) and (truth != before[WORD].numpy()).mean() > 0.1
    small = np.stack([cv2.resize(i, (32, 24), interpolation=cv2.INTER_AREA) for i in images])
    difference = small[..., 0].astype(int) - small[..., 2]
    sure = (truth != 255) & (abs(difference) > 60)
    assert sure.mean() > 0.4
    assert ((difference > 0) == (truth == 1))[sure].mean() > 0.98
    assert (truth == 255).any()  # what came from outside of the image


def test_a_mirror_image_mirrors_truth_exactly():
    values = np.arange(48, dtype=np.uint8).reshape(6, 8)
    mirror = np.array([[-1, 0, 7], [0, 1, 0], [0, 0, 1.0]])
    found = moved_truth(values, mirror, Dense((6, 8), "uint8", 255))
    np.testing.assert_array_equal(found, values[:, ::-1])


def test_distances_follow_a_turned_camera():
    """A plane in front of a camera that is tilted and rolled: its distances by the rays of the turned one."""
    K = np.array([[70.0, 0, 39.5], [0, 65.0, 29.5], [0, 0, 1]])
    normal, offset = np.array([0.1, -0.2, 1.0]), 3.0  # normal . p = offset, in the camera's frame
    rotation = Rotation.from_rotvec([0.12, -0.08, 0.2]).as_matrix()
    grid = np.stack([*np.meshgrid(np.arange(80.0), np.arange(60.0)), np.ones((60, 80))], axis=-1)

    def distances(K, R):
        rays = (
            grid @ np.linalg.inv(K).T
        )  # with z = 1, so that their length is the distance along the axis
        return offset / ((rays @ R.T) @ normal)

    before = distances(K, np.eye(3)).astype(np.float32)
    image = np.zeros((60, 80, 3), np.uint8)
    _, _, turned_K = turn(image, np.eye(4), K, rotation, 1.1)
    moved = seen_before(K, turned_K, rotation)
    found = moved_truth(before, moved, Dense((60, 80), "float32", 0.0, along_axis=True))
    wanted = distances(turned_K, rotation)
    inside = found != 0
    assert 0.6 < inside.mean() < 1
    error = abs(found - wanted)[inside] / wanted[inside]
    assert error.max() < 0.01  # half a pixel of a slanted plane
    flat = moved_truth(before, moved, Dense((60, 80), "float32", 0.0))
    assert (abs(flat - wanted)[inside] / wanted[inside]).max() > 0.05


# A run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["none", "labels"])
def test_dense_head_trains_and_ships(name, known, tmp_path):
    config = configuration(
        "mask_folder",
        make_scenes(tmp_path / "data"),
        tmp_path / "run",
        heads=["pixels"],
        data={"options": {"word": "pixels"}},
        network={"input": {"height": 32, "width": 48}},
        augmentation={"name": name},
        loop={"epochs": 12},
        optimiser={"learning_rate": 0.01},
        variants=["int8", "float16"],
    )
    result = train(config, quiet=True, command="test")
    assert result is not None
    variants = {k: v["metrics"]["pixels"]["accuracy"] for k, v in result.report["variants"].items()}
    assert variants["float32"] > 0.95  # of about 0.5 for one class everywhere
    assert min(variants.values()) > variants["float32"] - 0.03, variants
    bundle = ModelBundle.load(result.bundle)
    assert bundle.spec.outputs["ids"].text == "uint8 (N, 8, 12)"
    assert bundle.spec.heads["pixels"].labels == ("floor", "wall")
    rng = np.random.default_rng(5)
    pictures, masks = zip(*(scene(rng) for _ in range(4)), strict=True)
    batch = np.zeros((4, 32, 48, 3), np.uint8)
    for picture, out in zip(pictures, batch, strict=True):
        resize_into(picture, out)
    said = {}
    for engine in ("onnx", "openvino", "torch"):
        running = create_engine(bundle, engine, "cpu")
        said[engine] = running.run(batch)["ids"]
        running.close()
        assert said[engine].dtype == np.uint8 and said[engine].shape == (4, 8, 12)
        assert (said[engine] == said["onnx"]).mean() > 0.99
    truth = np.stack([mask[3::6, 2::5][:8, :12] for mask in masks])
    known_pixels = truth != 255
    assert (said["onnx"] == truth)[known_pixels].mean() > 0.9


@pytest.mark.slow
def test_dense_head_on_a_frozen_backbone_learns_from_cached_features(known, tmp_path):
    config = configuration(
        "mask_folder",
        make_scenes(tmp_path / "data"),
        tmp_path / "run",
        heads={"ground": {"kind": "pixels"}},
        data={"options": {"word": "ground"}},
        network={"freeze": ["all"]},
        loop={"epochs": 40},
        optimiser={"learning_rate": 0.05},
    )
    result = train(config, quiet=True, command="test")
    assert result is not None
    measured = result.report["variants"]["float32"]["metrics"]["ground"]["accuracy"]
    assert measured > 0.85, measured  # of about 0.5 for one class everywhere


def test_a_run_without_truth_of_pixels_is_refused(known, tmp_path):
    root = make_scenes(tmp_path / "data", 4, 1)
    config = configuration("mask_folder", root, tmp_path / "run", heads=["pixels"])
    with pytest.raises(ConfigError, match="pixels head needs image:pixels; 0 of 4 training images"):
        train(config, quiet=True, command="test")


def test_images_without_truth_are_left_out_unless_another_head_learns_from_them(known, tmp_path):
    root = make_posed(tmp_path / "data", 20)
    for i in range(0, 20, 2):
        cv2.imwrite(str(root / f"frame-{i:06d}.depth.png"), np.ones((96, 128), np.uint16))
    heads = {"depth": {"kind": "pixels"}}
    config = configuration("seven_scenes", root, tmp_path / "run", heads=heads)
    splits = open_splits(config)
    assert len(splits.samples) == 10 and all(s.truth for s in splits.samples)
    assert "10 images have no image:depth and are left out" in splits.notes
    both = configuration("seven_scenes", root, tmp_path / "run", heads={**heads, "pose": {}})
    assert len(open_splits(both).samples) == 20


def test_numbers_come_in_their_unit_with_what_was_not_measured(tmp_path):
    stored = np.full((48, 64), 2000, np.uint16)
    stored[:24] = 0
    cv2.imwrite(str(tmp_path / "d.png"), stored)
    cv2.imwrite(str(tmp_path / "i.png"), np.zeros((48, 64, 3), np.uint8))
    truth = {"image:depth": PixelFile(str(tmp_path / "d.png"), (0,), 1e-3)}
    sample = Sample("a", None, None, None, "", FileImage(str(tmp_path / "i.png")), truth=truth)
    other = replace(sample, name="b", truth={})
    dense = {"image:depth": Dense((12, 16), "float16", float("nan"))}
    samples = SampleSet.of([sample, other], (), InputSpec(32, 32), dense=dense)
    samples.load(1)
    maps = samples.batch(torch.arange(2))["image:depth"].numpy()
    assert maps.dtype == np.float16 and np.isnan(maps[0, :6]).all() and np.isnan(maps[1]).all()
    np.testing.assert_allclose(maps[0, 6:], 2.0)
