"""The training loop: one for all models. Resumes from the last complete checkpoint, to the same bits.

A *task* brings the model, its data and its loss; the loop brings updates, averages, checkpoints and curves. Nothing in
a step waits for the device: losses stay there until the window of `log_every` steps ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import platform
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule

from runtime.settings import commit
from schemas.errors import UsageError, VPPError
from vpp.train.arithmetic import bfloat16_arithmetic
from vpp.train.checkpoint import read_latest_checkpoint
from vpp.train.checkpoint_writer import CheckpointWriter
from vpp.train.ema import Ema
from vpp.train.optimizer import OptimizerSettings, learning_rate, make_optimizer
from vpp.train.parallel import Parallel, parallelise
from vpp.train.run_log import RunLog, StepRecord
from vpp.train.snapshot import restore_snapshot, take_snapshot
from vpp.train.training_progress import CHECKPOINT_AGE
from vpp.train.window import Window, window_metrics
from vpp.train.worker import Worker

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSettings:
    """How long, how large and how often.

    Raises:
        ValueError: If a value is outside its range.
    """

    steps: int = 100_000
    """Updates of the weights in all."""
    batch_size: int = 48
    """Samples of an update over all workers; stays the same when their number changes."""
    micro_batch_size: int = 6
    """Samples that a worker puts through the model at once; what is missing to its share is accumulated."""
    seed: int = 0
    """Order of the samples and all random numbers follow from it."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Type of the model's arithmetic; weights, sums and optimiser are float32."""
    parallel: Parallel = "ddp"
    """`fsdp` shards weights, gradients and optimiser over the workers (FSDP2)."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, more time."""
    ema_decay: float = 0.9999
    """Decay of the averaged weights, which are validated and exported."""
    log_every: int = 10
    """Steps between two lines of metrics; NaN and requests to stop are seen then."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints."""
    validate_every: int = 1000
    """Steps between two validations; 0 never validates."""
    keep_last: int = 3
    """Newest checkpoints that are kept."""
    keep_best: int = 1
    """Checkpoints that are kept for the lowest validation loss."""
    wandb_project: str = ""
    """Project at Weights & Biases that gets the curves too."""
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    """The optimiser."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "micro_batch_size", "log_every", "checkpoint_every", "keep_last"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, found {getattr(self, name)}")
        for name in ("validate_every", "keep_best"):
            if getattr(self, name) < 0:
                raise ValueError(f"expected {name} >= 0, found {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"expected 0 <= ema_decay < 1, found {self.ema_decay}")
        if self.parallel == "fsdp" and self.optimizer.kind == "adamw8bit":
            raise ValueError(
                "expected optimizer.kind adamw with parallel fsdp, which shards its moments, found adamw8bit"
            )


class NonFiniteLoss(VPPError):
    """The loss or the gradient became NaN or infinite; the last checkpoint is from before."""


class Share(Protocol):
    """A worker's share of the samples of a step.

    Attributes:
        positions: Places of its samples in the global batch `[b]`.
        wait_s: How long the loop waited for it.
    """

    positions: np.ndarray
    wait_s: float


class Task(Protocol):
    """What is trained."""

    module: nn.Module
    """The model, on the worker's device; parameters that ask for gradients are trained."""

    def shares(self, first_step: int) -> Generator[Any]:
        """This worker's share of each step, from a step on; without an end."""
        ...

    def loss(self, module: nn.Module, share: Any, places: Sequence[int]) -> torch.Tensor:
        """Losses `[len(places)]` of those samples of a share; the module may be wrapped."""
        ...

    def samples(self, step: int) -> tuple[list[str], list[str], np.ndarray]:
        """Ids, datasets and noise levels of the whole global batch of a step."""
        ...

    def validate(self, step: int, log: RunLog | None) -> dict[str, float]:
        """Judges the model as it is now; all workers take part, rank 0 has a log for pictures."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        step: Updates made.
        is_finished: False if it was asked to stop before the last step.
    """

    step: int
    is_finished: bool


def train(
    task: Task, settings: TrainSettings, worker: Worker, run_url: str, fixed: dict[str, Any] | None = None
) -> Outcome:
    """Trains to the last step, or until it is asked to stop, and leaves a checkpoint.

    Args:
        task: Model, data and loss.
        settings: How long, how large, how often.
        worker: This process among those that train together; all call this function.
        run_url: Where the run keeps its files; a run that has checkpoints there goes on from the newest.
        fixed: Plain values that must not change within a run, such as the data's fingerprint; kept in checkpoints.

    Raises:
        UsageError: If the run was begun with other values of `fixed`, or has gone further than `settings.steps`.
        NonFiniteLoss: Naming the step and the samples.
    """
    return _Training(task, settings, worker, run_url, json.loads(json.dumps(fixed or {}))).run()


class _Training:
    def __init__(
        self, task: Task, settings: TrainSettings, worker: Worker, run_url: str, fixed: dict[str, Any]
    ) -> None:
        self.task, self.settings, self.worker, self.run_url, self.fixed = task, settings, worker, run_url, fixed
        self.wrapped = parallelise(task.module, settings.parallel, settings.precision, worker)
        self.optimizer = make_optimizer(task.module.parameters(), settings.optimizer)
        self.ema = Ema(task.module, settings.ema_decay)
        self.step = self._resume()
        self.window = Window(settings.batch_size, worker)
        self.validation: dict[str, float] = {}

    def run(self) -> Outcome:
        settings, worker = self.settings, self.worker
        with contextlib.ExitStack() as stack:
            self.log = RunLog(self.run_url, self.step, settings.wandb_project) if worker.leads else None
            self.writer = CheckpointWriter(
                self.run_url, keep_last=settings.keep_last, keep_best=settings.keep_best
            ) if worker.leads else None  # fmt: skip
            if self.log and self.writer:
                stack.callback(self.log.close)
                stack.enter_context(self.writer)
            shares = stack.enter_context(contextlib.closing(self.task.shares(self.step)))
            while self.step < settings.steps:
                worker.doing("wait for data")
                share = next(shares)
                worker.doing("update the weights")
                self._update(share)
                self.step += 1
                self.validation = {}
                is_last = self.step == settings.steps
                signal = "go_on"
                if self.step % settings.log_every == 0 or is_last or self._is_due(settings.checkpoint_every):
                    worker.doing("collect the losses")
                    self._look_at_window()
                    signal = worker.signal()
                if settings.validate_every and (self._is_due(settings.validate_every) or is_last):
                    self._validate()
                if self._is_due(settings.checkpoint_every) or is_last or signal != "go_on":
                    self._save()
                if signal == "stop":
                    break
            worker.doing("end")
            if self.writer:
                self.writer.wait()
        return Outcome(self.step, self.step == settings.steps)

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0

    # --- one step --------------------------------------------------------------------------------

    def _update(self, share: Any) -> None:
        settings, world_size = self.settings, self.worker.world_size
        largest_share = -(-settings.batch_size // world_size)
        num_micro = -(-largest_share // settings.micro_batch_size)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(settings.optimizer, self.step, settings.steps)
        for number, places in enumerate(np.array_split(np.arange(len(share.positions)), num_micro)):
            weight = 1.0 if len(places) else 0.0  # all workers run the model equally often
            places = places if len(places) else np.array([0])
            with self.wrapped.accumulating(is_last=number == num_micro - 1), self._arithmetic():
                losses = self.task.loss(self.wrapped.module, share, places.tolist())
                torch.autograd.backward(losses.sum() * (weight * world_size / settings.batch_size))
            if weight:
                self.window.put(self.step, share.positions[places], losses.detach())
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        limit = settings.optimizer.grad_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.task.module, self.step)
        self.window.end_step(self.step, self.wrapped.whole(norm), share.wait_s)

    def _arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        if self.settings.precision == "fp32" or isinstance(self.wrapped.module, FSDPModule):  # FSDP2 casts by itself
            return contextlib.nullcontext()
        return bfloat16_arithmetic(self.worker.device)

    # --- every now and then ----------------------------------------------------------------------

    def _look_at_window(self) -> None:
        """Brings the losses of the window to the CPU, stops at NaN, and tells the metrics."""
        window = self.window.take()
        if window is None:
            return
        records = []
        for row, step in enumerate(window.steps):
            ids, datasets, sigmas = self.task.samples(step)
            losses, norm = window.losses[row], float(window.norms[row])
            broken = ~np.isfinite(losses)
            if broken.any() or not math.isfinite(norm):
                culprits = [name for name, is_broken in zip(ids, broken, strict=True) if is_broken] or ids
                raise NonFiniteLoss(
                    f"step {step}: expected finite losses and gradients, found loss {losses.mean()} and gradient norm "
                    f"{norm} in {self.run_url}; samples: {', '.join(culprits)}; the last checkpoint is from before"
                )
            rate = learning_rate(self.settings.optimizer, step, self.settings.steps)
            records.append(StepRecord(step, float(losses.mean()), norm, rate, ids, datasets, sigmas, losses))
        if not self.log:
            return
        metrics = window_metrics(records, window)
        self.log.add_steps(records)
        self.log.add_curves(self.step, metrics)
        age = {CHECKPOINT_AGE: self.writer.age_s()} if self.writer else {}
        self.worker.progress(self.step, metrics | age)

    def _validate(self) -> None:
        self.worker.doing("validate")
        self._look_at_window()
        started = time.monotonic()
        with self.ema.applied(self.task.module), torch.no_grad(), self._arithmetic():
            self.validation = self.task.validate(self.step, self.log)
        if self.log:
            self.log.add_curves(self.step, self.validation)
            self.worker.progress(self.step, self.validation | {"val/seconds": time.monotonic() - started})
        self.window.restart_clock()

    def _save(self) -> None:
        self.worker.doing("save a checkpoint")
        if self.writer:
            self.writer.wait()  # one snapshot in memory at a time
        groups = take_snapshot(self.task.module, self.optimizer, self.ema, keep=self.worker.leads)
        if self.writer and self.log:
            self.log.flush()
            state = {"step": self.step, "settings": dataclasses.asdict(self.settings), "fixed": self.fixed}
            state["versions"] = {"torch": torch.__version__, "python": platform.python_version()}
            state |= {"commit": commit(), "world_size": self.worker.world_size, "validation": self.validation}
            self.writer.save(self.step, groups, state, self.validation)
        self.window.restart_clock()

    def _resume(self) -> int:
        """Restores the newest checkpoint: rank 0 reads it and sends it to the others."""
        found = read_latest_checkpoint(self.run_url) if self.worker.leads else None
        told: list[tuple[int, dict[str, Any]] | None] = [(found.info.step, found.state["fixed"]) if found else None]
        if self.worker.world_size > 1:
            dist.broadcast_object_list(told, src=0, device=self.worker.device)
        if told[0] is None:
            return 0
        step, begun_with = told[0]
        check_same(self.fixed, begun_with, self.run_url)
        if step > self.settings.steps:
            raise UsageError(
                f"{self.run_url}: expected at most --train.steps {self.settings.steps}, found a run that has {step}; "
                "ask for more steps or use another --output"
            )
        groups = found.tensors if found else None
        restore_snapshot(groups, self.task.module, self.optimizer, self.ema, self.worker.device)
        if found:
            _log.info("resumed at step %d from %s", step, found.info.url)
        return step


def check_same(now: dict[str, Any], then: dict[str, Any], run_url: str) -> None:
    """Checks that a run goes on with the values it was begun with.

    Raises:
        UsageError: Naming the first that differs.
    """
    for name in sorted(set(now) | set(then)):
        if now.get(name) != then.get(name):
            raise UsageError(
                f"{run_url}: expected {name} {then.get(name)!r} as the run was begun, found {now.get(name)!r}; "
                "use another --output for another run"
            )
