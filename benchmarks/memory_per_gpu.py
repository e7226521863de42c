"""Memory per GPU for fine-tuning the full-size video model: DDP, FSDP2 and LoRA on 1 to 8 GPUs. Needs no GPU.

    python benchmarks/memory_per_gpu.py [--json] [--preset svd] [--frames 16] [--latent-size 32]

Weights, gradients, moments and the average are counted. Activations are found by running forward and backward on
tensors without storage (FakeTensorMode) while every tensor that an operation makes is followed from its birth to its
end; the peak counts, weight gradients left out. Arithmetic is that of training: autocast to bfloat16 with DDP (norms in
float32, as CUDA's autocast has them), bfloat16 weights with FSDP2. Attention is the fused one. Not counted: CUDA's
context, NCCL, workspaces of cuDNN and fragmentation; `RESERVE_GB` is set aside for them.

`--check` compares the count with that of real tensors and with the growth of a process in a smaller run.
`--arithmetic` counts what recomputation costs.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args
from unittest import mock

import measure
import torch
import torch.nn.functional as F
from diffusers import UNetSpatioTemporalConditionModel
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from vpp.video.lora import add_lora
from vpp.video.recompute import recompute_in_backward, unet_units
from vpp.video.svd import unet_from_scratch

GPUS = {"A100-40G": 40 * 1.0737, "A100-80G": 80 * 1.0737}
"""Memory in GB (1e9 bytes)."""

RESERVE_GB = 3.0
"""Set aside for what is not counted; an assumption."""

LORA_RANK = 16

Recompute = Literal["units", "diffusers", "nothing"]
"""Gradient checkpointing: ours, that of diffusers, none."""
Arithmetic = Literal["autocast", "bf16"]
Method = Literal["ddp", "fsdp", "lora"]


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operations made and that still live, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: weakref.WeakKeyDictionary[torch.UntypedStorage, bool] = weakref.WeakKeyDictionary()

    def leave_out(self, tensor: torch.Tensor) -> None:
        """A tensor that was there before."""
        self._known[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self._known:
                storage = tensor.untyped_storage()
                self._known[storage] = True
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _freed(self, num_bytes: int) -> None:
        self.now -= num_bytes


@contextlib.contextmanager
def cuda_autocast_norms() -> Iterator[None]:
    """CUDA's autocast computes norms in float32, the CPU's does not."""

    def in_float32(norm: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def run(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if not torch.is_autocast_enabled("cpu"):
                return norm(x, *args, **kwargs)
            with torch.autocast("cpu", enabled=False):
                return norm(x.float(), *args, **kwargs)

        return run

    with (
        mock.patch.object(F, "group_norm", in_float32(F.group_norm)),
        mock.patch.object(F, "layer_norm", in_float32(F.layer_norm)),
    ):
        yield


@dataclass(frozen=True)
class Shape:
    """What is trained: preset of the model, frames of a clip, height and width of its latents."""

    preset: Any = "svd"
    num_frames: int = 16
    latent_size: int = 32


def build(shape: Shape, with_lora: bool) -> UNetSpatioTemporalConditionModel:
    """The UNet without storage."""
    with torch.device("meta"):
        unet = unet_from_scratch(shape.preset, shape.num_frames)
        if with_lora:
            add_lora(unet, LORA_RANK)
    return unet.train()


def give_fake_storage(unet: nn.Module, arithmetic: Arithmetic) -> None:
    """Moves parameters from the meta device into the fake mode that is on."""
    dtype = torch.bfloat16 if arithmetic == "bf16" else torch.float32
    for module in unet.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = torch.empty(parameter.shape, dtype=dtype, device="cpu")
                module._parameters[name] = nn.Parameter(fake, requires_grad=parameter.requires_grad)


def step(unet: nn.Module, shape: Shape, batch: int, arithmetic: Arithmetic, live: LiveBytes) -> None:
    """Forward and backward on one batch; each gradient is dropped when it is there."""

    def drop(parameter: torch.Tensor) -> None:
        parameter.grad = None

    for parameter in unet.parameters():
        live.leave_out(parameter)
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(drop)
    dtype = torch.bfloat16 if arithmetic == "bf16" else torch.float32
    latents = torch.randn(batch, shape.num_frames, 8, shape.latent_size, shape.latent_size, dtype=dtype)
    text = torch.randn(batch, 20, 1024, dtype=dtype)
    autocast = torch.autocast("cpu", torch.bfloat16) if arithmetic == "autocast" else contextlib.nullcontext()
    with live, cuda_autocast_norms(), autocast:
        ids = torch.zeros(batch, 3)
        output = unet(latents, torch.zeros(batch), text, added_time_ids=ids, return_dict=False)[0]
        output.float().square().mean().backward()


def checkpoint(unet: UNetSpatioTemporalConditionModel, recompute: Recompute) -> None:
    """Switches gradient checkpointing on."""
    if recompute == "units":
        recompute_in_backward(unet)
    elif recompute == "diffusers":
        unet.enable_gradient_checkpointing()


def activations_gb(shape: Shape, batch: int, arithmetic: Arithmetic, recompute: Recompute, with_lora: bool) -> float:
    """Peak in GB of all tensors of forward and backward but weights and their gradients."""
    unet = build(shape, with_lora)
    checkpoint(unet, recompute)
    with FakeTensorMode():
        give_fake_storage(unet, arithmetic)
        live = LiveBytes()
        step(unet, shape, batch, arithmetic, live)
    return live.peak / 1e9


@dataclass(frozen=True)
class Activations:
    """Memory of activations in GB: `fixed + per_sample * batch`."""

    fixed: float
    per_sample: float


def measured_activations(shape: Shape, arithmetic: Arithmetic, recompute: Recompute, with_lora: bool) -> Activations:
    """From batches of 1 and 2."""
    one, two = (activations_gb(shape, batch, arithmetic, recompute, with_lora) for batch in (1, 2))
    return Activations(one - (two - one), two - one)


@dataclass(frozen=True)
class StateBytes:
    """What a GPU holds between two steps, GB."""

    weights: float
    gradients: float
    moments: float
    average: float
    gathered: float
    """With FSDP2: what is gathered at one time."""

    @property
    def total(self) -> float:
        """Sum in GB."""
        return self.weights + self.gradients + self.moments + self.average + self.gathered


def state_gb(unet: nn.Module, method: Method, num_gpus: int, moment_bytes: float) -> StateBytes:
    """Counts the state of a GPU.

    Args:
        unet: With adapters for `lora`.
        method: How it is trained.
        num_gpus: Workers.
        moment_bytes: Of both moments of a parameter: 8 for float32, 2 and the scales for 8-bit.
    """
    everything = sum(parameter.numel() for parameter in unet.parameters()) / 1e9
    trained = sum(parameter.numel() for parameter in unet.parameters() if parameter.requires_grad) / 1e9
    share = num_gpus if method == "fsdp" else 1
    gathered = 0.0
    if method == "fsdp" and num_gpus > 1:
        units = sorted(sum(parameter.numel() for parameter in unit.parameters()) / 1e9 for unit in unet_units(unet))
        rest = everything - sum(units)
        gathered = 2 * rest + 2 * units[-1] * (
            2 + 2 + 4
        )  # bf16 weights and gradients, fp32 sums; this unit and the next
    return StateBytes(
        weights=4 * everything / share,
        gradients=4 * trained / share,
        moments=moment_bytes * trained / share,
        average=4 * trained / share,
        gathered=gathered,
    )


ADAMW_BYTES, ADAMW_8BIT_BYTES = 8.0, 2 * (1 + 4 / 256)
"""Both moments: float32; 8 bits and a float32 scale for 256 of them (bitsandbytes)."""


def largest_batch(state: StateBytes, activations: Activations, memory_gb: float) -> int:
    """Samples that fit at once; 0 where none does."""
    return max(0, int((memory_gb - RESERVE_GB - state.total - activations.fixed) // activations.per_sample))


def rows(shape: Shape) -> Iterator[dict[str, Any]]:
    """One row for each method, optimiser and number of GPUs, with and without gradient checkpointing."""
    plain, adapted = build(shape, with_lora=False), build(shape, with_lora=True)
    settings: list[tuple[Method, str, float, tuple[int, ...]]] = [
        ("ddp", "AdamW", ADAMW_BYTES, (1,)), ("ddp", "8-bit", ADAMW_8BIT_BYTES, (1,)),
        ("fsdp", "AdamW", ADAMW_BYTES, (2, 4, 8)), ("lora", "AdamW", ADAMW_BYTES, (1,)),
    ]  # fmt: skip
    for recompute in get_args(Recompute):
        found = {
            "ddp": measured_activations(shape, "autocast", recompute, with_lora=False),
            "fsdp": measured_activations(shape, "bf16", recompute, with_lora=False),
            "lora": measured_activations(shape, "autocast", recompute, with_lora=True),
        }
        for method, optimizer, moment_bytes, counts in settings:
            for num_gpus in counts:
                state = state_gb(adapted if method == "lora" else plain, method, num_gpus, moment_bytes)
                activations = found[method]
                yield {
                    "method": method, "optimizer": optimizer, "gpus": num_gpus if method == "fsdp" else "1..8",
                    "recompute": recompute, "weights": state.weights, "gradients": state.gradients,
                    "moments": state.moments, "average": state.average, "gathered": state.gathered,
                    "fixed": activations.fixed, "per_sample": activations.per_sample,
                    "batch_6": state.total + activations.fixed + 6 * activations.per_sample,
                    **{gpu: largest_batch(state, activations, memory) for gpu, memory in GPUS.items()},
                }  # fmt: skip


def table(found: list[dict[str, Any]]) -> str:
    """Markdown."""
    names = list(found[0])
    lines = ["| " + " | ".join(names) + " |", "| " + " | ".join("---" for _ in names) + " |"]
    for row in found:
        cells = (f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def check() -> dict[str, float]:
    """The count without storage against a count of real tensors and the growth of a process's memory, small model."""
    shape = Shape("small", 8, 32)
    figures = {}
    for recompute in get_args(Recompute):
        figures[f"{recompute}_counted_mb"] = 1e3 * activations_gb(shape, 2, "autocast", recompute, with_lora=False)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            real, resident = pool.submit(real_step, shape, 2, recompute).result()
        figures[f"{recompute}_real_tensors_mb"], figures[f"{recompute}_resident_mb"] = real, resident
    return figures


def real_step(shape: Shape, batch: int, recompute: Recompute) -> tuple[float, float]:
    """Peak MB of real tensors in a step, and how much the process's peak of resident memory grew."""
    torch.set_num_threads(1)
    unet = unet_from_scratch(shape.preset, shape.num_frames).train()
    checkpoint(unet, recompute)
    before, live = measure.peak_rss_mb(), LiveBytes()
    step(unet, shape, batch, "autocast", live)
    return live.peak / 1e6, (measure.peak_rss_mb() - before) * 1.048576


def arithmetic_tflop(shape: Shape) -> dict[str, float]:
    """Matrix products and convolutions of a step of one clip, 1e12 operations, attention's own products left out."""
    figures = {}
    for recompute in get_args(Recompute):
        unet = build(shape, with_lora=False)
        checkpoint(unet, recompute)
        with FakeTensorMode(), FlopCounterMode(display=False) as counter:
            give_fake_storage(unet, "bf16")
            step(unet, shape, 1, "bf16", LiveBytes())
        figures[f"{recompute}_tflop"] = counter.get_total_flops() / 1e12
    return figures


def main() -> None:
    """Parses, counts, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--arithmetic", action="store_true")
    parser.add_argument("--preset", default="svd")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--latent-size", type=int, default=32)
    arguments = parser.parse_args()
    if arguments.check:
        measure.finish(check(), arguments.json)
        return
    shape = Shape(arguments.preset, arguments.frames, arguments.latent_size)
    if arguments.arithmetic:
        measure.finish(arithmetic_tflop(shape), arguments.json)
        return
    found = list(rows(shape))
    print(table(found))
    if arguments.json:
        measure.finish({"rows": found}, as_json=True)


if __name__ == "__main__":
    main()
