"""Samplers of the probability flow ODE (Karras et al. 2022, arXiv 2206.00364). All share the signature of `euler`."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""The denoiser `D(x; sigma)`: a noisy `x` of any shape and `sigma`, a scalar, to clean data of the same shape."""


def euler(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Deterministic Euler steps: algorithm 1 without its second-order correction, of the shape of `x`.

    Args:
        denoise: The denoiser.
        x: Noise of standard deviation `sigmas[0]`, or data with such noise on it.
        sigmas: Falling noise levels `[num_steps + 1]`, the last of which may be 0.

    >>> still = torch.tensor([2.0])
    >>> euler(lambda x, sigma: still, torch.tensor([9.0]), torch.tensor([5.0, 1.0, 0.0]))
    tensor([2.])
    """
    for sigma, following in itertools.pairwise(sigmas):
        denoised = denoise(x, sigma)
        # x + (following - sigma) * (x - denoised) / sigma, in the form that is exact where `following` is 0
        x = denoised + (following / sigma) * (x - denoised)
    return x


ddim = euler
"""DDIM (Song et al. 2021, arXiv 2010.02502), the first-order DPM-Solver (arXiv 2206.00927).

For noise that is added without scaling the data its step `(following / sigma) x - expm1(-h) D(x; sigma)`, with
`h = ln sigma - ln following`, is Euler's.
"""
