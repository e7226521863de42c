"""The manifest's two tables, as Parquet: one row for each clip or episode that was planned, whatever became of it.

`planned = written + rejected + filtered` holds by counting rows. A row whose `level` is `source` or `episode` stands
for something that was turned away before its clips were known.
"""

from __future__ import annotations

import pyarrow as pa

MEMBERS = pa.list_(
    pa.struct([pa.field("name", pa.string()), pa.field("offset", pa.int64()), pa.field("num_bytes", pa.int64())])
)
"""Tar members of a sample: `name` is the extension, `offset` the first byte of the content in the tar."""

_SHARED_FIELDS = [
    pa.field("dataset", pa.string()),
    pa.field("split", pa.string()),
    pa.field("source_episode", pa.string()),  # the source's own name of the episode
    pa.field("source_url", pa.string()),
    pa.field("level", pa.string()),  # clip | episode | source: what the row stands for
    pa.field("status", pa.string()),  # written | rejected | filtered
    pa.field("reason", pa.string()),  # empty where written
    pa.field("detail", pa.string()),
    pa.field("caption", pa.string()),
    pa.field("start_frame", pa.int64()),  # half-open range of source frames
    pa.field("end_frame", pa.int64()),
    pa.field("source_fps", pa.float64()),  # 0 where the format does not tell
    pa.field("shard", pa.string()),  # path of the tar below <output>/<product>/shards
    pa.field("members", MEMBERS),
    pa.field("num_bytes", pa.int64()),  # sum over the members
    pa.field("sha256", pa.string()),  # of the videos, in the order of the members
    pa.field("decoder", pa.string()),  # name and version
    pa.field("video_encoder", pa.string()),  # codec, preset, crf and version
    pa.field("text_encoder", pa.string()),
    pa.field("text_encoder_is_stand_in", pa.bool_()),
    pa.field("latent_codec", pa.string()),  # empty without latents
    pa.field("latent_codec_is_stand_in", pa.bool_()),
]

CLIP_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string()),
        *_SHARED_FIELDS,
        pa.field("camera", pa.string()),
        pa.field("frame_indices", pa.list_(pa.int32())),  # the 16 source frames, as they stand in the clip
    ]
)

EPISODE_SCHEMA = pa.schema(
    [
        pa.field("episode_id", pa.string()),
        *_SHARED_FIELDS,
        pa.field("cameras", pa.list_(pa.string())),
        pa.field("num_frames", pa.int32()),
        pa.field("num_actions", pa.int32()),
        pa.field("action_dim", pa.int32()),
        pa.field("proprio_dim", pa.int32()),
        pa.field(
            "action_mean", pa.list_(pa.float64())
        ),  # per dimension, over this episode: normalisation needs only the manifest
        pa.field("action_std", pa.list_(pa.float64())),
        pa.field("action_min", pa.list_(pa.float64())),
        pa.field("action_max", pa.list_(pa.float64())),
        pa.field("proprio_mean", pa.list_(pa.float64())),
        pa.field("proprio_std", pa.list_(pa.float64())),
        pa.field("proprio_min", pa.list_(pa.float64())),
        pa.field("proprio_max", pa.list_(pa.float64())),
    ]
)

SCHEMAS = {"clips": CLIP_SCHEMA, "episodes": EPISODE_SCHEMA}
