"""From native frames to stored ones: each resized once, into what the encoder takes, without a detour over RGB.

Stored frames are square YUV 4:2:0, BT.601, limited range, which every player assumes when a file says nothing else.
"""

from __future__ import annotations

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from schemas.closed_video import ONE_THREAD
from schemas.errors import DataError
from schemas.shard import FRAME_SIZE_PX


class FrameResizer:
    """Resizes frames to a square, stretching them as the published data preparation does.

    Averages over the area where a frame shrinks, cubic where it grows. One object a task: it keeps FFmpeg's scaling
    context.
    """

    def __init__(self, size_px: int = FRAME_SIZE_PX) -> None:
        self._size_px = size_px
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Returns the frame as yuv420p of `size_px` x `size_px`.

        Raises:
            DataError: `unsupported_pixels` if FFmpeg cannot convert its format, matrix or size.
        """
        shrinks = frame.width >= self._size_px and frame.height >= self._size_px
        try:
            return self._reformatter.reformat(
                frame,
                width=self._size_px,
                height=self._size_px,
                format="yuv420p",
                interpolation=Interpolation.AREA if shrinks else Interpolation.BICUBIC,
                dst_colorspace=Colorspace.ITU601,
                dst_color_range=ColorRange.MPEG,
                **ONE_THREAD,
            )
        except (av.error.FFmpegError, ValueError) as error:
            found = f"found {frame.width}x{frame.height} {frame.format.name}, matrix {frame.colorspace}"
            raise DataError("unsupported_pixels", f"expected a frame that FFmpeg converts, {found}: {error}") from error


def is_blank(frames: list[av.VideoFrame], tolerance: int = 4) -> bool:
    """Whether no frame shows anything: its luma, on a grid of every 8th pixel, varies by at most `tolerance` of 255."""
    return all(int(np.ptp(luma(frame)[::8, ::8])) <= tolerance for frame in frames)


def luma(frame: av.VideoFrame) -> np.ndarray:
    """The Y plane of a yuv420p frame, uint8 `[H, W]`, without a copy."""
    plane = frame.planes[0]
    return np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)[:, : frame.width]  # type: ignore[call-overload,no-any-return]
