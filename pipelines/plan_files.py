"""The files of a plan: what a source lists, planned shards, distinct captions; written in streams and read in pieces.

Below `<output>/plan/<dataset>/`:

    listing/<n>.parquet   what part n of the source lists: one file a part, written in parallel and kept
    clips/<n>.parquet     planned shards of clips, one row group a shard
    episodes/<n>.parquet  planned shards of trajectories
    captions/<n>.parquet  distinct captions in order of first appearance, one file for each batch to encode
    request.json          what was asked for, and the source's parts; written first, never changed
    plan.json             the counts; written last: with it the plan is complete
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import manifest_rows
from pipelines.sources.source import Source
from schemas.clip import PlannedSample, PlannedShard
from schemas.episode import Episode, LeftOut
from schemas.layout import manifest_url, plan_folder
from schemas.manifest import SCHEMAS
from schemas.shard import Product
from schemas.storage import exists, join, read_bytes, write_bytes, write_file

SHARDS_PER_FILE = 64
CAPTIONS_PER_FILE = 1024
_LEFT_OUT_PER_FILE = 10_000
_ENTRIES_AT_ONCE = 100  # an hour-long video has a thousand segments

_LISTING_SCHEMA = pa.schema([pa.field("kind", pa.string()), pa.field("json", pa.string())])
_SAMPLE = pa.struct(
    [
        pa.field("sample_id", pa.string()),
        pa.field("camera", pa.string()),
        pa.field("start", pa.int64()),
        pa.field("end", pa.int64()),
        pa.field("indices", pa.list_(pa.int32())),
        pa.field("caption", pa.string()),
        pa.field("caption_id", pa.int64()),
    ]
)
_SHARD_SCHEMA = pa.schema([pa.field("episode", pa.string()), pa.field("samples", pa.list_(_SAMPLE))])
_CAPTION_SCHEMA = pa.schema([pa.field("caption", pa.string())])

_T = TypeVar("_T")


@dataclass(frozen=True)
class PlanSummary:
    """What a dataset's plan holds: `num_shards` and `planned` (rows that the manifest will have) for each product."""

    num_shards: dict[str, int]
    planned: dict[str, int]
    num_captions: int


def listing_url(output: str, dataset: str, part_number: int) -> str:
    """Where the listing of one part of a source lies."""
    return join(plan_folder(output, dataset), "listing", f"{part_number:06d}.parquet")


def list_part(source: Source, part: str, url: str) -> int:
    """Lists one part of a source into a file; does nothing if it is there. Returns the number of rows written."""
    if exists(url):
        return 0
    num_rows = 0
    with write_file(url) as handle, pq.ParquetWriter(handle, _LISTING_SCHEMA, compression="zstd") as writer:
        for batch in _in_batches(source.list_part(part), _ENTRIES_AT_ONCE):
            kinds = ["episode" if isinstance(entry, Episode) else "left_out" for entry in batch]
            texts = [entry.to_json() if isinstance(entry, Episode) else json.dumps(asdict(entry)) for entry in batch]
            writer.write_table(pa.table([kinds, texts], schema=_LISTING_SCHEMA))
            num_rows += len(batch)
    return num_rows


def read_listing(urls: Iterable[str]) -> Iterator[Episode | LeftOut]:
    """Reads listing files back, in order."""
    for url in urls:
        file = pq.ParquetFile(pa.BufferReader(read_bytes(url)))
        for batch in file.iter_batches(_ENTRIES_AT_ONCE):
            for kind, text in zip(batch["kind"].to_pylist(), batch["json"].to_pylist(), strict=True):
                yield Episode.from_json(text) if kind == "episode" else LeftOut(**json.loads(text))


def write_request(output: str, dataset: str, request: dict[str, Any], parts: list[str]) -> None:
    """Writes what a dataset is made of, before anything else of it."""
    document = json.dumps({"request": request, "parts": parts}, indent=1, sort_keys=True)
    write_bytes(join(plan_folder(output, dataset), "request.json"), document.encode())


def load_request(output: str, dataset: str) -> tuple[dict[str, Any], list[str]] | None:
    """The request and the source's parts, or None if the dataset was never begun."""
    url = join(plan_folder(output, dataset), "request.json")
    if not exists(url):
        return None
    document = json.loads(read_bytes(url))
    return document["request"], document["parts"]


def write_plan(output: str, dataset: str, summary: PlanSummary) -> None:
    """Completes a plan."""
    document = json.dumps(asdict(summary), indent=1, sort_keys=True)
    write_bytes(join(plan_folder(output, dataset), "plan.json"), document.encode())


def write_captions(output: str, dataset: str, captions: Iterable[str]) -> None:
    """Writes the distinct captions in batches."""
    folder = join(plan_folder(output, dataset), "captions")
    for number, batch in enumerate(_in_batches(captions, CAPTIONS_PER_FILE)):
        _write_table(join(folder, f"{number:06d}.parquet"), pa.table([batch], schema=_CAPTION_SCHEMA))


def load_plan(output: str, dataset: str) -> PlanSummary | None:
    """The summary of a complete plan, or None if there is none."""
    url = join(plan_folder(output, dataset), "plan.json")
    return PlanSummary(**json.loads(read_bytes(url))) if exists(url) else None


def load_shard(output: str, dataset: str, product: Product, number: int) -> PlannedShard:
    """Reads one planned shard."""
    url = join(plan_folder(output, dataset), product, f"{number // SHARDS_PER_FILE:06d}.parquet")
    table = pq.ParquetFile(pa.BufferReader(read_bytes(url))).read_row_group(number % SHARDS_PER_FILE)
    items = tuple(
        (
            Episode.from_json(row["episode"]),
            tuple(PlannedSample(**{**sample, "indices": tuple(sample["indices"])}) for sample in row["samples"]),
        )
        for row in table.to_pylist()
    )
    return PlannedShard(dataset, product, f"{number:06d}", items)


def load_captions(output: str, dataset: str, number: int) -> list[str]:
    """Reads one batch of distinct captions: those with ids from `number * CAPTIONS_PER_FILE` on."""
    url = join(plan_folder(output, dataset), "captions", f"{number:06d}.parquet")
    captions: list[str] = pq.read_table(pa.BufferReader(read_bytes(url)))["caption"].to_pylist()
    return captions


class ShardPlanWriter:
    """Fills shards one after another and writes each as a row group, `SHARDS_PER_FILE` to a file."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._items: list[tuple[Episode, list[PlannedSample]]] = []
        self._weight = 0
        self._pending: list[pa.Table] = []
        self._newest: tuple[Episode, str] | None = None
        self.num_shards = 0
        self.num_samples = 0

    def add(self, episode: Episode, sample: PlannedSample, weight: int, limit: int) -> None:
        """Puts a sample into the open shard, or into a new one where `limit` would be passed."""
        if self._items and self._weight + weight > limit:
            self._end_shard()
        if not self._items or self._items[-1][0] is not episode:
            self._items.append((episode, []))
        self._items[-1][1].append(sample)
        self._weight += weight
        self.num_samples += 1

    def close(self) -> None:
        """Writes what is open."""
        if self._items:
            self._end_shard()
        if self._pending:
            self._write_file()

    def _end_shard(self) -> None:
        episodes = [self._json_of(episode) for episode, _ in self._items]
        samples = [[sample.__dict__ for sample in of_episode] for _, of_episode in self._items]
        self._pending.append(pa.table([episodes, samples], schema=_SHARD_SCHEMA))
        self._items, self._weight = [], 0
        self.num_shards += 1
        if len(self._pending) == SHARDS_PER_FILE:
            self._write_file()

    def _json_of(self, episode: Episode) -> str:
        """Its JSON, made once for an hour-long video that fills many shards one after another."""
        if self._newest is None or self._newest[0] is not episode:
            self._newest = episode, episode.to_json()
        return self._newest[1]

    def _write_file(self) -> None:
        number = (self.num_shards - 1) // SHARDS_PER_FILE
        with (
            write_file(join(self._folder, f"{number:06d}.parquet")) as handle,
            pq.ParquetWriter(handle, _SHARD_SCHEMA, compression="zstd") as writer,
        ):
            for table in self._pending:
                writer.write_table(table, row_group_size=table.num_rows)
        self._pending = []


class LeftOutWriter:
    """Writes what never reaches a shard as manifest parts of bounded size."""

    def __init__(self, output: str, product: Product, dataset: str) -> None:
        self._output, self._product, self._dataset = output, product, dataset
        self._rows: list[dict[str, Any]] = []
        self._num_files = 0
        self.num_rows = 0

    def add(self, left_out: LeftOut) -> None:
        """Adds a row."""
        self._rows.append(manifest_rows.left_out_row(self._product, self._dataset, left_out, self.num_rows))
        self.num_rows += 1
        if len(self._rows) == _LEFT_OUT_PER_FILE:
            self._write()

    def close(self) -> None:
        """Writes what is open."""
        if self._rows:
            self._write()

    def _write(self) -> None:
        table = pa.Table.from_pylist(self._rows, SCHEMAS[self._product])
        _write_table(manifest_url(self._output, self._product, self._dataset, f"plan-{self._num_files:06d}"), table)
        self._num_files += 1
        self._rows = []


def _write_table(url: str, table: pa.Table) -> None:
    with write_file(url) as handle:
        pq.write_table(table, handle, compression="zstd")


def _in_batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    batch: list[_T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
