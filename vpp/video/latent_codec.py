"""The SVD VAE's encoder: 256x256 frames to scaled latents of 4x32x32, the mode of the posterior.

Source: diffusers' `AutoencoderKLTemporalDecoder`, scaling factor 0.18215 (arXiv 2412.14803, published code).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder

from schemas.errors import UsageError

STAND_IN = "tiny"
_SEED = 0


class SvdLatentCodec:
    """Implements `schemas.encoder.LatentCodec`.

    Args:
        vae: The VAE; only its encoder is used.
        model_id: Name and revision for the manifest.
        is_stand_in: True for random weights.
    """

    def __init__(self, vae: AutoencoderKLTemporalDecoder, model_id: str, is_stand_in: bool) -> None:
        self.model_id = model_id
        self.is_stand_in = is_stand_in
        self.scaling_factor = float(vae.config.scaling_factor)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._vae = vae.eval().requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Scaled latents float16 `[N, 4, H/8, W/8]` of RGB frames uint8 `[N, H, W, 3]`."""
        pixels = torch.from_numpy(frames).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        latents = self._vae.encode(pixels).latent_dist.mode() * self.scaling_factor
        result: np.ndarray = latents.to(torch.float16).cpu().numpy()
        return result


def load_latent_codec(name: str) -> SvdLatentCodec:
    """Loads the VAE.

    Args:
        name: A diffusers Stable Video Diffusion folder or hub id (its `vae/`), a folder with the VAE itself, or
            `tiny`: a small random VAE of the same latent shape with a fixed seed; a stand-in for machines without
                weights.

    Raises:
        UsageError: If there is no such model.
    """
    if name == STAND_IN:
        return SvdLatentCodec(_stand_in_vae(), "tiny (random VAE, seed 0)", is_stand_in=True)
    subfolder = None if (Path(name) / "config.json").is_file() else "vae"
    try:
        vae = AutoencoderKLTemporalDecoder.from_pretrained(name, subfolder=subfolder)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"--latents {name}: expected none, a diffusers SVD folder or hub id, or {STAND_IN}: {reason}"
        ) from error
    return SvdLatentCodec(vae, name, is_stand_in=False)


def _stand_in_vae() -> AutoencoderKLTemporalDecoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=(32,) * 4, layers_per_block=1
        )
