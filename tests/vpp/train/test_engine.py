from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_task import ToyTask

from schemas.errors import UsageError
from vpp.train.checkpoint import find_checkpoints, read_latest_checkpoint
from vpp.train.engine import NonFiniteLoss, TrainSettings, train
from vpp.train.optimizer import OptimizerSettings
from vpp.train.run_log import read_steps
from vpp.train.worker import Worker

SETTINGS = TrainSettings(
    steps=12, batch_size=6, micro_batch_size=4, precision="fp32", log_every=3, checkpoint_every=4, validate_every=4,
    ema_decay=0.9, optimizer=OptimizerSettings(learning_rate=1e-2, warmup_steps=3),
)  # fmt: skip


def settings(**changes: object) -> TrainSettings:
    return dataclasses.replace(SETTINGS, **changes)


def trained(url: str, worker: Worker | None = None, **changes: object) -> ToyTask:
    task = ToyTask(SETTINGS.batch_size)
    train(task, settings(**changes), worker or Worker(), url, {"seed": 0})
    return task


def weights(task: ToyTask) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in task.module.parameters()])


def test_it_learns(tmp_path: Path) -> None:
    trained(str(tmp_path), steps=60)
    losses = read_steps(str(tmp_path))["loss"].to_numpy()
    assert losses[-5:].mean() < losses[:5].mean() / 2


def test_a_run_that_was_stopped_at_any_step_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = trained(str(tmp_path / "whole"))
    for stop_after in (1, 5, 8):
        url = str(tmp_path / f"stopped{stop_after}")
        trained(url, steps=stop_after, validate_every=0)
        resumed = trained(url)
        assert torch.equal(weights(whole), weights(resumed))
        assert read_steps(url).equals(read_steps(str(tmp_path / "whole")))
        last, other = read_latest_checkpoint(url), read_latest_checkpoint(str(tmp_path / "whole"))
        assert last
        assert other
        for group, tensors in other.tensors.items():
            for name, tensor in tensors.items():
                assert torch.equal(last.tensors[group][name], tensor), (group, name)


def test_a_checkpoint_holds_weights_average_and_moments(tmp_path: Path) -> None:
    task = trained(str(tmp_path))
    checkpoint = read_latest_checkpoint(str(tmp_path))
    assert checkpoint is not None
    assert torch.equal(checkpoint.tensors["weights"]["0.weight"], task.module[0].weight)
    assert not torch.equal(checkpoint.tensors["ema"]["0.weight"], task.module[0].weight)
    assert {name.partition(".")[0] for name in checkpoint.tensors["optimizer"]} == {"exp_avg", "exp_avg_sq", "step"}
    assert checkpoint.state["settings"]["optimizer"]["learning_rate"] == 1e-2
    assert checkpoint.state["step"] == 12
    assert {"torch", "python"} <= set(checkpoint.state["versions"])


def test_the_size_of_a_micro_batch_changes_no_result(tmp_path: Path) -> None:
    runs = [weights(trained(str(tmp_path / str(size)), micro_batch_size=size)) for size in (6, 4, 1)]
    for run in runs[1:]:
        torch.testing.assert_close(run, runs[0], rtol=1e-5, atol=1e-6)


def test_the_average_is_what_is_validated(tmp_path: Path) -> None:
    task = trained(str(tmp_path))
    assert task.validated == [4, 8, 12]
    checkpoint = read_latest_checkpoint(str(tmp_path))
    assert checkpoint is not None
    expected = float(checkpoint.tensors["ema"]["0.weight"].square().mean())
    assert checkpoint.info.metrics["val/loss"] == pytest.approx(expected, rel=1e-6)


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    trained(str(tmp_path), steps=40, keep_last=2, keep_best=1)
    kept, skipped = find_checkpoints(str(tmp_path))
    assert [info.step for info in kept][-2:] == [36, 40]
    assert len(kept) <= 3
    assert not skipped


def test_a_request_to_stop_leaves_a_checkpoint_at_that_step(tmp_path: Path) -> None:
    answers = iter(["go_on", "go_on", "stop"])
    task = ToyTask(SETTINGS.batch_size)
    outcome = train(task, SETTINGS, Worker(signal=lambda: next(answers)), str(tmp_path), {"seed": 0})  # type: ignore[arg-type, return-value]
    assert (outcome.step, outcome.is_finished) == (6, False)
    assert [info.step for info in find_checkpoints(str(tmp_path))[0]] == [4, 6]
    assert len(read_steps(str(tmp_path))) == 6


def test_a_request_to_save_goes_on_after_it(tmp_path: Path) -> None:
    answers = iter(["save", *["go_on"] * 20])
    train(ToyTask(6), SETTINGS, Worker(signal=lambda: next(answers)), str(tmp_path), {})  # type: ignore[arg-type, return-value]
    assert [info.step for info in find_checkpoints(str(tmp_path))[0]] == [4, 8, 12]
    assert [int(path.stem) for path in sorted((tmp_path / "steps").iterdir())] == [0, 3, 4, 8]


def test_nan_stops_the_run_and_names_step_and_samples(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match=r"step 6: .* samples: 6-2;"):
        train(ToyTask(6, nan_at=(6, 2)), SETTINGS, Worker(), str(tmp_path), {})
    checkpoint = read_latest_checkpoint(str(tmp_path))
    assert checkpoint is not None
    assert checkpoint.info.step == 4
    assert all(tensor.isfinite().all() for group in checkpoint.tensors.values() for tensor in group.values())


def test_a_run_goes_on_only_with_what_it_was_begun_with(tmp_path: Path) -> None:
    trained(str(tmp_path), steps=4)
    with pytest.raises(UsageError, match="expected seed 0 as the run was begun, found 1"):
        train(ToyTask(6), SETTINGS, Worker(), str(tmp_path), {"seed": 1})
    with pytest.raises(UsageError, match=r"at most --train.steps 2, found a run that has 4"):
        trained(str(tmp_path), steps=2)


def test_an_unreadable_checkpoint_is_told_and_the_one_before_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = trained(str(tmp_path / "whole"))
    url = tmp_path / "run"
    trained(str(url), steps=8)
    damaged = url / "checkpoints" / "step_00000008" / "weights.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-3] ^= 1
    damaged.write_bytes(content)
    resumed = trained(str(url))
    assert "step_00000008" in caplog.text
    assert torch.equal(weights(resumed), weights(whole))


def test_curves_tell_loss_by_noise_level_and_by_dataset(tmp_path: Path) -> None:
    told: list[int] = []
    trained(str(tmp_path), Worker(progress=lambda step, metrics: told.append(step)))
    curves = EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    tags = curves.Tags()["scalars"]
    assert {"train/loss", "train/grad_norm", "speed/samples_per_s", "speed/data_wait_share", "memory/peak_gb"} <= set(
        tags
    )
    assert {"train_loss_by_dataset/even", "train_loss_by_sigma/sigma<0.5", "train_loss_by_sigma/sigma>=8"} <= set(tags)
    assert [event.step for event in curves.Scalars("train/loss")] == [3, 4, 6, 8, 9, 12]
    steps = read_steps(str(tmp_path))
    window = np.mean([steps["loss"][row].as_py() for row in range(3)])
    assert curves.Scalars("train/loss")[0].value == pytest.approx(window, rel=1e-5)
    assert set(told) == {3, 4, 6, 8, 9, 12}


def test_a_step_does_not_wait_for_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two windows nothing is read back from a tensor."""
    task, reads = ToyTask(6), []
    for name in ("item", "cpu", "numpy", "tolist", "__bool__", "__float__"):
        original = getattr(torch.Tensor, name)

        def counted(self: torch.Tensor, *args: object, original=original, name=name) -> object:
            reads.append(name)
            return original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    train(task, settings(steps=20, log_every=20, checkpoint_every=20, validate_every=0), Worker(), str(tmp_path), {})
    window, reads[:] = len(reads), []
    train(
        ToyTask(6), settings(steps=40, log_every=40, checkpoint_every=40, validate_every=0), Worker(),
        str(tmp_path / "longer"), {},
    )  # fmt: skip
    assert len(reads) == window
