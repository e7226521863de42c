"""Windows tile the episodes, and show what was preprocessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preprocessing import preprocess_here

from pipelines.encode_video import decode_video
from pipelines.plan import ShardSettings
from pipelines.range_read import read_members
from vpp.data.npy_view import npy_view
from vpp.data.settings import WindowSettings
from vpp.data.window_index import WindowIndex
from vpp.data.window_reader import read_windows

CAMERAS = ("rgb_static", "rgb_gripper")


@pytest.fixture(scope="module")
def calvin(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Episodes of real CALVIN frames in several shards."""
    url = str(tmp_path_factory.mktemp("calvin"))
    source = f"calvin=calvin:{shared_data / 'calvin_sim' / 'task_sample'}"
    preprocess_here(url, source, "episodes", ShardSettings(frames=160))
    return url


def rows_of(url: str) -> dict[str, dict]:
    parts = sorted(Path(url, "episodes", "manifest").rglob("*.parquet"))
    rows = pa.concat_tables(map(pq.read_table, parts)).to_pylist()
    return {row["episode_id"]: row for row in rows if row["status"] == "written"}


def test_every_action_of_every_episode_begins_a_window_that_shows_its_frame(calvin: str) -> None:
    index = WindowIndex.read(calvin, WindowSettings(proprio=True))
    episodes = rows_of(calvin)
    assert index.cameras == CAMERAS
    assert len(index) == sum(row["num_actions"] for row in episodes.values())
    frames, latents = (read_windows(index, np.arange(len(index)), kind) for kind in ("frames", "latents"))
    assert frames.frames is not None
    assert latents.latents is not None
    assert latents.proprio is not None
    assert frames.captions == tuple(episodes[name.split(":")[0]]["caption"] for name in frames.window_ids)
    by_id = {name: place for place, name in enumerate(frames.window_ids)}
    for name, row in episodes.items():
        stored = read_members(calvin, "episodes", row)
        places = [by_id.pop(f"{name}:{frame}") for frame in range(row["num_actions"])]
        for view, camera in enumerate(CAMERAS):
            video = decode_video(stored[f"{camera}.mp4"])
            np.testing.assert_array_equal(frames.frames[places, view].numpy(), video)
            array = npy_view(memoryview(stored[f"{camera}.latents.npy"]))
            np.testing.assert_array_equal(latents.latents[places, view].numpy(), array)
        actions = npy_view(memoryview(stored["actions.npy"]))
        for frame, place in enumerate(places):
            for step in range(10):
                is_pad = frame + step >= len(actions)
                assert bool(latents.action_is_pad[place, step]) == is_pad
                expected = actions[-1 if is_pad else frame + step]
                np.testing.assert_array_equal(latents.actions[place, step].numpy(), expected)
        np.testing.assert_array_equal(latents.proprio[places].numpy(), npy_view(memoryview(stored["proprio.npy"])))
        assert set(latents.text[places, 3, 4].tolist()) == {len(row["caption"])}
    assert not by_id
