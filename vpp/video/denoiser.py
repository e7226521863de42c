"""The text-guided video denoiser: Stable Video Diffusion's UNet behind EDM preconditioning.

Latents are scaled VAE outputs `[B, T, 4, H/8, W/8]` (B clips, T frames). Source: arXiv 2412.14803 and its public code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from vpp.diffusion.edm import preconditioning
from vpp.video.conditioning import cross_attention_states, time_ids


@dataclass(frozen=True)
class DenoiserConfig:
    """How the UNet is called; belongs to its weights.

    Raises:
        ValueError: If a value is outside its range.
    """

    num_frames: int = 16
    """Frames of a clip."""
    fps: float = 7.0
    """First time id; the published model is trained with 7."""
    motion_bucket_id: float = 127.0
    """Second time id."""
    position_encode: bool = False
    """Add a position table to the caption's tokens: True for `svd-robot`, False for `svd-robot-calvin`."""
    image_condition: bool = False
    """The second half of the cross-attention's channels is the CLIP image embedding of another camera."""
    anchor: Literal["zero", "first_frame"] = "zero"
    """What high noise decays to. `zero` is the published model. `first_frame` diffuses the difference to the first
    frame's latents, so that one step of a network that predicts nothing gives a still picture: for small models from
    scratch."""
    sigma_data: float = 1.0
    """Standard deviation of what is diffused."""
    scaling_factor: float = 0.18215
    """What the VAE's outputs are multiplied with; the UNet reads the first frame without it."""

    def __post_init__(self) -> None:
        if not (self.num_frames >= 2 and self.sigma_data > 0 and self.scaling_factor > 0):
            raise ValueError(
                f"expected num_frames >= 2, sigma_data > 0, scaling_factor > 0, found {self.num_frames}, "
                f"{self.sigma_data}, {self.scaling_factor}"
            )


class VideoDenoiser(nn.Module):
    """Predicts clean latents from noisy ones, a caption and the first frame.

    Args:
        unet: A `UNetSpatioTemporalConditionModel`: 8 input and 4 output channels, cross-attention width 1024.
        config: How it is called.
    """

    def __init__(self, unet: nn.Module, config: DenoiserConfig) -> None:
        super().__init__()
        self.unet: Any = unet
        self.config = config

    def forward(
        self,
        noisy: torch.Tensor,
        sigma: torch.Tensor,
        first_frame: torch.Tensor,
        text: torch.Tensor,
        *,
        keep: torch.Tensor | None = None,
        noise_strength: torch.Tensor | None = None,
        image: torch.Tensor | None = None,
        anchor: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The denoised latents `D(noisy; sigma)`, float32 `[B, T, 4, h, w]`.

        Args:
            noisy: Latents with noise of standard deviation `sigma`, `[B, T, 4, h, w]`.
            sigma: `[B]`.
            first_frame: Scaled latents of the first frame `[B, 4, h, w]`, as the UNet sees them.
            text: CLIP's token sequence `[B, 20, 512]`.
            keep: Bool `[B]`; False zeroes the caption.
            noise_strength: Of the noise that was added to the first frame `[B]`; none by default.
            image: CLIP image embedding `[B, 512]`, needed with `image_condition`.
            anchor: The first frame's latents without added noise `[B, 4, h, w]`; `first_frame` by default.

        Raises:
            ValueError: If `image` is given where the model has no image condition, or missing where it has one.
        """
        config = self.config
        if (image is not None) != config.image_condition:
            raise ValueError(
                f"expected image={'an embedding' if config.image_condition else None}, found {type(image)}"
            )
        shape = (-1, 1, 1, 1, 1)
        if noise_strength is None:
            noise_strength = torch.zeros_like(sigma)
        scale = preconditioning(sigma, config.sigma_data)
        rest = self.rest(first_frame if anchor is None else anchor)
        centred = noisy - rest
        still = (first_frame / config.scaling_factor)[:, None].expand_as(noisy)
        output = self.unet(
            torch.cat([scale.c_in.reshape(shape) * centred, still], dim=2),
            scale.c_noise,
            encoder_hidden_states=cross_attention_states(
                text, position_encode=config.position_encode, keep=keep, image=image
            ),
            added_time_ids=time_ids(config.fps, config.motion_bucket_id, noise_strength),
            return_dict=False,
        )[0]
        denoised: torch.Tensor = (
            rest + scale.c_skip.reshape(shape) * centred + scale.c_out.reshape(shape) * output.float()
        )
        return denoised

    def rest(self, first_frame: torch.Tensor) -> torch.Tensor:
        """What pure noise is centred on, broadcastable to latents: zero, or the first frame `[B, 1, 4, h, w]`."""
        return first_frame[:, None] if self.config.anchor == "first_frame" else torch.zeros_like(first_frame[:, None])
