"""Video Former: condenses the predictive features of all frames and views into a few tokens (arXiv 2412.14803, 4.3).

Learned queries of each frame gather from that frame's features (a Perceiver resampler, as in Flamingo, arXiv
2204.14198), then look along time. Letters in shapes: B samples, T frames, N feature tokens of a frame over all views,
C feature channels, L queries of a frame, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class VideoFormerConfig:
    """Sizes; the defaults are the published ones for CALVIN (17.7 M parameters on 16 frames of 2560 channels).

    Raises:
        ValueError: If a value is outside its range.
    """

    kind: Literal["3d", "2d", "none"] = "3d"
    """`2d` does without temporal attention; `none` is one linear layer on every feature token."""
    width: int = 384
    """Channels of a token."""
    depth: int = 6
    """Layers."""
    heads: int = 8
    """Heads of both attentions."""
    head_width: int = 64
    """Channels of a head of the cross-attention; one of the temporal attention has `width / heads`."""
    tokens_per_frame: int = 14
    """Queries of a frame."""
    token_positions: bool = False
    """Add a learned embedding to each feature token of a frame, which tells where it lies and in which view. Published:
    none, since features of a long trained video model tell that themselves; those of a small one do not."""

    def __post_init__(self) -> None:
        sizes = (self.width, self.depth, self.heads, self.head_width, self.tokens_per_frame)
        if min(sizes) < 1 or self.width % self.heads:
            raise ValueError(
                "expected width, depth, heads, head_width and tokens_per_frame of at least 1 and a width divisible by "
                f"the heads, found {', '.join(map(str, sizes))}"
            )


class VideoFormer(nn.Module):
    """Makes the tokens that the policy is conditioned on.

    Args:
        config: Sizes.
        num_features: Channels of a feature token, C.
        num_frames: Frames of the features, T.
        num_tokens: Feature tokens of a frame over all views, N; needed with `token_positions`.

    Raises:
        ValueError: If tokens are to have positions and it is not told how many there are.
    """

    def __init__(self, config: VideoFormerConfig, num_features: int, num_frames: int, num_tokens: int = 0) -> None:
        super().__init__()
        if config.token_positions and num_tokens < 1:
            raise ValueError(f"token_positions: expected num_tokens of at least 1, found {num_tokens}")
        self.config, self.num_features, self.num_frames = config, num_features, num_frames
        width = config.width
        self.token_positions = nn.Parameter(torch.zeros(num_tokens, width)) if config.token_positions else None
        if config.kind == "none":
            self.projection = nn.Linear(num_features, width)
            return
        self.feature_mlp = nn.Sequential(nn.Linear(num_features, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.frame_embedding = nn.Parameter(torch.randn(num_frames, 1, width))
        self.queries = nn.Parameter(torch.randn(num_frames, config.tokens_per_frame, width))
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.depth))
        self.final_norm = nn.LayerNorm(width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Tokens `[B, T * L, W]`, frame by frame; `[B, T * N, W]` of kind `none`.

        Args:
            features: `[B, T, N, C]`.

        Raises:
            ValueError: If the features have another number of frames or channels.
        """
        if features.ndim != 4 or (features.shape[1], features.shape[3]) != (self.num_frames, self.num_features):
            raise ValueError(
                f"expected features [B, {self.num_frames}, N, {self.num_features}], found {list(features.shape)}"
            )
        if self.config.kind == "none":
            projected: torch.Tensor = self._placed(self.projection(features)).flatten(1, 2)
            return projected
        features = self._placed(self.feature_mlp(features) + self.frame_embedding).flatten(0, 1)
        tokens = self.queries.expand(len(features) // self.num_frames, -1, -1, -1)
        for layer in self.layers:
            tokens = layer(tokens, features)
        normed: torch.Tensor = self.final_norm(tokens.flatten(1, 2))
        return normed

    def _placed(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens if self.token_positions is None else tokens + self.token_positions


class _Layer(nn.Module):
    """Each frame's queries read its features, look along time, and go through an MLP; each with a residual."""

    def __init__(self, config: VideoFormerConfig) -> None:
        super().__init__()
        width = config.width
        self.cross_attention = _PerceiverAttention(width, config.heads, config.head_width)
        self.temporal_attention = _TemporalAttention(width, config.heads) if config.kind == "3d" else None
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )

    def forward(self, tokens: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Tokens `[B, T, L, W]` again, from features `[B * T, N, W]`."""
        frames = tokens.flatten(0, 1)
        tokens = (frames + self.cross_attention(frames, features)).unflatten(0, tokens.shape[:2])
        if self.temporal_attention is not None:
            tokens = tokens + self.temporal_attention(tokens)
        after: torch.Tensor = tokens + self.mlp(tokens)
        return after


class _PerceiverAttention(nn.Module):
    """Queries look at the features and at each other."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.feature_norm = nn.LayerNorm(width)
        self.query_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key = nn.Linear(width, heads * head_width, bias=False)
        self.value = nn.Linear(width, heads * head_width, bias=False)
        self.output = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, queries: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        queries = self.query_norm(queries)
        context = torch.cat([self.feature_norm(features), queries], dim=1)
        split = (self.heads, -1)
        query = self.query(queries).unflatten(-1, split).transpose(1, 2)
        key = self.key(context).unflatten(-1, split).transpose(1, 2)
        value = self.value(context).unflatten(-1, split).transpose(1, 2)
        seen: torch.Tensor = self.output(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return seen


class _TemporalAttention(nn.Module):
    """Self-attention over the frames of one query index, `[B, T, L, W]`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tracks = tokens.transpose(1, 2).flatten(0, 1)  # [B * L, T, W]
        query, key, value = self.query_key_value(tracks).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = self.output(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        along_time: torch.Tensor = seen.unflatten(0, (len(tokens), -1)).transpose(1, 2)
        return along_time
