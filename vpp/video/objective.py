"""The training objective of stage 1 (EDM on whole clips), and the random numbers that it needs.

Every random number belongs to a sample's place in the run, (seed, step, place in the global batch), not to a worker:
a run that is resumed, or goes on with another number of workers, draws the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vpp.diffusion.edm import loss_weight
from vpp.diffusion.sigmas import log_normal_sigmas


@dataclass(frozen=True)
class ObjectiveSettings:
    """The training distribution.

    Raises:
        ValueError: If a value is outside its range.
    """

    sigma_log_mean: float = 0.7
    """Mean of ln sigma."""
    sigma_log_std: float = 1.6
    """Standard deviation of ln sigma."""
    text_dropout: float = 0.05
    """Share of samples whose caption is zeroed, for classifier-free guidance."""

    def __post_init__(self) -> None:
        if not (0 <= self.text_dropout < 1 and self.sigma_log_std > 0):
            raise ValueError(
                f"expected 0 <= text_dropout < 1 and sigma_log_std > 0, found {self.text_dropout}, {self.sigma_log_std}"
            )


@dataclass(frozen=True)
class Draws:
    """Random numbers of B samples.

    Attributes:
        noise: Standard normal `[B, T, 4, h, w]`.
        ln_sigma: Standard normal `[B]`, becomes the noise level.
        text_keep: Uniform `[B]`; the caption stays where it is above the dropout.
        ln_noise_strength: Standard normal `[B]`, becomes the strength of the first frame's noise (pixels only).
    """

    noise: torch.Tensor
    ln_sigma: torch.Tensor
    text_keep: torch.Tensor
    ln_noise_strength: torch.Tensor

    def to(self, device: torch.device) -> Draws:
        """The same numbers on a device."""
        fields = (self.noise, self.ln_sigma, self.text_keep, self.ln_noise_strength)
        return Draws(*(field.to(device, non_blocking=True) for field in fields))


def sample_generator(seed: int, step: int, position: int, purpose: str = "") -> torch.Generator:
    """The generator of one sample, on the CPU: the same on every machine and for every number of workers."""
    digest = hashlib.blake2b(f"{seed}/{step}/{position}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def draw(seed: int, step: int, positions: Sequence[int], shape: Sequence[int]) -> Draws:
    """Random numbers of the samples at `positions` of the global batch of a step.

    Args:
        seed: Of the run.
        step: Counted from 0.
        positions: Places within the global batch.
        shape: Of one clip's latents, `[T, 4, h, w]`.
    """
    noise, scalars, uniform = [], [], []
    for position in positions:
        generator = sample_generator(seed, step, int(position))
        scalars.append(torch.randn(2, generator=generator))
        uniform.append(torch.rand((), generator=generator))
        noise.append(torch.randn(*shape, generator=generator))
    ln_sigma, ln_noise_strength = torch.stack(scalars).unbind(1)
    return Draws(torch.stack(noise), ln_sigma, torch.stack(uniform), ln_noise_strength)


def draw_sigmas(seed: int, step: int, positions: Sequence[int], settings: ObjectiveSettings) -> torch.Tensor:
    """The noise levels alone of what `draw` draws, float32 `[B]`."""
    normal = [torch.randn(2, generator=sample_generator(seed, step, int(position)))[0] for position in positions]
    return log_normal_sigmas(torch.stack(normal), settings.sigma_log_mean, settings.sigma_log_std)


def first_frame_noise_strength(normal: torch.Tensor) -> torch.Tensor:
    """Strength of the noise on the first frame's pixels, `exp(N(-3, 0.5))`, as Stable Video Diffusion was trained.

    >>> round(float(first_frame_noise_strength(torch.tensor(0.0))), 4)
    0.0498
    """
    return (0.5 * normal - 3.0).exp()


def first_frame_noise(seed: int, step: int, positions: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    """Standard normal noise for the first frame's pixels, `[B, *shape]`."""
    return torch.stack(
        [torch.randn(*shape, generator=sample_generator(seed, step, int(position), "pixels")) for position in positions]
    )


def video_loss(
    denoiser: torch.nn.Module,
    latents: torch.Tensor,
    text: torch.Tensor,
    draws: Draws,
    settings: ObjectiveSettings,
    *,
    sigma_data: float = 1.0,
    first_frame: torch.Tensor | None = None,
    noise_strength: torch.Tensor | None = None,
    image: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted squared error of the predicted clean latents, and the noise level, of each sample: float32 `[B]`, `[B]`.

    Args:
        denoiser: A `VideoDenoiser`, perhaps wrapped.
        latents: Scaled latents of the clips `[B, T, 4, h, w]`.
        text: CLIP's token sequence `[B, 20, 512]`.
        draws: Random numbers.
        settings: The training distribution.
        sigma_data: The denoiser's.
        first_frame: Latents of the first frame with noise on it `[B, 4, h, w]`; those of the clip by default.
        noise_strength: Of that noise `[B]`.
        image: CLIP image embedding `[B, 512]` of another camera.
    """
    sigma = log_normal_sigmas(draws.ln_sigma, settings.sigma_log_mean, settings.sigma_log_std)
    anchor = latents[:, 0]
    predicted = denoiser(
        latents + draws.noise * sigma.reshape(-1, 1, 1, 1, 1),
        sigma,
        anchor if first_frame is None else first_frame,
        text,
        keep=draws.text_keep > settings.text_dropout,
        noise_strength=noise_strength,
        image=image,
        anchor=anchor,
    )
    error = (predicted.float() - latents).square().flatten(1).mean(1)
    return error * loss_weight(sigma, sigma_data), sigma
