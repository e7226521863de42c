"""A network with the signature of StyleGAN-V's I3D, small enough to compute by hand."""

from __future__ import annotations

import torch
from torch import nn


class MeanColours(nn.Module):
    """Stands for I3D, with its signature: the mean of each channel in the first and second half of the clip."""

    def forward(self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False):
        if rescale:
            x = x / 127.5 - 1.0
        halves = torch.stack([x[:, :, :5].mean(dim=[2, 3, 4]), x[:, :, 5:].mean(dim=[2, 3, 4])], dim=1)
        if not (resize and return_features):
            return halves[:, 0] * 0.0
        return halves.flatten(1)
