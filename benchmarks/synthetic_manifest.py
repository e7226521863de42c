"""Writes a manifest of any size with the true schema and plausible content, one part in memory at a time."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.layout import manifest_url, shard_path
from schemas.manifest import CLIP_SCHEMA
from schemas.shard import NUM_FRAMES

DATASETS = ("bridge", "calvin", "ego4d", "metaworld", "rt1", "sthv2")
STATUSES = ("written", "rejected", "filtered")
_REASONS = ("", "decode_error", "too_short")
_DETAILS = ("", "FFmpeg: Invalid data found when processing input (frame 311)", "expected 16 frames, found 9")
_SHARES = (0.96, 0.03, 0.01)
_MEMBERS = ("mp4", "txt", "json", "text.npy")
_EPISODES_PER_PART = 200
_VERBS = [
    "pick up",
    "put down",
    "open",
    "close",
    "push",
    "pull",
    "turn",
    "lift",
    "move",
    "place",
    "wipe",
    "pour",
    "fold",
    "stack",
    "slide",
]
_THINGS = [
    "the red block",
    "the drawer",
    "the green mug",
    "a bottle of water",
    "the left door",
    "the sponge",
    "the towel",
    "the lid",
]
_PLACES = [
    "on the table",
    "next to the sink",
    "from the shelf",
    "into the basket",
    "with the right hand",
    "under the lamp",
]
_HEX_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)


def captions() -> pa.StringArray:
    """About 14,000 different captions."""
    numbers = [""] + [f" {number} times" for number in range(2, 21)]
    return pa.array(
        f"{' '.join(words)}{number}" for *words, number in itertools.product(_VERBS, _THINGS, _PLACES, numbers)
    )


def write_manifest(folder: Path, num_clips: int, num_parts: int) -> int:
    """Writes `num_parts` manifest parts with `num_clips` rows in all, the same ones each time; returns bytes."""
    texts = captions()
    num_bytes = 0
    for part in range(num_parts):
        num_rows = num_clips * (part + 1) // num_parts - num_clips * part // num_parts
        dataset, name = DATASETS[part % len(DATASETS)], f"{part // len(DATASETS):06d}"
        path = Path(manifest_url(str(folder), "clips", dataset, name))
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(manifest_part(dataset, name, part, num_rows, texts), path, compression="zstd")  # as shards do
        num_bytes += path.stat().st_size
    return num_bytes


def manifest_part(dataset: str, name: str, part: int, num_rows: int, texts: pa.StringArray) -> pa.Table:
    """The rows of one shard."""
    rng = np.random.default_rng([part, num_rows])
    status = rng.choice(len(STATUSES), num_rows, p=_SHARES)
    is_written = pa.array(status == 0)
    episode = np.sort(rng.integers(0, _EPISODES_PER_PART, num_rows))
    episodes = [f"train/{part * _EPISODES_PER_PART + number}" for number in range(_EPISODES_PER_PART)]
    start, stride = rng.integers(0, 900, num_rows), rng.integers(1, 6, num_rows)
    caption = texts.take(pa.array(rng.integers(0, len(texts), num_rows)))
    sizes = np.stack(
        [
            rng.integers(12_000, 60_000, num_rows),
            pc.binary_length(caption).to_numpy(),
            rng.integers(600, 800, num_rows),
            np.full(num_rows, 20_608),
        ],
        axis=1,
    )
    columns = {
        "clip_id": random_hex(rng, num_rows, 20),
        "dataset": _same(dataset, num_rows),
        "split": _same("train", num_rows),
        "source_episode": _pick(episodes, episode),
        "source_url": _pick([f"s3://videos/{dataset}/{name}.mp4" for name in episodes], episode),
        "level": _same("clip", num_rows),
        "status": _pick(STATUSES, status),
        "reason": _pick(_REASONS, status),
        "detail": _pick(_DETAILS, status),
        "caption": caption,
        "start_frame": start,
        "end_frame": start + NUM_FRAMES * stride,
        "source_fps": np.full(num_rows, 30.0),
        "shard": pc.if_else(is_written, shard_path(dataset, name), None),
        "members": _members(sizes, status == 0),
        "num_bytes": pc.if_else(is_written, pa.array(sizes.sum(axis=1)), None),
        "sha256": pc.if_else(is_written, random_hex(rng, num_rows, 64), None),
        "decoder": _same("pyav 18.1.0 (libavcodec 62.1.0)", num_rows),
        "video_encoder": _same("libx264 superfast crf20 (libavcodec 62.1.0)", num_rows),
        "text_encoder": _same("openai/clip-vit-base-patch32", num_rows),
        "text_encoder_is_stand_in": np.zeros(num_rows, bool),
        "latent_codec": _same("", num_rows),
        "latent_codec_is_stand_in": np.zeros(num_rows, bool),
        "camera": _pick(("image_0", "image_1", "image_2"), rng.integers(0, 3, num_rows)),
        "frame_indices": _lists(start[:, None] + stride[:, None] * np.arange(NUM_FRAMES)),
    }
    return pa.table([columns[name] for name in CLIP_SCHEMA.names], schema=CLIP_SCHEMA)


def random_hex(rng: np.random.Generator, num_rows: int, num_digits: int) -> pa.StringArray:
    """Strings of random hex digits."""
    digits = _HEX_DIGITS[rng.integers(0, 16, (num_rows, num_digits), dtype=np.uint8)]
    offsets = np.arange(0, (num_rows + 1) * num_digits, num_digits, dtype=np.int32)
    return pa.StringArray.from_buffers(num_rows, pa.py_buffer(offsets), pa.py_buffer(digits.tobytes()))


def _same(text: str, num_rows: int) -> pa.Array:
    return pa.repeat(text, num_rows)


def _pick(options: list[str] | tuple[str, ...], indices: np.ndarray) -> pa.Array:
    return pa.array(options).take(pa.array(indices))


def _lists(values: np.ndarray) -> pa.Array:
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel().astype(np.int32)))


def _members(sizes: np.ndarray, is_written: np.ndarray) -> pa.Array:
    """Members of the written rows, laid out as in a tar: a header of 512 bytes and content padded to 512; else null."""
    blocks = np.where(is_written[:, None], 512 + (sizes + 511) // 512 * 512, 0)
    begins = np.cumsum(blocks.ravel()).reshape(blocks.shape) - blocks + 512
    structs = pa.StructArray.from_arrays(
        [
            pa.array(_MEMBERS).take(pa.array(np.tile(np.arange(4), int(is_written.sum())))),
            pa.array(begins[is_written].ravel()),
            pa.array(sizes[is_written].ravel()),
        ],
        fields=list(CLIP_SCHEMA.field("members").type.value_type),
    )
    offsets = np.concatenate([[0], np.cumsum(is_written * 4)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets, mask=np.append(~is_written, False)), structs)
