"""Place head: BoQ, learned queries that look into a feature map by cross-attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robot_vision.errors import ConfigError
from robot_vision.heads.place.poolings.pooling import Pooling, l2_normalised, require_map
from robot_vision.heads.place.spec import PlaceSpec

HEAD_CHANNELS = 64  # channels that one head of attention has, as in the authors' code


class QueryBlock(nn.Module):
    """Features through a transformer's encoder, and learned queries that attend to what comes out."""

    def __init__(self, channels: int, queries: int, heads: int) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(
            channels, heads, dim_feedforward=4 * channels, dropout=0.0, batch_first=True
        )
        self.queries = nn.Parameter(torch.randn(1, queries, channels))
        self.self_attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.norm_queries = nn.LayerNorm(channels)
        self.cross_attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.norm_out = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features (N, n, c) encoded, and what the queries found, (N, M, c)."""
        x = self.encoder(x)
        # The queries are the same for every image, so that a graph holds them as constants.
        queries = self.queries + self.self_attention(self.queries, self.queries, self.queries)[0]
        queries = self.norm_queries(queries).expand(x.shape[0], -1, -1)
        found, _ = self.cross_attention(queries, x, x, need_weights=False)
        return x, self.norm_out(found)


class BoqHead(Pooling):
    """Ali-bey, Chaib-draa and Giguere, "BoQ: A Place is Worth a Bag of Learnable Queries" (CVPR 2024).

    The map is reduced to c channels by a convolution of 3 x 3 and normalised. Block l encodes what the
    one before gave, X_l = Encoder(X_(l-1)) (eq. 2); its M learned queries attend to each other, Q_l =
    norm(Q + attention(Q, Q, Q)) (eq. 3), and to the features, O_l = norm(attention(Q_l, X_l, X_l))
    (eq. 4). A linear layer makes r rows of the M L rows of all O_l (eq. 5 and 6); the c r numbers,
    L2-normalised, are the descriptor.

    Args:
        spec: `clusters` queries M in each block, `channels` c, `rows` r, `depth` blocks L.
        shape: the tap's shape, (C, H, W).

    Raises:
        ConfigError: the tap is no feature map, or `channels` is above 64 and no multiple of it.
    """

    def __init__(self, spec: PlaceSpec, shape: tuple[int, ...]) -> None:
        require_map(spec, shape)
        channels, rows, depth = spec.of("channels"), spec.of("rows"), spec.of("depth")
        heads = max(1, channels // HEAD_CHANNELS)
        if channels % heads:
            raise ConfigError(
                f"place channels is {channels}: with boq it must be a multiple of {HEAD_CHANNELS}, or "
                "less than twice that"
            )
        super().__init__(spec, channels * rows)
        self.reduce = nn.Conv2d(shape[0], channels, kernel_size=3, padding=1)
        self.norm = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(
            QueryBlock(channels, spec.clusters, heads) for _ in range(depth)
        )
        self.over_queries = nn.Linear(depth * spec.clusters, rows)

    def aggregate(self, *taps: Tensor) -> Tensor:
        """Returns the descriptors before whitening, (N, channels * rows) of norm 1."""
        x = self.norm(self.reduce(taps[0]).flatten(2).transpose(1, 2))  # (N, n, c)
        found = []
        for block in self.blocks:
            x, queries = block(x)
            found.append(queries)
        rows = self.over_queries(torch.cat(found, dim=1).transpose(1, 2))  # (N, c, r)
        return l2_normalised(rows.flatten(1), dim=1)
