"""Convolutions along time, computed as convolutions of a plane: the same numbers, faster on a CPU, and right in bf16.

Stable Video Diffusion's temporal layers are 3-D convolutions with kernels of `(k, 1, 1)`. On a CPU, PyTorch runs them
without oneDNN's fast path, and their bfloat16 gradients are wrong (PyTorch 2.13: NaN, or memory written out of bounds,
with 32 or 64 channels on a processor with AMX). A plane of time x pixels with kernels of `(k, 1)` needs neither.
"""

from __future__ import annotations

from types import MethodType

import torch
from torch import nn
from torch.nn import functional


def use_plane_convolutions(model: nn.Module) -> int:
    """Makes every convolution of a model that looks along time only run over a plane; weights and names stay.

    Args:
        model: Changed in place. Undone by loading it anew.

    Returns:
        How many convolutions were changed.
    """
    found = [module for module in model.modules() if isinstance(module, nn.Conv3d) and _looks_along_time(module)]
    for module in found:
        module.forward = MethodType(_forward, module)  # type: ignore[method-assign]
    return len(found)


def _looks_along_time(module: nn.Conv3d) -> bool:
    return (
        module.kernel_size[1:] == (1, 1)
        and module.stride == (1, 1, 1)
        and module.dilation == (1, 1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.padding[1:] == (0, 0)
    )


def _forward(module: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    """`[B, C, T, H, W]` to `[B, C', T', H, W]`."""
    height, width = x.shape[3:]
    plane = functional.conv2d(x.flatten(3), module.weight[..., 0], module.bias, padding=(int(module.padding[0]), 0))
    return plane.reshape(*plane.shape[:3], height, width)
