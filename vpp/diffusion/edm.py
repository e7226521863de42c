"""Preconditioning and loss weight of EDM (Karras et al. 2022, arXiv 2206.00364, table 1).

The denoiser is `D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)`. The sign of `c_out` is that of Stable Video
Diffusion, whose network predicts the negative of EDM's (v-prediction).
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Preconditioning(NamedTuple):
    """The four factors, each of the shape of `sigma`."""

    c_skip: torch.Tensor
    c_out: torch.Tensor
    c_in: torch.Tensor
    c_noise: torch.Tensor


def preconditioning(sigma: torch.Tensor, sigma_data: float = 1.0) -> Preconditioning:
    """The factors for noise of standard deviation `sigma` on data of standard deviation `sigma_data`.

    >>> p = preconditioning(torch.tensor(1.0))
    >>> [round(float(factor), 4) for factor in p]
    [0.5, -0.7071, 0.7071, 0.0]
    """
    variance = sigma**2 + sigma_data**2
    return Preconditioning(
        c_skip=sigma_data**2 / variance,
        c_out=-sigma * sigma_data / variance.sqrt(),
        c_in=1 / variance.sqrt(),
        c_noise=sigma.log() / 4,
    )


def loss_weight(sigma: torch.Tensor, sigma_data: float = 1.0) -> torch.Tensor:
    """The weight `1 / c_out^2` that makes the network's own error count the same at every noise level.

    >>> float(loss_weight(torch.tensor(1.0)))
    2.0
    """
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
