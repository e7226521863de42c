"""Pictures that stand as files inside records and tables: JPEG or PNG to a frame."""

from __future__ import annotations

import io

import av
import numpy as np
import PIL.Image

from schemas.errors import DataError


def decode_image(content: bytes | memoryview, where: str) -> av.VideoFrame:
    """Decodes a JPEG or PNG to an RGB frame of its native size.

    Args:
        content: The file.
        where: Its place, for messages.

    Raises:
        DataError: `decode_error` if it is no picture, is cut, or would be absurdly large.
    """
    try:
        with PIL.Image.open(io.BytesIO(content)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise DataError("decode_error", f"expected a JPEG or PNG, {error} ({where})") from error
    return av.VideoFrame.from_ndarray(pixels, format="rgb24")
