"""Predictive features: which blocks run, how their outputs are joined, and that the model is left as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn.functional import interpolate

from vpp.video.denoiser import DenoiserConfig, VideoDenoiser
from vpp.video.features import cut_after, predictive_features
from vpp.video.predict import one_step_latents
from vpp.video.svd import unet_from_scratch

GENERATOR = torch.Generator().manual_seed(0)
FIRST = torch.randn(1, 4, 16, 16, generator=GENERATOR)
TEXT = torch.randn(1, 20, 512, generator=GENERATOR)
NOISE = torch.randn(1, 2, 4, 16, 16, generator=GENERATOR)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from more, and lose much where cores are busy."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def denoiser() -> VideoDenoiser:
    return VideoDenoiser(unet_from_scratch("tiny", num_frames=2).eval(), DenoiserConfig(num_frames=2))


@pytest.fixture(scope="module")
def whole_run(denoiser: VideoDenoiser) -> list[torch.Tensor]:
    """What every up-block says when the whole model denoises pure noise, `[B, T, C, h, w]`."""
    outputs: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda block, inputs, output: outputs.append(output))
        for block in denoiser.unet.up_blocks
    ]
    one_step_latents(denoiser, FIRST, TEXT, sigma=80.0, noise=NOISE)
    for hook in hooks:
        hook.remove()
    return [output.unflatten(0, (1, 2)) for output in outputs]


@pytest.mark.parametrize("last_block", [0, 1, 2, 3])
def test_features_are_what_the_whole_model_computes_in_that_step(
    denoiser: VideoDenoiser, whole_run: list[torch.Tensor], last_block: int
) -> None:
    options = {"sigma": 80.0, "last_block": last_block}
    last = predictive_features(denoiser, FIRST, TEXT, NOISE, aggregate="last", **options)
    torch.testing.assert_close(last, whole_run[last_block], atol=1e-2, rtol=1e-2)
    joined = predictive_features(denoiser, FIRST, TEXT, NOISE, aggregate="all", **options)
    size = whole_run[last_block].shape[-2:]
    blocks = [interpolate(block.flatten(0, 1), size) for block in whole_run[: last_block + 1]]
    torch.testing.assert_close(joined, torch.cat(blocks, 1).unflatten(0, (1, 2)), atol=1e-2, rtol=1e-2)


def test_the_blocks_behind_the_last_one_are_neither_run_nor_kept(denoiser: VideoDenoiser) -> None:
    before = [name for name, _ in denoiser.named_parameters()]
    cut = cut_after(denoiser, 1)
    kept = {name for name, _ in cut.named_parameters()}
    assert not any(name.startswith(("unet.up_blocks.2", "unet.up_blocks.3", "unet.conv_out")) for name in kept)
    assert {"unet.up_blocks.1." in name for name in kept} == {True, False}
    assert [name for name, _ in denoiser.named_parameters()] == before

    def fail(*inputs: object) -> None:
        raise AssertionError("this block was to be left out")

    hooks = [
        module.register_forward_pre_hook(fail) for module in (*denoiser.unet.up_blocks[2:], denoiser.unet.conv_out)
    ]
    whole = predictive_features(denoiser, FIRST, TEXT, NOISE)
    for hook in hooks:
        hook.remove()
    assert torch.equal(predictive_features(cut, FIRST, TEXT, NOISE), whole)


def test_the_model_denoises_afterwards_as_before(denoiser: VideoDenoiser) -> None:
    before = one_step_latents(denoiser, FIRST, TEXT, noise=NOISE)
    predictive_features(denoiser, FIRST, TEXT, NOISE, last_block=2)
    assert torch.equal(one_step_latents(denoiser, FIRST, TEXT, noise=NOISE), before)
    assert not any(module._forward_hooks for module in denoiser.modules())


def test_noise_level_frame_rate_and_caption_matter(denoiser: VideoDenoiser) -> None:
    features = predictive_features(denoiser, FIRST, TEXT, NOISE)
    assert not torch.equal(predictive_features(denoiser, FIRST, TEXT, NOISE, sigma=2.0), features)
    assert not torch.equal(predictive_features(denoiser, FIRST, TEXT, NOISE, fps=4.0), features)
    assert not torch.equal(predictive_features(denoiser, FIRST, TEXT * 0, NOISE), features)
    assert torch.equal(predictive_features(denoiser, FIRST, TEXT, NOISE, fps=7.0), features)


def test_blocks_and_sizes_that_do_not_exist_are_refused(denoiser: VideoDenoiser) -> None:
    for last_block in (-1, 4):
        with pytest.raises(ValueError, match="up-block"):
            predictive_features(denoiser, FIRST, TEXT, NOISE, last_block=last_block)
    with pytest.raises(ValueError, match="up-block"):
        predictive_features(cut_after(denoiser, 0), FIRST, TEXT, NOISE, last_block=1)
    with pytest.raises(ValueError, match="divisible by 8"):
        predictive_features(denoiser, FIRST[..., :12], TEXT, NOISE[..., :12])
