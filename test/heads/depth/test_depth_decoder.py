"""The depth head's light decoder: what it folds it unfolds, at any size."""

import numpy as np
import pytest

from robot_vision.heads.depth.spec import DepthSpec

torch = pytest.importorskip("torch")

from robot_vision.heads.depth.network import Folded  # noqa: E402


def decoder(shapes, channels=8):
    torch.manual_seed(0)
    strides = tuple(4 * 2**i for i in range(len(shapes)))
    return Folded(DepthSpec(strides=strides, channels=channels), shapes).eval()


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_what_is_folded_is_unfolded_to_its_own_pixel(size):
    """With weights that hand four pixels on, the answer is the map."""
    module = decoder([(2, *size)])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        for norm in (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.weight.fill_(1)
        depthwise, _, pointwise, _, _ = module.blocks[0]
        depthwise.weight[:, 0, 2, 2] = 1
        for k in range(8):
            module.fold.weight[k, k // 4, k // 2 % 2, k % 2] = 1
            pointwise.weight[k, k] = module.unfold.weight[k, k] = 1
    image = torch.rand(3, 2, *size)
    np.testing.assert_allclose(module.numbers(image).detach(), image, rtol=1e-4)


@pytest.mark.parametrize("rounded", [np.floor, np.ceil])
def test_sides_may_be_odd_and_rounded_either_way(rounded):
    shapes = [(3, 13, 19)]
    for _ in range(3):
        shapes.append((3, *(int(rounded(side / 2)) for side in shapes[-1][1:])))
    module = decoder(shapes)
    maps = [torch.randn(2, *shape, requires_grad=True) for shape in shapes]
    answer = module.numbers(*maps)
    assert answer.shape == (2, 2, 13, 19)
    answer.sum().backward()
    assert all(m.grad.abs().sum() > 0 for m in maps)


def test_the_answer_moves_with_the_image():
    """Two pixels of the finest map are one step of all that is computed, away from the border."""
    module = decoder([(3, 32, 32), (4, 16, 16)])
    fine, coarse = torch.randn(1, 3, 32, 32), torch.randn(1, 4, 16, 16)
    there = module.numbers(fine, coarse)[..., 8:20, 8:20]
    moved = module.numbers(fine.roll((2, 2), (2, 3)), coarse.roll((1, 1), (2, 3)))
    np.testing.assert_allclose(there.detach(), moved[..., 10:22, 10:22].detach(), atol=1e-5)
