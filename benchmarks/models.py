"""The networks that are measured: ResNet-18 at 224 x 224 with three heads, and the classifier alone.

Their weights are random: speed does not depend on them. Bundles are kept in build/benchmarks, in a folder
that is named after the code that made them.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.inputs import ROOT, network_batch
from robot_vision.bundle.bundle import ModelBundle
from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import BundleError
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.heads.depth.spec import DepthSpec
from robot_vision.heads.dronet.spec import DronetSpec
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.heads.segmentation.spec import SegmentationSpec
from robot_vision.images.input import InputSpec

LABELS = tuple(f"room {i}" for i in range(10))
CLASSES = tuple(f"class {i}" for i in range(11))  # of pixels


def _three_heads(place: PlaceSpec) -> NetworkSpec:
    return NetworkSpec(
        "resnet18",
        InputSpec(),
        heads={"classifier": ClassifierSpec(LABELS), "pose": PoseSpec(), "place": place},
    )


SPECS = {
    "three_heads": _three_heads(PlaceSpec(clusters=16, whitened_size=512)),
    # Whitening 64 x 512 numbers takes a matrix of 67 MB, half again as much as all of ResNet-18.
    "three_heads_64_clusters": _three_heads(PlaceSpec(clusters=64, whitened_size=512)),
    "three_heads_64_clusters_not_whitened": _three_heads(PlaceSpec(clusters=64)),
    "classifier_alone": NetworkSpec("resnet18", heads={"classifier": ClassifierSpec(LABELS)}),
}


# Networks with six heads, two of them dense.
DENSE_BACKBONES = ("resnet18", "mobilenet_v2")
DENSE_SIZE = (240, 320)


def _several(epistemic: EpistemicSpec | None) -> NetworkSpec:
    """Three heads, with the dropout that makes passes differ; and networks that answer once."""
    classifier, pose = ClassifierSpec(LABELS, dropout=0.2), PoseSpec(dropout=0.2)
    place = PlaceSpec(clusters=16, whitened_size=512)
    return NetworkSpec(
        "resnet18",
        InputSpec(),
        heads={"classifier": classifier, "pose": pose, "place": place},
        epistemic=epistemic,
    )


EPISTEMIC_SPECS = {
    "three_heads_dropout": _several(None),
    "three_heads_8_passes": _several(EpistemicSpec(passes=8)),
    "three_heads_ensemble_of_4": _several(EpistemicSpec(members=4)),
}


# What a bundle follows from.
_MAKERS = ("benchmarks/models.py", "robot_vision/backbones/*.py", "robot_vision/contract/*.py",
           "robot_vision/heads/**/*.py", "robot_vision/networks/**/*.py", "robot_vision/optimising/*.py",
           "constraints/py*.txt", "models/demo/bundle.yaml")  # fmt: skip


@functools.cache
def folder(root: Path = ROOT) -> Path:
    """Returns where the bundles lie that today's code makes."""
    digest = hashlib.sha256()
    for pattern in _MAKERS:
        for file in sorted(root.glob(pattern)):
            digest.update(file.read_bytes())
    return ROOT / "build" / "benchmarks" / digest.hexdigest()[:12]


def bundle(name: str, images: list[NDArray[np.uint8]]) -> ModelBundle:
    """Returns the bundle of that name in `SPECS` or `EPISTEMIC_SPECS`, exported on first use."""
    return _exported(name, {**SPECS, **EPISTEMIC_SPECS}[name], images)


def dense_pairs(images: list[NDArray[np.uint8]]) -> dict[str, tuple[ModelBundle, ModelBundle]]:
    """Returns networks with dense heads by name, each with the same network's classifier alone."""
    demo = ModelBundle.load(ROOT / "models" / "demo")
    others = {head.name: None for head, _ in demo.spec.bound if head.kind != ClassifierSpec.KIND}
    alone = _exported("demo_classifier", demo.spec.with_heads(**others), images)
    pairs = {name: six_and_one(name, DENSE_SIZE, images) for name in DENSE_BACKBONES}
    return {**pairs, "demo": (demo, alone)}


def six_and_one(
    backbone: str, size: tuple[int, int], images: list[NDArray[np.uint8]]
) -> tuple[ModelBundle, ModelBundle]:
    """Returns a network with six heads, maps a quarter of its input, and one with its classifier alone."""
    height, width = size
    classifier = {ClassifierSpec.KIND: ClassifierSpec(LABELS)}
    heads = {
        **classifier,
        "pose": PoseSpec(),
        "place": PlaceSpec(clusters=16),
        "dronet": DronetSpec(),
        "segmentation": SegmentationSpec(CLASSES, height=height // 4, width=width // 4),
        "depth": DepthSpec(size=(height // 4, width // 4), decoder="folded"),
    }
    six, one = (
        NetworkSpec(backbone, InputSpec(height, width), heads=h) for h in (heads, classifier)
    )
    name = f"{backbone}_{height}x{width}"
    return _exported(f"six_heads_{name}", six, images), _exported(f"one_head_{name}", one, images)


def _exported(name: str, spec: NetworkSpec, images: list[NDArray[np.uint8]]) -> ModelBundle:
    path = folder() / name
    try:
        return ModelBundle.load(path)
    except BundleError:
        pass
    import torch

    from robot_vision.networks.export import export_bundle
    from robot_vision.networks.network import MultiHeadNetwork

    torch.manual_seed(0)
    network = MultiHeadNetwork(spec).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        made = Path(work) / name
        export_bundle(network, made, name.replace("_", "-"), images)
        if path.exists():
            path.rename(Path(work) / "old")
        made.rename(path)
    return ModelBundle.load(path)


@dataclass
class _Samples:
    """What `make_variant` needs of a sample set: ready images."""

    batch_of_all: Any

    def __len__(self) -> int:
        return len(self.batch_of_all)

    def batch(self, index: Any) -> dict[str, Any]:
        return {"images": self.batch_of_all[index]}


def ready(name: str, precision: str, images: list[NDArray[np.uint8]]) -> tuple[ModelBundle, str]:
    """Returns a bundle and what its engine computes in; `int8` is the variant for VNNI."""
    if precision == "int8":
        return variant("int8-vnni", images, name), "float32"
    return bundle(name, images), precision


def variant(kind: str, images: list[NDArray[np.uint8]], name: str = "three_heads") -> ModelBundle:
    """Returns a network in a lower precision, as `robot-vision train` makes them."""
    source = bundle(name, images)
    path = source.path.with_name(f"{name}_{kind}")
    try:
        made = ModelBundle.load(path)
        if made.training.get("variant_of") == source.sha256:
            return made
    except BundleError:
        pass
    import torch

    from robot_vision.training.config import TrainingConfig
    from robot_vision.training.ship.quantise import make_variant

    samples: Any = _Samples(torch.from_numpy(network_batch(source, images)))
    config = TrainingConfig(heads=("classifier",))
    return ModelBundle.load(make_variant(source.path, path, kind, samples, config))
