"""The transformer layers of the action denoiser (arXiv 2412.14803 and its public code; adaptive norm: 2212.09748).

Letters in shapes: B samples, S tokens, W width. LayerNorms and MLPs have no bias except where a layer says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention, silu


@dataclass(frozen=True)
class Dropout:
    """Shares that training drops.

    Raises:
        ValueError: If one is outside [0, 1).
    """

    attention: float = 0.0
    """Of the attention weights."""
    residual: float = 0.0
    """Of an attention's output."""
    mlp: float = 0.0
    """Of an MLP's output."""

    def __post_init__(self) -> None:
        shares = (self.attention, self.residual, self.mlp)
        if not all(0 <= share < 1 for share in shares):
            raise ValueError(f"expected dropout in [0, 1), found {', '.join(map(str, shares))}")


@dataclass(frozen=True)
class KeysValues:
    """What a sequence offers to an attention, per head `[B, heads, S, W / heads]`."""

    keys: torch.Tensor
    values: torch.Tensor


class Attention(nn.Module):
    """Multi-head attention; the output projection has no bias."""

    def __init__(self, width: int, heads: int, dropout: Dropout) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, dropout.attention
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width, bias=False)
        self.residual_dropout = nn.Dropout(dropout.residual)

    def keys_values(self, context: torch.Tensor) -> KeysValues:
        """What queries see of a context `[B, S, W]`."""
        return KeysValues(self._split(self.key(context)), self._split(self.value(context)))

    def forward(self, x: torch.Tensor, seen: KeysValues, *, is_causal: bool = False) -> torch.Tensor:
        """`x` `[B, S, W]` looks at `seen`; causally, its token i at the first i + 1 tokens there."""
        dropout = self.attention_dropout if self.training else 0.0
        query = self._split(self.query(x))
        found = scaled_dot_product_attention(query, seen.keys, seen.values, dropout_p=dropout, is_causal=is_causal)
        output: torch.Tensor = self.residual_dropout(self.output(found.transpose(1, 2).flatten(2)))
        return output

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class EncoderLayer(nn.Module):
    """Bidirectional self-attention and an MLP, both behind a LayerNorm."""

    def __init__(self, width: int, heads: int, dropout: Dropout) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, heads, dropout)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.mlp = _mlp(width, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, S, W]` to the same."""
        normed = self.attention_norm(x)
        x = x + self.attention(normed, self.attention.keys_values(normed))
        after: torch.Tensor = x + self.mlp(self.mlp_norm(x))
        return after


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention and an MLP; the noise level shifts, scales and gates the first and last.

    The modulation of a normed `x` is `shift + x * scale`, and the cross-attention's LayerNorm has a bias.
    """

    def __init__(self, width: int, heads: int, dropout: Dropout) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, heads, dropout)
        self.cross_attention_norm = nn.LayerNorm(width)
        self.cross_attention = Attention(width, heads, dropout)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.mlp = _mlp(width, dropout)

    def start_modulation(self, value: float) -> None:
        """Sets what scales and gates are where the noise level adds nothing to them."""
        with torch.no_grad():
            self.modulation.bias.view(6, -1)[[1, 2, 4, 5]] = value

    def forward(
        self, x: torch.Tensor, level: torch.Tensor, context: KeysValues, *, is_causal_cross: bool = False
    ) -> torch.Tensor:
        """`[B, S, W]` to the same.

        Args:
            x: The actions' tokens.
            level: Embedding of the noise level `[B, W]`.
            context: What this layer's cross-attention sees.
            is_causal_cross: Token i sees only the first i + 1 tokens of the context.
        """
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(silu(level))[:, None].chunk(6, dim=-1)
        modulated = shift + self.attention_norm(x) * scale
        x = x + gate * self.attention(modulated, self.attention.keys_values(modulated), is_causal=True)
        x = x + self.cross_attention(self.cross_attention_norm(x), context, is_causal=is_causal_cross)
        after: torch.Tensor = x + mlp_gate * self.mlp(mlp_shift + self.mlp_norm(x) * mlp_scale)
        return after


def _mlp(width: int, dropout: Dropout) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, 4 * width, bias=False),
        nn.GELU(),
        nn.Linear(4 * width, width, bias=False),
        nn.Dropout(dropout.mlp),
    )
