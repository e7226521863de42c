"""Judges a video model on clips held out, always with the same noise: loss by noise level, and predicted videos.

The policy needs what the model foresees, so beside the loss stand the errors of predicted clips against those of a
still picture, over whole frames and where the truth moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from diffusers import AutoencoderKLTemporalDecoder

from schemas.storage import join, join_inside, write_bytes
from vpp.data.clip_batch import ClipBatch
from vpp.data.clip_reader import read_clips
from vpp.diffusion.edm import loss_weight
from vpp.train.run_log import RETRY_S, RunLog
from vpp.train.video_data import VideoData
from vpp.train.worker import Worker
from vpp.video.denoiser import VideoDenoiser
from vpp.video.image_encoder import ClipImageEncoder
from vpp.video.metrics import compare_with_copy, frame_quality
from vpp.video.objective import sample_generator
from vpp.video.predict import predict_latents
from vpp.video.vae import decode_latents, encode_frames
from vpp.video.video_strip import film_strip_png, strip_gif, strip_mp4


@dataclass(frozen=True)
class ValidationSettings:
    """What a validation looks at.

    Raises:
        ValueError: If a value is outside its range.
    """

    num_clips: int = 32
    """Held-out clips whose loss is taken, spread evenly over the held-out clips."""
    sigmas: tuple[float, ...] = (0.25, 0.7, 2.0, 5.7, 16.0, 80.0)
    """Noise levels at which it is taken."""
    num_videos: int = 4
    """Of these clips, how many are predicted as videos; 0 predicts none."""
    num_steps: int = 30
    """Euler steps of a prediction."""
    guidance: tuple[float, float] = (1.0, 3.0)
    """Guidance at the first and the last frame; it grows linearly."""
    seed: int = 0
    """Of the noise."""

    def __post_init__(self) -> None:
        if not (
            self.num_clips >= 1 and self.num_videos >= 0 and self.num_steps >= 1 and min(self.sigmas, default=0) > 0
        ):
            raise ValueError(
                "expected num_clips >= 1, num_videos >= 0, num_steps >= 1 and positive sigmas, found "
                f"{self.num_clips}, {self.num_videos}, {self.num_steps} and {self.sigmas}"
            )


class VideoValidation:
    """Holds the clips that judge a model; all workers make one, and take part in every run.

    Args:
        data: Its held-out rows are judged on.
        settings: How many, at which noise.
        vae: Decodes predictions, and encodes frames where no latents are stored; None shows no pictures.
        image_encoder: Embeds another camera's picture; None without an image condition.
        worker: This process.
        run_url: Videos go to `<run>/previews/`.
    """

    def __init__(
        self,
        data: VideoData,
        settings: ValidationSettings,
        vae: AutoencoderKLTemporalDecoder | None,
        image_encoder: ClipImageEncoder | None,
        worker: Worker,
        run_url: str,
    ) -> None:
        number = min(settings.num_clips, len(data.held_out))
        self._rows = data.held_out[np.linspace(0, len(data.held_out) - 1, number).round().astype(np.int64)]
        self._image_encoder = image_encoder
        self._data, self._settings, self._vae, self._worker, self._run_url = data, settings, vae, worker, run_url

    def run(self, denoiser: torch.nn.Module, step: int, log: RunLog | None) -> dict[str, float]:
        """Metrics by name; the videos are written, and those of rank 0 go into its log too.

        Args:
            denoiser: A `VideoDenoiser`; sharded, or the same in all workers.
            step: Updates made.
            log: Of rank 0.
        """
        assert isinstance(denoiser, VideoDenoiser)
        metrics = self._losses(denoiser)
        if self._settings.num_videos:
            metrics |= self._videos(denoiser, step, log)
        return metrics

    def _losses(self, denoiser: VideoDenoiser) -> dict[str, float]:
        sigmas = self._settings.sigmas
        table = torch.zeros(len(self._rows), len(sigmas), device=self._worker.device)
        for number, is_own, clips in self._own(self._rows):
            latents, text, image = self._inputs(clips)
            for column, level in enumerate(sigmas):
                sigma = latents.new_full((1,), level)
                generator = sample_generator(self._settings.seed, number, column, "validation")
                noise = torch.randn(latents.shape, generator=generator).to(latents.device)
                predicted = denoiser(latents + level * noise, sigma, latents[:, 0], text, image=image)
                error = (predicted.float() - latents).square().mean()
                if is_own:
                    table[number, column] = error * loss_weight(sigma, denoiser.config.sigma_data)[0]
        self._sum(table)
        by_level = {
            f"val_loss_by_sigma/{level:g}": float(value) for level, value in zip(sigmas, table.mean(0), strict=True)
        }
        datasets = np.asarray(self._data.index.dataset_names(self._rows))
        by_dataset = {
            f"val_loss_by_dataset/{name}": float(table[torch.from_numpy(datasets == name)].mean())
            for name in sorted(set(datasets.tolist()))
        }
        return {"val/loss": float(table.mean()), **by_level, **by_dataset}

    def _videos(self, denoiser: VideoDenoiser, step: int, log: RunLog | None) -> dict[str, float]:
        settings = self._settings
        chosen = self._spread(settings.num_videos)
        num_frames = denoiser.config.num_frames
        table = torch.zeros(len(chosen), 4 + (4 * num_frames if self._vae else 0), device=self._worker.device)
        for number, is_own, clips in self._own(chosen):
            latents, text, image = self._inputs(clips)
            predicted = predict_latents(
                denoiser, latents[:, 0], text, num_steps=settings.num_steps, guidance=settings.guidance,
                generator=sample_generator(settings.seed, number, 0, "prediction"), image=image,
            )  # fmt: skip
            if not is_own:
                continue
            judged = compare_with_copy(predicted, latents)
            row = [judged.mse, judged.mse_copy, judged.moving_mse, judged.moving_mse_copy]
            if self._vae is not None:
                truth = clips.frames if clips.frames is not None else decode_latents(self._vae, latents)
                shown = decode_latents(self._vae, predicted)
                quality = frame_quality(shown, truth)
                row += [quality.psnr, quality.psnr_copy, quality.ssim, quality.ssim_copy]
                self._show(step, number, chosen[number], clips, truth[0].numpy(), shown[0].numpy(), log)
            table[number] = torch.cat([values.float().flatten().cpu() for values in row]).to(table.device)
        self._sum(table)
        return _video_metrics(table.mean(0).cpu(), num_frames, has_pictures=self._vae is not None)

    def _show(
        self,
        step: int,
        number: int,
        row: int,
        clips: ClipBatch,
        truth: np.ndarray,
        shown: np.ndarray,
        log: RunLog | None,
    ) -> None:
        caption = self._data.index.captions(np.array([row]))[0]
        folder = join(self._run_url, "previews", f"step_{step:08}")
        gif = strip_gif(truth, shown, caption)
        pictures = {"gif": gif, "mp4": strip_mp4(truth, shown, caption), "png": film_strip_png(truth, shown, caption)}
        for kind, content in pictures.items():
            write_bytes(join_inside(folder, f"{clips.clip_ids[0]}.{kind}"), content, RETRY_S)
        if log is not None:
            log.add_video(step, f"prediction/{number}", gif)

    def _spread(self, number: int) -> np.ndarray:
        """So many of the clips, evenly over all of them, and so over the datasets."""
        number = min(number, len(self._rows))
        return self._rows[np.linspace(0, len(self._rows) - 1, number).round().astype(np.int64)]

    def _own(self, rows: np.ndarray) -> Iterator[tuple[int, bool, ClipBatch]]:
        """This worker's clips one by one: its number, whether it counts, the clip. All workers get equally many."""
        rank, world_size, total = self._worker.rank, self._worker.world_size, len(rows)
        for first in range(0, total, world_size):
            number = min(first + rank, total - 1)
            yield (
                number,
                first + rank < total,
                read_clips(
                    self._data.index,
                    rows[[number]],
                    self._data.representation,
                    other_camera=self._image_encoder is not None,
                ),
            )

    def _inputs(self, clips: ClipBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        device = self._worker.device
        text = clips.text.to(device).float()
        image = None
        if self._image_encoder is not None:
            assert clips.other_view is not None
            image = self._image_encoder.encode(clips.other_view)
        if clips.latents is not None:
            return clips.latents.to(device).float(), text, image
        assert clips.frames is not None
        assert self._vae is not None
        return encode_frames(self._vae, clips.frames.to(device)), text, image

    def _sum(self, table: torch.Tensor) -> None:
        if self._worker.world_size > 1:
            dist.all_reduce(table)


def _video_metrics(means: torch.Tensor, num_frames: int, has_pictures: bool) -> dict[str, float]:
    mse, mse_copy, moving, moving_copy = means[:4].tolist()
    metrics = {
        "val/latent_gain_db": _decibels(mse_copy, mse),
        "val/moving_latent_gain_db": _decibels(moving_copy, moving),
    }
    if has_pictures:
        names = ("psnr", "psnr_copy", "ssim", "ssim_copy")
        for name, frames in zip(names, means[4:].reshape(4, num_frames), strict=True):
            metrics[f"val/{name}"] = float(frames[1:].mean())  # the first frame is given
            metrics |= {f"val_{name}_by_frame/{number:02}": float(frames[number]) for number in range(1, num_frames)}
    return metrics


def _decibels(baseline: float, error: float) -> float:
    return 10 * float(np.log10(baseline / error)) if error > 0 and baseline > 0 else 0.0
