"""A video model small enough for tests, in the folder that stage 1 leaves."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder

from vpp.video.denoiser import DenoiserConfig
from vpp.video.svd import ModelDescription, save_pipeline, unet_from_scratch
from vpp.video.vae import codec_id

TEXT_ENCODER = "tiny (random CLIP, seed 0)"


def write_video_model(folder: Path, num_frames: int = 2) -> str:
    """A run of stage 1 with random weights below `folder`; returns the id of its VAE."""
    torch.manual_seed(0)
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=(32,) * 4, layers_per_block=1
    )
    codec = codec_id(vae, "tiny-vae")
    config = DenoiserConfig(anchor="first_frame", num_frames=num_frames)
    description = ModelDescription(denoiser=config, text_encoder=TEXT_ENCODER, latent_codec=codec)
    save_pipeline(str(folder / "model"), unet_from_scratch("tiny", num_frames), vae, description)
    return codec
