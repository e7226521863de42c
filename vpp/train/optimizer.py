"""The optimiser and its learning rate.

One parameter group: a group per tensor, as the published code has it, keeps PyTorch from updating all in one kernel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from schemas.errors import UsageError


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW; the defaults are those of the published stage 1.

    Raises:
        ValueError: If a value is outside its range.
    """

    learning_rate: float = 5e-6
    """Highest learning rate; constant after the warm-up."""
    warmup_steps: int = 0
    """Steps over which the rate grows linearly from 0."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    grad_clip: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    kind: Literal["adamw", "adamw8bit"] = "adamw"
    """`adamw8bit` keeps the moments in 8 bits with bitsandbytes; needs the extra `adam8bit`."""

    def __post_init__(self) -> None:
        if not (self.learning_rate > 0 and self.warmup_steps >= 0 and self.grad_clip >= 0):
            raise ValueError(
                "expected learning_rate > 0, warmup_steps >= 0 and grad_clip >= 0, found "
                f"{self.learning_rate}, {self.warmup_steps}, {self.grad_clip}"
            )


def learning_rate(settings: OptimizerSettings, step: int) -> float:
    """The rate of a step, counted from 0.

    >>> [learning_rate(OptimizerSettings(learning_rate=1.0, warmup_steps=4), step) for step in (0, 1, 3, 100)]
    [0.25, 0.5, 1.0, 1.0]
    """
    return settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))


def make_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Makes the optimiser for the parameters that are trained.

    Raises:
        UsageError: If bitsandbytes is asked for and missing.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    options = {
        "lr": settings.learning_rate,
        "betas": (settings.beta1, settings.beta2),
        "weight_decay": settings.weight_decay,
    }
    if settings.kind == "adamw":
        return torch.optim.AdamW(trained, fused=True, **options)  # type: ignore[arg-type]
    try:
        import bitsandbytes
    except ImportError as error:
        raise UsageError(
            "--optimizer.kind adamw8bit: expected the package bitsandbytes, found none; install the extra adam8bit"
        ) from error
    optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(trained, **options)
    return optimizer
