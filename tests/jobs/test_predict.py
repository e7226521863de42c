"""jobs/predict.py: videos to look at, a record to compare, and mistakes that end with code 2 and one line."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from i3d_stand_in import MeanColours
from PIL import Image
from running import run
from small_dataset import clip_video
from video_dataset import write_video_dataset

from schemas.errors import UsageError
from vpp.video.denoiser import DenoiserConfig
from vpp.video.predict_job import PUBLISHED_TEXT_ENCODER, PredictSettings, _text_encoder_name, predict
from vpp.video.svd import ModelDescription, save_pipeline, unet_from_scratch

STAND_IN_TEXT = "tiny (random CLIP, seed 0)"
STAND_IN_IMAGE = "tiny (random CLIP, seed 0)"
STAND_IN_CODEC = "tiny (random VAE, seed 0)"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small models gain little from more, and lose much where cores are busy."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def write_run(folder: Path, num_frames: int, image_condition: bool = False) -> Path:
    """The output of a stage 1 run with stand-ins."""
    torch.manual_seed(0)
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=(32,) * 4, layers_per_block=1
    )
    config = DenoiserConfig(anchor="first_frame", num_frames=num_frames, image_condition=image_condition)
    description = ModelDescription(
        denoiser=config, text_encoder=STAND_IN_TEXT, latent_codec=STAND_IN_CODEC,
        image_encoder=STAND_IN_IMAGE if image_condition else "",
    )  # fmt: skip
    save_pipeline(str(folder / "model"), unet_from_scratch("tiny", num_frames), vae, description)
    return folder


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model of two frames, which saves time."""
    return write_run(tmp_path_factory.mktemp("short"), num_frames=2)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model of as many frames as clips have."""
    return write_run(tmp_path_factory.mktemp("whole"), num_frames=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_video_dataset(str(folder), {"drawers": 2}, video=clip_video(0))
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "scene.jpg"
    Image.new("RGB", (320, 240), "#336699").save(path)
    return path


@pytest.fixture
def settings(short_run: Path, picture: Path, tmp_path: Path) -> PredictSettings:
    return PredictSettings(
        video_model=str(short_run), output=str(tmp_path / "out"), image=str(picture), text="open the drawer",
        num_steps=1, guidance=(1.0, 1.0),
    )  # fmt: skip


@pytest.fixture
def of_clips(settings: PredictSettings, whole_run: Path, data: Path) -> PredictSettings:
    return replace(settings, video_model=str(whole_run), image="", text="", data=str(data))


def test_a_picture_and_a_text_become_a_video(short_run: Path, picture: Path, tmp_path: Path) -> None:
    code, printed = run(
        "predict", "--video-model", short_run, "--image", picture, "--text", "open the drawer",
        "--output", tmp_path / "out", "--num-steps", 1, "--guidance", 1, 1, cwd=tmp_path,
    )  # fmt: skip
    assert code == 0, printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "prediction.mp4", "prediction.gif", "prediction.png", "prediction.json"
    }  # fmt: skip
    assert f"stand-in, not a trained model: text encoder: {STAND_IN_TEXT}" in printed
    assert f"stand-in, not a trained model: latent codec: {STAND_IN_CODEC}" in printed
    assert "psnr" not in printed
    record = json.loads((tmp_path / "out/prediction.json").read_text())
    assert record["settings"]["text"] == "open the drawer"
    assert record["model"]["folder"] == str(short_run / "model")
    assert record["text_encoder"] == STAND_IN_TEXT
    assert len(record["stand_ins"]) == 2
    assert "metrics" not in record
    gif = Image.open(io.BytesIO((tmp_path / "out/prediction.gif").read_bytes()))
    assert (gif.n_frames, gif.width) == (2, 256)


def test_a_clip_is_shown_beside_its_truth_and_judged(of_clips: PredictSettings, tmp_path: Path) -> None:
    record = predict(replace(of_clips, clip=(f"drawers{1:016d}",)))
    assert record["texts"] == {"prediction": "move 1"}
    metrics = record["metrics"]
    assert set(metrics["frames_8_to_last"]) == {"psnr", "ssim", "psnr_copy", "ssim_copy"}
    assert [len(values) for values in metrics["by_frame"].values()] == [16] * 4
    assert set(metrics["latents"]) == {"gain_db", "moving_gain_db", "moving_psnr", "moving_psnr_copy"}
    assert np.isfinite([*metrics["latents"].values(), *metrics["pixels"].values()]).all()
    assert record["fvd"] is None
    assert "--i3d" in record["fvd_remark"]
    assert json.loads((tmp_path / "out/prediction.json").read_text()) == record
    assert Image.open(tmp_path / "out/prediction.gif").width > 512


@pytest.mark.slow
def test_several_clips_are_judged_together_with_fvd_where_the_network_is_given(
    of_clips: PredictSettings, tmp_path: Path
) -> None:
    torch.jit.script(MeanColours()).save(str(tmp_path / "i3d_torchscript.pt"))
    clips = tuple(f"drawers{number:016d}" for number in (0, 1))
    record = predict(replace(of_clips, clip=clips, i3d=str(tmp_path / "i3d_torchscript.pt")))
    assert record["texts"] == {clips[0]: "move 0", clips[1]: "move 1"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*record["files"], "prediction.json"}
    assert len(record["files"]) == 6
    assert record["fvd"] > 0


def test_the_same_command_gives_the_same_pictures(settings: PredictSettings, tmp_path: Path) -> None:
    predict(settings)
    predict(replace(settings, output=str(tmp_path / "again")))
    predict(replace(settings, output=str(tmp_path / "other"), seed=1))
    first, again, other = ((tmp_path / folder / "prediction.gif").read_bytes() for folder in ("out", "again", "other"))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"video_model": ""}, "--video-model"),
        ({"video_model": "/no/such/model"}, "/no/such/model"),
        ({"output": ""}, "--output"),
        ({"image": ""}, "neither"),
        ({"clip": ("a",), "data": "/somewhere"}, "both"),
        ({"image": "", "clip": ("a",)}, "--data"),
        ({"text": ""}, "--text"),
        ({"image": "/no/such/picture.png"}, "/no/such/picture.png"),
        ({"image": __file__}, "cannot read"),
        ({"i3d": "/no/such/file.pt"}, "--i3d"),
        ({"text_encoder": "/no/such/clip"}, "--text-encoder"),
    ],
)
def test_a_mistake_is_told_in_one_line(settings: PredictSettings, change: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as error:
        predict(replace(settings, **change))
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert not Path(settings.output).exists()


def test_a_cut_picture_and_an_unknown_clip_are_mistakes(
    settings: PredictSettings, of_clips: PredictSettings, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.png"
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(buffer, "PNG")
    cut.write_bytes(buffer.getvalue()[:900])
    with pytest.raises(UsageError, match="cannot read"):
        predict(replace(settings, image=str(cut)))
    with pytest.raises(UsageError, match=r"--clip nonsense: .*drawers0000"):
        predict(replace(of_clips, clip=("nonsense",)))
    with pytest.raises(UsageError, match="clips of 2 frames"):
        predict(replace(of_clips, video_model=settings.video_model, clip=(f"drawers{1:016d}",)))


def test_a_mistake_ends_with_code_2_and_one_line(tmp_path: Path) -> None:
    code, printed = run("predict", "--video-model", tmp_path, "--output", tmp_path / "out", cwd=tmp_path)
    assert code == 2
    assert "Traceback" not in printed
    assert [line for line in printed.splitlines() if line.startswith("error:")] == [printed.splitlines()[-1]]


# --- another camera's picture ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_with_condition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("condition"), num_frames=2, image_condition=True)


def test_another_view_changes_the_prediction(
    settings: PredictSettings, run_with_condition: Path, picture: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.png"
    Image.linear_gradient("L").save(other)
    gifs = []
    for number, view in enumerate((picture, picture, other)):
        output = tmp_path / f"out{number}"
        record = predict(
            replace(settings, video_model=str(run_with_condition), other_view=str(view), output=str(output))
        )
        gifs.append((output / "prediction.gif").read_bytes())
        assert record["image_encoder"] == STAND_IN_IMAGE
        assert f"image encoder: {STAND_IN_IMAGE}" in record["stand_ins"]
    assert gifs[0] == gifs[1]
    assert gifs[0] != gifs[2]


@pytest.mark.slow
def test_a_clips_other_view_comes_from_its_dataset(of_clips: PredictSettings, tmp_path: Path) -> None:
    run_of_16 = write_run(tmp_path / "run", num_frames=16, image_condition=True)
    write_video_dataset(str(tmp_path / "data"), {"drawers": 2}, video=clip_video(0), cameras=("left", "right"))
    record = predict(
        replace(of_clips, video_model=str(run_of_16), data=str(tmp_path / "data"), clip=(f"drawers{0:016d}",))
    )
    assert record["image_encoder"] == STAND_IN_IMAGE
    assert set(record["metrics"]["frames_8_to_last"]) == {"psnr", "ssim", "psnr_copy", "ssim_copy"}


def test_mistakes_with_another_view_are_told_in_one_line(
    settings: PredictSettings, of_clips: PredictSettings, run_with_condition: Path, picture: Path
) -> None:
    conditioned = replace(settings, video_model=str(run_with_condition))
    clip = replace(of_clips, video_model=str(run_with_condition), clip=(f"drawers{1:016d}",))
    for wrong, told in (
        (conditioned, "--other-view: expected a picture from another camera"),
        (replace(conditioned, other_view="/no/such.png"), "--other-view /no/such.png: expected a picture's file"),
        (replace(conditioned, other_view=str(picture), image_encoder="/no/clip"), "--image-encoder /no/clip"),
        (replace(settings, other_view=str(picture)), "expected a model with an image condition"),
        (replace(clip, other_view=str(picture)), "--other-view: expected --image with it"),
        (clip, "found no other in 1 of drawers"),
    ):
        with pytest.raises(UsageError) as error:
            predict(wrong)
        assert told in str(error.value)
        assert "\n" not in str(error.value)
    assert not Path(settings.output).exists()


@pytest.mark.parametrize("wrong", [{"num_steps": 0}, {"sigma_max": 0.0}, {"fps": 0.0}])
def test_a_setting_outside_its_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        PredictSettings(**wrong)


@pytest.mark.parametrize(
    ("recorded", "given", "expected"),
    [
        (STAND_IN_TEXT, "", "tiny"),
        ("openai/clip-vit-base-patch32@3d74acf9a28c", "", "openai/clip-vit-base-patch32"),
        ("/models/clip@home", "", "/models/clip@home"),
        ("", "", PUBLISHED_TEXT_ENCODER),
        (STAND_IN_TEXT, "other", "other"),
    ],
)
def test_the_text_encoder_is_that_of_the_training_data_unless_another_is_named(
    recorded: str, given: str, expected: str
) -> None:
    found = _text_encoder_name(PredictSettings(text_encoder=given), ModelDescription(text_encoder=recorded))
    assert found == expected
