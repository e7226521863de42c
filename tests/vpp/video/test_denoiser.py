"""The denoiser around a UNet: preconditioning, conditions, and what it falls back to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from vpp.diffusion.edm import preconditioning
from vpp.video.denoiser import DenoiserConfig, VideoDenoiser

GENERATOR = torch.Generator().manual_seed(0)
FIRST = torch.randn(2, 4, 8, 8, generator=GENERATOR)
NOISE = torch.randn(2, 3, 4, 8, 8, generator=GENERATOR)
TEXT = torch.randn(2, 20, 512, generator=GENERATOR)


class Listening(nn.Module):
    """A UNet that answers with a constant and keeps what it was asked."""

    def __init__(self, answer: float = 0.0) -> None:
        super().__init__()
        self.answer = answer
        self.asked: dict[str, Any] = {}

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **named: Any) -> tuple[torch.Tensor]:
        self.asked = {"sample": sample, "timestep": timestep, **named}
        return (torch.full_like(sample[:, :, :4], self.answer),)


def test_the_unet_is_asked_as_published() -> None:
    unet = Listening()
    sigma = torch.tensor([2.0, 30.0])
    noisy = NOISE * sigma.reshape(2, 1, 1, 1, 1)
    VideoDenoiser(unet, DenoiserConfig(num_frames=3))(noisy, sigma, FIRST, TEXT)
    scale = preconditioning(sigma)
    torch.testing.assert_close(unet.asked["sample"][:, :, :4], scale.c_in.reshape(2, 1, 1, 1, 1) * noisy)
    for frame in range(3):
        torch.testing.assert_close(unet.asked["sample"][:, frame, 4:], FIRST / 0.18215)
    torch.testing.assert_close(unet.asked["timestep"], sigma.log() / 4)
    torch.testing.assert_close(unet.asked["encoder_hidden_states"], torch.cat([TEXT, TEXT], dim=-1))
    assert unet.asked["added_time_ids"].tolist() == [[7, 127, 0]] * 2


@pytest.mark.parametrize("sigma_data", [0.4, 1.0])
def test_the_answer_is_c_skip_of_the_noisy_and_c_out_of_the_unet(sigma_data: float) -> None:
    sigma = torch.tensor([0.5, 9.0])
    found = VideoDenoiser(Listening(0.7), DenoiserConfig(num_frames=3, sigma_data=sigma_data))(
        NOISE, sigma, FIRST, TEXT
    )
    p = preconditioning(sigma.reshape(2, 1, 1, 1, 1), sigma_data)
    torch.testing.assert_close(found, p.c_skip * NOISE + p.c_out * 0.7)


def test_with_the_first_frame_as_anchor_a_silent_unet_predicts_a_still_picture_from_high_noise() -> None:
    denoiser = VideoDenoiser(Listening(), DenoiserConfig(num_frames=3, anchor="first_frame"))
    still = FIRST[:, None].expand_as(NOISE)
    found = denoiser(denoiser.rest(FIRST) + 700.0 * NOISE, torch.full((2,), 700.0), FIRST, TEXT)
    torch.testing.assert_close(found, still, atol=0.02, rtol=0)
    zero = VideoDenoiser(Listening(), DenoiserConfig(num_frames=3))
    found = zero(zero.rest(FIRST) + 700.0 * NOISE, torch.full((2,), 700.0), FIRST, TEXT)
    torch.testing.assert_close(found, torch.zeros_like(still), atol=0.02, rtol=0)


def test_the_clean_first_frame_is_the_anchor_where_noise_was_added_to_the_one_the_unet_sees() -> None:
    unet = Listening()
    denoiser = VideoDenoiser(unet, DenoiserConfig(num_frames=3, anchor="first_frame"))
    strength = torch.tensor([0.1, 0.2])
    found = denoiser(
        FIRST[:, None] + 700.0 * NOISE, torch.full((2,), 700.0), FIRST + 5, TEXT, anchor=FIRST, noise_strength=strength
    )
    torch.testing.assert_close(found, FIRST[:, None].expand_as(NOISE), atol=0.02, rtol=0)
    torch.testing.assert_close(unet.asked["sample"][:, 0, 4:], (FIRST + 5) / 0.18215)
    torch.testing.assert_close(unet.asked["added_time_ids"][:, 2], strength)


@pytest.mark.parametrize("image_condition", [True, False])
def test_the_other_cameras_picture_is_wanted_exactly_where_the_model_has_it(image_condition: bool) -> None:
    denoiser = VideoDenoiser(Listening(), DenoiserConfig(num_frames=3, image_condition=image_condition))
    image = torch.zeros(2, 512)
    with pytest.raises(ValueError, match="image"):
        denoiser(NOISE, torch.ones(2), FIRST, TEXT, image=None if image_condition else image)
    denoiser(NOISE, torch.ones(2), FIRST, TEXT, image=image if image_condition else None)


@pytest.mark.parametrize("wrong", [{"num_frames": 1}, {"sigma_data": 0.0}, {"scaling_factor": -1.0}])
def test_a_setting_outside_its_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        DenoiserConfig(**wrong)
