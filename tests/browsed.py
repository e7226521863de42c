"""A folder for the pages of `vpp.browse`, a server that shows it, and a visitor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

import numpy as np
from aiohttp import web
from finished_run import write_run
from small_dataset import clip_video, write_part, write_shard
from video_dataset import npy

from pipelines.query import Manifest
from pipelines.range_read import locate_members
from vpp.browse.access import Access
from vpp.browse.guard import Guard
from vpp.browse.server import BrowseServer
from vpp.browse.snapshot import Snapshot

NUM_MANY = 60
"""Clips of the dataset `many`: more than two pages."""

_ALIKE = 6

ACCESS = Access(Manifest.open, locate_members)


def clip_id(number: int) -> str:
    return f"{number:020x}"


def write_folder(root: Path) -> None:
    """What `write_run` leaves, further clips on several pages, and two episodes with actions."""
    write_run(root)
    video = clip_video(0)
    clips = {}
    for number in range(NUM_MANY):
        caption = "Open the DRAWER" if number % 3 == 0 else "100% of a_b"
        columns = {"camera": "top", "caption": caption, "start_frame": number, "end_frame": number + 16}
        columns |= {"source_episode": f"episode/{number % 5}", "source_fps": 10.0, "frame_indices": list(range(16))}
        members = {"mp4": video, "txt": caption.encode(), "json": json.dumps({"told": number}).encode()}
        clips[clip_id(1000 + number)] = (columns, members)
    write_shard(str(root), "many", "000000", clips)
    turned_away = {"split": "train", "source_episode": "episode/9", "caption": "never seen", "start_frame": 0}
    row = {"clip_id": clip_id(5000), "status": "filtered", "reason": "too_long", "detail": "found 900 s", **turned_away}
    write_part(str(root), "clips", "many", "plan-000000", [row])
    write_episodes(root, video)


def write_episodes(root: Path, video: bytes) -> None:
    time = np.linspace(0, 1, 20, dtype=np.float32)
    arrays = {"actions.npy": np.stack([time * d for d in range(7)], 1), "proprio.npy": np.stack([time, -time], 1)}
    members = {"left.mp4": video, "wrist.mp4": video, **{name: npy(values) for name, values in arrays.items()}}
    members |= {"txt": b"count", "json": b"{}"}
    columns = {"cameras": ["left", "wrist"], "caption": "count", "start_frame": 0, "end_frame": 20, "source_fps": 10.0}
    damaged = {**members, "actions.npy": b"\x93NUMPY what", "json": b"{"}
    episodes = {clip_id(2000): (columns, members), clip_id(2001): (columns, damaged)}
    write_shard(str(root), "many", "000000", episodes, "episodes")


@contextlib.contextmanager
def browsing(folder: str, guard: Guard | None = None) -> Iterator[str]:
    """Shows a folder while the block runs; the address of the first page."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = BrowseServer(Snapshot(folder, ACCESS), guard or Guard("127.0.0.1"))
    runner = web.AppRunner(server.app(), access_log=None)

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.5).start()
        return int(runner.addresses[0][1])

    port = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def page(self) -> Page:
        return Page(self.text)


def ask(address: str, headers: Mapping[str, str] | None = None, data: bytes | None = None) -> Answer:
    """One request, whatever its answer."""
    request = urllib.request.Request(address, data=data, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self, address: str) -> list[str]:
        """Absolute addresses that it leads to, without those that hold their content."""
        found = [value for name, value in self.attributes if name in ("href", "src") and not value.startswith("data:")]
        return [urldefrag(urljoin(address, value)).url for value in found]


def crawl(address: str) -> dict[str, Answer]:
    """Everything that links lead to, by address; of addresses that differ in an id alone, some."""
    host, found, left = urlsplit(address).netloc, {}, [address]
    alike: Counter[str] = Counter()
    while left:
        at = left.pop()
        assert urlsplit(at).netloc == host, at
        alike[re.sub("[0-9a-f]{20}", "ID", at)] += at not in found
        if at not in found and alike[re.sub("[0-9a-f]{20}", "ID", at)] < _ALIKE:
            answer = found[at] = ask(at)
            if answer.headers["Content-Type"].startswith("text/html"):
                left += answer.page.links(at)
    return found
