"""The action denoiser: its size as published, what each flag of `compat` changes, and what its outputs depend on."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_policy import NUM_TOKENS, SMALL, normal, small_denoiser, small_inputs
from torch import nn

from vpp.policy.action_denoiser import ActionContext, ActionDenoiser, ActionDenoiserConfig
from vpp.policy.compat import PUBLISHED, Compat
from vpp.policy.transformer import KeysValues
from vpp.train.arithmetic import bfloat16_arithmetic

H, A = SMALL["num_actions"], SMALL["action_dim"]
SIGMA = torch.tensor([0.3, 2.0])


def num_parameters(config: ActionDenoiserConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in ActionDenoiser(config).parameters())


def test_the_published_sizes_have_22_60_million_parameters_counting_those_that_published_code_never_uses() -> None:
    width, goal_width, proprio_dim, num_tokens, num_actions = 384, 512, 8, 16 * 14, 10

    def two_layers(num_inputs: int) -> int:
        return (num_inputs + 1) * 2 * width + (2 * width + 1) * width

    unused = two_layers(goal_width) + two_layers(proprio_dim) + (1 + num_tokens + num_actions) * width
    used = num_parameters(ActionDenoiserConfig(compat=PUBLISHED))
    assert round((used + unused) / 1e6, 2) == 22.60
    assert round(used / 1e6, 2) == 21.52
    assert num_parameters(ActionDenoiserConfig()) == used + num_actions * width
    assert num_parameters(ActionDenoiserConfig(proprio_dim=8)) == used + num_actions * width + two_layers(8)


def test_weights_start_small_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    denoiser = ActionDenoiser(ActionDenoiserConfig(encoder_layers=1, decoder_layers=1))
    linear = [module for module in denoiser.modules() if isinstance(module, nn.Linear)]
    weights = torch.cat([module.weight.detach().flatten() for module in linear])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.01)
    assert all(module.bias is None or not module.bias.any() for module in linear)


def test_an_open_modulation_passes_on_from_the_start_what_the_published_one_hardly_does() -> None:
    """How strongly the output follows the self-attention and MLP of an untrained decoder."""

    def gradient(modulation_start: float) -> float:
        torch.manual_seed(0)
        denoiser = ActionDenoiser(ActionDenoiserConfig(encoder_layers=0, modulation_start=modulation_start)).eval()
        context = denoiser.encode(normal(2, 3, 384), normal(2, 512))
        denoiser(normal(2, 10, 7), SIGMA, context).square().sum().backward()
        return float(denoiser.decoder_layers[0].mlp[0].weight.grad.norm())

    assert gradient(1.0) > 100 * gradient(0.0)


def reach(denoiser: ActionDenoiser) -> torch.Tensor:
    """Whether each action's output depends on each token of the encoded context: bool `[H, 1 + K]`."""
    context = denoiser.encode(*small_inputs(1))
    seen = tuple(
        KeysValues(*(tensor.detach().requires_grad_() for tensor in (one.keys, one.values)))
        for one in context.keys_values
    )
    denoised = denoiser(normal(1, H, A), SIGMA[:1], ActionContext(context.tokens, seen))
    rows = []
    for number in range(H):
        gradients = torch.autograd.grad(denoised[0, number].sum(), [one.values for one in seen], retain_graph=True)
        rows.append(sum(gradient.abs().sum((0, 1, 3)) for gradient in gradients) > 0)
    return torch.stack(rows)


def test_every_action_sees_the_whole_context() -> None:
    reached = reach(small_denoiser())
    assert reached.shape == (H, 1 + NUM_TOKENS)
    assert reached.all()


def test_causal_cross_attention_shows_action_i_only_the_first_tokens() -> None:
    reached = reach(small_denoiser(compat=Compat(causal_cross_attention=True)))
    assert torch.equal(reached, torch.ones_like(reached).tril())
    assert not reached[:, -1].any()


def test_only_positions_tell_equal_actions_apart_once_all_see_the_same_context() -> None:
    equal = normal(2, 1, A).expand(-1, H, -1)
    for flag, are_equal in ((True, True), (False, False)):
        denoiser = small_denoiser(compat=Compat(no_action_positions=flag))
        assert (denoiser.action_positions is None) == flag
        with torch.no_grad():
            denoised = denoiser(equal, SIGMA, denoiser.encode(*small_inputs()))
        spread = float((denoised - denoised[:, :1]).abs().max())
        assert (spread < 1e-5) == are_equal


def test_by_default_nothing_of_the_published_faults_is_on_and_published_is_all_of_it() -> None:
    assert not any(dataclasses.astuple(Compat()))
    assert all(dataclasses.astuple(PUBLISHED))
    assert ActionDenoiserConfig().compat == Compat()


def test_an_action_sees_the_earlier_ones_only() -> None:
    denoiser = small_denoiser()
    context = denoiser.encode(*small_inputs(1))
    noisy = normal(1, H, A).requires_grad_()
    denoised = denoiser(noisy, SIGMA[:1], context)
    for number in range(H):
        (gradient,) = torch.autograd.grad(denoised[0, number].sum(), noisy, retain_graph=True)
        assert (gradient[0].abs().sum(1) > 0).tolist() == [other <= number for other in range(H)]


def test_every_parameter_is_trained_with_proprioception_too() -> None:
    denoiser = small_denoiser(proprio_dim=2)
    context = denoiser.encode(*small_inputs(), normal(2, 2))
    assert context.tokens.shape == (2, 1 + NUM_TOKENS + 1, SMALL["width"])
    denoiser(normal(2, H, A), SIGMA, context).square().sum().backward()
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None, name
        # a constant that is added to all keys changes no attention
        assert name.endswith("key.bias") or parameter.grad.abs().sum() > 0, name


def test_proprioception_is_given_exactly_where_the_model_reads_it() -> None:
    with pytest.raises(ValueError, match=r"expected proprio=None, found \[2, 2\]"):
        small_denoiser().encode(*small_inputs(), normal(2, 2))
    with pytest.raises(ValueError, match=r"expected proprio=\[B, 2\], found None"):
        small_denoiser(proprio_dim=2).encode(*small_inputs())


@pytest.mark.parametrize("shape", [(2, H + 1, A), (2, 1, A), (2, H, 1)])
def test_actions_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    denoiser = small_denoiser()
    with pytest.raises(ValueError, match=r"expected noisy actions \[B, 4, 3\]"):
        denoiser(torch.zeros(shape), SIGMA, denoiser.encode(*small_inputs()))


@torch.no_grad()
def test_nearly_clean_actions_stay_as_they_are_and_samples_do_not_see_each_other() -> None:
    denoiser = small_denoiser()
    tokens, goal = small_inputs()
    noisy = normal(2, H, A)
    context = denoiser.encode(tokens, goal)
    torch.testing.assert_close(denoiser(noisy, torch.full((2,), 1e-6), context), noisy, atol=1e-4, rtol=0)
    alone = denoiser(noisy[1:], SIGMA[1:], denoiser.encode(tokens[1:], goal[1:]))
    torch.testing.assert_close(denoiser(noisy, SIGMA, context)[1:], alone)


@torch.no_grad()
def test_dropout_acts_in_training_only() -> None:
    denoiser = small_denoiser(attention_dropout=0.3, residual_dropout=0.1, mlp_dropout=0.05)
    noisy, (tokens, goal) = normal(2, H, A), small_inputs()
    torch.manual_seed(0)
    trained = [denoiser(noisy, SIGMA, denoiser.encode(tokens, goal)) for _ in range(2)]
    denoiser.eval()
    judged = [denoiser(noisy, SIGMA, denoiser.encode(tokens, goal)) for _ in range(2)]
    assert not torch.equal(*trained)
    assert torch.equal(*judged)


def test_bfloat16_arithmetic_and_weights_give_float32_actions_close_to_those_of_float32() -> None:
    denoiser = small_denoiser()
    noisy, (tokens, goal) = normal(2, H, A), small_inputs()
    expected = denoiser(noisy, SIGMA, denoiser.encode(tokens, goal))
    with bfloat16_arithmetic(torch.device("cpu")):
        found = denoiser(noisy, SIGMA, denoiser.encode(tokens, goal))
        found.sum().backward()
    denoiser.bfloat16()
    of_weights = denoiser(noisy, SIGMA, denoiser.encode(tokens, goal))
    for one in (found, of_weights):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    "change", [{"width": 15}, {"width": 16, "heads": 3}, {"heads": 0}, {"num_actions": 0}, {"proprio_dim": -1},
               {"sigma_data": 0.0}, {"attention_dropout": 1.0}, {"encoder_layers": -1}],
)  # fmt: skip
def test_sizes_that_make_no_network_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        small_denoiser(**change)
