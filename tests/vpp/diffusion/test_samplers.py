"""Euler steps: diffusers' loop, and problems whose solution is known."""

from __future__ import annotations

import itertools

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from vpp.diffusion.edm import preconditioning
from vpp.diffusion.samplers import ddim, euler
from vpp.diffusion.sigmas import exponential_sigmas, karras_sigmas


def network(scaled: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
    """Stands for a UNet: bounded, not linear, and different at each noise level."""
    return torch.tanh(1.3 * scaled + 0.2 * c_noise) - 0.4 * scaled.flip(-1)


def test_thirty_steps_are_those_of_diffusers() -> None:
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0, timestep_type="continuous",
        timestep_spacing="leading", steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(30)
    noise = torch.randn(2, 4, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    start = noise * scheduler.init_noise_sigma
    expected = start
    for timestep in scheduler.timesteps:
        output = network(scheduler.scale_model_input(expected, timestep), timestep)
        expected = scheduler.step(output, timestep, expected).prev_sample

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        p = preconditioning(sigma)
        return p.c_skip * x + p.c_out * network(p.c_in * x, p.c_noise)

    found = euler(denoise, start, karras_sigmas(30))
    assert float((found - expected).norm() / expected.norm()) < 1e-4


def test_normal_data_are_reached_with_an_error_that_falls_with_the_steps() -> None:
    """Data of standard deviation s: the exact flow scales x by sqrt((s^2 + to^2) / (s^2 + from^2))."""
    spread, start = 0.5, torch.tensor([30.0, -7.0], dtype=torch.float64)

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x * spread**2 / (spread**2 + sigma**2)

    exact = start * spread / (spread**2 + 80.0**2) ** 0.5
    errors = [
        float((euler(denoise, start, karras_sigmas(steps, 0.002, 80.0).double()) - exact).abs().max())
        for steps in (20, 40, 80, 160)
    ]
    assert all(later < 0.6 * earlier for earlier, later in itertools.pairwise(errors))


def test_one_step_to_zero_is_the_denoiser_itself() -> None:
    x = torch.tensor([700.3, -12.5])
    assert torch.equal(euler(lambda x, sigma: x * 0 + 0.1, x, torch.tensor([700.0, 0.0])), torch.tensor([0.1, 0.1]))


@pytest.mark.parametrize("num_steps", [1, 5])
def test_the_denoiser_is_called_once_a_step_at_the_falling_levels(num_steps: int) -> None:
    seen: list[float] = []

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        assert sigma.shape == ()
        seen.append(float(sigma))
        return x

    sigmas = karras_sigmas(num_steps)
    euler(denoise, torch.zeros(1), sigmas)
    assert seen == sigmas[:-1].tolist()


def linear(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The denoiser of normal data of mean 1 and standard deviation 0.5."""
    return 1 + (x - 1) * 0.25 / (0.25 + sigma**2)


def test_ddim_is_the_first_order_exponential_integrator_in_the_logarithm_of_the_level() -> None:
    sigmas = exponential_sigmas(10, 0.001, 80.0).double()
    x = torch.tensor([90.0, -30.0, 0.5], dtype=torch.float64)
    expected = x
    for sigma, following in itertools.pairwise(sigmas):
        step = sigma.log() - following.log()  # infinite at the end, where the denoised data remain
        expected = (following / sigma) * expected - torch.expm1(-step) * linear(expected, sigma)
    torch.testing.assert_close(ddim(linear, x, sigmas), expected)


def test_ddim_is_exact_for_a_single_possible_outcome_whatever_the_steps() -> None:
    goal, x = torch.tensor([0.3, -2.0]), torch.tensor([77.0, 5.0])
    for num_steps in (1, 2, 10):
        found = ddim(lambda x, sigma: goal, x, exponential_sigmas(num_steps))
        torch.testing.assert_close(found, goal)


def test_ddim_of_a_linear_denoiser_is_the_product_of_its_steps_and_converges_to_the_flow() -> None:
    x, flow = torch.tensor([81.0], dtype=torch.float64), 1 + 80.0 * 0.5 / (0.25 + 80.0**2) ** 0.5
    errors = []
    for num_steps in (20, 40, 80, 160):
        sigmas = exponential_sigmas(num_steps, 0.001, 80.0).double()
        factor = 1.0
        for sigma, following in itertools.pairwise(sigmas.tolist()):
            factor *= (0.25 + sigma * following) / (0.25 + sigma**2)
        found = ddim(linear, x, sigmas)
        torch.testing.assert_close(found, 1 + (x - 1) * factor)
        errors.append(abs(float(found) - flow))
    assert all(later < 0.6 * earlier for earlier, later in itertools.pairwise(errors))
