"""The layers of Stable Video Diffusion's UNet for inference alone: frozen, with the channels last in every tensor.

They are made of diffusers' layers and compute the same numbers. What differs is the order of the work:

- S clips of T frames stay `[S, T, H, W, C]`. Linear layers, layer norms and both kinds of convolution then read them as
  they lie, and going from the frames to time and back moves nothing but the queries, keys and values of attention.
- Convolutions along time are convolutions of a plane of time x pixels (`vpp.video.plane_convolution`).
- All frames and pixels of a clip read the same caption: its keys and values are made once, outside of these layers,
  where diffusers makes them for every frame and for every pixel.
- The time embedding is the same for all clips, so it is added to the biases of convolutions; the mixing weight of
  the two halves of a residual block is multiplied into the weights of its last convolution.
- A convolution of an enlarged (nearest) picture is four convolutions of the small one with kernels of 2x2, since each
  kernel of 3x3 meets every small pixel up to four times: 4/9 of the arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vpp.video.fused_linear import Linear

KeysValues = tuple[torch.Tensor, torch.Tensor]
"""Of a caption for one attention: `[B, heads, L, C / heads]` each."""
TimeBiases = tuple[torch.Tensor, torch.Tensor]
"""Of a residual block's first convolution in space and in time, with the time embedding: `[C]` each."""


_SMALL = 9
"""Pixels."""


class PlaneConvolution(nn.Module):
    """A convolution of `[N, H, W, C]`.

    Args:
        weight: `[C', C, kernel height, kernel width]`.
        bias: `[C']`.
        stride: Of both axes.
        padding: Zeros before and after both axes; by default those that keep the size.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor, stride: int = 1, padding: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.weight = _frozen(weight.contiguous(memory_format=torch.channels_last))
        self.bias = _frozen(bias)
        self.stride = stride
        self.padding = (weight.shape[2] // 2, weight.shape[3] // 2) if padding is None else padding

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """`[N, H', W', C']`; another bias may take the place of its own."""
        bias = self.bias if bias is None else bias
        if (
            x.device.type == "cpu"
            and self.stride == 1
            and max(x.shape[1:3]) <= _SMALL
            and min(self.weight.shape[2:]) > 1
        ):
            return self._as_matrix_product(x, bias)
        return functional.conv2d(x.permute(0, 3, 1, 2), self.weight, bias, self.stride, self.padding).permute(
            0, 2, 3, 1
        )

    def _as_matrix_product(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """The same with each pixel's neighbours gathered: oneDNN's convolutions of small pictures are slower."""
        height, width = self.weight.shape[2:]
        rows, columns = self.padding
        padded = functional.pad(x, (0, 0, columns, columns, rows, rows))
        neighbours = padded.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3).flatten(3)
        return functional.linear(neighbours, self.weight.permute(0, 2, 3, 1).flatten(1), bias)


class EnlargingConvolution(nn.Module):
    """A picture twice as high and wide (nearest), then a convolution of 3x3: `[N, H, W, C]` to `[N, 2H, 2W, C']`.

    Args:
        weight: `[C', C, 3, 3]`.
        bias: `[C']`.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        # an even row sees the small row before it once and its own twice, an odd row its own twice and the next once
        seen = weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
        kernels = torch.einsum("oiyx,pay,qbx->pqoiab", weight, seen, seen).flatten(0, 1)
        self.convolutions = nn.ModuleList(PlaneConvolution(kernel, bias, padding=(0, 0)) for kernel in kernels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, 2H, 2W, C']`."""
        num, height, width, _ = x.shape
        padded = functional.pad(x, (0, 0, 1, 1, 1, 1))
        quarters = [
            convolution(padded[:, row : row + height + 1, column : column + width + 1])
            for convolution, (row, column) in zip(self.convolutions, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True)
        ]
        joined = torch.stack(quarters).reshape(2, 2, num, height, width, -1).permute(2, 3, 0, 4, 1, 5)
        enlarged: torch.Tensor = joined.reshape(num, 2 * height, 2 * width, -1)
        return enlarged


class GroupNorm(nn.Module):
    """Normalises groups of channels of `[N, H, W, C]` over all pixels."""

    def __init__(self, norm: nn.GroupNorm, *, silu: bool) -> None:
        super().__init__()
        self.weight, self.bias = _frozen(norm.weight), _frozen(norm.bias)
        self.num_groups, self.eps, self.silu = norm.num_groups, norm.eps, silu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the same shape, with SiLU behind it where it is asked for."""
        x = functional.group_norm(x.permute(0, 3, 1, 2), self.num_groups, self.weight, self.bias, self.eps)
        return (functional.silu(x, inplace=True) if self.silu else x).permute(0, 2, 3, 1)


class ResidualBlock(nn.Module):
    """Two convolutions in space, then two along time, each pair around a skip: a `SpatioTemporalResBlock`."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        space, time = block.spatial_res_block, block.temporal_res_block
        share = 1.0 - torch.sigmoid(block.time_mixer.mix_factor.detach())
        self.norm_1, self.norm_2 = GroupNorm(space.norm1, silu=True), GroupNorm(space.norm2, silu=True)
        self.convolution_1 = PlaneConvolution(space.conv1.weight, space.conv1.bias)
        self.convolution_2 = PlaneConvolution(space.conv2.weight, space.conv2.bias)
        skip = space.conv_shortcut
        self.skip = None if skip is None else Linear(skip.weight.flatten(1), skip.bias)
        self.time_norm_1, self.time_norm_2 = GroupNorm(time.norm1, silu=True), GroupNorm(time.norm2, silu=True)
        self.time_convolution_1 = PlaneConvolution(time.conv1.weight[..., 0], time.conv1.bias)
        self.time_convolution_2 = PlaneConvolution(time.conv2.weight[..., 0] * share, time.conv2.bias * share)
        self.time_embeddings = nn.ModuleList(
            Linear(part.time_emb_proj.weight, part.time_emb_proj.bias) for part in (space, time)
        )

    def time_biases(self, embedding: torch.Tensor) -> TimeBiases:
        """Biases of both first convolutions for the UNet's time embedding `[4 C_0]`."""
        in_space, in_time = (project(functional.silu(embedding)) for project in self.time_embeddings)
        return self.convolution_1.bias + in_space, self.time_convolution_1.bias + in_time

    def forward(self, x: torch.Tensor, biases: TimeBiases) -> torch.Tensor:
        """`[S, T, H, W, C]` to `[S, T, H, W, C']`."""
        clips, frames, height, width, _ = x.shape
        planes = x.flatten(0, 1)
        y: torch.Tensor = self.convolution_2(self.norm_2(self.convolution_1(self.norm_1(planes), biases[0])))
        y = y + planes if self.skip is None else self.skip.plus(planes, y)
        along_time = y.reshape(clips, frames, height * width, -1)
        changed = self.time_convolution_1(self.time_norm_1(along_time), biases[1])
        y = along_time + self.time_convolution_2(self.time_norm_2(changed))
        return y.reshape(clips, frames, height, width, -1)


class LayerNorm(nn.Module):
    """Normalises the channels of `[..., C]`."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = _frozen(norm.weight), _frozen(norm.bias), norm.eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of the same shape."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


def _frozen(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)
