"""Sends bytes of a file, all or the range that a player asks for (RFC 9110, 14), in pieces of bounded size."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from aiohttp import web

from vpp.browse.dataset import read_range

_log = logging.getLogger(__name__)

PIECE_BYTES = 4 << 20
"""What is held in memory and asked of the store at a time: more than a clip has."""


async def send_range(
    request: web.Request, url: str, start: int, end: int, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answers with `[start, end)` of a file, or with the range of it that the request names.

    Args:
        request: What is answered.
        url: The file.
        start: First byte that may be sent.
        end: One past the last.
        headers: `Content-Type` and others.

    Raises:
        DataError: If the file is missing or ends before. Behind the first piece the connection is cut instead, since
            a page that tells it would be taken for more of the file.
    """
    size = end - start
    part = wanted(request, size)
    first, last = part or (0, size)
    if part and first >= last:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
    shown = {**headers, "Accept-Ranges": "bytes", "Content-Length": str(last - first)}
    if part:
        shown["Content-Range"] = f"bytes {first}-{last - 1}/{size}"
    response = web.StreamResponse(status=206 if part else 200, headers=shown)
    at, stop = start + first, start + last
    piece = await asyncio.to_thread(read_range, url, at, min(at + PIECE_BYTES, stop))
    try:
        await response.prepare(request)
        while piece:
            await response.write(piece)
            at += len(piece)
            piece = await asyncio.to_thread(read_range, url, at, min(at + PIECE_BYTES, stop))
        await response.write_eof()
    except Exception as error:
        if request.transport is not None and not request.transport.is_closing():  # else whoever asked is gone
            _log.warning("%s: %s: %s", request.path, type(error).__name__, error)
            request.transport.abort()
    return response


def wanted(request: web.Request, size: int) -> tuple[int, int] | None:
    """The half-open range that a request names; None where it names none, or several, or something else."""
    try:
        asked = request.http_range
    except ValueError:
        return None
    if asked.start is None:
        return None
    first, last, _ = asked.indices(size)
    return first, last
