"""The lines that README and documentation show of the Python API run: query, clips, policy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from small_dataset import clip_video, write_shard
from tiny_policy import write_policy
from video_dataset import npy

ROOT = Path(__file__).parents[1]


def test_a_dataset_is_asked_and_read_and_a_policy_acts_on_what_it_shows(tmp_path: Path) -> None:
    text = npy(np.zeros((20, 512), np.float16))
    clips = {
        f"{number:020x}": (
            {"level": "clip", "camera": "corner2", "caption": caption, "text_encoder": "tiny"},
            {"mp4": clip_video(number * 20), "text.npy": text},
        )
        for number, caption in enumerate(["open the drawer", "close the window", "Drawer, close"])
    }
    write_shard(str(tmp_path / "demo"), "metaworld", "00000", clips)
    url = write_policy(tmp_path, proprio_dim=0)
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    blocks = [
        block
        for page in pages
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        if "ClipReader" in block
    ]
    assert blocks
    for block in blocks:
        shown: dict[str, Any] = {}
        exec(block.replace("out/demo/stage2/policy", url).replace("out/demo", str(tmp_path / "demo")), shown)
        assert shown["clips"].frames.shape == (2, 16, 256, 256, 3)
        assert shown["clips"].clip_ids == (f"{0:020x}", f"{2:020x}")
        assert tuple(shown["action"].shape) == (1, 4)
