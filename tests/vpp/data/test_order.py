"""The order follows from (seed, step) alone, and takes each clip of a stream once an epoch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpp.data.loader import share_of_rank
from vpp.data.order import SampleOrder, Stream, permutation, piece_starts


def make_streams(sizes: list[int], probabilities: list[float] | None = None, per_shard: int = 10) -> list[Stream]:
    """Streams of adjacent rows, cut into shards and pieces of 4 clips."""
    shares = probabilities or [1 / len(sizes)] * len(sizes)
    streams, first = [], 0
    for number, (size, share) in enumerate(zip(sizes, shares, strict=True)):
        starts = piece_starts(np.arange(size) // per_shard, 4)
        streams.append(Stream(f"s{number}", f"s{number}", share, np.arange(first, first + size), starts))
        first += size
    return streams


def make_order(sizes: list[int], seed: int = 0, global_batch: int = 7, window: int = 8) -> SampleOrder:
    return SampleOrder(make_streams(sizes), seed, global_batch, window)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(0, 2**40), st.integers(1, 20), st.integers(1, 90)
)
def test_each_clip_of_a_stream_comes_once_in_every_epoch(sizes: list[int], seed: int, batch: int, window: int) -> None:
    order = make_order(sizes, seed, batch, window)
    num_steps = 3 * len(sizes) * max(sizes) // batch + 30
    drawn = np.concatenate([order.rows(step) for step in range(num_steps)])
    for stream in order.streams:
        of_stream = drawn[np.isin(drawn, stream.rows)].tolist()
        size = len(stream.rows)
        for first in range(0, len(of_stream) - size + 1, size):
            assert sorted(of_stream[first : first + size]) == stream.rows.tolist()
        assert order.epochs(num_steps)[stream.name] == len(of_stream) / size


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**63), st.integers(0, 10_000), st.integers(1, 40))
def test_a_step_is_the_same_from_any_start(seed: int, step: int, batch: int) -> None:
    from_zero = make_order([50, 20], seed, batch)
    walked = [from_zero.rows(number) for number in range(max(0, step - 3), step + 1)][-1]
    alone = make_order([50, 20], seed, batch).rows(step)
    np.testing.assert_array_equal(walked, alone)
    later_first = make_order([50, 20], seed, batch)
    later_first.rows(step + 1)
    np.testing.assert_array_equal(later_first.rows(step), alone)


def test_a_step_across_two_blocks_of_draws_is_what_lies_on_both_sides() -> None:
    one_by_one = make_order([50, 20], 3, 1)
    draws = [int(one_by_one.rows(step)[0]) for step in range(65_530, 65_550)]
    together = make_order([50, 20], 3, 10)
    assert np.concatenate([together.rows(6553), together.rows(6554)]).tolist() == draws


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=5, max_size=40))
def test_workers_share_a_step_without_loss_or_repeat(drawn: list[int]) -> None:
    rows = np.array(drawn)
    for world_size in range(1, 6):
        shares = [share_of_rank(rows, rank, world_size) for rank in range(world_size)]
        assert sorted(np.concatenate(shares).tolist()) == list(range(len(rows)))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert min(map(len, shares)) >= 1


def test_streams_are_drawn_as_often_as_their_probability_says() -> None:
    shares = [0.5, 0.3, 0.15, 0.05]
    order = SampleOrder(make_streams([40, 400, 7, 90], shares), 11, 1000, 8)
    drawn = np.concatenate([order.rows(step) for step in range(100)])
    borders = np.cumsum([0, *(len(stream.rows) for stream in order.streams)])
    counts = np.histogram(drawn, borders)[0]
    expected = np.array(shares) * len(drawn)
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 16.27  # 0.1 % point of 3 degrees of freedom


def test_another_seed_and_another_epoch_are_other_orders() -> None:
    streams = make_streams([200], per_shard=50)
    first, second = (SampleOrder(streams, seed, 200, 16) for seed in (0, 1))
    assert first.rows(0).tolist() != second.rows(0).tolist()
    assert first.rows(0).tolist() != first.rows(1).tolist()


def test_a_stream_that_is_added_leaves_the_permutations_of_others() -> None:
    alone = SampleOrder(make_streams([100], [1.0]), 5, 10, 8)
    both = SampleOrder(make_streams([100, 50], [0.5, 0.5]), 5, 10, 8)
    of_first = [row for step in range(10) for row in both.rows(step).tolist() if row < 100]
    assert of_first == np.concatenate([alone.rows(step) for step in range(10)]).tolist()[: len(of_first)]


def test_the_order_is_pinned() -> None:
    """A change here is another order of training for everybody."""
    order = make_order([23, 9], seed=42, global_batch=8)
    assert [order.rows(step).tolist() for step in (0, 1, 1_000_000)] == PINNED


PINNED = [
    [2, 27, 25, 26, 28, 22, 20, 1],
    [0, 3, 18, 21, 10, 23, 4, 31],
    [5, 10, 12, 26, 4, 30, 27, 30],
]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 9))
def test_pieces_tile_a_stream_and_end_with_their_shard(shard_sizes: list[int], piece_clips: int) -> None:
    shards = np.repeat(np.arange(len(shard_sizes)), shard_sizes)
    starts = piece_starts(shards, piece_clips)
    for first, end in zip(starts, [*starts[1:], len(shards)], strict=True):
        assert 1 <= end - first <= piece_clips
        assert len(set(shards[first:end].tolist())) == 1
    assert len(starts) == sum(-(-size // piece_clips) for size in shard_sizes)


def test_a_window_holds_few_pieces_so_that_near_draws_read_near_bytes() -> None:
    starts = piece_starts(np.arange(4096) // 512, 16)
    order = permutation(starts, 4096, 16 * 8, ("near", 0))
    for first in range(0, 4096, 128):
        assert len(set((order[first : first + 128] // 16).tolist())) == 8
    assert Counter(np.abs(np.diff(order)) == 1)[True] < 4096 / 4


@pytest.mark.parametrize("chunk", [1, 64, 1000])
def test_a_permutation_does_not_depend_on_the_memory_it_may_take(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = piece_starts(np.arange(1000) // 100, 16)
    whole = permutation(starts, 1000, 48, ("x",))
    monkeypatch.setattr("vpp.data.order._CHUNK_CLIPS", chunk)
    np.testing.assert_array_equal(permutation(starts, 1000, 48, ("x",)), whole)
