"""Trains a small VAE on clips, in minutes on a CPU: latents of the shape of SVD's where its weights are not at hand.

The model is diffusers' `AutoencoderKLTemporalDecoder`, 8 times smaller latents, 4 channels. Loss: L1 of the pixels plus
a small KL term (Kingma and Welling, arXiv 1312.6114; weighted as in latent diffusion, arXiv 2112.10752), no critic. It
sees single frames, whole ones by default: group norms average over a picture, so a VAE that is trained on small crops
gets the colours of whole frames wrong. The decoder's layers along time are the identity and stay so: half the time a
step would take, for pictures that a short training would not make better.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn
from tqdm import tqdm

from schemas.errors import UsageError
from vpp.video.model_folder import INDEX, published

_MOVES = 25  # levels of 255; above what compression alone changes from frame to frame
_WARM_UP = 20
_REPORT_EVERY = 20
_MEASURED_FRAMES = 64


@dataclass(frozen=True)
class CodecSettings:
    """How the VAE looks and is trained.

    Raises:
        ValueError: If a value is outside its range.
    """

    channels: tuple[int, int, int, int] = (32, 64, 64, 64)
    """Of the four levels, the finest first; multiples of 32."""
    steps: int = 600
    """Updates of the weights."""
    batch_size: int = 1
    """Crops of an update."""
    crop_px: int = 0
    """Height and width of a crop, a multiple of 8; 0 takes whole frames."""
    motion_weight: float = 4.0
    """How much more a pixel counts that differs from another frame of its clip: what moves is what a video model has to
    predict, and it is small."""
    learning_rate: float = 1.5e-3
    """Of Adam, after a short warm-up; it falls to 0 as a cosine."""
    kl_weight: float = 3e-4
    """Of the KL term's mean over the latents' elements; higher means smoother latents and coarser pictures."""
    clips_in_memory: int = 64
    """A step takes one new clip and draws its crops from the latest so many."""
    bf16: bool = True
    """Compute in bfloat16; weights stay float32."""
    seed: int = 0
    """Decides initial weights, crops and noise."""

    def __post_init__(self) -> None:
        if len(self.channels) != 4 or any(width < 32 or width % 32 for width in self.channels):
            raise ValueError(f"expected channels: four multiples of 32, found {self.channels}")
        if self.crop_px < 0 or self.crop_px % 8:
            raise ValueError(f"expected crop_px a multiple of 8, found {self.crop_px}")
        if min(self.steps, self.batch_size, self.clips_in_memory) < 1:
            raise ValueError("expected steps, batch_size and clips_in_memory of at least 1")
        if self.learning_rate <= 0 or min(self.kl_weight, self.motion_weight) < 0:
            raise ValueError("expected learning_rate > 0, kl_weight >= 0 and motion_weight >= 0")


def new_codec(settings: CodecSettings) -> AutoencoderKLTemporalDecoder:
    """An untrained VAE whose decoder leaves time alone; the same for the same settings."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        vae = AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 4,
            block_out_channels=settings.channels,
            layers_per_block=1,
            sample_size=256,
            scaling_factor=1.0,
        )
    for name, module in vae.decoder.named_modules():
        if name.endswith("temporal_res_block"):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    nn.init.dirac_(vae.decoder.time_conv_out.weight)
    nn.init.zeros_(vae.decoder.time_conv_out.bias)
    return vae


def train_codec(
    clips: Iterable[np.ndarray],
    settings: CodecSettings,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
    device: torch.device | None = None,
) -> AutoencoderKLTemporalDecoder:
    """Trains the VAE and sets its scaling factor, so that scaled latents have standard deviation 1.

    Args:
        clips: RGB frames uint8 `[T, H, W, 3]` of clips. Where they end before the last step, the clips in memory go on
            being used.
        settings: How.
        report: Is told the steps done and the losses from time to time, instead of a progress bar.
        device: Where to train; the GPU where there is one by default.

    Raises:
        UsageError: If there are no clips, or they are smaller than a crop.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vae = new_codec(settings).to(device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings.steps))
    rng = np.random.default_rng(settings.seed)
    noise = torch.Generator(device).manual_seed(settings.seed)
    latest: deque[np.ndarray] = deque(maxlen=settings.clips_in_memory)
    source = _checked(clips, settings)
    with tqdm(total=settings.steps, desc="codec", unit=" step", mininterval=1.0, disable=report is not None) as bar:
        for step in range(1, settings.steps + 1):
            latest.extend(itertools.islice(source, 1))
            if not latest:
                raise UsageError("codec: expected clips to train on, found none")
            drawn = [draw_crop(latest[rng.integers(len(latest))], settings, rng) for _ in range(settings.batch_size)]
            crops, moves = (torch.from_numpy(np.stack(arrays)).to(device) for arrays in zip(*drawn, strict=True))
            l1, kl = _losses(vae, _pixels(crops), 1.0 + settings.motion_weight * moves[:, None], settings, noise)
            torch.autograd.backward(l1 + settings.kl_weight * kl)
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            bar.update()
            if report and (step % _REPORT_EVERY == 0 or step == settings.steps):
                report(step, {"l1": float(l1.detach()), "kl": float(kl.detach())})
    vae.eval().requires_grad_(False)
    vae.register_to_config(scaling_factor=1.0 / max(_latent_std(vae, list(latest)), 1e-6))
    return vae


def save_codec(url: str, vae: AutoencoderKLTemporalDecoder) -> None:
    """Writes a VAE as a diffusers folder, complete or absent; `vpp.video.vae.load_vae` reads it.

    Args:
        url: Folder or URL. What is there already is replaced.
        vae: The VAE; its weights are written in their own type, as safetensors.
    """
    with published(url) as staged:
        vae.save_pretrained(Path(staged) / "vae")
        index = {"_class_name": "StableVideoDiffusionPipeline", "vae": ["diffusers", type(vae).__name__]}
        (Path(staged) / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def draw_crop(clip: np.ndarray, settings: CodecSettings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A crop of a frame, uint8 `[crop_px, crop_px, 3]`, and where another frame differs, bool `[crop_px, crop_px]`."""
    size = settings.crop_px or min(clip.shape[1:3])
    here, there = rng.choice(len(clip), size=2, replace=len(clip) < 2)
    top, left = rng.integers(0, [clip.shape[1] - size + 1, clip.shape[2] - size + 1])
    window = np.s_[top : top + size, left : left + size]
    crop = clip[here][window]
    difference = np.abs(crop.astype(np.int16) - clip[there][window]).max(axis=-1)
    return crop, difference > _MOVES


def _checked(clips: Iterable[np.ndarray], settings: CodecSettings) -> Iterator[np.ndarray]:
    for clip in clips:
        if len(clip) < 1 or min(clip.shape[1:3]) < settings.crop_px:
            raise UsageError(
                f"codec: expected clips of frames of at least {settings.crop_px} pixels, found {clip.shape}; "
                "choose a smaller crop_px"
            )
        yield clip


def _pixels(frames: torch.Tensor) -> torch.Tensor:
    """`[N, 3, H, W]` in [-1, 1] of uint8 `[N, H, W, 3]`."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1.0 + float(np.cos(np.pi * step / steps)))


def _losses(
    vae: AutoencoderKLTemporalDecoder,
    pixels: torch.Tensor,
    weights: torch.Tensor,
    settings: CodecSettings,
    noise: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted mean L1 of the pixels, and KL divergence from the standard normal distribution, mean over elements."""
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=settings.bf16):
        posterior = vae.encode(pixels).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        latents = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=noise, device=mean.device)
        decoded = decode_frames(vae, latents)
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
    return (weights * (decoded.float() - pixels).abs()).sum() / (3.0 * weights.sum()), kl


def decode_frames(vae: AutoencoderKLTemporalDecoder, latents: torch.Tensor) -> torch.Tensor:
    """What the decoder makes of `[N, 4, h, w]` without its layers along time, `[N, 3, 8 h, 8 w]`.

    The same as `vae.decode` while those layers are the identity.
    """
    decoder = vae.decoder
    hidden = decoder.mid_block.resnets[0].spatial_res_block(decoder.conv_in(latents), None)
    for attention, resnet in zip(decoder.mid_block.attentions, decoder.mid_block.resnets[1:], strict=False):
        hidden = resnet.spatial_res_block(attention(hidden), None)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            hidden = resnet.spatial_res_block(hidden, None)
        for upsampler in block.upsamplers or []:
            hidden = upsampler(hidden)
    decoded: torch.Tensor = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(hidden)))
    return decoded


@torch.inference_mode()
def _latent_std(vae: AutoencoderKLTemporalDecoder, clips: Sequence[np.ndarray]) -> float:
    """Standard deviation of the posterior's mode over whole frames that are spread over the clips."""
    device = next(vae.parameters()).device
    frames = [(clip, index) for clip in clips for index in range(len(clip))]
    chosen = frames[:: max(1, len(frames) // _MEASURED_FRAMES)]
    latents = [
        vae.encode(_pixels(torch.from_numpy(clip[index][None]).to(device))).latent_dist.mode() for clip, index in chosen
    ]
    return float(torch.cat(latents).std())
