"""Windows tile the episodes; what is held out and what is left follow from the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_episodes import episode, write_episodes

from pipelines.selection import save_selection
from runtime.settings import from_mapping
from schemas.errors import UsageError
from vpp.data.settings import WindowSettings
from vpp.data.streams import training_order
from vpp.data.window_index import WindowIndex

ALL = WindowSettings(validation_fraction=0.0)


def episodes_of(index: WindowIndex, rows: np.ndarray) -> set[str]:
    return {name.split(":")[0] for name in index.ids(rows)}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=12), st.integers(0, 12))
def test_windows_tile_the_episodes(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[tuple[int, bool]], cut: int
) -> None:
    url = str(tmp_path_factory.mktemp("tile"))
    written = [
        episode(f"{n:02d}", length, num_frames=length + has_last) for n, (length, has_last) in enumerate(lengths)
    ]
    write_episodes(url, a=written[:cut], b=[episode("no", 9, status="rejected"), *written[cut:]])
    index = WindowIndex.read(url, ALL)
    rows = np.arange(len(index))
    expected = [(f"{n:02d}", frame) for n, (length, _) in enumerate(lengths) for frame in range(length)]
    assert index.ids(rows) == tuple(f"{name}:{frame}" for name, frame in expected)
    assert index.frame_numbers(rows).tolist() == [frame for _, frame in expected]
    assert index.captions(rows) == tuple(f"caption of {name}" for name, _ in expected)
    assert index.dataset_names(rows) == tuple("a" if int(name) < cut else "b" for name, _ in expected)
    assert index.split.train.tolist() == rows.tolist()
    order = training_order(index, rows, ALL, 3, 1)
    if len(order.streams) == 1:
        epoch = [int(order.rows(step)[0]) for step in range(len(index))]
        assert sorted(epoch) == rows.tolist()


fractions = st.floats(0.01, 1.0)


@settings(max_examples=25, deadline=None)
@given(fractions, fractions, st.sampled_from([0.0, 0.2, 0.5]))
def test_a_smaller_share_of_the_data_is_part_of_a_larger_one(
    tmp_path_factory: pytest.TempPathFactory, one: float, other: float, held_out: float
) -> None:
    url = str(tmp_path_factory.mktemp("share"))
    write_episodes(url, a=[episode(f"a{n}", 1 + n % 3) for n in range(30)], b=[episode("b", 2), episode("c", 2)])
    read = [
        WindowIndex.read(url, WindowSettings(validation_fraction=held_out, data_fraction=fraction))
        for fraction in (min(one, other), max(one, other), 1.0)
    ]
    small, large, whole = (episodes_of(index, index.split.train) for index in read)
    assert small <= large <= whole
    assert {name[0] == "a" for name in small} == {True, False}  # something of each dataset
    assert len({index.split.validation.tobytes() for index in read}) == 1
    assert not whole & episodes_of(read[0], read[0].split.validation)
    for index in read:
        lengths = [
            int(name.removeprefix("a")) % 3 + 1 for name in episodes_of(index, index.split.train) if name[0] == "a"
        ]
        assert sum(name == "a" for name in index.dataset_names(index.split.train)) == sum(lengths)


def test_about_the_asked_share_is_left(tmp_path: Path) -> None:
    write_episodes(str(tmp_path), a=[episode(f"{n:04d}", 1) for n in range(1000)])
    index = WindowIndex.read(str(tmp_path), WindowSettings(validation_fraction=0.0, data_fraction=0.1))
    assert 60 < len(index.split.train) < 140


def test_segments_of_a_source_episode_are_on_one_side(tmp_path: Path) -> None:
    url = str(tmp_path)
    write_episodes(url, a=[episode(f"{n:02d}", 3, source_episode=str(n // 5)) for n in range(40)])
    index = WindowIndex.read(url, WindowSettings(validation_fraction=0.3))
    train, held_out = (
        {int(name) // 5 for name in episodes_of(index, rows)} for rows in (index.split.train, index.split.validation)
    )
    assert train | held_out == set(range(8))
    assert not train & held_out
    assert held_out


def test_the_fingerprint_tells_episodes_sides_and_lengths(tmp_path: Path) -> None:
    def fingerprint(name: str, lengths: list[int], settings: WindowSettings = ALL) -> str:
        write_episodes(str(tmp_path / name), a=[episode(f"{n}", length) for n, length in enumerate(lengths)])
        return WindowIndex.read(str(tmp_path / name), settings).fingerprint

    first = fingerprint("first", [3, 4, 5])
    assert first == fingerprint("same", [3, 4, 5])
    held_out = fingerprint("held out", [3, 4, 5], WindowSettings(validation_fraction=0.3))
    others = {held_out, fingerprint("shorter", [3, 4, 4]), fingerprint("more", [3, 4, 5, 6])}
    assert len({first, *others}) == 4


def test_a_selection_and_a_mixture_restrict_the_episodes(tmp_path: Path) -> None:
    url = str(tmp_path)
    other = [episode("d", 4, ("top",), action_dim=4)]
    write_episodes(url, a=[episode("a", 5), episode("b", 6)], b=[episode("c", 7)], other=other)
    save_selection(url, "some", pa.table({"episode_id": ["b", "c"]}), "select ...")
    selected = WindowIndex.read(url, WindowSettings(selection="some", validation_fraction=0.0))
    assert (len(selected), selected.cameras) == (13, ("side",))
    mixed = WindowSettings(mixture="a=3,b=1", validation_fraction=0.0)
    index = WindowIndex.read(url, mixed)
    assert (len(index), index.num_episodes, index.action_dim) == (18, 3, 7)
    order = training_order(index, index.split.train, mixed, 0, 8)
    assert {stream.name: stream.probability for stream in order.streams} == {"a": 0.75, "b": 0.25}
    by_size = WindowSettings(mixture="a=1,b=1:weight_x_size", validation_fraction=0.0)
    streams = training_order(index, index.split.train, by_size, 0, 8).streams
    assert [stream.probability for stream in streams] == pytest.approx([11 / 18, 7 / 18])
    only = WindowIndex.read(url, WindowSettings(mixture="other=1"))
    assert (only.cameras, only.action_dim) == (("top",), 4)


def test_a_presets_camera_weights_are_of_clips(tmp_path: Path) -> None:
    write_episodes(str(tmp_path), calvin=[episode("a", 5, ("rgb_static", "rgb_gripper"))])
    mixed = WindowSettings(mixture="vpp")
    index = WindowIndex.read(str(tmp_path), mixed)
    assert [stream.name for stream in training_order(index, np.arange(5), mixed, 0, 2).streams] == ["calvin"]


def test_the_same_cameras_in_another_order_are_the_same_cameras(tmp_path: Path) -> None:
    write_episodes(str(tmp_path), a=[episode("a", 2, ("x", "y"))], b=[episode("b", 2, ("y", "x"))])
    assert WindowIndex.read(str(tmp_path), ALL).cameras == ("x", "y")
    index = WindowIndex.read(str(tmp_path), WindowSettings(cameras=("y",)))
    assert index.cameras == ("y",)
    assert index.ranges(np.array([0, 2]), ("y.mp4",))[0].tolist() == [[512, 0]]


def without(name: str, row: dict[str, Any]) -> dict[str, Any]:
    return row | {"members": [member for member in row["members"] if member["name"] != name]}


PLAIN = episode("a", 3, ("side", "top"))
MISTAKES: dict[str, tuple[list[dict[str, Any]], WindowSettings, str]] = {
    "no episode": ([], ALL, "expected written episodes, found none"),
    "no action": ([episode("b", 0)], ALL, "expected episodes with actions, found none in 1 episodes"),
    "unknown camera": ([PLAIN], WindowSettings(cameras=("front",)), "expected front .* found side, top in b"),
    "other cameras": ([PLAIN, episode("b", 3)], ALL, "found side in b and side, top in b; name cameras"),
    "other sizes": ([PLAIN, PLAIN | {"action_dim": 4}], ALL, "one action_dim, found 4 in b and 7 in b"),
    "no text": ([PLAIN, without("text.npy", PLAIN)], ALL, "text.npy in every episode, found none in 1 of b"),
    "no video": ([without("top.mp4", PLAIN)], ALL, "top.mp4 in every episode, found none in 1 of b"),
    "no proprio": ([PLAIN], WindowSettings(proprio=True), "proprio.npy in every episode, found none in 1 of b"),
    "unknown dataset": ([PLAIN], WindowSettings(mixture="mine=1"), "found mine; known: b"),
    "unknown selection": ([PLAIN], WindowSettings(selection="mine"), "there: clips"),
    "selection of clips": ([PLAIN], WindowSettings(selection="clips"), "expected episodes, found clips"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_the_user_are_told_in_one_line(mistake: str, tmp_path: Path) -> None:
    rows, wanted, told = MISTAKES[mistake]
    write_episodes(str(tmp_path), b=rows or [episode("b", 3, status="rejected")])
    save_selection(str(tmp_path), "clips", pa.table({"clip_id": ["c"]}), "select ...")
    with pytest.raises(UsageError, match=told) as raised:
        WindowIndex.read(str(tmp_path), wanted)
    assert "\n" not in str(raised.value)


def test_sizes_of_two_datasets_are_told_with_both_names(tmp_path: Path) -> None:
    write_episodes(str(tmp_path), a=[episode("a", 3)], b=[episode("b", 3, action_dim=4)])
    with pytest.raises(UsageError, match="found 4 in b and 7 in a"):
        WindowIndex.read(str(tmp_path), ALL)


def test_an_output_without_episodes_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"found no manifest below .*; episodes are made of sources with actions"):
        WindowIndex.read(str(tmp_path), ALL)


@pytest.mark.parametrize(
    "wrong",
    [{"num_actions": 0}, {"data_fraction": 0.0}, {"data_fraction": 1.5}, {"cameras": ["a", "a"]}, {"piece_windows": 0}],
)
def test_settings_out_of_range_are_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        from_mapping(WindowSettings, wrong, "stage2.data")
