"""The optimiser and its learning rate.

One parameter group: a group per tensor, as the published code has it, keeps PyTorch from updating all in one kernel.
"""

from __future__ import annotations

import math
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
    """Highest learning rate."""
    schedule: Literal["constant", "tri_stage"] = "constant"
    """`constant` after the warm-up; `tri_stage` grows linearly, stays, and falls along a cosine (stage 2)."""
    warmup_steps: int = 0
    """Steps over which the rate of `constant` grows linearly from 0."""
    phase_ratios: tuple[float, float, float] = (0.02, 0.08, 0.9)
    """Shares of all steps in which the rate of `tri_stage` grows, stays, and falls."""
    start_scale: float = 0.1
    """The first rate of `tri_stage` as a share of the highest."""
    final_scale: float = 1e-6
    """Its last rate as a share of the highest."""
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
        if min(self.phase_ratios) < 0 or not math.isclose(sum(self.phase_ratios), 1, abs_tol=1e-6):
            raise ValueError(f"expected phase_ratios of at least 0 that sum to 1, found {self.phase_ratios}")
        if not (0 <= self.start_scale <= 1 and 0 <= self.final_scale <= 1):
            raise ValueError(
                f"expected start_scale and final_scale in [0, 1], found {self.start_scale}, {self.final_scale}"
            )
        if self.schedule == "tri_stage" and self.warmup_steps:
            raise ValueError(
                f"expected warmup_steps 0 with the schedule tri_stage, whose phase_ratios tell its warm-up, found "
                f"{self.warmup_steps}"
            )


def learning_rate(settings: OptimizerSettings, step: int, total_steps: int) -> float:
    """The rate of a step.

    Args:
        settings: The schedule.
        step: Counted from 0.
        total_steps: Of the whole run; only `tri_stage` depends on it.

    >>> warm = OptimizerSettings(learning_rate=1.0, warmup_steps=4)
    >>> [learning_rate(warm, step, 1000) for step in (0, 1, 3, 100)]
    [0.25, 0.5, 1.0, 1.0]
    >>> three = OptimizerSettings(learning_rate=1.0, schedule="tri_stage")
    >>> [round(learning_rate(three, step, 1000), 6) for step in (0, 10, 20, 100, 550, 1000)]
    [0.1, 0.55, 1.0, 1.0, 0.5, 1e-06]
    """
    if settings.schedule == "constant":
        return settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))
    growing, staying, falling = (ratio * total_steps for ratio in settings.phase_ratios)
    if step < growing:
        scale = settings.start_scale + (1 - settings.start_scale) * step / growing
    elif step < growing + staying or not falling:
        scale = 1.0
    else:
        fallen = min(1.0, (step - growing - staying) / falling)
        scale = settings.final_scale + (1 - settings.final_scale) * (1 + math.cos(math.pi * fallen)) / 2
    return settings.learning_rate * scale


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
