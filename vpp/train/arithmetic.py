"""The arithmetic of a training step: bfloat16 by autocast, or float32.

On a CPU attention stays in float32 within bfloat16: PyTorch's kernel for the backward pass of bfloat16 attention is
there 4 to 25 times slower for the short sequences of frames, captions and small pictures, and no faster for long ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


class _AttentionInFloat32(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, *rest = args
        with torch.autocast("cpu", enabled=False):
            result = func(query.float(), *(value.float() for value in rest[:2]), *rest[2:], **(kwargs or {}))
        return result.to(query.dtype)


@contextlib.contextmanager
def bfloat16_arithmetic(device: torch.device) -> Iterator[None]:
    """Within the block matrix products and convolutions are done in bfloat16; forward and backward belong into it."""
    with torch.autocast(device.type, torch.bfloat16):
        if device.type != "cpu":
            yield
        else:
            with _AttentionInFloat32():
                yield
