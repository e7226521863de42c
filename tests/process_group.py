"""Processes that train together on one machine, over gloo, for the tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing


@contextlib.contextmanager
def process_group(rank: int, world_size: int, meeting: Path) -> Iterator[None]:
    """Makes this process one of a group that meets at a file which does not exist yet."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size)
    try:
        yield
        dist.barrier()
    finally:
        dist.destroy_process_group()


def run_in_group(work: Callable[..., None], world_size: int, meeting: Path, *arguments: Any) -> None:
    """Runs `work(rank, world_size, *arguments)` in new processes; raises what the first of them raised."""
    torch.multiprocessing.spawn(_member, (work, world_size, meeting, arguments), nprocs=world_size)


def _member(rank: int, work: Callable[..., None], world_size: int, meeting: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    with process_group(rank, world_size, meeting):
        work(rank, world_size, *arguments)
    # gloo's threads may free the last tensors while Python shuts down, which aborts the process: pytorch pull 179291
    os._exit(0)
