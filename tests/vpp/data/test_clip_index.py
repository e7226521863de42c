"""The index holds what is written, in one order, and holds out whole episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_clips import MODELS, write_clips
from s3 import S3Server
from small_dataset import write_part

from pipelines.range_read import read_members
from pipelines.selection import save_selection
from schemas.errors import UsageError
from schemas.manifest import CLIP_SCHEMA
from schemas.storage import join, write_file
from vpp.data.clip_index import ClipIndex
from vpp.data.sample_columns import FrozenModels


def written(clip_id: str, number: int, **columns: object) -> dict[str, object]:
    members = [{"name": "text.npy", "offset": 512 + 1024 * number, "num_bytes": 100}]
    row = {"clip_id": clip_id, "status": "written", "split": "train", "camera": "side", "members": members, **MODELS}
    return row | {"source_episode": str(number), "shard": "a/0.tar"} | columns


def save_ids(url: str, name: str, table: pa.Table) -> None:
    with write_file(join(url, "selections", f"{name}.parquet")) as handle:
        pq.write_table(table, handle)


def test_the_ranges_are_those_of_the_manifest(preprocessed: Path) -> None:
    index = ClipIndex.read(str(preprocessed))
    table = pa.concat_tables(map(pq.read_table, sorted((preprocessed / "clips" / "manifest").rglob("*.parquet"))))
    rows = {row["clip_id"]: row for row in table.to_pylist() if row["status"] == "written"}
    every = np.arange(len(index))
    assert sorted(index.clip_ids(every)) == sorted(rows)
    assert index.captions(every) == tuple(rows[clip_id]["caption"] for clip_id in index.clip_ids(every))
    names = ("text.npy", "latents.npy", "mp4")
    offsets, sizes = index.ranges(every, names)
    for place, clip_id in enumerate(index.clip_ids(every)):
        stored = read_members(str(preprocessed), "clips", rows[clip_id], names)
        shard = Path(index.shard_url(index.shard_codes[place])).read_bytes()
        found = {
            name: shard[offset:][:size]
            for name, offset, size in zip(names, offsets[:, place], sizes[:, place], strict=True)
        }
        assert found == stored
    assert index.models() == (FrozenModels("ones", True, "mean colour", True, True),)
    assert set(index.dataset_names(every)) == {"small"}


def test_rows_are_in_order_of_dataset_shard_and_place_whatever_the_order_of_the_files(tmp_path: Path) -> None:
    url = str(tmp_path)
    write_part(url, "clips", "b", "0", [written("b", 0, shard="b/0.tar")])
    of_shard = [written(f"a{n}", n, shard="a/1.tar") for n in (2, 0, 1)]
    write_part(url, "clips", "a", "1", [written("no", 3, status="rejected"), *of_shard])
    write_part(url, "clips", "a", "0", [written("a3", 1)])
    index = ClipIndex.read(url)
    assert len(index) == 5
    assert index.clip_ids(np.arange(5)) == ("a3", "a0", "a1", "a2", "b")
    assert [index.shard_url(code).removeprefix(url) for code in index.shard_codes[[0, 1, 4]]] == [
        "/clips/shards/a/0.tar",
        "/clips/shards/a/1.tar",
        "/clips/shards/b/0.tar",
    ]


def test_a_selection_restricts_the_clips(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = str(tmp_path)
    every = write_clips(url, a=[4, 4], b=[3])
    ids = every.clip_ids(np.array([1, 6, 9]))
    save_selection(url, "some", pa.table({"clip_id": [*ids, "not written"]}), "select ...")
    index = ClipIndex.read(url, "some")
    assert index.clip_ids(np.arange(len(index))) == ids
    assert "1 of 4 clips are not written" in caplog.text
    assert index.dataset_names(np.arange(3)) == ("a", "a", "b")


def test_the_index_is_the_same_on_s3(tmp_path: Path, s3: S3Server) -> None:
    here, there = (write_clips(url, a=[4, 3], b=[2]) for url in (str(tmp_path / "disk"), "s3://bucket/out"))
    rows = np.arange(9)
    assert here.clip_ids(rows) == there.clip_ids(rows)
    np.testing.assert_array_equal(here.ranges(rows, ("mp4",))[0], there.ranges(rows, ("mp4",))[0])
    assert there.captions(rows[:2]) == ("caption 0", "caption 1")
    with pytest.raises(UsageError, match="no manifest"):
        ClipIndex.read("s3://bucket/other")


def test_mistakes_of_the_user_are_told(tmp_path: Path) -> None:
    url = str(tmp_path / "out")
    write_clips(url, a=[2])
    save_ids(url, "episodes", pa.table({"episode_id": ["e"]}))
    save_ids(url, "others", pa.table({"clip_id": ["nobody's"]}))
    save_ids(url, "empty", pa.table({"clip_id": pa.array([], pa.string())}))
    save_ids(url, "numbers", pa.table({"clip_id": [1]}))
    write_part(str(tmp_path / "rejected"), "clips", "a", "0", [written("a", 0, status="rejected")])
    (tmp_path / "text" / "clips" / "manifest" / "a").mkdir(parents=True)
    (tmp_path / "text" / "clips" / "manifest" / "a" / "0.parquet").write_text("text")
    for folder, selection, told in (
        ("nowhere", "", "no manifest"),
        ("rejected", "", "expected written clips"),
        ("text", "", "expected Parquet"),
        ("out", "missing", "there: empty, episodes, numbers, others"),
        ("out", "../clips", "found none"),
        ("out", "episodes", "found episodes"),
        ("out", "others", "none is one"),
        ("out", "empty", "at least one"),
        ("out", "numbers", "int64"),
    ):
        with pytest.raises(UsageError, match=told):
            ClipIndex.read(str(tmp_path / folder), selection)


@pytest.mark.parametrize("fault", ["type", "missing"])
def test_a_part_with_other_columns_is_refused(fault: str, tmp_path: Path) -> None:
    table = pa.Table.from_pylist([{"dataset": "a", **written("a", 0)}], CLIP_SCHEMA)
    place = table.schema.get_field_index("camera")
    table = table.set_column(place, "camera", pa.array([1])) if fault == "type" else table.remove_column(place)
    with write_file(str(tmp_path / "clips" / "manifest" / "a" / "0.parquet")) as handle:
        pq.write_table(table, handle)
    with pytest.raises(UsageError, match=r"camera (int64|missing) \(expected string\)"):
        ClipIndex.read(str(tmp_path))


def test_clips_without_latents_or_of_other_models_are_seen(tmp_path: Path) -> None:
    write_part(str(tmp_path), "clips", "a", "0", [written("a0", 0), written("a1", 1, latent_codec=None)])
    index = ClipIndex.read(str(tmp_path))
    assert len(index.models()) == 2
    assert index.models(np.array([1])) == (FrozenModels("clip", False, "", True, False),)
    index.check_members(np.arange(2), ("text.npy",))
    with pytest.raises(UsageError, match=r"latents.npy in every clip, found none in 2 of a"):
        index.check_members(np.arange(2), ("latents.npy", "text.npy"))


def test_the_sources_own_validation_split_is_held_out(tmp_path: Path) -> None:
    splits = ["train", "val", "validation", "test", "training"]
    write_part(str(tmp_path), "clips", "a", "0", [written(name, n, split=name) for n, name in enumerate(splits)])
    index = ClipIndex.read(str(tmp_path))
    split = index.split_validation(0.5)
    assert index.clip_ids(split.train) == ("train", "training")
    assert index.clip_ids(split.validation) == ("val", "validation", "test")
    assert len(index.split_validation(0.0).train) == 5


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.sampled_from([0.0, 0.05, 0.3, 0.99]))
def test_no_episode_is_on_both_sides(
    tmp_path_factory: pytest.TempPathFactory, episodes: list[int], fraction: float
) -> None:
    url = str(tmp_path_factory.mktemp("split"))
    rows = [written(f"{n:03d}", n, source_episode=str(episode)) for n, episode in enumerate(episodes)]
    write_part(url, "clips", "a", "0", rows)
    index = ClipIndex.read(url)
    split = index.split_validation(fraction)
    assert sorted([*split.train.tolist(), *split.validation.tolist()]) == list(range(len(episodes)))
    sides = [{episodes[row] for row in rows} for rows in (split.train, split.validation)]
    assert not sides[0] & sides[1]
    assert bool(sides[1]) == (fraction > 0 and len(set(episodes)) > 1)
    assert sides[0]


def test_about_the_asked_share_is_held_out_and_stays_held_out_when_episodes_are_added(tmp_path: Path) -> None:
    held_out = []
    for name, num_episodes in (("few", 500), ("more", 1000)):
        write_part(str(tmp_path / name), "clips", "a", "0", [written(f"{n:04d}", n) for n in range(num_episodes)])
        index = ClipIndex.read(str(tmp_path / name))
        held_out.append(set(index.clip_ids(index.split_validation(0.1).validation)))
    assert 60 < len(held_out[1]) < 140
    assert held_out[0] == {clip_id for clip_id in held_out[1] if int(clip_id) < 500}
