"""Convolutions along time give over a plane what they give in space and time, and train in bfloat16."""

from __future__ import annotations

import copy

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn

from vpp.video.plane_convolution import use_plane_convolutions


def test_values_and_gradients_stay_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(4, 8, (3, 1, 1), padding=(1, 0, 0)), nn.Conv3d(8, 2, (3, 1, 1)))
    changed = copy.deepcopy(model)
    assert use_plane_convolutions(changed) == 2
    x = torch.randn(2, 4, 5, 3, 6)
    expected, found = model(x), changed(x)
    torch.testing.assert_close(found, expected)
    expected.square().sum().backward()
    found.square().sum().backward()
    for before, after in zip(model.parameters(), changed.parameters(), strict=True):
        torch.testing.assert_close(after.grad, before.grad, rtol=1e-4, atol=1e-5)


def test_convolutions_in_space_and_time_are_left_alone() -> None:
    others = [
        nn.Conv3d(2, 2, 3),
        nn.Conv3d(2, 2, (3, 1, 1), stride=(2, 1, 1)),
        nn.Conv3d(2, 2, (3, 1, 1), dilation=(2, 1, 1)),
        nn.Conv3d(2, 2, (3, 1, 1), groups=2),
        nn.Conv3d(2, 2, (3, 1, 1), padding="same"),
        nn.Conv3d(2, 2, (3, 1, 1), padding=(1, 0, 0), padding_mode="replicate"),
    ]
    assert use_plane_convolutions(nn.Sequential(*others)) == 0


def test_a_temporal_decoder_has_finite_gradients_in_bfloat16_close_to_those_of_float32() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=(32, 32, 64, 64), layers_per_block=1
    )
    assert use_plane_convolutions(vae) > 10
    x = torch.randn(2, 3, 32, 32)
    gradients = []
    for bf16 in (False, True):
        vae.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            decoded = vae(x, num_frames=2).sample
        decoded.float().square().mean().backward()
        gradients.append(
            torch.cat([weights.grad.flatten() for weights in vae.parameters() if weights.grad is not None])
        )
    assert torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.99
