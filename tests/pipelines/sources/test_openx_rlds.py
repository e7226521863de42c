"""Open-X in RLDS: the mappings of the paper's sets, any other set by its features.json, damaged records as rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from examples import Feature, picture, write_rlds

from pipelines.sources.openx_rlds import OpenXRLDS
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
    def dictionary(entries: dict[str, object]) -> dict[str, object]:
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


def test_a_changing_instruction_gives_segments_and_none_gives_a_row(tmp_path: Path) -> None:
    changing = dict(LAYOUTS["bridge_dataset"][0])
    changing["steps/language_instruction"] = [b"a", b"a", b"b", b""]
    silent = dict(LAYOUTS["bridge_dataset"][0])
    silent["steps/language_instruction"] = [b""] * 4
    write_rlds(tmp_path / "bridge_dataset-train.tfrecord-00000-of-00001", [changing, silent])
    source = OpenXRLDS("d", str(tmp_path))
    first, second = source.list_part(source.parts()[0])
    assert isinstance(first, Episode)
    assert isinstance(second, Episode)
    assert [(s.start, s.end, s.caption) for s in first.segments] == [(0, 2, "a"), (2, 3, "b")]
    assert [left_out.reason for left_out in second.left_out] == ["no_caption"]


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


def test_settings_that_cannot_be_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="found none"):
        OpenXRLDS("d", str(tmp_path)).parts()
    write_rlds(tmp_path / "unknown-train.tfrecord-00000-of-00001", [LAYOUTS["bridge_dataset"][0]])
    with pytest.raises(UsageError, match=r"features\.json"):
        OpenXRLDS("d", str(tmp_path)).parts()
    assert OpenXRLDS("d", str(tmp_path), name="bridge_dataset").parts()
    assert OpenXRLDS("d", str(tmp_path), images="observation/image_0").parts()
    with pytest.raises(UsageError, match="fps"):
        OpenXRLDS("d", str(tmp_path), fps="fast")


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
