"""Reads the written clips or episodes out of the manifest parts of a dataset into columns: no Python object for a row.

Format: `schemas.manifest`, one Parquet part for each shard (`schemas.layout`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.episode import MAX_FRAMES
from schemas.errors import UsageError
from schemas.layout import manifest_folder
from schemas.manifest import SCHEMAS
from schemas.parquet_memory import open_parquet, parquet_faults
from schemas.shard import ACTIONS_NPY, LATENTS_NPY, PROPRIO_NPY, TEXT_TOKENS_NPY, VIDEO, Product
from schemas.storage import join, list_files, read_bytes
from schemas.store_faults import retry_passing_faults
from vpp.data.sample_columns import FrozenModels, SampleColumns

HELD_OUT_SPLITS = ("val", "valid", "validation", "test")
"""Names of splits that are not trained on."""

CLIP_MEMBERS = (VIDEO, LATENTS_NPY, TEXT_TOKENS_NPY)
"""The members of a clip that training reads."""

_OF_WHOLE_EPISODE = (ACTIONS_NPY, PROPRIO_NPY, TEXT_TOKENS_NPY)
_OF_CAMERA = (VIDEO, LATENTS_NPY)
_MODEL_COLUMNS = ("text_encoder", "text_encoder_is_stand_in", "latent_codec", "latent_codec_is_stand_in")
_SHARED_COLUMNS = ("dataset", "split", "source_episode", "status", "shard", "members", *_MODEL_COLUMNS)
_NUMBERS = ("num_frames", "num_actions", "action_dim", "proprio_dim")
_COLUMNS: dict[Product, tuple[str, ...]] = {
    "clips": ("clip_id", *_SHARED_COLUMNS, "camera"),
    "episodes": ("episode_id", *_SHARED_COLUMNS, "cameras", "caption", *_NUMBERS),
}
_NUM_THREADS = 16  # a store answers many requests at a time
_LARGEST_OFFSET, _LARGEST_MEMBER = 1 << 48, (1 << 31) - 1  # in bytes


def read_written(url: str, product: Product, retry_s: float, cameras: Sequence[str] = ()) -> SampleColumns:
    """Reads all written clips or episodes of a dataset, in order of (dataset, shard, place in the shard).

    Args:
        url: The output of `jobs/preprocess.py`.
        product: Which of the two.
        retry_s: How long a store that does not answer is asked again.
        cameras: Of an episode's members, those of other cameras are left out; empty for none.

    Raises:
        UsageError: If there is no manifest, no written sample, or a part has other columns.
    """
    folder = manifest_folder(url, product)
    names = retry_passing_faults(lambda: list_files(folder, ".parquet"), f"listing {folder}", retry_s)
    names = [name for name in names if name.count("/") == 1]
    if not names:
        only = "; episodes are made of sources with actions" if product == "episodes" else ""
        raise UsageError(
            f"data {url}: expected the output of jobs/preprocess.py, found no manifest below {folder}{only}"
        )

    def read(name: str) -> _Part | None:
        part_url = join(folder, name)
        content = retry_passing_faults(lambda: read_bytes(part_url), f"reading {part_url}", retry_s)
        return _read_part(content, part_url, product, cameras)

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        parts = [part for part in pool.map(read, names) if part is not None]
    if not parts:
        raise UsageError(
            f"data {url}: expected written {product}, found none in {len(names)} manifest parts in {folder}"
        )
    return _in_order(_joined(parts, product))


@dataclass(frozen=True, eq=False)
class _Part:
    url: str
    ids: pa.Array
    codes: dict[str, tuple[np.ndarray, list[Any]]]
    episode_hashes: np.ndarray
    is_held_out: np.ndarray
    ranges: dict[str, tuple[np.ndarray, np.ndarray]]  # by member: offsets and sizes in bytes
    numbers: dict[str, np.ndarray]
    captions: pa.Array | None


def _read_part(content: bytes, url: str, product: Product, cameras: Sequence[str]) -> _Part | None:
    """The written samples of one part; None if it has none."""
    columns, schema = _COLUMNS[product], SCHEMAS[product]
    with parquet_faults(f"manifest part {url}"):
        file = open_parquet(content)
        found = file.schema_arrow
        wrong = [
            f"{name} {found.field(name).type if name in found.names else 'missing'} (expected {field.type})"
            for name, field in ((name, schema.field(name)) for name in columns)
            if name not in found.names or not found.field(name).type.equals(field.type)
        ]
        if wrong:
            raise UsageError(
                f"manifest part {url}: expected the columns of jobs/preprocess.py, found {'; '.join(wrong)}; "
                "run it again under a new output"
            )
        table = file.read(columns=list(columns), use_threads=False)
    table = table.filter(pc.equal(table["status"], "written")).combine_chunks()
    if not len(table):
        return None
    if product == "episodes":
        table = table.append_column("camera", pc.binary_join(table["cameras"], ",")).drop_columns("cameras")
    for place, column in enumerate(table.schema):
        if column.name != "members":
            empty = False if column.type == pa.bool_() else 0 if column.type == pa.int32() else ""
            table = table.set_column(place, column.name, pc.fill_null(table[column.name], empty))
    ranges = _member_ranges(table["members"].combine_chunks(), len(table), product, cameras, url)
    codes = {name: _encode(table[name]) for name in ("dataset", "camera", "shard")}
    has_latents = _has_latents(ranges, len(table))
    of_models = (*(_encode(table[name]) for name in _MODEL_COLUMNS), _encode(pa.array(has_latents)))
    model_codes, models = _encode_rows(of_models)
    codes["models"] = model_codes, [FrozenModels(*model) for model in models]
    episode_codes, episodes = _encode_rows([codes["dataset"], _encode(table["source_episode"])])
    numbers = {name: table[name].to_numpy() for name in _NUMBERS if name in columns}
    if any(values.min() < 0 or values.max() > MAX_FRAMES for values in numbers.values()):
        raise UsageError(
            f"manifest part {url}: expected numbers of frames and of values up to {MAX_FRAMES}, found others"
        )
    hashes = np.array([even_hash(*episode) for episode in episodes], np.uint64)
    return _Part(
        url=url,
        ids=table[columns[0]].combine_chunks(),
        codes=codes,
        episode_hashes=hashes[episode_codes],
        is_held_out=pc.is_in(table["split"], pa.array(HELD_OUT_SPLITS)).to_numpy(),
        ranges=ranges,
        numbers=numbers,
        captions=table["caption"].combine_chunks() if "caption" in columns else None,
    )


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


def even_hash(*names: str) -> int:
    """64 bits of SHA-256 of some names, spread evenly."""
    digest = hashlib.sha256("\x1f".join(names).encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def _member_ranges(
    members: pa.ListArray, num_samples: int, product: Product, cameras: Sequence[str], url: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    sample = np.repeat(np.arange(num_samples), pc.fill_null(pc.list_value_length(members), 0).to_numpy())
    flat = members.flatten()
    names = flat.field("name")
    starts, sizes = (pc.fill_null(flat.field(name), -1).to_numpy() for name in ("offset", "num_bytes"))
    if ((starts < 0) | (starts > _LARGEST_OFFSET) | (sizes < 0) | (sizes > _LARGEST_MEMBER)).any():
        raise UsageError(f"manifest part {url}: expected members inside a shard, found others; copy the part again")
    wanted = CLIP_MEMBERS if product == "clips" else _episode_members(names.unique().drop_null().to_pylist(), cameras)
    ranges = {}
    for name in wanted:
        found = np.flatnonzero(pc.fill_null(pc.equal(names, name), False).to_numpy(zero_copy_only=False))
        offsets, num_bytes = np.full(num_samples, -1, np.int64), np.zeros(num_samples, np.int32)
        offsets[sample[found]] = starts[found]
        num_bytes[sample[found]] = sizes[found]
        ranges[name] = offsets, num_bytes
    return ranges


def _has_latents(ranges: dict[str, tuple[np.ndarray, np.ndarray]], num_samples: int) -> np.ndarray:
    """Which samples have latents of each of their videos."""
    has_any, lacks_some, none = np.zeros(num_samples, bool), np.zeros(num_samples, bool), np.full(num_samples, -1)
    for name, (offsets, _) in ranges.items():
        if name.endswith(LATENTS_NPY):
            has_any |= offsets >= 0
        elif name.endswith(VIDEO):
            latents, _ = ranges.get(name.removesuffix(VIDEO) + LATENTS_NPY, (none, none))
            lacks_some |= (offsets >= 0) & (latents < 0)
    return has_any & ~lacks_some


def _episode_members(names: Sequence[str], cameras: Sequence[str]) -> list[str]:
    of_cameras = [name for name in names if name.partition(".")[2] in _OF_CAMERA]
    return [name for name in of_cameras if not cameras or name.partition(".")[0] in cameras] + [*_OF_WHOLE_EPISODE]


@dataclass
class _Names:
    """Gives values numbers in the order in which they are met."""

    numbers: dict[Any, int] = field(default_factory=dict)

    def translate(self, codes: np.ndarray, values: Sequence[Any], dtype: type) -> np.ndarray:
        table: np.ndarray = np.array([self.numbers.setdefault(value, len(self.numbers)) for value in values], dtype)
        result: np.ndarray = table[codes]
        return result


def _joined(parts: Sequence[_Part], product: Product) -> SampleColumns:
    datasets, cameras, shards, models = _Names(), _Names(), _Names(), _Names()
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("dataset", "camera", "shard", "models")}
    for part in parts:
        columns["dataset"].append(datasets.translate(*part.codes["dataset"], np.int16))
        columns["camera"].append(cameras.translate(*part.codes["camera"], np.int16))
        columns["models"].append(models.translate(*part.codes["models"], np.int16))
        codes, values = _encode_rows([part.codes["dataset"], part.codes["shard"]])
        columns["shard"].append(shards.translate(codes, [(*value, part.url) for value in values], np.int32))
    members = CLIP_MEMBERS if product == "clips" else tuple(sorted({name for part in parts for name in part.ranges}))
    sizes = [len(part.ids) for part in parts]
    offsets, num_bytes = (
        np.full((len(members), sum(sizes)), -1, np.int64),
        np.zeros((len(members), sum(sizes)), np.int32),
    )
    for part, end in zip(parts, np.cumsum(sizes).tolist(), strict=True):
        for name, (of_offsets, of_num_bytes) in part.ranges.items():
            where = members.index(name), slice(end - len(part.ids), end)
            offsets[where], num_bytes[where] = of_offsets, of_num_bytes
    return SampleColumns(
        ids=_strings([part.ids for part in parts]),
        dataset_codes=np.concatenate(columns["dataset"]),
        camera_codes=np.concatenate(columns["camera"]),
        shard_codes=np.concatenate(columns["shard"]),
        model_codes=np.concatenate(columns["models"]),
        episode_hashes=np.concatenate([part.episode_hashes for part in parts]),
        is_held_out=np.concatenate([part.is_held_out for part in parts]),
        offsets=offsets,
        num_bytes=num_bytes,
        members=members,
        numbers={name: np.concatenate([part.numbers[name] for part in parts]) for name in parts[0].numbers},
        captions=_strings([part.captions for part in parts]) if product == "episodes" else None,
        datasets=tuple(datasets.numbers),
        cameras=tuple(cameras.numbers),
        shards=tuple(shards.numbers),
        models=tuple(models.numbers),
    )


def _strings(arrays: Sequence[pa.Array]) -> pa.LargeStringArray:
    return pa.chunked_array(arrays).cast(pa.large_string()).combine_chunks()


def _in_order(samples: SampleColumns) -> SampleColumns:
    """Sorts samples by (dataset, shard, first byte), and each tuple of names."""
    renamed: dict[str, Any] = {}
    for codes, names in (("dataset_codes", "datasets"), ("camera_codes", "cameras"), ("shard_codes", "shards")):
        values = getattr(samples, names)
        by_name = sorted(range(len(values)), key=values.__getitem__)
        place = np.empty(len(values), getattr(samples, codes).dtype)
        place[by_name] = np.arange(len(values))
        renamed |= {codes: place[getattr(samples, codes)], names: tuple(values[number] for number in by_name)}
    samples = replace(samples, **renamed)
    first_bytes = np.where(samples.offsets < 0, np.iinfo(np.int64).max, samples.offsets).min(axis=0)
    shard = samples.shard_codes.astype(np.int64)
    is_sorted = (shard[1:] > shard[:-1]) | ((shard[1:] == shard[:-1]) & (first_bytes[1:] >= first_bytes[:-1]))
    if is_sorted.all():
        return samples
    return samples.take(np.lexsort((first_bytes, shard)))
