"""A manifest of episodes without shards, for tests of what follows from the manifest alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numbered_clips import MODELS
from small_dataset import write_part


def episode(episode_id: str, num_actions: int, cameras: Sequence[str] = ("side",), **columns: Any) -> dict[str, Any]:
    """The manifest row of a written episode with as many frames as actions."""
    names = [*(f"{camera}.mp4" for camera in cameras), "actions.npy", "text.npy"]
    members = [{"name": name, "offset": 512 * place, "num_bytes": 100} for place, name in enumerate(names)]
    row = {
        "episode_id": episode_id, "source_episode": episode_id, "split": "train", "status": "written",
        "shard": "a/0.tar", "members": members, "caption": f"caption of {episode_id}", "cameras": list(cameras),
        "num_frames": num_actions, "num_actions": num_actions, "action_dim": 7, **MODELS,
    }  # fmt: skip
    return row | columns


def write_episodes(url: str, **datasets: Sequence[dict[str, Any]]) -> None:
    """Writes the manifest of datasets, one shard each."""
    for dataset, rows in datasets.items():
        write_part(url, "episodes", dataset, "0", [row | {"shard": f"{dataset}/0.tar"} for row in rows])
