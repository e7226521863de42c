"""Makes manifest rows: from what was left out, and from a planned sample and what became of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.clip import PlannedSample
from schemas.episode import Episode, LeftOut
from schemas.shard import VIDEO, Product, sample_id

Members = list[tuple[str, bytes]]
"""Extension and content of each member of a sample, in tar order."""


@dataclass(frozen=True)
class Provenance:
    """Which programs and models made a sample, as it stands in its manifest row."""

    decoder: str = ""
    video_encoder: str = ""
    text_encoder: str = ""
    text_encoder_is_stand_in: bool = False
    latent_codec: str = ""
    latent_codec_is_stand_in: bool = False


def left_out_row(product: Product, dataset: str, left_out: LeftOut, number: int) -> dict[str, Any]:
    """The row of something that never reached a shard; `number` counts such rows in the dataset."""
    level = "source" if not left_out.episode_id else "episode" if left_out.start is None else "clip"
    row = {
        _id_column(product): sample_id("left out", dataset, left_out.episode_id, left_out.reason, number),
        "dataset": dataset,
        "split": left_out.split,
        "source_episode": left_out.episode_id,
        "source_url": left_out.source_url,
        "level": level,
        "status": left_out.status,
        "reason": left_out.reason,
        "detail": left_out.detail,
        "caption": left_out.caption,
        "start_frame": left_out.start,
        "end_frame": left_out.end,
        **_EMPTY_PROVENANCE,
    }
    return _writable(row)


def planned_row(product: Product, dataset: str, episode: Episode, sample: PlannedSample) -> dict[str, Any]:
    """What is known of a sample before it is made."""
    row: dict[str, Any] = {
        _id_column(product): sample.sample_id,
        "dataset": dataset,
        "split": episode.split,
        "source_episode": episode.episode_id,
        "source_url": episode.source_url,
        "level": "clip" if product == "clips" else "episode",
        "caption": sample.caption,
        "start_frame": sample.start,
        "end_frame": sample.end,
        "source_fps": episode.fps,
    }
    row = _writable(row)
    if product == "clips":
        return row | {"camera": sample.camera, "frame_indices": list(sample.indices)}
    return row | {"cameras": list(episode.cameras), "num_frames": sample.end - sample.start}


def written(
    row: dict[str, Any], members: Members, offsets: list[int], shard: str, provenance: Provenance
) -> dict[str, Any]:
    """Completes the row of a sample that stands in a tar at `offsets`."""
    digest = hashlib.sha256()
    for name, content in members:
        if name.endswith(VIDEO):
            digest.update(content)
    return {
        **row,
        "status": "written",
        "reason": "",
        "detail": row.get("detail", ""),
        "shard": shard,
        "members": [
            {"name": name, "offset": offset, "num_bytes": len(content)}
            for (name, content), offset in zip(members, offsets, strict=True)
        ],
        "num_bytes": sum(len(content) for _, content in members),
        "sha256": digest.hexdigest(),
        **provenance.__dict__,
    }


def turned_away(row: dict[str, Any], status: str, reason: str, detail: str) -> dict[str, Any]:
    """Completes the row of a sample that was `rejected` or `filtered`."""
    return {**row, "status": status, "reason": reason, "detail": detail, **_EMPTY_PROVENANCE}


def statistics(name: str, values: np.ndarray) -> dict[str, list[float]]:
    """Mean, standard deviation, minimum and maximum of each dimension of `[T, D]`, as manifest columns."""
    exact = values.astype(np.float64)
    return {
        f"{name}_mean": exact.mean(0).tolist(),
        f"{name}_std": exact.std(0).tolist(),
        f"{name}_min": exact.min(0).tolist(),
        f"{name}_max": exact.max(0).tolist(),
    }


def _writable(row: dict[str, Any]) -> dict[str, Any]:
    """Replaces lone surrogates, which stand for bytes of file names that are no UTF-8 and fit in no file."""
    return {
        name: value.encode(errors="replace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }


_EMPTY_PROVENANCE = Provenance().__dict__


def _id_column(product: Product) -> str:
    return "clip_id" if product == "clips" else "episode_id"
