"""The SVD VAE's encoder: 256x256 frames to scaled latents of 4x32x32, the mode of the posterior.

Source: diffusers' `AutoencoderKLTemporalDecoder`, scaling factor 0.18215 (arXiv 2412.14803, published code).
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder

from schemas.encoder import STAND_IN
from vpp.video.vae import codec_id, encode_pixels, load_vae, to_pixels

_STAND_IN_NAME = f"{STAND_IN} (random VAE, seed 0)"
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
        self._vae.encoder.to(memory_format=torch.channels_last)  # a third less time on a CPU

    @torch.inference_mode()
    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Scaled latents float16 `[N, 4, H/8, W/8]` of RGB frames uint8 `[N, H, W, 3]`."""
        latents = encode_pixels(self._vae, to_pixels(torch.from_numpy(frames).to(self._device)))
        result: np.ndarray = latents.to(torch.float16).cpu().numpy()
        return result


def load_latent_codec(name: str) -> SvdLatentCodec:
    """Loads the VAE.

    Args:
        name: A diffusers Stable Video Diffusion folder, URL or hub id (its `vae/`), a local folder with the VAE itself,
            or `tiny`: a small random VAE of the same latent shape with a fixed seed; a stand-in for machines without
            weights.

    Raises:
        UsageError: If there is no such model.
    """
    is_stand_in = name == STAND_IN
    vae = _stand_in_vae() if is_stand_in else load_vae(name)
    return SvdLatentCodec(vae, codec_id(vae, _STAND_IN_NAME if is_stand_in else name), is_stand_in)


def _stand_in_vae() -> AutoencoderKLTemporalDecoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=(32,) * 4, layers_per_block=1
        )
