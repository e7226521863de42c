"""SECURITY.md names tests that exist, and bounds that are those of the code."""

from __future__ import annotations

import re

from running import ROOT

from pipelines.sources import calvin, pictures
from schemas import closed_video, episode, parquet_memory, plain_json
from vpp.serve import protocol

TEXT = (ROOT / "SECURITY.md").read_text()


def named_tests() -> list[tuple[str, str]]:
    """File and function of each test; a name without a file is of the file before."""
    found, file = [], ""
    for named, function in re.findall(r"`(tests/[\w/]+\.py)?::(\w+)`", TEXT):
        file = named or file
        found.append((file, function))
    return found


def test_every_test_that_is_named_exists() -> None:
    assert len(named_tests()) > 40
    for file, function in named_tests():
        assert f"\ndef {function}(" in (ROOT / file).read_text(), f"{file}::{function}"


def test_every_row_of_a_table_of_attacks_names_a_test() -> None:
    attacks = TEXT.partition("## Bounds")[0]
    rows = [
        line for line in attacks.splitlines() if line.startswith("| ") and not re.match(r"\| (---|attack| ?\|)", line)
    ]
    assert len(rows) > 30
    for row in rows:
        assert "::test_" in row, row


def test_the_bounds_are_those_of_the_code() -> None:
    assert f"{episode.MAX_FRAMES:,} frames" in TEXT
    for number in (closed_video.MAX_PIXELS, pictures._MAX_PIXELS):
        assert f"{number / 1e6:.1f} million" in TEXT
    assert f"{calvin._MAX_ARRAY_BYTES >> 20} MiB" in TEXT
    assert f"{parquet_memory.MOST_VALUES // 10**6} million values, {parquet_memory._MOST_BYTES >> 30} GiB" in TEXT
    assert f"{plain_json.MOST_LEVELS} levels" in TEXT
    assert f"lists of {protocol._MOST_ITEMS:,}" in TEXT
