"""Small videos that the tests make themselves; every frame shows its number, so that a wrong frame is seen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def numbered_frame(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """RGB uint8 `[height, width, 3]` with the 12 bits of `number` as light and dark tiles, 4 columns by 3 rows."""
    bits = [(number >> bit) & 1 for bit in range(12)]
    tiles = np.array(bits, np.uint8).reshape(3, 4) * 160 + 40
    gray = np.kron(tiles, np.ones((height // 3, width // 4), np.uint8))
    return np.repeat(gray[:, :, None], 3, axis=2)


def read_number(frame: np.ndarray) -> int:
    """The number that a frame shows; works after resizing and encoding."""
    height, width = frame.shape[:2]
    gray = frame if frame.ndim == 2 else frame.mean(axis=2)
    number = 0
    for bit in range(12):
        row, column = divmod(bit, 4)
        if gray[int((row + 0.5) * height / 3), int((column + 0.5) * width / 4)] > 120:
            number |= 1 << bit
    return number


def write_video(
    path: Path,
    num_frames: int,
    codec: str = "libx264",
    fps: int = 30,
    size: tuple[int, int] = (64, 48),
    options: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
) -> Path:
    """Writes frames 0 to `num_frames - 1`; `pts` replaces the even time stamps (in frames)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = options or {}
        stream.codec_context.time_base = Fraction(1, fps)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, *size), format="rgb24")
            frame.pts = pts[number] if pts else number
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    # As root SVT-AV1 gives this process real-time priority, which would starve all others.
    if codec == "libsvtav1" and hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return path
