"""Runs an evaluation with Ray: environments as actors, one policy actor for them all; here only this file knows Ray.

Every episode is written when it ends, by the environment that ran it. A run that was killed does what is missing. An
environment that crashes is replaced and its episode begun again.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from runtime.ray_cluster import describe_load, find_cluster, ray_meter, start_ray
from runtime.resources import Cluster
from runtime.stage import stage
from runtime.watchdog import Watchdog
from schemas.errors import UsageError, VPPError
from schemas.storage import join, write_bytes
from schemas.store_faults import retry_passing_faults
from vpp.sim.benchmark import Benchmark, find_benchmark
from vpp.sim.evaluation_request import RANDOM, EvaluateSettings, Request, claim, resolve
from vpp.sim.evaluation_rows import (
    SUMMARY,
    Row,
    finished_episodes,
    read_rows,
    summarise,
    video_path,
    write_json,
    write_rows,
)
from vpp.sim.rollout import Actor, ExpertActor, Moment, Observe, RandomActor, run_episode
from vpp.sim.simulator import EpisodePlan, Simulator

_log = logging.getLogger(__name__)

_POLICY_RESTARTS = 3
_GIVE_UP_AFTER = 3
_RETRY_S = 300.0


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """Runs the job; returns what it writes to `<output>/summary.json`.

    Raises:
        UsageError: If a setting is wrong, or the output holds something else.
        RuntimeError: If no episode can be run at all.
    """
    request, benchmark = resolve(settings)
    plans = benchmark.plan(request.tasks, request.episodes, settings.seed)
    start_ray()
    cluster = find_cluster()
    request = request.with_batch(_has_gpu(cluster))
    claim(request, benchmark)
    done = finished_episodes(settings.output)
    missing = [plan for plan in plans if plan.number not in done]
    if missing:
        watchdog = Watchdog(settings.watchdog_minutes, describe_load)
        with watchdog.watching():
            _run(request, benchmark, missing, cluster, watchdog)
    numbers = [plan.number for plan in plans]
    rows = retry_passing_faults(lambda: read_rows(settings.output, numbers), "reading the rows", _RETRY_S)
    plain_rows = [asdict(row) for row in rows]
    summary = {
        "benchmark": benchmark.name,
        "policy": request.policy,
        **summarise(rows, request.tasks),
        **benchmark.summarise(plain_rows),
    }
    for name, values in benchmark.details(plain_rows).items():
        write_json(join(settings.output, name), values)
    write_json(join(settings.output, SUMMARY), summary)
    return summary


# --- the driver ------------------------------------------------------------------------------------


def _has_gpu(cluster: Cluster) -> bool:
    return cluster.total("GPU") >= 1


def _environments(request: Request, cluster: Cluster, num_missing: int) -> tuple[int, float]:
    """How many environments run at the same time, and the part of a CPU that each takes."""
    settings = request.settings
    # A policy on a GPU has its node anyway; for experts none is started.
    num_cpus = int(cluster.total("CPU")) if request.needs_model else cluster.plain_cpus()
    number = min(settings.num_environments or max(1, num_cpus), num_missing)
    share = 1 / -(-number // num_cpus) if num_cpus else 1.0  # more than there are CPUs share them, on any node
    share = int(share * 1000) / 1000
    cluster.check_holds("environments", {"CPU": share}, number, "set --num-environments")
    return number, share


def _run(
    request: Request, benchmark: Benchmark, missing: Sequence[EpisodePlan], cluster: Cluster, watchdog: Watchdog
) -> None:
    """Runs episodes, each begun again where its environment crashed, and writes down those that could not be run."""
    settings = request.settings
    num_environments, share = _environments(request, cluster, len(missing))
    meter = ray_meter(settings.output)
    watchdog.progress("load the policy")
    policy = _start_policy(request, _has_gpu(cluster)) if request.needs_model else None

    def start() -> Any:
        return ray.remote(num_cpus=share, max_restarts=0)(Environment).remote(request, policy)

    idle = [start() for _ in range(num_environments)]
    waiting = deque((plan, 1) for plan in missing)
    running: dict[Any, tuple[Any, EpisodePlan, int]] = {}
    not_run: list[Row] = []
    last = ""
    with stage(watchdog, "evaluate", len(missing), "episode") as done:
        while waiting or running:
            while waiting and idle:
                environment, (plan, attempt) = idle.pop(), waiting.popleft()
                running[environment.run.remote(plan, attempt)] = environment, plan, attempt
            numbers = ", ".join(str(plan.number) for _, plan, _ in running.values())
            watchdog.progress("evaluate", last, f"episodes {numbers}")
            (finished,), _ = ray.wait(list(running), num_returns=1)
            environment, plan, attempt = running.pop(finished)
            reason = _failure(finished)
            last = f"episode {plan.number}"
            if reason is None:
                idle.append(environment)
                meter.tell("vpp_evaluate_episodes", 1, outcome="run")
                for task, is_solved in ray.get(finished):
                    meter.tell("vpp_evaluate_tasks", 1, task=task, outcome="solved" if is_solved else "failed")
                done()
                continue
            _log.warning("episode %d, attempt %d: %s", plan.number, attempt, reason)
            ray.kill(environment)
            idle.append(start())
            if attempt < settings.max_attempts:
                waiting.appendleft((plan, attempt + 1))
                continue
            not_run.append(_row_of_not_run(request, benchmark, plan, attempt, reason))
            meter.tell("vpp_evaluate_episodes", 1, outcome="not_run")
            done()
            if len(not_run) == _GIVE_UP_AFTER and not finished_episodes(settings.output):
                raise RuntimeError(f"{_GIVE_UP_AFTER} episodes could not be run and none could: {reason}")
    for row in not_run:  # at the end, so that a run that is killed or gives up tries them again
        write_rows(settings.output, [row])
    for actor in [*idle, *([policy] if policy else [])]:
        ray.kill(actor)


def _failure(finished: Any) -> str | None:
    """Why an episode was not run to its end; None if it was.

    Raises:
        UsageError: If another attempt would end the same.
        RayError: If it was not the environment that failed.
    """
    try:
        ray.get(finished)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, VPPError):
            raise UsageError(str(cause)) from None
        if isinstance(cause, RayError):
            raise
        return f"{type(cause).__name__}: {' '.join(str(cause).split())}"
    except RayActorError as error:
        return f"the environment's process died: {str(error).strip().splitlines()[0]}"
    return None


def _row_of_not_run(request: Request, benchmark: Benchmark, plan: EpisodePlan, attempts: int, reason: str) -> Row:
    task = plan.tasks[0]
    told = request.told.get(task, benchmark.instructions[task])
    group = benchmark.groups.get(task)
    return Row(plan.number, 0, task, group, told, plan.seed, False, 0, 0.0, attempts, reason, None)


def _start_policy(request: Request, has_gpu: bool) -> Any:
    options = {"num_cpus": 0, "num_gpus": 1 if has_gpu else 0, "max_restarts": _POLICY_RESTARTS, "max_task_retries": -1}
    policy = ray.remote(**options)(PolicyActor).remote(request)
    try:
        ray.get(policy.load.remote())
    except RayTaskError as error:
        if isinstance(error.cause, VPPError):
            raise UsageError(str(error.cause)) from None
        raise
    return policy


# --- the actors ------------------------------------------------------------------------------------


class PolicyActor:
    """The process in which the policy is.

    Args:
        request: What is evaluated.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._queue: Any = None
        self._foresight: Any = None

    async def load(self) -> None:
        """Loads the models; a faulty policy is told here."""
        self._loaded()

    async def chunk(self, observation: dict[str, np.ndarray], instruction: str, moment: Moment) -> np.ndarray:
        """Actions `[H, A]` of an environment's observation."""
        from vpp.sim.policy_server import ChunkRequest

        chunk: np.ndarray = await self._loaded().chunk(ChunkRequest(observation, instruction, moment))
        return chunk

    async def foresee(self, observation: dict[str, np.ndarray], instruction: str, moment: Moment) -> np.ndarray:
        """What the first camera will see, uint8 `[T, H, W, 3]`."""
        queue = self._loaded()
        picture = observation[f"observation.images.{self._request.cameras[0]}"]
        frames: np.ndarray = await queue.run(self._foresight, picture, instruction, moment)
        return frames

    def _loaded(self) -> Any:
        if self._queue is None:
            import torch

            from vpp.policy.policy import VideoPredictionPolicy
            from vpp.sim.policy_server import BatchedPolicy, RequestQueue

            settings, num_threads = self._request.settings, 1
            if not torch.cuda.is_available():
                torch.set_num_threads(1)  # of each batch; more would change the last bits
                num_threads = settings.policy_threads or len(os.sched_getaffinity(0))
            policy = VideoPredictionPolicy.load(
                self._request.policy,
                dataset=settings.dataset,
                video_model=settings.video_model,
                codec=settings.codec,
                text_encoder=settings.text_encoder,
            )
            if settings.foresee:
                from vpp.sim.foresight import Foresight

                config = policy.config
                models = (
                    settings.video_model or config.video_model,
                    settings.codec or config.codec,
                    settings.text_encoder or config.text_encoder,
                )
                self._foresight = Foresight(*models, settings.foresee, settings.seed)
            batched = BatchedPolicy(policy, settings.seed, self._request.policy_batch)
            self._queue = RequestQueue(batched, num_threads)
        return self._queue


class Environment:
    """A process with one simulator, which runs one episode at a time.

    Args:
        request: What is evaluated.
        policy: Handle of the `PolicyActor`; None where none is needed.
    """

    def __init__(self, request: Request, policy: Any) -> None:
        self._request, self._policy = request, policy
        self._benchmark: Benchmark | None = None
        self._simulator: Simulator | None = None

    def run(self, plan: EpisodePlan, attempt: int) -> list[tuple[str, bool]]:
        """Runs an episode, writes its rows, and returns its tasks and whether each was solved. It may be run twice."""
        request = self._request
        if self._benchmark is None or self._simulator is None:
            self._benchmark = find_benchmark(request.settings.benchmark)
            self._simulator = self._benchmark.make(request.cameras, request.image_size, request.frame_size)
        film = self._film(self._benchmark) if self._is_filmed(plan) else None
        results = run_episode(
            self._simulator,
            plan,
            self._actor(self._benchmark),
            max_steps=request.max_steps,
            num_executed=request.num_executed,
            told=request.told if request.settings.instructions != "own" else None,
            watcher=film,
        )
        video = video_path(plan.number) if film else None
        if film and video:
            write_bytes(join(request.settings.output, video), film.finish(), _RETRY_S)
        groups = self._benchmark.groups
        rows = [
            Row(
                number=plan.number,
                group=groups.get(result.task),
                seed=plan.seed,
                attempts=attempt,
                reason=None,
                video=video,
                **asdict(result),
            )
            for result in results
        ]
        write_rows(request.settings.output, rows)
        return [(row.task, row.success) for row in rows]

    def _is_filmed(self, plan: EpisodePlan) -> bool:
        return plan.number % self._request.episodes < self._request.settings.videos

    def _film(self, benchmark: Benchmark) -> Any:
        from vpp.sim.rollout_video import EpisodeFilm

        settings = self._request.settings
        foresee = self._foresee if settings.foresee else None
        return EpisodeFilm(self._request.cameras[0], benchmark.control_hz, settings.video_stride, foresee)

    def _foresee(self, observation: Mapping[str, np.ndarray], instruction: str, moment: Moment) -> np.ndarray:
        frames: np.ndarray = ray.get(self._policy.foresee.remote(dict(observation), instruction, moment))
        return frames

    def _actor(self, benchmark: Benchmark) -> Actor:
        if self._policy is not None:
            return _RemoteActor(self._policy)
        if self._request.policy == RANDOM:
            return RandomActor(benchmark.action_dim, self._request.settings.seed)
        return ExpertActor()


class _RemoteActor:
    """Asks the policy actor."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def chunk(self, simulator: Simulator, observe: Observe, instruction: str, moment: Moment) -> np.ndarray:
        actions: np.ndarray = ray.get(self._policy.chunk.remote(dict(observe()), instruction, moment))
        return actions
