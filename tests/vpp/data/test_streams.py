"""Datasets and cameras are drawn as the settings say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numbered_clips import write_clips

from runtime.settings import from_mapping
from schemas.errors import UsageError
from vpp.data.clip_index import ClipIndex
from vpp.data.mixture import parse_mixture
from vpp.data.settings import DataSettings
from vpp.data.streams import make_streams, training_order


@pytest.fixture
def index(tmp_path: Path) -> ClipIndex:
    return write_clips(str(tmp_path), bridge=[6, 4], calvin=[8])


def test_a_dataset_is_a_stream_and_weighted_cameras_are_streams_of_their_own(index: ClipIndex) -> None:
    settings = DataSettings(mixture="bridge=1,calvin=3", cameras="calvin:side=0.75,top=0.25", piece_clips=4)
    order = training_order(index, np.arange(len(index)), settings, 0, 8)
    assert {stream.name: stream.probability for stream in order.streams} == pytest.approx(
        {"bridge": 0.25, "calvin/side": 0.5625, "calvin/top": 0.1875}
    )
    of_bridge, side, top = (stream.rows.tolist() for stream in order.streams)
    assert of_bridge == list(range(10))
    assert (side, top) == ([10, 12, 14, 16], [11, 13, 15, 17])
    assert order.streams[0].piece_starts.tolist() == [0, 4, 6]


def test_only_the_given_rows_are_drawn(index: ClipIndex) -> None:
    rows = np.array([0, 3, 12])
    order = training_order(index, rows, DataSettings(), 0, 8)
    assert set(np.concatenate([order.rows(step) for step in range(20)]).tolist()) == {0, 3, 12}


def test_a_camera_without_weight_is_not_drawn_and_does_not_count_for_the_size(index: ClipIndex) -> None:
    order = training_order(index, np.arange(len(index)), DataSettings(cameras="calvin:top=1"), 0, 8)
    assert {stream.name: stream.probability for stream in order.streams} == pytest.approx(
        {"bridge": 10 / 14, "calvin/top": 4 / 14}
    )


def test_a_presets_cameras_hold_where_all_of_them_are_there(tmp_path: Path) -> None:
    index = write_clips(str(tmp_path), calvin=[4])
    order = training_order(index, np.arange(4), DataSettings(mixture="vpp"), 0, 2)
    assert [stream.name for stream in order.streams] == ["calvin"]
    mixture = dataclasses.replace(parse_mixture("vpp"), cameras={"calvin": {"side": 0.75, "top": 0.25}})
    streams = make_streams(index, np.arange(4), mixture, {}, 16)
    assert {stream.name: stream.probability for stream in streams} == {"calvin/side": 0.75, "calvin/top": 0.25}
    order = training_order(index, np.arange(4), DataSettings(mixture="vpp", cameras="calvin:top=1"), 0, 2)
    assert [stream.name for stream in order.streams] == ["calvin/top"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (DataSettings(cameras="calvin:front=1"), "front; known: side, top"),
        (DataSettings(cameras="mine:side=1"), "mine; known: bridge, calvin"),
        (DataSettings(mixture="mine=1"), "mine; known: bridge, calvin"),
    ],
)
def test_unknown_names_are_told(index: ClipIndex, settings: DataSettings, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        training_order(index, np.arange(len(index)), settings, 0, 8)


def test_no_row_to_train_on_is_told(index: ClipIndex) -> None:
    with pytest.raises(UsageError, match="mixture"):
        training_order(index, np.array([], np.int64), DataSettings(), 0, 8)


@pytest.mark.parametrize("wrong", [{"validation_fraction": 1.0}, {"num_threads": 0}, {"retry_s": -1.0}])
def test_settings_out_of_range_are_told(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        from_mapping(DataSettings, wrong, "stage1.data")
