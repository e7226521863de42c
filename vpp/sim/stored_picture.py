"""Rendered pictures as the policy knows them from training: stored frames are YUV 4:2:0 of one size.

A picture takes the same way here, without the codec: resized and turned into YUV at once (BT.601, limited range), and
back. Resized as RGB instead, it would be brighter than the stored ones by 1 of 255 on average, which is how FFmpeg
rounds.
"""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from schemas.closed_video import ONE_THREAD
from schemas.shard import FRAME_SIZE_PX


class StoredPicture:
    """Turns what a camera sees into what a stored frame would show. One a simulator: it keeps FFmpeg's context.

    Args:
        frame_size: Height and width of stored frames, in pixels.
    """

    def __init__(self, frame_size: int = FRAME_SIZE_PX) -> None:
        self._size = frame_size
        self._reformatter = VideoReformatter()

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Picture uint8 `[H, W, 3]` of any size to uint8 `[S, S, 3]`, S being the frame size."""
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"),
            width=self._size,
            height=self._size,
            format="yuv420p",
            interpolation=Interpolation.AREA if min(picture.shape[:2]) >= self._size else Interpolation.BICUBIC,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            **ONE_THREAD,
        )
        stored: np.ndarray = frame.to_ndarray(format="rgb24")
        return stored
