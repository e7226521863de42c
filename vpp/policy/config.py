"""What a policy's weights mean: everything that its folder tells beside them."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.shard import FRAME_SIZE_PX
from vpp.policy.action_denoiser import ActionDenoiserConfig
from vpp.policy.video_former import VideoFormerConfig
from vpp.video.feature_settings import FeatureSettings


@dataclass(frozen=True)
class SamplerSettings:
    """How actions are drawn; the defaults are those of the published evaluation.

    Raises:
        ValueError: If a value is outside its range.
    """

    num_steps: int = 10
    """DDIM steps."""
    sigma_min: float = 1.0
    """Last noise level before 0."""
    sigma_max: float = 80.0
    """First noise level."""
    num_executed: int = 0
    """Actions of a chunk that are carried out before the next observation is looked at; 0 for all."""
    seed: int | None = 0
    """Of the noise that actions are drawn from, counted from `reset()`; None draws anew each time, as published."""

    def __post_init__(self) -> None:
        if not (self.num_steps >= 1 and 0 < self.sigma_min <= self.sigma_max and self.num_executed >= 0):
            raise ValueError(
                "expected num_steps >= 1, 0 < sigma_min <= sigma_max and num_executed >= 0, found "
                f"{self.num_steps}, {self.sigma_min}, {self.sigma_max} and {self.num_executed}"
            )


@dataclass(frozen=True)
class PolicyConfig:
    """What `config.json` holds."""

    cameras: tuple[str, ...] = ()
    """Views that the policy sees, in order."""
    frame_size: int = FRAME_SIZE_PX
    """Height and width of their pictures."""
    video_model: str = ""
    """Folder, URL or hub id of the video model."""
    video_model_hash: str = ""
    """Of the weights that are used of it; empty does not check them."""
    codec: str = ""
    """Folder, URL or hub id of the VAE; empty for the one in the video model's folder."""
    text_encoder: str = ""
    """Hub id or folder of CLIP's text model, or `tiny`."""
    features: FeatureSettings = field(default_factory=FeatureSettings)
    """What is taken from the video model."""
    num_features: int = 2560
    """Channels of the features."""
    num_frames: int = 16
    """Frames of the features."""
    num_tokens: int = 512
    """Tokens of a frame of the features, all views together."""
    video_former: VideoFormerConfig = field(default_factory=VideoFormerConfig)
    """What condenses them."""
    denoiser: ActionDenoiserConfig = field(default_factory=ActionDenoiserConfig)
    """What turns tokens into actions."""
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    """How actions are drawn."""
    datasets: tuple[str, ...] = ()
    """Datasets whose normalisation is stored with the weights."""
    trained_by: str = ""
    """Step and commit of the run that wrote it, or where it was imported from."""
