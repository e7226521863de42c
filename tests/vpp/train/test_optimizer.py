from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_task import ToyTask

from schemas.errors import UsageError
from vpp.train.ema import Ema
from vpp.train.engine import TrainSettings, train
from vpp.train.optimizer import OptimizerSettings, learning_rate, make_optimizer
from vpp.train.run_log import read_steps
from vpp.train.worker import Worker


def test_all_parameters_are_in_one_group_and_fused() -> None:
    module = torch.nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    optimizer = make_optimizer(module.parameters(), OptimizerSettings())
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]
    assert optimizer.defaults["fused"]
    assert (optimizer.defaults["lr"], optimizer.defaults["betas"], optimizer.defaults["weight_decay"]) == (
        5e-6,
        (0.9, 0.999),
        0,
    )


def test_eight_bit_moments_are_saved_and_restored_to_the_same_bits(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra adam8bit is not installed")
    settings = {"batch_size": 4, "log_every": 1, "checkpoint_every": 2, "validate_every": 0, "precision": "fp32"}
    eight_bit = OptimizerSettings(learning_rate=1e-2, kind="adamw8bit")
    for name, stops in (("whole", (6,)), ("resumed", (2, 5, 6))):
        for steps in stops:
            train(
                WideToy(4), TrainSettings(steps=steps, optimizer=eight_bit, **settings), Worker(), str(tmp_path / name)
            )  # type: ignore[arg-type]
    whole, resumed = read_steps(str(tmp_path / "whole")), read_steps(str(tmp_path / "resumed"))
    assert whole["losses"].equals(resumed["losses"])


class WideToy(ToyTask):
    """bitsandbytes keeps moments of fewer than 4,096 numbers in 32 bits."""

    def __init__(self, batch_size: int) -> None:
        super().__init__(batch_size)
        self.module = torch.nn.Sequential(torch.nn.Linear(6, 1024), torch.nn.Tanh(), torch.nn.Linear(1024, 2))


def test_eight_bits_without_the_package_are_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UsageError, match="install the extra adam8bit"):
        make_optimizer(torch.nn.Linear(2, 2).parameters(), OptimizerSettings(kind="adamw8bit"))


def test_the_average_follows_its_formula_and_steps_aside() -> None:
    module = torch.nn.Linear(2, 1, bias=False)
    ema = Ema(module, decay=0.5)
    expected = module.weight.detach().clone()
    for update in range(4):
        with torch.no_grad():
            module.weight.add_(1.0)
        ema.update(module, update)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * module.weight.detach()
    trained = module.weight.detach().clone()
    torch.testing.assert_close(ema.averages["weight"], expected)
    with ema.applied(module):
        torch.testing.assert_close(module.weight.detach(), expected)
    assert torch.equal(module.weight, trained)


def test_the_constant_rate_does_not_depend_on_the_length_of_the_run() -> None:
    settings = OptimizerSettings(learning_rate=2.0, warmup_steps=4)
    for total_steps in (1, 10, 10_000):
        assert [learning_rate(settings, step, total_steps) for step in (0, 3, 9)] == [0.5, 2.0, 2.0]


@pytest.mark.parametrize("total_steps", [7, 100, 50_000])
def test_the_three_stages_grow_stay_and_fall_and_then_keep_the_last_rate(total_steps: int) -> None:
    settings = OptimizerSettings(
        learning_rate=3.0, schedule="tri_stage", phase_ratios=(0.2, 0.3, 0.5), start_scale=0.1, final_scale=0.01
    )
    rates = [learning_rate(settings, step, total_steps) for step in range(total_steps + 1)]
    assert rates[0] == pytest.approx(0.3)
    assert rates[-1] == pytest.approx(0.03)
    assert learning_rate(settings, 3 * total_steps, total_steps) == rates[-1]
    growing = [rate for step, rate in enumerate(rates) if step < 0.2 * total_steps]
    staying = [rate for step, rate in enumerate(rates) if 0.2 * total_steps <= step < 0.5 * total_steps]
    falling = [rate for step, rate in enumerate(rates) if step >= 0.5 * total_steps]
    assert growing == sorted(set(growing))
    assert set(staying) == {3.0}
    assert falling == sorted(set(falling), reverse=True)


@pytest.mark.parametrize("phase_ratios", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)])
def test_a_stage_may_be_missing(phase_ratios: tuple[float, float, float]) -> None:
    settings = OptimizerSettings(learning_rate=1.0, schedule="tri_stage", phase_ratios=phase_ratios)
    assert all(0 < learning_rate(settings, step, 10) <= 1 for step in range(12))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phase_ratios": (0.5, 0.5, 0.5)}, "sum to 1"),
        ({"phase_ratios": (-0.1, 0.2, 0.9)}, "at least 0"),
        ({"start_scale": 1.5}, "start_scale"),
        ({"final_scale": -1.0}, "final_scale"),
        ({"schedule": "tri_stage", "warmup_steps": 3}, "warmup_steps 0"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizerSettings(**change)


def test_the_loop_applies_the_schedule_and_a_resumed_run_goes_on_with_it(tmp_path: Path) -> None:
    settings = OptimizerSettings(learning_rate=1e-2, schedule="tri_stage", phase_ratios=(0.4, 0.2, 0.4))
    length = {"batch_size": 2, "log_every": 1, "checkpoint_every": 4, "validate_every": 0, "precision": "fp32"}
    wanted = TrainSettings(steps=10, optimizer=settings, **length)  # type: ignore[arg-type]
    train(ToyTask(2), wanted, Worker(), str(tmp_path / "whole"))
    signals = iter(["go_on"] * 4 + ["stop"])
    stopped = train(ToyTask(2), wanted, Worker(signal=lambda: next(signals)), str(tmp_path / "resumed"))
    assert (stopped.step, stopped.is_finished) == (5, False)
    train(ToyTask(2), wanted, Worker(), str(tmp_path / "resumed"))
    whole, resumed = read_steps(str(tmp_path / "whole")), read_steps(str(tmp_path / "resumed"))
    assert whole["learning_rate"].to_pylist() == [learning_rate(settings, step, 10) for step in range(10)]
    assert whole["losses"].equals(resumed["losses"])
