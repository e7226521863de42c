"""Predicts videos: from the first frame's latents and a caption to the latents of all frames, and on to pixels.

Source: arXiv 2412.14803 and its public code: 30 Euler steps on the schedule of Stable Video Diffusion, guidance
growing linearly over the frames. Shapes: B clips, T frames, latents `[B, T, 4, H/8, W/8]` scaled.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from vpp.diffusion.samplers import euler
from vpp.diffusion.sigmas import karras_sigmas
from vpp.video.denoiser import VideoDenoiser


@torch.no_grad()
def predict_latents(
    denoiser: VideoDenoiser,
    first_frame: torch.Tensor,
    text: torch.Tensor,
    *,
    num_steps: int = 30,
    guidance: tuple[float, float] = (1.0, 3.0),
    sigma_min: float = 0.002,
    sigma_max: float = 700.0,
    noise: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    image: torch.Tensor | None = None,
    on_step: Callable[[], object] | None = None,
) -> torch.Tensor:
    """Predicted latents, float32 `[B, T, 4, h, w]`.

    Args:
        denoiser: The video model.
        first_frame: Scaled latents of the first frame `[B, 4, h, w]`.
        text: CLIP's token sequence `[B, 20, 512]`.
        num_steps: Calls of the denoiser.
        guidance: Classifier-free guidance at the first and at the last frame, linear between them. Where both are 1
            the model is not run without a caption.
        sigma_min: Lowest noise level before 0.
        sigma_max: Noise level to start from.
        noise: Standard normal `[B, T, 4, h, w]`; drawn with `generator` by default.
        generator: On the CPU, so that a seed gives the same noise on every machine.
        image: CLIP image embedding of another camera `[B, 512]`, for a model with that condition.
        on_step: Called after each step.
    """
    noise = _noise(denoiser, first_frame, noise, generator)
    sigmas = karras_sigmas(num_steps, sigma_min, sigma_max).to(noise.device)
    first_frame = first_frame.float()
    is_guided = guidance != (1.0, 1.0)
    strength = torch.linspace(*guidance, noise.shape[1], device=noise.device).reshape(1, -1, 1, 1, 1)
    num_branches = 2 if is_guided else 1
    frames, captions = torch.cat([first_frame] * num_branches), torch.cat([text] * num_branches)
    images = None if image is None else torch.cat([image] * num_branches)
    keep = torch.arange(len(frames), device=noise.device) < len(first_frame)

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        noisy = torch.cat([x] * num_branches)
        denoised: torch.Tensor = denoiser(noisy, sigma.expand(len(noisy)), frames, captions, keep=keep, image=images)
        if is_guided:
            with_text, without_text = denoised.chunk(2)
            denoised = without_text + strength * (with_text - without_text)
        if on_step:
            on_step()
        return denoised

    return euler(denoise, denoiser.rest(first_frame) + noise * sigmas[0], sigmas)


@torch.no_grad()
def one_step_latents(
    denoiser: VideoDenoiser,
    first_frame: torch.Tensor,
    text: torch.Tensor,
    *,
    sigma: float = 80.0,
    noise: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    image: torch.Tensor | None = None,
) -> torch.Tensor:
    """What one call of the denoiser makes of pure noise of standard deviation `sigma`: float32 `[B, T, 4, h, w]`.

    It tells how much of the future the model knows in the step whose features a policy reads. The other arguments
    are those of `predict_latents`.
    """
    noise = _noise(denoiser, first_frame, noise, generator)
    first_frame = first_frame.float()
    levels = torch.full((len(noise),), sigma, device=noise.device)
    noisy = denoiser.rest(first_frame) + noise * sigma
    denoised: torch.Tensor = denoiser(noisy, levels, first_frame, text, image=image)
    return denoised


def _noise(
    denoiser: VideoDenoiser,
    first_frame: torch.Tensor,
    noise: torch.Tensor | None,
    generator: torch.Generator | None,
) -> torch.Tensor:
    if noise is None:
        num_clips, *shape = first_frame.shape
        noise = torch.randn(num_clips, denoiser.config.num_frames, *shape, generator=generator)
    return noise.to(first_frame.device, torch.float32)
