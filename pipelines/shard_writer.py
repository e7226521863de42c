"""Writes a shard: a tar whose bytes follow from its contents, then its manifest part, the record that it is done."""

from __future__ import annotations

import io
import json
import tarfile
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.decode import Sample, npy
from pipelines.manifest_rows import Members, Provenance, written
from schemas.clip import PlannedShard
from schemas.layout import manifest_url, shard_path, shard_url
from schemas.manifest import SCHEMAS
from schemas.shard import CAPTION, METADATA, TEXT_TOKENS_NPY
from schemas.storage import write_file

TAKEN_OVER = "taken over from the source"
"""Stands in the manifest for the latent codec of latents that came with the source."""


class TarWriter:
    """Appends members to a tar and tells where their contents begin. No clock, user or path gets into the bytes."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=handle, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - closed by close()

    def add(self, name: str, content: bytes) -> int:
        """Appends one member; returns the offset of its first byte."""
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(content), 0o644, 0
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(info, io.BytesIO(content))
        return offset

    def close(self) -> None:
        """Writes the end of the archive; the file stays open."""
        self._tar.close()


def write_shard(
    output: str, shard: PlannedShard, samples: list[Sample], text: dict[str, np.ndarray], provenance: Provenance
) -> dict[str, int]:
    """Writes the tar and then the manifest part of a shard; no tar where every sample was turned away.

    Args:
        output: The output's URL.
        shard: The planned shard.
        samples: What became of each planned sample, in plan order.
        text: CLIP token sequences float16 `[20, 512]` by caption.
        provenance: Which programs and models made the samples.

    Returns:
        Number of rows by status, and `num_bytes` of the tar's samples.
    """
    path = shard_path(shard.dataset, shard.name)
    id_column = "clip_id" if shard.product == "clips" else "episode_id"
    rows = []
    if any(sample.members for sample in samples):
        with write_file(shard_url(output, shard.product, shard.dataset, shard.name)) as handle:
            tar = TarWriter(handle)
            for sample in samples:
                if not sample.members:
                    rows.append(sample.row)
                    continue
                members = _complete(sample, text)
                offsets = [tar.add(f"{sample.row[id_column]}.{name}", content) for name, content in members]
                rows.append(written(sample.row, members, offsets, path, _provenance(sample, provenance)))
            tar.close()
    else:
        rows = [sample.row for sample in samples]
    with write_file(manifest_url(output, shard.product, shard.dataset, shard.name)) as handle:
        pq.write_table(pa.Table.from_pylist(rows, SCHEMAS[shard.product]), handle, compression="zstd")
    counts = {status: sum(row["status"] == status for row in rows) for status in ("written", "rejected", "filtered")}
    return counts | {"num_bytes": sum(row.get("num_bytes") or 0 for row in rows)}


def _complete(sample: Sample, text: dict[str, np.ndarray]) -> Members:
    """Adds caption, metadata and text embedding behind the videos and arrays."""
    row = sample.row
    metadata = json.dumps({name: value for name, value in row.items() if name != "source_url"}, sort_keys=True)
    extra: Members = [(CAPTION, row["caption"].encode()), (METADATA, metadata.encode())]
    if row["caption"] in text:
        extra.append((TEXT_TOKENS_NPY, npy(text[row["caption"]])))
    return sample.members + extra


def _provenance(sample: Sample, provenance: Provenance) -> Provenance:
    if sample.latents_taken_over:
        return Provenance(**{**provenance.__dict__, "latent_codec": TAKEN_OVER, "latent_codec_is_stand_in": False})
    return provenance
