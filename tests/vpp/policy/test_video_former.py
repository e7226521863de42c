"""Video Former: its size as published, and what its tokens depend on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vpp.policy.video_former import VideoFormer, VideoFormerConfig

SMALL = {"width": 16, "depth": 2, "heads": 2, "head_width": 4, "tokens_per_frame": 3}
FRAMES, TOKENS, CHANNELS = 4, 5, 6


def small(kind: Any) -> VideoFormer:
    torch.manual_seed(0)
    return VideoFormer(VideoFormerConfig(kind=kind, **SMALL), CHANNELS, FRAMES)


def features(num_samples: int = 2) -> torch.Tensor:
    return torch.randn(num_samples, FRAMES, TOKENS, CHANNELS, generator=torch.Generator().manual_seed(1))


def test_the_published_sizes_have_17_71_million_parameters() -> None:
    with torch.device("meta"):
        former = VideoFormer(VideoFormerConfig(), num_features=2560, num_frames=16)
    assert round(sum(parameter.numel() for parameter in former.parameters()) / 1e6, 2) == 17.71


@pytest.mark.parametrize(("kind", "tokens_of_a_frame"), [("3d", 3), ("2d", 3), ("none", TOKENS)])
def test_every_parameter_is_trained_and_the_tokens_lie_frame_by_frame(kind: str, tokens_of_a_frame: int) -> None:
    former = small(kind)
    tokens = former(features())
    assert tokens.shape == (2, FRAMES * tokens_of_a_frame, SMALL["width"])
    tokens.square().sum().backward()
    for name, parameter in former.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("kind", "sees_all"), [("3d", True), ("2d", False), ("none", False)])
def test_only_temporal_attention_carries_one_frame_into_the_tokens_of_others(kind: str, sees_all: bool) -> None:
    former = small(kind)
    before, changed = features(1), features(1)
    changed[:, 2] += 1.0
    with torch.no_grad():
        difference = (former(changed) - former(before)).abs().reshape(FRAMES, -1).amax(1)
    assert difference[2] > 1e-3
    assert bool((difference[[0, 1, 3]] > 1e-4).all()) == sees_all
    if not sees_all:
        assert float(difference[[0, 1, 3]].max()) == 0


def test_samples_do_not_see_each_other() -> None:
    former = small("3d")
    both = features(2)
    with torch.no_grad():
        torch.testing.assert_close(former(both)[1:], former(both[1:]))


@pytest.mark.parametrize(
    "shape", [(1, FRAMES + 1, TOKENS, CHANNELS), (1, FRAMES, TOKENS, CHANNELS + 1), (FRAMES, 5, 6)]
)
@pytest.mark.parametrize("kind", ["3d", "none"])
def test_features_of_another_shape_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected features \[B, 4, N, 6\]"):
        small(kind)(torch.zeros(shape))


@pytest.mark.parametrize("change", [{"width": 15}, {"depth": 0}, {"heads": 0}, {"tokens_per_frame": 0}])
def test_sizes_that_make_no_network_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="width divisible by the heads"):
        VideoFormerConfig(**(SMALL | change))


@pytest.mark.parametrize("kind", ["3d", "2d", "none"])
def test_where_a_feature_lies_is_known_only_with_token_positions(kind: Any) -> None:
    """Without, a frame's features are a set; `none` keeps their order in its output."""
    torch.manual_seed(0)
    config = VideoFormerConfig(kind=kind, token_positions=True, **SMALL)
    placed = VideoFormer(config, CHANNELS, FRAMES, TOKENS)
    assert placed.token_positions is not None
    torch.nn.init.normal_(placed.token_positions)
    swapped = [0, 1, 4, 3, 2]
    with torch.no_grad():
        for former, depends in ((placed, True), (small(kind), False)):
            before, after = former(features()), former(features()[:, :, swapped])
            if kind == "none":
                after = after.unflatten(1, (FRAMES, TOKENS))[:, :, swapped].flatten(1, 2)
            assert torch.allclose(before, after, atol=1e-6) != depends
    placed.train()(features()).square().sum().backward()
    assert placed.token_positions.grad is not None
    assert placed.token_positions.grad.abs().sum() > 0
