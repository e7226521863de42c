"""Settings of stage 1, and the defaults that go with a preset."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vpp.data.settings import DataSettings
from vpp.train.engine import TrainSettings
from vpp.train.optimizer import OptimizerSettings
from vpp.train.ray_train import WorkerSettings
from vpp.train.video_validation import ValidationSettings
from vpp.video.codec_training import CodecSettings
from vpp.video.denoiser import DenoiserConfig
from vpp.video.image_encoder import PUBLISHED_IMAGE_ENCODER
from vpp.video.objective import ObjectiveSettings

PUBLISHED_BASE = "stabilityai/stable-video-diffusion-img2vid"


@dataclass(frozen=True)
class Stage1Settings:
    """Everything that a run follows from.

    Raises:
        ValueError: If a value is outside its range.
    """

    data: str = ""
    """Folder or URL that `jobs/preprocess.py` wrote."""
    output: str = ""
    """Folder or URL of the run; the same one again resumes."""
    preset: Literal["", "tiny", "small", "svd"] = ""
    """Size of a model from scratch; it also sets the defaults of `model`, `objective` and `train`. Empty fine-tunes
    `base`."""
    base: str = PUBLISHED_BASE
    """Folder, URL or hub id of the model that is fine-tuned; not used with a preset."""
    codec: str = ""
    """What encodes frames in training: a VAE's folder or hub id, or `train` for a small one that is trained first on
    the same clips. Empty reads stored latents, and where there are none, encodes with the base's own VAE."""
    image_encoder: str = PUBLISHED_IMAGE_ENCODER
    """Hub id or folder of CLIP's image encoder, or `tiny`. It embeds another camera's picture, and is used only with
    `model.image_condition`."""
    lora_rank: int = 0
    """Rank of low-rank adapters, which are then trained instead of all weights; 0 trains all."""
    model: DenoiserConfig = field(default_factory=DenoiserConfig)
    """How the UNet is called; what the base's `vpp.json` says goes first."""
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    """The training distribution."""
    loading: DataSettings = field(default_factory=DataSettings)
    """Which clips, and how they are mixed."""
    train: TrainSettings = field(default_factory=TrainSettings)
    """Length, batch, checkpoints."""
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    """What a validation looks at."""
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    """How many processes."""
    small_codec: CodecSettings = field(default_factory=CodecSettings)
    """The small VAE of `--codec train`."""

    def __post_init__(self) -> None:
        if self.train.batch_size < self.workers.num_workers:
            raise ValueError(
                f"expected train.batch_size of at least one sample a worker, found {self.train.batch_size} samples for "
                f"{self.workers.num_workers} workers"
            )
        if self.lora_rank < 0:
            raise ValueError(f"expected lora_rank >= 0, found {self.lora_rank}")
        if self.lora_rank and self.preset:
            raise ValueError("lora_rank adapts trained weights: expected a base, found a preset from scratch")


def preset_settings(settings: Stage1Settings) -> Stage1Settings:
    """The defaults that go with a preset."""
    if settings.preset not in ("tiny", "small"):
        return Stage1Settings(preset=settings.preset)
    return Stage1Settings(
        preset=settings.preset,
        model=DenoiserConfig(anchor="first_frame", sigma_data=0.5),
        objective=ObjectiveSettings(sigma_log_mean=0.5),
        train=TrainSettings(
            steps=200 if settings.preset == "tiny" else 600,
            batch_size=4,
            micro_batch_size=4,
            gradient_checkpointing=False,
            ema_decay=0.99,
            checkpoint_every=100,
            validate_every=100 if settings.preset == "tiny" else 400,
            optimizer=OptimizerSettings(
                learning_rate=1e-3 if settings.preset == "tiny" else 3e-4, warmup_steps=20, beta2=0.99
            ),
        ),
        validation=ValidationSettings(num_clips=8, num_videos=2),
        small_codec=CodecSettings(steps=150 if settings.preset == "tiny" else 600),
    )
