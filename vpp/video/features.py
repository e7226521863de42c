"""Predictive visual representation: what the video UNet's up-blocks say in one step from pure noise.

Source: arXiv 2412.14803, section 4.2, and its public code. The UNet stops after the last block that is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import nn
from torch.nn.functional import interpolate

from vpp.diffusion.edm import preconditioning
from vpp.diffusion.sigmas import karras_sigmas
from vpp.video.conditioning import cross_attention_states, time_ids
from vpp.video.denoiser import VideoDenoiser
from vpp.video.feature_settings import FeatureSettings
from vpp.video.inference_layers import KeysValues, TimeBiases
from vpp.video.inference_unet import InferenceUnet
from vpp.video.objective import sample_generator

LATENT_CHANNELS = 4
_RANDOM_WEIGHTS_SEED = 0
_Run = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]


@dataclass(frozen=True)
class Instruction:
    """What captions and times mean to the layers of the UNet, made once for many pictures.

    Attributes:
        captions: Keys and values `[B, heads, L, C / heads]` for each attention to the caption.
        biases: With the time embedding, for each residual block; one tuple a step.
    """

    captions: tuple[KeysValues, ...] = ()
    biases: tuple[tuple[TimeBiases, ...], ...] = ()


def join_instructions(instructions: Sequence[Instruction]) -> Instruction:
    """Instructions of one model, one behind the other: the captions differ, the times are the same."""
    layers = zip(*(instruction.captions for instruction in instructions), strict=True)
    captions = tuple(
        (torch.cat([keys for keys, _ in layer]), torch.cat([values for _, values in layer])) for layer in layers
    )
    return Instruction(captions, instructions[0].biases)


def view_noise(seed: int, view: int, shape: tuple[int, ...]) -> torch.Tensor:
    """The standard normal noise that a view starts from: on the CPU, the same on every machine and in every batch.

    >>> torch.equal(view_noise(0, 1, (16, 4, 2, 2)), view_noise(0, 1, (16, 4, 2, 2)))
    True
    """
    return torch.randn(shape, generator=sample_generator(seed, 0, view, "view"))


class FeatureExtractor(nn.Module):
    """From first frames and an instruction to features, frozen: it keeps no more of the UNet than it runs.

    Args:
        denoiser: The video model, whole or cut after `settings.last_block`; None for the encoder `vae`. It is not
            changed, and shares weights: release it. Features are computed, and given out, in the type of its weights.
        settings: Which features.
        latent_size: Height and width of latents, H/8 and W/8.
        compile: Compile the UNet with `torch.compile` into CUDA graphs; None: where it runs on a GPU. Takes minutes
            at the first call, and again for another batch size.

    Raises:
        ValueError: If a block is asked for that the UNet does not have, or the size of latents cannot be halved as
            often as the UNet does.
    """

    def __init__(
        self,
        denoiser: VideoDenoiser | None,
        settings: FeatureSettings,
        latent_size: tuple[int, int] = (32, 32),
        compile: bool | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.latent_size, self._compile = settings, latent_size, compile
        self._noise: dict[int, torch.Tensor] = {}
        self.unet: InferenceUnet | None = None
        self._run: _Run | None = None
        if settings.encoder == "vae":
            return
        if denoiser is None:
            raise ValueError(f"expected a video model for the encoder {settings.encoder}, found none")
        self.config = denoiser.config
        unet = _random_like(denoiser.unet) if settings.encoder == "random" else denoiser.unet
        if max(settings.blocks) >= len(unet.up_blocks):
            raise ValueError(f"expected up-blocks from 0 to {len(unet.up_blocks) - 1}, found {settings.blocks}")
        self.unet = InferenceUnet(unet, self.config.num_frames, settings.last_block).eval()
        if any(size % self.unet.divisor for size in latent_size):
            raise ValueError(f"expected latents of sizes divisible by {self.unet.divisor}, found {latent_size}")

    @property
    def num_frames(self) -> int:
        """T of the features."""
        return 1 if self.unet is None else len(range(self.config.num_frames)[self._frames])

    @property
    def _frames(self) -> slice:
        """Which of the video model's frames are kept."""
        if self.settings.future_frames == "one":
            return slice(-1, None)
        step = self.settings.frame_step
        return slice((self.config.num_frames - 1) % step, None, step)

    @property
    def num_tokens(self) -> int:
        """Tokens of a frame of one view."""
        factor = 1.0 if self.unet is None else max(self.unet.scales[block] for block in self._blocks)
        return int(self.latent_size[0] * factor) * int(self.latent_size[1] * factor)

    @property
    def num_channels(self) -> int:
        """C of the features."""
        return LATENT_CHANNELS if self.unet is None else sum(self.unet.num_channels[block] for block in self._blocks)

    @property
    def _blocks(self) -> tuple[int, ...]:
        return self.settings.blocks if self.settings.aggregate == "all" else self.settings.blocks[-1:]

    @torch.no_grad()
    def instruct(self, text: torch.Tensor, image: torch.Tensor | None = None) -> Instruction:
        """What B instructions mean to the UNet.

        Args:
            text: CLIP's token sequences `[B, 20, 512]`.
            image: CLIP image embeddings of another camera `[B, 512]`, for a model with that condition.

        Raises:
            ValueError: If `image` is given where the model has no image condition, or missing where it has one.
        """
        if self.unet is None:
            return Instruction()
        config = self.config
        if (image is not None) != config.image_condition:
            raise ValueError(
                f"expected image={'an embedding' if config.image_condition else None}, found {type(image)}"
            )
        with torch.autocast(text.device.type, enabled=False):  # in the type of the weights, whatever the training does
            states = cross_attention_states(text.float(), position_encode=config.position_encode, image=image)
            fps = config.fps if self.settings.fps is None else self.settings.fps
            ids = time_ids(fps, config.motion_bucket_id, torch.zeros(1, device=text.device))[0]
            c_noise = preconditioning(self._sigmas(), config.sigma_data).c_noise.to(text.device)
            return Instruction(self.unet.captions(states), tuple(self.unet.biases(level, ids) for level in c_noise))

    def _sigmas(self) -> torch.Tensor:
        """Noise levels of the steps that are run."""
        if self.settings.num_steps == 1:
            return torch.tensor([self.settings.sigma])
        return karras_sigmas(self.settings.schedule_steps, sigma_max=self.settings.sigma)[: self.settings.num_steps]

    @torch.no_grad()
    def forward(
        self, first_frames: torch.Tensor, instruction: Instruction, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Features `[B, T, V * num_tokens, num_channels]`, the views' tokens one behind the other.

        Args:
            first_frames: Scaled latents of what the cameras see now `[B, V, 4, h, w]`.
            instruction: Of B captions; or of one, for all samples.
            noise: Standard normal `[B, V, T, 4, h, w]`, T being the video model's frames; that of the settings by
                default.

        Raises:
            ValueError: If the frames are not of the size that was told, or not as many as the instructions.
        """
        num_samples, num_views, *latent = first_frames.shape
        if tuple(latent) != (LATENT_CHANNELS, *self.latent_size):
            raise ValueError(f"expected latents of {(LATENT_CHANNELS, *self.latent_size)}, found {tuple(latent)}")
        if self.unet is None:
            return first_frames.flatten(3).permute(0, 1, 3, 2).reshape(num_samples, 1, -1, LATENT_CHANNELS)
        found = len(instruction.captions[0][0]) if instruction.captions else 1
        if found not in (1, num_samples):
            raise ValueError(f"expected one instruction, or one for each of {num_samples} samples, found {found}")
        if noise is None:
            noise = self._start(num_samples, num_views).to(first_frames.device)
        with torch.autocast(first_frames.device.type, enabled=False):
            features = self._denoise(first_frames.flatten(0, 1), noise.flatten(0, 1), instruction)
        by_view = features.reshape(num_samples, num_views, *features.shape[1:])
        return by_view.transpose(1, 2).flatten(2, 3)

    def _start(self, num_samples: int, num_views: int) -> torch.Tensor:
        shape = (self.config.num_frames, LATENT_CHANNELS, *self.latent_size)
        if self.settings.seed is None:
            return torch.randn(num_samples, num_views, *shape)
        if num_views not in self._noise:
            seed = self.settings.seed
            self._noise[num_views] = torch.stack([view_noise(seed, view, shape) for view in range(num_views)])
        return self._noise[num_views].expand(num_samples, -1, *shape)

    def _denoise(self, first_frame: torch.Tensor, noise: torch.Tensor, instruction: Instruction) -> torch.Tensor:
        """Features `[S, T, tokens, C]` of clips that begin with `first_frame` `[S, 4, h, w]`."""
        compiles = first_frame.is_cuda if self._compile is None else self._compile
        if self._run is None:
            self._run = torch.compile(self._step, mode="max-autotune") if compiles else self._step
        config, sigmas = self.config, self._sigmas().tolist()
        still = (first_frame / config.scaling_factor)[:, None].expand_as(noise)
        centred = noise * math.hypot(sigmas[0], config.sigma_data)  # without the anchor, to which it adds
        for sigma, following, biases in zip(sigmas, [*sigmas[1:], None], instruction.biases, strict=True):
            seen = torch.cat([centred / math.hypot(sigma, config.sigma_data), still], dim=2)
            features, output = self._run(seen, instruction.captions, biases)
            if output is not None and following is not None:
                scale = preconditioning(torch.tensor(sigma), config.sigma_data)
                denoised = float(scale.c_skip) * centred + float(scale.c_out) * output.float()
                centred = denoised + (following / sigma) * (centred - denoised)  # Euler's step, as `samplers.euler`
        return features.clone() if compiles else features  # the next run of a CUDA graph writes over its outputs

    def _step(
        self, seen: torch.Tensor, captions: Sequence[KeysValues], biases: Sequence[TimeBiases]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features `[S, T, tokens, C]`, and the UNet's output `[S, T, 4, h, w]`, of what it reads `[S, T, 8, h, w]`."""
        assert self.unet is not None
        outputs, last = self.unet(seen.permute(0, 1, 3, 4, 2).to(self.unet.dtype), captions, biases)
        kept = [outputs[block][:, self._frames].flatten(0, 1).permute(0, 3, 1, 2) for block in self._blocks]
        largest = kept[-1].shape[-2:]  # blocks grow, or stay as large
        joined = torch.cat([interpolate(output, largest) for output in kept], dim=1).permute(0, 2, 3, 1)
        features = joined.reshape(len(seen), self.num_frames, -1, self.num_channels)
        return features, None if last is None else last.permute(0, 1, 4, 2, 3)


def _random_like(unet: Any) -> UNetSpatioTemporalConditionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_WEIGHTS_SEED)
        return UNetSpatioTemporalConditionModel.from_config(unet.config).to(unet.conv_in.weight)
