"""A small dataset of clips with latents, as jobs/preprocess.py would leave it, for tests that train on it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
from small_dataset import write_shard

TEXT_ENCODER = "clip@0123456789ab"
LATENT_CODEC = "vae@ba9876543210"


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def write_video_dataset(
    url: str,
    num_clips: dict[str, int],
    *,
    latent_size: int = 8,
    num_frames: int = 16,
    text_encoder: str = TEXT_ENCODER,
    latent_codec: str = LATENT_CODEC,
    clips_per_shard: int = 6,
    video: bytes = b"no video",
    cameras: Sequence[str] = ("front",),
) -> None:
    """Clips whose latents drift from frame to frame; an episode has two clips of each camera.

    Clips go through the cameras before the frames go on. Sizes other than 32 save time.
    """
    for number, (dataset, count) in enumerate(num_clips.items()):
        random = np.random.default_rng(number)
        clips = {}
        for clip in range(count):
            moment, camera = divmod(clip, len(cameras))
            start, drift = random.normal(size=(2, 4, latent_size, latent_size))
            latents = start + 0.1 * drift * np.arange(num_frames)[:, None, None, None]
            text = random.normal(size=(20, 512))
            members = {
                "mp4": video,
                "txt": f"move {moment}".encode(),
                "json": json.dumps({}).encode(),
                "text.npy": npy(text.astype(np.float16)),
                "latents.npy": npy(latents.astype(np.float16)),
            }
            columns = {
                "source_episode": f"episode {moment // 2}", "camera": cameras[camera], "caption": f"move {moment}", "level": "clip",
                "start_frame": num_frames * (moment % 2), "end_frame": num_frames * (moment % 2 + 1),
                "text_encoder": text_encoder, "latent_codec": latent_codec, "text_encoder_is_stand_in": False,
                "latent_codec_is_stand_in": False, "frame_indices": list(range(num_frames)),
            }  # fmt: skip
            clips[f"{dataset}{clip:016d}"] = (columns, members)
        ids = list(clips)
        for part in range(0, count, clips_per_shard):
            chosen = {clip_id: clips[clip_id] for clip_id in ids[part : part + clips_per_shard]}
            write_shard(url, dataset, f"{part // clips_per_shard:05d}", chosen)
