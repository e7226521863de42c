"""Numbers distinct captions, and knows episodes again, on disk, so that memory does not grow with them."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from schemas.clip import PlannedSample
from schemas.episode import LeftOut


class CaptionTable:
    """Distinct captions in order of first appearance, numbered from 0, in a temporary SQLite file."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vpp-captions-")
        self._db = sqlite3.connect(Path(self._folder.name) / "captions.sqlite", isolation_level=None)
        self._db.execute("pragma journal_mode=off")
        self._db.execute("pragma synchronous=off")
        self._db.execute("create table caption (id integer primary key, text text unique not null)")
        self._db.execute("create table episode (id text primary key) without rowid")
        self._db.execute("begin")
        self._last = ("", -1)
        self.num_captions = 0

    def numbered(self, samples: Iterable[PlannedSample | LeftOut]) -> Iterator[PlannedSample | LeftOut]:
        """Fills in `caption_id`."""
        for sample in samples:
            if isinstance(sample, LeftOut):
                yield sample
            else:
                yield replace(sample, caption_id=self._id(sample.caption))

    def is_new_episode(self, episode_id: str) -> bool:
        """Whether an episode of this id comes for the first time."""
        return self._db.execute("insert or ignore into episode values (?)", (episode_id,)).rowcount == 1

    def _id(self, caption: str) -> int:
        if self._last[0] != caption:
            found = self._db.execute("select id from caption where text = ?", (caption,)).fetchone()
            if found is None:
                self._db.execute("insert into caption values (?, ?)", (self.num_captions, caption))
                found = (self.num_captions,)
                self.num_captions += 1
            self._last = (caption, found[0])
        return self._last[1]

    def in_order(self) -> Iterator[str]:
        """All captions, by number."""
        for (caption,) in self._db.execute("select text from caption order by id"):
            yield caption

    def close(self) -> None:
        """Removes the file."""
        self._db.close()
        self._folder.cleanup()
