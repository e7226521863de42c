"""Layers for inference: another order of work, in parts or with fused kernels, gives the same numbers."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from torch.nn import functional

from vpp.video.fused_linear import Linear
from vpp.video.inference_attention import Transformer
from vpp.video.inference_layers import EnlargingConvolution, PlaneConvolution


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> TransformerSpatioTemporalModel:
    """Two layers; every weight is random."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TransformerSpatioTemporalModel(2, 16, in_channels=32, num_layers=2, cross_attention_dim=24).eval()
    with torch.no_grad():
        for number, weights in enumerate(model.parameters()):
            weights += 0.1 * random(*weights.shape, seed=number)
    return model


@pytest.mark.parametrize("rows", [1, 20, 45, 4096])
@pytest.mark.parametrize("num_captions", [1, 2, 4])
def test_a_transformer_in_parts_is_that_of_diffusers(
    model: TransformerSpatioTemporalModel, rows: int, num_captions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vpp.video.inference_attention._NUMBERS", 32 * rows)
    x, states = random(4, 3, 3, 5, 32), random(num_captions, 7, 24, seed=1)
    of_frames = states.repeat_interleave(12 // num_captions, 0)
    with torch.no_grad():
        expected = model(
            x.flatten(0, 1).permute(0, 3, 1, 2), of_frames, image_only_indicator=torch.zeros(4, 3), return_dict=False
        )[0]
        transformer = Transformer(model, num_frames=3)
        found = transformer(x.clone(), transformer.captions(states))
    torch.testing.assert_close(found.flatten(0, 1), expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (8, 5), (12, 3)])
@pytest.mark.parametrize(("stride", "kernel"), [(1, (3, 3)), (2, (3, 3)), (1, (3, 1))])
def test_convolutions_of_small_and_large_pictures_agree_with_pytorch(
    size: tuple[int, int], stride: int, kernel: tuple[int, int]
) -> None:
    x, weight, bias = random(2, *size, 6), random(8, 6, *kernel, seed=1), random(8, seed=2)
    padding = (kernel[0] // 2, kernel[1] // 2)
    expected = functional.conv2d(x.permute(0, 3, 1, 2), weight, bias, stride, padding).permute(0, 2, 3, 1)
    torch.testing.assert_close(PlaneConvolution(weight, bias, stride)(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(3, 5), (12, 7)])
def test_an_enlarged_pictures_convolution_needs_no_enlarged_picture(size: tuple[int, int]) -> None:
    x, weight, bias = random(2, *size, 6), random(8, 6, 3, 3, seed=1), random(8, seed=2)
    enlarged = functional.interpolate(x.permute(0, 3, 1, 2), scale_factor=2.0)
    expected = functional.conv2d(enlarged, weight, bias, padding=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(EnlargingConvolution(weight, bias)(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_fused_layers_compute_what_their_names_say(with_bias: bool, dtype: torch.dtype, tolerance: float) -> None:
    x, weight, other = random(3, 5, 64), random(32, 64, seed=1) / 8, random(3, 5, 32, seed=2)
    bias = random(32, seed=3) if with_bias else None
    plain = functional.linear(x, weight, bias)
    layer = Linear(weight, bias).to(dtype)
    narrow, added = x.to(dtype), other.to(dtype).transpose(0, 1).contiguous().transpose(0, 1)
    for found, expected in (
        (layer(narrow), plain),
        (layer.gelu(narrow), functional.gelu(plain)),
        (layer.times(narrow, other.to(dtype)), plain * other),
        (layer.plus(narrow, added), plain + other),
    ):
        assert found.dtype == dtype
        assert float((found.float() - expected).norm() / expected.norm()) < tolerance
