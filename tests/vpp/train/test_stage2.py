"""Stage 2 from episodes to a policy's folder that acts, and the mistakes it is told before it begins."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from episode_dataset import write_episode_dataset
from video_model import write_video_model

from runtime.settings import load_settings
from schemas.errors import UsageError
from vpp.policy.policy import VideoPredictionPolicy
from vpp.policy.policy_folder import load_policy_folder
from vpp.train.checkpoint import read_latest_checkpoint
from vpp.train.run_log import read_steps
from vpp.train.stage2 import run_stage2, train_here
from vpp.train.stage2_settings import Stage2Settings, preset_settings

OPTIONS = (
    "--preset tiny --train.steps 4 --train.batch-size 5 --train.micro-batch-size 3 --train.log-every 2 "
    "--train.checkpoint-every 2 --train.validate-every 2 --train.precision fp32 --validation.num-windows 5 "
    "--validation.batch-size 2 --sampler.num-steps 2 --loading.num-actions 4 --loading.validation-fraction 0.2"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_video_model(folder)
    return folder


@pytest.fixture(scope="module")
def data(model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("data"))
    codec = json.loads((model / "model" / "vpp.json").read_text())["latent_codec"]
    write_episode_dataset(url, {"blocks": 4, "drawers": 6}, latent_codec=codec)
    return url


def settings(data: object, model: object, output: object, options: str = OPTIONS, **changes: object) -> Stage2Settings:
    argv = f"--data {data} --video-model {model} --output {output} {options}".split()
    return dataclasses.replace(load_settings(Stage2Settings, "stage2", argv, defaults_for=preset_settings), **changes)


@pytest.fixture(scope="module")
def run(data: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run")
    with contextlib.chdir(output.parent):  # workers of Ray Train run in another folder
        outcome = run_stage2(settings(os.path.relpath(data), os.path.relpath(model), output.name))
    assert (outcome.step, outcome.is_finished) == (4, True)
    return output


def observation(tasks: list[str]) -> dict[str, object]:
    random = np.random.default_rng(0)
    images = {
        f"observation.images.{camera}": random.integers(0, 256, (len(tasks), 256, 256, 3), np.uint8)
        for camera in ("front", "wrist")
    }
    return {**images, "task": tasks}


def test_the_averaged_weights_are_the_policy(run: Path) -> None:
    checkpoint = read_latest_checkpoint(str(run))
    assert checkpoint is not None
    folder = load_policy_folder(str(run / "policy"))
    for name, parameter in folder.network.named_parameters():
        assert torch.equal(parameter, checkpoint.tensors["ema"][name])
        assert not torch.equal(parameter, checkpoint.tensors["weights"][name])
    assert folder.config.trained_by.startswith("4 steps, commit ")
    assert set(folder.action_normalisers) == {"blocks", "drawers"}


def test_a_run_tells_its_steps_and_validation(run: Path) -> None:
    steps = read_steps(str(run))
    assert steps["step"].to_pylist() == [0, 1, 2, 3]
    assert set(steps["datasets"].to_pylist()[0]) <= {"blocks", "drawers"}
    checkpoint = read_latest_checkpoint(str(run))
    assert checkpoint is not None
    metrics = checkpoint.info.metrics
    assert {"val/loss", "val/action_mse", "val/action_mse_constant", "val/action_gain_db"} <= set(metrics)


def test_the_policy_acts_in_the_units_of_its_dataset(run: Path) -> None:
    policy = VideoPredictionPolicy.load(str(run / "policy"), dataset="drawers", device="cpu")
    chunk = policy.predict_action_chunk(observation(["task 0", "task 1"]))
    assert chunk.shape == (2, 4, 4)
    assert chunk.isfinite().all()
    folder = load_policy_folder(str(run / "policy"))
    other = VideoPredictionPolicy.load(str(run / "policy"), dataset="blocks", device="cpu")
    again = other.predict_action_chunk(observation(["task 0", "task 1"]))
    normalised = [
        folder.action_normalisers[name].normalise(actions) for name, actions in (("drawers", chunk), ("blocks", again))
    ]
    torch.testing.assert_close(*normalised)
    assert not torch.equal(chunk, again)


def test_actions_are_carried_out_one_by_one_and_after_a_reset_alike(run: Path) -> None:
    policy = VideoPredictionPolicy.load(str(run / "policy"), dataset="drawers", device="cpu")
    chunk = policy.predict_action_chunk(observation(["task 0"]))
    policy.reset()
    acted = [policy.select_action(observation(["task 0"])) for _ in range(5)]
    assert torch.equal(torch.stack(acted[:4], 1), chunk)
    assert not torch.equal(acted[4], chunk[:, 0])  # the second chunk begins with other noise
    policy.reset()
    assert torch.equal(policy.select_action(observation(["task 0"])), chunk[:, 0])


def test_a_policy_replans_before_its_chunk_ends_where_it_is_told_to(run: Path) -> None:
    folder = load_policy_folder(str(run / "policy"))
    sooner = dataclasses.replace(
        folder.config, sampler=dataclasses.replace(folder.config.sampler, num_executed=1, seed=None)
    )
    loaded = VideoPredictionPolicy.load(str(run / "policy"), dataset="drawers", device="cpu")
    policy = VideoPredictionPolicy(
        dataclasses.replace(folder, config=sooner), loaded._perception, loaded._text_encoder, "drawers"
    )
    chunks = [policy.select_action(observation(["task 0"])) for _ in range(2)]
    assert not torch.equal(*chunks)


def test_a_policy_names_the_video_model_that_it_misses(run: Path, tmp_path: Path) -> None:
    write_video_model(tmp_path, seed=1)
    with pytest.raises(UsageError, match="expected the video model that it was trained with"):
        VideoPredictionPolicy.load(str(run / "policy"), dataset="blocks", device="cpu", video_model=str(tmp_path))
    with pytest.raises(UsageError, match=r"dataset: expected one whose actions the policy knows \(blocks, drawers\)"):
        VideoPredictionPolicy.load(str(run / "policy"), device="cpu")


def test_a_finished_run_has_nothing_to_do(data: str, model: Path, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (run / "checkpoints").rglob("*")}
    assert run_stage2(settings(data, model, run)).is_finished
    assert before == {path: path.stat().st_mtime_ns for path in (run / "checkpoints").rglob("*")}


def test_a_stopped_training_ends_with_the_bits_of_one_that_was_not(data: str, model: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_here(settings(data, model, whole))
    train_here(settings(data, model, parts, OPTIONS.replace("--train.steps 4", "--train.steps 2")))
    train_here(settings(data, model, parts))
    one, other = read_steps(str(whole)), read_steps(str(parts))
    for column in ("sample_ids", "sigmas", "losses", "grad_norm"):
        assert one[column].to_pylist() == other[column].to_pylist(), column


@pytest.mark.parametrize(
    "options",
    [
        "--features.encoder vae", "--features.encoder random", "--video-former.kind 2d", "--video-former.kind none",
        "--features.aggregate last", "--features.num-steps 2", "--features.future-frames one", "--features.blocks 3",
        "--loading.cameras wrist", "--loading.data-fraction 0.5", "--loading.proprio", "--no-cache-features", "--train.precision bf16",
        "--denoiser.compat.causal-cross-attention --denoiser.compat.no-action-positions",
    ],
)  # fmt: skip
def test_every_comparison_is_one_setting(data: str, model: Path, tmp_path: Path, options: str) -> None:
    short = OPTIONS.replace("--train.steps 4", "--train.steps 1").replace(
        "--train.validate-every 2", "--train.validate-every 0"
    )
    assert train_here(settings(data, model, tmp_path, f"{short} {options}")).is_finished
    policy = VideoPredictionPolicy.load(str(tmp_path / "policy"), dataset="blocks", device="cpu")
    seen = observation(["task 0"]) | {"observation.state": np.zeros((1, 3), np.float32)}
    assert policy.predict_action_chunk(seen).shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--loading.cameras top", "cameras: expected top in every episode, found front, wrist"),
        ("--loading.mixture kitchens=1", "kitchens"),
        ("--features.blocks 7", "expected up-blocks from 0 to 3|expected an up-block from 0 to 3"),
        ("--text-encoder /nowhere", "--text-encoder /nowhere"),
        ("--codec nowhere", "nowhere"),
    ],
)
def test_mistakes_are_told_before_training(data: str, model: Path, tmp_path: Path, options: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run_stage2(settings(data, model, tmp_path, f"{OPTIONS} {options}"))
    assert not (tmp_path / "checkpoints").exists()


def test_episodes_of_another_codec_are_refused(model: Path, tmp_path: Path) -> None:
    write_episode_dataset(str(tmp_path / "data"), {"blocks": 2}, latent_codec="vae@0123456789ab")
    with pytest.raises(UsageError, match=r"expected episodes of the video model's latent codec .*vae@0123456789ab"):
        run_stage2(settings(tmp_path / "data", model, tmp_path / "run"))


def test_episodes_of_another_frame_size_are_refused(model: Path, tmp_path: Path) -> None:
    description = json.loads((model / "model" / "vpp.json").read_text())
    write_episode_dataset(str(tmp_path / "data"), {"blocks": 4}, latent_codec=description["latent_codec"])
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "model" / "vpp.json").write_text(json.dumps(description | {"frame_size": 128}))
    with pytest.raises(UsageError, match=r"expected frames of 128 pixels.*found 256.*--video.frame-size 128"):
        train_here(settings(tmp_path / "data", tmp_path / "model", tmp_path / "run"))


def test_episodes_of_another_text_encoder_are_refused(model: Path, tmp_path: Path) -> None:
    codec = json.loads((model / "model" / "vpp.json").read_text())["latent_codec"]
    write_episode_dataset(str(tmp_path / "data"), {"blocks": 2}, latent_codec=codec, text_encoder="clip@0123456789ab")
    with pytest.raises(UsageError, match="expected episodes of the video model's text encoder 'tiny"):
        run_stage2(settings(tmp_path / "data", model, tmp_path / "run"))


def test_the_lines_of_the_readme_act(data: str, model: Path, tmp_path: Path) -> None:
    short = OPTIONS.replace("--train.steps 4", "--train.steps 1").replace(
        "--train.validate-every 2", "--train.validate-every 0"
    )
    train_here(settings(data, model, tmp_path, f"{short} --loading.cameras front --loading.mixture blocks=1"))
    readme = (Path(__file__).resolve().parents[3] / "README.md").read_text()
    (block,) = [text for text in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "policy.reset()" in text]
    shown: dict[str, Any] = {}
    exec(block.replace("out/demo/stage2", str(tmp_path)).replace("corner2", "front"), shown)
    assert (tuple(shown["action"].shape), tuple(shown["chunk"].shape)) == ((1, 4), (1, 4, 4))


def test_the_schedule_moves_unless_it_is_inert_as_published(data: str, model: Path, tmp_path: Path) -> None:
    options = f"{OPTIONS} --train.optimizer.schedule tri_stage --train.optimizer.warmup-steps 0 --features.encoder vae"
    train_here(settings(data, model, tmp_path / "moves", options))
    train_here(settings(data, model, tmp_path / "inert", f"{options} --denoiser.compat.lr-schedule-inert"))
    moves, inert = (read_steps(str(tmp_path / name))["learning_rate"].to_pylist() for name in ("moves", "inert"))
    assert moves[0] == pytest.approx(1e-4)  # a tenth: with 4 steps the warm-up is the first
    assert moves[1:] == sorted(moves[1:], reverse=True)
    assert moves[-1] < moves[1] / 2
    assert set(inert) == {max(inert)}
    assert max(inert) == 1e-3


def test_a_dataset_that_is_only_held_out_is_named(model: Path, tmp_path: Path) -> None:
    codec = json.loads((model / "model" / "vpp.json").read_text())["latent_codec"]
    write_episode_dataset(str(tmp_path / "data"), {"blocks": 2}, latent_codec=codec)
    write_episode_dataset(str(tmp_path / "data"), {"rooms": 2}, latent_codec=codec, split="validation")
    with pytest.raises(UsageError, match="found only held-out ones in rooms"):
        run_stage2(settings(tmp_path / "data", model, tmp_path / "run"))
