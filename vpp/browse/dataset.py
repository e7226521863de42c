"""A dataset as pages ask for it: counts, pages of its rows, one row, and where the members of a sample lie.

Rows come in the order of their ids, and a page begins after an id instead of after so many rows: the thousandth page
costs what the first one does. Ids are hashes, so a page is a fair sample of what the filters leave.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from schemas.errors import DataError
from schemas.shard import PRODUCTS, Product
from schemas.storage import read_bytes
from vpp.browse.access import Access, Manifest
from vpp.browse.filters import Filters
from vpp.browse.not_there import NotThere
from vpp.report.find_runs import Run

PAGE_ROWS = 24
_KEPT = 4096
_MOST_BYTES = 64 << 20  # of what is read at once for a page; videos are sent in pieces
_ID = re.compile(r"[0-9a-f]{20}")

_COUNTS = """
select '{product}' as product, dataset, status, coalesce(reason, '') as reason, count(*) as num,
       sum((end_frame - start_frame) / source_fps) filter (source_fps > 0) / 3600 as hours, min(detail) as example,
       coalesce(bool_or(text_encoder_is_stand_in or latent_codec_is_stand_in), false) as has_stand_ins
from {product} group by all"""
_ALL_COUNTS = f"from ({' union all '.join(_COUNTS.format(product=product) for product in PRODUCTS)}) order by all"

_SHARED = "dataset, split, source_episode, caption, status, reason, detail, start_frame, end_frame, shard, members"
_COLUMNS: dict[Product, str] = {
    "clips": f"clip_id, camera, {_SHARED}",
    "episodes": f"episode_id, cameras, {_SHARED}",
}


@dataclass(frozen=True)
class Page:
    """Rows in the order of their ids.

    Attributes:
        rows: At most `PAGE_ROWS`; what a list shows of them.
        after: Id after which the next page begins; empty for the last page.
    """

    rows: list[dict[str, Any]]
    after: str


class Dataset:
    """A manifest that is opened when first asked, and answers one question at a time.

    Args:
        run: Where it lies.
        access: How it is reached.
    """

    def __init__(self, run: Run, access: Access) -> None:
        self.run = run
        self._access = access
        self._lock = threading.RLock()
        self._manifest: Manifest | None = None
        self._counts: list[dict[str, Any]] | None = None
        self._numbers: dict[tuple[Product, Filters], int] = {}
        self._rows: dict[tuple[Product, str], dict[str, Any]] = {}

    def counts(self) -> list[dict[str, Any]]:
        """Rows `product`, `dataset`, `status`, `reason`, `num`, `hours`, `example`, `has_stand_ins`."""
        with self._lock:
            if self._counts is None:
                self._counts = self._select(_ALL_COUNTS)
            return self._counts

    def number(self, product: Product, filters: Filters) -> int:
        """How many rows the filters leave."""
        if not (filters.caption or filters.episode):  # these are known by group
            chosen = filters.chosen().items()
            rows = (row for row in self.counts() if row["product"] == product)
            return sum(row["num"] for row in rows if all(row[name] == value for name, value in chosen))
        with self._lock:
            known = self._numbers.get((product, filters))
            if known is None:
                sql = f"select count(*) as num from {product} where {filters.where()}"
                known = int(self._select(sql, filters.chosen())[0]["num"])
                _keep(self._numbers, (product, filters), known)
            return known

    def page(self, product: Product, filters: Filters, after: str) -> Page:
        """The rows that follow an id."""
        key = id_column(product)
        first = (
            f"select {key} from {product} where {filters.where()} and {key} > $after order by 1 limit {PAGE_ROWS + 1}"
        )
        with self._lock:
            ids = [row[key] for row in self._select(first, {**filters.chosen(), "after": after})]
            shown = {f"id{place}": name for place, name in enumerate(ids[:PAGE_ROWS])}
            places = ", ".join(f"${name}" for name in shown)
            sql = (
                f"select {_COLUMNS[product]} from {product} where {key} in ({places}) and {filters.where()} order by 1"
            )
            rows = self._select(sql, {**filters.chosen(), **shown}) if ids else []
            for row in rows:
                _keep(self._rows, (product, row[key]), row)
        return Page(rows, ids[PAGE_ROWS - 1] if len(ids) > PAGE_ROWS else "")

    def row(self, product: Product, identity: str) -> dict[str, Any]:
        """All columns of a row.

        Raises:
            NotThere: If there is none.
        """
        if not is_id(identity):
            raise NotThere(f"expected an id of 20 hex digits, found {identity!r:.100}")
        rows = self._select(f"from {product} where {id_column(product)} = $identity limit 1", {"identity": identity})
        if not rows:
            raise NotThere(f"{self.run.name}: no {product[:-1]} {identity}")
        return rows[0]

    def kept_row(self, product: Product, identity: str) -> dict[str, Any]:
        """A row, or what a list that showed it has kept of it: enough to find its members.

        Raises:
            NotThere: If there is none.
        """
        with self._lock:
            key = (product, identity)
            if key not in self._rows:
                _keep(self._rows, key, self.row(product, identity))
            return self._rows[key]

    def locate(self, product: Product, identity: str, name: str) -> tuple[str, int, int]:
        """Where a member of a sample lies: URL and half-open range of bytes.

        Raises:
            NotThere: If there is no such sample.
            DataError: If it was not written, or lacks the member.
        """
        return self._access.locate(self.run.url, product, self.kept_row(product, identity), [name])

    def read(self, product: Product, row: dict[str, Any], names: Collection[str]) -> dict[str, bytes]:
        """Small members of a sample, those that it has, with one request from the first to the last.

        Raises:
            DataError: If they cannot be read.
        """
        there = [member for member in row["members"] or () if member["name"] in names]
        if not there:
            return {}
        url, start, end = self._access.locate(self.run.url, product, row, [member["name"] for member in there])
        if end - start > _MOST_BYTES:
            raise DataError("too_large", f"expected at most {_MOST_BYTES} bytes to show, found {end - start} in {url}")
        content = read_range(url, start, end)
        begins = {member["name"]: member["offset"] - start for member in there}
        return {one["name"]: content[(at := begins[one["name"]]) : at + one["num_bytes"]] for one in there}

    def _select(self, sql: str, parameters: dict[str, str] | None = None) -> list[dict[str, Any]]:
        with self._lock:
            if self._manifest is None:
                self._manifest = self._access.open_manifest(self.run.url)
            rows: list[dict[str, Any]] = self._manifest.select(sql, parameters or {}).to_pylist()
            return rows


def id_column(product: Product) -> str:
    """Name of the column that holds a product's ids.

    >>> id_column("clips")
    'clip_id'
    """
    return f"{product[:-1]}_id"


def is_id(text: object) -> bool:
    """Whether a text can be an id (`schemas.shard.sample_id`)."""
    return isinstance(text, str) and bool(_ID.fullmatch(text))


def read_range(url: str, start: int, end: int) -> bytes:
    """Bytes of a file.

    Raises:
        DataError: `missing_file`, or `truncated_shard` if it ends before.
    """
    try:
        content = read_bytes(url, start, end) if end > start else b""
    except FileNotFoundError as error:
        raise DataError("missing_file", f"expected a file, found none at {url}") from error
    if len(content) != end - start:
        raise DataError("truncated_shard", f"expected bytes {start} to {end} in {url}, found {len(content)} bytes")
    return content


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    """Remembers a value, and forgets the one that was put in first where there are many."""
    kept[key] = value
    if len(kept) > _KEPT:
        del kept[next(iter(kept))]
