"""Noise levels: the training distribution, and diffusers' schedule."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from vpp.diffusion.sigmas import exponential_sigmas, karras_sigmas, log_logistic_sigmas, log_normal_sigmas


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


def test_training_levels_of_the_policy_have_a_logistic_logarithm_cut_to_the_range() -> None:
    scale, low, high = 0.5, 0.001, 80.0
    uniform = torch.linspace(0, 1, 1001, dtype=torch.float64)
    sigmas = log_logistic_sigmas(uniform, math.log(0.5), scale, low, high)
    assert sigmas.dtype == torch.float32
    assert float(sigmas[0]) == pytest.approx(low, rel=1e-6)
    assert float(sigmas[-1]) == pytest.approx(high, rel=1e-4)
    assert (sigmas.diff() > 0).all()

    def distribution(sigma: torch.Tensor) -> torch.Tensor:  # of the logistic logarithm, before the cut
        return 1 / (1 + (-(sigma.double() / 0.5).log() / scale).exp())

    ends = distribution(torch.tensor([low, high]))
    found = (distribution(sigmas) - ends[0]) / (ends[1] - ends[0])
    torch.testing.assert_close(found, uniform, atol=1e-6, rtol=0)


def test_the_quartiles_of_the_logarithm_lie_at_the_scale_times_the_logarithm_of_three() -> None:
    first, median, third = log_logistic_sigmas(torch.tensor([0.25, 0.5, 0.75]), 0.0, 0.7, 1e-9, 1e9).log()
    assert float(median) == pytest.approx(0, abs=1e-6)
    assert [float(-first), float(third)] == pytest.approx([0.7 * math.log(3)] * 2, rel=1e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 10])
def test_exponential_levels_fall_by_a_constant_factor_and_end_at_zero(num_steps: int) -> None:
    sigmas = exponential_sigmas(num_steps, 0.001, 80.0)
    assert (sigmas.dtype, len(sigmas), float(sigmas[-1])) == (torch.float32, num_steps + 1, 0)
    assert float(sigmas[0]) == pytest.approx(80.0)
    if num_steps > 1:
        assert float(sigmas[-2]) == pytest.approx(0.001, rel=1e-5)
        ratios = sigmas[1:-1] / sigmas[:-2]
        torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios), rtol=1e-5, atol=0)
