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

    With a seed in the policy's sampler and features, an answer's noise follows from it and the number of the chunk:
    what `predict_action_chunk` gives after `reset()`, whoever else asks.

    Args:
        policy: The policy.
        sizes: Of the batches that it is asked, ascending: one of another size is filled up with copies of its first
            row. Empty for any size.
    """

    def __init__(self, policy: VideoPredictionPolicy, sizes: Sequence[int] = ()) -> None:
        self._policy, self._sizes = policy, sizes

    @classmethod
    def load(cls, settings: ServeSettings, num_at_once: int) -> ServedPolicy:
        """Loads a policy and answers a request, so that the first robot does not wait for what is done once.

        Args:
            settings: Where things lie.
            num_at_once: Threads that will ask; on a CPU they share its cores.

        Raises:
            UsageError: If something is missing, or the video model is not the one the policy was trained with.
        """
        has_gpu = torch.cuda.is_available()
        if not has_gpu:
            torch.set_num_threads(max(1, _num_cpus() // num_at_once))
        batch = settings.batch(has_gpu)
        served = cls(
            VideoPredictionPolicy.load(
                settings.policy_folder,
                dataset=settings.dataset,
                video_model=settings.video_model,
                codec=settings.codec,
                text_encoder=settings.text_encoder,
            ),
            compiled_sizes(batch) if has_gpu else (),
        )
        started = time.perf_counter()
        for size in served._sizes or sorted({1, batch}):
            served.chunks([example_request(served._policy.config)] * size)
        _log.info("warm after %.1f s", time.perf_counter() - started)
        return served

    def chunks(self, requests: Sequence[ChunkRequest]) -> list[np.ndarray]:
        """Actions float32 `[H, A]` in the units of the data, one for each request."""
        cameras = self._policy.config.cameras
        size = next((size for size in self._sizes if size >= len(requests)), len(requests))
        filled = [*requests, *[requests[0]] * (size - len(requests))]
        frames = torch.stack([request.frames for request in filled])
        observation: dict[str, object] = {IMAGES + camera: frames[:, view] for view, camera in enumerate(cameras)}
        proprio = [request.proprio for request in filled if request.proprio is not None]
        if proprio:
            observation[STATE] = torch.stack(proprio)
        observation[TASK] = [request.task for request in filled]
        noise = torch.stack([self._policy.chunk_noise(request.chunk) for request in filled])
        return list(self._policy.predict_action_chunk(observation, noise=noise).numpy()[: len(requests)])


def compiled_sizes(batch_size: int) -> list[int]:
    """Sizes of batches on a GPU, where the UNet is compiled for each, which takes minutes: powers of two, and the most.

    >>> compiled_sizes(1), compiled_sizes(12), compiled_sizes(16)
    ([1], [1, 2, 4, 8, 12], [1, 2, 4, 8, 16])
    """
    return [*(1 << power for power in range((batch_size - 1).bit_length())), batch_size]


def _num_cpus() -> int:
    """Those of this process; fewer where the environment says so, as Ray does for its workers."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
