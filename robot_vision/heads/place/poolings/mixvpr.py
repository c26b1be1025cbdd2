"""Place head: MixVPR, whole channels of a feature map mixed by small perceptrons."""

from __future__ import annotations

from torch import Tensor, nn

from robot_vision.heads.place.poolings.pooling import Pooling, l2_normalised, require_map
from robot_vision.heads.place.spec import PlaceSpec


class Mixer(nn.Module):
    """Adds to each channel what two layers make of it: x + W2 relu(W1 norm(x))."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.first = nn.Linear(size, size)
        self.relu = nn.ReLU()
        self.second = nn.Linear(size, size)
        for layer in (self.first, self.second):  # so that it begins as nearly nothing
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes (N, C, n) along n."""
        mixed: Tensor = x + self.second(self.relu(self.first(self.norm(x))))
        return mixed


class MixVprHead(Pooling):
    """Ali-bey, Chaib-draa and Giguere, "MixVPR: Feature Mixing for Visual Place Recognition" (WACV 2023).

    Each channel X_c of the feature map, a vector of n = H W numbers, goes through L mixers (eq. 2),

        X_c <- X_c + W2 relu(W1 norm(X_c)),

    then the C channels are projected to d ones and their n numbers to r (eq. 4 and 5); the d r numbers,
    L2-normalised, are the descriptor. The layers belong to one input size.

    Args:
        spec: `channels` d, `rows` r, `depth` L.
        shape: the tap's shape, (C, H, W).

    Raises:
        ConfigError: the tap is no feature map, or the whitened size is too large.
    """

    def __init__(self, spec: PlaceSpec, shape: tuple[int, ...]) -> None:
        require_map(spec, shape)
        channels, rows = spec.of("channels"), spec.of("rows")
        super().__init__(spec, channels * rows)
        numbers = shape[1] * shape[2]
        self.mixers = nn.Sequential(*(Mixer(numbers) for _ in range(spec.of("depth"))))
        self.over_channels = nn.Linear(shape[0], channels)
        self.over_rows = nn.Linear(numbers, rows)

    def aggregate(self, *taps: Tensor) -> Tensor:
        """Returns the descriptors before whitening, (N, channels * rows) of norm 1."""
        x = self.mixers(taps[0].flatten(2))  # (N, C, n)
        x = self.over_channels(x.transpose(1, 2)).transpose(1, 2)  # (N, d, n)
        return l2_normalised(self.over_rows(x).flatten(1), dim=1)
