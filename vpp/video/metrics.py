"""How good predicted clips are: PSNR and SSIM by frame, and the error where the truth moves, beside copying.

Most of a robot's picture stands still, so a copy of the first frame scores well on whole frames. Each number stands
beside the same number of that copy, and the error is also told for the few positions that change most.
Clips are latents `[B, T, C, h, w]` of any float type, or RGB frames uint8 `[B, T, H, W, 3]`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torchmetrics.functional.image import structural_similarity_index_measure

MAX_DB = 100.0
"""Decibels are cut off here, so that the mean over clips and frames of which some are exact stays finite."""

LATER_FRAMES = slice(7, None)
"""The frames that are judged where nothing else is asked for: the 8th to the last."""


@dataclass(frozen=True)
class FrameQuality:
    """Of each frame, the mean over clips, float32 `[T]`; the first frame's copy is the truth itself.

    Attributes:
        psnr: Decibels of the prediction.
        ssim: Structural similarity (Wang et al. 2004, window 11, sigma 1.5), up to 1.
        psnr_copy: Of the first true frame in the place of each.
        ssim_copy: Of the same.
    """

    psnr: torch.Tensor
    ssim: torch.Tensor
    psnr_copy: torch.Tensor
    ssim_copy: torch.Tensor

    def mean(self, frames: slice = LATER_FRAMES) -> dict[str, float]:
        """The means over some frames, by name."""
        return {name: float(values[frames].mean()) for name, values in vars(self).items()}


@dataclass(frozen=True)
class CopyComparison:
    """Mean squared errors of each clip `[B]` over some frames, and of copying the first frame.

    Attributes:
        mse: Of the prediction, whole frames.
        mse_copy: Of the copy.
        moving_mse: Of the prediction where the truth moves.
        moving_mse_copy: Of the copy there.
        data_range: Largest minus smallest value: of the truth for latents, 255 for pixels.
    """

    mse: torch.Tensor
    mse_copy: torch.Tensor
    moving_mse: torch.Tensor
    moving_mse_copy: torch.Tensor
    data_range: float

    @property
    def gain_db(self) -> float:
        """How much smaller the error over all clips is than the copy's; above 0 the prediction is better."""
        return decibels(self.mse_copy.mean(), self.mse.mean())

    @property
    def moving_gain_db(self) -> float:
        """The same where the truth moves."""
        return decibels(self.moving_mse_copy.mean(), self.moving_mse.mean())

    @property
    def moving_psnr(self) -> float:
        """PSNR over all clips where the truth moves."""
        return decibels(self.moving_mse.new_tensor(self.data_range**2), self.moving_mse.mean())

    @property
    def moving_psnr_copy(self) -> float:
        """The same of the copy."""
        return decibels(self.moving_mse.new_tensor(self.data_range**2), self.moving_mse_copy.mean())

    def summary(self) -> dict[str, float]:
        """The decibels by name."""
        names = ("gain_db", "moving_gain_db", "moving_psnr", "moving_psnr_copy")
        return {name: getattr(self, name) for name in names}


def frame_quality(predicted: torch.Tensor, truth: torch.Tensor) -> FrameQuality:
    """PSNR and SSIM of RGB frames uint8 `[B, T, H, W, 3]`, at least 11 pixels high and wide.

    Raises:
        ValueError: If the clips are not uint8 or differ in shape.
    """
    _check_alike(predicted, truth)
    if truth.dtype != torch.uint8:
        raise ValueError(f"expected RGB frames uint8, found {truth.dtype}")
    rows: list[list[torch.Tensor]] = []
    for number in range(truth.shape[1]):  # frame by frame, so that memory does not grow with the clip
        true = truth[:, number].permute(0, 3, 1, 2).float()
        row = []
        for guess in (predicted[:, number], truth[:, 0]):
            picture = guess.permute(0, 3, 1, 2).float()
            mse = (picture - true).square().flatten(1).mean(1)
            row.append(torch.tensor([decibels(mse.new_tensor(255.0**2), error) for error in mse]).mean())
            similarity = structural_similarity_index_measure(picture, true, data_range=255.0, reduction="none")
            row.append(torch.as_tensor(similarity).mean())
        rows.append(row)
    psnr, ssim, psnr_copy, ssim_copy = (torch.stack(column) for column in zip(*rows, strict=True))
    return FrameQuality(psnr, ssim, psnr_copy, ssim_copy)


def compare_with_copy(
    predicted: torch.Tensor, truth: torch.Tensor, *, frames: slice = LATER_FRAMES, share: float = 0.05
) -> CopyComparison:
    """Errors over some frames, whole and where the truth moves, beside those of copying the first frame.

    Args:
        predicted: Latents `[B, T, C, h, w]`, or RGB frames uint8 `[B, T, H, W, 3]`.
        truth: The same.
        frames: Those that are judged.
        share: Of the positions (frame, row, column) that count as moving: those that differ most from the first
            frame in the truth, in each clip.

    Raises:
        ValueError: If the clips differ in shape.
    """
    _check_alike(predicted, truth)
    is_pixels = truth.dtype == torch.uint8
    if is_pixels:
        predicted, truth = (clips.movedim(-1, 2) for clips in (predicted, truth))
    judged = truth[:, frames].float()
    error = (predicted[:, frames].float() - judged).square().mean(2)
    change = (truth[:, :1].float() - judged).square().mean(2)
    moving = moving_positions(change, share)
    return CopyComparison(
        mse=error.flatten(1).mean(1),
        mse_copy=change.flatten(1).mean(1),
        moving_mse=error[moving].reshape(len(error), -1).mean(1),
        moving_mse_copy=change[moving].reshape(len(error), -1).mean(1),
        data_range=255.0 if is_pixels else float(truth.max() - truth.min()),
    )


def moving_positions(change: torch.Tensor, share: float) -> torch.Tensor:
    """The `share` of positions with the largest change, at least one a clip: bool of the shape of `change`, `[B, ...]`.

    >>> moving_positions(torch.tensor([[0.0, 3.0, 1.0, 2.0]]), 0.5).tolist()
    [[False, True, False, True]]
    """
    flat = change.flatten(1)
    largest = flat.topk(max(1, round(share * flat.shape[1])), dim=1).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, largest, True).reshape(change.shape)


def decibels(larger: torch.Tensor, smaller: torch.Tensor) -> float:
    """`10 log10(larger / smaller)` of two scalars, cut off at plus and minus `MAX_DB`; 0 for 0 / 0.

    >>> decibels(torch.tensor(2.0), torch.tensor(0.02)), decibels(torch.tensor(1.0), torch.tensor(0.0))
    (20.0, 100.0)
    """
    if larger == smaller:
        return 0.0
    ratio = 10 * (larger.double().log10() - smaller.double().log10())
    return round(float(ratio.clamp(-MAX_DB, MAX_DB)), 6)


def _check_alike(predicted: torch.Tensor, truth: torch.Tensor) -> None:
    if predicted.shape != truth.shape or truth.ndim != 5:
        raise ValueError(f"expected clips of one shape, found {tuple(predicted.shape)} and {tuple(truth.shape)}")
