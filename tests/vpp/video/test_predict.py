"""Predicted videos: guidance, the first frame as anchor, seeds, diffusers' own pipeline loop, decoding in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler
from torch import nn

from vpp.video.denoiser import DenoiserConfig, VideoDenoiser
from vpp.video.predict import one_step_latents, predict_latents
from vpp.video.svd import unet_from_scratch
from vpp.video.vae import decode_latents, encode_frames

GENERATOR = torch.Generator().manual_seed(0)
FIRST = torch.randn(2, 4, 8, 8, generator=GENERATOR)
TEXT = torch.randn(2, 20, 512, generator=GENERATOR)
NOISE = torch.randn(2, 3, 4, 8, 8, generator=GENERATOR)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from more, and lose much where cores are busy."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


class Reading(nn.Module):
    """A UNet whose answer is the mean of the caption; counts how many clips it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **named: Any) -> tuple[torch.Tensor]:
        self.calls.append(len(sample))
        answer = named["encoder_hidden_states"].mean((1, 2)).reshape(-1, 1, 1, 1, 1)
        return (answer.expand_as(sample[:, :, :4]),)


def reading(**config: Any) -> VideoDenoiser:
    return VideoDenoiser(Reading(), DenoiserConfig(num_frames=3, **config))


def test_prediction_is_diffusers_loop_with_guidance_growing_over_the_frames() -> None:
    denoiser = VideoDenoiser(unet_from_scratch("tiny", num_frames=3).eval(), DenoiserConfig(num_frames=3))
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0, timestep_type="continuous",
        timestep_spacing="leading", steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(4)
    strength = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1, 1)
    caption = torch.cat([TEXT, TEXT], dim=-1)
    states, ids = torch.cat([torch.zeros_like(caption), caption]), torch.tensor([[7.0, 127.0, 0.0]] * 4)
    still = torch.cat([FIRST, FIRST])[:, None].expand(4, 3, 4, 8, 8) / 0.18215
    expected = NOISE * scheduler.sigmas[0]
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(torch.cat([expected, expected]), timestep)
            output = denoiser.unet(torch.cat([scaled, still], 2), timestep, states, ids, return_dict=False)[0]
            without_text, with_text = output.chunk(2)
            guided = without_text + strength * (with_text - without_text)
            expected = scheduler.step(guided, timestep, expected).prev_sample
    found = predict_latents(denoiser, FIRST, TEXT, num_steps=4, guidance=(1.0, 3.0), noise=NOISE)
    assert found.dtype == torch.float32
    assert float((found - expected).norm() / expected.norm()) < 1e-4


def test_without_guidance_the_model_is_not_run_without_a_caption() -> None:
    plain, guided = reading(), reading()
    predict_latents(plain, FIRST, TEXT, num_steps=3, guidance=(1.0, 1.0), noise=NOISE)
    assert plain.unet.calls == [2, 2, 2]
    predict_latents(guided, FIRST, TEXT, num_steps=3, guidance=(1.0, 3.0), noise=NOISE)
    assert guided.unet.calls == [4, 4, 4]


def test_guidance_moves_away_from_the_prediction_without_a_caption_more_in_later_frames() -> None:
    options = {"num_steps": 1, "sigma_max": 80.0, "noise": NOISE}
    plain = predict_latents(reading(), FIRST, TEXT, guidance=(1.0, 1.0), **options)
    none = predict_latents(reading(), FIRST, TEXT * 0, guidance=(1.0, 1.0), **options)
    guided = predict_latents(reading(), FIRST, TEXT, guidance=(1.0, 3.0), **options)
    for frame, strength in enumerate((1.0, 2.0, 3.0)):
        expected = none[:, frame] + strength * (plain[:, frame] - none[:, frame])
        torch.testing.assert_close(guided[:, frame], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sigma_max", [80.0, 700.0])
def test_a_silent_model_anchored_at_the_first_frame_predicts_a_still_picture(sigma_max: float) -> None:
    denoiser = reading(anchor="first_frame")
    still = FIRST[:, None].expand_as(NOISE)
    found = predict_latents(denoiser, FIRST, TEXT * 0, num_steps=1, sigma_max=sigma_max, noise=NOISE)
    torch.testing.assert_close(found, still, atol=0.1, rtol=0)
    one_step = one_step_latents(denoiser, FIRST, TEXT * 0, sigma=sigma_max, noise=NOISE)
    torch.testing.assert_close(one_step, found, atol=1e-4, rtol=1e-4)


def test_a_seed_gives_the_same_video_and_another_seed_another() -> None:
    def run(seed: int) -> torch.Tensor:
        return predict_latents(reading(), FIRST, TEXT, num_steps=2, generator=torch.Generator().manual_seed(seed))

    assert run(0).shape == (2, 3, 4, 8, 8)
    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_each_step_is_reported() -> None:
    steps: list[None] = []
    predict_latents(reading(), FIRST, TEXT, num_steps=5, noise=NOISE, on_step=lambda: steps.append(None))
    assert len(steps) == 5


def test_prediction_leaves_no_gradients_behind() -> None:
    denoiser = VideoDenoiser(unet_from_scratch("tiny", num_frames=3), DenoiserConfig(num_frames=3))
    assert not predict_latents(denoiser, FIRST, TEXT, num_steps=1, noise=NOISE).requires_grad
    assert not one_step_latents(denoiser, FIRST, TEXT, noise=NOISE).requires_grad


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLTemporalDecoder:
    torch.manual_seed(0)
    blocks = ("DownEncoderBlock2D",) * 4
    return AutoencoderKLTemporalDecoder(
        down_block_types=blocks, block_out_channels=(32,) * 4, layers_per_block=1
    ).eval()


def test_frames_are_decoded_as_the_vae_decodes_clips(vae: AutoencoderKLTemporalDecoder) -> None:
    frames = decode_latents(vae, NOISE, chunk_frames=8)
    assert (frames.shape, frames.dtype) == ((2, 3, 64, 64, 3), torch.uint8)
    with torch.no_grad():
        pixels = vae.decode(NOISE.flatten(0, 1) / vae.config.scaling_factor, num_frames=3).sample
    expected = ((pixels.reshape(2, 3, 3, 64, 64) + 1) * 127.5).clamp(0, 255).permute(0, 1, 3, 4, 2)
    assert float((frames.float() - expected).abs().max()) <= 0.51


def test_no_more_frames_than_asked_for_are_decoded_at_a_time(
    vae: AutoencoderKLTemporalDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []
    decode = vae.decode

    def listening(z: torch.Tensor, num_frames: int) -> Any:
        sizes.append((len(z), num_frames))
        return decode(z, num_frames)

    monkeypatch.setattr(vae, "decode", listening)
    assert decode_latents(vae, NOISE, chunk_frames=2).shape == (2, 3, 64, 64, 3)
    assert sizes == [(2, 2), (1, 1), (2, 2), (1, 1)]


def test_frames_are_encoded_to_the_scaled_mode_whatever_the_chunks(vae: AutoencoderKLTemporalDecoder) -> None:
    frames = torch.randint(0, 256, (2, 3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    latents = encode_frames(vae, frames)
    with torch.no_grad():
        pixels = frames[1, 2].permute(2, 0, 1)[None].float() / 127.5 - 1
        expected = vae.encode(pixels).latent_dist.mode()[0] * vae.config.scaling_factor
    torch.testing.assert_close(latents[1, 2], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encode_frames(vae, frames, chunk_frames=1), latents, atol=1e-5, rtol=1e-4)
