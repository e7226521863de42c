"""Open-X in RLDS: the mappings of the paper's sets, any other set by its features.json, damaged records as rows."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import fsspec
import numpy as np
import PIL.Image
import pytest
from examples import Feature, picture, write_rlds
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources import openx_rlds, pictures
from pipelines.sources.openx_rlds import OpenXRLDS
from pipelines.sources.pictures import decode_image
from pipelines.sources.tfrecord import read_record
from schemas.episode import Episode, LeftOut
from schemas.errors import DataError, UsageError

OBS = "steps/observation/"


def steps(
    images: list[str], instruction: str, numbers: dict[str, int], length: int = 4, text: bytes = b"open it"
) -> dict[str, Feature]:
    features: dict[str, Feature] = {f"{OBS}{name}": [picture(10 * t + 1) for t in range(length)] for name in images}
    features[instruction] = [text] * length
    for name, width in numbers.items():
        features[f"steps/{name}"] = np.arange(length * width, dtype=np.float32)
    return features


LAYOUTS = {
    "fractal20220817_data": (
        steps(
            ["image"],
            f"{OBS}natural_language_instruction",
            {
                "action/world_vector": 3,
                "action/rotation_delta": 3,
                "action/gripper_closedness_action": 1,
                "observation/base_pose_tool_reached": 7,
                "observation/gripper_closed": 1,
            },
        ),
        ("image",),
        7,
        8,
    ),
    "bridge_dataset": (
        steps([f"image_{n}" for n in range(4)], "steps/language_instruction", {"action": 7, "observation/state": 7}),
        ("image_0", "image_1", "image_2", "image_3"),
        7,
        7,
    ),
    "bridge": (
        steps(
            ["image"],
            f"{OBS}natural_language_instruction",
            {
                "action/world_vector": 3,
                "action/rotation_delta": 3,
                "action/open_gripper": 1,
                "observation/state": 7,
            },
        ),
        ("image",),
        7,
        7,
    ),
    "bc_z": (
        steps(
            ["image"],
            f"{OBS}natural_language_instruction",
            {
                "action/future/xyz_residual": 30,
                "action/future/axis_angle_residual": 30,
                "action/future/target_close": 10,
                "observation/present/xyz": 3,
                "observation/present/axis_angle": 3,
                "observation/present/sensed_close": 1,
            },
        ),
        ("image",),
        7,
        7,
    ),
    "taco_play": (
        steps(
            ["rgb_static", "rgb_gripper"],
            f"{OBS}natural_language_instruction",
            {"action/rel_actions_world": 7, "observation/robot_obs": 15},
        ),
        ("rgb_static", "rgb_gripper"),
        7,
        15,
    ),
    "jaco_play": (
        steps(
            ["image", "image_wrist"],
            f"{OBS}natural_language_instruction",
            {
                "action/world_vector": 3,
                "action/gripper_closedness_action": 1,
                "observation/end_effector_cartesian_pos": 7,
            },
        ),
        ("image", "image_wrist"),
        4,
        7,
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_sets_of_the_paper_are_read_by_name(tmp_path: Path, name: str) -> None:
    features, cameras, action_dim, proprio_dim = LAYOUTS[name]
    write_rlds(tmp_path / f"{name}-train.tfrecord-00000-of-00002", [features])
    source = OpenXRLDS("d", str(tmp_path))
    (part,) = source.parts()
    (episode,) = source.list_part(part)
    assert isinstance(episode, Episode)
    assert (episode.cameras, episode.action_dim, episode.num_frames) == (cameras, action_dim, 4)
    assert [(s.start, s.end, s.caption) for s in episode.segments] == [(0, 4, "open it")]
    trajectory = source.trajectory(episode, 1, 3)
    assert trajectory is not None
    assert trajectory.actions.shape == (2, action_dim)
    assert trajectory.proprio is not None
    assert trajectory.proprio.shape == (2, proprio_dim)
    for camera in cameras:
        shown = [(index, int(frame.to_ndarray()[-1, 0, 0])) for index, frame in source.frames(episode, camera, [0, 3])]
        assert shown == [(0, 1), (3, 31)]


def test_columns_are_cut_and_joined_step_by_step(tmp_path: Path) -> None:
    write_rlds(tmp_path / "bc_z-val.tfrecord-00000-of-00001", [LAYOUTS["bc_z"][0]])
    source = OpenXRLDS("d", str(tmp_path))
    (episode,) = source.list_part(source.parts()[0])
    assert isinstance(episode, Episode)
    actions = source.trajectory(episode, 0, 4).actions  # type: ignore[union-attr]
    assert actions[1].tolist() == [30.0, 31.0, 32.0, 30.0, 31.0, 32.0, 10.0]


def features_json(leaves: dict[str, dict[str, object]]) -> str:
    def dictionary(entries: Mapping[str, object]) -> dict[str, object]:
        return {"featuresDict": {"features": entries}}

    observation = {
        name.removeprefix("observation/"): leaf for name, leaf in leaves.items() if name.startswith("observation/")
    }
    others = {name: leaf for name, leaf in leaves.items() if not name.startswith("observation/")}
    inner = dictionary({**others, "observation": dictionary(observation)})
    return json.dumps(dictionary({"steps": {"sequence": {"feature": inner}}}))


def test_another_set_is_read_by_its_features_json(tmp_path: Path) -> None:
    leaves = {
        "observation/front": {"image": {"shape": {"dimensions": ["32", "32", "3"]}}},
        "observation/depth": {"image": {"shape": {"dimensions": ["32", "32", "1"]}}},
        "observation/state": {"tensor": {"shape": {"dimensions": ["5"]}}},
        "action": {"tensor": {"shape": {"dimensions": ["2"]}}},
        "language_instruction": {"text": {}},
    }
    (tmp_path / "features.json").write_text(features_json(leaves))  # type: ignore[arg-type]
    content = steps(["front"], "steps/language_instruction", {"action": 2, "observation/state": 5})
    write_rlds(tmp_path / "mine-train.tfrecord-00000-of-00001", [content])
    source = OpenXRLDS("d", str(tmp_path))
    (episode,) = source.list_part(source.parts()[0])
    assert isinstance(episode, Episode)
    assert (episode.cameras, episode.action_dim) == (("front",), 2)


LEAVES: dict[str, dict[str, object]] = {
    "observation/image": {"image": {"shape": {"dimensions": ["32", "32", "3"]}}},
    "observation/natural_language_instruction": {"tensor": {"shape": {}, "dtype": "string", "encoding": "none"}},
    "observation/state": {"tensor": {"shape": {"dimensions": ["5"]}, "dtype": "float32", "encoding": "none"}},
    "action": {"tensor": {"shape": {"dimensions": ["2"]}, "dtype": "float32", "encoding": "none"}},
}


def list_all(source: OpenXRLDS) -> list[Episode | LeftOut]:
    return [entry for part in source.parts() for entry in source.list_part(part)]


def list_one(source: OpenXRLDS) -> Episode:
    (entry,) = list_all(source)
    assert isinstance(entry, Episode), entry
    return entry


def bridge(**changes: Feature) -> dict[str, Feature]:
    return {**LAYOUTS["bridge_dataset"][0], **{f"steps/{key}": value for key, value in changes.items()}}


def write_bridge(folder: Path, *episodes: dict[str, Feature]) -> OpenXRLDS:
    write_rlds(folder / "bridge_dataset-train.tfrecord-00000-of-00001", episodes)
    return OpenXRLDS("d", str(folder))


def test_an_instruction_kept_as_a_string_tensor_is_found(tmp_path: Path) -> None:
    (tmp_path / "features.json").write_text(features_json(LEAVES))
    text = f"{OBS}natural_language_instruction"
    content = steps(["image"], text, {"action": 2, "observation/state": 5}, text=b" stir ")
    write_rlds(tmp_path / "toto-train.tfrecord-00000-of-00001", [content])
    assert [segment.caption for segment in list_one(OpenXRLDS("d", str(tmp_path))).segments] == ["stir"]


def test_what_is_stored_compressed_is_no_action(tmp_path: Path) -> None:
    zipped: dict[str, object] = {"tensor": {"shape": {"dimensions": ["2"]}, "dtype": "float32", "encoding": "zlib"}}
    (tmp_path / "features.json").write_text(features_json({**LEAVES, "action": zipped}))
    content = steps(["image"], f"{OBS}natural_language_instruction", {"observation/state": 5})
    content["steps/action"] = [b"z"] * 4
    write_rlds(tmp_path / "kuka-train.tfrecord-00000-of-00001", [content])
    assert list_one(OpenXRLDS("d", str(tmp_path))).action_dim == 0


def test_another_number_of_values_than_features_json_says_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "features.json").write_text(features_json(LEAVES))
    text = f"{OBS}natural_language_instruction"
    for number, changes in enumerate(({"action": 4}, {"observation/state": 10})):
        content = steps(["image"], text, {"action": 2, "observation/state": 5, **changes})
        write_rlds(tmp_path / f"mine-train.tfrecord-0000{number}-of-00002", [content])
    reasons = [getattr(entry, "reason", "good") for entry in list_all(OpenXRLDS("d", str(tmp_path)))]
    assert reasons == ["inconsistent_lengths"] * 2


def test_features_json_has_the_last_word_over_the_registry(tmp_path: Path) -> None:
    (tmp_path / "features.json").write_text(features_json(LEAVES))
    content = steps(["image"], f"{OBS}natural_language_instruction", {"action": 2, "observation/state": 5})
    write_rlds(tmp_path / "bridge_dataset-train.tfrecord-00000-of-00001", [content])
    episode = list_one(OpenXRLDS("d", str(tmp_path)))
    assert (episode.cameras, episode.action_dim, episode.fps) == (("image",), 2, 5.0)


def test_without_features_json_the_first_good_episode_tells_the_features(tmp_path: Path) -> None:
    depth = io.BytesIO()
    PIL.Image.fromarray(np.zeros((8, 8), np.uint8)).save(depth, "PNG")
    good = steps(["front", "side"], "steps/language_instruction", {"action": 3, "observation/state": 2})
    good[f"{OBS}depth"] = [depth.getvalue()] * 4
    good["steps/action_name"] = [b"push"] * 4
    lost = {name: value for name, value in good.items() if name != f"{OBS}side"}
    first = write_rlds(tmp_path / "mine-train.tfrecord-00000-of-00002", [good])
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    write_rlds(tmp_path / "mine-train.tfrecord-00001-of-00002", [good, lost])
    damaged, episode, second = list_all(OpenXRLDS("d", str(tmp_path)))
    assert isinstance(damaged, LeftOut)
    assert damaged.reason == "bad_crc"
    assert isinstance(episode, Episode)
    assert (episode.cameras, episode.action_dim, len(episode.segments)) == (("front", "side"), 3, 1)
    assert isinstance(second, LeftOut)
    assert second.reason == "missing_key"
    source = OpenXRLDS("d", str(tmp_path), images="observation/side", action="observation/state,action", fps="7")
    chosen = [entry for entry in list_all(source) if isinstance(entry, Episode)]
    assert [(entry.cameras, entry.action_dim, entry.fps) for entry in chosen] == [(("side",), 5, 7.0)]


def test_one_instruction_counts_for_the_whole_episode(tmp_path: Path) -> None:
    episode = list_one(write_bridge(tmp_path, bridge(language_instruction=[b"", b"a", b"a ", b""])))
    assert [(s.start, s.end, s.caption) for s in episode.segments] == [(0, 4, "a")]
    assert not episode.left_out


def test_a_changing_instruction_gives_segments_and_none_gives_a_row(tmp_path: Path) -> None:
    silent = [bridge(language_instruction=[b" "] * 4), bridge(language_instruction=[])]
    del silent[1]["steps/language_instruction"]
    source = write_bridge(tmp_path, bridge(language_instruction=[b"a", b"a", b"b", b""]), *silent)
    first, *others = list_all(source)
    assert isinstance(first, Episode)
    assert [(s.start, s.end, s.caption) for s in first.segments] == [(0, 2, "a"), (2, 3, "b")]
    assert [(row.reason, row.start, row.end) for row in first.left_out] == [("no_caption", 3, 4)]
    for other in others:
        assert isinstance(other, Episode)
        assert not other.segments
        assert [(row.status, row.reason, row.start) for row in other.left_out] == [("filtered", "no_caption", None)]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("language_instruction", np.full(4, 10**12), "bad_annotation"),
        ("language_instruction", [b"a", b"b"], "inconsistent_lengths"),
        ("observation/image_0", np.arange(4), "bad_image"),
        ("observation/state", [b"1"] * 4, "bad_numbers"),
        ("observation/state", np.zeros(27, np.float32), "inconsistent_lengths"),
        ("action", np.zeros(56, np.float32), "inconsistent_lengths"),
        ("action", np.zeros(12, np.float32), "inconsistent_lengths"),
        ("is_first", np.zeros(5, np.int64), "inconsistent_lengths"),
    ],
)
def test_features_of_the_wrong_type_or_length_are_rows(tmp_path: Path, key: str, value: Feature, reason: str) -> None:
    (entry,) = list_all(write_bridge(tmp_path, bridge(**{key: value})))
    assert isinstance(entry, LeftOut)
    assert (entry.status, entry.reason, entry.episode_id) == ("rejected", reason, "train/00000-000000")
    assert key in entry.detail
    assert "record 0 at byte 0 of " in entry.detail


def test_unequal_lengths_and_lost_keys_are_rows(tmp_path: Path) -> None:
    short = dict(LAYOUTS["bridge_dataset"][0])
    short[f"{OBS}image_1"] = [picture(0)] * 3
    lost = {name: value for name, value in LAYOUTS["bridge_dataset"][0].items() if not name.endswith("image_2")}
    odd = dict(LAYOUTS["bridge_dataset"][0])
    odd["steps/action"] = np.zeros(27, np.float32)
    write_rlds(tmp_path / "bridge_dataset-train.tfrecord-00000-of-00001", [short, lost, odd])
    source = OpenXRLDS("d", str(tmp_path))
    entries = list(source.list_part(source.parts()[0]))
    assert [entry.reason for entry in entries if isinstance(entry, LeftOut)] == [
        "inconsistent_lengths",
        "missing_key",
        "inconsistent_lengths",
    ]


def test_a_picture_that_is_none_is_a_fault_of_the_data(tmp_path: Path) -> None:
    bad = dict(LAYOUTS["bridge_dataset"][0])
    bad[f"{OBS}image_0"] = [picture(0), b"no picture", picture(0), picture(0)[:40]]
    write_rlds(tmp_path / "bridge_dataset-train.tfrecord-00000-of-00001", [bad])
    source = OpenXRLDS("d", str(tmp_path))
    (episode,) = source.list_part(source.parts()[0])
    assert isinstance(episode, Episode)
    faults = [index for index, frame in source.frames(episode, "image_0", range(4)) if isinstance(frame, DataError)]
    assert faults == [1, 3]


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(buffer, kind)
    return buffer.getvalue()


def png_of(width_px: int, height_px: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [png_of(2**30, 2**30), encoded("TIFF"), encoded("EPS"), encoded("GIF")],
    ids=["bomb", "tiff", "eps", "gif"],
)
def test_bombs_and_foreign_pictures_are_not_decoded(tmp_path: Path, content: bytes) -> None:
    source = write_bridge(tmp_path, bridge(**{"observation/image_0": [content] * 4}))
    ((_, fault),) = source.frames(list_one(source), "image_0", [0])
    assert isinstance(fault, DataError)
    assert fault.reason == "decode_error"


def test_a_sound_picture_with_too_many_pixels_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_bridge(tmp_path, bridge())
    episode = list_one(source)
    monkeypatch.setattr(pictures, "_MAX_PIXELS", 32 * 32)
    ((_, frame),) = source.frames(episode, "image_0", [0])
    assert not isinstance(frame, DataError)
    monkeypatch.setattr(pictures, "_MAX_PIXELS", 32 * 32 - 1)
    ((_, fault),) = source.frames(episode, "image_0", [0])
    assert "found 32 x 32 pixels" in str(fault)


@given(
    kind=st.sampled_from(["PNG", "JPEG"]),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=5),
    cut=st.integers(0, 50),
)
def test_a_damaged_picture_is_at_worst_a_fault_of_the_data(kind: str, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(picture(7, kind=kind))
    for position, value in changes:
        content[position % len(content)] = value
    with contextlib.suppress(DataError):
        decode_image(bytes(content[: len(content) - cut]), "here")


def test_settings_that_cannot_be_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="found none"):
        OpenXRLDS("d", str(tmp_path)).parts()
    write_rlds(tmp_path / "unknown-train.tfrecord-00000-of-00001", [{"steps/action": np.zeros(7, np.float32)}])
    with pytest.raises(UsageError, match="colour images"):
        OpenXRLDS("d", str(tmp_path)).parts()
    assert OpenXRLDS("d", str(tmp_path), name="bridge_dataset").parts()
    assert OpenXRLDS("d", str(tmp_path), images="observation/image_0").parts()
    for fps in ("fast", "nan", "-1"):
        with pytest.raises(UsageError, match="fps"):
            OpenXRLDS("d", str(tmp_path), fps=fps)
    with pytest.raises(UsageError, match="split tset, found splits train"):
        OpenXRLDS("d", str(tmp_path), name="bridge_dataset", split="train,tset").parts()
    with pytest.raises(UsageError, match=r"cameras: expected some of image_0, .* found image_9"):
        OpenXRLDS("d", str(tmp_path), name="bridge_dataset", cameras="image_1,image_9").parts()
    (tmp_path / "features.json").write_text(features_json(LEAVES))
    with pytest.raises(UsageError, match="found steps/acton; it names steps/action"):
        OpenXRLDS("d", str(tmp_path), action="acton").parts()
    for content in ("{", "[[1]]", '{"featuresDict": 3}'):
        (tmp_path / "features.json").write_text(content)
        with pytest.raises(UsageError, match=r"features\.json"):
            OpenXRLDS("d", str(tmp_path)).parts()


def test_chosen_cameras_are_the_only_ones_looked_at(tmp_path: Path) -> None:
    write_bridge(tmp_path, bridge(**{"observation/image_1": [picture(0)] * 3}))
    source = OpenXRLDS("d", str(tmp_path), cameras="image_2, image_0")
    episode = list_one(source)
    assert episode.cameras == ("image_2", "image_0")
    assert [index for index, _ in source.frames(episode, "image_0", [1, 2])] == [1, 2]


def test_cameras_of_one_last_name_are_told_apart(tmp_path: Path) -> None:
    content = steps([], "steps/language_instruction", {})
    for number, name in enumerate(("front/image", "wrist/image", "side")):
        content[f"{OBS}{name}"] = [picture(10 * number)] * 4
    write_rlds(tmp_path / "mine.tfrecord", [content])
    source = OpenXRLDS("d", str(tmp_path))
    episode = list_one(source)
    assert episode.cameras == ("front_image", "side", "wrist_image")
    shown = [int(next(iter(source.frames(episode, name, [0])))[1].to_ndarray()[-1, 0, 0]) for name in episode.cameras]
    assert shown == [0, 20, 10]


def test_ids_are_unique_whatever_the_files_are_called(tmp_path: Path) -> None:
    names = ["a-data.tfrecord", "b-data.tfrecord", "a-train.tfrecord", "x.tfrecord-00000-of-00002"]
    names += ["x.tfrecord-00001-of-00002", "x-train_1.tfrecord-00000-of-00001", "x-train.tfrecord-00003-of-00009"]
    for name in names:
        write_rlds(tmp_path / name, [bridge(), bridge()])
    source = OpenXRLDS("d", str(tmp_path), name="bridge_dataset")
    ids = [entry.episode_id for entry in list_all(source)]
    assert len(set(ids)) == len(ids) == 2 * len(names)
    assert {"train/00003-000001", "train_1/00000-000000", "train/a-train-000000", "b-data-000001"} <= set(ids)
    write_rlds(tmp_path / "x.tfrecord-00001-of-00007", [bridge()])
    with pytest.raises(UsageError, match="expected one file of each shard"):
        source.parts()


def test_a_file_that_is_gone_or_empty_is_a_row(tmp_path: Path) -> None:
    source = write_bridge(tmp_path)
    (empty,) = list_all(source)
    (part,) = source.parts()
    (tmp_path / part).unlink()
    (gone,) = source.list_part(part)
    assert isinstance(empty, LeftOut)
    assert isinstance(gone, LeftOut)
    assert [(row.status, row.reason, row.episode_id) for row in (empty, gone)] == [
        ("rejected", "empty_file", ""),
        ("rejected", "missing_file", ""),
    ]


def test_a_file_that_goes_after_it_was_listed_is_a_fault_of_the_data(tmp_path: Path) -> None:
    source = write_bridge(tmp_path, bridge())
    episode = list_one(source)
    (tmp_path / episode.locator["file"]).unlink()
    with pytest.raises(DataError, match="missing_file"):
        list(source.frames(episode, "image_0", [0]))


def test_the_cameras_and_actions_of_an_episode_cost_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_bridge(tmp_path, bridge())
    episode = list_one(source)
    reads = []

    def counted(url: str, offset: int, num_bytes: int) -> bytes:
        reads.append(offset)
        return read_record(url, offset, num_bytes)

    monkeypatch.setattr(openx_rlds, "read_record", counted)
    for camera in episode.cameras:
        assert len(list(source.frames(episode, camera, range(4)))) == 4
    assert source.trajectory(episode, 0, 4) is not None
    assert reads == [0]


def test_the_real_sample_lists_all_episodes_from_any_store(shared_data: Path) -> None:
    folder = shared_data / "openx_rlds" / "bridge_dataset"
    memory = fsspec.filesystem("memory")
    memory.put(str(folder / "1.0.0"), "/rlds/1.0.0", recursive=True)
    for url in (str(folder), "memory://rlds/1.0.0"):
        source = OpenXRLDS("bridge", url)
        episodes = [entry for part in source.parts() for entry in source.list_part(part)]
        assert len(episodes) == 50
        assert len({entry.episode_id for entry in episodes}) == 50
        assert all(isinstance(entry, Episode) and entry.num_frames == 10 for entry in episodes)
        first = episodes[0]
        assert isinstance(first, Episode)
        assert [frame.width for _, frame in source.frames(first, "image_0", range(10))] == [64] * 10


def test_broken_records_beside_good_ones(shared_data: Path, tmp_path: Path) -> None:
    for name in ("bad_crc.tfrecord", "truncated.tfrecord"):
        shutil.copy(shared_data / "broken" / name, tmp_path / name)
    source = OpenXRLDS("d", str(tmp_path), name="bridge_dataset")
    entries = [entry for part in source.parts() for entry in source.list_part(part)]
    assert [entry.reason if isinstance(entry, LeftOut) else "good" for entry in entries] == [
        "good",
        "bad_crc",
        "good",
        "truncated_record",
    ]
