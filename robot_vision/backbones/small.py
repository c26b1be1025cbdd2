"""Small networks of one grey channel that torchvision does not have."""

from __future__ import annotations

from torch import Tensor, nn


class LeNet(nn.Module):
    """LeNet for 28 x 28 grey images (LeCun et al. 1998, as it is built since: ReLU and maximum pooling).

    Convolutions of 20 and 50 maps of 5 x 5, each pooled by 2, then 2450 -> 500 -> `classes`.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5, padding=2)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(20, 50, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(50 * 7 * 7, 500)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N, classes) of grey images (N, 1, 28, 28)."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        logits: Tensor = self.fc2(self.relu3(self.fc1(self.flatten(x))))
        return logits


class _PreActivated(nn.Module):
    """A residual block whose convolutions follow batch norm and ReLU; the shortcut is a convolution."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(outside)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.bypass = nn.Conv2d(inside, outside, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        deep = self.conv1(self.relu1(self.bn1(x)))
        deep = self.conv2(self.relu2(self.bn2(deep)))
        added: Tensor = deep + self.bypass(x)
        return added


class _PostActivated(nn.Module):
    """The block of PULP-DroNet: batch norm and ReLU6 behind each convolution, ReLU6 on the shortcut too."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(outside)
        self.relu1 = nn.ReLU6()
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outside)
        self.relu2 = nn.ReLU6()
        self.bypass = nn.Conv2d(inside, outside, 1, stride=2)
        self.relu3 = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        deep = self.relu1(self.bn1(self.conv1(x)))
        deep = self.relu2(self.bn2(self.conv2(deep)))
        added: Tensor = deep + self.relu3(self.bypass(x))
        return added


class ResNet8(nn.Module):
    """DroNet's network for 200 x 200 grey images (Loquercio et al. 2018, figure 2).

    Its last layer has the two numbers of the paper: steering, and the logit of a collision. Modules have
    the names of PULP-DroNet's published weights.
    """

    says = "steering and collision"
    _block: type[nn.Module] = _PreActivated

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(1, 32, 5, stride=2, padding=2)
        self.pool = self._pool()
        self.resBlock1 = self._block(32, 32)
        self.resBlock2 = self._block(32, 64)
        self.resBlock3 = self._block(64, 128)
        self.relu = self._relu()
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(128 * 7 * 7, 2)

    def _pool(self) -> nn.Module:
        return nn.MaxPool2d(3, stride=2)

    def _relu(self) -> nn.Module:
        return nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, 2) of grey images (N, 1, 200, 200)."""
        x = self.resBlock3(self.resBlock2(self.resBlock1(self.pool(self.layer1(x)))))
        numbers: Tensor = self.fc(self.flatten(self.relu(x)))
        return numbers


class PulpResNet8(ResNet8):
    """DroNet's network as PULP-DroNet has it (Palossi et al. 2019): activated behind the convolutions."""

    _block = _PostActivated

    def _pool(self) -> nn.Module:
        return nn.MaxPool2d(2)

    def _relu(self) -> nn.Module:
        return nn.ReLU6()
