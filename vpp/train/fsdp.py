"""Fully sharded data parallel (FSDP2, `torch.distributed.fsdp.fully_shard`): each worker keeps a slice of every tensor.

The units that are gathered one after another are the residual blocks and the transformers of the video UNet: the
largest holds 7 % of its weights, so a GPU never has much more of it than its own slice. Any other model is one unit.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from vpp.video.denoiser import VideoDenoiser
from vpp.video.recompute import unet_units


def shard_model(module: nn.Module, precision: str, device: torch.device) -> None:
    """Shards the parameters of a model over all workers, in place: each becomes a `DTensor`, float32 as before.

    All workers must hold the same weights and call this; the default process group must exist. Only the module's own
    `forward` gathers the weights, not that of a part of it.

    Args:
        module: On `device`.
        precision: `bf16` computes in bfloat16 and sums gradients in float32; `fp32` does all in float32.
        device: Of this worker.

    Raises:
        ValueError: If the precision is neither.
    """
    if precision not in ("bf16", "fp32"):
        raise ValueError(f"expected precision bf16 or fp32, found {precision}")
    is_bf16 = precision == "bf16"
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if is_bf16 else MixedPrecisionPolicy()
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for unit in unet_units(module):
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    if isinstance(module, VideoDenoiser) and is_bf16:
        # noise levels and preconditioning stay float32; the UNet's own inputs are cast where it begins
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        module.unet.register_forward_pre_hook(_cast_latents_and_text, with_kwargs=True)
    # the whole module too: else it stays gathered after a validation, which has no backward pass to end it
    fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)


def _cast_latents_and_text(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    sample, timestep = args  # the timestep feeds a sinusoid that wants float32
    text = kwargs["encoder_hidden_states"].to(torch.bfloat16)
    return (sample.to(torch.bfloat16), timestep), kwargs | {"encoder_hidden_states": text}
