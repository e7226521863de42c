"""A small VAE learns clips, repeats itself, is scaled to deviation 1, and is found again where it was saved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from s3 import S3Server

from schemas.errors import UsageError
from schemas.storage import exists, list_files
from vpp.video.codec_training import (
    CodecSettings,
    decode_frames,
    draw_crop,
    new_codec,
    save_codec,
    train_codec,
)
from vpp.video.latent_codec import load_latent_codec
from vpp.video.model_folder import published
from vpp.video.vae import codec_id, load_vae

SHORT = CodecSettings(steps=30, batch_size=2, crop_px=64, learning_rate=3e-3, clips_in_memory=3)
SHORTEST = CodecSettings(channels=(32,) * 4, steps=3, batch_size=2, crop_px=16, clips_in_memory=3)


def moving_squares(num_clips: int, size: int = 64) -> Iterator[np.ndarray]:
    """Clips `[4, size, size, 3]` of a bright square that moves over a coloured ground."""
    rng = np.random.default_rng(0)
    for _ in range(num_clips):
        clip = np.full((4, size, size, 3), (40, 90, 140), np.uint8)
        top, left = rng.integers(0, size - 20, 2)
        for number, frame in enumerate(clip):
            frame[top : top + 12, left + 2 * number : left + 2 * number + 12] = (230, 200, 30)
        yield clip


def error(vae: AutoencoderKLTemporalDecoder) -> float:
    """Mean squared error of whole frames, in units of the range [-1, 1]."""
    clip = next(moving_squares(1))
    pixels = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    with torch.inference_mode():
        decoded = vae.decode(vae.encode(pixels).latent_dist.mode(), num_frames=len(clip)).sample
    return float((decoded - pixels).square().mean())


@pytest.fixture(scope="module")
def trained() -> AutoencoderKLTemporalDecoder:
    return train_codec(moving_squares(4), SHORT)


def test_training_lowers_the_error_of_whole_frames(trained: AutoencoderKLTemporalDecoder) -> None:
    assert error(trained) < 0.2 * error(new_codec(SHORT))


def test_scaled_latents_of_the_training_frames_have_deviation_1(trained: AutoencoderKLTemporalDecoder) -> None:
    latest = list(moving_squares(4))[-SHORT.clips_in_memory :]
    pixels = torch.from_numpy(np.concatenate(latest)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    with torch.inference_mode():
        latents = trained.encode(pixels).latent_dist.mode() * trained.config.scaling_factor
    assert latents.shape == (12, 4, 8, 8)
    assert float(latents.std()) == pytest.approx(1.0, rel=0.02)


def test_the_same_seed_gives_the_same_weights_whatever_the_global_seed() -> None:
    first = train_codec(moving_squares(4, size=32), SHORTEST)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = train_codec(moving_squares(4, size=32), SHORTEST)
    assert torch.equal(torch.get_rng_state(), before)
    for name, weights in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], weights), name
    assert codec_id(again, "a") == codec_id(first, "a")
    other = train_codec(moving_squares(4, size=32), replace(SHORTEST, seed=1))
    assert codec_id(other, "a") != codec_id(first, "a")


def test_progress_is_reported_up_to_the_last_step() -> None:
    told: list[tuple[int, set[str]]] = []
    train_codec(
        moving_squares(2, size=32),
        replace(SHORTEST, steps=21, batch_size=1),
        lambda step, losses: told.append((step, set(losses))),
    )
    assert told == [(20, {"l1", "kl"}), (21, {"l1", "kl"})]


def test_the_decoder_leaves_time_alone(trained: AutoencoderKLTemporalDecoder) -> None:
    latents = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(trained.decode(latents, num_frames=3).sample, decode_frames(trained, latents))


def test_a_crop_comes_with_where_it_moves() -> None:
    clip = next(moving_squares(1))
    rng = np.random.default_rng(0)
    for _ in range(20):
        crop, moves = draw_crop(clip, replace(SHORT, crop_px=64), rng)
        assert any(np.array_equal(crop, frame) for frame in clip)
        assert moves.any()
        assert not moves[(clip == clip[0]).all(axis=(0, 3))].any()
    still, moves = draw_crop(clip[:1], replace(SHORT, crop_px=16), rng)
    assert (still.shape, moves.shape) == ((16, 16, 3), (16, 16))
    assert not moves.any()


@pytest.mark.parametrize("clips", [[], [np.zeros((4, 24, 64, 3), np.uint8)], [np.zeros((0, 64, 64, 3), np.uint8)]])
def test_clips_that_cannot_be_trained_on_are_the_users_mistake(clips: list[np.ndarray]) -> None:
    with pytest.raises(UsageError, match="expected clips"):
        train_codec(clips, SHORT)


@pytest.mark.parametrize(
    "wrong",
    [{"channels": (32, 32, 32)}, {"channels": (32, 48, 64, 64)}, {"crop_px": 20}, {"steps": 0}, {"kl_weight": -1}],
)
def test_settings_outside_their_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        CodecSettings(**wrong)  # type: ignore[arg-type]


def test_a_saved_codec_is_loaded_by_url_with_its_scale_and_identity(
    trained: AutoencoderKLTemporalDecoder, tmp_path: Path, s3: S3Server
) -> None:
    for url in (str(tmp_path / "run" / "codec"), "s3://bucket/run/codec"):
        save_codec(url, trained)
        assert all(not name.endswith((".bin", ".pt", ".pkl")) for name in list_files(url))
        codec = load_latent_codec(url)
        assert codec.scaling_factor == trained.config.scaling_factor
        assert codec.model_id == codec_id(trained, url)
        assert error(load_vae(url)) == pytest.approx(error(trained), rel=1e-4)


def test_a_codec_whose_saving_was_cut_short_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = new_codec(SHORT)

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(vae, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        save_codec(str(tmp_path / "codec"), vae)
    assert not exists(str(tmp_path / "codec"))
    with published(str(tmp_path / "other")) as staged:
        (Path(staged) / "model_index.json").write_text("{}")
    with pytest.raises(UsageError, match="latent codec"):
        load_vae(str(tmp_path / "other"))
