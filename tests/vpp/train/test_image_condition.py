"""Stage 1 with an image condition: another camera's picture is learnt from, and belongs to the run and to the model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from small_dataset import clip_video
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from video_dataset import write_video_dataset

from runtime.settings import load_settings
from schemas.errors import UsageError
from vpp.train.checkpoint import read_latest_checkpoint
from vpp.train.run_log import read_steps
from vpp.train.stage1 import run_stage1, train_here
from vpp.train.stage1_settings import Stage1Settings, preset_settings
from vpp.video.svd import load_denoiser

OPTIONS = (
    "--preset tiny --train.batch-size 2 --train.micro-batch-size 1 --train.log-every 1 --train.checkpoint-every 1 "
    "--train.precision fp32 --validation.num-clips 1 --validation.num-videos 1 --validation.num-steps 1 "
    "--validation.sigmas 1.0 --model.image-condition --image-encoder tiny"
)
STAND_IN = "tiny (random CLIP, seed 0)"
CAMERAS = ("gripper", "static")


def settings(
    data: object, output: object, steps: int, options: str = OPTIONS, validate_every: int = 0
) -> Stage1Settings:
    argv = f"--data {data} --output {output} --train.steps {steps} --train.validate-every {validate_every} {options}"
    return load_settings(Stage1Settings, "stage1", argv.split(), defaults_for=preset_settings)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("data"))
    write_video_dataset(url, {"blocks": 8}, video=clip_video(0), cameras=CAMERAS)
    return url


@pytest.fixture(scope="module")
def run(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run")
    train_here(settings(data, output, steps=2, validate_every=2))
    return output


def test_a_run_that_is_resumed_has_the_same_bits(data: str, run: Path, tmp_path: Path) -> None:
    train_here(settings(data, tmp_path, steps=1))
    train_here(settings(data, tmp_path, steps=2, validate_every=2))
    assert read_steps(str(tmp_path)).equals(read_steps(str(run)))
    there, here = (read_latest_checkpoint(str(url)) for url in (run, tmp_path))
    assert there is not None
    assert here is not None
    assert there.info.metrics == here.info.metrics
    assert {"val/loss", "val/latent_gain_db"} <= set(here.info.metrics)
    for group, tensors in there.tensors.items():
        assert all(torch.equal(tensor, here.tensors[group][name]) for name, tensor in tensors.items())


def test_the_model_tells_its_image_encoder(run: Path) -> None:
    _, description = load_denoiser(str(run / "model"))
    assert description.denoiser.image_condition
    assert description.image_encoder == STAND_IN


def test_what_the_other_camera_shows_is_learnt_from(run: Path, tmp_path: Path) -> None:
    write_video_dataset(str(tmp_path / "data"), {"blocks": 8}, video=clip_video(170), cameras=CAMERAS)
    train_here(settings(tmp_path / "data", tmp_path / "run", steps=1))
    known, other = (read_steps(str(url)) for url in (run, tmp_path / "run"))
    assert known["sample_ids"][0] == other["sample_ids"][0]
    assert not set(known["losses"][0].as_py()) & set(other["losses"][0].as_py())


def test_a_model_is_trained_further_with_its_own_image_encoder_alone(data: str, run: Path, tmp_path: Path) -> None:
    further = OPTIONS.replace("--preset tiny", f"--base {run}/model")
    train_here(settings(data, tmp_path / "run", 1, further))
    assert load_denoiser(str(tmp_path / "run" / "model"))[1].image_encoder == STAND_IN
    config = CLIPVisionConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=1)
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "other")
    other = further.replace("--image-encoder tiny", f"--image-encoder {tmp_path}/other")
    with pytest.raises(UsageError) as raised:
        run_stage1(settings(data, tmp_path / "again", 1, other))
    assert f"/other: expected the model's image encoder {STAND_IN!r}, found" in str(raised.value)


def test_a_run_goes_on_only_with_its_image_encoder(data: str, tmp_path: Path) -> None:
    config = CLIPVisionConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=1)
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "other")
    begun = settings(data, tmp_path / "run", 1)
    train_here(begun)
    with pytest.raises(UsageError, match="expected image_encoder"):
        train_here(dataclasses.replace(begun, image_encoder=str(tmp_path / "other")))


@pytest.mark.parametrize(
    ("cameras", "encoder", "message"),
    [
        (("front",), "tiny", "found no other in 4 of blocks"),
        (CAMERAS, "/no/such/clip", "--image-encoder /no/such/clip: expected a hub id, a local CLIP folder or tiny"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_training(
    tmp_path: Path, cameras: tuple[str, ...], encoder: str, message: str
) -> None:
    write_video_dataset(str(tmp_path / "data"), {"blocks": 4}, cameras=cameras)
    with pytest.raises(UsageError) as raised:
        run_stage1(
            settings(tmp_path / "data", tmp_path / "run", 1, OPTIONS.replace("encoder tiny", f"encoder {encoder}"))
        )
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()
