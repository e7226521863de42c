"""The plan decides everything: a pure function from listed episodes to clips, trajectories and shards.

Files below `<output>/plan/<dataset>/`:

    listing/<n>.parquet   what part n of the source lists: one file a part, written in parallel and kept
    clips/<n>.parquet     planned shards of clips, one row group a shard
    episodes/<n>.parquet  planned shards of trajectories
    captions/<n>.parquet  distinct captions in order of first appearance, one file for each batch that is encoded
    together plan.json             the request and the counts; written last: with it the plan is complete

Everything is streamed: memory depends on the size of a shard, not on the number of episodes or the length of a video.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import manifest_rows
from pipelines.captions import clean_caption
from pipelines.sources import SourceSpec, open_source
from pipelines.windows import Window, WindowSettings, windows
from schemas.clip import PlannedSample, PlannedShard
from schemas.episode import Episode, LeftOut, Segment
from schemas.layout import manifest_url, plan_folder
from schemas.manifest import SCHEMAS
from schemas.shard import PRODUCTS, Product, sample_id
from schemas.storage import exists, join, read_bytes, write_bytes, write_file

SHARDS_PER_FILE = 64
CAPTIONS_PER_FILE = 1024
_LEFT_OUT_PER_FILE = 10_000

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
class ShardSettings:
    """How much goes into one shard, which is the unit of work, of recovery and of memory.

    Attributes:
        clips: Clips in a shard.
        frames: Frames in a shard of trajectories, all cameras together; a longer trajectory is filtered.
    """

    clips: int = 512
    frames: int = 8192

    def __post_init__(self) -> None:
        if self.clips < 1 or self.frames < 1:
            raise ValueError(f"shard: expected at least 1 clip and 1 frame, found {self.clips} and {self.frames}")


@dataclass(frozen=True)
class PlanSummary:
    """What a dataset's plan holds: `num_shards` and `planned` (rows that the manifest will have) for each product."""

    num_shards: dict[str, int]
    planned: dict[str, int]
    num_captions: int


# --- listing
# -------------------------------------------------------------------------------------------------------------


def listing_url(output: str, dataset: str, part_number: int) -> str:
    """Where the listing of one part of a source lies."""
    return join(plan_folder(output, dataset), "listing", f"{part_number:06d}.parquet")


def list_part(spec: SourceSpec, part: str, url: str) -> int:
    """Lists one part of a source into a file; does nothing if it is there. Returns the number of rows written."""
    if exists(url):
        return 0
    source = open_source(spec)
    num_rows = 0
    with write_file(url) as handle, pq.ParquetWriter(handle, _LISTING_SCHEMA, compression="zstd") as writer:
        for batch in _in_batches(source.list_part(part), 1000):
            kinds = ["episode" if isinstance(entry, Episode) else "left_out" for entry in batch]
            texts = [entry.to_json() if isinstance(entry, Episode) else json.dumps(asdict(entry)) for entry in batch]
            writer.write_table(pa.table([kinds, texts], schema=_LISTING_SCHEMA))
            num_rows += len(batch)
    return num_rows


def read_listing(urls: Iterable[str]) -> Iterator[Episode | LeftOut]:
    """Reads listing files back, in order."""
    for url in urls:
        file = pq.ParquetFile(pa.BufferReader(read_bytes(url)))
        for batch in file.iter_batches(1000):
            for kind, text in zip(batch["kind"].to_pylist(), batch["json"].to_pylist(), strict=True):
                yield Episode.from_json(text) if kind == "episode" else LeftOut(**json.loads(text))


# --- planning
# ------------------------------------------------------------------------------------------------------------


def make_plan(
    output: str,
    dataset: str,
    listing: Iterable[Episode | LeftOut],
    window_settings: WindowSettings,
    shard_settings: ShardSettings,
    products: Sequence[Product],
    request: dict[str, Any],
) -> PlanSummary:
    """Plans a dataset and writes the plan; the same arguments write the same bytes.

    What never reaches a shard is written to the manifest here, as parts named `plan-<n>`.

    Args:
        output: The output's URL.
        dataset: The dataset's name.
        listing: What the source lists, in order.
        window_settings: Mode other than `auto`.
        shard_settings: Sizes of the shards.
        products: Which of `clips` and `episodes` to plan.
        request: What was asked for, kept in `plan.json` to tell a later run with other settings.
    """
    folder = plan_folder(output, dataset)
    planned: dict[str, int] = dict.fromkeys(PRODUCTS, 0)
    with closing(_Captions()) as captions:
        shards = {product: _ShardPlanWriter(join(folder, product)) for product in products}
        left_out = {product: _LeftOutWriter(output, product, dataset) for product in products}
        for entry in listing:
            if isinstance(entry, LeftOut):
                for product in products:
                    left_out[product].add(entry)
                continue
            episode = _with_clean_captions(entry)
            for product in products:
                if product == "episodes" and not episode.action_dim:
                    continue
                for row in episode.left_out:
                    left_out[product].add(row)
                if product == "clips":
                    samples, limit = _clips(dataset, episode, window_settings), shard_settings.clips
                else:
                    samples, limit = _trajectories(dataset, episode, shard_settings.frames), shard_settings.frames
                for sample in captions.numbered(samples):
                    if isinstance(sample, LeftOut):
                        left_out[product].add(sample)
                    else:
                        weight = 1 if product == "clips" else (sample.end - sample.start) * len(episode.cameras)
                        shards[product].add(episode, sample, weight, limit)
        for product in products:
            shards[product].close()
            left_out[product].close()
            planned[product] = shards[product].num_samples + left_out[product].num_rows
        for number, batch in enumerate(_in_batches(captions.in_order(), CAPTIONS_PER_FILE)):
            _write_table(join(folder, "captions", f"{number:06d}.parquet"), pa.table([batch], schema=_CAPTION_SCHEMA))
        summary = PlanSummary(
            num_shards={product: shards[product].num_shards if product in shards else 0 for product in PRODUCTS},
            planned=planned,
            num_captions=captions.num_captions,
        )
    document = {"request": request, **asdict(summary)}
    write_bytes(join(folder, "plan.json"), json.dumps(document, indent=1, sort_keys=True).encode())
    return summary


def load_plan(output: str, dataset: str) -> tuple[dict[str, Any], PlanSummary] | None:
    """The request and the summary of a complete plan, or None if there is none."""
    url = join(plan_folder(output, dataset), "plan.json")
    if not exists(url):
        return None
    document = json.loads(read_bytes(url))
    request = document.pop("request")
    return request, PlanSummary(**document)


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


def _with_clean_captions(episode: Episode) -> Episode:
    segments, left_out = [], list(episode.left_out)
    for segment in episode.segments:
        caption = clean_caption(segment.caption)
        if caption:
            segments.append(type(segment)(segment.start, segment.end, caption))
        else:
            left_out.append(_filtered(episode, "no_caption", f"expected a caption, found {segment.caption!r}", segment))
    return Episode(**{**episode.__dict__, "segments": tuple(segments), "left_out": tuple(left_out)})


def _clips(dataset: str, episode: Episode, settings: WindowSettings) -> Iterator[PlannedSample | LeftOut]:
    """All clips of an episode, camera by camera, so that a camera's clips stand together in a shard."""
    for number, camera in enumerate(episode.cameras):
        seen = set()
        for window in windows(episode, settings):
            if isinstance(window, Window):
                identity = sample_id(dataset, episode.episode_id, camera, window.indices, window.caption)
                if identity in seen:
                    yield _filtered(episode, "duplicate", "the same frames and caption twice", window)
                    continue
                seen.add(identity)
                yield PlannedSample(identity, camera, window.start, window.end, window.indices, window.caption, -1)
            elif number == 0:  # the same for every camera
                yield window


def _trajectories(dataset: str, episode: Episode, max_frames: int) -> Iterator[PlannedSample | LeftOut]:
    """All language-labelled trajectories of an episode that has actions."""
    seen = set()
    for segment in episode.segments if episode.action_dim else ():
        num_frames = (segment.end - segment.start) * len(episode.cameras)
        if num_frames > max_frames:
            detail = f"expected at most {max_frames} frames of all cameras (shard.frames), found {num_frames}"
            yield _filtered(episode, "too_long", detail, segment)
        elif segment in seen:
            yield _filtered(episode, "duplicate", "the same frames and caption twice", segment)
        else:
            seen.add(segment)
            identity = sample_id(dataset, episode.episode_id, segment.start, segment.end, segment.caption)
            yield PlannedSample(identity, "", segment.start, segment.end, (), segment.caption, -1)


def _filtered(episode: Episode, reason: str, detail: str, segment: Segment | Window) -> LeftOut:
    return LeftOut(
        "filtered", reason, detail, episode.episode_id, clean_caption(segment.caption),
        segment.start, segment.end, episode.split, episode.source_url,
    )  # fmt: skip


class _Captions:
    """Numbers distinct captions in order of first appearance, on disk, so that memory does not grow with them."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vpp-captions-")
        self._db = sqlite3.connect(Path(self._folder.name) / "captions.sqlite", isolation_level=None)
        self._db.execute("pragma journal_mode=off")
        self._db.execute("pragma synchronous=off")
        self._db.execute("create table caption (id integer primary key, text text unique not null)")
        self._db.execute("begin")
        self._last = ("", -1)
        self.num_captions = 0

    def numbered(self, samples: Iterable[PlannedSample | LeftOut]) -> Iterator[PlannedSample | LeftOut]:
        """Fills in `caption_id`."""
        for sample in samples:
            if isinstance(sample, LeftOut):
                yield sample
            else:
                yield PlannedSample(**{**sample.__dict__, "caption_id": self._id(sample.caption)})

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
        for (caption,) in self._db.execute("select text from caption order by id"):
            yield caption

    def close(self) -> None:
        self._db.close()
        self._folder.cleanup()


class _ShardPlanWriter:
    """Fills shards one after another and writes each as a row group, `SHARDS_PER_FILE` to a file."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._items: list[tuple[Episode, list[PlannedSample]]] = []
        self._weight = 0
        self._pending: list[pa.Table] = []
        self.num_shards = 0
        self.num_samples = 0

    def add(self, episode: Episode, sample: PlannedSample, weight: int, limit: int) -> None:
        if self._items and self._weight + weight > limit:
            self._end_shard()
        if not self._items or self._items[-1][0] is not episode:
            self._items.append((episode, []))
        self._items[-1][1].append(sample)
        self._weight += weight
        self.num_samples += 1

    def close(self) -> None:
        if self._items:
            self._end_shard()
        if self._pending:
            self._write_file()

    def _end_shard(self) -> None:
        episodes = [episode.to_json() for episode, _ in self._items]
        samples = [[sample.__dict__ for sample in of_episode] for _, of_episode in self._items]
        self._pending.append(pa.table([episodes, samples], schema=_SHARD_SCHEMA))
        self._items, self._weight = [], 0
        self.num_shards += 1
        if len(self._pending) == SHARDS_PER_FILE:
            self._write_file()

    def _write_file(self) -> None:
        number = (self.num_shards - 1) // SHARDS_PER_FILE
        with (
            write_file(join(self._folder, f"{number:06d}.parquet")) as handle,
            pq.ParquetWriter(handle, _SHARD_SCHEMA, compression="zstd") as writer,
        ):
            for table in self._pending:
                writer.write_table(table, row_group_size=table.num_rows)
        self._pending = []


class _LeftOutWriter:
    """Writes what never reaches a shard as manifest parts of bounded size."""

    def __init__(self, output: str, product: Product, dataset: str) -> None:
        self._output, self._product, self._dataset = output, product, dataset
        self._rows: list[dict[str, Any]] = []
        self._num_files = 0
        self.num_rows = 0

    def add(self, left_out: LeftOut) -> None:
        self._rows.append(manifest_rows.left_out_row(self._product, self._dataset, left_out, self.num_rows))
        self.num_rows += 1
        if len(self._rows) == _LEFT_OUT_PER_FILE:
            self._write()

    def close(self) -> None:
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
