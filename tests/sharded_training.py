"""A few steps of the tiny video model on several processes, for the tests of sharding."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from vpp.train.fsdp import shard_model
from vpp.video.denoiser import DenoiserConfig, VideoDenoiser
from vpp.video.lora import add_lora
from vpp.video.objective import ObjectiveSettings, draw, video_loss
from vpp.video.svd import unet_from_scratch

BATCH, SHAPE = 2, (2, 4, 8, 8)


def fresh(lora: bool = False, checkpointing: bool = True) -> VideoDenoiser:
    torch.manual_seed(0)
    unet = unet_from_scratch("tiny", num_frames=2)
    if lora:
        add_lora(unet, rank=2)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    return VideoDenoiser(unet.train(), DenoiserConfig(num_frames=2))


def adamw(denoiser: VideoDenoiser) -> torch.optim.Optimizer:
    trained = [parameter for parameter in denoiser.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-3, eps=1e-4, fused=True)  # a large eps: no step on rounding errors


def step(denoiser: VideoDenoiser, optimizer: torch.optim.Optimizer, number: int, rank: int, world_size: int) -> float:
    """One update on this worker's share of the batch; returns the loss of the whole batch."""
    places = list(range(BATCH))[rank::world_size]
    latents = draw(7, number, places, SHAPE).noise
    text = torch.stack([torch.full((20, 512), 0.1 * (place + 1)) for place in places])
    losses, _ = video_loss(denoiser, latents, text, draw(0, number, places, SHAPE), ObjectiveSettings())
    losses.mean().backward()
    torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    total = losses.detach().sum()
    if world_size > 1:
        dist.all_reduce(total)
    return float(total) / BATCH


def train_alone(steps: range, lora: bool = False) -> tuple[list[float], dict[str, torch.Tensor]]:
    """What one process without sharding makes of it."""
    denoiser = fresh(lora, checkpointing=False)
    optimizer = adamw(denoiser)
    losses = [step(denoiser, optimizer, number, 0, 1) for number in steps]
    return losses, denoiser.state_dict()


def train_sharded(
    rank: int, world_size: int, folder: str, steps: range, precision: str, resume: str, name: str, lora: bool
) -> None:
    """A worker: trains, then rank 0 writes losses and the full state to `folder/name`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous-{name}", rank=rank, world_size=world_size)
    denoiser = fresh(lora)
    shard_model(denoiser, precision, torch.device("cpu"))
    optimizer = adamw(denoiser)
    if resume:
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        saved = torch.load(Path(folder) / resume, weights_only=True) if rank == 0 else {"model": {}, "optimizer": {}}
        set_model_state_dict(denoiser, saved["model"], options=options)
        set_optimizer_state_dict(denoiser, optimizer, saved["optimizer"], options=options)
    losses = [step(denoiser, optimizer, number, rank, world_size) for number in steps]
    held = sum(parameter.to_local().numel() for parameter in denoiser.parameters())
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    model, moments = (
        get_model_state_dict(denoiser, options=options),
        get_optimizer_state_dict(denoiser, optimizer, options=options),
    )
    if rank == 0:
        torch.save({"losses": losses, "model": model, "optimizer": moments, "held": held}, Path(folder) / name)
    elif model or moments["state"]:
        raise AssertionError("expected the full state on rank 0 alone")
    dist.barrier()
    dist.destroy_process_group()
