"""Preconditioning: unit variance in and out, and the factors of diffusers' scheduler."""

from __future__ import annotations

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from vpp.diffusion.edm import loss_weight, preconditioning

SIGMAS = torch.tensor([0.01, 0.3, 1.0, 5.0, 80.0, 700.0], dtype=torch.float64)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_the_network_sees_and_is_asked_for_unit_variance(sigma_data: float) -> None:
    p = preconditioning(SIGMAS, sigma_data)
    variance_in = p.c_in**2 * (sigma_data**2 + SIGMAS**2)
    torch.testing.assert_close(variance_in, torch.ones_like(SIGMAS))
    # the target (y - c_skip (y + n)) / c_out for independent data y and noise n
    variance_out = ((1 - p.c_skip) ** 2 * sigma_data**2 + p.c_skip**2 * SIGMAS**2) / p.c_out**2
    torch.testing.assert_close(variance_out, torch.ones_like(SIGMAS))


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_sampled_inputs_and_targets_have_unit_variance(sigma_data: float) -> None:
    generator = torch.Generator().manual_seed(0)
    data, noise = sigma_data * torch.randn(200_000, generator=generator), torch.randn(200_000, generator=generator)
    for sigma in (0.2, 1.0, 20.0):
        p = preconditioning(torch.tensor(sigma), sigma_data)
        noisy = data + sigma * noise
        assert float((p.c_in * noisy).std()) == pytest.approx(1.0, abs=0.01)
        assert float(((data - p.c_skip * noisy) / p.c_out).std()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_the_weight_makes_the_networks_own_error_count_the_same_at_every_level(sigma_data: float) -> None:
    weight = loss_weight(SIGMAS, sigma_data)
    torch.testing.assert_close(weight * preconditioning(SIGMAS, sigma_data).c_out ** 2, torch.ones_like(SIGMAS))


def test_the_factors_are_those_of_diffusers() -> None:
    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous", use_karras_sigmas=True, sigma_min=0.002,
        sigma_max=700.0, timestep_spacing="leading",
    )  # fmt: skip
    scheduler.set_timesteps(7)
    generator = torch.Generator().manual_seed(0)
    for number, timestep in enumerate(scheduler.timesteps):
        sample = torch.randn(2, 3, generator=generator) * scheduler.sigmas[number]
        output = torch.randn(2, 3, generator=generator)
        p = preconditioning(scheduler.sigmas[number])
        torch.testing.assert_close(p.c_in * sample, scheduler.scale_model_input(sample, timestep))
        torch.testing.assert_close(p.c_noise, timestep)
        expected = scheduler.step(output, timestep, sample).pred_original_sample
        torch.testing.assert_close(p.c_skip * sample + p.c_out * output, expected, rtol=1e-4, atol=1e-6)
