"""Pictures that stand as files inside records and tables: JPEG or PNG to a frame."""

from __future__ import annotations

import io

import av
import numpy as np
import PIL.Image

from schemas.errors import DataError

_MAX_PIXELS = 1 << 26  # 8192 x 8192: no camera of a robot has more, a decompression bomb has


def decode_image(content: bytes | memoryview, where: str) -> av.VideoFrame:
    """Decodes a JPEG or PNG to an RGB frame of its native size.

    Args:
        content: The file.
        where: Its place, for messages.

    Raises:
        DataError: `decode_error` if it is no picture, is cut, or would be absurdly large.
    """
    try:
        # Only these two: other readers of PIL do more than to decode, the one of EPS runs Ghostscript.
        with PIL.Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"found {image.width} x {image.height} pixels, at most {_MAX_PIXELS} are decoded")
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise DataError("decode_error", f"expected a JPEG or PNG, {error} ({where})") from error
    return av.VideoFrame.from_ndarray(pixels, format="rgb24")
