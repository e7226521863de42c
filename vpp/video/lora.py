"""Low-rank adapters (LoRA, arXiv 2106.09685) on the attentions of the video UNet, through peft.

The UNet's own weights are frozen; each query, key, value and output projection, of space, time and caption, gets a
trained product of two thin matrices. `merge_lora` gives a plain diffusers UNet for `save_pipeline`.
"""

from __future__ import annotations

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import nn

from schemas.errors import UsageError

ATTENTION_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
"""Ends of the names of the layers that get an adapter."""

_ADAPTER = "default"


def add_lora(unet: UNetSpatioTemporalConditionModel, rank: int = 16, alpha: float = 16.0) -> None:
    """Puts adapters into the UNet, in place; from then on they alone are trained. The output does not change yet.

    The random half of the adapters comes from torch's global generator.

    Args:
        unet: Without adapters.
        rank: Width of the product.
        alpha: The product counts `alpha / rank` times.

    Raises:
        UsageError: If peft is not installed.
        ValueError: If the rank is not positive, or the UNet has adapters already.
    """
    if rank < 1 or alpha <= 0:
        raise ValueError(f"expected LoRA rank >= 1 and alpha > 0, found {rank}, {alpha}")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UsageError("LoRA: expected the package peft, found none; install the extra lora") from error
    if any(_is_adapted(module) for module in unet.modules()):
        raise ValueError("expected a UNet without adapters, found one that has them: merge them first")
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(ATTENTION_PROJECTIONS))  # type: ignore[arg-type]
    unet.requires_grad_(False)
    inject_adapter_in_model(config, unet, _ADAPTER)


@torch.no_grad()
def merge_lora(unet: UNetSpatioTemporalConditionModel) -> UNetSpatioTemporalConditionModel:
    """A UNet with diffusers' own names whose weights contain the adapters. `unet` keeps its own and can train on.

    Weights without an adapter are shared between the two, so the result is to be saved or evaluated, not trained.
    """
    products = {
        f"{name}.base_layer.weight": module.get_delta_weight(_ADAPTER)
        for name, module in unet.named_modules()
        if _is_adapted(module)
    }
    weights = {
        name.replace(".base_layer.", "."): tensor + products[name] if name in products else tensor
        for name, tensor in unet.state_dict().items()
        if ".lora_" not in name
    }
    with torch.device("meta"):
        merged = type(unet).from_config(unet.config)
    merged.load_state_dict(weights, assign=True)
    return merged.train(unet.training).requires_grad_(False)


def _is_adapted(module: nn.Module) -> bool:
    return hasattr(module, "get_delta_weight")  # peft's name
