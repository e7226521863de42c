"""A small preprocessed dataset that the tests write themselves, with `tarfile` and the schemas, apart from the pipeline."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

import av
import pyarrow as pa
import pyarrow.parquet as pq
from videos import numbered_frame

from pipelines.encode_video import VideoSettings, encode_video
from schemas.manifest import SCHEMAS
from schemas.shard import Product
from schemas.storage import join, write_bytes, write_file


def clip_video(first: int, num_frames: int = 16) -> bytes:
    """A clip whose frames show their numbers, from `first` on."""
    frames = (
        av.VideoFrame.from_ndarray(numbered_frame(first + n, 256, 240), format="rgb24") for n in range(num_frames)
    )
    return encode_video((frame.reformat(256, 256, "yuv420p") for frame in frames), VideoSettings())


def write_part(url: str, product: str, dataset: str, part: str, rows: Sequence[Mapping[str, Any]]) -> None:
    table = pa.Table.from_pylist([{"dataset": dataset, **row} for row in rows], SCHEMAS[product])
    with write_file(join(url, product, "manifest", dataset, f"{part}.parquet")) as handle:
        pq.write_table(table, handle)


def write_shard(
    url: str,
    dataset: str,
    part: str,
    samples: Mapping[str, tuple[dict[str, Any], dict[str, bytes]]],
    product: Product = "clips",
) -> None:
    """Writes a tar of clips or episodes and its manifest part; `samples` is id -> (columns, members)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for sample_id, (_, members) in samples.items():
            for name, content in members.items():
                info = tarfile.TarInfo(f"{sample_id}.{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        offsets = {info.name: (info.offset_data, info.size) for info in tar}
    rows = []
    for sample_id, (columns, members) in samples.items():
        places = [
            {"name": name, "offset": offsets[f"{sample_id}.{name}"][0], "num_bytes": offsets[f"{sample_id}.{name}"][1]}
            for name in members
        ]
        where = {"status": "written", "reason": "", "shard": f"{dataset}/{part}.tar", "members": places}
        rows.append({f"{product[:-1]}_id": sample_id, "split": "train", "source_episode": "e", **where, **columns})
    write_bytes(join(url, product, "shards", dataset, f"{part}.tar"), buffer.getvalue())
    write_part(url, product, dataset, part, rows)
