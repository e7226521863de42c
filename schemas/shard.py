"""Names inside a shard. A sample is a run of tar members that share the part before the first dot (WebDataset's rule).

A clip is `<clip_id>.mp4`, `.txt`, `.json`, `.text.npy`, optionally `.latents.npy`; an episode is
`<episode_id>.<camera>.mp4`, optionally `<episode_id>.<camera>.latents.npy`, then `.actions.npy`, `.proprio.npy`,
`.txt`, `.json`, `.text.npy`.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

Product = Literal["clips", "episodes"]
PRODUCTS: tuple[Product, ...] = ("clips", "episodes")

VIDEO = "mp4"
CAPTION = "txt"
METADATA = "json"
TEXT_TOKENS_NPY = "text.npy"
LATENTS_NPY = "latents.npy"
ACTIONS_NPY = "actions.npy"
PROPRIO_NPY = "proprio.npy"

NUM_FRAMES = 16
"""Frames of a clip."""

FRAME_SIZE_PX = 256
"""Height and width of stored frames, where nothing else is asked for."""

_LONGEST_CAMERA_NAME = 48  # a tar member's name has at most 100 characters


def sample_id(*identity: object) -> str:
    """A stable id of 20 hex digits for what `identity` names: dataset, episode, camera, frames, caption.

    >>> sample_id("bridge", "train/3", "image_0", (0, 2, 4), "open the drawer")
    '773a31454aaf79ecaac1'
    """
    text = "\x1f".join(repr(part) for part in identity)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:20]


def camera_name(name: str) -> str:
    """A camera's name as it may stand in a member name: its last dotted component, other characters replaced.

    >>> camera_name("observation.images.cam_high")
    'cam_high'
    """
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name.rsplit(".", 1)[-1].rsplit("/", 1)[-1]) or "camera"
    if len(plain) <= _LONGEST_CAMERA_NAME:
        return plain
    return f"{plain[: _LONGEST_CAMERA_NAME - 9]}_{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"
