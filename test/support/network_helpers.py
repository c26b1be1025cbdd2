"""What the tests of the torch side share: small specs, real photographs."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the network's tests need torch: robot_vision[train]")

from robot_vision.contract.spec import NetworkSpec  # noqa: E402
from robot_vision.heads.classifier.spec import ClassifierSpec  # noqa: E402
from robot_vision.heads.place.spec import PlaceSpec  # noqa: E402
from robot_vision.heads.pose.spec import PoseSpec  # noqa: E402
from robot_vision.images.input import InputSpec  # noqa: E402
from robot_vision.networks.network import MultiHeadNetwork  # noqa: E402

SEED_NETWORKS = (
    "alexnet",
    "vgg16",
    "googlenet",
    "resnet18",
    "resnet50",
    "resnext101_32x8d",
    "mobilenet_v2",
)
BIG = ("vgg16", "resnext101_32x8d")


def seed_networks(heavy=BIG):
    """The seed architectures as parameters, the heavy ones marked slow."""
    return [
        pytest.param(name, marks=[pytest.mark.slow] if name in heavy else [])
        for name in SEED_NETWORKS
    ]


def small_spec(backbone="resnet18", size=64, labels=("a", "b", "c"), **heads):
    """A spec with all three heads, small enough for a second; `heads` replaces or removes some."""
    every = {
        "classifier": ClassifierSpec(labels),
        "pose": PoseSpec(hidden=32),
        "place": PlaceSpec(clusters=4),
    }
    return NetworkSpec(backbone, InputSpec(size, size), {**every, **heads})


def small_network(seed=0, **kwargs):
    torch.manual_seed(seed)
    return MultiHeadNetwork(small_spec(**kwargs)).eval()


def tiny_network(seed=0, **heads):
    """A network of three megabytes: all heads at the second stage, which is the last that is built."""
    tiny = {
        "classifier": ClassifierSpec(("a", "b", "c"), tap="layer2"),
        "pose": PoseSpec(tap="layer2", hidden=16),
        "place": PlaceSpec(tap="layer2", clusters=4),
    }
    return small_network(seed, **{**tiny, **heads})


def random_batch(count, size=64, seed=0):
    return torch.randint(
        0,
        256,
        (count, size, size, 3),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(seed),
    )


def distinct_batch(count, size=32, seed=0):
    """Images that are easily told apart: each a grid of 4 x 4 random colours."""
    grids = random_batch(count, 4, seed)
    return grids.repeat_interleave(size // 4, 1).repeat_interleave(size // 4, 2)


def photographs():
    """Real photographs: a cat, a cup of coffee, a rocket."""
    data = pytest.importorskip("skimage.data", reason="needs scikit-image's sample photographs")
    return [np.ascontiguousarray(image) for image in (data.chelsea(), data.coffee(), data.rocket())]


class Samples:
    """Ready images (N, H, W, 3) in the place of a sample set."""

    def __init__(self, images):
        self._images = torch.from_numpy(images)

    def __len__(self):
        return len(self._images)

    def batch(self, index):
        return {"images": self._images[index]}
