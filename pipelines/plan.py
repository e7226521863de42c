"""The plan decides everything: a pure function from listed episodes to clips, trajectories and shards.

Everything is streamed: memory depends on the size of a shard, not on the number of episodes or the length of a video.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from pipelines.caption_table import CaptionTable
from pipelines.captions import clean_caption
from pipelines.plan_files import LeftOutWriter, PlanSummary, ShardPlanWriter, write_captions, write_plan
from pipelines.windows import Window, WindowSettings, windows
from schemas.clip import PlannedSample
from schemas.episode import MAX_FRAMES, Episode, LeftOut, Segment
from schemas.layout import plan_folder
from schemas.shard import PRODUCTS, Product, sample_id
from schemas.storage import join

_OVERLAPS = 4  # of a video's segments at a moment, on the average: two annotators' windows overlap by half


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


def make_plan(
    output: str,
    dataset: str,
    listing: Iterable[Episode | LeftOut],
    window_settings: WindowSettings,
    shard_settings: ShardSettings,
    products: Sequence[Product],
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
    """
    folder = plan_folder(output, dataset)
    planned: dict[str, int] = dict.fromkeys(PRODUCTS, 0)
    with closing(CaptionTable()) as captions:
        shards = {product: ShardPlanWriter(join(folder, product)) for product in products}
        left_out = {product: LeftOutWriter(output, product, dataset) for product in products}
        for entry in listing:
            if isinstance(entry, LeftOut):
                for product in products:
                    left_out[product].add(entry)
                continue
            is_known = not captions.is_new_episode(entry.episode_id)
            fault = _listed_twice(entry) if is_known else _too_many_frames(entry)
            if fault:
                for product in products:
                    left_out[product].add(fault)
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
        write_captions(output, dataset, captions.in_order())
        summary = PlanSummary(
            num_shards={product: shards[product].num_shards if product in shards else 0 for product in PRODUCTS},
            planned=planned,
            num_captions=captions.num_captions,
        )
    write_plan(output, dataset, summary)
    return summary


def _with_clean_captions(episode: Episode) -> Episode:
    segments, left_out = [], list(episode.left_out)
    for segment in episode.segments:
        caption = clean_caption(segment.caption)
        if caption:
            segments.append(type(segment)(segment.start, segment.end, caption))
        else:
            left_out.append(_filtered(episode, "no_caption", f"expected a caption, found {segment.caption!r}", segment))
    return replace(episode, segments=tuple(segments), left_out=tuple(left_out))


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


def _listed_twice(episode: Episode) -> LeftOut:
    detail = f"expected an id of its own, found {episode.episode_id} a second time"
    return LeftOut(
        "rejected", "duplicate_episode", detail, episode.episode_id, split=episode.split, source_url=episode.source_url
    )


def _too_many_frames(episode: Episode) -> LeftOut | None:
    """What is wrong with an episode that a few bytes claim to be endless; None if nothing is."""
    longest = max(episode.num_frames, sum(segment.end - segment.start for segment in episode.segments) // _OVERLAPS)
    if longest <= MAX_FRAMES:
        return None
    detail = f"expected at most {MAX_FRAMES} frames, and segments that cover {_OVERLAPS} times as many, found more"
    return LeftOut(
        "rejected", "too_many_frames", detail, episode.episode_id, split=episode.split, source_url=episode.source_url
    )


def _filtered(episode: Episode, reason: str, detail: str, segment: Segment | Window) -> LeftOut:
    return LeftOut(
        "filtered", reason, detail, episode.episode_id, clean_caption(segment.caption),
        segment.start, segment.end, episode.split, episode.source_url,
    )  # fmt: skip
