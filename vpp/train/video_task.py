"""The task of stage 1 for the training loop: clips with their captions, EDM's loss, judged on clips held out."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn

from vpp.data.clip_batch import ClipBatch
from vpp.data.loader import ClipLoader
from vpp.data.order import SampleOrder
from vpp.data.settings import DataSettings
from vpp.data.streams import training_order
from vpp.train.run_log import RunLog
from vpp.train.video_data import VideoData
from vpp.train.video_validation import VideoValidation
from vpp.train.worker import Worker
from vpp.video.denoiser import VideoDenoiser
from vpp.video.image_encoder import ClipImageEncoder
from vpp.video.objective import (
    Draws,
    ObjectiveSettings,
    draw,
    draw_sigmas,
    first_frame_noise,
    first_frame_noise_strength,
    video_loss,
)
from vpp.video.vae import encode_frames, encode_pixels, to_pixels


@dataclass(frozen=True)
class VideoShare:
    """A worker's share of a step, on its device.

    Attributes:
        positions: Places in the global batch `[b]`.
        wait_s: How long it was waited for.
        clips: What was read.
        step: The step, counted from 0.
    """

    positions: np.ndarray
    wait_s: float
    clips: ClipBatch
    step: int


class VideoTask:
    """Implements `vpp.train.engine.Task`.

    Args:
        denoiser: On the worker's device.
        vae: Encodes frames, on the worker's device; None where stored latents are read and nothing is decoded.
        image_encoder: Embeds another camera's picture, on the worker's device; None without an image condition.
        data: The clips.
        loading: How they are mixed and read.
        objective: The training distribution.
        validation: Judges the model; None never does.
        seed: Of the run.
        batch_size: Samples of a step over all workers.
        worker: This process.
    """

    def __init__(
        self,
        denoiser: VideoDenoiser,
        vae: AutoencoderKLTemporalDecoder | None,
        image_encoder: ClipImageEncoder | None,
        data: VideoData,
        loading: DataSettings,
        objective: ObjectiveSettings,
        validation: VideoValidation | None,
        *,
        seed: int,
        batch_size: int,
        worker: Worker,
    ) -> None:
        self.module: nn.Module = denoiser
        self._config = denoiser.config
        self._image_encoder = image_encoder
        self._vae, self._data, self._loading, self._objective = vae, data, loading, objective
        self._validation, self._seed, self._batch_size, self._worker = validation, seed, batch_size, worker
        self._own_order = self._new_order()  # the loader's runs ahead of this one

    def _new_order(self) -> SampleOrder:
        return training_order(self._data.index, self._data.train, self._loading, self._seed, self._batch_size)

    def shares(self, first_step: int) -> Generator[VideoShare]:
        """This worker's share of each step; it is read ahead in threads."""
        with ClipLoader(
            self._data.index,
            self._new_order(),
            representation=self._data.representation,
            rank=self._worker.rank,
            world_size=self._worker.world_size,
            start_step=first_step,
            read_ahead_samples=self._loading.read_ahead,
            num_threads=self._loading.num_threads,
            retry_s=self._loading.retry_s,
            pin_memory=self._worker.device.type == "cuda",
            other_camera=self._image_encoder is not None,
        ) as loader:
            for clips in loader:
                yield VideoShare(clips.positions, clips.wait_s, clips.to(self._worker.device), clips.step)

    def loss(self, module: nn.Module, share: VideoShare, places: Sequence[int]) -> torch.Tensor:
        """Losses `[len(places)]`."""
        device = self._worker.device
        positions = [int(share.positions[place]) for place in places]
        text = share.clips.text[places].float()
        if share.clips.latents is not None:
            latents = share.clips.latents[places].float()
            draws = draw(self._seed, share.step, positions, latents.shape[1:]).to(device)
            first_frame = noise_strength = None
        else:
            assert share.clips.frames is not None
            assert self._vae is not None
            frames = share.clips.frames[places]
            with torch.no_grad():
                latents = encode_frames(self._vae, frames)
                draws = draw(self._seed, share.step, positions, latents.shape[1:]).to(device)
                first_frame, noise_strength = self._noisy_first_frame(frames, draws, share.step, positions)
        image = None
        if self._image_encoder is not None:
            assert share.clips.other_view is not None
            image = self._image_encoder.encode(share.clips.other_view[places])
        losses, _ = video_loss(
            module, latents, text, draws, self._objective,
            sigma_data=self._config.sigma_data, first_frame=first_frame, noise_strength=noise_strength, image=image,
        )  # fmt: skip
        return losses

    def _noisy_first_frame(
        self, frames: torch.Tensor, draws: Draws, step: int, positions: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents `[b, 4, h, w]` of the first frame with noise on its pixels, and the noise's strength `[b]`."""
        assert self._vae is not None
        pixels = to_pixels(frames[:, 0])
        strength = first_frame_noise_strength(draws.ln_noise_strength)
        noise = first_frame_noise(self._seed, step, positions, pixels.shape[1:]).to(pixels.device)
        return encode_pixels(self._vae, pixels + strength[:, None, None, None] * noise), strength

    def samples(self, step: int) -> tuple[list[str], list[str], np.ndarray]:
        """Ids, datasets and noise levels of the whole global batch of a step."""
        rows = self._own_order.rows(step)
        sigmas = draw_sigmas(self._seed, step, range(len(rows)), self._objective)
        index = self._data.index
        return list(index.clip_ids(rows)), list(index.dataset_names(rows)), sigmas.numpy()

    def validate(self, step: int, log: RunLog | None) -> dict[str, float]:
        """Judges the model as it is now on clips held out."""
        return self._validation.run(self.module, step, log) if self._validation else {}
