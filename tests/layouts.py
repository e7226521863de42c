"""Datasets that the tests make themselves, in the true formats, small and with numbered frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from videos import numbered_frame, write_video


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


def write_calvin(
    root: Path, ranges: list[tuple[int, int]], labels: list[tuple[int, int, str]], split: str = "training"
) -> Path:
    """CALVIN frames whose pictures and actions tell their number."""
    folder = root / split
    (folder / "lang_annotations").mkdir(parents=True, exist_ok=True)
    np.save(folder / "ep_start_end_ids.npy", np.array(ranges, np.int64))
    for first, last in ranges:
        for number in range(first, last + 1):
            np.savez_compressed(
                folder / f"episode_{number:07d}.npz",
                rgb_static=numbered_frame(number, 80, 60),
                rgb_gripper=numbered_frame(number, 48, 48),
                rel_actions=np.full(7, number / 1000),
                actions=np.full(7, float(number)),
                robot_obs=np.full(15, float(number)),
            )
    annotation = {
        "language": {
            "ann": [text for _, _, text in labels],
            "task": [],
            "emb": np.zeros((len(labels), 1, 4), np.float32),
        },
        "info": {"indx": [(np.int64(first), np.int64(last)) for first, last, _ in labels]},
    }
    np.save(folder / "lang_annotations" / "auto_lang_ann.npy", annotation, allow_pickle=True)  # type: ignore[arg-type]
    return root


def write_ego4d(
    root: Path, videos: dict[str, dict], narrations: dict[str, dict], num_frames: int = 120, fps: int = 10
) -> Path:
    """Ego4D's folder: a video for each entry of `videos`, whose values go into its metadata."""
    entries = []
    for uid, extra in videos.items():
        write_video(root / "full_scale" / f"{uid}.mp4", num_frames, fps=fps)
        metadata = {"fps": float(fps), "num_frames": num_frames}
        entries.append(
            {"video_uid": uid, "video_metadata": metadata, "redacted_intervals": [], "split_fho": "train"} | extra
        )
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "ego4d.json").write_text(json.dumps({"version": "v2", "videos": entries}))
    (root / "annotations" / "narration.json").write_text(json.dumps(narrations))
    return root
