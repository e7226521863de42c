"""The action denoiser: a transformer behind EDM preconditioning that cleans a chunk of noisy actions.

Source: arXiv 2412.14803, section 4.3, and its public code. An encoder reads the context (goal, then the Video Former's
tokens), which does not depend on the noise, so it runs once however many steps a sampler takes. Letters in shapes:
B samples, H actions of a chunk, A numbers of an action, K tokens of the Video Former, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from vpp.diffusion.edm import preconditioning
from vpp.policy.compat import Compat
from vpp.policy.transformer import DecoderLayer, Dropout, EncoderLayer, KeysValues


@dataclass(frozen=True)
class ActionDenoiserConfig:
    """Sizes; the defaults are the published ones for CALVIN.

    Raises:
        ValueError: If a value is outside its range.
    """

    action_dim: int = 7
    """Numbers of an action."""
    num_actions: int = 10
    """Actions of a chunk."""
    token_width: int = 384
    """Channels of a context token, the Video Former's width."""
    goal_width: int = 512
    """Channels of the goal, CLIP's pooled text embedding."""
    proprio_dim: int = 0
    """Numbers of the robot's own state, which becomes one more context token; 0 for none, as published for CALVIN."""
    width: int = 384
    """Channels inside."""
    heads: int = 8
    """Heads of every attention."""
    encoder_layers: int = 4
    """Layers that read the context."""
    decoder_layers: int = 4
    """Layers that clean the actions."""
    attention_dropout: float = 0.3
    """Share of the attention weights that training drops."""
    residual_dropout: float = 0.1
    """Share of an attention's output that training drops."""
    mlp_dropout: float = 0.05
    """Share of an MLP's output that training drops."""
    sigma_data: float = 0.5
    """Standard deviation of the actions."""
    modulation_start: float = 0.0
    """What the decoder's scales and gates begin with, before training. Published: 0, with which layers hardly pass
    anything on at first; with 1 short trainings get further."""
    compat: Compat = field(default_factory=Compat)
    """What of the published faults the weights were trained with."""

    def __post_init__(self) -> None:
        counts = (self.action_dim, self.num_actions, self.token_width, self.goal_width, self.heads, self.decoder_layers)
        if min(counts) < 1 or min(self.proprio_dim, self.encoder_layers) < 0:
            raise ValueError(
                f"expected sizes of at least 1, proprio_dim and encoder_layers of at least 0, found {self}"
            )
        if self.width < 4 or self.width % 2 or self.width % self.heads:
            raise ValueError(
                f"expected an even width of at least 4, divisible by the heads, found {self.width} and {self.heads}"
            )
        if self.sigma_data <= 0:
            raise ValueError(f"expected sigma_data > 0, found {self.sigma_data}")


@dataclass(frozen=True)
class ActionContext:
    """What the actions are conditioned on; the same for every noise level.

    Attributes:
        tokens: The encoded context `[B, 1 + K, W]`, one more with proprioception: goal, tokens, proprioception.
        keys_values: What each decoder layer's cross-attention sees of it.
    """

    tokens: torch.Tensor
    keys_values: tuple[KeysValues, ...]

    def repeated(self, times: int) -> ActionContext:
        """Each sample's context so many times, one behind the other."""
        if times == 1:
            return self
        keys_values = (
            KeysValues(of.keys.repeat_interleave(times, 0), of.values.repeat_interleave(times, 0))
            for of in self.keys_values
        )
        return ActionContext(self.tokens.repeat_interleave(times, 0), tuple(keys_values))


class ActionDenoiser(nn.Module):
    """Predicts clean actions from noisy ones and a context.

    Args:
        config: Sizes.
    """

    def __init__(self, config: ActionDenoiserConfig) -> None:
        super().__init__()
        self.config = config
        width, heads = config.width, config.heads
        dropout = Dropout(config.attention_dropout, config.residual_dropout, config.mlp_dropout)
        self.token_projection = nn.Linear(config.token_width, width)
        self.goal_mlp = _two_layers(config.goal_width, width, nn.GELU())
        self.proprio_mlp = _two_layers(config.proprio_dim, width, nn.GELU()) if config.proprio_dim else None
        self.encoder_layers = nn.ModuleList(EncoderLayer(width, heads, dropout) for _ in range(config.encoder_layers))
        self.encoder_norm = nn.LayerNorm(width, bias=False)
        self.sigma_mlp = _two_layers(width, width, nn.Mish())
        self.action_projection = nn.Linear(config.action_dim, width)
        has_positions = not config.compat.no_action_positions
        self.action_positions = nn.Parameter(torch.empty(config.num_actions, width)) if has_positions else None
        decoder_layers = [DecoderLayer(width, heads, dropout) for _ in range(config.decoder_layers)]
        self.decoder_layers: Any = nn.ModuleList(decoder_layers)
        self.decoder_norm = nn.LayerNorm(width, bias=False)
        self.output = nn.Linear(width, config.action_dim)
        self.apply(_initialise)
        if self.action_positions is not None:
            nn.init.normal_(self.action_positions, std=0.02)
        for layer in decoder_layers:
            layer.start_modulation(config.modulation_start)

    def encode(self, tokens: torch.Tensor, goal: torch.Tensor, proprio: torch.Tensor | None = None) -> ActionContext:
        """Reads the context, once for all noise levels.

        Args:
            tokens: Of the Video Former `[B, K, token_width]`.
            goal: `[B, goal_width]`.
            proprio: `[B, proprio_dim]`, needed with `proprio_dim`.

        Raises:
            ValueError: If `proprio` is given where the model reads none, or missing where it reads one.
        """
        if (proprio is not None) != (self.proprio_mlp is not None):
            raise ValueError(
                f"expected proprio={f'[B, {self.config.proprio_dim}]' if self.proprio_mlp else None}, found "
                f"{None if proprio is None else list(proprio.shape)}"
            )
        dtype = self.token_projection.weight.dtype
        parts = [self.goal_mlp(goal.to(dtype))[:, None], self.token_projection(tokens.to(dtype))]
        if proprio is not None and self.proprio_mlp is not None:
            parts.append(self.proprio_mlp(proprio.to(dtype))[:, None])
        context = torch.cat(parts, dim=1)
        for layer in self.encoder_layers:
            context = layer(context)
        context = self.encoder_norm(context)
        return ActionContext(
            context, tuple(layer.cross_attention.keys_values(context) for layer in self.decoder_layers)
        )

    def forward(self, noisy: torch.Tensor, sigma: torch.Tensor, context: ActionContext) -> torch.Tensor:
        """The denoised actions `D(noisy; sigma)`, float32 `[B, H, A]`.

        Args:
            noisy: Actions with noise of standard deviation `sigma` `[B, H, A]`.
            sigma: `[B]`.
            context: Of the same B samples.

        Raises:
            ValueError: If the actions are not of the shape that the model is made for.
        """
        config = self.config
        if noisy.shape[1:] != (config.num_actions, config.action_dim):
            raise ValueError(
                f"expected noisy actions [B, {config.num_actions}, {config.action_dim}], found {list(noisy.shape)}"
            )
        noisy = noisy.float()
        dtype = self.action_projection.weight.dtype
        scale = preconditioning(sigma.float(), config.sigma_data)
        c_skip, c_out, c_in = (factor[:, None, None] for factor in (scale.c_skip, scale.c_out, scale.c_in))
        level = self.sigma_mlp(sinusoid(scale.c_noise, config.width).to(dtype))
        x = self.action_projection((c_in * noisy).to(dtype))
        if self.action_positions is not None:
            x = x + self.action_positions
        for layer, seen in zip(self.decoder_layers, context.keys_values, strict=True):
            x = layer(x, level, seen, is_causal_cross=config.compat.causal_cross_attention)
        predicted = self.output(self.decoder_norm(x)).float()
        # this network predicts the positive of EDM's target, `c_out` has the sign of Stable Video Diffusion's
        denoised: torch.Tensor = c_skip * noisy - c_out * predicted
        return denoised


def sinusoid(value: torch.Tensor, width: int) -> torch.Tensor:
    """Sines, then cosines, of a number at falling frequencies: float32 `[B, width]` of `[B]`.

    >>> [round(float(number), 4) for number in sinusoid(torch.tensor([1.0]), 4)[0]]
    [0.8415, 0.0001, 0.5403, 1.0]
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=value.device) * (-math.log(10_000) / (half - 1)))
    angles = value.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _two_layers(num_inputs: int, width: int, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_inputs, 2 * width), activation, nn.Linear(2 * width, width))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
