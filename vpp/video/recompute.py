"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) of the video UNet, by residual block and transformer.

diffusers' own recomputes the residual blocks and the spatial half of a transformer, and keeps what the temporal half
computes. Here a whole block or transformer keeps its input alone; `benchmarks/memory_per_gpu.py` counts the difference.
"""

from __future__ import annotations

import functools

from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from torch import nn
from torch.utils.checkpoint import checkpoint

UNITS = (SpatioTemporalResBlock, TransformerSpatioTemporalModel)
"""Of these the UNet's blocks consist."""


def unet_units(module: nn.Module) -> list[nn.Module]:
    """The residual blocks and transformers of a UNet, or of what contains it, in their order."""
    return [part for part in module.modules() if isinstance(part, UNITS)]


def recompute_in_backward(module: nn.Module) -> None:
    """Makes each unit keep its input alone for the backward pass and compute the rest again, in place.

    Numbers do not change; names of parameters do not either. May come before or after sharding.
    """
    for unit in unet_units(module):
        # the UNet draws no random numbers, so there is no state to bring back
        unit.forward = functools.partial(  # type: ignore[method-assign]
            checkpoint, unit.forward, use_reentrant=False, preserve_rng_state=False
        )
