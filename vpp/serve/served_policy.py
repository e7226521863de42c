"""A policy that answers robots: one chunk of actions for each request of a batch."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence

import numpy as np
import torch

from vpp.policy.observation import IMAGES, STATE, TASK
from vpp.policy.policy import VideoPredictionPolicy
from vpp.serve.request import ChunkRequest, example_request
from vpp.serve.settings import ServeSettings

_log = logging.getLogger(__name__)


class ServedPolicy:
    """Answers batches. May be asked by several threads at once.

    With a seed in the policy's sampler, an answer's noise follows from it and the number of the chunk: what
    `predict_action_chunk` gives after `reset()`, whoever else asks.

    Args:
        policy: The policy.
    """

    def __init__(self, policy: VideoPredictionPolicy) -> None:
        self._policy = policy

    @classmethod
    def load(cls, settings: ServeSettings, num_at_once: int) -> ServedPolicy:
        """Loads a policy and answers a request, so that the first robot does not wait for what is done once.

        Args:
            settings: Where things lie.
            num_at_once: Threads that will ask; on a CPU they share its cores.

        Raises:
            UsageError: If something is missing, or the video model is not the one the policy was trained with.
        """
        if not torch.cuda.is_available():
            torch.set_num_threads(max(1, _num_cpus() // num_at_once))
        served = cls(
            VideoPredictionPolicy.load(
                settings.policy_folder,
                dataset=settings.dataset,
                video_model=settings.video_model,
                codec=settings.codec,
                text_encoder=settings.text_encoder,
            )
        )
        started = time.perf_counter()
        for batch in sorted({1, settings.batch(torch.cuda.is_available())}):
            served.chunks([example_request(served._policy.config)] * batch)
        _log.info("warm after %.1f s", time.perf_counter() - started)
        return served

    def chunks(self, requests: Sequence[ChunkRequest]) -> list[np.ndarray]:
        """Actions float32 `[H, A]` in the units of the data, one for each request."""
        cameras = self._policy.config.cameras
        frames = torch.stack([request.frames for request in requests])
        observation: dict[str, object] = {IMAGES + camera: frames[:, view] for view, camera in enumerate(cameras)}
        proprio = [request.proprio for request in requests if request.proprio is not None]
        if proprio:
            observation[STATE] = torch.stack(proprio)
        observation[TASK] = [request.task for request in requests]
        noise = torch.stack([self._policy.chunk_noise(request.chunk) for request in requests])
        return list(self._policy.predict_action_chunk(observation, noise=noise).numpy())


def _num_cpus() -> int:
    """Those of this process; fewer where the environment says so, as Ray does for its workers."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
