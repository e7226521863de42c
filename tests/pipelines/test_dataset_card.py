"""A dataset's card is one that the hub reads, and its counts are those of the summary."""

from __future__ import annotations

from typing import Any

from huggingface_hub import DatasetCard

from pipelines.dataset_card import dataset_card

REQUEST: dict[str, Any] = {
    "source": {"kind": "calvin", "url": "s3://secret/data"}, "video": {"frame_size": 256}, "text_encoder": "tiny",
    "latents": "none",
}  # fmt: skip
COUNTS = {"planned": 1200, "written": 1190, "rejected": 10, "filtered": 0, "reasons": {"rejected:decode_error": 10}}


def test_the_hub_reads_it_and_finds_the_products_that_are_there() -> None:
    card = DatasetCard(dataset_card({"calvin": {"clips": COUNTS}}, {"calvin": REQUEST}))
    assert card.data.to_dict()["configs"] == [{"config_name": "clips", "data_files": "clips/shards/*/*.tar"}]
    assert card.data.license is None


def test_counts_reasons_and_stand_ins_are_told_and_no_place() -> None:
    card = dataset_card({"calvin": {"clips": COUNTS}}, {"calvin": REQUEST})
    assert "| `calvin` | clips | 1,200 | 1,190 | 10 | 0 |" in card
    assert "| `calvin` | clips | `rejected:decode_error` | 10 |" in card
    assert "| `calvin` | `calvin` | 256 px | `tiny`: random weights, a stand-in | none |" in card
    assert "secret" not in card
