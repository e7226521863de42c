"""Runs a training on Ray Train's workers, through whatever happens to them. The only file that knows Ray Train.

Ray Train places the workers, connects them, and starts them again when one dies. Checkpoints are not its business:
they lie in the run's own store (`vpp.train.checkpoint`), from which every attempt, of the same job or a later one,
resumes. A small actor stands between the driver and the workers: it carries progress one way and requests to stop the
other.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.collective
import ray.train.torch
import torch
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from runtime.log_lines import progress_bar
from runtime.ray_cluster import describe_load, find_cluster, ray_meter, start_ray
from runtime.watchdog import Watchdog
from schemas.errors import UsageError, VPPError
from vpp.train.engine import Outcome
from vpp.train.training_progress import TrainingProgress
from vpp.train.worker import Signal, Worker

_log = logging.getLogger(__name__)
_POLL_S = 0.5
_BEAT_S = 5.0


@dataclass(frozen=True)
class WorkerSettings:
    """How many workers train together.

    Raises:
        ValueError: If a value is outside its range.
    """

    num_workers: int = 1
    """Workers; one GPU each, if there are GPUs."""
    min_workers: int = 0
    """Fewest workers to go on with when nodes come and go (elastic training); 0 always asks for `num_workers`."""
    use_gpu: bool | None = None
    """Whether workers take a GPU each; by default if the cluster has any or may get one."""
    cpus_per_worker: int = 0
    """CPUs of a worker; 0 shares those of a cluster without GPUs evenly, and takes 8 beside a GPU."""
    max_failures: int = 3
    """How often workers that died are started again before the job gives up; preempted nodes do not count."""
    timeout_s: int = 1800
    """How long a worker waits for the others before it counts them as lost."""
    watchdog_minutes: float = 10.0
    """Time without progress after which a warning says what is stuck; 0 never warns."""

    def __post_init__(self) -> None:
        if not (self.num_workers >= 1 and 0 <= self.min_workers <= self.num_workers):
            raise ValueError(
                f"expected 0 <= min_workers <= num_workers and num_workers >= 1, found {self.min_workers} and "
                f"{self.num_workers}"
            )


class TrainingFailed(VPPError):
    """The workers failed for another reason than the user's; running again continues."""


class _GoBetween:
    """Carries progress to the driver and requests to the workers."""

    def __init__(self) -> None:
        self.stop = False
        self.news: list[tuple[int, dict[str, float]]] = []
        self.warnings: list[str] = []
        self.doing: dict[int, str] = {}
        self.beats = 0
        self.outcome: Outcome | None = None
        self.fault: tuple[str, str] | None = None

    def ask_to_stop(self) -> None:
        self.stop = True

    def is_asked_to_stop(self) -> bool:
        return self.stop

    def tell(self, step: int, metrics: dict[str, float]) -> None:
        self.news.append((step, metrics))

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def tell_doing(self, rank: int, world_size: int, what: str) -> None:
        self.doing = {other: told for other, told in self.doing.items() if other < world_size} | {rank: what}
        self.beats += 1

    def take_told(self) -> tuple[list[tuple[int, dict[str, float]]], list[str], dict[int, str], int]:
        told = self.news, self.warnings, self.doing, self.beats
        self.news, self.warnings = [], []
        return told

    def end(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def fail(self, kind: str, message: str) -> None:
        self.fault = self.fault or (kind, message)

    def ending(self) -> tuple[Outcome | None, tuple[str, str] | None]:
        return self.outcome, self.fault


def run_on_workers(
    train: Callable[[Worker], Outcome], settings: WorkerSettings, total_steps: int, stage: str, run_url: str
) -> Outcome:
    """Runs `train` in every worker until all have ended, showing progress.

    SIGTERM and Ctrl-C ask the workers to write a checkpoint and end; a second one ends at once.

    Args:
        train: What a worker does; picklable. It resumes by itself where an earlier attempt left off.
        settings: How many workers.
        total_steps: For the progress bar.
        stage: What is trained, for metrics and Ray's dashboard.
        run_url: Where the run keeps its files; tells it from others there.

    Raises:
        UsageError: If the workers never fit on the cluster, or what a worker raised.
        TrainingFailed: If workers failed more often than allowed, with an error of ours, or out of the driver's sight.
    """
    start_ray()
    options = _scaling(settings)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    go_between = ray.remote(num_cpus=0, max_concurrency=8, scheduling_strategy=here)(_GoBetween).remote()
    of_ray_train = tempfile.mkdtemp(prefix="vpp-ray-train-")  # which keeps its own notes there
    trainer = ray.train.torch.TorchTrainer(
        _work,
        train_loop_config={"train": train, "go_between": go_between, "num_threads": options["CPU"]},
        scaling_config=ray.train.ScalingConfig(
            num_workers=(settings.min_workers, settings.num_workers) if settings.min_workers else settings.num_workers,
            use_gpu="GPU" in options,
            resources_per_worker=options,
        ),
        run_config=ray.train.RunConfig(
            name=f"{stage}-{hashlib.sha256(run_url.encode()).hexdigest()[:8]}",
            storage_path=of_ray_train,
            failure_config=ray.train.FailureConfig(max_failures=settings.max_failures),
        ),
        torch_config=ray.train.torch.TorchConfig(timeout_s=settings.timeout_s),
    )
    watchdog = Watchdog(settings.watchdog_minutes, describe_load)
    watchdog.progress("start workers")
    fit = _Fit(trainer)
    try:
        with (
            _AskingToStop(go_between) as stopping,
            progress_bar(stage, total_steps, "step") as bar,
            watchdog.watching(),
        ):
            progress = TrainingProgress(bar, ray_meter(run_url, stage=stage), watchdog)
            while fit.thread.is_alive():
                fit.thread.join(_POLL_S)
                news, warnings, doing, beats = ray.get(go_between.take_told.remote())
                for step, metrics in news:
                    progress.take_step(step, metrics)
                progress.take_doing(doing, beats)
                for message in warnings:
                    _log.warning("%s", message)
                if stopping.is_set():
                    progress.show_stopping()
        outcome: Outcome | None
        outcome, fault = ray.get(go_between.ending.remote())
    except RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise TrainingFailed(f"the driver lost touch with the workers: {type(error).__name__}: {reason}") from error
    finally:
        shutil.rmtree(of_ray_train, ignore_errors=True)
    if fault is not None:
        kind, message = fault
        raise UsageError(message) if kind == UsageError.__name__ else TrainingFailed(message)
    if outcome is None:
        raise TrainingFailed(f"workers failed more than {settings.max_failures} times: {fit.error}")
    return outcome


class _Fit:
    """Ray Train in a thread, so that signals reach the driver's main thread."""

    def __init__(self, trainer: ray.train.torch.TorchTrainer) -> None:
        self.error: Exception | None = None
        self._trainer = trainer
        self.thread = threading.Thread(target=self._run, name="ray-train", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:  # told by run_on_workers in its own words
            self.error = error


class _AskingToStop:
    """Turns SIGTERM and SIGINT into a request to stop; the second signal is what it always is."""

    def __init__(self, go_between: Any) -> None:
        self._go_between = go_between
        self._asked = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> threading.Event:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._ask)
        threading.Thread(target=self._forward, daemon=True).start()
        return self._asked

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _ask(self, number: int, _frame: object) -> None:
        self._asked.set()
        for each, before in self._before.items():
            signal.signal(each, before)

    def _forward(self) -> None:  # not in the handler: Ray may be in the middle of a call there
        self._asked.wait()
        _log.warning("asked to stop: writing a checkpoint first; ask again to stop at once")
        ray.get(self._go_between.ask_to_stop.remote())


def _scaling(settings: WorkerSettings) -> dict[str, float]:
    """What a worker takes, by default of what the cluster has or may get.

    Raises:
        UsageError: If so many workers never fit: Ray Train would wait for ever.
    """
    cluster = find_cluster()
    use_gpu = cluster.total("GPU") > 0 if settings.use_gpu is None else settings.use_gpu
    default = 8 if use_gpu else cluster.even_share("CPU", settings.num_workers)
    options: dict[str, float] = {"CPU": settings.cpus_per_worker or default}
    if use_gpu:
        options["GPU"] = 1
    number = settings.min_workers or settings.num_workers
    remedy = (
        "set fewer --workers.num-workers (or --workers.min-workers), --workers.cpus-per-worker or --workers.use-gpu"
    )
    cluster.check_holds("training workers", options, number, remedy)
    return options


def _work(config: Mapping[str, Any]) -> None:
    """One worker."""
    go_between = config["go_between"]
    _Forward.install(go_between)
    outcome, fault = ray.get(go_between.ending.remote())
    if outcome is not None or fault is not None:  # started again after an error that will not go away
        return
    context = ray.train.get_context()
    torch.set_num_threads(int(config["num_threads"]))
    doing = _Doing(go_between, context.get_world_rank(), context.get_world_size())
    worker = Worker(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        signal=_Listener(go_between, context.get_world_rank()).ask,
        progress=lambda step, metrics: go_between.tell.remote(step, dict(metrics)),
        doing=doing.change,
    )
    try:
        with doing.telling():
            outcome = config["train"](worker)
    except VPPError as error:
        ray.get(go_between.fail.remote(type(error).__name__, str(error)))
        raise
    if worker.leads:
        ray.get(go_between.end.remote(outcome))


class _Doing:
    """What a worker does now. A thread tells it from time to time, since a worker that is stuck cannot."""

    def __init__(self, go_between: Any, rank: int, world_size: int) -> None:
        self._go_between, self._rank, self._world_size = go_between, rank, world_size
        self._what, self._num_changes = "load", 0

    def change(self, what: str) -> None:
        self._what, self._num_changes = what, self._num_changes + 1

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        ended = threading.Event()
        threading.Thread(target=self._tell, args=(ended,), name="doing", daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def _tell(self, ended: threading.Event) -> None:
        told = -1
        while True:
            if self._num_changes != told:
                told = self._num_changes
                self._go_between.tell_doing.remote(self._rank, self._world_size, self._what)
            if ended.wait(_BEAT_S):
                return


class _Forward(logging.Handler):
    """Sends warnings of this package to the driver: what Ray collects of workers' output, nobody reads."""

    def __init__(self, go_between: Any) -> None:
        super().__init__(logging.WARNING)
        self._go_between = go_between

    def emit(self, record: logging.LogRecord) -> None:
        self._go_between.warn.remote(record.getMessage())

    @classmethod
    def install(cls, go_between: Any) -> None:
        for package in ("vpp", "runtime", "schemas"):
            logger = logging.getLogger(package)
            logger.handlers = [cls(go_between)]  # a process may be used for several attempts


class _Listener:
    """Asks on rank 0 what to do, and tells all the same."""

    def __init__(self, go_between: Any, rank: int) -> None:
        self._go_between, self._rank = go_between, rank
        self._saved_for: object = None

    def ask(self) -> Signal:
        is_asked = ray.get(self._go_between.is_asked_to_stop.remote()) if self._rank == 0 else None
        preemption = ray.train.get_preemption_info()
        if ray.train.collective.broadcast_from_rank_zero(is_asked):
            return "stop"
        if preemption is not None and preemption.preempted_node_ids != self._saved_for:
            self._saved_for = preemption.preempted_node_ids
            _log.warning("nodes %s are about to go: writing a checkpoint", ", ".join(preemption.preempted_node_ids))
            return "save"
        return "go_on"
