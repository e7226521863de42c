"""A policy that acts: pictures and an instruction in, actions out.

`select_action` and `predict_action_chunk` are meant as in LeRobot: the first gives one action and looks again when the
chunk is used up, the second gives a whole chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from schemas.errors import UsageError
from vpp.policy.config import SamplerSettings
from vpp.policy.network import PolicyNetwork
from vpp.policy.observation import TASK, Observation, check_observation
from vpp.policy.perception import Perception, load_perception
from vpp.policy.policy_folder import PolicyFolder, load_policy_folder
from vpp.video.features import Instruction, join_instructions
from vpp.video.objective import sample_generator
from vpp.video.text_encoder import ClipTextEncoder, load_text_encoder

_REMEMBERED_TASKS = 64


class VideoPredictionPolicy:
    """The trained network, the frozen models it needs, and a queue of actions.

    Not for several threads at once, but for `predict_action_chunk` with its noise given.

    Args:
        folder: The trained half.
        perception: The frozen half.
        text_encoder: Embeds instructions.
        dataset: Whose actions come out, where the policy was trained on several.
        device: Where everything is.

    Raises:
        UsageError: If the policy does not know the dataset, or knows several and none is named.
    """

    def __init__(
        self,
        folder: PolicyFolder,
        perception: Perception,
        text_encoder: ClipTextEncoder,
        dataset: str = "",
        device: torch.device | None = None,
    ) -> None:
        self.config = folder.config
        self.device = device or torch.device("cpu")
        known = self.config.datasets
        if (dataset and dataset not in known) or (not dataset and len(known) != 1):
            found = repr(dataset) if dataset else "none"
            raise UsageError(
                f"dataset: expected one whose actions the policy knows ({', '.join(known)}), found {found}"
            )
        dataset = dataset or known[0]
        self._network = folder.network.requires_grad_(False).eval().to(self.device)
        self._actions = folder.action_normalisers[dataset]
        self._proprio = folder.proprio_normalisers.get(dataset)
        self._perception, self._text_encoder = perception, text_encoder
        self._tasks: dict[str, tuple[Instruction, torch.Tensor]] = {}
        self._queue: deque[torch.Tensor] = deque()
        self.reset()

    @classmethod
    def load(
        cls,
        url: str,
        *,
        device: str | torch.device | None = None,
        dataset: str = "",
        video_model: str = "",
        codec: str = "",
        text_encoder: str = "",
        sampler: SamplerSettings | None = None,
    ) -> VideoPredictionPolicy:
        """Loads a policy's folder and the frozen models that it names.

        Args:
            url: The folder, `<run>/policy` of jobs/stage2.py.
            device: By default a GPU where there is one.
            dataset: Whose actions come out, where it was trained on several.
            video_model: Where the video model lies now; by default where it lay in training.
            codec: Likewise, the VAE.
            text_encoder: Likewise, CLIP's text model.
            sampler: How actions are drawn; by default as the folder tells.

        Raises:
            UsageError: If something is missing, or the video model is not the one it was trained with.
        """
        folder = load_policy_folder(url)
        if sampler is not None:
            folder = replace(folder, config=replace(folder.config, sampler=sampler))
        config = folder.config
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        name = video_model or config.video_model
        perception = load_perception(name, codec or config.codec, config.features, where)
        found = perception.hash
        if config.video_model_hash not in ("", found):
            raise UsageError(
                f"policy {url}: expected the video model that it was trained with (weights {config.video_model_hash}), "
                f"found another in {name} ({found}); name the right one with video_model"
            )
        return cls(folder, perception, load_text_encoder(text_encoder or config.text_encoder), dataset, where)

    @property
    def network(self) -> PolicyNetwork:
        """The trained half, as it acts: without gradients, on the device."""
        return self._network

    @property
    def observation_keys(self) -> tuple[str, ...]:
        """What an observation needs, under LeRobot's names."""
        cameras = tuple(f"observation.images.{camera}" for camera in self.config.cameras)
        return (*cameras, *(("observation.state",) if self.config.denoiser.proprio_dim else ()), TASK)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """`[H, A]`, what the actions of one observation are drawn from."""
        return self.config.denoiser.num_actions, self.config.denoiser.action_dim

    @property
    def view_noise_shape(self) -> tuple[int, ...] | None:
        """`[V, T, 4, h, w]`, what the features of one observation begin with; None where that is always the same."""
        return self._perception.noise_shape(len(self.config.cameras))

    def reset(self) -> None:
        """Forgets the actions that wait and begins the noise anew: to be called when an episode begins."""
        self._queue.clear()
        self._num_chunks = 0
        self._fresh = torch.Generator()
        self._fresh.seed()

    def select_action(self, observation: Mapping[str, Any]) -> torch.Tensor:
        """The next action, float32 `[B, A]` on the CPU; looks at the observation only when the queue is empty.

        Raises:
            ObservationError: If the observation is not what the policy was trained on.
        """
        if not self._queue:
            chunk = self.predict_action_chunk(observation)
            self._queue.extend(chunk[:, : self.config.sampler.num_executed or chunk.shape[1]].unbind(1))
        return self._queue.popleft()

    @torch.inference_mode()
    def predict_action_chunk(
        self,
        observation: Mapping[str, Any],
        noise: torch.Tensor | None = None,
        view_noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """A chunk of actions, float32 `[B, H, A]` on the CPU, in the units of the dataset.

        Args:
            observation: `observation.images.<camera>`, `task` and, with proprioception, `observation.state`; see
                `vpp.policy.observation`.
            noise: Standard normal `[B, *noise_shape]` that actions are drawn from; the policy's own by default.
            view_noise: Standard normal `[B, *view_noise_shape]` that features begin with; the policy's own by default.

        Raises:
            ObservationError: If the observation is not what the policy was trained on.
        """
        config = self.config
        seen = check_observation(observation, config.cameras, config.denoiser.proprio_dim, config.frame_size)
        instruction, goal = self._instruct(seen.tasks)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            latents = self._perception.latents(seen.frames.to(self.device))
            features = self._perception.features(
                latents, instruction, None if view_noise is None else view_noise.to(self.device)
            )
            actions = self._network.draw(
                features,
                goal,
                self._normalised_proprio(seen),
                self._noise(len(seen.frames)) if noise is None else noise.to(self.device),
                num_steps=config.sampler.num_steps,
                sigma_min=config.sampler.sigma_min,
                sigma_max=config.sampler.sigma_max,
            )
        return self._actions.restore(actions.float().cpu())

    def _normalised_proprio(self, seen: Observation) -> torch.Tensor | None:
        if seen.proprio is None:
            return None
        assert self._proprio is not None
        return self._proprio.normalise(seen.proprio).to(self.device)

    def _instruct(self, tasks: tuple[str, ...]) -> tuple[Instruction, torch.Tensor]:
        """What follows from the instructions alone; computed once for each, by itself, whatever batch it stands in."""
        told = [self._instruct_one(task) for task in tasks]
        return join_instructions([instruction for instruction, _ in told]), torch.cat([goal for _, goal in told])

    def _instruct_one(self, task: str) -> tuple[Instruction, torch.Tensor]:
        told = self._tasks.get(task)
        if told is None:
            if len(self._tasks) >= _REMEMBERED_TASKS:
                self._tasks.pop(next(iter(self._tasks)), None)
            text = torch.from_numpy(self._text_encoder.encode([task])).float().to(self.device)
            goal = torch.as_tensor(self._text_encoder.encode_goals([task])).float().to(self.device)
            self._tasks[task] = told = self._perception.extractor.instruct(text), goal
        return told

    def chunk_noise(self, chunk: int, place: int = 0) -> torch.Tensor:
        """Standard normal `noise_shape` that actions are drawn from, on the CPU; fresh where the sampler has no seed.

        Args:
            chunk: Number of the chunk since `reset()`, from 0.
            place: In the batch.
        """
        seed = self.config.sampler.seed
        generator = self._fresh if seed is None else sample_generator(seed, chunk, place, "acting")
        return torch.randn(self.noise_shape, generator=generator)

    def _noise(self, batch: int) -> torch.Tensor:
        """Standard normal `[B, H, A]` of the next chunk."""
        noise = torch.stack([self.chunk_noise(self._num_chunks, place) for place in range(batch)])
        self._num_chunks += 1
        return noise.to(self.device)
