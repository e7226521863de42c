"""A model on several workers: DDP keeps a whole copy in each, FSDP2 shards it. One interface for both, and for one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from vpp.train.fsdp import shard_model
from vpp.train.worker import Worker

Parallel = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class ParallelModel:
    """A model as the loop calls it.

    Attributes:
        module: Wrapped or sharded.
    """

    module: nn.Module

    @contextlib.contextmanager
    def accumulating(self, is_last: bool) -> Iterator[None]:
        """Exchanges gradients only after the last of the passes that make a step."""
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(is_last)
            yield
        elif isinstance(self.module, DistributedDataParallel) and not is_last:
            with self.module.no_sync():
                yield
        else:
            yield

    @staticmethod
    def whole(norm: torch.Tensor) -> torch.Tensor:
        """A gradient norm over all shards."""
        return norm.full_tensor() if isinstance(norm, DTensor) else norm


def parallelise(module: nn.Module, parallel: Parallel, precision: str, worker: Worker) -> ParallelModel:
    """Prepares a model for the worker; every worker must hold the same weights.

    Args:
        module: On the worker's device. With `fsdp` its parameters are sharded in place.
        parallel: Which of the two.
        precision: `bf16` or `fp32`.
        worker: This process.
    """
    if worker.world_size == 1:
        return ParallelModel(module)
    if parallel == "fsdp":
        shard_model(module, precision, worker.device)
        return ParallelModel(module)
    ids = [worker.device] if worker.device.type == "cuda" else None
    return ParallelModel(DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True))
