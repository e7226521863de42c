"""Exponential moving average of the trained parameters, kept in float32 beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


class Ema:
    """Averages the parameters of a module that are trained.

    The decay grows to its final value, `min(decay, (1 + n) / (10 + n))` after n updates, so that a short run does not
    average the initial weights in (as in TensorFlow's `ExponentialMovingAverage(num_updates)`).

    Args:
        module: Its parameters may be sharded; the average is sharded likewise.
        decay: 0 keeps a copy of the parameters.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.averages = {
            name: parameter.detach().clone() for name, parameter in module.named_parameters() if parameter.requires_grad
        }

    @torch.no_grad()
    def update(self, module: nn.Module, num_updates: int) -> None:
        """Moves the average towards the parameters; `num_updates` counts the updates before this one."""
        decay = min(self.decay, (1 + num_updates) / (10 + num_updates))
        named = dict(module.named_parameters())
        parameters = [named[name].detach() for name in self.averages]
        torch._foreach_lerp_(list(self.averages.values()), parameters, 1 - decay)

    @contextlib.contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Puts the averages in the place of the parameters while the block runs."""
        self._swap(module)
        try:
            yield
        finally:
            self._swap(module)

    @torch.no_grad()
    def _swap(self, module: nn.Module) -> None:
        """Tensor by tensor, so that no second copy of the model is needed."""
        named = dict(module.named_parameters())
        for name, average in self.averages.items():
            kept = named[name].detach().clone()
            named[name].copy_(average)
            average.copy_(kept)
