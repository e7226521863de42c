"""The objective: what is drawn follows from a sample's place alone, and the loss is EDM's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vpp.diffusion.edm import loss_weight
from vpp.video.denoiser import DenoiserConfig, VideoDenoiser
from vpp.video.objective import Draws, ObjectiveSettings, draw, sample_generator, video_loss

SHAPE = (3, 4, 2, 2)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=6), st.integers(0, 10**9), st.integers(0, 2**31))
def test_draws_depend_on_seed_step_and_place_not_on_who_draws_them(positions: list[int], step: int, seed: int) -> None:
    together = draw(seed, step, positions, SHAPE)
    alone = [draw(seed, step, [position], SHAPE) for position in positions]
    for name in ("noise", "ln_sigma", "text_keep", "ln_noise_strength"):
        assert torch.equal(getattr(together, name), torch.cat([getattr(one, name) for one in alone]))


def test_draws_differ_between_seeds_steps_places_and_purposes() -> None:
    noises = [draw(seed, step, [place], SHAPE).noise for seed in (0, 1) for step in (0, 1) for place in (0, 1)]
    noises += [torch.randn(1, *SHAPE, generator=sample_generator(0, 0, 0, "prediction"))]
    for first in range(len(noises)):
        for second in range(first):
            assert not torch.equal(noises[first], noises[second])


def test_draws_leave_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    draw(0, 0, [0, 1], SHAPE)
    assert torch.equal(before, torch.get_rng_state())


def test_draws_are_standard_normal_and_uniform() -> None:
    draws = draw(0, 0, range(2000), (1, 1, 2, 2))
    for values in (draws.noise, draws.ln_sigma, draws.ln_noise_strength):
        assert float(values.mean()) == pytest.approx(0, abs=0.1)
        assert float(values.std()) == pytest.approx(1, abs=0.1)
    assert float(draws.text_keep.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(draws.text_keep.min()) >= 0
    assert float(draws.text_keep.max()) < 1


class Constant(nn.Module):
    """Stands for a UNet; keeps the captions that it was asked with."""

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **named: Any) -> tuple[torch.Tensor]:
        self.captions = named["encoder_hidden_states"]
        return (torch.full_like(sample[:, :, :4], 0.5),)


def some_draws() -> Draws:
    noise = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    return Draws(noise, torch.tensor([-1.0, 0.0, 1.5]), torch.tensor([0.5, 0.01, 0.051]), torch.zeros(3))


def test_the_loss_is_the_weighted_error_of_the_clean_latents_by_sample() -> None:
    latents = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    denoiser, draws = VideoDenoiser(Constant(), DenoiserConfig(num_frames=3)), some_draws()
    text = torch.ones(3, 20, 512)
    loss, sigma = video_loss(denoiser, latents, text, draws, ObjectiveSettings())
    torch.testing.assert_close(sigma, (1.6 * draws.ln_sigma + 0.7).exp())
    level = sigma.reshape(-1, 1, 1, 1, 1)
    predicted = denoiser(latents + level * draws.noise, sigma, latents[:, 0], text)
    torch.testing.assert_close(loss, (predicted - latents).square().mean((1, 2, 3, 4)) * loss_weight(sigma))


def test_captions_are_dropped_where_the_uniform_number_is_within_the_dropout() -> None:
    unet = Constant()
    denoiser = VideoDenoiser(unet, DenoiserConfig(num_frames=3))
    video_loss(denoiser, torch.zeros(3, *SHAPE), torch.ones(3, 20, 512), some_draws(), ObjectiveSettings())
    assert [bool((caption == 0).all()) for caption in unet.captions] == [False, True, False]


def test_a_denoiser_without_error_has_no_loss() -> None:
    latents = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))

    class Knowing(nn.Module):
        def forward(self, *inputs: Any, **named: Any) -> torch.Tensor:
            return latents

    loss, _ = video_loss(Knowing(), latents, torch.ones(3, 20, 512), some_draws(), ObjectiveSettings())
    assert loss.tolist() == [0, 0, 0]
