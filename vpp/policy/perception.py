"""The frozen half of a policy: from camera pictures and a caption to predictive features."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn

from schemas.errors import UsageError
from vpp.video.denoiser import DenoiserConfig
from vpp.video.feature_settings import FeatureSettings
from vpp.video.features import LATENT_CHANNELS, FeatureExtractor, Instruction
from vpp.video.model_folder import find_model
from vpp.video.svd import ModelDescription, load_denoiser, read_description
from vpp.video.vae import encode_frames, load_vae


@dataclass(frozen=True, eq=False)
class Perception:
    """VAE and video model, frozen, on one device.

    Attributes:
        vae: Encodes pictures.
        extractor: The part of the video model that is used.
        description: What its folder tells of it.
        hash: 16 hex digits that change with any weight that is used, whatever the type of the arithmetic.
    """

    vae: AutoencoderKLTemporalDecoder
    extractor: FeatureExtractor
    description: ModelDescription
    hash: str

    def latents(self, frames: torch.Tensor) -> torch.Tensor:
        """Scaled latents float32 `[B, V, 4, h, w]` of RGB frames uint8 `[B, V, H, W, 3]`, one for each view."""
        return encode_frames(self.vae, frames)

    def features(
        self, latents: torch.Tensor, instruction: Instruction, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Features `[B, T, N, C]` of scaled latents `[B, V, 4, h, w]`, from noise `[B, *noise_shape(V)]` if given."""
        features: torch.Tensor = self.extractor(latents, instruction, noise)
        return features

    def noise_shape(self, num_views: int) -> tuple[int, ...] | None:
        """`[V, T, 4, h, w]` where each call draws fresh noise; None where it keeps the noise of a seed, or has none."""
        extractor = self.extractor
        if extractor.unet is None or extractor.settings.seed is not None:
            return None
        return num_views, extractor.config.num_frames, LATENT_CHANNELS, *extractor.latent_size


def load_perception(
    video_model: str,
    codec: str,
    settings: FeatureSettings,
    device: torch.device,
    fallback: DenoiserConfig | None = None,
    dtype: torch.dtype | None = None,
) -> Perception:
    """Loads the frozen half, no more of it than is used.

    Args:
        video_model: A run of jobs/stage1.py, or a folder, URL or hub id of a Stable Video Diffusion pipeline.
        codec: Another VAE than the one in there; empty for that one.
        settings: What is taken from the model.
        device: Where it goes.
        fallback: How a UNet without `vpp.json` is called.
        dtype: Of the UNet's arithmetic; by default bfloat16 on a GPU and float32 on a CPU.

    Raises:
        UsageError: If a model is missing, incomplete or of another kind, or has no such up-block.
    """
    folder = find_model(video_model)
    vae = load_vae(codec or folder, encoder_only=True).requires_grad_(False).eval()
    description = read_description(folder) or ModelDescription(fallback or DenoiserConfig())
    denoiser = None
    try:
        if settings.encoder != "vae":
            denoiser, description = load_denoiser(folder, fallback, last_block=settings.last_block)
            if denoiser.config.image_condition:
                raise UsageError(
                    f"--video-model {video_model}: expected one without an image condition, since a policy's views are "
                    "all foreseen, found one that needs another camera's picture"
                )
        latent_size = (description.frame_size // 8, description.frame_size // 8)
        extractor = FeatureExtractor(denoiser, settings, latent_size).requires_grad_(False).eval()
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"--video-model {video_model}: {error}") from error
    found = _hash(vae, extractor)
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    return Perception(vae.to(device), extractor.to(device, dtype), description, found)


def _hash(*modules: nn.Module) -> str:
    """Of names and float32 values, so that half and full precision differ only where the values do."""
    digest = hashlib.sha256()
    for module in modules:
        for name, weights in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(weights.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
