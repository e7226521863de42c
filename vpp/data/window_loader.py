"""Loads a worker's share of each training step of a policy, as `vpp.data.loader` does clips."""

from __future__ import annotations

from vpp.data.clip_batch import Representation
from vpp.data.loader import SampleLoader
from vpp.data.order import SampleOrder
from vpp.data.window_batch import WindowBatch
from vpp.data.window_index import WindowIndex
from vpp.data.window_reader import WindowReader


class WindowLoader(SampleLoader[WindowBatch]):
    """Yields a worker's batches of windows, in order of the steps. To be closed, or used in a `with` block.

    Args:
        index: The windows.
        order: Which windows a step takes; not used by anyone else meanwhile.
        representation: Whether latents or decoded frames are wanted.
        rank: This worker, from 0 on.
        world_size: Number of workers.
        start_step: The first step to yield.
        num_steps: How many; None for no end.
        read_ahead_samples: Windows of this worker that are read before they are asked for, or one step's if these are
            more; bounds the memory.
        num_threads: How many windows are read or decoded at a time.
        retry_s: How long a store that does not answer is asked again.
        pin_memory: Whether tensors go to page-locked memory, where there is a GPU.

    Raises:
        UsageError: If a step has fewer windows than there are workers.
    """

    def __init__(
        self,
        index: WindowIndex,
        order: SampleOrder,
        *,
        representation: Representation,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
        num_steps: int | None = None,
        read_ahead_samples: int = 64,
        num_threads: int = 4,
        retry_s: float = 120.0,
        pin_memory: bool = False,
    ) -> None:
        reader = WindowReader(index, representation, num_threads, retry_s, pin_memory)
        super().__init__(reader, order, rank, world_size, start_step, num_steps, read_ahead_samples)
