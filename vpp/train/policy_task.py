"""The task of stage 2 for the training loop: windows of episodes, EDM's loss on action chunks, judged on others."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vpp.data.order import SampleOrder
from vpp.data.settings import WindowSettings
from vpp.data.streams import training_order
from vpp.data.window_batch import WindowBatch
from vpp.data.window_loader import WindowLoader
from vpp.policy.network import PolicyNetwork
from vpp.policy.objective import ActionObjectiveSettings, draw_action_sigmas, draw_actions, seeded_dropout
from vpp.train.policy_data import PolicyData
from vpp.train.policy_inputs import PolicyInputs
from vpp.train.policy_validation import PolicyValidation
from vpp.train.run_log import RunLog
from vpp.train.worker import Worker


@dataclass(frozen=True)
class PolicyShare:
    """A worker's share of a step, on its device.

    Attributes:
        positions: Places in the global batch `[b]`.
        wait_s: How long it was waited for.
        windows: What was read.
        step: The step, counted from 0.
    """

    positions: np.ndarray
    wait_s: float
    windows: WindowBatch
    step: int


class PolicyTask:
    """Implements `vpp.train.engine.Task`.

    Args:
        network: On the worker's device.
        inputs: Turns windows into what it reads.
        data: The windows.
        loading: How they are mixed and read.
        objective: The training distribution.
        validation: Judges the network; None never does.
        seed: Of the run.
        batch_size: Samples of a step over all workers.
        worker: This process.
    """

    def __init__(
        self,
        network: PolicyNetwork,
        inputs: PolicyInputs,
        data: PolicyData,
        loading: WindowSettings,
        objective: ActionObjectiveSettings,
        validation: PolicyValidation | None,
        *,
        seed: int,
        batch_size: int,
        worker: Worker,
    ) -> None:
        self.module: nn.Module = network
        self._inputs, self._data, self._loading, self._validation = inputs, data, loading, validation
        self._objective = objective
        self._seed, self._batch_size, self._worker = seed, batch_size, worker
        self._own_order = self._new_order()  # the loader's runs ahead of this one

    def _new_order(self) -> SampleOrder:
        return training_order(self._data.index, self._data.train, self._loading, self._seed, self._batch_size)

    def shares(self, first_step: int) -> Generator[PolicyShare]:
        """This worker's share of each step; it is read ahead in threads."""
        with WindowLoader(
            self._data.index,
            self._new_order(),
            representation=self._data.representation,
            rank=self._worker.rank,
            world_size=self._worker.world_size,
            start_step=first_step,
            read_ahead_samples=self._loading.read_ahead,
            num_threads=self._loading.num_threads,
            retry_s=self._loading.retry_s,
            pin_memory=self._worker.device.type == "cuda",
        ) as loader:
            for windows in loader:
                yield PolicyShare(windows.positions, windows.wait_s, windows.to(self._worker.device), windows.step)

    def loss(self, module: nn.Module, share: PolicyShare, places: Sequence[int]) -> torch.Tensor:
        """Losses `[len(places)]`."""
        positions = [int(share.positions[place]) for place in places]
        inputs = self._inputs.make(share.windows, places)
        device = self._worker.device
        draws = draw_actions(self._seed, share.step, positions, inputs.actions.shape[1:], self._objective).to(device)
        with seeded_dropout(self._seed, share.step, positions, device):
            losses: torch.Tensor = module(
                inputs.features, inputs.goal, inputs.proprio, inputs.actions, inputs.action_is_pad,
                draws.noise, draws.sigma,
            )  # fmt: skip
        return losses

    def samples(self, step: int) -> tuple[list[str], list[str], np.ndarray]:
        """Ids, datasets and noise levels of the whole global batch of a step."""
        rows = self._own_order.rows(step)
        sigmas = draw_action_sigmas(self._seed, step, range(len(rows)), self._objective)
        index = self._data.index
        return list(index.ids(rows)), list(index.dataset_names(rows)), sigmas.numpy()

    def validate(self, step: int, log: RunLog | None) -> dict[str, float]:
        """Judges the network as it is now on windows held out."""
        return self._validation.run(self.module) if self._validation else {}
