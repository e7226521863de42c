"""A window of training steps: what is measured in them, kept on the device until the window ends."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from vpp.train.run_log import StepRecord, by_group
from vpp.train.worker import Worker

SIGMA_BUCKETS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Upper edges of the noise levels by which the loss is told."""


@dataclass(frozen=True)
class WindowValues:
    """What a window came to.

    Attributes:
        steps: Its steps.
        losses: Of every sample of the global batches `[steps, batch]`.
        norms: Of the gradients `[steps]`.
        elapsed_s: How long it took.
        wait_s: How long workers waited for data, on average.
    """

    steps: list[int]
    losses: np.ndarray
    norms: np.ndarray
    elapsed_s: float
    wait_s: float


class Window:
    """Collects losses and gradient norms of some steps.

    Args:
        batch_size: Samples of a step over all workers.
        worker: This process.
    """

    def __init__(self, batch_size: int, worker: Worker) -> None:
        self._batch_size, self._worker = batch_size, worker
        self._losses: list[tuple[int, np.ndarray, torch.Tensor]] = []
        self._norms: list[torch.Tensor] = []
        self._steps: list[int] = []
        self._wait_s = 0.0
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves out of the window's time what was done since it began, such as a validation."""
        self._started = time.monotonic()

    def put(self, step: int, positions: np.ndarray, losses: torch.Tensor) -> None:
        """Takes the losses `[b]` of the samples at some places of a step's global batch."""
        self._losses.append((step, positions, losses))

    def end_step(self, step: int, norm: torch.Tensor, wait_s: float) -> None:
        """Ends a step with its gradient norm, and how long it waited for data."""
        self._steps.append(step)
        self._norms.append(norm.detach())
        self._wait_s += wait_s

    def take(self) -> WindowValues | None:
        """Ends the window: waits for the device, and puts the losses of all workers together. None without steps."""
        if not self._steps:
            return None
        first = self._steps[0]
        own = torch.cat([losses for _, _, losses in self._losses]).float().cpu().numpy()  # waits for the device
        table = np.zeros((len(self._steps), self._batch_size), np.float32)
        rows = np.concatenate([np.full(len(places), step - first) for step, places, _ in self._losses])
        table[rows, np.concatenate([places for _, places, _ in self._losses])] = own
        wait = np.array([self._wait_s], np.float32)
        if self._worker.world_size > 1:  # each sample's loss is known to one worker, so the sum is everybody's
            shared = torch.from_numpy(np.concatenate([table.ravel(), wait])).to(self._worker.device)
            dist.all_reduce(shared)
            table, wait = np.split(shared.cpu().numpy(), [table.size])
            table = table.reshape(len(self._steps), self._batch_size)
        now = time.monotonic()
        values = WindowValues(
            self._steps,
            table,
            torch.stack(self._norms).float().cpu().numpy(),
            now - self._started,
            float(wait[0]) / self._worker.world_size,
        )
        self._losses, self._norms, self._steps, self._wait_s, self._started = [], [], [], 0.0, now
        return values


def window_metrics(records: Sequence[StepRecord], window: WindowValues) -> dict[str, float]:
    """Metrics of a window by name: loss, in all, by noise level and dataset, gradient norm, speed, wait, memory."""
    sigmas = np.concatenate([record.sigmas for record in records])
    datasets = np.concatenate([np.asarray(record.datasets) for record in records])
    losses = window.losses.ravel()
    names = [f"sigma<{edge:g}" for edge in SIGMA_BUCKETS] + [f"sigma>={SIGMA_BUCKETS[-1]:g}"]
    buckets = np.asarray(names)[np.digitize(sigmas, SIGMA_BUCKETS)]
    num_samples = window.losses.size
    return {
        "train/loss": float(losses.mean()),
        "train/grad_norm": float(window.norms.mean()),
        "train/learning_rate": records[-1].learning_rate,
        "speed/samples_per_s": num_samples / window.elapsed_s,
        "speed/step_s": window.elapsed_s / len(records),
        "speed/data_wait_share": window.wait_s / window.elapsed_s,
        "memory/peak_gb": peak_memory_bytes() / 1e9,
        **by_group(names, buckets, losses, "train_loss_by_sigma/"),
        **by_group(sorted(set(datasets.tolist())), datasets, losses, "train_loss_by_dataset/"),
    }


def peak_memory_bytes() -> int:
    """Largest memory so far: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
