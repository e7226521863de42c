"""Reads the written clips out of the manifest parts of a dataset into columns: no Python object for a row.

Format: `schemas.manifest.CLIP_SCHEMA`, one Parquet part for each shard (`schemas.layout`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.errors import UsageError
from schemas.layout import manifest_folder
from schemas.manifest import CLIP_SCHEMA
from schemas.shard import LATENTS_NPY
from schemas.storage import join, list_files, read_bytes
from schemas.store_faults import retry_passing_faults
from vpp.data.clip_columns import MEMBERS, ClipColumns, ClipModels

HELD_OUT_SPLITS = ("val", "valid", "validation", "test")
"""Names of splits that are not trained on."""

_MODEL_COLUMNS = ("text_encoder", "text_encoder_is_stand_in", "latent_codec", "latent_codec_is_stand_in")
_COLUMNS = (
    "clip_id", "dataset", "split", "source_episode", "status", "shard", "members", "camera", *_MODEL_COLUMNS,
)  # fmt: skip
_NUM_THREADS = 16  # a store answers many requests at a time


def read_written_clips(url: str, retry_s: float) -> ClipColumns:
    """Reads all written clips of a dataset, in order of (dataset, shard, place in the shard).

    Args:
        url: The output of `jobs/preprocess.py`.
        retry_s: How long a store that does not answer is asked again.

    Raises:
        UsageError: If there is no manifest, no written clip, or a part has other columns.
    """
    folder = manifest_folder(url, "clips")
    names = retry_passing_faults(lambda: list_files(folder, ".parquet"), f"listing {folder}", retry_s)
    names = [name for name in names if name.count("/") == 1]
    if not names:
        raise UsageError(f"data {url}: expected the output of jobs/preprocess.py, found no manifest below {folder}")

    def read(name: str) -> _Part | None:
        part_url = join(folder, name)
        return _read_part(retry_passing_faults(lambda: read_bytes(part_url), f"reading {part_url}", retry_s), part_url)

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        parts = [part for part in pool.map(read, names) if part is not None]
    if not parts:
        raise UsageError(f"data {url}: expected written clips, found none in {len(names)} manifest parts in {folder}")
    return _in_order(_joined(parts))


@dataclass(frozen=True, eq=False)
class _Part:
    url: str
    clip_ids: pa.Array
    codes: dict[str, tuple[np.ndarray, list[Any]]]
    episode_hashes: np.ndarray
    is_held_out: np.ndarray
    offsets: np.ndarray
    num_bytes: np.ndarray


def _read_part(content: bytes, url: str) -> _Part | None:
    """The written clips of one part; None if it has none."""
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        found = file.schema_arrow
        wrong = [
            f"{name} {found.field(name).type if name in found.names else 'missing'} (expected {field.type})"
            for name, field in ((name, CLIP_SCHEMA.field(name)) for name in _COLUMNS)
            if name not in found.names or not found.field(name).type.equals(field.type)
        ]
        if wrong:
            raise UsageError(
                f"manifest part {url}: expected the columns of jobs/preprocess.py, found {'; '.join(wrong)}; "
                "run it again under a new output"
            )
        table = file.read(columns=list(_COLUMNS), use_threads=False)
    except pa.ArrowException as error:
        raise UsageError(f"manifest part {url}: expected Parquet, found something else: {error}") from error
    table = table.filter(pc.equal(table["status"], "written")).combine_chunks()
    if not len(table):
        return None
    for place, column in enumerate(table.schema):
        if column.name != "members":
            empty = False if column.type == pa.bool_() else ""
            table = table.set_column(place, column.name, pc.fill_null(table[column.name], empty))
    offsets, num_bytes = _member_ranges(table["members"].combine_chunks(), len(table))
    codes = {name: _encode(table[name]) for name in ("dataset", "camera", "shard")}
    has_latents = pa.array(offsets[MEMBERS.index(LATENTS_NPY)] >= 0)
    model_codes, models = _encode_rows([*(_encode(table[name]) for name in _MODEL_COLUMNS), _encode(has_latents)])
    codes["models"] = model_codes, [ClipModels(*model) for model in models]
    episode_codes, episodes = _encode_rows([codes["dataset"], _encode(table["source_episode"])])
    hashes = np.array([_episode_hash(*episode) for episode in episodes], np.uint64)
    held_out = pc.is_in(table["split"], pa.array(HELD_OUT_SPLITS)).to_numpy()
    return _Part(url, table["clip_id"].combine_chunks(), codes, hashes[episode_codes], held_out, offsets, num_bytes)


def _encode(column: Any) -> tuple[np.ndarray, list[Any]]:
    """Codes and distinct values of a column."""
    encoded = column.dictionary_encode("encode")
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def _encode_rows(columns: Sequence[tuple[np.ndarray, list[Any]]]) -> tuple[np.ndarray, list[tuple[Any, ...]]]:
    """Codes and distinct tuples of several encoded columns side by side."""
    sizes = [len(values) for _, values in columns]
    together = np.ravel_multi_index([codes for codes, _ in columns], sizes)
    distinct, codes = np.unique(together, return_inverse=True)
    places = np.unravel_index(distinct, sizes)
    values = zip(
        *([values[place] for place in of_column] for of_column, (_, values) in zip(places, columns, strict=True)),
        strict=True,
    )
    return codes, list(values)


def _episode_hash(dataset: str, episode: str) -> int:
    digest = hashlib.sha256(f"{dataset}\x1f{episode}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def _member_ranges(members: pa.ListArray, num_clips: int) -> tuple[np.ndarray, np.ndarray]:
    clip = np.repeat(np.arange(num_clips), pc.fill_null(pc.list_value_length(members), 0).to_numpy())
    flat = members.flatten()
    names, starts, sizes = (flat.field(name) for name in ("name", "offset", "num_bytes"))
    offsets = np.full((len(MEMBERS), num_clips), -1, np.int64)
    num_bytes = np.zeros((len(MEMBERS), num_clips), np.int32)
    for place, name in enumerate(MEMBERS):
        found = np.flatnonzero(pc.fill_null(pc.equal(names, name), False).to_numpy(zero_copy_only=False))
        offsets[place, clip[found]] = starts.to_numpy()[found]
        num_bytes[place, clip[found]] = sizes.to_numpy()[found]
    return offsets, num_bytes


@dataclass
class _Names:
    """Gives values numbers in the order in which they are met."""

    numbers: dict[Any, int] = field(default_factory=dict)

    def translate(self, codes: np.ndarray, values: Sequence[Any], dtype: type) -> np.ndarray:
        table: np.ndarray = np.array([self.numbers.setdefault(value, len(self.numbers)) for value in values], dtype)
        result: np.ndarray = table[codes]
        return result


def _joined(parts: Sequence[_Part]) -> ClipColumns:
    datasets, cameras, shards, models = _Names(), _Names(), _Names(), _Names()
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("dataset", "camera", "shard", "models")}
    for part in parts:
        columns["dataset"].append(datasets.translate(*part.codes["dataset"], np.int16))
        columns["camera"].append(cameras.translate(*part.codes["camera"], np.int16))
        columns["models"].append(models.translate(*part.codes["models"], np.int16))
        codes, values = _encode_rows([part.codes["dataset"], part.codes["shard"]])
        columns["shard"].append(shards.translate(codes, [(*value, part.url) for value in values], np.int32))
    return ClipColumns(
        clip_ids=pa.chunked_array([part.clip_ids for part in parts]).cast(pa.large_string()).combine_chunks(),
        dataset_codes=np.concatenate(columns["dataset"]),
        camera_codes=np.concatenate(columns["camera"]),
        shard_codes=np.concatenate(columns["shard"]),
        model_codes=np.concatenate(columns["models"]),
        episode_hashes=np.concatenate([part.episode_hashes for part in parts]),
        is_held_out=np.concatenate([part.is_held_out for part in parts]),
        offsets=np.concatenate([part.offsets for part in parts], axis=1),
        num_bytes=np.concatenate([part.num_bytes for part in parts], axis=1),
        datasets=tuple(datasets.numbers),
        cameras=tuple(cameras.numbers),
        shards=tuple(shards.numbers),
        models=tuple(models.numbers),
    )


def _in_order(clips: ClipColumns) -> ClipColumns:
    """Sorts clips by (dataset, shard, first byte), and each tuple of names."""
    renamed: dict[str, Any] = {}
    for codes, names in (("dataset_codes", "datasets"), ("camera_codes", "cameras"), ("shard_codes", "shards")):
        values = getattr(clips, names)
        by_name = sorted(range(len(values)), key=values.__getitem__)
        place = np.empty(len(values), getattr(clips, codes).dtype)
        place[by_name] = np.arange(len(values))
        renamed |= {codes: place[getattr(clips, codes)], names: tuple(values[number] for number in by_name)}
    clips = ClipColumns(**{**clips.__dict__, **renamed})
    first_bytes = np.where(clips.offsets < 0, np.iinfo(np.int64).max, clips.offsets).min(axis=0)
    shard = clips.shard_codes.astype(np.int64)
    is_sorted = (shard[1:] > shard[:-1]) | ((shard[1:] == shard[:-1]) & (first_bytes[1:] >= first_bytes[:-1]))
    if is_sorted.all():
        return clips
    return clips.take(np.lexsort((first_bytes, shard)))
