"""A collection counts, resumes to the same bytes, refuses what does not fit, and becomes a dataset that is read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import run

from pipelines.sources.openx_lerobot import OpenXLeRobot
from schemas.episode import Episode
from schemas.errors import UsageError
from vpp.sim import collect as collect_module
from vpp.sim.collect import CollectSettings, collect, record_episodes
from vpp.sim.recorded import save

pytest.importorskip("metaworld")

TASKS = ("handle-press-v3", "coffee-button-v3")


def settings_for(output: Path, **changes: object) -> CollectSettings:
    values = {"tasks": TASKS, "episodes_per_task": 2, "image_size": 32, "steps_after_success": 2} | changes
    return CollectSettings(output=str(output), **values)  # type: ignore[arg-type]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Records in this process instead of Ray's; the list tells which episodes."""
    recorded: list[tuple[str, int]] = []

    def record_here(settings: CollectSettings, missing: list[tuple[str, int]]) -> None:
        for task, number in missing:
            record_episodes(settings, task, [number])
            recorded.append((task, number))

    monkeypatch.setattr(collect_module, "_record_with_ray", record_here)
    return recorded


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_interrupted_run_ends_with_the_bytes_of_an_uninterrupted_one(
    tmp_path: Path, here: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run is killed after one of two episodes, then between the dataset's files."""
    whole = collect(settings_for(tmp_path / "whole", episodes_per_task=1))
    assert [(t["attempted"], t["succeeded"], t["failed"]) for t in whole["tasks"].values()] == [(1, 1, 0)] * 2
    settings = settings_for(tmp_path / "killed", episodes_per_task=1)
    here.clear()
    with monkeypatch.context() as patched:
        patched.setattr(collect_module, "_record_with_ray", lambda s, _: record_episodes(s, TASKS[0], [0]))
        with pytest.raises(FileNotFoundError):
            collect(settings)
    with monkeypatch.context() as patched:
        patched.setattr(collect_module.LeRobotWriter, "finish", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            collect(settings)
    assert not (tmp_path / "killed/meta/info.json").exists()
    assert collect(settings) == whole
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert collect(settings) == whole
    assert here == [(TASKS[1], 0)]


def test_failed_episodes_are_counted_and_not_kept(tmp_path: Path, here: list[tuple[str, int]]) -> None:
    settings = settings_for(tmp_path, tasks=TASKS[:1], cameras=("corner2", "gripperPOV"))
    collect_module._claim(settings.output, collect_module._request(settings))
    save(f"{tmp_path}/recorded/{TASKS[0]}/000000.npz", None)
    task = collect(settings)["tasks"][TASKS[0]]
    assert (task["attempted"], task["succeeded"], task["failed"]) == (2, 1, 1)
    assert task["failed_seeds"][0] + 1 == task["seeds"][0]
    info = json.loads((tmp_path / "meta/info.json").read_text())
    assert (info["total_episodes"], info["fps"]) == (1, 80)
    assert {name for name in info["features"] if "images" in name} == {
        "observation.images.corner2",
        "observation.images.gripperPOV",
    }


def test_nothing_is_written_if_every_expert_failed(tmp_path: Path, here: list[tuple[str, int]]) -> None:
    settings = settings_for(tmp_path, tasks=TASKS[:1], episodes_per_task=1)
    collect_module._claim(settings.output, collect_module._request(settings))
    save(f"{tmp_path}/recorded/{TASKS[0]}/000000.npz", None)
    with pytest.raises(UsageError, match="solved"):
        collect(settings)
    assert not (tmp_path / "meta").exists()


def test_an_output_with_other_settings_is_refused(tmp_path: Path, here: list[tuple[str, int]]) -> None:
    settings = settings_for(tmp_path, tasks=TASKS[:1], episodes_per_task=1)
    collect_module._claim(settings.output, collect_module._request(settings))
    larger = settings_for(tmp_path, tasks=TASKS[:1], episodes_per_task=1, image_size=64)
    with pytest.raises(UsageError, match="image_size 32; now image_size 64"):
        collect(larger)
    collect(settings)
    with pytest.raises(UsageError, match="image_size 32; now image_size 64"):
        collect(larger)
    collect(settings_for(tmp_path, tasks=TASKS[:1], episodes_per_task=1, num_workers=7))  # changes nothing recorded
    collection = tmp_path / "meta/collection.json"
    older = json.loads(collection.read_text())
    del older["settings"]["action_noise"]  # a setting that came later
    collection.write_text(json.dumps(older))
    collect(settings)
    with pytest.raises(UsageError, match=r"action_noise 0\.0; now action_noise 0\.1"):
        collect(settings_for(tmp_path, tasks=TASKS[:1], episodes_per_task=1, action_noise=0.1))
    collection.unlink()
    with pytest.raises(UsageError, match="did not write"):
        collect(settings)
    assert len(here) == 1


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"tasks": ("fly-v3",)}, "--tasks"),
        ({"tasks": ()}, "--tasks"),
        ({"tasks": ("reach-v3", "reach-v3")}, "--tasks"),
        ({"cameras": ("eye",)}, "--cameras"),
        ({"cameras": ()}, "--cameras"),
        ({"episodes_per_task": 0}, "--episodes-per-task"),
        ({"image_size": 33}, "--image-size"),
        ({"seed": -1}, "--seed"),
        ({"action_noise": -0.1}, "--action-noise"),
        ({"action_noise": float("nan")}, "--action-noise"),
    ],
)
def test_a_wrong_setting_is_the_users_mistake(tmp_path: Path, wrong: dict[str, object], option: str) -> None:
    with pytest.raises(UsageError, match=option):
        collect(settings_for(tmp_path, **wrong))
    assert list(tmp_path.iterdir()) == []


def test_the_job_records_with_ray_and_the_pipeline_reads_it(tmp_path: Path) -> None:
    (tmp_path / "vpp.yaml").write_text("collect: {episodes_per_task: 2, image_size: 32, steps_after_success: 2}\n")
    arguments = ["--tasks", TASKS[1], "--output", tmp_path / "out"]
    code, printed = run("collect", *arguments, cwd=tmp_path)
    assert code == 0, printed
    assert f"{TASKS[1]:32} {2:>10} {2:>10} {0:>10}" in printed
    assert not (tmp_path / "out/recorded").exists()
    source = OpenXLeRobot("m", str(tmp_path / "out"))
    episodes = [entry for part in source.parts() for entry in source.list_part(part)]
    assert len(episodes) == 2
    for episode in episodes:
        assert isinstance(episode, Episode)
        assert (episode.cameras, episode.fps) == (("corner2",), 80.0)
        assert episode.segments[0].caption == "press the button of the coffee machine"
        trajectory = source.trajectory(episode, 0, episode.num_frames)
        assert trajectory is not None
        assert trajectory.actions.shape == (episode.num_frames, 4)
        for camera in episode.cameras:
            assert sum(1 for _ in source.frames(episode, camera, range(episode.num_frames))) == episode.num_frames
