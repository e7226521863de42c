"""Stable Video Diffusion's VAE: loading it, pixels to scaled latents and back, and the id of a codec.

Source: diffusers' `AutoencoderKLTemporalDecoder`; latents are the mode of the posterior times the scaling factor.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn

from schemas.errors import UsageError
from vpp.video.model_folder import downloaded, first_line, local_copy, variant
from vpp.video.partial_weights import load_by_name


def load_vae(name: str, *, encoder_only: bool = False) -> AutoencoderKLTemporalDecoder:
    """The VAE of a Stable Video Diffusion folder, URL or hub id (its `vae/`), or of a local folder that is the VAE.

    Args:
        name: Folder, URL or hub id.
        encoder_only: Leave the decoder out: its weights are not read.

    Raises:
        UsageError: If there is none.
    """
    load = _load_encoder if encoder_only else _load_whole
    is_vae = (Path(name) / "config.json").is_file()
    with contextlib.nullcontext(name) if is_vae else local_copy(name, "vae") as folder:
        try:
            return load(folder, None if is_vae else "vae")
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UsageError(
                f"latent codec {name}: expected a diffusers SVD folder with safetensors, a hub id or a VAE folder: "
                f"{first_line(error)}"
            ) from error


def _load_whole(folder: str, subfolder: str | None) -> AutoencoderKLTemporalDecoder:
    return AutoencoderKLTemporalDecoder.from_pretrained(
        folder,
        subfolder=subfolder,
        torch_dtype=torch.float32,
        use_safetensors=True,
        **variant(folder, subfolder or ""),
    )


def _load_encoder(name: str, subfolder: str | None) -> AutoencoderKLTemporalDecoder:
    folder = downloaded(name, "vae")
    config = AutoencoderKLTemporalDecoder.load_config(folder, subfolder=subfolder)
    with torch.device("meta"):
        vae = AutoencoderKLTemporalDecoder.from_config(config)
        vae.decoder = nn.Identity()
    missing = load_by_name(vae, folder, subfolder)
    if missing:
        raise ValueError(f"found no weights for {len(missing)} parameters such as {min(missing)}")
    return vae.eval()


def codec_id(vae: AutoencoderKLTemporalDecoder, name: str) -> str:
    """`name@revision`, where the revision is 12 hex digits of the encoder's weights and the scaling factor.

    Two copies of a codec share the revision; one that was trained again under the same name does not.
    """
    digest = hashlib.sha256(repr(float(vae.config.scaling_factor)).encode())
    for part, weights in sorted(vae.state_dict().items()):
        if not part.startswith("decoder."):
            digest.update(part.encode())
            digest.update(weights.detach().float().cpu().contiguous().numpy().tobytes())
    return f"{name}@{digest.hexdigest()[:12]}"


def to_pixels(frames: torch.Tensor) -> torch.Tensor:
    """What the VAE reads, float32 `[N, 3, H, W]` from -1 to 1, of RGB frames uint8 `[N, H, W, 3]`."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1.0


@torch.no_grad()
def encode_pixels(vae: AutoencoderKLTemporalDecoder, pixels: torch.Tensor) -> torch.Tensor:
    """Scaled latents float32 `[N, 4, H/8, W/8]` of pixels `[N, 3, H, W]`: the mode of the posterior."""
    with torch.autocast(pixels.device.type, enabled=False):  # as stored latents are made, whatever the training does
        latents: torch.Tensor = vae.encode(pixels).latent_dist.mode().float() * vae.config.scaling_factor
    return latents


@torch.no_grad()
def encode_frames(vae: AutoencoderKLTemporalDecoder, frames: torch.Tensor, *, chunk_frames: int = 8) -> torch.Tensor:
    """Scaled latents float32 `[B, T, 4, H/8, W/8]` of RGB frames uint8 `[B, T, H, W, 3]`: the mode of the posterior.

    Args:
        vae: The VAE of the model.
        frames: Pixels.
        chunk_frames: Frames that are encoded at a time; bounds the memory.
    """
    device = next(vae.parameters()).device
    latents = []
    for chunk in torch.split(frames.flatten(0, 1), chunk_frames):
        latents.append(encode_pixels(vae, to_pixels(chunk.to(device))))
    encoded = torch.cat(latents)
    return encoded.reshape(*frames.shape[:2], *encoded.shape[1:])


@torch.no_grad()
def decode_latents(vae: AutoencoderKLTemporalDecoder, latents: torch.Tensor, *, chunk_frames: int = 8) -> torch.Tensor:
    """RGB frames uint8 `[B, T, H, W, 3]` on the CPU of scaled latents `[B, T, 4, H/8, W/8]`.

    Args:
        vae: The VAE of the model.
        latents: Scaled latents.
        chunk_frames: Neighbouring frames of a clip that are decoded together; bounds the memory. The decoder looks
            at neighbours in time only within them.
    """
    parameter = next(vae.parameters())
    clips = []
    with torch.autocast(parameter.device.type, enabled=False):
        for clip in latents.to(parameter) / vae.config.scaling_factor:
            frames = [
                ((vae.decode(chunk, num_frames=len(chunk)).sample.float() + 1.0) * 127.5).round().clamp(0, 255)
                for chunk in torch.split(clip, chunk_frames)
            ]
            clips.append(torch.cat(frames).to("cpu", torch.uint8).permute(0, 2, 3, 1))
    return torch.stack(clips)
