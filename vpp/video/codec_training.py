"""Trains a small VAE on clips, in minutes on a CPU: latents of the shape of SVD's where its weights are not at hand.

The model is diffusers' `AutoencoderKLTemporalDecoder`, 8 times smaller latents, 4 channels. Loss: L1 of the pixels plus
a small KL term (Kingma and Welling, arXiv 1312.6114; weights as in latent diffusion, arXiv 2112.10752), no critic. It
is trained on small crops, around what moves, since a network of convolutions then serves whole frames.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch.nn import functional
from tqdm import tqdm

from schemas.errors import UsageError
from vpp.video.model_folder import INDEX, published
from vpp.video.plane_convolution import use_plane_convolutions

_CANDIDATES = 4  # crops of which the one that moves most is taken
_WARM_UP = 20
_REPORT_EVERY = 20
_MAX_MEASURED_FRAMES = 64


@dataclass(frozen=True)
class CodecSettings:
    """How the VAE looks and is trained.

    Attributes:
        channels: Of the encoder's and decoder's four levels, the finest first; multiples of 32 (group norms).
        steps: Steps of the optimiser.
        runs_per_step: Runs of frames in a batch.
        run_frames: Frames of a run, one after the other in a clip; the decoder looks along them.
        crop_px: Height and width of a crop, a multiple of 8.
        whole_steps: The last steps, which see whole frames, one run each.
        learning_rate: Of Adam, after a short warm-up; it falls to 0 as a cosine.
        kl_weight: Of the KL term's mean over the latents' elements; higher means smoother latents and coarser pictures.
        clips_in_memory: A step takes one new clip and draws its crops from the latest so many.
        bf16: Compute in bfloat16; weights stay float32.
        seed: Decides initial weights, crops and noise.
    """

    channels: tuple[int, ...] = (32, 32, 64, 64)
    steps: int = 1500
    runs_per_step: int = 2
    run_frames: int = 4
    crop_px: int = 64
    whole_steps: int = 0
    learning_rate: float = 1e-3
    kl_weight: float = 1e-3
    clips_in_memory: int = 64
    bf16: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.channels) != 4 or any(width < 32 or width % 32 for width in self.channels):
            raise ValueError(f"expected channels: four multiples of 32, found {self.channels}")
        if self.crop_px < 8 or self.crop_px % 8:
            raise ValueError(f"expected crop_px a multiple of 8, found {self.crop_px}")
        if min(self.steps, self.runs_per_step, self.run_frames, self.clips_in_memory) < 1:
            raise ValueError("expected steps, runs_per_step, run_frames and clips_in_memory of at least 1")
        if not (0 <= self.whole_steps <= self.steps and self.learning_rate > 0 and self.kl_weight >= 0):
            raise ValueError("expected 0 <= whole_steps <= steps, learning_rate > 0 and kl_weight >= 0")


def new_codec(settings: CodecSettings) -> AutoencoderKLTemporalDecoder:
    """An untrained VAE, the same for the same settings."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 4,
            block_out_channels=settings.channels,
            layers_per_block=1,
            sample_size=256,
            scaling_factor=1.0,
            force_upcast=False,
        )


def train_codec(
    clips: Iterable[np.ndarray],
    settings: CodecSettings,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
    device: torch.device | None = None,
) -> AutoencoderKLTemporalDecoder:
    """Trains the VAE and sets its scaling factor, so that scaled latents have standard deviation 1.

    Args:
        clips: RGB frames uint8 `[T, H, W, 3]` of clips of one size, T at least `run_frames`. Where they end before the
            last step, the clips in memory go on being used.
        settings: How.
        report: Is told the steps done and the losses from time to time, instead of a progress bar.
        device: Where to train; the GPU where there is one by default.

    Raises:
        UsageError: If there are no clips, or they are too short or small.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vae = new_codec(settings).to(device)
    use_plane_convolutions(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings.steps))
    rng = np.random.default_rng(settings.seed)
    noise = torch.Generator(device).manual_seed(settings.seed)
    latest: deque[np.ndarray] = deque(maxlen=settings.clips_in_memory)
    source = _checked(clips, settings)
    with tqdm(
        range(settings.steps), desc="codec", unit=" step", mininterval=1.0, disable=report is not None
    ) as progress:
        for step in progress:
            latest.extend(itertools.islice(source, 1))
            if not latest:
                raise UsageError("codec: expected clips to train on, found none")
            whole = step >= settings.steps - settings.whole_steps
            batch = torch.from_numpy(_draw(latest, settings, rng, whole)).to(device)
            losses = _step(vae, batch, settings, noise)
            torch.autograd.backward(losses["l1"] + settings.kl_weight * losses["kl"])
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            if (step + 1) % _REPORT_EVERY == 0 or step + 1 == settings.steps:
                values = {name: float(value.detach()) for name, value in losses.items()}
                progress.set_postfix({name: f"{value:.4f}" for name, value in values.items()}, refresh=False)
                if report:
                    report(step + 1, values)
    vae.eval().requires_grad_(False)
    vae.register_to_config(scaling_factor=1.0 / max(_latent_std(vae, latest), 1e-6))
    return vae


def save_codec(url: str, vae: AutoencoderKLTemporalDecoder) -> None:
    """Writes a VAE as a diffusers folder, complete or absent; `vpp.video.svd.load_vae` reads it.

    Args:
        url: Folder or URL. What is there already is replaced.
        vae: The VAE; its weights are written in their own type, as safetensors.
    """
    with published(url) as staged:
        vae.save_pretrained(Path(staged) / "vae")
        index = {"_class_name": "StableVideoDiffusionPipeline", "vae": ["diffusers", type(vae).__name__]}
        (Path(staged) / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def _rate(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1.0 + float(np.cos(np.pi * step / steps)))


def _checked(clips: Iterable[np.ndarray], settings: CodecSettings) -> Iterator[np.ndarray]:
    for clip in clips:
        if clip.shape[0] < settings.run_frames or min(clip.shape[1:3]) < settings.crop_px:
            raise UsageError(
                f"codec: expected clips of at least {settings.run_frames} frames of {settings.crop_px} pixels, "
                f"found {clip.shape}"
            )
        yield clip


def _draw(clips: deque[np.ndarray], settings: CodecSettings, rng: np.random.Generator, whole: bool) -> np.ndarray:
    """A batch uint8 `[runs * run_frames, H, W, 3]`."""
    runs = [_draw_run(clips[rng.integers(len(clips))], settings, rng, whole) for _ in range(settings.runs_per_step)]
    return np.concatenate(runs[:1] if whole else runs)


def _draw_run(clip: np.ndarray, settings: CodecSettings, rng: np.random.Generator, whole: bool) -> np.ndarray:
    """Frames in a row, cut out where they move more than at other places."""
    first = rng.integers(len(clip) - settings.run_frames + 1)
    run = clip[first : first + settings.run_frames]
    if whole:
        return run
    size = settings.crop_px
    places = rng.integers(0, [run.shape[1] - size + 1, run.shape[2] - size + 1], (_CANDIDATES, 2))
    crops = [run[:, top : top + size, left : left + size] for top, left in places]
    return max(crops, key=lambda crop: float(np.abs(crop[-1].astype(np.int16) - crop[0]).mean()))


def _step(
    vae: AutoencoderKLTemporalDecoder, frames: torch.Tensor, settings: CodecSettings, noise: torch.Generator
) -> dict[str, torch.Tensor]:
    pixels = frames.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=settings.bf16):
        posterior = vae.encode(pixels).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        latents = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=noise, device=mean.device)
        decoded = vae.decode(latents, num_frames=settings.run_frames).sample
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
    return {"l1": functional.l1_loss(decoded.float(), pixels), "kl": kl}


@torch.inference_mode()
def _latent_std(vae: AutoencoderKLTemporalDecoder, clips: Iterable[np.ndarray]) -> float:
    """Standard deviation of the posterior's mode over whole frames, a few of each clip."""
    device = next(vae.parameters()).device
    latents = []
    clips = list(clips)[-_MAX_MEASURED_FRAMES:]
    for clip in clips:
        chosen = clip[:: max(1, len(clip) * len(clips) // _MAX_MEASURED_FRAMES)]
        for frame in chosen:
            pixels = torch.from_numpy(frame[None]).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1.0
            latents.append(vae.encode(pixels).latent_dist.mode())
    return float(torch.cat(latents).std())
