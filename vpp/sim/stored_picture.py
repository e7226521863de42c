"""Rendered pictures as the policy knows them from training: stored frames are 256x256 YUV 4:2:0.

A picture takes the same way here, without the codec: resized and turned into YUV at once (BT.601, limited range), and
back. Resized as RGB instead, it would be brighter than the stored ones by 1 of 255 on average, which is how FFmpeg
rounds.
"""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from schemas.shard import FRAME_SIZE_PX


class StoredPicture:
    """Turns what a camera sees into what a stored frame would show. One a simulator: it keeps FFmpeg's context."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Picture uint8 `[H, W, 3]` of any size to uint8 `[256, 256, 3]`."""
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"),
            width=FRAME_SIZE_PX,
            height=FRAME_SIZE_PX,
            format="yuv420p",
            interpolation=Interpolation.AREA if min(picture.shape[:2]) >= FRAME_SIZE_PX else Interpolation.BICUBIC,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        stored: np.ndarray = frame.to_ndarray(format="rgb24")
        return stored
