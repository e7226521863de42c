"""The frozen half of a policy: from camera pictures and a caption to predictive features."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn

from vpp.video.denoiser import DenoiserConfig
from vpp.video.features import FeatureExtractor, FeatureSettings, Instruction, load_features
from vpp.video.model_folder import find_model
from vpp.video.svd import ModelDescription
from vpp.video.vae import encode_frames, load_vae


@dataclass(frozen=True, eq=False)
class Perception:
    """VAE and video model, frozen, on one device.

    Attributes:
        vae: Encodes pictures.
        extractor: The part of the video model that is used.
        description: What its folder tells of it.
    """

    vae: AutoencoderKLTemporalDecoder
    extractor: FeatureExtractor
    description: ModelDescription

    def latents(self, frames: torch.Tensor) -> torch.Tensor:
        """Scaled latents float32 `[B, V, 4, h, w]` of RGB frames uint8 `[B, V, H, W, 3]`, one for each view."""
        return encode_frames(self.vae, frames)

    def features(self, latents: torch.Tensor, instruction: Instruction) -> torch.Tensor:
        """Features `[B, T, N, C]` of scaled latents `[B, V, 4, h, w]`."""
        features: torch.Tensor = self.extractor(latents, instruction)
        return features


def load_perception(
    video_model: str, codec: str, settings: FeatureSettings, device: torch.device, fallback: DenoiserConfig
) -> Perception:
    """Loads the frozen half.

    Args:
        video_model: A run of jobs/stage1.py, or a folder, URL or hub id of a Stable Video Diffusion pipeline.
        codec: Another VAE than the one in there; empty for that one.
        settings: What is taken from the model.
        device: Where it goes.
        fallback: How a UNet without `vpp.json` is called.

    Raises:
        UsageError: If a model is missing, incomplete or of another kind.
    """
    folder = find_model(video_model)
    extractor, description = load_features(folder, settings, fallback)
    vae = load_vae(codec or folder).requires_grad_(False).eval()
    return Perception(vae.to(device), extractor.to(device), description)


def weights_hash(module: nn.Module) -> str:
    """16 hex digits that change with any weight: of names and float32 values, so that half and full precision differ
    only where the values do."""
    digest = hashlib.sha256()
    for name, weights in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(weights.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
