"""A linear layer with what follows it in the same pass over memory, as oneDNN offers it to bfloat16 on a CPU.

PyTorch has these kernels for the code that its compiler makes. Called by hand they need neither a compiler nor minutes
of compiling for each batch size. Everywhere else the same is computed by PyTorch's public functions.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Linear(nn.Module):
    """A linear layer of a frozen weight `[C', C]`."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().contiguous(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().contiguous(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., C]` to `[..., C']`."""
        return self._fused("none", x) if self._has_kernels(x) else functional.linear(x, self.weight, self.bias)

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        """With GELU behind it."""
        return self._fused("gelu", x) if self._has_kernels(x) else functional.gelu(self.forward(x))

    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """Multiplied by a factor `[..., C']`."""
        return self._fused("mul", x, factor) if self._has_kernels(x) else self.forward(x) * factor

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Added to another `[..., C']`."""
        return self._fused("add", x, other) if self._has_kernels(x) else self.forward(x) + other

    def _has_kernels(self, x: torch.Tensor) -> bool:
        """PyTorch builds and processors without these kernels compute the same plainly."""
        return _IS_SUPPORTED and x.device.type == "cpu" and x.dtype == self.weight.dtype == torch.bfloat16

    def _fused(self, behind: str, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        kernel = torch.ops.mkldnn._linear_pointwise
        result: torch.Tensor
        if other is None:
            result = kernel(x, self.weight, self.bias, behind, [], "none")
        else:
            result = kernel.binary(x, other.contiguous(), self.weight, self.bias, behind)
        return result


_IS_SUPPORTED = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
