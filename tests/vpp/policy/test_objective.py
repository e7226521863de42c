"""Training and sampling of the policy: randomness by place, padding that does not count, the context read once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_policy import SMALL, normal, small_denoiser, small_inputs
from torch import nn

from vpp.diffusion.edm import preconditioning
from vpp.policy.action_denoiser import ActionDenoiser
from vpp.policy.objective import (
    ActionObjectiveSettings,
    action_loss,
    draw_action_sigmas,
    draw_actions,
    sample_actions,
    seeded_dropout,
)

H, A = SMALL["num_actions"], SMALL["action_dim"]
SETTINGS = ActionObjectiveSettings()
CPU = torch.device("cpu")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=6), st.integers(0, 10**9), st.integers(0, 2**31))
def test_draws_depend_on_seed_step_and_place_not_on_who_draws_them(positions: list[int], step: int, seed: int) -> None:
    before = torch.get_rng_state()
    together = draw_actions(seed, step, positions, (H, A), SETTINGS)
    alone = [draw_actions(seed, step, [position], (H, A), SETTINGS) for position in positions]
    assert torch.equal(together.noise, torch.cat([one.noise for one in alone]))
    assert torch.equal(together.sigma, torch.cat([one.sigma for one in alone]))
    assert torch.equal(together.sigma[:, 0], draw_action_sigmas(seed, step, positions, SETTINGS))
    more = draw_actions(seed, step, positions, (H, A), ActionObjectiveSettings(num_draws=3))
    assert torch.equal(more.noise[:, :1], together.noise)
    assert torch.equal(more.sigma[:, :1], together.sigma)
    assert len(more.sigma.unique()) == 3 * len(set(positions))
    assert torch.equal(before, torch.get_rng_state())


def test_draws_differ_between_seeds_steps_and_places_and_follow_their_distributions() -> None:
    first = draw_actions(0, 0, range(4000), (1, 2), SETTINGS)
    assert float(first.noise.mean()) == pytest.approx(0, abs=0.05)
    assert float(first.noise.std()) == pytest.approx(1, abs=0.05)
    assert float(first.sigma.median()) == pytest.approx(0.5, rel=0.1)
    assert first.sigma.dtype == torch.float32
    assert len(first.sigma.unique()) > 3990
    for other in (draw_actions(1, 0, [7], (1, 2), SETTINGS), draw_actions(0, 1, [7], (1, 2), SETTINGS)):
        assert not torch.equal(other.noise, first.noise[7:8])
        assert not torch.equal(other.sigma, first.sigma[7:8])


@pytest.mark.parametrize("change", [{"sigma_log_scale": 0.0}, {"sigma_min": 0.0}, {"sigma_min": 90.0}])
def test_a_distribution_without_noise_levels_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        ActionObjectiveSettings(**change)


def losses_of(denoiser: ActionDenoiser, actions: torch.Tensor, is_pad: torch.Tensor) -> torch.Tensor:
    context = denoiser.encode(*small_inputs())
    return action_loss(denoiser, context, actions, is_pad, normal(2, H, A, seed=3), torch.tensor([0.05, 3.0]))


def test_the_loss_is_the_squared_error_of_the_networks_own_target() -> None:
    denoiser = small_denoiser()
    actions, noise, sigma = normal(2, H, A), normal(2, H, A, seed=3), torch.tensor([0.05, 3.0])
    predicted: list[torch.Tensor] = []
    denoiser.output.register_forward_hook(lambda module, inputs, output: predicted.append(output))
    losses = losses_of(denoiser, actions, torch.zeros(2, H, dtype=torch.bool))
    p = preconditioning(sigma[:, None, None], denoiser.config.sigma_data)
    target = (actions - p.c_skip * (actions + noise * sigma[:, None, None])) / -p.c_out
    torch.testing.assert_close(losses, (predicted[0] - target).square().mean((1, 2)), rtol=1e-4, atol=1e-6)


def test_padded_actions_do_not_count_and_the_others_are_averaged() -> None:
    denoiser = small_denoiser()
    actions = normal(2, H, A)
    is_pad = torch.tensor([[False, False, True, True], [False, True, True, True]])
    changed = torch.where(is_pad[:, :, None], actions * 0 + 9.0, actions)
    losses = losses_of(denoiser, actions, is_pad)
    torch.testing.assert_close(losses, losses_of(denoiser, changed, is_pad))  # earlier actions do not see later ones
    assert not torch.allclose(losses, losses_of(denoiser, changed, torch.zeros_like(is_pad)))
    assert losses_of(denoiser, actions, torch.ones_like(is_pad)).tolist() == [0.0, 0.0]


def test_padded_actions_give_no_gradient() -> None:
    denoiser = small_denoiser()
    kept: list[torch.Tensor] = []
    denoiser.output.register_forward_hook(lambda module, inputs, output: kept.append(output) or output.retain_grad())
    is_pad = torch.tensor([[False, False, True, True], [False, False, False, True]])
    losses_of(denoiser, normal(2, H, A), is_pad).sum().backward()
    assert kept[0].grad is not None
    assert torch.equal(kept[0].grad.abs().sum(2) == 0, is_pad)


@pytest.mark.parametrize("num_steps", [1, 10])
def test_the_context_is_read_once_however_many_steps_the_sampler_takes(num_steps: int) -> None:
    denoiser = small_denoiser().eval()
    calls: dict[str, int] = {}

    def count(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1

        return hook

    denoiser.encoder_layers[0].register_forward_hook(count("encoder"))
    denoiser.decoder_layers[0].cross_attention.key.register_forward_hook(count("keys"))
    denoiser.decoder_layers[0].register_forward_hook(count("decoder"))
    found = sample_actions(denoiser, denoiser.encode(*small_inputs()), normal(2, H, A), num_steps)
    assert found.shape == (2, H, A)
    assert not found.requires_grad
    assert calls == {"encoder": 1, "keys": 1, "decoder": num_steps}


def test_sampling_is_a_function_of_its_noise() -> None:
    denoiser = small_denoiser().eval()
    context = denoiser.encode(*small_inputs())
    noise = normal(2, H, A)
    before = torch.get_rng_state()
    first, second = (sample_actions(denoiser, context, noise) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.allclose(first, sample_actions(denoiser, context, noise, sigma_min=0.001))


def test_dropout_follows_from_the_place_and_leaves_the_global_state_alone() -> None:
    ones = torch.ones(1000)

    def dropped(seed: int, step: int, position: int) -> torch.Tensor:
        with seeded_dropout(seed, step, [position], CPU):
            return nn.functional.dropout(ones, 0.5)

    before = torch.get_rng_state()
    first = dropped(0, 0, 0)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    assert torch.equal(first, dropped(0, 0, 0))
    for other in (dropped(1, 0, 0), dropped(0, 1, 0), dropped(0, 0, 1)):
        assert not torch.equal(first, other)


def test_a_few_updates_learn_actions_that_follow_from_the_goal() -> None:
    """Two goals, two chunks: samples come near the chunk of their goal."""
    denoiser = small_denoiser(width=32, heads=2)
    tokens, _ = small_inputs()
    goals = torch.stack([torch.ones(5), -torch.ones(5)])
    chunks = torch.stack([torch.full((H, A), 0.5), torch.full((H, A), -0.5)])
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=3e-3)
    is_pad = torch.zeros(2 * 16, H, dtype=torch.bool)
    for step in range(60):
        draws = draw_actions(0, step, range(2 * 16), (H, A), SETTINGS)
        context = denoiser.encode(tokens[:1].expand(32, -1, -1), goals.repeat(16, 1))
        losses = action_loss(denoiser, context, chunks.repeat(16, 1, 1), is_pad, draws.noise[:, 0], draws.sigma[:, 0])
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        context = denoiser.encode(tokens[:1].expand(2, -1, -1), goals)
    found = sample_actions(denoiser.eval(), context, normal(2, H, A), sigma_min=0.001)
    assert float((found - chunks).abs().mean()) < 0.15
