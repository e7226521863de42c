"""Attention within bfloat16 training on a CPU: float32's values, and no change where it is not meant."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from vpp.train.arithmetic import bfloat16_arithmetic

CPU = torch.device("cpu")


def inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 16, 32), (2, 3, 20, 32), (2, 3, 20, 32)]
    return [torch.randn(*shape, generator=generator).to(torch.bfloat16).to(dtype).requires_grad_() for shape in shapes]


def attend(values: list[torch.Tensor], **options: object) -> tuple[torch.Tensor, list[torch.Tensor]]:
    result = scaled_dot_product_attention(*values, **options)
    result.float().square().sum().backward()
    return result.detach(), [value.grad for value in values]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"attn_mask": torch.ones(16, 20).tril(4).bool()}])
def test_attention_is_that_of_float32_rounded_to_bfloat16(dtype: torch.dtype, options: dict) -> None:
    expected, expected_gradients = attend(inputs(torch.float32), **options)
    with bfloat16_arithmetic(CPU):
        found, gradients = attend(inputs(dtype), **options)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.to(torch.bfloat16))
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        assert gradient.dtype == dtype
        error = (gradient.float() - wanted).norm() / wanted.norm()
        assert error < 0.01  # the gradient that comes in is in bfloat16


def test_a_block_that_leaves_autocast_gets_its_own_arithmetic() -> None:
    with bfloat16_arithmetic(CPU), torch.autocast("cpu", enabled=False):
        found, _ = attend(inputs(torch.float32))
    assert torch.equal(found, attend(inputs(torch.float32))[0])


def test_dropout_of_attention_is_left_to_pytorch() -> None:
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        expected = scaled_dot_product_attention(*inputs(torch.float32), dropout_p=0.5)
    torch.manual_seed(0)
    with bfloat16_arithmetic(CPU):
        found = scaled_dot_product_attention(*inputs(torch.float32), dropout_p=0.5)
    assert torch.equal(found, expected)


def test_products_are_in_bfloat16_and_recomputed_blocks_have_the_same_gradient() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(32, 32)

    def block(x: torch.Tensor) -> torch.Tensor:
        assert layer(x).dtype == torch.bfloat16
        return scaled_dot_product_attention(layer(x), layer(x), x)

    gradients = []
    for is_recomputed in (False, True):
        layer.zero_grad()
        x = torch.randn(2, 3, 16, 32, generator=torch.Generator().manual_seed(0))
        with bfloat16_arithmetic(CPU):
            result = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False) if is_recomputed else block(x)
            result.float().sum().backward()
        gradients.append(layer.weight.grad.clone())
    assert torch.equal(*gradients)
