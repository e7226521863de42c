"""Frechet Video Distance (Unterthiner et al. 2018, arXiv 1812.01717): how far two sets of clips differ as sets.

Features come from an I3D network as TorchScript, which the user supplies: StyleGAN-V's `i3d_torchscript.pt`. Loading
TorchScript runs no Python, only TorchScript's own operators, and those when the network is called; that is less than
a pickle may do, but take the file from its publisher nonetheless.
"""

from __future__ import annotations

import io
from typing import Any

import torch

from schemas.errors import UsageError
from schemas.storage import read_bytes

MIN_FRAMES = 10
"""I3D's strides leave nothing of shorter clips."""


def load_i3d(url: str) -> Any:
    """Loads the network: called with clips `[B, 3, T, H, W]`, it gives features `[B, 400]`.

    Raises:
        UsageError: If there is no such file or it is not TorchScript.
    """
    try:
        content = read_bytes(url)
    except FileNotFoundError as error:
        raise UsageError(f"--i3d {url}: expected StyleGAN-V's i3d_torchscript.pt, found no file") from error
    try:
        return torch.jit.load(  # type: ignore[no-untyped-call]
            io.BytesIO(content), map_location="cpu"
        ).eval()
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"--i3d {url}: expected TorchScript (StyleGAN-V's i3d_torchscript.pt), found something else"
        ) from error


@torch.no_grad()
def i3d_features(i3d: Any, frames: torch.Tensor, *, batch_size: int = 4) -> torch.Tensor:
    """Features float64 `[B, 400]` of RGB frames uint8 `[B, T, H, W, 3]`, at least 10 frames long.

    Raises:
        ValueError: If the clips are too short or not uint8.
    """
    if frames.dtype != torch.uint8 or frames.shape[1] < MIN_FRAMES:
        raise ValueError(f"expected uint8 and at least {MIN_FRAMES} frames, found {frames.dtype}, {frames.shape[1]}")
    features = [
        i3d(chunk.permute(0, 4, 1, 2, 3).float(), rescale=True, resize=True, return_features=True)
        for chunk in torch.split(frames, batch_size)
    ]
    return torch.cat(features).double()


def frechet_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Squared Frechet distance between the normal distributions fitted to two sets of features `[N, D]`, `[M, D]`.

    `|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`. With `S1 = A^T A` and `S2 = B^T B`, the square roots of the
    eigenvalues of `S1 S2` are the singular values of `A B^T`, so no square root of a matrix is taken.

    Raises:
        ValueError: If a set has fewer than two features.

    >>> features = torch.tensor([[0.0], [2.0]])
    >>> round(frechet_distance(features, features + 3), 6)
    9.0
    """
    if len(first) < 2 or len(second) < 2:
        raise ValueError(f"expected at least 2 features in each set, found {len(first)} and {len(second)}")
    first, second = first.double(), second.double()
    difference = first.mean(0) - second.mean(0)
    roots = [
        torch.linalg.qr((features - features.mean(0)) / (len(features) - 1) ** 0.5, mode="r").R
        for features in (first, second)
    ]
    covered = sum(root.square().sum() for root in roots) - 2 * torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return float(difference.square().sum() + covered)
