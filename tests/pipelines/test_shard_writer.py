"""A shard opens with tar and webdataset, and one sample reads by its byte range from the manifest."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset

from pipelines.decode import Sample
from pipelines.manifest_rows import Provenance, planned_row, turned_away
from pipelines.shard_writer import write_shard
from schemas.clip import PlannedSample, PlannedShard
from schemas.episode import Episode
from schemas.manifest import CLIP_SCHEMA

PROVENANCE = Provenance("pyav", "libx264", "clip", True)


def make(count: int, turned: int = 1) -> tuple[PlannedShard, list[Sample]]:
    episode = Episode("train/1", "train", "file.mp4", 60, 30.0, ("cam",))
    planned = tuple(
        PlannedSample(f"{n:020x}", "cam", n, n + 16, tuple(range(n, n + 16)), f"text {n} ü", n) for n in range(count)
    )
    samples = [
        Sample(planned_row("clips", "d", episode, plan), [("mp4", b"video" * (n + 1))])
        for n, plan in enumerate(planned)
    ]
    for sample in samples[:turned]:
        sample.members = []
        sample.row = turned_away(sample.row, "rejected", "decode_error", "frame 3")
    return PlannedShard("d", "clips", "000000", ((episode, planned),)), samples


def embeddings(count: int) -> dict[str, np.ndarray]:
    return {f"text {n} ü": np.full((20, 512), n, np.float16) for n in range(count)}


def test_members_stand_at_their_offsets_and_open_with_other_tools(tmp_path: Path) -> None:
    shard, samples = make(5)
    counts = write_shard(str(tmp_path), shard, samples, embeddings(5), PROVENANCE)
    assert (counts["written"], counts["rejected"], counts["filtered"]) == (4, 1, 0)
    tar = tmp_path / "clips" / "shards" / "d" / "000000.tar"
    listed = subprocess.run(["tar", "tf", str(tar)], capture_output=True, text=True, check=True).stdout.split()
    table = pq.read_table(tmp_path / "clips" / "manifest" / "d" / "000000.parquet")
    assert table.schema.equals(CLIP_SCHEMA)
    rows = {row["clip_id"]: row for row in table.to_pylist()}
    assert len(rows) == 5
    read = {sample["__key__"]: sample for sample in webdataset.WebDataset(str(tar), shardshuffle=False)}
    content = tar.read_bytes()
    for clip_id, row in rows.items():
        if row["status"] != "written":
            assert (row["reason"], row["shard"], row["members"]) == ("decode_error", None, None)
            continue
        for member in row["members"]:
            piece = content[member["offset"] : member["offset"] + member["num_bytes"]]
            assert piece == read[clip_id][member["name"]]
            assert f"{clip_id}.{member['name']}" in listed
    last = read[max(read)]
    assert last["txt"].decode() == "text 4 ü"
    assert np.load(io.BytesIO(last["text.npy"])).shape == (20, 512)
    assert json.loads(last["json"])["frame_indices"] == list(range(4, 20))


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_shard(str(tmp_path / folder), *make(5), embeddings(5), PROVENANCE)
    for path in ("clips/shards/d/000000.tar", "clips/manifest/d/000000.parquet"):
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_a_shard_without_a_good_sample_is_a_manifest_part_and_no_tar(tmp_path: Path) -> None:
    counts = write_shard(str(tmp_path), *make(3, turned=3), {}, PROVENANCE)
    assert counts["rejected"] == 3
    assert not (tmp_path / "clips" / "shards").exists()
    assert (tmp_path / "clips" / "manifest" / "d" / "000000.parquet").exists()


def test_a_tar_that_cannot_be_written_leaves_no_manifest_part(tmp_path: Path) -> None:
    (tmp_path / "clips" / "shards").mkdir(parents=True)
    (tmp_path / "clips" / "shards" / "d").write_text("in the way")
    with pytest.raises(OSError, match=r"d"):
        write_shard(str(tmp_path), *make(3), {}, PROVENANCE)
    assert not (tmp_path / "clips" / "manifest").exists()
