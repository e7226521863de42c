"""Settings of stage 2, and the defaults that go with a preset."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from vpp.data.settings import WindowSettings
from vpp.policy.action_denoiser import ActionDenoiserConfig
from vpp.policy.config import SamplerSettings
from vpp.policy.normalise import Kind
from vpp.policy.objective import ActionObjectiveSettings
from vpp.policy.video_former import VideoFormerConfig
from vpp.train.engine import TrainSettings
from vpp.train.optimizer import OptimizerSettings
from vpp.train.policy_validation import PolicyValidationSettings
from vpp.train.ray_train import WorkerSettings
from vpp.video.denoiser import DenoiserConfig
from vpp.video.feature_settings import FeatureSettings

_PUBLISHED_TRAINING = TrainSettings(
    steps=50_000,
    batch_size=304,
    micro_batch_size=76,
    gradient_checkpointing=False,
    optimizer=OptimizerSettings(
        learning_rate=1e-4, beta1=0.9, beta2=0.9, weight_decay=0.05, schedule="tri_stage"
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Stage2Settings:
    """Everything that a run follows from.

    Raises:
        ValueError: If a value is outside its range.
    """

    data: str = ""
    """Folder or URL that `jobs/preprocess.py` wrote, with episodes."""
    output: str = ""
    """Folder or URL of the run; the same one again resumes."""
    video_model: str = ""
    """A run of jobs/stage1.py, or a folder, URL or hub id of a diffusers Stable Video Diffusion pipeline."""
    codec: str = ""
    """Another VAE than the video model's own: folder, URL or hub id."""
    text_encoder: str = ""
    """Hub id or folder of CLIP's text model, or `tiny`, for goals; the one of the data by default."""
    preset: Literal["", "tiny"] = ""
    """`tiny`: a small Video Former and denoiser that train in minutes on a CPU."""
    normalise_actions: Kind = "min_max"
    """How actions are brought to the range that is learned, for each dataset; stored with the policy."""
    normalise_proprio: Kind = "mean_std"
    """Likewise, proprioception."""
    cache_features: bool = False
    """Keep features on the worker's disk, for small sets: size and gain are told before. Needs a fixed noise
    (`features.seed`)."""
    feature_folder: str = ""
    """Folder on the worker's disk where they are kept for further runs on the same data and video model; by default one
    below TMPDIR, removed when the run ends."""
    model: DenoiserConfig = field(default_factory=DenoiserConfig)
    """How a UNet without `vpp.json` is called, such as the authors' `svd-robot` with `position_encode`."""
    features: FeatureSettings = field(default_factory=FeatureSettings)
    """What is taken from the video model."""
    video_former: VideoFormerConfig = field(default_factory=VideoFormerConfig)
    """What condenses it."""
    denoiser: ActionDenoiserConfig = field(default_factory=ActionDenoiserConfig)
    """What turns it into actions; sizes of actions, tokens and proprioception follow from the data."""
    objective: ActionObjectiveSettings = field(default_factory=ActionObjectiveSettings)
    """The training distribution of noise levels."""
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    """How actions are drawn, in validation and by the policy that is written."""
    loading: WindowSettings = field(default_factory=WindowSettings)
    """Which windows are drawn and how they are read."""
    train: TrainSettings = field(default_factory=lambda: _PUBLISHED_TRAINING)
    """How long, how large and how often."""
    validation: PolicyValidationSettings = field(default_factory=PolicyValidationSettings)
    """How the policy is judged in training."""
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    """How many workers train together."""

    def __post_init__(self) -> None:
        if self.train.batch_size < self.workers.num_workers:
            raise ValueError(
                f"expected train.batch_size of at least one sample a worker, found {self.train.batch_size} samples for "
                f"{self.workers.num_workers} workers"
            )
        if self.train.parallel == "fsdp":
            raise ValueError(
                "train.parallel: expected ddp, since a policy of 40 M weights needs no sharding, found fsdp"
            )
        if self.cache_features and self.features.seed is None:
            raise ValueError("cache_features: expected a fixed noise, found features.seed None, which draws anew")


def preset_settings(settings: Stage2Settings) -> Stage2Settings:
    """The defaults that go with a preset."""
    if settings.preset != "tiny":
        return Stage2Settings()
    return Stage2Settings(
        preset="tiny",
        video_former=VideoFormerConfig(
            width=128, depth=2, heads=4, head_width=32, tokens_per_frame=8, token_positions=True
        ),
        denoiser=ActionDenoiserConfig(
            width=128,
            heads=4,
            encoder_layers=1,
            decoder_layers=2,
            attention_dropout=0.0,
            residual_dropout=0.0,
            modulation_start=1.0,
        ),
        objective=ActionObjectiveSettings(sigma_log_mean=math.log(2), sigma_log_scale=1.0, num_draws=4),
        sampler=SamplerSettings(sigma_min=5.0),
        cache_features=True,
        train=TrainSettings(
            steps=300,
            batch_size=16,
            micro_batch_size=16,
            gradient_checkpointing=False,
            ema_decay=0.99,
            checkpoint_every=100,
            validate_every=100,
            optimizer=OptimizerSettings(learning_rate=1e-3, warmup_steps=20, weight_decay=0.05, beta2=0.99),
        ),
    )
