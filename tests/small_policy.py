"""A small action denoiser and its inputs."""

from __future__ import annotations

from typing import Any

import torch

from vpp.policy.action_denoiser import ActionDenoiser, ActionDenoiserConfig

SMALL: dict[str, Any] = {
    "action_dim": 3, "num_actions": 4, "token_width": 6, "goal_width": 5, "width": 16, "heads": 2, "encoder_layers": 2,
    "decoder_layers": 2, "attention_dropout": 0.0, "residual_dropout": 0.0, "mlp_dropout": 0.0,
}  # fmt: skip
NUM_TOKENS = 7


def small_denoiser(**changes: Any) -> ActionDenoiser:
    """With weights ten times as large as at the start of a training, so that everything matters."""
    denoiser = ActionDenoiser(ActionDenoiserConfig(**(SMALL | changes)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2, generator=generator)
    return denoiser


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_inputs(num_samples: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and goals."""
    return normal(num_samples, NUM_TOKENS, SMALL["token_width"], seed=1), normal(
        num_samples, SMALL["goal_width"], seed=2
    )
