from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from toy_task import ToyTask

from schemas.errors import UsageError
from vpp.train.ema import Ema
from vpp.train.engine import TrainSettings, train
from vpp.train.optimizer import OptimizerSettings, make_optimizer
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
