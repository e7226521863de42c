"""Sharding changes where the weights lie and nothing else; the full state moves between numbers of workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sharded_training import fresh, train_alone, train_sharded
from torch import nn
from torch.multiprocessing import spawn

from vpp.train.fsdp import shard_model, shard_units
from vpp.video.svd import unet_from_scratch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from more, and lose much where the cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sharded(
    folder: Path, world_size: int, steps: range, precision: str = "fp32", resume: str = "", lora: bool = False
) -> dict[str, Any]:
    name = f"{world_size}-{steps.start}-{precision}-{lora}.pt"
    spawn(train_sharded, (world_size, str(folder), steps, precision, resume, name, lora), nprocs=world_size)
    result: dict[str, Any] = torch.load(folder / name, weights_only=True) | {"name": name}
    return result


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_two_workers_train_the_same_weights_as_one_and_hold_half(tmp_path: Path) -> None:
    losses, weights = train_alone(range(3))
    start = fresh().state_dict()
    assert max(float((weights[name] - start[name]).abs().max()) for name in start) > 1e-3
    found = sharded(tmp_path, 2, range(3))
    assert found["losses"] == pytest.approx(losses, rel=1e-4)
    assert_same(found["model"], weights)
    num_parameters = sum(tensor.numel() for tensor in start.values())
    assert found["held"] == pytest.approx(num_parameters / 2, rel=0.02)  # one element tensors lie on one worker


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_full_state_goes_on_with_another_number_of_workers(tmp_path: Path, world_size: int) -> None:
    losses, weights = train_alone(range(3))
    begun = sharded(tmp_path, 3 - world_size, range(1))
    assert set(begun["optimizer"]["state"]) == set(begun["model"])
    found = sharded(tmp_path, world_size, range(1, 3), resume=begun["name"])
    assert begun["losses"] + found["losses"] == pytest.approx(losses, rel=1e-4)
    assert_same(found["model"], weights)


def test_bf16_computes_close_to_fp32_and_keeps_fp32_weights(tmp_path: Path) -> None:
    losses, _ = train_alone(range(2))
    found = sharded(tmp_path, 2, range(2), precision="bf16")
    assert found["losses"] == pytest.approx(losses, rel=0.03)
    assert found["losses"] != pytest.approx(losses, rel=1e-6)
    assert {tensor.dtype for tensor in found["model"].values()} == {torch.float32}


def test_adapters_alone_train_on_a_sharded_frozen_model(tmp_path: Path) -> None:
    losses, weights = train_alone(range(2), lora=True)
    found = sharded(tmp_path, 2, range(2), lora=True)
    assert found["losses"] == pytest.approx(losses, rel=1e-4)
    assert_same(found["model"], weights)
    assert all(".lora_" in name for name in found["optimizer"]["state"])


def test_no_unit_holds_more_than_a_twentieth_of_the_full_model() -> None:
    with torch.device("meta"):
        unet = unet_from_scratch("svd")
    sizes = [sum(parameter.numel() for parameter in unit.parameters()) for unit in shard_units(unet)]
    total = sum(parameter.numel() for parameter in unet.parameters())
    assert max(sizes) < total / 15
    assert sum(sizes) > 0.95 * total
    assert shard_units(nn.Linear(2, 2)) == []


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="bf16 or fp32, found fp16"):
        shard_model(fresh(), "fp16", torch.device("cpu"))
