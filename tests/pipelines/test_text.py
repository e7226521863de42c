"""Each distinct caption is encoded once, and a shard reads exactly its rows back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipelines import plan_files, text
from pipelines.plan import ShardSettings, make_plan
from pipelines.plan_files import load_shard
from pipelines.text import encode_captions, read_embeddings
from pipelines.windows import WindowSettings
from schemas.episode import Episode, Segment
from schemas.storage import read_bytes


class Counting:
    model_id, is_stand_in = "counting", True

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, captions: Sequence[str]) -> np.ndarray:
        self.seen += captions
        return np.stack([np.full((20, 512), int(caption.split()[-1]), np.float16) for caption in captions])


def test_captions_are_encoded_once_and_found_by_every_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (plan_files, text):
        monkeypatch.setattr(module, "CAPTIONS_PER_FILE", 7)
    listing = [
        Episode(f"e{n}", "train", "f", 50, 30.0, ("a", "b"), (Segment(0, 50, f"task {n % 23}"),), 2) for n in range(60)
    ]
    output = str(tmp_path)
    summary = make_plan(
        output, "d", listing, WindowSettings(mode="whole"), ShardSettings(clips=9), ("clips", "episodes")
    )
    encoder = Counting()
    assert sum(encode_captions(output, "d", number, encoder) for number in range(4)) == 23
    assert sorted(encoder.seen) == sorted({f"task {n}" for n in range(23)})
    for number in range(summary.num_shards["clips"]):
        samples = [sample for _, of_episode in load_shard(output, "d", "clips", number).items for sample in of_episode]
        found = read_embeddings(output, "d", samples)
        assert found.keys() == {sample.caption for sample in samples}
        assert all((rows == int(caption.split()[-1])).all() for caption, rows in found.items())


def test_near_rows_come_with_one_request_and_only_wanted_ones_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = (Segment(0, 50, f"task {n}") for n in range(60))
    listing = [Episode(f"e{n}", "train", "f", 50, 30.0, ("a",), (segment,)) for n, segment in enumerate(segments)]
    make_plan(str(tmp_path), "d", listing, WindowSettings(mode="whole"), ShardSettings(), ("clips",))
    encode_captions(str(tmp_path), "d", 0, Counting())
    asked = []
    monkeypatch.setattr(text, "read_bytes", lambda *request: asked.append(request) or read_bytes(*request))
    planned = [sample for _, of_episode in load_shard(str(tmp_path), "d", "clips", 0).items for sample in of_episode]
    wanted = [sample for sample in planned if sample.caption_id in (0, 3, 12, 40, 41)]
    found = read_embeddings(str(tmp_path), "d", wanted)
    assert {caption: int(rows[0, 0]) for caption, rows in found.items()} == {f"task {n}": n for n in (0, 3, 12, 40, 41)}
    assert len(asked) == 2


def test_an_encoder_of_another_shape_is_refused(tmp_path: Path) -> None:
    class Wrong(Counting):
        def encode(self, captions: Sequence[str]) -> np.ndarray:
            return np.zeros((len(captions), 77, 768), np.float32)

    listing = [Episode("e", "train", "f", 50, 30.0, ("a",), (Segment(0, 50, "task 1"),))]
    make_plan(str(tmp_path), "d", listing, WindowSettings(mode="whole"), ShardSettings(), ("clips",))
    with pytest.raises(ValueError, match="77, 768"):
        encode_captions(str(tmp_path), "d", 0, Wrong())
