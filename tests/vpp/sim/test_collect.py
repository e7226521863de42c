"""Demonstrations are repeatable, upright, counted, and become a dataset that the pipeline reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.sources.openx_lerobot import OpenXLeRobot
from schemas.episode import Episode
from schemas.errors import UsageError
from vpp.sim import collect as collect_module
from vpp.sim.collect import CollectSettings, collect
from vpp.sim.demonstrations import demonstrate, episode_seed
from vpp.sim.metaworld import CAMERAS, INSTRUCTIONS, environment


def test_an_episode_is_a_function_of_its_seed() -> None:
    first = demonstrate("drawer-open-v3", 7, ("corner2",), 64, 3)
    second = demonstrate("drawer-open-v3", 7, ("corner2",), 64, 3)
    other = demonstrate("drawer-open-v3", 8, ("corner2",), 64, 3)
    assert first.success
    np.testing.assert_array_equal(first.actions, second.actions)
    np.testing.assert_array_equal(first.pictures["corner2"], second.pictures["corner2"])
    assert not np.array_equal(first.states[-1], other.states[-1])
    length = len(first.actions)
    assert (first.states.shape, first.pictures["corner2"].shape) == ((length, 4), (length, 64, 64, 3))
    assert np.abs(first.actions).max() <= 1
    assert length < 200  # it ends soon after success


def test_pictures_are_upright_and_differ_between_cameras() -> None:
    with environment("drawer-open-v3", 0, CAMERAS, 64) as env:
        env.reset()
        pictures = env.render()
    assert set(pictures) == set(CAMERAS)
    assert len({picture.tobytes() for picture in pictures.values()}) == len(CAMERAS)
    corner = pictures["corner2"].astype(float)
    assert corner[:8].std() < corner[24:40].std()  # the empty background is above the table


def test_every_task_has_an_instruction_and_an_expert() -> None:
    from metaworld.policies import ENV_POLICY_MAP

    assert set(INSTRUCTIONS) == set(ENV_POLICY_MAP)
    assert len(set(INSTRUCTIONS.values())) == 50


def test_seeds_differ_by_task_and_episode() -> None:
    seeds = {episode_seed(seed, task, n) for seed in (0, 1) for task in ("a", "b") for n in range(50)}
    assert len(seeds) == 200


def test_a_collection_counts_keeps_resumes_and_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = str(tmp_path / "out")
    settings = CollectSettings(
        output=output, tasks=("handle-press-v3", "coffee-button-v3"), episodes_per_task=2, image_size=64
    )
    recorded = []

    def record_here(settings: CollectSettings, missing: list[tuple[str, int]]) -> None:
        for task, number in missing:
            recorded.append((task, number))
            collect_module._record_one(settings, task, number)

    monkeypatch.setattr(collect_module, "_record", record_here)
    collect_module._record_one(settings, "handle-press-v3", 1)  # what a killed run left behind
    record = collect(settings)
    assert recorded == [("handle-press-v3", 0), ("coffee-button-v3", 0), ("coffee-button-v3", 1)]
    assert record["tasks"] == {task: {"tried": 2, "kept": 2, "failed": 0} for task in settings.tasks}
    assert collect(settings) == record
    assert len(recorded) == 3
    assert not (tmp_path / "out" / "recorded").exists()
    source = OpenXLeRobot("m", output)
    episodes = [entry for part in source.parts() for entry in source.list_part(part)]
    assert [e.segments[0].caption for e in episodes if isinstance(e, Episode)] == [
        "press the handle down",
        "press the handle down",
        "press the button of the coffee machine",
        "press the button of the coffee machine",
    ]
    for episode in episodes:
        assert isinstance(episode, Episode)
        assert source.trajectory(episode, 0, episode.num_frames).actions.shape == (episode.num_frames, 4)  # type: ignore[union-attr]
        assert sum(1 for _ in source.frames(episode, "corner2", range(episode.num_frames))) == episode.num_frames
    assert json.loads((tmp_path / "out/meta/info.json").read_text())["fps"] == 80
    with pytest.raises(UsageError, match="other settings"):
        collect(CollectSettings(output=output, tasks=("handle-press-v3",)))


@pytest.mark.parametrize(
    "wrong",
    [{"tasks": ("fly-v3",)}, {"cameras": ("eye",)}, {"episodes_per_task": 0}, {"image_size": 15}, {"output": ""}],
)
def test_a_wrong_setting_is_the_users_mistake(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(UsageError):
        collect(CollectSettings(**({"output": str(tmp_path)} | wrong)))
