"""Episodes that are exported to LeRobot's format keep every picture and number; what is in the way is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from stored_episodes import FPS, LENGTHS, stored_video, write_stored_episodes

from pipelines.encode_video import decode_video
from schemas.errors import UsageError
from vpp.export.export_job import ExportSettings, export
from vpp.sim import lerobot_writer


def rows_of(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.glob("*/*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture
def data(tmp_path: Path) -> str:
    write_stored_episodes(str(tmp_path / "data"))
    return str(tmp_path / "data")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pictures_are_those_of_the_dataset_to_the_last_bit(data: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = export(ExportSettings(data=data, output=str(output)))
    assert result == {"dataset": "blocks", "episodes": 3, "frames": sum(LENGTHS) - 1, "fps": FPS}
    info = json.loads((output / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_tasks"]) == ("v3.0", 10, 3, 2)
    assert info["features"]["observation.state"]["names"] == ["state_0", "state_1", "state_2"]
    stored = [stored_video(first, length) for first, length in zip((0, 23, 24), LENGTHS, strict=True)]
    for key in ("observation.images.front", "observation.images.wrist"):
        whole = decode_video(
            (output / info["video_path"].format(video_key=key, chunk_index=0, file_index=0)).read_bytes()
        )
        for row, video in zip(rows_of(output / "meta/episodes"), stored, strict=True):
            first = round(row[f"videos/{key}/from_timestamp"] * FPS)
            np.testing.assert_array_equal(whole[first : first + row["length"]], decode_video(video)[: row["length"]])


def test_numbers_and_tasks_stand_beside_their_frames(data: str, tmp_path: Path) -> None:
    export(ExportSettings(data=data, output=str(tmp_path / "out")))
    rows = rows_of(tmp_path / "out/data")
    told = [number for number in range(sum(LENGTHS)) if number != LENGTHS[0] - 1]  # a frame without an action
    assert [row["action"] for row in rows] == [[number] * 2 for number in told]
    assert [row["observation.state"] for row in rows] == [[number] * 3 for number in told]
    assert [row["tasks"] for row in rows_of(tmp_path / "out/meta/episodes")] == [["task 0"], ["task 1"], ["task 0"]]
    statistics = json.loads((tmp_path / "out/meta/stats.json").read_text())
    assert statistics["action"]["max"] == [sum(LENGTHS) - 1] * 2
    assert 0 < statistics["observation.images.front"]["mean"][0][0][0] < 1


def test_many_files_hold_the_same_as_one(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot_writer, "EPISODES_PER_FILE", 1)
    export(ExportSettings(data=data, output=str(tmp_path / "out")))
    assert len(list((tmp_path / "out/videos/observation.images.front/chunk-000").iterdir())) == 3
    assert len(rows_of(tmp_path / "out/data")) == sum(LENGTHS) - 1


def test_an_export_that_was_cut_begins_anew_and_ends_the_same(data: str, tmp_path: Path) -> None:
    settings = ExportSettings(data=data, output=str(tmp_path / "out"))
    result = export(settings)
    whole = files(tmp_path / "out")
    (tmp_path / "out/meta/info.json").unlink()
    (tmp_path / "out/data/chunk-000/file-000.parquet").write_bytes(b"half")
    assert export(settings) == result
    assert files(tmp_path / "out") == whole
    assert export(settings) == result  # found
    assert export(ExportSettings(data=data, output=f"{tmp_path}/out/")) == result
    with pytest.raises(UsageError, match="another cameras"):
        export(ExportSettings(data=data, output=str(tmp_path / "out"), cameras=("wrist",)))


def test_an_export_of_fewer_episodes_than_there_are_now_is_not_taken_for_all(data: str, tmp_path: Path) -> None:
    settings = ExportSettings(data=data, output=str(tmp_path / "out"))
    export(settings)
    write_stored_episodes(data, lengths=(*LENGTHS, 5))
    with pytest.raises(UsageError, match="holds an export of 3 episodes, found 4 to export now"):
        export(settings)


def test_a_folder_that_holds_something_else_is_left_alone(data: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UsageError, match="expected an empty folder"):
        export(ExportSettings(data=data, output=str(tmp_path)))


def test_only_the_cameras_that_are_named_are_taken_and_proprioception_may_be_missing(tmp_path: Path) -> None:
    write_stored_episodes(str(tmp_path / "data"), proprio_dim=0, lengths=(3,))
    export(ExportSettings(data=str(tmp_path / "data"), output=str(tmp_path / "out"), cameras=("wrist",)))
    features = json.loads((tmp_path / "out/meta/info.json").read_text())["features"]
    assert [name for name in features if name.startswith("observation")] == ["observation.images.wrist"]


def test_one_of_several_datasets_has_to_be_named(data: str, tmp_path: Path) -> None:
    write_stored_episodes(data, "rooms", lengths=(2,), action_dim=7)
    with pytest.raises(UsageError, match=r"expected one with episodes and actions \(blocks, rooms\), found none named"):
        export(ExportSettings(data=data, output=str(tmp_path / "out")))
    assert export(ExportSettings(data=data, output=str(tmp_path / "out"), dataset="rooms"))["episodes"] == 1


def test_videos_of_several_rates_need_one_for_all(tmp_path: Path) -> None:
    write_stored_episodes(str(tmp_path / "data"), lengths=(3, 3), fps=(10.0, 5.0))
    with pytest.raises(UsageError, match=r"expected videos of 10 frames a second.*found 5; name one rate"):
        export(ExportSettings(data=str(tmp_path / "data"), output=str(tmp_path / "out")))


def test_a_video_that_is_none_is_told_with_its_episode(tmp_path: Path) -> None:
    write_stored_episodes(str(tmp_path / "data"), lengths=(3, 3))
    shard = tmp_path / "data/episodes/shards/blocks/00000.tar"
    content = shard.read_bytes()
    shard.write_bytes(content.replace(b"moov", b"nope"))
    with pytest.raises(UsageError, match="episode blocks000000000000000"):
        export(ExportSettings(data=str(tmp_path / "data"), output=str(tmp_path / "out")))


def test_the_card_is_one_that_the_hub_reads(data: str, tmp_path: Path) -> None:
    export(ExportSettings(data=data, output=str(tmp_path / "out")))
    card = DatasetCard.load(tmp_path / "out/README.md")
    assert card.data.to_dict()["tags"] == ["LeRobot", "video-prediction-policy"]
    assert card.data.license is None
    assert "| frames | 35, 10 a second |" in card.text
