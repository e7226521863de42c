"""One recorded demonstration as one file, kept until the dataset is written: an uncompressed `.npz` without pickle."""

from __future__ import annotations

import io
import json

import numpy as np

from schemas.storage import in_memory, read_bytes, write_bytes
from vpp.sim.demonstrations import demonstrate
from vpp.sim.episode_video import EpisodeVideo
from vpp.sim.lerobot_statistics import PictureStatistics, Statistics
from vpp.sim.lerobot_writer import RecordedEpisode
from vpp.sim.metaworld import CONTROL_HZ, MetaWorldEnv
from vpp.sim.metaworld_tasks import INSTRUCTIONS


def record(env: MetaWorldEnv, seed: int, steps_after_success: int, action_noise: float = 0.0) -> RecordedEpisode | None:
    """Runs the expert and encodes what the cameras see, a picture at a time; None if the task was not solved."""
    videos = {camera: EpisodeVideo(CONTROL_HZ) for camera in env.cameras}
    statistics = {camera: PictureStatistics() for camera in env.cameras}
    states, actions, solved = [], [], False
    for step in demonstrate(env, seed, steps_after_success, action_noise):
        for camera, picture in step.pictures.items():
            videos[camera].add(picture)
            statistics[camera].add(picture)
        states.append(step.state)
        actions.append(step.action)
        solved = step.solved
    encoded = {camera: video.finish() for camera, video in videos.items()}
    if not solved:
        return None
    summaries = {camera: found.finish() for camera, found in statistics.items()}
    return RecordedEpisode(INSTRUCTIONS[env.task], encoded, np.stack(actions), np.stack(states), summaries)


def save(url: str, episode: RecordedEpisode | None) -> None:
    """Writes an episode, or that there is none because the expert failed."""
    arrays = {}
    if episode:
        summaries = {camera: values.to_json() for camera, values in episode.picture_statistics.items()}
        description = {"task": episode.task, "pictures": summaries}
        arrays = {
            "description": np.frombuffer(json.dumps(description).encode(), np.uint8),
            "actions": episode.actions,
            "states": episode.states,
            **{f"video.{camera}": np.frombuffer(video, np.uint8) for camera, video in episode.videos.items()},
        }
    write_bytes(url, in_memory(lambda handle: np.savez(handle, **arrays)))  # type: ignore[arg-type]


def load(url: str) -> RecordedEpisode | None:
    """Reads what `save` wrote."""
    with np.load(io.BytesIO(read_bytes(url)), allow_pickle=False) as arrays:
        if "description" not in arrays:
            return None
        description = json.loads(arrays["description"].tobytes())
        return RecordedEpisode(
            task=description["task"],
            videos={camera: arrays[f"video.{camera}"].tobytes() for camera in description["pictures"]},
            actions=arrays["actions"],
            states=arrays["states"],
            picture_statistics={c: Statistics.from_json(values) for c, values in description["pictures"].items()},
        )
