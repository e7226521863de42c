"""A small dataset of episodes with true videos, as jobs/preprocess.py would leave it, for tests that export it."""

from __future__ import annotations

from collections.abc import Sequence

import av
import numpy as np
from small_dataset import write_shard
from video_dataset import npy
from videos import numbered_frame

from pipelines.encode_video import VideoSettings, encode_video

LENGTHS = (23, 1, 12)
FPS = 10.0


def stored_video(first: int, length: int, size: int = 64, fps: float = FPS) -> bytes:
    """Frames that show their numbers from `first` on, with B-frames, as trajectories are stored."""
    pictures = (
        av.VideoFrame.from_ndarray(numbered_frame(number, size, 48), format="rgb24")
        for number in range(first, first + length)
    )
    return encode_video((picture.reformat(size, size, "yuv420p") for picture in pictures), VideoSettings(), fps, 10)


def write_stored_episodes(
    url: str,
    dataset: str = "blocks",
    *,
    lengths: Sequence[int] = LENGTHS,
    cameras: Sequence[str] = ("front", "wrist"),
    proprio_dim: int = 3,
    action_dim: int = 2,
    without_last_action: Sequence[int] = (0,),
    fps: Sequence[float] = (),
    size: int = 64,
) -> None:
    """Frame `i` of all shows `i`; its action is `i, i`, its state `i, i, i`; some have no action for the last frame."""
    episodes, first = {}, 0
    for number, length in enumerate(lengths):
        steps = np.arange(first, first + length, dtype=np.float32)[:, None]
        actions = np.repeat(steps, action_dim, 1)[: length - (number in without_last_action)]
        rate = fps[number] if fps else FPS
        members = {f"{camera}.mp4": stored_video(first, length, size, rate) for camera in cameras}
        members |= {"actions.npy": npy(actions)}
        if proprio_dim:
            members |= {"proprio.npy": npy(np.repeat(steps, proprio_dim, 1))}
        members |= {"txt": f"task {number % 2}".encode(), "json": b"{}"}
        columns = {
            "level": "episode", "source_episode": f"e{number}", "caption": f"task {number % 2}", "start_frame": 0,
            "end_frame": length, "cameras": list(cameras), "num_frames": length, "num_actions": len(actions),
            "action_dim": action_dim, "proprio_dim": proprio_dim, "source_fps": rate,
        }  # fmt: skip
        episodes[f"{dataset}{number:015x}"] = (columns, members)
        first += length
    write_shard(url, dataset, "00000", episodes, "episodes")
