"""Actions and proprioception in the range that the networks learn in, and back.

Each dataset has its own numbers, from its training episodes' statistics, and a policy keeps them with its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

Kind = Literal["none", "min_max", "mean_std"]
"""`min_max`: the smallest value becomes -1, the largest 1. `mean_std`: mean 0, standard deviation 1. `none`: as is."""

_SMALLEST_SCALE = 1e-6  # a dimension that never changes is only moved to 0


@dataclass(frozen=True, eq=False)
class Normaliser:
    """The map `(x - offset) / scale` of the last axis.

    Attributes:
        offset: float32 `[D]`.
        scale: float32 `[D]`, above 0.
    """

    offset: torch.Tensor
    scale: torch.Tensor

    def normalise(self, values: torch.Tensor) -> torch.Tensor:
        """Values `[..., D]` as the networks see them."""
        return (values - self.offset.to(values)) / self.scale.to(values)

    def restore(self, values: torch.Tensor) -> torch.Tensor:
        """The inverse of `normalise`."""
        return values * self.scale.to(values) + self.offset.to(values)


def make_normaliser(kind: Kind, *, mean: np.ndarray, std: np.ndarray, low: np.ndarray, high: np.ndarray) -> Normaliser:
    """A normaliser from statistics, each `[D]`.

    >>> one = np.ones(2)
    >>> n = make_normaliser("min_max", mean=one, std=one, low=np.array([-2.0, 5.0]), high=np.array([4.0, 5.0]))
    >>> n.normalise(torch.tensor([[4.0, 5.0], [-2.0, 5.0]])).tolist()
    [[1.0, 0.0], [-1.0, 0.0]]
    """
    offset, scale = {
        "none": (np.zeros_like(mean), np.ones_like(mean)),
        "min_max": ((low + high) / 2, (high - low) / 2),
        "mean_std": (mean, std),
    }[kind]
    scale = np.where(scale < _SMALLEST_SCALE, 1.0, scale)
    return Normaliser(*(torch.from_numpy(np.asarray(values, np.float32)) for values in (offset, scale)))
