"""The frames of a clip side by side, as one picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from vpp.data.video_frames import decode_clip

_COLUMNS, _FRAME_PX, _GAP_PX = 8, 160, 4


def frame_strip(video: bytes) -> bytes:
    """A JPEG of a clip's 16 frames, eight a row.

    Args:
        video: The clip's MP4 file.

    Raises:
        DataError: If it does not hold 16 frames.
    """
    frames = decode_clip(video)
    step = _FRAME_PX + _GAP_PX
    rows = -(-len(frames) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * step - _GAP_PX, rows * step - _GAP_PX), "#888")
    for number, frame in enumerate(frames):
        place = (number % _COLUMNS * step, number // _COLUMNS * step)
        sheet.paste(_scaled(frame), place)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _scaled(frame: np.ndarray) -> Image.Image:
    return Image.fromarray(frame).resize((_FRAME_PX, _FRAME_PX), Image.Resampling.LANCZOS)
