"""Stable Video Diffusion's UNet for inference alone: up to an up-block, with what a caption means to it made once.

It is made of a `UNetSpatioTemporalConditionModel` and computes the same numbers; see `vpp.video.inference_layers` for
what it does in another order. Shapes: S clips of T frames, with the channels last.
"""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from vpp.video.inference_attention import Transformer
from vpp.video.inference_layers import (
    EnlargingConvolution,
    GroupNorm,
    KeysValues,
    PlaneConvolution,
    ResidualBlock,
    TimeBiases,
)

_Biases = Iterator[TimeBiases]
_Captions = Iterator[KeysValues]


class InferenceUnet(nn.Module):
    """The UNet up to an up-block, frozen; layers behind it are left with the given one.

    Args:
        unet: A `UNetSpatioTemporalConditionModel`, whole or cut after an up-block. Weights that need no change are
            shared with it.
        num_frames: Frames of a clip.
        last_block: Number of the last up-block to keep, from 0; None keeps all, and the layers that end in latents.

    Raises:
        ValueError: If there is no such block.
    """

    def __init__(self, unet: Any, num_frames: int, last_block: int | None) -> None:
        super().__init__()
        blocks = unet.up_blocks if last_block is None else unet.up_blocks[: last_block + 1]
        if last_block is not None and not 0 <= last_block < len(unet.up_blocks):
            raise ValueError(f"expected an up-block from 0 to {len(unet.up_blocks) - 1}, found {last_block}")
        self.divisor: int = 2**unet.num_upsamplers
        self.time_proj, self.time_embedding = copy.deepcopy((unet.time_proj, unet.time_embedding))
        self.add_time_proj, self.add_embedding = copy.deepcopy((unet.add_time_proj, unet.add_embedding))
        self.conv_in = PlaneConvolution(unet.conv_in.weight, unet.conv_in.bias)
        self.down_blocks: Any = nn.ModuleList(_Block(block, num_frames) for block in unet.down_blocks)
        self.mid_block = _Block(unet.mid_block, num_frames)
        self.up_blocks: Any = nn.ModuleList(_Block(block, num_frames) for block in blocks)
        self.norm_out: nn.Module | None = None
        if last_block is None:
            if isinstance(unet.conv_out, nn.Identity):
                raise ValueError("expected a whole UNet, found one that is cut")
            self.norm_out = GroupNorm(unet.conv_norm_out, silu=True)
            self.conv_out = PlaneConvolution(unet.conv_out.weight, unet.conv_out.bias)
        self.requires_grad_(False)

    @property
    def num_channels(self) -> list[int]:
        """Channels of each up-block's output."""
        return [block.num_channels for block in self.up_blocks]

    @property
    def scales(self) -> list[float]:
        """Width of each up-block's output over that of the latents."""
        smallest = 0.5 ** sum(block.resize is not None for block in self.down_blocks)
        resized = itertools.accumulate((1.0 if block.resize is None else 2.0 for block in self.up_blocks), operator.mul)
        return [smallest * factor for factor in resized]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and of what it reads."""
        return self.conv_in.weight.dtype

    def captions(self, states: torch.Tensor) -> tuple[KeysValues, ...]:
        """Keys and values of captions `[B, L, 1024]` for each attention to them."""
        parts = [part for part in self.modules() if isinstance(part, Transformer)]
        return tuple(caption for part in parts for caption in part.captions(states.to(self.dtype)))

    def biases(self, c_noise: torch.Tensor, time_ids: torch.Tensor) -> tuple[TimeBiases, ...]:
        """Biases for each residual block at a noise level, `c_noise` a scalar, with time ids `[3]`."""
        embedding = self.time_embedding(self.time_proj(c_noise[None]).to(self.dtype))[0]
        embedding = embedding + self.add_embedding(self.add_time_proj(time_ids).flatten()[None].to(self.dtype))[0]
        return tuple(part.time_biases(embedding) for part in self.modules() if isinstance(part, ResidualBlock))

    def forward(
        self, x: torch.Tensor, captions: Sequence[KeysValues], biases: Sequence[TimeBiases]
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Outputs of the up-blocks `[S, T, h, w, C]`, and of the UNet `[S, T, H, W, 4]` where it is whole.

        Args:
            x: What the UNet reads `[S, T, H, W, 8]`, height and width divisible by `divisor`.
            captions: Of B captions, each of which belongs to S / B neighbouring clips.
            biases: Of the noise level.
        """
        told = iter(biases), iter(captions)
        shape = x.shape[:2]
        x = self.conv_in(x.flatten(0, 1)).unflatten(0, shape)
        skips, outputs = [x], []
        for block in self.down_blocks:
            x = block.down(x, *told, skips)
        x = self.mid_block.middle(x, *told)
        for block in self.up_blocks:
            x = block.up(x, *told, skips)
            outputs.append(x)
        if self.norm_out is None:
            return outputs, None
        return outputs, self.conv_out(self.norm_out(x.flatten(0, 1))).unflatten(0, shape)


class _Block(nn.Module):
    """A block of the UNet; each residual block takes the next biases, each transformer its next captions."""

    def __init__(self, block: Any, num_frames: int) -> None:
        super().__init__()
        self.residual_blocks = nn.ModuleList(ResidualBlock(part) for part in block.resnets)
        self.transformers: Any = nn.ModuleList(
            Transformer(part, num_frames) for part in getattr(block, "attentions", ())
        )
        self.num_channels: int = block.resnets[-1].spatial_res_block.out_channels
        self.resize: nn.Module | None = None
        if getattr(block, "downsamplers", None):
            convolution = block.downsamplers[0].conv
            self.resize = PlaneConvolution(convolution.weight, convolution.bias, stride=2)
        elif getattr(block, "upsamplers", None):
            convolution = block.upsamplers[0].conv
            self.resize = EnlargingConvolution(convolution.weight, convolution.bias)

    def down(self, x: torch.Tensor, biases: _Biases, captions: _Captions, skips: list[torch.Tensor]) -> torch.Tensor:
        for number, residual_block in enumerate(self.residual_blocks):
            x = residual_block(x, next(biases))
            x = self._transform(number, x, captions)
            skips.append(x)
        if self.resize is not None:
            x = self.resize(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            skips.append(x)
        return x

    def middle(self, x: torch.Tensor, biases: _Biases, captions: _Captions) -> torch.Tensor:
        for number, residual_block in enumerate(self.residual_blocks):
            x = residual_block(x, next(biases))
            x = self._transform(number, x, captions)
        return x

    def up(self, x: torch.Tensor, biases: _Biases, captions: _Captions, skips: list[torch.Tensor]) -> torch.Tensor:
        for number, residual_block in enumerate(self.residual_blocks):
            x = residual_block(torch.cat([x, skips.pop()], dim=-1), next(biases))
            x = self._transform(number, x, captions)
        return x if self.resize is None else self.resize(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _transform(self, number: int, x: torch.Tensor, captions: _Captions) -> torch.Tensor:
        if number >= len(self.transformers):  # the middle block has one fewer, blocks without attention have none
            return x
        transformer = self.transformers[number]
        y: torch.Tensor = transformer(x, [next(captions) for _ in range(transformer.num_captions)])
        return y
