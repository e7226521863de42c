"""Every file of every source, changed at will: an episode reads, or becomes a row or one of our errors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ijson
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from examples import encode_example, picture, write_record, write_rlds
from hostile import EFFORTS, json_mutants, mutants, survives
from layouts import write_calvin, write_ego4d, write_vpp_layout
from lerobot_example import write_lerobot_v3
from videos import write_video

from pipelines.sources.calvin import Calvin
from pipelines.sources.ego4d import Ego4D
from pipelines.sources.openx_lerobot import OpenXLeRobot
from pipelines.sources.openx_rlds import OpenXRLDS
from pipelines.sources.pictures import decode_image
from pipelines.sources.shallow_json import ShallowJson
from pipelines.sources.source import Source
from pipelines.sources.tf_example import parse_example
from pipelines.sources.vpp_layout import VPPLayout
from pipelines.video_file import count_frames, probe, read_frames
from schemas.episode import Episode, LeftOut
from schemas.errors import DataError, VPPError

FRONT = "observation.images.front"


def read_all(source: Source) -> list[LeftOut]:
    """Lists everything and reads some of each episode, as the pipeline does; returns the rows of what is left out."""
    left_out = []
    for part in source.parts():
        for entry in source.list_part(part):
            if isinstance(entry, LeftOut):
                left_out.append(entry)
                continue
            episode = Episode.from_json(entry.to_json())
            reads: list[Callable[[], Any]] = [lambda episode=episode: source.trajectory(episode, 0, 2)]
            for camera in episode.cameras:
                reads.append(lambda episode=episode, camera=camera: list(source.frames(episode, camera, [0, 1, 3])))
                reads.append(lambda episode=episode, camera=camera: source.latents(episode, camera))
            for read in reads:
                try:
                    read()
                except DataError as error:
                    left_out.append(LeftOut("rejected", error.reason, error.detail))
    return left_out


def writing(path: Path, source: Callable[[], Source]) -> Callable[[bytes], object]:
    """A reader of a dataset in which one file holds what is given."""

    def read(content: bytes) -> object:
        path.write_bytes(content)
        return read_all(source())

    return read


def rlds_episode(num_steps: int = 4) -> dict[str, Any]:
    return {
        "steps/observation/image": [picture(10 * step + 1) for step in range(num_steps)],
        "steps/language_instruction": [b"open it"] * num_steps,
        "steps/action": np.arange(7 * num_steps, dtype=np.float32),
        "steps/observation/state": np.arange(7 * num_steps, dtype=np.float32),
        "steps/is_first": np.array([1, *[0] * (num_steps - 1)]),
    }


FEATURES = {
    "featuresDict": {"features": {"steps": {"sequence": {"feature": {"featuresDict": {"features": {
        "action": {"tensor": {"shape": {"dimensions": ["7"]}, "dtype": "float32"}},
        "language_instruction": {"text": {}},
        "observation": {"featuresDict": {"features": {
            "image": {"image": {"shape": {"dimensions": ["32", "32", "3"]}}},
            "state": {"tensor": {"shape": {"dimensions": ["7"]}, "dtype": "float32", "encoding": "none"}},
        }}},
    }}}}}}}
}  # fmt: skip


@EFFORTS
def test_rlds_records_and_examples(tmp_path: Path, effort: int) -> None:
    path = write_rlds(tmp_path / "d-train.tfrecord-00000-of-00001", [rlds_episode(), rlds_episode()])
    read = writing(path, lambda: OpenXRLDS("d", str(tmp_path)))
    survives(read, mutants(path.read_bytes()), effort)

    def read_example(content: bytes) -> None:
        with path.open("wb") as handle:
            write_record(handle, content)  # so that both checksums fit
        read_all(OpenXRLDS("d", str(tmp_path)))

    survives(read_example, mutants(encode_example(rlds_episode())), effort)
    survives(parse_example, mutants(encode_example({**rlds_episode(), "steps/observation/image": [b"x"] * 4})), effort)


@EFFORTS
def test_rlds_features_json(tmp_path: Path, effort: int) -> None:
    write_rlds(tmp_path / "d-train.tfrecord-00000-of-00001", [rlds_episode()])
    survives(writing(tmp_path / "features.json", lambda: OpenXRLDS("d", str(tmp_path))), json_mutants(FEATURES), effort)


@EFFORTS
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pictures(kind: str, effort: int) -> None:
    survives(lambda content: decode_image(content, "x"), mutants(picture(3, 32, kind)), effort)


@EFFORTS
@pytest.mark.parametrize("name", ["meta/info.json", "meta/episodes.jsonl", "meta/tasks.jsonl"])
def test_lerobot_v2_metadata(tmp_path: Path, name: str, effort: int) -> None:
    documents = {
        "meta/info.json": {
            "codebase_version": "v2.1", "fps": 30, "chunks_size": 1000, "splits": {"train": "0:1"},
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            "video_path": "videos/chunk-000/{video_key}/episode_{episode_index:06d}.mp4",
            "features": {
                "action": {"dtype": "float32", "shape": [2]},
                FRONT: {"dtype": "video", "shape": [48, 64, 3], "info": {"video.codec": "h264"}},
            },
        },
        "meta/episodes.jsonl": {"episode_index": 0, "task_index": 0, "length": 5},
        "meta/tasks.jsonl": {"task_index": 0, "task": "open it"},
    }  # fmt: skip
    for path, document in documents.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(json.dumps(document))
    (tmp_path / "data/chunk-000").mkdir(parents=True)
    table = {"action": pa.array([[step, -step] for step in range(5)], pa.list_(pa.float32()))}
    pq.write_table(pa.table(table), tmp_path / "data/chunk-000/episode_000000.parquet")
    write_video(tmp_path / f"videos/chunk-000/{FRONT}/episode_000000.mp4", 5)
    assert not read_all(OpenXLeRobot("d", str(tmp_path)))
    survives(writing(tmp_path / name, lambda: OpenXLeRobot("d", str(tmp_path))), json_mutants(documents[name]), effort)


@EFFORTS
@pytest.mark.parametrize("name", ["meta/tasks.parquet", "meta/episodes", "data", f"videos/{FRONT}"])
def test_lerobot_v3_tables_and_videos(tmp_path: Path, name: str, effort: int) -> None:
    write_lerobot_v3(str(tmp_path), (5, 4))
    path = tmp_path / name
    path = path if path.is_file() else next(found for found in path.rglob("*") if found.is_file())
    survives(writing(path, lambda: OpenXLeRobot("d", str(tmp_path))), mutants(path.read_bytes()), effort)


@EFFORTS
@pytest.mark.parametrize("name", ["ep_start_end_ids.npy", "lang_annotations/auto_lang_ann.npy", "episode_0000000.npz"])
def test_calvin_files(tmp_path: Path, name: str, effort: int) -> None:
    write_calvin(tmp_path, [(0, 4)], [(1, 3, "open")])
    path = tmp_path / "training" / name
    survives(writing(path, lambda: Calvin("d", str(tmp_path))), mutants(path.read_bytes()), effort)


@EFFORTS
@pytest.mark.parametrize("name", ["ego4d.json", "annotations/narration.json"])
def test_ego4d_annotations(tmp_path: Path, name: str, effort: int) -> None:
    told = [{"timestamp_sec": second, "narration_text": "#C C walks"} for second in (1.0, 3.0)]
    write_ego4d(tmp_path, {"u": {}}, {"u": {"status": "complete", "narration_pass_1": {"narrations": told}}}, 20)
    path = tmp_path / name
    survives(writing(path, lambda: Ego4D("d", str(tmp_path))), json_mutants(json.loads(path.read_bytes())), effort)


@EFFORTS
def test_annotations_of_the_authors_layout(tmp_path: Path, effort: int) -> None:
    write_vpp_layout(tmp_path, 1, 20)
    path = tmp_path / "annotation/train/0.json"
    document = json.loads(path.read_bytes()) | {"latent_videos": [{"latent_video_path": "latent_videos/0.pt"}]}
    survives(writing(path, lambda: VPPLayout("d", str(tmp_path))), json_mutants(document), effort)


@EFFORTS
@pytest.mark.parametrize(("codec", "ending"), [("libx264", "mp4"), ("libvpx", "webm"), ("mpeg2video", "ts")])
def test_videos(tmp_path: Path, codec: str, ending: str, effort: int) -> None:
    path = write_video(tmp_path / f"a.{ending}", 8, codec)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        probe(str(path))
        count_frames(str(path))
        list(read_frames(str(path), [0, 1, 7]))

    survives(read, mutants(path.read_bytes()), effort)


# --- links, pipes, depth ---------------------------------------------------------------------------


def test_a_link_out_of_a_dataset_is_a_row(tmp_path: Path) -> None:
    outside = write_video(tmp_path / "private/secret.mp4", 20)
    root = write_vpp_layout(tmp_path / "data", 1, 20)
    video = root / "videos/train/0/rgb.mp4"
    video.unlink()
    video.symlink_to(outside)
    (row,) = read_all(VPPLayout("d", str(root)))
    assert row.reason == "path_outside_root"
    assert "a link out of it" in row.detail
    frame = write_calvin(tmp_path / "calvin", [(0, 1)], []) / "training/episode_0000001.npz"
    frame.rename(tmp_path / "private/frame.npz")
    frame.symlink_to(tmp_path / "private/frame.npz")
    assert "path_outside_root" in {row.reason for row in read_all(Calvin("d", str(tmp_path / "calvin")))}
    record = write_rlds(tmp_path / "private/d-train.tfrecord-00000-of-00001", [rlds_episode()])
    (tmp_path / "rlds").mkdir()
    (tmp_path / "rlds/d-val.tfrecord-00000-of-00001").symlink_to(record)
    (tmp_path / "rlds/features.json").write_text(json.dumps(FEATURES))
    assert {row.reason for row in read_all(OpenXRLDS("d", str(tmp_path / "rlds")))} == {"path_outside_root"}


def test_links_inside_a_dataset_and_to_the_hubs_blobs_are_followed(tmp_path: Path) -> None:
    root = write_vpp_layout(tmp_path / "datasets--x/snapshots/0123", 1, 20)
    video = root / "videos/train/0/rgb.mp4"
    (tmp_path / "datasets--x/blobs").mkdir()
    video.rename(tmp_path / "datasets--x/blobs/abc")
    video.symlink_to("../../../../../blobs/abc")
    assert not read_all(VPPLayout("d", str(root)))


def test_a_pipe_is_a_row_and_is_not_waited_for(tmp_path: Path) -> None:
    root = write_vpp_layout(tmp_path, 1, 20)
    video = root / "videos/train/0/rgb.mp4"
    video.unlink()
    os.mkfifo(video)
    (row,) = read_all(VPPLayout("d", str(root)))
    assert row.reason == "not_a_file"


def test_annotations_that_are_nested_deeply_are_a_row(tmp_path: Path) -> None:
    write_ego4d(tmp_path, {"u": {}}, {"u": {}}, 20)
    (tmp_path / "annotations/narration.json").write_text('{"u": ' + "[" * 100_000)
    assert "bad_json" in {row.reason for row in read_all(Ego4D("d", str(tmp_path)))}


def test_only_brackets_outside_of_strings_count_wherever_the_pieces_end(tmp_path: Path) -> None:
    text = json.dumps([{"a": '[[{\\"[' * 200, "b": ["\\", '"', "]"]}] * 5)
    for size in (1, 7, 1 << 16):
        path = tmp_path / "x.json"
        path.write_text(text)
        with path.open("rb") as handle:
            assert list(ijson.items(ShallowJson(handle), "item", buf_size=size)) == json.loads(text)
    path.write_text('["[[", ' + "[" * 200 + "]" * 201)
    with path.open("rb") as handle, pytest.raises(ijson.JSONError, match="deep"):
        list(ijson.items(ShallowJson(handle), "item", buf_size=3))


def test_a_source_that_names_no_file_raises_only_our_errors(tmp_path: Path) -> None:
    for source in (VPPLayout, Ego4D, Calvin, OpenXRLDS, OpenXLeRobot):
        with pytest.raises(VPPError):
            source("d", str(tmp_path / "nothing")).parts()
