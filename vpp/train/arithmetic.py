"""The arithmetic of bfloat16 training: PyTorch's autocast, with attention in float32 on a CPU.

There PyTorch's backward pass of bfloat16 attention (2.13) is 4 to 25 times slower than float32's for short sequences,
such as 16 frames, 20 tokens of a caption or small pictures, and no faster for long ones. Queries, keys and values are
kept in bfloat16 for the backward pass, which computes attention once more, so it takes no more memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def bfloat16_arithmetic(device: torch.device) -> Iterator[None]:
    """Within the block matrix products and convolutions are in bfloat16; forward and backward pass belong into it."""
    attention = _AttentionInFloat32() if device.type == "cpu" else contextlib.nullcontext()
    with torch.autocast(device.type, torch.bfloat16), attention:
        yield


class _AttentionInFloat32(TorchFunctionMode):
    """Takes the place of PyTorch's attention where it is called as diffusers does, and without dropout."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        is_ours = func is scaled_dot_product_attention and len(args) == 3 and not kwargs.get("dropout_p")
        if is_ours and torch.is_autocast_enabled("cpu"):
            result = _Attention.apply(kwargs, *(value.to(torch.bfloat16) for value in args))  # type: ignore[no-untyped-call]
            return result
        return func(*args, **kwargs)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, options: dict[str, Any], *inputs: torch.Tensor) -> torch.Tensor:
        ctx.options = options
        ctx.save_for_backward(*inputs)
        with torch.autocast("cpu", enabled=False):
            query, key, value = (tensor.float() for tensor in inputs)
            return scaled_dot_product_attention(query, key, value, **options).to(torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        with torch.enable_grad(), torch.autocast("cpu", enabled=False):
            query, key, value = (tensor.detach().float().requires_grad_() for tensor in ctx.saved_tensors)
            result = scaled_dot_product_attention(query, key, value, **ctx.options)
            found = torch.autograd.grad(result, (query, key, value), gradients[0].float())
        return None, *(gradient.to(torch.bfloat16) for gradient in found)
