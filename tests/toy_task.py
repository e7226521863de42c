"""A task small enough to train in milliseconds, with the same randomness by place as the real ones."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vpp.train.engine import Outcome, TrainSettings, train
from vpp.train.worker import Worker
from vpp.video.objective import sample_generator


@dataclass(frozen=True)
class Share:
    positions: np.ndarray
    wait_s: float
    step: int


class ToyTask:
    """Regresses a linear map; sample `i` of step `s` is a function of the two."""

    def __init__(self, batch_size: int, worker: Worker | None = None, nan_at: tuple[int, int] | None = None) -> None:
        torch.manual_seed(0)
        self.module = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        self.batch_size, self.worker, self.nan_at = batch_size, worker or Worker(), nan_at
        self.validated: list[int] = []

    def shares(self, first_step: int) -> Generator[Share]:
        step = first_step
        while True:
            yield Share(np.arange(self.batch_size)[self.worker.rank :: self.worker.world_size], 0.0, step)
            step += 1

    def loss(self, module: torch.nn.Module, share: Share, places: Sequence[int]) -> torch.Tensor:
        inputs = torch.stack([self._sample(share.step, int(share.positions[place])) for place in places])
        target = inputs[:, :2] * 2 - inputs[:, 2:4]
        return (module(inputs).float() - target).square().mean(1)

    def _sample(self, step: int, position: int) -> torch.Tensor:
        sample = torch.randn(6, generator=sample_generator(1, step, position))
        return sample * float("nan") if (step, position) == self.nan_at else sample

    def samples(self, step: int) -> tuple[list[str], list[str], np.ndarray]:
        ids = [f"{step}-{place}" for place in range(self.batch_size)]
        names = ["even" if place % 2 == 0 else "odd" for place in range(self.batch_size)]
        return ids, names, np.linspace(0.1, 20, self.batch_size, dtype=np.float32)

    def validate(self, step: int, log: object) -> dict[str, float]:
        self.validated.append(step)
        with torch.no_grad():
            self.module(torch.ones(1, 6))  # a pass without a backward, as a real validation
        weight = self.module[0].weight
        weight = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
        return {"val/loss": float(weight.square().mean())}


def train_in_group(rank: int, world_size: int, url: str, settings: TrainSettings) -> None:
    """One process of a group that trains a `ToyTask` together."""
    worker = Worker(rank, world_size)
    train(ToyTask(settings.batch_size, worker), settings, worker, url, {"seed": 0})


def train_toy(url: str, settings: TrainSettings, worker: Worker) -> Outcome:
    """What a worker of Ray Train does, for a `ToyTask`."""
    return train(ToyTask(settings.batch_size, worker), settings, worker, url)
