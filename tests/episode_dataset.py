"""A small dataset of episodes with latents, as jobs/preprocess.py would leave it, for tests that train a policy on it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from small_dataset import write_shard
from video_dataset import npy
from video_model import TEXT_ENCODER

from schemas.encoder import LATENT_SHAPE


def write_episode_dataset(
    url: str,
    num_episodes: dict[str, int],
    *,
    latent_codec: str,
    text_encoder: str = TEXT_ENCODER,
    num_frames: int = 9,
    cameras: Sequence[str] = ("front", "wrist"),
    action_dim: int = 4,
    episodes_per_shard: int = 3,
    split: str = "train",
) -> None:
    """Episodes of two captions, whose actions follow from the caption and from what the first camera shows."""
    for number, (dataset, count) in enumerate(num_episodes.items()):
        random = np.random.default_rng(number)
        texts = random.normal(size=(2, 20, 512)).astype(np.float16)
        episodes = {}
        for episode in range(count):
            task = episode % 2
            latents = random.normal(size=(len(cameras), num_frames, *LATENT_SHAPE)).astype(np.float16)
            shown = latents[0, :, :, 0, 0].astype(np.float32)  # [num_frames, 4]
            actions = np.tanh(shown[:, :action_dim] + (1 if task else -1)).astype(np.float32)
            proprio = random.normal(size=(num_frames, 3)).astype(np.float32)
            views = {
                name: content
                for camera, of_camera in zip(cameras, latents, strict=True)
                for name, content in ((f"{camera}.mp4", b"no video"), (f"{camera}.latents.npy", npy(of_camera)))
            }
            members = views | {
                "actions.npy": npy(actions), "proprio.npy": npy(proprio), "txt": f"task {task}".encode(),
                "json": json.dumps({}).encode(), "text.npy": npy(texts[task]),
            }  # fmt: skip
            statistics = {
                f"{name}_{what}": getattr(values.astype(np.float64), what)(axis=0).tolist()
                for name, values in (("action", actions), ("proprio", proprio))
                for what in ("mean", "std", "min", "max")
            }
            columns = {
                "split": split, "source_episode": f"episode {episode}", "caption": f"task {task}", "level": "episode",
                "start_frame": 0, "end_frame": num_frames, "cameras": list(cameras), "num_frames": num_frames,
                "num_actions": num_frames, "action_dim": action_dim, "proprio_dim": 3, "text_encoder": text_encoder,
                "latent_codec": latent_codec, "text_encoder_is_stand_in": True, "latent_codec_is_stand_in": True,
                **statistics,
            }  # fmt: skip
            episodes[f"{dataset}{episode:016d}"] = (columns, members)
        ids = list(episodes)
        for part in range(0, count, episodes_per_shard):
            chosen = {name: episodes[name] for name in ids[part : part + episodes_per_shard]}
            write_shard(url, dataset, f"{part // episodes_per_shard:05d}", chosen, "episodes")
