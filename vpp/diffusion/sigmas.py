"""Noise levels: training distributions and sampling schedules (Karras et al. 2022, arXiv 2206.00364)."""

from __future__ import annotations

import math

import torch


def log_normal_sigmas(normal: torch.Tensor, mean: float = 0.7, std: float = 1.6) -> torch.Tensor:
    """Training noise levels, `ln sigma = std n + mean` for standard normal `n`.

    The defaults are those of Stable Video Diffusion's fine-tuning in the published VPP code.

    >>> round(float(log_normal_sigmas(torch.tensor(0.0))), 4)
    2.0138
    """
    return (std * normal + mean).exp()


def log_logistic_sigmas(
    uniform: torch.Tensor,
    loc: float = math.log(0.5),
    scale: float = 0.5,
    sigma_min: float = 0.001,
    sigma_max: float = 80.0,
) -> torch.Tensor:
    """Training noise levels whose logarithm is logistic, cut to a range; float32 of the shape of `uniform`.

    The quantile function of that distribution. The defaults are those of the published policy.

    Args:
        uniform: In [0, 1].
        loc: Centre of ln sigma.
        scale: Scale of its logistic distribution.
        sigma_min: At `uniform` 0.
        sigma_max: At `uniform` 1.

    >>> [round(float(sigma), 3) for sigma in log_logistic_sigmas(torch.tensor([0.0, 0.5, 1.0]))]
    [0.001, 0.5, 80.0]
    """
    bounds = torch.tensor([sigma_min, sigma_max], dtype=torch.float64, device=uniform.device)
    low, high = ((bounds.log() - loc) / scale).sigmoid()
    return (torch.logit(low + uniform.double() * (high - low)) * scale + loc).exp().float()


def karras_sigmas(num_steps: int, sigma_min: float = 0.002, sigma_max: float = 700.0, rho: float = 7.0) -> torch.Tensor:
    """Sampling schedule, equation 5: `num_steps` falling levels, then 0; float32 `[num_steps + 1]`.

    The defaults are those of Stable Video Diffusion's scheduler.

    >>> [round(float(sigma), 3) for sigma in karras_sigmas(3)]
    [700.0, 15.59, 0.002, 0.0]
    """
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def exponential_sigmas(num_steps: int, sigma_min: float = 0.001, sigma_max: float = 80.0) -> torch.Tensor:
    """Sampling schedule with equal steps of ln sigma: `num_steps` falling levels, then 0; float32 `[num_steps + 1]`.

    The defaults are the range that the published policy is trained on.

    >>> [round(float(sigma), 3) for sigma in exponential_sigmas(3, 1.0, 100.0)]
    [100.0, 10.0, 1.0, 0.0]
    """
    sigmas = torch.linspace(math.log(sigma_max), math.log(sigma_min), num_steps, dtype=torch.float64).exp()
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()
