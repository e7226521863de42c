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
    url: str, dataset: str, part: str, clips: Mapping[str, tuple[dict[str, Any], dict[str, bytes]]]
) -> None:
    """Writes a tar of clips and its manifest part; `clips` is id -> (columns, members)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for clip_id, (_, members) in clips.items():
            for name, content in members.items():
                info = tarfile.TarInfo(f"{clip_id}.{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        offsets = {info.name: (info.offset_data, info.size) for info in tar}
    rows = []
    for clip_id, (columns, members) in clips.items():
        places = [
            {"name": name, "offset": offsets[f"{clip_id}.{name}"][0], "num_bytes": offsets[f"{clip_id}.{name}"][1]}
            for name in members
        ]
        where = {"status": "written", "reason": "", "shard": f"{dataset}/{part}.tar", "members": places}
        rows.append({"clip_id": clip_id, "split": "train", "source_episode": "e", **where, **columns})
    write_bytes(join(url, "clips", "shards", dataset, f"{part}.tar"), buffer.getvalue())
    write_part(url, "clips", dataset, part, rows)
