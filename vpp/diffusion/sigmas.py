"""Noise levels: the training distribution and the sampling schedule of EDM (Karras et al. 2022, arXiv 2206.00364)."""

from __future__ import annotations

import torch


def log_normal_sigmas(normal: torch.Tensor, mean: float = 0.7, std: float = 1.6) -> torch.Tensor:
    """Training noise levels, `ln sigma = std n + mean` for standard normal `n`.

    The defaults are those of Stable Video Diffusion's fine-tuning in the published VPP code.

    >>> round(float(log_normal_sigmas(torch.tensor(0.0))), 4)
    2.0138
    """
    return (std * normal + mean).exp()


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
