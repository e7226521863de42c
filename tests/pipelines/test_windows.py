"""Windows tile episodes exactly; what gives none says why."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.windows import Window, WindowSettings, evenly, sliding_starts, windows
from schemas.episode import Episode, LeftOut, Segment
from schemas.shard import NUM_FRAMES


def episode(num_frames: int, *segments: tuple[int, int, str], redacted: tuple[tuple[int, int], ...] = ()) -> Episode:
    captions = segments or ((0, num_frames, "open the drawer"),)
    return Episode(
        "e", "train", "file.mp4", num_frames, 30.0, ("cam",), tuple(Segment(*s) for s in captions), redacted=redacted
    )


@given(start=st.integers(0, 1000), length=st.integers(1, 5000))
def test_even_sampling_keeps_both_ends_and_order(start: int, length: int) -> None:
    indices = evenly(start, start + length)
    assert len(indices) == NUM_FRAMES
    assert indices[0] == start
    assert indices[-1] == start + length - 1
    steps = [later - earlier for earlier, later in itertools.pairwise(indices)]
    assert min(steps) >= 0
    assert max(steps) - min(steps) <= 1


@given(
    length=st.integers(1, 400),
    stride=st.integers(1, 6),
    hop=st.integers(1, 40),
    at_end=st.sampled_from(["clamp", "drop"]),
    offset=st.integers(0, 50),
)
def test_sliding_windows_stay_in_their_segment_and_tile_it(
    length: int, stride: int, hop: int, at_end, offset: int
) -> None:
    settings = WindowSettings(mode="sliding", stride=stride, hop=hop, at_end=at_end, min_frames=1)
    found = list(windows(episode(offset + length, (offset, offset + length, "text")), settings))
    made = [window for window in found if isinstance(window, Window)]
    assert len(made) == len(sliding_starts(length, settings))
    for number, window in enumerate(made):
        assert len(window.indices) == NUM_FRAMES
        assert window.indices[0] == offset + number * hop
        assert (window.start, window.end) == (window.indices[0], window.indices[-1] + 1)
        assert offset <= window.start < window.end <= offset + length
        assert all(b - a in (stride, *range(stride)) for a, b in zip(window.indices, window.indices[1:], strict=False))
    if at_end == "clamp" and length > stride and hop <= stride * (NUM_FRAMES - 1):
        assert made[-1].end == offset + length  # the last frame is seen
    if not made:
        assert [entry.reason for entry in found] == ["too_short"]


def test_dropping_leaves_only_windows_without_repeats() -> None:
    settings = WindowSettings(mode="sliding", stride=2, hop=4, at_end="drop")
    made = list(windows(episode(50), settings))
    assert [window.start for window in made] == [0, 4, 8, 12, 16]
    assert all(len(set(window.indices)) == NUM_FRAMES for window in made if isinstance(window, Window))


def test_whole_is_one_clip_and_filters_above_100_frames() -> None:
    settings = WindowSettings(mode="whole")
    (window,) = windows(episode(100), settings)
    assert isinstance(window, Window)
    assert (window.start, window.end) == (0, 100)
    (left_out,) = windows(episode(101), settings)
    assert isinstance(left_out, LeftOut)
    assert (left_out.status, left_out.reason) == ("filtered", "too_long")
    assert len(list(windows(episode(101), WindowSettings(mode="whole", max_frames=0)))) == 1


def test_whole_asks_for_one_caption() -> None:
    (left_out,) = windows(episode(50, (0, 20, "a"), (20, 50, "b")), WindowSettings(mode="whole"))
    assert isinstance(left_out, LeftOut)
    assert left_out.reason == "several_captions"


def test_segment_gives_each_segment_a_clip_even_where_they_overlap() -> None:
    found = list(windows(episode(80, (0, 40, "a"), (30, 80, "b"), (80, 81, "c")), WindowSettings(mode="segment")))
    assert [(w.start, w.end, w.caption) for w in found if isinstance(w, Window)] == [(0, 40, "a"), (30, 80, "b")]
    assert [w.reason for w in found if isinstance(w, LeftOut)] == ["too_short"]


@pytest.mark.parametrize("mode", ["whole", "sliding", "segment"])
def test_no_window_touches_a_redacted_interval(mode) -> None:
    settings = WindowSettings(mode=mode, stride=1, hop=1, at_end="drop")
    found = list(windows(episode(60, redacted=((30, 35),)), settings))
    for window in found:
        if isinstance(window, Window):
            assert window.end <= 30 or window.start >= 35
    assert any(isinstance(entry, LeftOut) and entry.reason == "redacted" for entry in found)


@pytest.mark.parametrize("setting", [{"stride": 0}, {"hop": 0}, {"min_frames": 0}, {"max_frames": -1}])
def test_a_setting_that_cannot_be_is_refused(setting: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        WindowSettings(**setting)
