"""An evaluation counts, resumes, refuses what does not fit, survives crashes, and gives the same rows however it is run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import ray
from running import run, start
from tiny_policy import write_policy

from schemas.errors import UsageError
from vpp.policy.policy import VideoPredictionPolicy
from vpp.policy.policy_folder import read_config
from vpp.sim import evaluate as evaluate_module
from vpp.sim.evaluate import Environment, evaluate
from vpp.sim.evaluation_request import EvaluateSettings, Request
from vpp.sim.evaluation_rows import SCHEMA, Row, episode_path, finished_episodes, read_rows, summarise, write_rows
from vpp.sim.foresight import Foresight
from vpp.sim.metaworld_simulator import MetaWorldSimulator, plan_episodes
from vpp.sim.metaworld_tasks import INSTRUCTIONS
from vpp.sim.policy_server import BatchedPolicy, ChunkRequest
from vpp.sim.rollout import Moment, Observe, run_episode
from vpp.sim.rollout_video import EpisodeFilm
from vpp.sim.simulator import EpisodePlan, Simulator

pytest.importorskip("metaworld")

TASKS = ("handle-press-v3", "drawer-close-v3")
DEMO_TASKS = ("button-press-topdown-v3", "drawer-open-v3", "window-open-v3")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def on_ray() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def settings_for(output: Path, **changes: object) -> EvaluateSettings:
    values = {"policy": "expert", "tasks": TASKS, "episodes": 2, "image_size": 32, "max_steps": 120} | changes
    return EvaluateSettings(output=str(output), **values)  # type: ignore[arg-type]


def rows_of(output: Path) -> list[Row]:
    """Without what depends on the clock and on luck."""
    rows = read_rows(str(output), finished_episodes(str(output)))
    return [replace(row, seconds=0.0, attempts=0) for row in rows]


def videos_of(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output / "videos").iterdir()}


def row(number: int, task: str, success: bool, **changes: object) -> Row:
    values = {"position": 0, "group": "easy", "instruction": "", "seed": 1, "num_steps": 2, "seconds": 0.5}
    rest = values | {"attempts": 1, "reason": None, "video": None} | changes
    return Row(number=number, task=task, success=success, **rest)  # type: ignore[arg-type]


# --- without Ray -----------------------------------------------------------------------------------


def test_rows_come_back_as_they_were_in_plain_parquet(tmp_path: Path) -> None:
    rows = [row(7, "a", True, seed=2**37), row(7, "b", False, position=1, group=None, reason="it broke", video="v")]
    write_rows(str(tmp_path), rows)
    assert read_rows(str(tmp_path), [7]) == rows
    assert finished_episodes(str(tmp_path)) == {7}
    assert pq.read_table(tmp_path / episode_path(7)).schema.equals(SCHEMA)


def test_a_summary_counts_tasks_and_groups_and_what_could_not_be_run_as_not_solved() -> None:
    rows = [
        row(0, "a", True),
        row(1, "a", False, reason="it broke"),
        row(2, "b", True, group="hard"),
        row(3, "b", True),
    ]
    summary = summarise(rows, ["b", "a", "c"])
    assert list(summary["success"]) == ["b", "a"]  # in the order asked; what was never begun has no rate
    assert [(rate["k"], rate["n"], rate["rate"]) for rate in summary["success"].values()] == [(2, 2, 1.0), (1, 2, 0.5)]
    assert summary["success"]["a"]["low"] == pytest.approx(0.0945, abs=1e-4)
    assert {name: (rate["k"], rate["n"]) for name, rate in summary["groups"].items()} == {
        "easy": (2, 3),
        "hard": (1, 1),
    }
    assert (summary["mean"], summary["num_episodes"], summary["num_not_run"], summary["seconds"]) == (0.75, 4, 1, 2.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"policy": ""}, "--policy"),
        ({"output": ""}, "--output"),
        ({"tasks": ("fly-v3",)}, "--tasks"),
        ({"tasks": TASKS[:1], "instructions": "next"}, "at least two --tasks"),
        ({"cameras": ("eye",)}, "expected cameras of metaworld"),
        ({"policy": "random", "foresee": 2}, "--foresee: expected a policy with a video model"),
        ({"policy": "/nowhere"}, "expected a folder of jobs/stage2.py"),
    ],
)
def test_a_wrong_setting_is_the_users_mistake(tmp_path: Path, wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        evaluate(replace(settings_for(tmp_path), **wrong))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"episodes": -1}, {"max_attempts": 0}, {"video_stride": 0}])
def test_a_number_outside_its_range_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="--" + next(iter(wrong)).replace("_", "-")):
        EvaluateSettings(**wrong)  # type: ignore[arg-type]


# --- with Ray --------------------------------------------------------------------------------------


def test_rows_are_the_same_for_one_and_two_environments_and_a_rerun_does_what_is_missing(
    on_ray: None, tmp_path: Path
) -> None:
    one = settings_for(tmp_path / "one", num_environments=1, videos=2)
    summary = evaluate(one)
    assert (summary["mean"], summary["num_episodes"]) == (1.0, 4)
    assert evaluate(settings_for(tmp_path / "two", num_environments=2, videos=2))["success"] == summary["success"]
    rows = rows_of(tmp_path / "one")
    assert rows == rows_of(tmp_path / "two")
    assert len(videos_of(tmp_path / "one")) == 4
    assert videos_of(tmp_path / "one") == videos_of(tmp_path / "two")  # every step of the robot, not only the outcome
    assert [(r.number, r.task, r.instruction, r.group) for r in rows] == [
        (2 * place + n, task, INSTRUCTIONS[task], "easy") for place, task in enumerate(TASKS) for n in range(2)
    ]
    kept = (tmp_path / "one" / episode_path(3)).stat().st_mtime_ns
    (tmp_path / "one" / episode_path(1)).unlink()
    evaluate(one)
    assert rows_of(tmp_path / "one") == rows
    assert (tmp_path / "one" / episode_path(3)).stat().st_mtime_ns == kept
    with pytest.raises(UsageError, match=r"holds episodes with seed 0; now seed 1; name another folder"):
        evaluate(replace(one, seed=1))


class Alone:
    """The policy in this process, asked by one environment."""

    def __init__(self, url: str) -> None:
        self._policy = BatchedPolicy(VideoPredictionPolicy.load(url, device="cpu"), 0, 1)

    def chunk(self, simulator: Simulator, observe: Observe, instruction: str, moment: Moment) -> np.ndarray:
        return self._policy.chunks([ChunkRequest(observe(), instruction, moment)])[0]


def test_a_policy_acts_as_without_ray_hears_the_next_tasks_words_and_is_filmed(
    on_ray: None, tmp_path: Path, policy: str
) -> None:
    wanted = {"policy": policy, "max_steps": 12, "num_executed": 5, "instructions": "next", "videos": 1, "foresee": 1}
    evaluate(settings_for(tmp_path, **wanted))
    rows = rows_of(tmp_path)
    told = dict(zip(TASKS, [INSTRUCTIONS[task] for task in reversed(TASKS)], strict=True))
    simulator, actor = MetaWorldSimulator(("corner2",), 32), Alone(policy)
    foresight = Foresight(read_config(policy).video_model, "", "tiny", 1, 0)
    for row, plan in zip(rows, plan_episodes(TASKS, 2, 0), strict=True):
        film = EpisodeFilm(
            "corner2", 80.0, 4, lambda seen, words, moment: foresight(seen["observation.images.corner2"], words, moment)
        )
        (result,) = run_episode(simulator, plan, actor, max_steps=12, num_executed=5, told=told, watcher=film)
        if row.video:
            assert (tmp_path / row.video).read_bytes() == film.finish()
        assert (row.instruction, row.success, row.num_steps) == (told[row.task], result.success, result.num_steps)
    assert [row.video for row in rows] == ["videos/000000.mp4", None, "videos/000002.mp4", None]
    with av.open(str(tmp_path / "videos/000000.mp4")) as container:
        (stream,) = container.streams.video
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.width > 512  # both sides
        assert sum(1 for _ in container.decode(stream)) == 4 + 20
    asked = json.loads((tmp_path / "evaluation.json").read_text())
    assert (asked["max_steps"], asked["num_executed"], asked["policy_batch"], asked["cameras"]) == (
        12,
        5,
        1,
        ["corner2"],
    )
    assert re.fullmatch("[0-9a-f]{16}", asked["policy_hash"])


class Crashing(Environment):
    """Dies once at episode 0, raises at each attempt of episode 3."""

    def run(self, plan: EpisodePlan, attempt: int) -> list[tuple[str, bool]]:
        if plan.number == 0 and attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if plan.number == 3:
            raise ValueError("a wall\nin the way")
        return super().run(plan, attempt)


def test_an_environment_that_crashes_is_replaced_and_what_never_runs_has_a_row_that_says_so(
    on_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(settings_for(tmp_path / "whole"))
    monkeypatch.setattr(evaluate_module, "Environment", Crashing)
    summary = evaluate(settings_for(tmp_path / "crashed", max_attempts=2))
    rows = read_rows(str(tmp_path / "crashed"), range(4))
    assert [row.attempts for row in rows] == [2, 1, 1, 2]
    assert rows_of(tmp_path / "crashed")[:3] == rows_of(tmp_path / "whole")[:3]
    assert (rows[3].reason, rows[3].success, rows[3].task) == ("ValueError: a wall in the way", False, TASKS[1])
    assert (summary["num_not_run"], summary["success"][TASKS[1]]["k"]) == (1, 1)


class Broken(Environment):
    """Runs nothing."""

    def __init__(self, request: Request, policy: object) -> None:
        super().__init__(request, policy)

    def run(self, plan: EpisodePlan, attempt: int) -> list[tuple[str, bool]]:
        raise OSError("no such device")


def test_a_simulator_that_never_runs_stops_the_job_and_leaves_no_rows(
    on_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_module, "Environment", Broken)
    with pytest.raises(RuntimeError, match="none could: OSError: no such device"):
        evaluate(settings_for(tmp_path, max_attempts=1))
    assert finished_episodes(str(tmp_path)) == set()


# --- the job ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_experts_solve_the_demos_tasks(tmp_path: Path) -> None:
    code, printed = run("evaluate", "--policy", "expert", "--episodes", 10, "--output", tmp_path / "out", cwd=tmp_path)
    assert code == 0, printed
    assert "mean over tasks" in printed
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert tuple(summary["success"]) == DEMO_TASKS
    assert min(rate["rate"] for rate in summary["success"].values()) >= 0.9
    assert summary["mean"] >= 0.95
    code, printed = run(
        "evaluate", "--policy", "random", "--episodes", 10, "--output", tmp_path / "by-chance", cwd=tmp_path
    )
    assert code == 0, printed
    assert json.loads((tmp_path / "by-chance/summary.json").read_text())["mean"] <= 0.05


def kill_actor(job: subprocess.Popen[str], name: str) -> None:
    """Kills a process of a job in which an actor is."""
    for process in psutil.Process(job.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(part.startswith(f"ray::{name}") for part in process.cmdline()):
                process.kill()
                return
    raise AssertionError(f"no {name} among the job's processes")


def wait_for_episodes(output: Path, count: int, job: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 120
    while len(finished_episodes(str(output))) < count:
        assert job.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.slow
def test_killing_an_environment_the_policy_or_the_evaluator_loses_no_episode_and_changes_no_row(
    tmp_path: Path, policy: str
) -> None:
    arguments = ["--policy", policy, "--tasks", *TASKS, "--episodes", 6, "--max-steps", 60, "--image-size", 32]
    arguments += ["--videos", 6, "--video-stride", 10]
    code, printed = run("evaluate", *arguments, "--output", tmp_path / "whole", cwd=tmp_path)
    assert code == 0, printed
    whole, videos = rows_of(tmp_path / "whole"), videos_of(tmp_path / "whole")
    assert len(whole) == len(videos) == len(set(videos.values())) == 12

    code, printed = run("evaluate", *arguments, "--num-environments", 1, "--output", tmp_path / "one", cwd=tmp_path)
    assert code == 0, printed
    assert rows_of(tmp_path / "one") == whole
    assert videos_of(tmp_path / "one") == videos

    for actor in ("Environment", "PolicyActor"):
        output, log = tmp_path / actor, tmp_path / f"{actor}.log"
        job = start("evaluate", *arguments, "--output", output, cwd=tmp_path, log=log)
        wait_for_episodes(output, 2, job)
        kill_actor(job, actor)
        assert job.wait(timeout=120) == 0, log.read_text()
        assert ("process died" in log.read_text()) == (actor == "Environment")
        assert rows_of(output) == whole
        assert videos_of(output) == videos

    output = tmp_path / "evaluator"
    job = start("evaluate", *arguments, "--output", output, cwd=tmp_path, log=tmp_path / "log")
    wait_for_episodes(output, 3, job)
    job.kill()
    job.wait(timeout=30)
    time.sleep(5)  # Ray ends what the evaluator started
    kept = {number: (output / episode_path(number)).read_bytes() for number in finished_episodes(str(output))}
    assert 3 <= len(kept) < 12
    code, printed = run("evaluate", *arguments, "--output", output, cwd=tmp_path)
    assert code == 0, printed
    assert rows_of(output) == whole
    assert videos_of(output) == videos
    assert all((output / episode_path(number)).read_bytes() == data for number, data in kept.items())
