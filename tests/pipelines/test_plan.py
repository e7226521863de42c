"""The plan is a pure function: every clip once, ids that do not depend on the place, bounded files."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines import plan_files
from pipelines.plan import ShardSettings, make_plan
from pipelines.plan_files import PlanSummary, load_captions, load_plan, load_shard
from pipelines.windows import WindowSettings
from schemas.clip import PlannedSample
from schemas.episode import Episode, LeftOut, Segment

SLIDING = WindowSettings(mode="sliding", stride=2, hop=4)


def episodes(count: int, action_dim: int = 7, num_frames: int = 40) -> Iterator[Episode | LeftOut]:
    for number in range(count):
        if number % 10 == 9:
            yield LeftOut("rejected", "missing_file", "expected a video", episode_id=f"e{number}")
        else:
            captions = (Segment(0, 20, f"task {number % 3}"), Segment(10, num_frames, f" say   {number} "))
            yield Episode(f"e{number}", "train", "f", num_frames, 30.0, ("left", "right"), captions, action_dim)


def planned(output: Path, dataset: str = "d") -> dict[str, list[tuple[Episode, PlannedSample]]]:
    summary = load_plan(str(output), dataset)
    assert summary is not None
    return {
        product: [
            (episode, sample)
            for number in range(summary.num_shards[product])
            for episode, samples in load_shard(str(output), dataset, product, number).items
            for sample in samples
        ]
        for product in ("clips", "episodes")
    }


def run(output: Path, listing: Iterator[Episode | LeftOut], **shard: int) -> PlanSummary:
    return make_plan(str(output), "d", listing, SLIDING, ShardSettings(**shard), ("clips", "episodes"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    run(tmp_path / "a", episodes(200), clips=50)
    run(tmp_path / "b", episodes(200), clips=50)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_every_clip_and_trajectory_is_planned_once_and_counted(tmp_path: Path) -> None:
    summary = run(tmp_path, episodes(200), clips=37, frames=300)
    found = planned(tmp_path)
    num_windows = len(range(0, 18, 4)) + len(range(0, 28, 4))
    assert len(found["clips"]) == 180 * 2 * num_windows
    assert len(found["episodes"]) == 180 * 2
    for product, samples in found.items():
        assert max(Counter(sample.sample_id for _, sample in samples).values()) == 1
        assert summary.planned[product] == len(samples) + 20


def test_shards_keep_their_size_and_share_long_episodes(tmp_path: Path) -> None:
    listing = [Episode("long", "train", "f", 10_000, 30.0, ("cam",), (Segment(0, 10_000, "text"),))]
    summary = make_plan(str(tmp_path), "d", listing, SLIDING, ShardSettings(clips=100), ("clips",))
    sizes = [
        sum(len(s) for _, s in load_shard(str(tmp_path), "d", "clips", n).items)
        for n in range(summary.num_shards["clips"])
    ]
    assert sizes[:-1] == [100] * (len(sizes) - 1)
    assert sum(sizes) == len(range(0, 9998, 4))


def test_ids_depend_on_content_and_not_on_the_place_or_the_shards(tmp_path: Path) -> None:
    run(tmp_path / "a", episodes(20), clips=7)
    run(tmp_path / "b", episodes(20), clips=1000)
    a, b = planned(tmp_path / "a"), planned(tmp_path / "b")
    assert [s.sample_id for _, s in a["clips"]] == [s.sample_id for _, s in b["clips"]]


def test_captions_are_clean_distinct_and_numbered_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_files, "CAPTIONS_PER_FILE", 5)
    summary = run(tmp_path, episodes(20))
    batches = [load_captions(str(tmp_path), "d", number) for number in range(-(-summary.num_captions // 5))]
    assert {len(batch) for batch in batches[:-1]} == {5}
    captions = [caption for batch in batches for caption in batch]
    assert len(set(captions)) == len(captions) == summary.num_captions
    assert "say 4" in captions
    for samples in planned(tmp_path).values():
        assert all(captions[sample.caption_id] == sample.caption for _, sample in samples)


def test_an_episode_that_is_listed_twice_is_taken_once_and_told(tmp_path: Path) -> None:
    summary = run(tmp_path, iter([*episodes(3), *episodes(1)]))
    (part,) = (tmp_path / "clips" / "manifest" / "d").iterdir()
    (row,) = pq.read_table(part).to_pylist()
    assert (row["status"], row["reason"], row["source_episode"]) == ("rejected", "duplicate_episode", "e0")
    assert summary.planned["episodes"] == 3 * 2 + 1


def test_a_segment_without_words_becomes_a_row(tmp_path: Path) -> None:
    listing = [Episode("e", "train", "f", 40, 30.0, ("cam",), (Segment(0, 40, " \n "),), 7)]
    summary = run(tmp_path, iter(listing))
    assert summary.planned == {"clips": 1, "episodes": 1}
    (part,) = (tmp_path / "clips" / "manifest" / "d").iterdir()
    (row,) = pq.read_table(part).to_pylist()
    assert (row["status"], row["reason"], row["source_episode"]) == ("filtered", "no_caption", "e")


def test_a_trajectory_longer_than_a_shard_is_filtered_and_says_which_setting(tmp_path: Path) -> None:
    listing = [Episode("e", "train", "f", 500, 30.0, ("cam",), (Segment(0, 500, "text"),), 7)]
    make_plan(str(tmp_path), "d", listing, SLIDING, ShardSettings(frames=400), ("episodes",))
    (part,) = (tmp_path / "episodes" / "manifest" / "d").iterdir()
    (row,) = pq.read_table(part).to_pylist()
    assert (row["status"], row["reason"]) == ("filtered", "too_long")
    assert "shard.frames" in row["detail"]


def test_memory_does_not_grow_with_the_number_of_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_files, "_LEFT_OUT_PER_FILE", 10)

    def peak(count: int) -> int:
        tracemalloc.start()
        run(tmp_path / str(count), episodes(count), clips=64, frames=1000)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(50)
    assert peak(1200) < 2_000_000  # its 26,000 clips as objects would take 15 MB
