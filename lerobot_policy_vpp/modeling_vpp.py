"""The policy as LeRobot runs it: its batches become observations of ours, and nothing else changes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy

from lerobot_policy_vpp.configuration_vpp import VPPConfig
from schemas.errors import UsageError
from vpp.policy.observation import IMAGES, STATE, TASK
from vpp.policy.policy import VideoPredictionPolicy
from vpp.policy.policy_folder import TYPE, read_config
from vpp.sim.stored_picture import StoredPicture


class VPPPolicy(PreTrainedPolicy):
    """Made by `from_pretrained`, which is what LeRobot's factory calls for `--policy.path`.

    Args:
        config: As `config.json` of the policy's folder, perhaps with another place of the frozen models.
        policy: What acts.
        folder: Where it was loaded from.
        kwargs: What LeRobot's factory tells besides, such as statistics of a dataset; not needed here.

    Raises:
        UsageError: If there is no policy: LeRobot wants to train a new one.
    """

    config_class = VPPConfig
    name = TYPE

    def __init__(
        self, config: VPPConfig, policy: VideoPredictionPolicy | None = None, folder: str = "", **kwargs: Any
    ) -> None:
        if policy is None:
            raise UsageError(
                f"policy {TYPE}: expected --policy.path=FOLDER of a policy that jobs/stage2.py wrote, found none; "
                "training is that job's, not LeRobot's"
            )
        super().__init__(config)
        config.validate_features()
        self.network = policy.network
        self._policy, self._folder = policy, folder
        self._stored_picture = StoredPicture(config.frame_size)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_name_or_path: str | Path,
        *,
        config: PreTrainedConfig | None = None,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **kwargs: Any,
    ) -> VPPPolicy:
        """Loads a policy's folder and the frozen models that it names.

        Args:
            pretrained_name_or_path: The folder (`<run>/policy` of jobs/stage2.py), or a hub id.
            config: What LeRobot has read of its `config.json`; read here by default.
            force_download: Of a hub id: as in `huggingface_hub`.
            token: Likewise.
            cache_dir: Likewise.
            local_files_only: Likewise.
            revision: Likewise.
            kwargs: As of the class.

        Raises:
            UsageError: If something is missing, or the configuration is not that of the weights.
        """
        folder = str(pretrained_name_or_path)
        if not os.path.isdir(folder):
            folder = snapshot_download(
                folder, revision=revision, cache_dir=cache_dir, force_download=force_download, token=token,
                local_files_only=local_files_only, allow_patterns=["*.json", "*.safetensors", "*.md"],
            )  # fmt: skip
        if config is None:
            config = PreTrainedConfig.from_pretrained(folder)
        if not isinstance(config, VPPConfig):
            raise UsageError(f"policy {folder}: expected a configuration of type {TYPE}, found {config.type}")
        config.check_of(read_config(folder), folder)
        policy = VideoPredictionPolicy.load(
            folder, device=config.device, dataset=config.dataset, video_model=config.video_model, codec=config.codec,
            text_encoder=config.text_encoder, sampler=config.sampler,
        )  # fmt: skip
        made = cls(config, policy=policy, folder=folder, **kwargs)
        made.eval()
        return made

    def reset(self) -> None:
        """To be called when an episode begins."""
        self._policy.reset()

    def select_action(self, batch: Mapping[str, Any], **kwargs: Any) -> torch.Tensor:
        """The next action `[B, A]`, in the units of the dataset, on the policy's device.

        Raises:
            ObservationError: If a camera, the state or the task is missing or of another size.
        """
        return self._policy.select_action(self._observation(batch)).to(self._policy.device)

    def predict_action_chunk(self, batch: Mapping[str, Any], **kwargs: Any) -> torch.Tensor:
        """A chunk of actions `[B, H, A]`, likewise; `noise` may be given, standard normal of that shape."""
        chunk = self._policy.predict_action_chunk(self._observation(batch), noise=kwargs.get("noise"))
        return chunk.to(self._policy.device)

    def _observation(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Ours of LeRobot's: pictures float `[B, 3, H, W]` from 0 to 1 become the stored ones, uint8 `[B, S, S, 3]`."""
        seen = {name: value for name, value in batch.items() if name in (STATE, TASK)}
        for camera in self.config.cameras:
            pictures = batch.get(IMAGES + camera)
            if pictures is None:
                continue  # told by name where the observation is checked
            if isinstance(pictures, torch.Tensor) and pictures.is_floating_point() and pictures.ndim == 4:
                levels = (pictures.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
                whole = levels.permute(0, 2, 3, 1).cpu().numpy()
                pictures = np.stack([self._stored_picture(picture) for picture in whole])
            seen[IMAGES + camera] = pictures
        if isinstance(seen.get(STATE), torch.Tensor):
            seen[STATE] = seen[STATE].cpu()
        return seen

    def forward(self, batch: Mapping[str, Any]) -> tuple[torch.Tensor, dict[str, Any] | None]:
        """LeRobot does not train this policy.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"policy {TYPE}: expected to be run, found to be trained by LeRobot; use jobs/stage2.py")

    def get_optim_params(self) -> dict[str, Any]:
        """As `forward`.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"policy {TYPE}: expected to be run, found to be trained by LeRobot; use jobs/stage2.py")

    def _save_pretrained(self, save_directory: Path, **kwargs: Any) -> None:
        """Copies the policy's folder, which LeRobot and this project both open."""
        shutil.copytree(self._folder, save_directory, dirs_exist_ok=True)
