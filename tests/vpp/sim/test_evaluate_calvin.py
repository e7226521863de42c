"""Chains are evaluated by environments in Ray, on a stand-in for CALVIN's simulator."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import ray
from calvin_stand_in import open_stand_in

from schemas.errors import UsageError
from vpp.sim import benchmark, calvin_world, chains, evaluation_request
from vpp.sim import evaluate as evaluate_module
from vpp.sim.calvin import CalvinSimulator
from vpp.sim.calvin_tasks import INSTRUCTIONS
from vpp.sim.chain_results import chain_results
from vpp.sim.chains import chains_of, initial_scenes, plan_chains
from vpp.sim.evaluate import Environment, evaluate
from vpp.sim.evaluation_request import EvaluateSettings, Request
from vpp.sim.evaluation_rows import read_rows
from vpp.sim.rollout import RandomActor, run_episode


class OnStandIn(Environment):
    """Runs chains on the stand-in."""

    def __init__(self, request: Request, policy: object) -> None:
        super().__init__(request, policy)
        self._benchmark = find_without_simulator()
        self._simulator = CalvinSimulator(request.cameras, open_stand_in)


def find_without_simulator(name: str = "calvin") -> benchmark.Benchmark:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calvin_world, "check_installed", lambda: Path())
        return replace(benchmark.find_benchmark("calvin"), packages=())


@pytest.fixture(scope="module")
def on_ray() -> Iterator[None]:
    modules = (sys.modules[__name__], sys.modules[open_stand_in.__module__])
    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)  # workers cannot import a test
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    for module in modules:
        ray.cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    few = tuple((scene, next(chains_of(scene, number))) for number, scene in enumerate(initial_scenes()[:4]))
    monkeypatch.setattr(chains, "official_chains", lambda: few)
    monkeypatch.setattr(evaluation_request, "find_benchmark", find_without_simulator)
    monkeypatch.setattr(evaluate_module, "Environment", OnStandIn)


def settings_for(output: Path, **changes: object) -> EvaluateSettings:
    values = {"benchmark": "calvin", "policy": "random", "episodes": 4, "max_steps": 20} | changes
    return EvaluateSettings(output=str(output), **values)  # type: ignore[arg-type]


def test_chains_end_where_they_would_without_ray_and_are_summed_up(on_ray: None, tmp_path: Path) -> None:
    summary = evaluate(settings_for(tmp_path, num_environments=2, videos=1))
    rows = read_rows(str(tmp_path), range(4))
    simulator, actor = CalvinSimulator(("rgb_static",), open_stand_in), RandomActor(7, 0)
    expected = [run_episode(simulator, plan, actor, max_steps=20) for plan in plan_chains(4)]
    assert [(row.task, row.instruction, row.success, row.num_steps) for row in rows] == [
        (result.task, INSTRUCTIONS[result.task], result.success, result.num_steps)
        for results in expected
        for result in results
    ]
    solved = [sum(result.success for result in results) for results in expected]
    assert len(set(solved)) > 1  # some chains get further than others
    written = json.loads((tmp_path / "chains.json").read_text())
    assert written == chain_results([asdict(row) for row in rows])
    assert [chain["num_solved"] for chain in written] == solved
    assert summary["chains"]["average_length"]["mean"] == sum(solved) / 4
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert [row.video for row in rows if row.position == 0] == ["videos/000000.mp4", None, None, None]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": ("open_drawer",)}, "--tasks: expected none for CALVIN"),
        ({"policy": "expert"}, "no scripted experts"),
        ({"cameras": ("corner2",)}, "expected cameras of calvin"),
        ({"episodes": 1001}, "at most CALVIN's 1000 chains"),
    ],
)
def test_what_does_not_fit_calvin_is_the_users_mistake(
    on_ray: None, tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(settings_for(tmp_path, **wrong))
    assert list(tmp_path.iterdir()) == []
