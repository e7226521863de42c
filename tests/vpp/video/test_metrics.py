"""Metrics: their textbook values, and that a copy of the first frame is told apart from a prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vpp.video.metrics import MAX_DB, compare_with_copy, decibels, frame_quality, moving_positions


def moving_square(num_frames: int = 16, size: int = 32) -> torch.Tensor:
    """A clip uint8 `[1, T, H, W, 3]` whose background stands still while a small square moves."""
    frames = torch.randint(0, 60, (1, 1, size, size, 3), generator=torch.Generator().manual_seed(0))
    frames = frames.repeat(1, num_frames, 1, 1, 1).to(torch.uint8)
    for number in range(num_frames):
        frames[0, number, 10:14, number : number + 4] = 250
    return frames


def test_psnr_is_that_of_the_textbook_by_frame() -> None:
    truth = moving_square()
    noise = torch.randint(-20, 21, truth.shape, generator=torch.Generator().manual_seed(1))
    predicted = (truth + noise).clamp(0, 255).to(torch.uint8)
    quality = frame_quality(predicted, truth)
    assert quality.psnr.shape == (16,)
    for number in (0, 9):
        mse = np.mean((predicted[0, number].numpy().astype(float) - truth[0, number].numpy()) ** 2)
        assert float(quality.psnr[number]) == pytest.approx(10 * np.log10(255**2 / mse), rel=1e-4)


def test_a_perfect_prediction_is_at_the_top_and_the_copy_is_perfect_only_in_the_first_frame() -> None:
    truth = moving_square()
    quality = frame_quality(truth, truth)
    assert quality.psnr.tolist() == [MAX_DB] * 16
    assert quality.ssim.tolist() == pytest.approx([1.0] * 16)
    assert quality.psnr_copy[0] == MAX_DB
    assert quality.ssim_copy[0] == pytest.approx(1.0)
    assert quality.psnr_copy[1:].max() < 40
    assert quality.ssim_copy[1:].max() < 0.99


def test_ssim_follows_its_definition_where_a_window_has_no_texture() -> None:
    """Of two flat pictures only the term of the means is left."""
    low, high = 100.0, 120.0
    truth = torch.full((1, 1, 24, 24, 3), int(low), dtype=torch.uint8)
    c1 = (0.01 * 255) ** 2
    expected = (2 * low * high + c1) / (low**2 + high**2 + c1)
    assert float(frame_quality(truth + 20, truth).ssim[0]) == pytest.approx(expected, rel=1e-3)  # float32


def test_copying_the_first_frame_gains_nothing_over_itself() -> None:
    truth = moving_square()
    copied = truth[:, :1].expand_as(truth)
    judged = compare_with_copy(copied, truth)
    assert (judged.gain_db, judged.moving_gain_db) == (0, 0)
    assert judged.moving_psnr == judged.moving_psnr_copy
    quality = frame_quality(copied, truth)
    assert torch.equal(quality.psnr, quality.psnr_copy)
    assert torch.equal(quality.ssim, quality.ssim_copy)


def test_where_nothing_but_the_moving_part_is_predicted_only_that_gains() -> None:
    """The prediction follows the square but is noisy elsewhere: worse on the whole, better where it moves."""
    truth = moving_square()
    noise = torch.randint(-150, 151, truth.shape, generator=torch.Generator().manual_seed(1))
    moves = (truth != truth[:, :1]).any(-1, keepdim=True)
    predicted = torch.where(moves, truth.int(), truth + noise).clamp(0, 255).to(torch.uint8)
    judged = compare_with_copy(predicted, truth, share=0.01)
    assert judged.moving_gain_db > 20
    assert judged.gain_db < 0


def test_latents_and_pixels_have_the_same_gain_and_latents_the_range_of_the_truth() -> None:
    truth = moving_square()
    predicted = (0.5 * truth + 0.5 * truth[:, :1]).to(torch.uint8)
    pixels = compare_with_copy(predicted, truth)
    as_latents = compare_with_copy(predicted.movedim(-1, 2) / 50.0, truth.movedim(-1, 2) / 50.0)
    assert as_latents.gain_db == pytest.approx(pixels.gain_db, abs=1e-3)
    assert as_latents.moving_gain_db == pytest.approx(pixels.moving_gain_db, abs=1e-3)
    assert pixels.gain_db == pytest.approx(6.02, abs=0.1)  # half the difference
    assert (pixels.data_range, as_latents.data_range) == (255.0, pytest.approx(5.0))


def test_only_the_frames_asked_for_are_judged() -> None:
    truth = moving_square()
    predicted = truth.clone()
    predicted[:, :7] = 0
    assert compare_with_copy(predicted, truth).gain_db == MAX_DB
    assert compare_with_copy(predicted, truth, frames=slice(0, 7)).gain_db < 0


def test_clips_count_by_their_error() -> None:
    truth = torch.cat([moving_square(), moving_square()])
    predicted = torch.cat([truth[:1], truth[1:, :1].expand(1, 16, 32, 32, 3)])
    judged = compare_with_copy(predicted, truth)
    assert judged.mse[0] == 0
    assert judged.mse[1] == judged.mse_copy[1]
    assert judged.gain_db == pytest.approx(10 * np.log10(2), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 60), st.floats(0.01, 1.0))
def test_moving_positions_are_the_largest_changes_and_as_many_in_each_clip(clips: int, size: int, share: float) -> None:
    change = torch.rand(clips, size, generator=torch.Generator().manual_seed(size))
    moving = moving_positions(change, share)
    assert moving.sum(1).tolist() == [max(1, round(share * size))] * clips
    for row, chosen in zip(change, moving, strict=True):
        assert row[chosen].min() >= (row[~chosen].max() if (~chosen).any() else 0)


def test_decibels_stay_finite() -> None:
    one, none = torch.tensor(1.0), torch.tensor(0.0)
    assert (decibels(one, none), decibels(none, one), decibels(none, none)) == (MAX_DB, -MAX_DB, 0)


def test_clips_of_other_shapes_or_types_are_refused() -> None:
    truth = moving_square()
    with pytest.raises(ValueError, match="one shape"):
        compare_with_copy(truth[:, :3], truth)
    with pytest.raises(ValueError, match="uint8"):
        frame_quality(truth.float(), truth.float())
