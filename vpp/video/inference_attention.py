"""The transformers of Stable Video Diffusion's UNet for inference alone; see `vpp.video.inference_layers`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vpp.video.fused_linear import Linear
from vpp.video.inference_layers import GroupNorm, KeysValues, LayerNorm

_NUMBERS = 8192 * 320
"""Of a part that a CPU works on; half or twice as many take within 5 % of it, a quarter 13 % more."""


class SelfAttention(nn.Module):
    """Attention of a sequence to itself, with one matrix product for queries, keys and values."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads: int = attention.heads
        self.to_qkv = Linear(torch.cat([attention.to_q.weight, attention.to_k.weight, attention.to_v.weight]))
        self.to_out = Linear(attention.to_out[0].weight, attention.to_out[0].bias)

    def over_pixels(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Within each frame: `[S, T, P, C]`, added to `skip`."""
        query, key, value = self.to_qkv(x.flatten(0, 1)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out.plus(attended.transpose(1, 2).reshape(x.shape), skip)

    def over_frames(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Within each pixel's frames: `[S, T, P, C]`, added to `skip`."""
        clips = []
        for clip in self.to_qkv(x).unflatten(-1, (3, self.num_heads, -1)):  # so that no axes need to be joined
            query, key, value = clip.permute(2, 1, 3, 0, 4)
            clips.append(functional.scaled_dot_product_attention(query, key, value).permute(2, 0, 1, 3))
        return self.to_out.plus(torch.stack(clips).reshape(x.shape), skip)


class CrossAttention(nn.Module):
    """Attention to the caption."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.num_heads: int = attention.heads
        self.to_query = Linear(attention.to_q.weight)
        self.to_key, self.to_value = Linear(attention.to_k.weight), Linear(attention.to_v.weight)
        self.to_out = Linear(attention.to_out[0].weight, attention.to_out[0].bias)

    def keys_values(self, states: torch.Tensor) -> KeysValues:
        """Of the captions `[B, L, 1024]`."""
        key, value = (
            project(states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2).contiguous()
            for project in (self.to_key, self.to_value)
        )
        return key, value

    def forward(self, x: torch.Tensor, caption: KeysValues, skip: torch.Tensor) -> torch.Tensor:
        """`[S, T, P, C]`, where each caption belongs to S / B neighbouring clips; added to `skip`."""
        key, value = caption
        query = self.to_query(x).reshape(len(key), -1, self.num_heads, key.shape[-1]).transpose(1, 2)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out.plus(attended.transpose(1, 2).reshape(x.shape), skip)


class FeedForward(nn.Module):
    """A gated linear unit with GELU."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        gated, _, out = layers.net
        hidden_and_gate = zip(gated.proj.weight.chunk(2), gated.proj.bias.chunk(2), strict=True)
        self.to_hidden, self.to_gate = (Linear(weight, bias) for weight, bias in hidden_and_gate)
        self.to_out = Linear(out.weight, out.bias)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Of the same shape, added to `skip`."""
        return self.to_out.plus(self.to_hidden.times(x, self.to_gate.gelu(x)), skip)


class TransformerLayer(nn.Module):
    """One layer over the pixels of each frame and one over the frames of each pixel, mixed."""

    def __init__(self, space: Any, time: Any, mixer: Any) -> None:
        super().__init__()
        self.norm_1, self.norm_2, self.norm_3 = (LayerNorm(norm) for norm in (space.norm1, space.norm2, space.norm3))
        self.attention, self.to_caption = SelfAttention(space.attn1), CrossAttention(space.attn2)
        self.feed_forward = FeedForward(space.ff)
        self.time_norm_in, self.time_feed_in = LayerNorm(time.norm_in), FeedForward(time.ff_in)
        self.time_norm_1, self.time_norm_2, self.time_norm_3 = (
            LayerNorm(norm) for norm in (time.norm1, time.norm2, time.norm3)
        )
        self.time_attention, self.time_to_caption = SelfAttention(time.attn1), CrossAttention(time.attn2)
        self.time_feed_forward = FeedForward(time.ff)
        self.share_of_space = float(torch.sigmoid(mixer.mix_factor.detach()))

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor, caption: KeysValues, time_caption: KeysValues
    ) -> torch.Tensor:
        """`[S, T, P, C]`, which it writes over, with `positions` of the frames `[T, 1, C]`."""
        for part, told in _parts(x, 1, caption):
            y = self.attention.over_pixels(self.norm_1(part), part)
            y = self.to_caption(self.norm_2(y), told, y)
            part.copy_(self.feed_forward(self.norm_3(y), y))
        for part, told in _parts(x, 2, time_caption):
            y = part + positions
            y = self.time_feed_in(self.time_norm_in(y), y)
            y = self.time_attention.over_frames(self.time_norm_1(y), y)
            y = self.time_to_caption(self.time_norm_2(y), told, y)
            y = self.time_feed_forward(self.time_norm_3(y), y)
            part.lerp_(y, 1 - self.share_of_space)
        return x


def _parts(x: torch.Tensor, axis: int, caption: KeysValues) -> Iterator[tuple[torch.Tensor, KeysValues]]:
    """Clips `[S, T, P, C]` in parts along an axis, each with its captions; on a GPU as a whole.

    A CPU works on what its caches hold, and memory that is asked for in small pieces is used again, where for large
    ones the system clears new pages each time: half of a feed-forward layer's time at 32x32.
    """
    if x.device.type != "cpu" or x.numel() <= _NUMBERS:
        yield x, caption
        return
    size = max(1, _NUMBERS * x.shape[axis] // x[0].numel())
    per_caption = len(x) // len(caption[0])
    for number in range(len(x)):
        key, value = (tensor[number // per_caption, None] for tensor in caption)
        for part in torch.split(x[number, None], size, dim=axis):
            yield part, (key, value)


class Transformer(nn.Module):
    """A `TransformerSpatioTemporalModel` for clips of a fixed length."""

    positions: torch.Tensor

    def __init__(self, model: Any, num_frames: int) -> None:
        super().__init__()
        self.norm = GroupNorm(model.norm, silu=False)
        self.proj_in = Linear(model.proj_in.weight, model.proj_in.bias)
        self.proj_out = Linear(model.proj_out.weight, model.proj_out.bias)
        self.layers: Any = nn.ModuleList(
            TransformerLayer(space, time, model.time_mixer)
            for space, time in zip(model.transformer_blocks, model.temporal_transformer_blocks, strict=True)
        )
        frames = torch.arange(num_frames, device=model.proj_in.weight.device)
        with torch.no_grad():
            embedding = model.time_pos_embed(model.time_proj(frames).to(model.proj_in.weight))
        self.register_buffer("positions", embedding[:, None], persistent=False)

    @property
    def num_captions(self) -> int:
        """How many keys and values of the caption it reads."""
        return 2 * len(self.layers)

    def captions(self, states: torch.Tensor) -> list[KeysValues]:
        """Keys and values of the captions `[B, L, 1024]`, in the order in which they are read."""
        return [
            attention.keys_values(states)
            for layer in self.layers
            for attention in (layer.to_caption, layer.time_to_caption)
        ]

    def forward(self, x: torch.Tensor, captions: list[KeysValues]) -> torch.Tensor:
        """Clips `[S, T, H, W, C]`."""
        y = self.proj_in(self.norm(x.flatten(0, 1))).reshape(*x.shape[:2], -1, self.positions.shape[-1])
        for layer, space, time in zip(self.layers, captions[::2], captions[1::2], strict=True):
            y = layer(y, self.positions, space, time)
        return self.proj_out.plus(y.reshape(x.shape), x)
