"""Stage 1 from clips to a model's folder, and the mistakes it is told before it begins."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from small_dataset import clip_video
from video_dataset import LATENT_CODEC, TEXT_ENCODER, write_video_dataset

from runtime.settings import load_settings
from schemas.errors import UsageError
from vpp.train.checkpoint import read_latest_checkpoint
from vpp.train.run_log import read_steps
from vpp.train.stage1 import run_stage1, train_here
from vpp.train.stage1_settings import Stage1Settings, preset_settings
from vpp.video.denoiser import DenoiserConfig
from vpp.video.svd import ModelDescription, load_denoiser, save_pipeline, unet_from_scratch

OPTIONS = (
    "--preset tiny --train.steps 4 --train.batch-size 3 --train.micro-batch-size 2 --train.log-every 2 "
    "--train.checkpoint-every 2 --train.validate-every 2 --train.precision fp32 --validation.num-clips 2 "
    "--validation.num-videos 1 --validation.num-steps 2 --validation.sigmas 1.0 10.0"
)


def settings(data: object, output: object, options: str = OPTIONS, **changes: object) -> Stage1Settings:
    argv = f"--data {data} --output {output} {options}".split()
    return dataclasses.replace(load_settings(Stage1Settings, "stage1", argv, defaults_for=preset_settings), **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("data"))
    write_video_dataset(url, {"blocks": 6, "drawers": 6})
    return url


@pytest.fixture(scope="module")
def run(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run")
    with contextlib.chdir(output.parent):  # workers of Ray Train run in another folder
        outcome = run_stage1(settings(os.path.relpath(data), output.name))
    assert (outcome.step, outcome.is_finished) == (4, True)
    return output


def test_the_averaged_weights_are_a_model_that_diffusers_opens(run: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = StableVideoDiffusionPipeline.from_pretrained(str(run / "model"), vae=None)
    denoiser, description = load_denoiser(str(run / "model"))
    checkpoint = read_latest_checkpoint(str(run))
    assert checkpoint is not None
    for name, parameter in denoiser.named_parameters():
        assert torch.equal(parameter, checkpoint.tensors["ema"][name])
        assert torch.equal(parameter, dict(pipeline.unet.named_parameters())[name.removeprefix("unet.")])
    assert (description.text_encoder, description.latent_codec) == (TEXT_ENCODER, LATENT_CODEC)
    assert description.denoiser == denoiser.config
    assert description.trained_by.startswith("4 steps, commit ")


def test_a_run_tells_its_settings_steps_and_validation(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    assert record["settings"]["preset"] == "tiny"
    assert record["commit"]
    assert read_steps(str(run))["step"].to_pylist() == [0, 1, 2, 3]
    checkpoint = read_latest_checkpoint(str(run))
    assert checkpoint is not None
    assert {"val/loss", "val_loss_by_sigma/10", "val/moving_latent_gain_db", "val_loss_by_dataset/blocks"} <= set(
        checkpoint.info.metrics
    )


def test_a_finished_run_has_nothing_to_do(data: str, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (run / "checkpoints").rglob("*")}
    assert run_stage1(settings(data, run)).is_finished
    assert before == {path: path.stat().st_mtime_ns for path in (run / "checkpoints").rglob("*")}


def test_a_worker_alone_trains_the_same_bits_as_under_ray(data: str, run: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # the share of the one worker in `run`
    try:
        train_here(settings(data, tmp_path))
    finally:
        torch.set_num_threads(threads)
    alone, under_ray = read_steps(str(tmp_path)), read_steps(str(run))
    assert alone["sample_ids"].equals(under_ray["sample_ids"])
    torch.testing.assert_close(
        torch.tensor(alone["losses"].to_pylist()), torch.tensor(under_ray["losses"].to_pylist()), rtol=1e-5, atol=1e-6
    )


def test_a_model_that_was_trained_can_be_trained_further_and_keeps_its_way_of_being_called(
    data: str, run: Path, tmp_path: Path
) -> None:
    options = OPTIONS.replace("--preset tiny", f"--base {run}/model --lora-rank 2")
    train_here(settings(data, tmp_path, options))
    before, _ = load_denoiser(str(run / "model"))
    after, _ = load_denoiser(str(tmp_path / "model"))
    assert after.config == before.config
    assert dict(after.named_parameters()).keys() == dict(before.named_parameters()).keys()
    assert any(not torch.equal(a, b) for a, b in zip(after.parameters(), before.parameters(), strict=True))
    checkpoint = read_latest_checkpoint(str(tmp_path))
    assert checkpoint is not None
    assert all("lora" in name for name in checkpoint.tensors["weights"])


def test_frames_are_encoded_in_training_where_a_codec_is_named(tmp_path: Path) -> None:
    write_video_dataset(str(tmp_path / "data"), {"blocks": 4}, video=clip_video(0))
    options = OPTIONS.replace("--train.steps 4", "--train.steps 1").replace(
        "--train.batch-size 3", "--train.batch-size 1"
    )
    options = options.replace("--validation.num-videos 1", "--validation.num-videos 0") + " --codec train"
    options += " --small-codec.steps 2 --small-codec.batch-size 1"
    outcome = run_stage1(settings(tmp_path / "data", tmp_path / "run", options))
    assert outcome.is_finished
    denoiser, description = load_denoiser(str(tmp_path / "run" / "model"))
    pipeline = StableVideoDiffusionPipeline.from_pretrained(str(tmp_path / "run" / "model"))
    assert denoiser.config.scaling_factor == pytest.approx(pipeline.vae.config.scaling_factor)
    assert "codec@" in description.latent_codec


# --- mistakes ----------------------------------------------------------------------------------------------------------

OTHER = "other@ffffffffffff"


def no_data(folder: Path) -> Stage1Settings:
    return settings(folder / "nothing", folder / "run")


def other_text_encoders(folder: Path) -> Stage1Settings:
    write_video_dataset(str(folder / "data"), {"a": 2})
    write_video_dataset(str(folder / "data"), {"b": 2}, text_encoder=OTHER)
    return settings(folder / "data", folder / "run")


def other_codecs(folder: Path) -> Stage1Settings:
    write_video_dataset(str(folder / "data"), {"a": 2})
    write_video_dataset(str(folder / "data"), {"b": 2}, latent_codec=OTHER)
    return settings(folder / "data", folder / "run")


def base_of(folder: Path, description: ModelDescription, **data: object) -> Stage1Settings:
    save_pipeline(str(folder / "base"), unet_from_scratch("tiny"), None, description)
    write_video_dataset(str(folder / "data"), {"a": 4}, **data)  # type: ignore[arg-type]
    return settings(folder / "data", folder / "run", OPTIONS.replace("--preset tiny", f"--base {folder}/base"))


def base_of_another_codec(folder: Path) -> Stage1Settings:
    return base_of(folder, ModelDescription(text_encoder=TEXT_ENCODER, latent_codec=OTHER))


def base_of_another_text_encoder(folder: Path) -> Stage1Settings:
    return base_of(folder, ModelDescription(text_encoder=OTHER, latent_codec=LATENT_CODEC))


def clips_of_another_length(folder: Path) -> Stage1Settings:
    return base_of(folder, ModelDescription(denoiser=DenoiserConfig(num_frames=8)))


def no_base(folder: Path) -> Stage1Settings:
    write_video_dataset(str(folder / "data"), {"a": 2})
    return settings(folder / "data", folder / "run", OPTIONS.replace("--preset tiny", f"--base {folder}"))


def no_selection(folder: Path) -> Stage1Settings:
    write_video_dataset(str(folder / "data"), {"a": 2})
    return settings(folder / "data", folder / "run", OPTIONS + " --loading.selection drawers")


def unknown_dataset(folder: Path) -> Stage1Settings:
    write_video_dataset(str(folder / "data"), {"a": 4})
    return settings(folder / "data", folder / "run", OPTIONS + " --loading.mixture b=1")


def no_output(folder: Path) -> Stage1Settings:
    return dataclasses.replace(settings(folder, folder), output="")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_data, "nothing"),
        (other_text_encoders, f"one text encoder, found '{TEXT_ENCODER}' and '{OTHER}'"),
        (other_codecs, f"one latent codec, found '{OTHER}' and '{LATENT_CODEC}'"),
        (base_of_another_codec, f"model's latent codec '{OTHER}', found clips of '{LATENT_CODEC}'"),
        (base_of_another_text_encoder, f"model's text encoder '{OTHER}', found clips of '{TEXT_ENCODER}'"),
        (clips_of_another_length, "clips of 8 frames as the model's, found 16"),
        (no_base, "expected the folder of a diffusers pipeline"),
        (no_selection, "drawers"),
        (unknown_dataset, "expected datasets that have clips to train on, found b; known: a"),
        (no_output, "--output"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_training(
    tmp_path: Path, make: Callable[[Path], Stage1Settings], message: str
) -> None:
    with pytest.raises(UsageError) as raised:
        run_stage1(make(tmp_path))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("--train.seed 1", "expected seed 0 as the run was begun, found 1"),
        ("--train.batch-size 2", "expected batch_size 3 as the run was begun, found 2"),
        ("--loading.mixture blocks=1", "expected order"),
    ],
)
def test_a_run_goes_on_only_as_it_was_begun(data: str, run: Path, changes: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_stage1(settings(data, run, f"{OPTIONS} {changes}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stage1: {train: {stepz: 3}}", "unknown setting stepz; known: steps"),
        ("stage1: {train: {steps: many}}", "train.steps: expected int, found 'many'"),
        ("stage1: {preset: huge}", "expected one of , tiny, small, svd, found 'huge'"),
        ("stage1: {lora_rank: 4, preset: tiny}", "expected a base, found a preset"),
    ],
)
def test_a_wrong_key_or_value_in_yaml_is_named(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "vpp.yaml"
    config.write_text(text)
    with pytest.raises(UsageError) as raised:
        load_settings(Stage1Settings, "stage1", ["--config", str(config)], defaults_for=preset_settings)
    assert message in str(raised.value)


def test_a_preset_sets_defaults_that_file_and_command_line_override(tmp_path: Path) -> None:
    config = tmp_path / "vpp.yaml"
    config.write_text("stage1: {preset: tiny, train: {steps: 7, optimizer: {beta2: 0.5}}}")
    argv = ["--config", str(config), "--train.log-every", "3"]
    loaded = load_settings(Stage1Settings, "stage1", argv, defaults_for=preset_settings)
    assert (loaded.train.steps, loaded.train.log_every, loaded.train.optimizer.beta2) == (7, 3, 0.5)
    assert loaded.model.anchor == "first_frame"
    assert loaded.train.optimizer.learning_rate == preset_settings(loaded).train.optimizer.learning_rate
    published = load_settings(Stage1Settings, "stage1", [], defaults_for=preset_settings)
    assert published.train.optimizer.learning_rate == 5e-6
    assert published.model.anchor == "zero"
