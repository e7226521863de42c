"""Noise levels: the training distribution, and diffusers' schedule."""

from __future__ import annotations

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from vpp.diffusion.sigmas import karras_sigmas, log_normal_sigmas


def test_the_logarithm_of_training_levels_is_normal_with_the_given_mean_and_spread() -> None:
    normal = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    logarithms = log_normal_sigmas(normal, mean=0.7, std=1.6).log()
    assert float(logarithms.mean()) == pytest.approx(0.7, abs=0.02)
    assert float(logarithms.std()) == pytest.approx(1.6, abs=0.02)


@pytest.mark.parametrize("num_steps", [1, 2, 20, 30])
def test_the_schedule_is_that_of_diffusers_and_ends_at_zero(num_steps: int) -> None:
    scheduler = EulerDiscreteScheduler(
        use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0, timestep_type="continuous",
        prediction_type="v_prediction", timestep_spacing="leading", steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(num_steps)
    sigmas = karras_sigmas(num_steps)
    assert sigmas.dtype == torch.float32
    torch.testing.assert_close(sigmas, scheduler.sigmas, rtol=1e-4, atol=0)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_the_published_features_come_from_the_first_of_twenty_steps() -> None:
    first = karras_sigmas(20)[0]
    assert float(first) == pytest.approx(700.0)
    assert float(first.log() / 4) == pytest.approx(1.638, abs=1e-3)
