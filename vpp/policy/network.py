"""The trained half of a policy: Video Former and action denoiser, one module for the training loop and for acting.

Letters of shapes: B samples, T frames, N tokens of all views of a frame, C channels, H actions of a chunk, A numbers of
an action, P numbers of proprioception. Source: arXiv 2412.14803, section 4.
"""

from __future__ import annotations

import torch
from torch import nn

from vpp.policy.action_denoiser import ActionContext, ActionDenoiser, ActionDenoiserConfig
from vpp.policy.objective import action_loss, sample_actions
from vpp.policy.video_former import VideoFormer, VideoFormerConfig


class PolicyNetwork(nn.Module):
    """Predicts action chunks from predictive features, an instruction and, where it is used, proprioception.

    Args:
        video_former: Of the Video Former.
        denoiser: Of the action denoiser; its `token_width` is the Video Former's width.
        num_features: Channels C of the features.
        num_frames: Frames T of the features.
        num_tokens: Tokens N of a frame.
    """

    def __init__(
        self,
        video_former: VideoFormerConfig,
        denoiser: ActionDenoiserConfig,
        num_features: int,
        num_frames: int,
        num_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.video_former = VideoFormer(video_former, num_features, num_frames, num_tokens)
        self.denoiser = ActionDenoiser(denoiser)

    def encode(self, features: torch.Tensor, goal: torch.Tensor, proprio: torch.Tensor | None) -> ActionContext:
        """What all sampler steps share, from features `[B, T, N, C]`, goal `[B, 512]` and proprioception `[B, P]`."""
        context: ActionContext = self.denoiser.encode(self.video_former(features), goal, proprio)
        return context

    @torch.no_grad()
    def draw(
        self,
        features: torch.Tensor,
        goal: torch.Tensor,
        proprio: torch.Tensor | None,
        noise: torch.Tensor,
        *,
        num_steps: int,
        sigma_min: float,
        sigma_max: float,
    ) -> torch.Tensor:
        """Actions, normalised float32 `[B, H, A]`, that grow from noise `[B, H, A]`; the context is encoded once."""
        context = self.encode(features, goal, proprio)
        return sample_actions(
            self.denoiser, context, noise, num_steps=num_steps, sigma_min=sigma_min, sigma_max=sigma_max
        )

    def forward(
        self,
        features: torch.Tensor,
        goal: torch.Tensor,
        proprio: torch.Tensor | None,
        actions: torch.Tensor,
        action_is_pad: torch.Tensor,
        noise: torch.Tensor,
        sigma: torch.Tensor,
    ) -> torch.Tensor:
        """The training loss of each sample, float32 `[B]`, over K draws of noise that share the encoded context.

        It is here so that a wrapper such as DDP sees the whole pass.

        Args:
            features: `[B, T, N, C]`.
            goal: Pooled text embedding `[B, 512]`.
            proprio: Normalised `[B, P]`; None without.
            actions: Normalised `[B, H, A]`.
            action_is_pad: Bool `[B, H]`; True behind the end of the episode.
            noise: Standard normal `[B, K, H, A]`.
            sigma: Noise levels `[B, K]`.
        """
        num_draws = noise.shape[1]
        context = self.encode(features, goal, proprio).repeated(num_draws)
        actions, action_is_pad = (values.repeat_interleave(num_draws, 0) for values in (actions, action_is_pad))
        losses = action_loss(self.denoiser, context, actions, action_is_pad, noise.flatten(0, 1), sigma.flatten())
        return losses.view(-1, num_draws).mean(1)
