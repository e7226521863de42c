"""Predictive visual representation: what the video UNet's up-blocks say in one step from pure noise.

Source: arXiv 2412.14803, section 4.2, and its public code. The UNet stops after the last block that is wanted.
"""

from __future__ import annotations

import contextlib
import copy
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import interpolate

from vpp.diffusion.edm import preconditioning
from vpp.video.conditioning import cross_attention_states, time_ids
from vpp.video.denoiser import VideoDenoiser

Aggregate = Literal["all", "last"]


def cut_after(denoiser: VideoDenoiser, last_block: int) -> VideoDenoiser:
    """A denoiser of the same weights whose UNet ends after an up-block; the given one stays as it is.

    What is cut off is released with the given one. Its UNet returns the block's output, so it no longer denoises.

    Args:
        denoiser: The video model.
        last_block: Number of the last up-block to keep, from 0.

    Raises:
        ValueError: If there is no such block.
    """
    num_blocks = len(denoiser.unet.up_blocks)
    if not 0 <= last_block < num_blocks:
        raise ValueError(f"expected an up-block from 0 to {num_blocks - 1}, found {last_block}")
    unet = copy.copy(denoiser.unet)
    unet._modules = dict(unet._modules)  # the copy shares modules, but not the list of them
    unet.up_blocks = unet.up_blocks[: last_block + 1]
    unet.conv_norm_out = unet.conv_act = unet.conv_out = nn.Identity()
    return VideoDenoiser(unet, denoiser.config)


@torch.no_grad()
def predictive_features(
    denoiser: VideoDenoiser,
    first_frame: torch.Tensor,
    text: torch.Tensor,
    noise: torch.Tensor,
    *,
    sigma: float = 700.0,
    fps: float | None = None,
    last_block: int = 1,
    aggregate: Aggregate = "all",
    image: torch.Tensor | None = None,
) -> torch.Tensor:
    """Features float32 `[B, T, C, h, w]`.

    Args:
        denoiser: The video model, whole or cut after `last_block`.
        first_frame: Scaled latents of the first frame `[B, 4, H/8, W/8]`, height and width divisible by 8 again.
        text: CLIP's token sequence `[B, 20, 512]`.
        noise: Standard normal `[B, T, 4, H/8, W/8]`.
        sigma: Noise level of the step.
        fps: First time id; the denoiser's own by default. The published policy is trained with 4, its video model
            with 7.
        last_block: Number of the last up-block that is run, from 0.
        aggregate: `last`: that block's output. `all`: the outputs of all blocks up to it, enlarged (nearest) to the
            largest of them and joined on the channel axis.
        image: CLIP image embedding of another camera `[B, 512]`, for a model with that condition.

    Raises:
        ValueError: If there is no such block, or the latents' size is not divisible.
    """
    cut, config = cut_after(denoiser, last_block), denoiser.config
    unet = cut.unet
    factor = 2**unet.num_upsamplers
    if any(size % factor for size in noise.shape[-2:]):
        raise ValueError(f"expected latents of a height and width divisible by {factor}, found {noise.shape[-2:]}")
    levels = noise.new_full((len(noise),), sigma)
    spread = (levels**2 + config.sigma_data**2).sqrt().reshape(-1, 1, 1, 1, 1)
    start = noise * spread  # as the published scheduler does, so that features agree to the last bit
    still = (first_frame / config.scaling_factor)[:, None].expand_as(noise)
    earlier: list[torch.Tensor] = []

    def keep_output(block: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        earlier.append(output.float())

    with contextlib.ExitStack() as hooks:
        for block in unet.up_blocks[:last_block] if aggregate == "all" else ():
            hooks.enter_context(block.register_forward_hook(keep_output))
        last = unet(
            torch.cat([start / spread, still], dim=2),
            preconditioning(levels, config.sigma_data).c_noise,
            encoder_hidden_states=cross_attention_states(text, position_encode=config.position_encode, image=image),
            added_time_ids=time_ids(config.fps if fps is None else fps, config.motion_bucket_id, levels * 0),
            return_dict=False,
        )[0]
    outputs = [*earlier, last.float().flatten(0, 1)]
    largest = outputs[-1].shape[-2:]  # blocks grow, or stay as large
    joined = torch.cat([interpolate(output, largest) for output in outputs], dim=1)
    return joined.reshape(*noise.shape[:2], *joined.shape[1:])
