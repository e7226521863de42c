"""What is known of one clip of a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

SHOWN_FRAMES = (0, 5, 10, 15)
"""Which of a clip's 16 frames are shown side by side."""


@dataclass(frozen=True)
class Card:
    """One clip of the sheet.

    Attributes:
        row: Its manifest row: `clip_id`, `dataset`, `camera`, `caption`, `start_frame`, `end_frame`, ...
        video: The MP4 file; empty where it cannot be read.
        frames: RGB uint8 `[H, W, 3]` of each of `SHOWN_FRAMES`; empty where it cannot be decoded.
        fault: Why there are no frames, or empty.
    """

    row: dict[str, Any]
    video: bytes = b""
    frames: dict[int, np.ndarray] = field(default_factory=dict)
    fault: str = ""
