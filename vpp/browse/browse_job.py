"""Runs a browser until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from aiohttp import web

from runtime.stop_signals import stop_event
from schemas.errors import UsageError
from vpp.browse.access import Access
from vpp.browse.guard import Guard
from vpp.browse.server import BrowseServer
from vpp.browse.settings import TOKEN_VARIABLE, BrowseSettings
from vpp.browse.snapshot import Snapshot

_log = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def browse(settings: BrowseSettings, access: Access, when_ready: Callable[[str], None] = _log.info) -> None:
    """Runs the job.

    Args:
        settings: What is shown, and where.
        access: How datasets are reached.
        when_ready: Told the address when the server listens.

    Raises:
        UsageError: If nothing is there to show, or the address cannot be had.
    """
    if not settings.folder:
        raise UsageError("expected the folder of a run: python jobs/browse.py FOLDER")
    snapshot = Snapshot(settings.folder, access)
    if not snapshot.runs:
        raise UsageError(f"{settings.folder}: expected what the jobs write, at most two levels deep, found nothing")
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token and settings.host not in _LOOPBACK:
        _log.warning("%s is not set: whoever reaches %s can see all of this", TOKEN_VARIABLE, settings.host)
    asyncio.run(_run(BrowseServer(snapshot, Guard(settings.host, token)), settings, when_ready))


async def _run(server: BrowseServer, settings: BrowseSettings, when_ready: Callable[[str], None]) -> None:
    stop = stop_event()
    runner = web.AppRunner(server.app(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, shutdown_timeout=2.0)
        try:
            await site.start()
        except OSError as error:
            raise UsageError(f"--host {settings.host} --port {settings.port}: {error.strerror or error}") from error
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        when_ready(f"ready: http://{host}:{runner.addresses[0][1]}/")
        await stop.wait()
    finally:
        await runner.cleanup()
