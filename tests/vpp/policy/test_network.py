"""The trained half of a policy: several draws of noise share one encoded context."""

from __future__ import annotations

import torch

from vpp.policy.action_denoiser import ActionDenoiserConfig
from vpp.policy.network import PolicyNetwork
from vpp.policy.video_former import VideoFormerConfig

B, K, H, A = 3, 4, 5, 2


def test_the_loss_of_several_draws_is_the_mean_of_their_losses() -> None:
    torch.manual_seed(0)
    former = VideoFormerConfig(width=16, depth=1, heads=2, head_width=8, tokens_per_frame=2)
    denoiser = ActionDenoiserConfig(
        action_dim=A, num_actions=H, token_width=16, goal_width=6, width=16, heads=2, encoder_layers=1, decoder_layers=1
    )
    network = PolicyNetwork(former, denoiser, num_features=7, num_frames=2).eval()
    features, goal, actions = torch.randn(B, 2, 9, 7), torch.randn(B, 6), torch.randn(B, H, A)
    is_pad = torch.zeros(B, H, dtype=torch.bool)
    is_pad[1, 2:] = True
    noise, sigma = torch.randn(B, K, H, A), torch.rand(B, K) + 0.1
    with torch.no_grad():
        together = network(features, goal, None, actions, is_pad, noise, sigma)
        alone = [
            network(features, goal, None, actions, is_pad, noise[:, k : k + 1], sigma[:, k : k + 1]) for k in range(K)
        ]
    torch.testing.assert_close(together, torch.stack(alone).mean(0))
    assert len(together.unique()) == B
