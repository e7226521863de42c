"""The questions that everybody asks of a manifest, as SQL with named parameters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NamedQuery:
    """A query that everyone needs.

    Attributes:
        description: One line for people.
        sql: The query over `clips`, `episodes` and `shards`; `$like` in it stands for the text of `--like`.
    """

    description: str
    sql: str

    @property
    def takes_like(self) -> bool:
        """Whether it looks for a text."""
        return "$like" in self.sql

    def bind(self, like: str) -> dict[str, str]:
        """The values of its parameters."""
        return {"like": like} if self.takes_like else {}


_BOTH = """(
    select dataset, 'clips' as product, status, reason, detail, caption, start_frame, end_frame, source_fps from clips
    union all
    select dataset, 'episodes', status, reason, detail, caption, start_frame, end_frame, source_fps from episodes
)"""

_COUNTS = f"""
select product, dataset, status, count(*) as num,
       round(sum((end_frame - start_frame) / source_fps) filter (source_fps > 0) / 3600, 3) as hours
from {_BOTH} group by product, dataset, status order by product, dataset, status"""

_HOURS = f"""
select product, dataset, count(*) as num, sum(end_frame - start_frame)::bigint as num_source_frames,
       sum((end_frame - start_frame) / source_fps) filter (source_fps > 0) / 3600 as hours,
       case when count(*) = count(*) filter (source_fps > 0) then ''
            else format('unknown for {{}} of {{}}', count(*) - count(*) filter (source_fps > 0), count(*))
       end as frame_rate
from {_BOTH} where status = 'written' group by product, dataset order by product, dataset"""

_REJECTED = f"""
select product, dataset, status, reason, count(*) as num, min(detail) as example
from {_BOTH} where status <> 'written' group by product, dataset, status, reason
order by num desc, product, dataset, status, reason"""

_CAPTIONS = f"""
select caption, count(*) filter (product = 'clips') as num_clips,
       count(*) filter (product = 'episodes') as num_episodes, list_sort(list(distinct dataset)) as datasets
from {_BOTH} where status = 'written' and contains(lower(caption), lower($like))
group by caption order by num_clips + num_episodes desc, caption"""

# Hashes find the candidates, since a table of ten million of them fits in memory; the candidates are compared exactly.
_SAME_BYTES = """
select 'same bytes' as kind, '{product}' as product, count(*) as num, min(caption) as caption,
       list_sort(list({id_column}))[:5] as ids
from {product}
where status = 'written' and hash(sha256) in (
    select hash(sha256) from {product} where status = 'written' group by 1 having count(*) > 1)
group by sha256 having count(*) > 1"""
_SAME_FRAMES = """
select 'same frames and caption', '{product}', count(*), min(caption), list_sort(list({id_column}))[:5]
from {product}
where status = 'written' and {known} is not null and hash({key}) in (
    select hash({key}) from {product} where status = 'written' group by 1 having count(*) > 1)
group by {key} having count(*) > 1"""
_FRAMES_KEYS = {
    "clips": "source_url, source_episode, camera, caption, frame_indices",
    "episodes": "source_url, source_episode, caption, start_frame, end_frame",
}
_FRAMES_KNOWN = {"clips": "frame_indices", "episodes": "source_episode"}
_DUPLICATES = " union all ".join(
    sql.format(product=product, id_column=id_column, key=_FRAMES_KEYS[product], known=_FRAMES_KNOWN[product])
    for product, id_column in (("clips", "clip_id"), ("episodes", "episode_id"))
    for sql in (_SAME_BYTES, _SAME_FRAMES)
)

_DATASET_OF_PRODUCT = """
select dataset, '{product}' as product, count(*) filter (status = 'written') as num_written,
       count(distinct source_episode) filter (status = 'written') as num_source_episodes,
       count(distinct caption) filter (status = 'written') as num_captions,
       sum(num_bytes)::bigint as num_bytes,
       list_sort(list(distinct split) filter (split <> '')) as splits, {cameras} as cameras,
       list_sort(list(distinct text_encoder) filter (text_encoder <> '')) as text_encoders,
       list_sort(list(distinct latent_codec) filter (latent_codec <> '')) as latent_codecs,
       coalesce(bool_or(text_encoder_is_stand_in or latent_codec_is_stand_in), false) as has_stand_ins
from {product} group by dataset"""
_CAMERAS = {
    "clips": "list_sort(list(distinct camera) filter (camera <> ''))",
    "episodes": "list_sort(list_distinct(flatten(list(distinct cameras) filter (cameras is not null))))",
}
_DATASETS = " union all ".join(
    _DATASET_OF_PRODUCT.format(product=product, cameras=cameras) for product, cameras in _CAMERAS.items()
)

NAMED_QUERIES: dict[str, NamedQuery] = {
    "counts": NamedQuery("rows by dataset and status, with hours where the frame rate is known", _COUNTS),
    "hours": NamedQuery("hours of source video by dataset, each clip and camera counted by itself", _HOURS),
    "rejected": NamedQuery("what was turned away, by reason, with one example", _REJECTED),
    "captions": NamedQuery("captions that contain the text of --like, the most frequent first", _CAPTIONS),
    "duplicates": NamedQuery(
        "written samples with the same bytes, or with the same frames and caption",
        f"from ({_DUPLICATES}) order by product, kind, num desc, ids",
    ),
    "datasets": NamedQuery(
        "what a dataset is made of: episodes, captions, splits, cameras, encoders",
        f"from ({_DATASETS}) order by dataset, product",
    ),
    "shards": NamedQuery("size and content of each shard", "from shards order by dataset, product, shard"),
}
"""By name, as `jobs/query.py` takes it."""
