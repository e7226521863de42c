"""Sharding changes where the weights lie and nothing else; the full state moves between numbers of workers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from process_group import process_group, run_in_group
from sharded_training import Scenario, fresh, train_alone, train_sharded
from torch import nn

from vpp.train.fsdp import shard_model
from vpp.video.recompute import unet_units
from vpp.video.svd import unet_from_scratch

Trained = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Losses and full states: of a worker alone, of two, and each going on with what the other began."""
    folder = tmp_path_factory.mktemp("fsdp")
    on_two = [
        Scenario("two", (0, 3)),
        Scenario("begun by two", (0, 1)),
        Scenario("ended by two", (1, 3), resume="begun by one"),
        Scenario("bf16", (0, 2), precision="bf16"),
        Scenario("lora", (0, 2), lora=True),
    ]
    before, after = Scenario("begun by one", (0, 1)), Scenario("ended by one", (1, 3), resume="begun by two")
    with process_group(0, 1, folder / "meeting before"):
        train_sharded(0, 1, folder, [before])
    run_in_group(train_sharded, 2, folder / "meeting", folder, on_two)
    with process_group(0, 1, folder / "meeting after"):
        train_sharded(0, 1, folder, [after])
    return {run.name: torch.load(folder / run.name, weights_only=True) for run in [before, *on_two, after]}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.slow
def test_two_workers_train_the_same_weights_as_one_and_hold_half(trained: Trained) -> None:
    losses, weights = train_alone(3)
    start = fresh().state_dict()
    assert max(float((weights[name] - start[name]).abs().max()) for name in start) > 1e-3
    found = trained["two"]
    assert found["losses"] == pytest.approx(losses, rel=1e-4)
    assert_same(found["model"], weights)
    num_parameters = sum(tensor.numel() for tensor in start.values())
    assert found["held"] == pytest.approx(num_parameters / 2, rel=0.02)  # scalars lie on one worker


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("begun by one", "ended by two"), ("begun by two", "ended by one")])
def test_the_full_state_goes_on_with_another_number_of_workers(trained: Trained, first: str, second: str) -> None:
    losses, weights = train_alone(3)
    assert set(trained[first]["optimizer"]["state"]) == set(trained[first]["model"])
    assert trained[first]["losses"] + trained[second]["losses"] == pytest.approx(losses, rel=1e-4)
    assert_same(trained[second]["model"], weights)


@pytest.mark.slow
def test_bf16_computes_close_to_fp32_and_keeps_fp32_weights(trained: Trained) -> None:
    losses, _ = train_alone(2)
    found = trained["bf16"]
    assert found["losses"] == pytest.approx(losses, rel=0.03)
    assert found["losses"] != pytest.approx(losses, rel=1e-6)
    assert {tensor.dtype for tensor in found["model"].values()} == {torch.float32}


@pytest.mark.slow
def test_adapters_alone_train_on_a_sharded_frozen_model(trained: Trained) -> None:
    losses, weights = train_alone(2, lora=True)
    found = trained["lora"]
    assert found["losses"] == pytest.approx(losses, rel=1e-4)
    assert_same(found["model"], weights)
    assert all(".lora_" in name for name in found["optimizer"]["state"])


def test_no_unit_holds_more_than_a_fifteenth_of_the_full_model() -> None:
    with torch.device("meta"):
        unet = unet_from_scratch("svd")
    sizes = [sum(parameter.numel() for parameter in unit.parameters()) for unit in unet_units(unet)]
    total = sum(parameter.numel() for parameter in unet.parameters())
    assert max(sizes) < total / 15
    assert sum(sizes) > 0.95 * total
    assert unet_units(nn.Linear(2, 2)) == []


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="bf16 or fp32, found fp16"):
        shard_model(fresh(), "fp16", torch.device("cpu"))
