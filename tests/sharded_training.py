"""A few steps of the tiny video model on several processes, for the tests of sharding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from vpp.video.recompute import recompute_in_backward
from vpp.video.svd import unet_from_scratch

BATCH = 2
SHAPE = (2, 4, 16, 16)
"""Smaller latents shrink to one pixel, whose group norm turns rounding into noise."""


def fresh(lora: bool = False, recompute: bool = True) -> VideoDenoiser:
    torch.manual_seed(0)
    unet = unet_from_scratch("tiny", num_frames=2)
    if lora:
        add_lora(unet, rank=2)
    if recompute:
        recompute_in_backward(unet)
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


def train_alone(num_steps: int, lora: bool = False) -> tuple[list[float], dict[str, torch.Tensor]]:
    """What one process without sharding makes of it."""
    denoiser = fresh(lora, recompute=False)
    optimizer = adamw(denoiser)
    losses = [step(denoiser, optimizer, number, 0, 1) for number in range(num_steps)]
    return losses, denoiser.state_dict()


@dataclass(frozen=True)
class Scenario:
    """One training on all workers.

    Attributes:
        name: File that gets losses and full state.
        steps: First and last + 1.
        precision: Of the arithmetic.
        resume: File of another scenario whose state it starts from.
        lora: Whether adapters are trained instead of the weights.
    """

    name: str
    steps: tuple[int, int]
    precision: str = "fp32"
    resume: str = ""
    lora: bool = False


def train_sharded(rank: int, world_size: int, folder: Path, scenarios: Sequence[Scenario]) -> None:
    """What each worker of a group does: trains one scenario after another."""
    for scenario in scenarios:
        _train(scenario, rank, world_size, folder)
        dist.barrier()


def _train(scenario: Scenario, rank: int, world_size: int, folder: Path) -> None:
    denoiser = fresh(scenario.lora)
    shard_model(denoiser, scenario.precision, torch.device("cpu"))
    optimizer = adamw(denoiser)
    if scenario.resume:
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        saved = torch.load(folder / scenario.resume, weights_only=True) if rank == 0 else {"model": {}, "optimizer": {}}
        set_model_state_dict(denoiser, saved["model"], options=options)
        set_optimizer_state_dict(denoiser, optimizer, saved["optimizer"], options=options)
    losses = [step(denoiser, optimizer, number, rank, world_size) for number in range(*scenario.steps)]
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    model = get_model_state_dict(denoiser, options=options)
    moments = get_optimizer_state_dict(denoiser, optimizer, options=options)
    held = sum(parameter.to_local().numel() for parameter in denoiser.parameters())
    if rank == 0:
        state = {"losses": losses, "model": model, "optimizer": moments, "held": held}
        torch.save(state, folder / scenario.name)
    elif model or moments:
        raise AssertionError("expected the full state on rank 0 alone")
