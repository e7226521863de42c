"""What the video model of a policy foresees, drawn in many denoising steps, as pixels: to look at, not to act on."""

from __future__ import annotations

import numpy as np
import torch

from schemas.errors import UsageError
from vpp.sim.rollout import Moment
from vpp.video.denoiser import VideoDenoiser
from vpp.video.model_folder import find_model
from vpp.video.objective import sample_generator
from vpp.video.predict import predict_latents
from vpp.video.svd import load_denoiser
from vpp.video.text_encoder import ClipTextEncoder, load_text_encoder
from vpp.video.vae import decode_latents, encode_frames, load_vae


class Foresight:
    """A whole video model with its VAE; a policy keeps no more of them than it needs to act.

    Args:
        video_model: A run of jobs/stage1.py, or a folder, URL or hub id of a Stable Video Diffusion pipeline.
        codec: Another VAE than the one in there; empty for that one.
        text_encoder: Hub id or folder of CLIP's text encoder, or `tiny`.
        num_steps: Denoising steps.
        seed: Of the evaluation.

    Raises:
        UsageError: If a model is missing, or the video model needs another camera's picture.
    """

    def __init__(self, video_model: str, codec: str, text_encoder: str, num_steps: int, seed: int) -> None:
        folder = find_model(video_model)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        denoiser, _ = load_denoiser(folder)
        if denoiser.config.image_condition:
            raise UsageError(
                f"--foresee: expected a video model without an image condition, found one in {video_model}"
            )
        self._denoiser: VideoDenoiser = denoiser.requires_grad_(False).eval().to(self._device)
        self._vae = load_vae(codec or folder).requires_grad_(False).eval().to(self._device)
        self._text_encoder: ClipTextEncoder = load_text_encoder(text_encoder)
        self._num_steps, self._seed = num_steps, seed

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray, instruction: str, moment: Moment) -> np.ndarray:
        """Frames uint8 `[T, H, W, 3]` that begin with a picture uint8 `[H, W, 3]`, which the first of them shows.

        Args:
            picture: What the camera sees.
            instruction: What is to be done.
            moment: When; decides the noise, with the seed.
        """
        purpose = f"foresight/{moment.episode_seed}"
        generator = sample_generator(self._seed, moment.chunk, moment.position, purpose)
        seen = torch.from_numpy(np.ascontiguousarray(picture))[None, None].to(self._device)
        text = torch.from_numpy(self._text_encoder.encode([instruction])).float().to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            first = encode_frames(self._vae, seen)[:, 0]
            latents = predict_latents(self._denoiser, first, text, num_steps=self._num_steps, generator=generator)
        frames: np.ndarray = decode_latents(self._vae, latents)[0].numpy()
        return frames
