"""XFeat, learned local features: the network, its published weights, and its ONNX graph.

G. Potje, F. Cadar, A. Araujo, R. Martins, E. Nascimento: XFeat: Accelerated Features for Lightweight Image
Matching. CVPR 2024. Sections and figures below are of this paper. What it does with pairs of images (the
refinement of semi-dense matches, section 3.3) is left out: a map compares features that it has stored.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_vision.backbones.pretrained import read_file
from robot_vision.errors import BundleError
from robot_vision.networks.xfeat_graph import CELL, INPUT, MULTIPLE, OUTPUTS, SIZE

_OPSET = 17  # as that of bundles
_EPSILON = 1e-5  # of the image's variance, its values from 0 to 1
_UNUSED = "fine_matcher."  # of the published weights
_CLOSE = 1e-3  # largest difference of the graph from the network


def _layer(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Module:
    """Convolution, batch norm without scale and shift, ReLU (section 3.1)."""
    layer = nn.Sequential()
    # By this name the published weights have it.
    layer.add_module(
        "layer",
        nn.Sequential(
            nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
            nn.BatchNorm2d(outputs, affine=False),
            nn.ReLU(),
        ),
    )
    return layer


class XFeat(nn.Module):
    """Corners, their reliability, and descriptors of one image. Submodules are named as in the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.skip1 = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(1, 24, 1))
        self.block1 = nn.Sequential(
            _layer(1, 4), _layer(4, 8, stride=2), _layer(8, 8), _layer(8, 24, stride=2)
        )
        self.block2 = nn.Sequential(_layer(24, 24), _layer(24, 24))
        self.block3 = nn.Sequential(_layer(24, 64, stride=2), _layer(64, 64), _layer(64, 64, 1))
        self.block4 = nn.Sequential(_layer(64, 64, stride=2), _layer(64, 64), _layer(64, 64))
        self.block5 = nn.Sequential(
            _layer(64, 128, stride=2), _layer(128, 128), _layer(128, 128), _layer(128, 64, 1)
        )
        self.block_fusion = nn.Sequential(_layer(64, 64), _layer(64, 64), nn.Conv2d(64, SIZE, 1))
        self.heatmap_head = nn.Sequential(
            _layer(64, 64, 1), _layer(64, 64, 1), nn.Conv2d(64, 1, 1), nn.Sigmoid()
        )
        self.keypoint_head = nn.Sequential(
            _layer(CELL**2, 64, 1),
            _layer(64, 64, 1),
            _layer(64, 64, 1),
            nn.Conv2d(64, CELL**2 + 1, 1),
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what `OUTPUTS` names.

        Args:
            image: RGB uint8 (H, W, 3), H and W multiples of 32.

        Returns:
            How much of a corner each pixel is (H, W), 0 to 1; how well features there match (H/8, W/8), 0 to
            1; descriptors (64, H/8, W/8) of length 1.
        """
        x = image.float().mean(dim=2)[None, None] / 255  # (1, 1, H, W)
        x = x - x.mean()
        x = x / torch.sqrt((x * x).mean() + _EPSILON)

        coarse = self.block2(self.block1(x) + self.skip1(x))  # (1, 24, H/4, W/4)
        third = self.block3(coarse)  # (1, 64, H/8, W/8)
        fourth = self.block4(third)  # (1, 64, H/16, W/16)
        fifth = self.block5(fourth)  # (1, 64, H/32, W/32)
        fused = self.block_fusion(third + _larger(fourth, 2) + _larger(fifth, 4))

        # Section 3.2: a head of its own sees each cell of 8 x 8 pixels, and says which is a corner, or none.
        cells = F.pixel_unshuffle(x, CELL)  # (1, 64, H/8, W/8)
        which = torch.softmax(self.keypoint_head(cells), dim=1)[:, : CELL**2]
        corners = F.pixel_shuffle(which, CELL)  # (1, 1, H, W)
        reliability = self.heatmap_head(fused)  # (1, 1, H/8, W/8)
        return corners[0, 0], reliability[0, 0], F.normalize(fused, dim=1)[0]


def _larger(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def is_xfeat(state: Mapping[str, Any]) -> bool:
    """Says whether tensors are XFeat's, by their names."""
    return "keypoint_head.3.weight" in state and "block_fusion.2.weight" in state


def load(path: Path) -> XFeat:
    """Returns the network with published weights, in evaluation mode.

    Args:
        path: `xfeat.pt`, which is read without running pickled code.

    Raises:
        BundleError: absent, broken, or not XFeat's: missing or additional tensors, or of other shapes.
    """
    content = read_file(path)
    state = dict(content) if isinstance(content, Mapping) else {}
    if not is_xfeat(state):
        raise BundleError(f"{path} does not have XFeat's tensors: give the xfeat.pt of its authors")
    network = XFeat()
    needed = network.state_dict()
    state = {name: value for name, value in state.items() if not name.startswith(_UNUSED)}
    for name in sorted(needed.keys() ^ state.keys()):
        what = "lacks" if name in needed else "has additional"
        raise BundleError(f"{path} is not quite XFeat: it {what} {name}")
    for name, value in needed.items():
        if state[name].shape != value.shape:
            raise BundleError(
                f"{path} is not quite XFeat: {name} has shape {tuple(state[name].shape)} and not "
                f"{tuple(value.shape)}"
            )
    network.load_state_dict(state)
    return network.eval()


def export(network: XFeat) -> bytes:
    """Returns the ONNX graph, for images of any size, compared with the network on two of them.

    Raises:
        BundleError: they differ.
    """
    assert not network.training
    random = np.random.default_rng(0)
    small, large = (random.integers(0, 256, (*s, 3), np.uint8) for s in ((96, 160), (224, 128)))
    with (
        torch.no_grad(),
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory() as folder,
    ):
        path = Path(folder) / "xfeat.onnx"
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.onnx.export(
            network,
            (torch.from_numpy(small),),
            str(path),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_axes={
                INPUT: {0: "height", 1: "width"},
                "corners": {0: "height", 1: "width"},
                "reliability": {0: "rows", 1: "columns"},
                "descriptors": {1: "rows", 2: "columns"},
            },
            opset_version=_OPSET,
            dynamo=False,
        )
        graph = onnx.load(path).SerializeToString(deterministic=True)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for image in (small, large):
        assert all(side % MULTIPLE == 0 for side in image.shape[:2])
        found = session.run(list(OUTPUTS), {INPUT: image})
        with torch.no_grad():
            wanted = network(torch.from_numpy(image))
        for name, ours, theirs in zip(OUTPUTS, found, wanted, strict=True):
            gap = float(np.abs(ours - theirs.numpy()).max())
            if not gap <= _CLOSE:
                raise BundleError(
                    f"The graph's {name} differ from the network's by {gap:g}: at most {_CLOSE:g} is rounding"
                )
    return graph
