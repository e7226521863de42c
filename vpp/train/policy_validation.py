"""Judges a policy on held-out windows, always with the same noise: the loss, and drawn actions against a constant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from vpp.data.window_reader import read_windows
from vpp.policy.config import SamplerSettings
from vpp.policy.network import PolicyNetwork
from vpp.policy.objective import ActionObjectiveSettings, draw_actions
from vpp.train.policy_data import PolicyData
from vpp.train.policy_inputs import NetworkInputs, PolicyInputs
from vpp.train.worker import Worker
from vpp.video.objective import sample_generator


@dataclass(frozen=True)
class PolicyValidationSettings:
    """What a validation looks at.

    Raises:
        ValueError: If a value is outside its range.
    """

    num_windows: int = 64
    """Held-out windows, spread evenly over the held-out episodes."""
    batch_size: int = 8
    """Windows that are judged at a time."""
    seed: int = 0
    """Of the noise."""

    def __post_init__(self) -> None:
        if not (self.num_windows >= 1 and self.batch_size >= 1):
            raise ValueError(
                f"expected num_windows >= 1 and batch_size >= 1, found {self.num_windows} and {self.batch_size}"
            )


class PolicyValidation:
    """Holds the windows that judge a policy; all workers make one, and take part in every run.

    Args:
        data: Its held-out windows are judged on.
        inputs: Turns windows into what the network reads.
        settings: How many.
        objective: The training distribution of noise levels.
        sampler: How actions are drawn.
        worker: This process.
        retry_s: How long a store that does not answer is asked again.
    """

    def __init__(
        self,
        data: PolicyData,
        inputs: PolicyInputs,
        settings: PolicyValidationSettings,
        objective: ActionObjectiveSettings,
        sampler: SamplerSettings,
        worker: Worker,
        retry_s: float,
    ) -> None:
        number = min(settings.num_windows, len(data.held_out))
        self._rows = data.held_out[np.linspace(0, len(data.held_out) - 1, number).round().astype(np.int64)]
        self._data, self._inputs, self._settings, self._sampler = data, inputs, settings, sampler
        self._objective, self._worker, self._retry_s = objective, worker, retry_s

    def run(self, network: torch.nn.Module) -> dict[str, float]:
        """Metrics by name: `val/loss`; `val/action_mse` of drawn actions and `val/action_mse_constant` of the training
        actions' mean, both in normalised units over actions that are no padding; `val/action_gain_db` between them.

        Args:
            network: A `PolicyNetwork`, sharded or the same in all workers.
        """
        assert isinstance(network, PolicyNetwork)
        network.eval()
        sums = torch.zeros(4, dtype=torch.float64)  # losses, errors, errors of the constant, what is counted
        total = torch.zeros(1, dtype=torch.float64)
        step = self._settings.batch_size * self._worker.world_size
        for first in range(0, len(self._rows), step):
            numbers = np.arange(first, first + step)[self._worker.rank :: self._worker.world_size]
            is_own = numbers < len(self._rows)
            numbers = np.minimum(numbers, len(self._rows) - 1)  # all workers run the network equally often
            judged = self._judge(network, numbers)
            sums += judged[is_own].sum(0)
            total += is_own.sum()
        network.train()
        table = torch.cat([sums, total]).to(self._worker.device)
        if self._worker.world_size > 1:
            dist.all_reduce(table)
        losses, errors, constant, counted, windows = table.tolist()
        metrics = {
            "val/loss": losses / windows,
            "val/action_mse": errors / counted,
            "val/action_mse_constant": constant / counted,
        }
        if errors and constant:
            metrics["val/action_gain_db"] = 10 * float(np.log10(constant / errors))
        return metrics

    def _judge(self, network: PolicyNetwork, numbers: np.ndarray) -> torch.Tensor:
        """For each window: loss, squared error of drawn actions, of the constant action, and how many are counted."""
        batch = read_windows(
            self._data.index, self._rows[numbers], self._data.representation, retry_s=self._retry_s
        ).to(self._worker.device)
        inputs = self._inputs.make(batch, range(len(numbers)))
        seed, sampler, device = self._settings.seed, self._sampler, self._worker.device
        chunk = inputs.actions.shape[1:]
        draws = draw_actions(seed, 0, numbers.tolist(), chunk, self._objective).to(device)
        losses = network(
            inputs.features, inputs.goal, inputs.proprio, inputs.actions, inputs.action_is_pad, draws.noise, draws.sigma
        )
        start = [torch.randn(chunk, generator=sample_generator(seed, 0, n, "drawing")) for n in numbers.tolist()]
        drawn = network.draw(
            inputs.features, inputs.goal, inputs.proprio, torch.stack(start).to(device),
            num_steps=sampler.num_steps, sigma_min=sampler.sigma_min, sigma_max=sampler.sigma_max,
        )  # fmt: skip
        constant = self._data.mean_actions(batch.datasets).to(device)[:, None].expand_as(inputs.actions)
        counted = (~inputs.action_is_pad)[..., None].expand_as(inputs.actions)
        columns = [losses, _error(drawn, inputs, counted), _error(constant, inputs, counted), counted.flatten(1).sum(1)]
        return torch.stack([column.double().cpu() for column in columns], dim=1)


def _error(actions: torch.Tensor, inputs: NetworkInputs, counted: torch.Tensor) -> torch.Tensor:
    return ((actions.float() - inputs.actions).square() * counted).flatten(1).sum(1)
