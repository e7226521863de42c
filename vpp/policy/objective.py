"""How the action denoiser is trained and sampled, and the random numbers that training needs.

Source: arXiv 2412.14803 and its public code. As in stage 1, every random number belongs to a sample's place in the
run: (seed, step, place in the global batch).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from vpp.diffusion.edm import loss_weight
from vpp.diffusion.samplers import ddim
from vpp.diffusion.sigmas import exponential_sigmas, log_logistic_sigmas
from vpp.policy.action_denoiser import ActionContext, ActionDenoiser
from vpp.video.objective import sample_generator


@dataclass(frozen=True)
class ActionObjectiveSettings:
    """The training distribution: ln sigma is logistic, cut to a range; the defaults are the published ones.

    Raises:
        ValueError: If a value is outside its range.
    """

    sigma_log_mean: float = math.log(0.5)
    """Centre of ln sigma."""
    sigma_log_scale: float = 0.5
    """Scale of its logistic distribution."""
    sigma_min: float = 0.001
    """Lowest noise level."""
    sigma_max: float = 80.0
    """Highest noise level."""
    num_draws: int = 1
    """Noise levels at which each sample is learned in a step; its context is encoded once, the loss is their mean. More
    of them steady the gradient of small batches; curves by noise level go by the first. Published: 1."""

    def __post_init__(self) -> None:
        if self.num_draws < 1:
            raise ValueError(f"expected num_draws >= 1, found {self.num_draws}")
        if not (self.sigma_log_scale > 0 and 0 < self.sigma_min < self.sigma_max):
            raise ValueError(
                f"expected sigma_log_scale > 0 and 0 < sigma_min < sigma_max, found {self.sigma_log_scale}, "
                f"{self.sigma_min}, {self.sigma_max}"
            )


@dataclass(frozen=True)
class ActionDraws:
    """Random numbers of B samples, K draws of each.

    Attributes:
        noise: Standard normal `[B, K, H, A]`.
        sigma: Noise levels `[B, K]`.
    """

    noise: torch.Tensor
    sigma: torch.Tensor

    def to(self, device: torch.device) -> ActionDraws:
        """The same numbers on a device."""
        return ActionDraws(self.noise.to(device, non_blocking=True), self.sigma.to(device, non_blocking=True))


def draw_actions(
    seed: int, step: int, positions: Sequence[int], shape: Sequence[int], settings: ActionObjectiveSettings
) -> ActionDraws:
    """Random numbers of the samples at `positions` of the global batch of a step.

    Args:
        seed: Of the run.
        step: Counted from 0.
        positions: Places within the global batch.
        shape: Of one chunk, `[H, A]`.
        settings: The training distribution.
    """
    draws = range(settings.num_draws)
    noise = [
        torch.randn(*shape, generator=_generator(seed, step, position, "actions", draw))
        for position in positions
        for draw in draws
    ]
    sigma = [draw_action_sigmas(seed, step, positions, settings, draw) for draw in draws]
    return ActionDraws(torch.stack(noise).view(-1, len(draws), *shape), torch.stack(sigma, dim=1))


def draw_action_sigmas(
    seed: int, step: int, positions: Sequence[int], settings: ActionObjectiveSettings, draw: int = 0
) -> torch.Tensor:
    """The noise levels alone of one draw of `draw_actions`, float32 `[B]`."""
    uniform = [
        torch.rand((), dtype=torch.float64, generator=_generator(seed, step, position, "action sigma", draw))
        for position in positions
    ]
    return log_logistic_sigmas(
        torch.stack(uniform),
        settings.sigma_log_mean,
        settings.sigma_log_scale,
        settings.sigma_min,
        settings.sigma_max,
    )


def _generator(seed: int, step: int, position: int, purpose: str, draw: int = 0) -> torch.Generator:
    return sample_generator(seed, step, int(position), f"{purpose}/{draw}" if draw else purpose)


@contextlib.contextmanager
def seeded_dropout(seed: int, step: int, positions: Sequence[int], device: torch.device) -> Iterator[None]:
    """Within the block, what dropout drops follows from the place of the first sample that goes through the model.

    A run that is resumed drops the same; with another number of workers or another micro-batch it drops others, since
    PyTorch draws a mask for the samples of a batch together. The global random state is afterwards as before.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_generator(seed, step, positions[0], "dropout").initial_seed())
        yield


def action_loss(
    denoiser: ActionDenoiser,
    context: ActionContext,
    actions: torch.Tensor,
    is_pad: torch.Tensor,
    noise: torch.Tensor,
    sigma: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error of the network's own target, `(a - c_skip * noisy) / c_out`, of each sample: float32 `[B]`.

    It is the error of the denoised actions over `c_out^2`. Every sample counts alike, whatever its noise level and
    however many of its actions are padding.

    Args:
        denoiser: The model.
        context: What it is conditioned on.
        actions: True actions `[B, H, A]`.
        is_pad: Bool `[B, H]`; True for actions behind the episode's end, which do not count.
        noise: Standard normal `[B, H, A]`.
        sigma: Noise levels `[B]`.
    """
    actions = actions.float()
    denoised: torch.Tensor = denoiser(actions + noise * sigma[:, None, None], sigma, context)
    error = (denoised - actions).square().mean(2)
    counts = (~is_pad).to(error)
    mean = (error * counts).sum(1) / counts.sum(1).clamp(min=1)  # a chunk of padding alone counts as 0
    return mean * loss_weight(sigma.float(), denoiser.config.sigma_data)


@torch.no_grad()
def sample_actions(
    denoiser: ActionDenoiser,
    context: ActionContext,
    noise: torch.Tensor,
    num_steps: int = 10,
    sigma_min: float = 1.0,
    sigma_max: float = 80.0,
) -> torch.Tensor:
    """A chunk of actions for each sample, float32 `[B, H, A]`: DDIM along exponential noise levels, then 0.

    Args:
        denoiser: The model, in `eval` mode.
        context: What it is conditioned on, encoded once.
        noise: Standard normal `[B, H, A]`.
        num_steps: Times that the denoiser is called.
        sigma_min: Lowest noise level before 0. The published evaluation uses 1.0, training goes down to 0.001.
        sigma_max: Noise level of the first step.
    """
    sigmas = exponential_sigmas(num_steps, sigma_min, sigma_max).to(noise.device)

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        denoised: torch.Tensor = denoiser(x, sigma.expand(len(x)), context)
        return denoised

    return ddim(denoise, noise.float() * sigma_max, sigmas)
