"""Predictive features: those of the whole model as diffusers runs it, by whatever settings, and constants of a frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.functional import interpolate

from vpp.diffusion.samplers import euler
from vpp.diffusion.sigmas import karras_sigmas
from vpp.video.denoiser import DenoiserConfig, VideoDenoiser
from vpp.video.feature_settings import PUBLISHED, FeatureSettings
from vpp.video.features import FeatureExtractor, view_noise
from vpp.video.svd import cut_unet, unet_from_scratch

GENERATOR = torch.Generator().manual_seed(0)
FIRST = torch.randn(2, 2, 4, 16, 16, generator=GENERATOR)
TEXT = torch.randn(2, 20, 512, generator=GENERATOR)
NOISE = torch.randn(2, 2, 3, 4, 16, 16, generator=GENERATOR)
SIZE = (16, 16)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from more, and lose much where cores are busy."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def denoiser_of(**config: Any) -> VideoDenoiser:
    """Every weight is random, so that none can be forgotten: those of norms and mixers start at constants."""
    unet = unet_from_scratch("tiny", num_frames=3).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in unet.parameters():
            if weights.ndim < 2:
                weights += 0.2 * torch.randn(weights.shape, generator=generator)
    return VideoDenoiser(unet, DenoiserConfig(num_frames=3, **config))


@pytest.fixture(scope="module")
def denoiser() -> VideoDenoiser:
    return denoiser_of()


def of_whole_model(
    denoiser: VideoDenoiser, settings: FeatureSettings, text: torch.Tensor = TEXT, image: torch.Tensor | None = None
) -> torch.Tensor:
    """The definition: outputs of the up-blocks in the last step, while diffusers' whole UNet denoises pure noise."""
    outputs: dict[int, torch.Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda block, inputs, output, number=number: outputs.update({number: output}))
        for number, block in enumerate(denoiser.unet.up_blocks)
    ]
    first, noise = FIRST.flatten(0, 1), NOISE.flatten(0, 1)
    captions = text.repeat_interleave(2, 0)
    images = None if image is None else image.repeat_interleave(2, 0)

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return denoiser(x, sigma.expand(len(x)), first, captions, image=images)

    sigmas = torch.tensor([settings.sigma, 1.0])
    if settings.num_steps > 1:
        sigmas = karras_sigmas(settings.schedule_steps, sigma_max=settings.sigma)[: settings.num_steps + 1]
    spread = (settings.sigma**2 + denoiser.config.sigma_data**2) ** 0.5
    with torch.no_grad():
        euler(denoise, denoiser.rest(first) + spread * noise, sigmas)
    for hook in hooks:
        hook.remove()
    blocks = [outputs[number] for number in settings.blocks]
    blocks = blocks[-1:] if settings.aggregate == "last" else blocks
    joined = torch.cat([interpolate(block, blocks[-1].shape[-2:]) for block in blocks], dim=1)
    tokens = joined.flatten(2).transpose(1, 2).unflatten(0, (2, 2, 3))
    return tokens.transpose(1, 2).flatten(2, 3)


def extracted(denoiser: VideoDenoiser | None, settings: FeatureSettings, noise: torch.Tensor | None = NOISE) -> Any:
    extractor = FeatureExtractor(denoiser, settings, SIZE)
    features = extractor(FIRST, extractor.instruct(TEXT), noise)
    assert features.shape == (2, extractor.num_frames, 2 * extractor.num_tokens, extractor.num_channels)
    return features


def assert_same(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).norm() / expected.norm()) < tolerance


@pytest.mark.parametrize(
    "settings",
    [
        FeatureSettings(),
        FeatureSettings(blocks=(0, 1, 2, 3)),
        FeatureSettings(blocks=(3,)),
        FeatureSettings(blocks=(0, 2)),
        FeatureSettings(blocks=(0, 2), aggregate="last"),
        FeatureSettings(num_steps=2),
        FeatureSettings(num_steps=3, schedule_steps=3),
    ],
    ids=str,
)
def test_features_are_what_diffusers_computes_in_that_step(denoiser: VideoDenoiser, settings: FeatureSettings) -> None:
    assert_same(extracted(denoiser, settings), of_whole_model(denoiser, settings))


@pytest.mark.parametrize("num_steps", [1, 2])
def test_features_of_a_model_that_predicts_differences_are_its_own(num_steps: int) -> None:
    denoiser = denoiser_of(anchor="first_frame", sigma_data=0.5, position_encode=True)
    settings = FeatureSettings(sigma=2.0, num_steps=num_steps)
    assert_same(extracted(denoiser, settings), of_whole_model(denoiser, settings))


def test_another_cameras_image_takes_part(denoiser: VideoDenoiser) -> None:
    conditioned = denoiser_of(image_condition=True)
    image = torch.randn(2, 512, generator=torch.Generator().manual_seed(3))
    extractor = FeatureExtractor(conditioned, FeatureSettings(), SIZE)
    found = extractor(FIRST, extractor.instruct(TEXT, image), NOISE)
    assert_same(found, of_whole_model(conditioned, FeatureSettings(), image=image))
    with pytest.raises(ValueError, match="expected image=an embedding"):
        extractor.instruct(TEXT)
    with pytest.raises(ValueError, match="expected image=None"):
        FeatureExtractor(denoiser, FeatureSettings(), SIZE).instruct(TEXT, image)


def test_a_single_future_frame_is_the_last(denoiser: VideoDenoiser) -> None:
    assert torch.equal(
        extracted(denoiser, FeatureSettings(future_frames="one")), extracted(denoiser, FeatureSettings())[:, -1:]
    )


def test_every_second_future_frame_is_counted_back_from_the_last(denoiser: VideoDenoiser) -> None:
    every, second = (
        FeatureExtractor(denoiser, FeatureSettings(frame_step=step), SIZE).eval() for step in (1, 2)
    )  # fmt: skip
    whole, kept = (extractor(FIRST, extractor.instruct(TEXT), NOISE) for extractor in (every, second))
    assert second.num_frames == 2
    assert torch.equal(kept, whole[:, [0, 2]])


def test_noise_level_frame_rate_and_caption_matter(denoiser: VideoDenoiser) -> None:
    features = extracted(denoiser, FeatureSettings())
    assert torch.equal(extracted(denoiser, FeatureSettings(fps=7.0)), features)
    for settings in (FeatureSettings(sigma=2.0), FeatureSettings(fps=4.0), PUBLISHED):
        assert not torch.allclose(extracted(denoiser, settings), features, rtol=1e-3)
    extractor = FeatureExtractor(denoiser, FeatureSettings(), SIZE)
    assert not torch.allclose(extractor(FIRST, extractor.instruct(TEXT * 0), NOISE), features, rtol=1e-3)


def test_a_frames_features_are_a_constant_whatever_is_in_the_batch(denoiser: VideoDenoiser) -> None:
    together = extracted(denoiser, FeatureSettings(), noise=None)
    extractor = FeatureExtractor(denoiser, FeatureSettings(), SIZE)
    instruction = extractor.instruct(TEXT[1:])
    alone = extractor(FIRST[1:], instruction)
    assert torch.equal(extractor(FIRST[1:], instruction), alone)
    assert_same(together[1:], alone)
    one_view = extractor(FIRST[1:, :1], instruction)
    assert_same(together[1:, :, : extractor.num_tokens], one_view)
    assert not torch.equal(view_noise(0, 0, (2,)), view_noise(0, 1, (2,)))
    assert not torch.equal(view_noise(0, 0, (2,)), view_noise(1, 0, (2,)))


def test_without_a_seed_the_noise_is_fresh_at_each_call(denoiser: VideoDenoiser) -> None:
    extractor = FeatureExtractor(denoiser, FeatureSettings(seed=None), SIZE)
    instruction = extractor.instruct(TEXT)
    first, second = extractor(FIRST, instruction), extractor(FIRST, instruction)
    assert not torch.allclose(first, second, rtol=1e-2)


def test_one_instruction_may_serve_all_samples(denoiser: VideoDenoiser) -> None:
    extractor = FeatureExtractor(denoiser, FeatureSettings(), SIZE)
    for_each = extractor(FIRST, extractor.instruct(TEXT[:1].expand(2, -1, -1)))
    assert_same(extractor(FIRST, extractor.instruct(TEXT[:1])), for_each)
    with pytest.raises(ValueError, match="one for each of 2 samples, found 3"):
        extractor(FIRST, extractor.instruct(TEXT[:1].expand(3, -1, -1)))


def test_the_vae_alone_gives_the_first_frames_latents() -> None:
    features = extracted(None, FeatureSettings(encoder="vae"))
    assert torch.equal(features[1, 0, :256], FIRST[1, 0].flatten(1).T)
    assert torch.equal(features[1, 0, 256:], FIRST[1, 1].flatten(1).T)


def test_random_weights_are_others_and_the_same_each_time(denoiser: VideoDenoiser) -> None:
    settings = FeatureSettings(encoder="random")
    features = extracted(denoiser, settings)
    assert torch.equal(extracted(denoiser, settings), features)
    assert not torch.allclose(extracted(denoiser, FeatureSettings()), features, rtol=1e-2)


def test_the_blocks_behind_the_last_one_are_not_kept(denoiser: VideoDenoiser) -> None:
    def num_weights(module: torch.nn.Module) -> int:
        return sum(weights.numel() for weights in module.parameters())

    sizes = [num_weights(FeatureExtractor(denoiser, FeatureSettings(blocks=(last,)), SIZE)) for last in range(4)]
    assert sizes == sorted(set(sizes))
    cut = VideoDenoiser(cut_unet(denoiser.unet, 1), denoiser.config)
    assert torch.equal(extracted(cut, FeatureSettings()), extracted(denoiser, FeatureSettings()))


def test_the_video_model_stays_as_it_is_and_the_extractor_is_frozen(denoiser: VideoDenoiser) -> None:
    before = {name: weights.clone() for name, weights in denoiser.named_parameters()}
    extractor = FeatureExtractor(denoiser, FeatureSettings(), SIZE)
    extractor(FIRST, extractor.instruct(TEXT))
    assert not any(weights.requires_grad for weights in extractor.parameters())
    for name, weights in denoiser.named_parameters():
        assert weights.requires_grad
        assert torch.equal(weights, before[name])


def test_bfloat16_is_close_to_float32(denoiser: VideoDenoiser) -> None:
    extractor = FeatureExtractor(denoiser, FeatureSettings(), SIZE).to(torch.bfloat16)
    features = extractor(FIRST, extractor.instruct(TEXT), NOISE)
    assert features.dtype == torch.bfloat16
    assert_same(features.float(), extracted(denoiser, FeatureSettings()), tolerance=0.05)


def test_what_does_not_exist_is_refused(denoiser: VideoDenoiser) -> None:
    with pytest.raises(ValueError, match="up-block"):
        FeatureExtractor(denoiser, FeatureSettings(blocks=(0, 4)), SIZE)
    cut = VideoDenoiser(cut_unet(denoiser.unet, 0), denoiser.config)
    with pytest.raises(ValueError, match="up-block"):
        FeatureExtractor(cut, FeatureSettings(), SIZE)
    with pytest.raises(ValueError, match="whole UNet"):
        FeatureExtractor(cut, FeatureSettings(blocks=(0,), num_steps=2), SIZE)
    with pytest.raises(ValueError, match="divisible by 8"):
        FeatureExtractor(denoiser, FeatureSettings(), (16, 12))
    with pytest.raises(ValueError, match="video model"):
        FeatureExtractor(None, FeatureSettings(), SIZE)
    extractor = FeatureExtractor(denoiser, FeatureSettings(), (32, 32))
    with pytest.raises(ValueError, match=r"expected latents of \(4, 32, 32\)"):
        extractor(FIRST, extractor.instruct(TEXT))


@pytest.mark.parametrize(
    "options",
    [
        {"blocks": ()},
        {"blocks": (1, 0)},
        {"blocks": (-1,)},
        {"num_steps": 0},
        {"num_steps": 21},
        {"sigma": 0.0},
        {"frame_step": 0},
    ],
    ids=str,
)
def test_settings_outside_their_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        FeatureSettings(**options)
