"""The configuration of a policy as LeRobot reads it: the fields of our `config.json`, and what LeRobot asks of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import draccus
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature

from schemas.errors import UsageError
from schemas.shard import FRAME_SIZE_PX
from vpp.policy.action_denoiser import ActionDenoiserConfig
from vpp.policy.config import PolicyConfig, SamplerSettings
from vpp.policy.observation import IMAGES, STATE
from vpp.policy.policy_folder import TYPE
from vpp.policy.video_former import VideoFormerConfig
from vpp.video.feature_settings import FeatureSettings

ACTION = "action"

CHANGEABLE = ("video_model", "codec", "text_encoder", "sampler")
"""What may differ from the policy's folder; all else belongs to the weights."""


def _decode_literal(hint: Any, value: Any, path: Sequence[str] = ()) -> Any:
    """Reads a choice of words, which the parser of LeRobot's settings does not know by itself.

    Raises:
        UsageError: If it is none of them.
    """
    if value not in get_args(hint):
        raise UsageError(f"{'.'.join(path)}: expected one of {', '.join(map(str, get_args(hint)))}, found {value!r}")
    return value


draccus.decode.register(Literal, _decode_literal, include_subclasses=True)


@PreTrainedConfig.register_subclass(TYPE)
@dataclass
class VPPConfig(PreTrainedConfig):
    """What `vpp.policy.config.PolicyConfig` tells, and the dataset whose actions come out."""

    input_features: dict[str, PolicyFeature] | None = field(default_factory=dict)
    output_features: dict[str, PolicyFeature] | None = field(default_factory=dict)
    cameras: tuple[str, ...] = ()
    frame_size: int = FRAME_SIZE_PX
    video_model: str = ""
    video_model_hash: str = ""
    codec: str = ""
    text_encoder: str = ""
    features: FeatureSettings = field(default_factory=FeatureSettings)
    num_features: int = 2560
    num_frames: int = 16
    num_tokens: int = 512
    video_former: VideoFormerConfig = field(default_factory=VideoFormerConfig)
    denoiser: ActionDenoiserConfig = field(default_factory=ActionDenoiserConfig)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    datasets: tuple[str, ...] = ()
    trained_by: str = ""
    dataset: str = ""
    """Which of `datasets` actions are for, where there are several."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cameras, self.datasets = tuple(self.cameras), tuple(self.datasets)
        if not self.input_features:
            picture = PolicyFeature(type=FeatureType.VISUAL, shape=(3, self.frame_size, self.frame_size))
            self.input_features = {IMAGES + camera: picture for camera in self.cameras}
            if self.denoiser.proprio_dim:
                self.input_features[STATE] = PolicyFeature(type=FeatureType.STATE, shape=(self.denoiser.proprio_dim,))
        if not self.output_features:
            self.output_features = {ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(self.denoiser.action_dim,))}

    def validate_features(self) -> None:
        """Checks that the actions asked for are as long as the policy's.

        Raises:
            UsageError: If they are not.
        """
        wanted = self.action_feature
        if wanted is not None and tuple(wanted.shape) != (self.denoiser.action_dim,):
            raise UsageError(
                f"policy {TYPE}: expected an environment or dataset of {self.denoiser.action_dim} numbers an action, "
                f"found {list(wanted.shape)}"
            )

    def check_of(self, stored: PolicyConfig, folder: str) -> None:
        """Checks that nothing that belongs to the weights was changed.

        Raises:
            UsageError: Naming the first field.
        """
        for name in (told.name for told in fields(PolicyConfig) if told.name not in CHANGEABLE):
            if getattr(self, name) != getattr(stored, name):
                raise UsageError(
                    f"policy {folder}: expected {name} {getattr(stored, name)!r} as in its config.json, found "
                    f"{getattr(self, name)!r}; only {', '.join(CHANGEABLE)}, dataset and device can be changed"
                )

    @property
    def observation_delta_indices(self) -> None:
        """Observations before or after the one that is acted on: none."""
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        """Actions of a chunk, counted from the observation."""
        return list(range(self.denoiser.num_actions))

    @property
    def reward_delta_indices(self) -> None:
        """Rewards that are read: none."""
        return None

    def get_optimizer_preset(self) -> None:
        """LeRobot does not train this policy.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"policy {TYPE}: expected to be run, found to be trained by LeRobot; use jobs/stage2.py")

    def get_scheduler_preset(self) -> None:
        """As the optimiser: none is needed to run a policy."""
        return None
