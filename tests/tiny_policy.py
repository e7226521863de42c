"""A policy with random weights for MetaWorld, small enough for tests, and the video model that it sees with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from video_model import write_video_model

from vpp.policy.action_denoiser import ActionDenoiserConfig
from vpp.policy.config import PolicyConfig, SamplerSettings
from vpp.policy.normalise import Normaliser
from vpp.policy.policy_folder import PolicyFolder, make_network, save_policy
from vpp.policy.video_former import VideoFormerConfig
from vpp.video.feature_settings import FeatureSettings

NUM_ACTIONS = 10

SEEN = {
    # A picture of one colour would leave the random VAE's normalisation nothing but rounding errors to scale up.
    "observation.images.corner2": np.random.default_rng(0).integers(256, size=(256, 256, 3), dtype=np.uint8),
    "observation.state": np.zeros(4, np.float32),
    "task": "open the drawer",
}
"""What a robot sees that this policy acts for."""


def write_policy(folder: Path, feature_seed: int | None = 0, proprio_dim: int = 4) -> str:
    """Writes both below `folder`; returns the policy's."""
    write_video_model(folder / "stage1")
    torch.manual_seed(0)
    config = PolicyConfig(
        cameras=("corner2",),
        video_model=str(folder / "stage1"),
        text_encoder="tiny",
        features=FeatureSettings(blocks=(0,), seed=feature_seed),
        num_features=128,
        num_frames=2,
        video_former=VideoFormerConfig(width=32, depth=1, heads=2, head_width=16, tokens_per_frame=2),
        denoiser=ActionDenoiserConfig(
            action_dim=4, num_actions=NUM_ACTIONS, token_width=32, width=32, heads=2, encoder_layers=1,
            decoder_layers=1, proprio_dim=proprio_dim,
        ),
        sampler=SamplerSettings(num_steps=2),
        datasets=("metaworld",),
    )  # fmt: skip
    numbers, state = (Normaliser(torch.zeros(4), torch.ones(4)) for _ in range(2))
    network = make_network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)  # so that everything matters
    url = str(folder / "policy")
    save_policy(
        url,
        PolicyFolder(config, network, {"metaworld": numbers}, {"metaworld": state} if proprio_dim else {}),
        "# A card",
    )
    return url
