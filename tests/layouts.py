"""Datasets that the tests make themselves, in the true formats, small and with numbered frames."""

from __future__ import annotations

import json
from pathlib import Path

from videos import write_video


def write_vpp_layout(root: Path, num_episodes: int = 6, num_frames: int = 60, actions: bool = True) -> Path:
    """The VPP authors' layout: annotations and videos of one split."""
    for number in range(num_episodes):
        length = num_frames + number
        write_video(root / "videos" / "train" / str(number) / "rgb.mp4", length, size=(128, 96))
        annotation = {
            "texts": [f"count to {length} with tile {number % 3}"],
            "videos": [{"video_path": f"videos/train/{number}/rgb.mp4"}],
            "episode_id": number,
            "video_length": length,
        }
        if actions:
            annotation["state"] = [[frame, frame / 2] for frame in range(length)]
            annotation["action"] = [[frame, 1.0, 0.0] for frame in range(length - 1)]
        path = root / "annotation" / "train" / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(annotation))
    return root
