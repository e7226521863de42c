"""Makes our policy's folder from the authors' files.

<output>/config.json, model.safetensors   the policy
<output>/import.json                      which tensors were taken, and which ignored, with the reason
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import torch

from runtime.settings import commit
from schemas.errors import UsageError
from schemas.storage import absolute, check_writable, join, write_bytes
from vpp.policy.card import policy_card
from vpp.policy.config import PolicyConfig, SamplerSettings
from vpp.policy.import_official import ImportedPolicy, import_policy, read_official
from vpp.policy.normalise import Normaliser
from vpp.policy.perception import load_perception
from vpp.policy.policy_folder import PolicyFolder, make_network, save_policy
from vpp.video.denoiser import DenoiserConfig
from vpp.video.feature_settings import PUBLISHED, FeatureSettings
from vpp.video.model_folder import find_model


@dataclass(frozen=True)
class ImportSettings:
    """Makes a policy's folder from the authors' files, for example:

    python jobs/import_official.py --policy dp-calvin.pt --video-model svd-robot-calvin/ --output out/dp-calvin

    Also read from this job's section of vpp.yaml in the working directory, or of --config FILE.
    """

    policy: str = ""
    """File or URL of the authors' stage 2 checkpoint."""
    video_model: str = ""
    """Folder, URL or hub id of the video model that it was trained with; its weights are hashed, not copied."""
    output: str = ""
    """Folder or URL to write to."""
    cameras: tuple[str, ...] = ("rgb_static", "rgb_gripper")
    """Views that the policy sees, in order."""
    dataset: str = "calvin"
    """Name of the data that its actions belong to; they stay as the published code has them."""
    text_encoder: str = "openai/clip-vit-base-patch32"
    """Hub id or folder of CLIP's text model, or `tiny`."""
    heads: int = 8
    """Heads of the attentions, which no shape tells."""
    features: FeatureSettings = field(default_factory=lambda: PUBLISHED)
    """What is taken from the video model; as published."""
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    """How actions are drawn; as published, but for the seed."""
    model: DenoiserConfig = field(default_factory=DenoiserConfig)
    """How the video model is called: `svd-robot-calvin` as it stands, `svd-robot` with `position_encode`."""


def import_official(settings: ImportSettings) -> ImportedPolicy:
    """Runs the job; returns what was taken and what was ignored.

    Raises:
        UsageError: If a setting is missing, a file is not what it should be, or the two do not fit each other.
    """
    for name in ("policy", "video_model", "output"):
        if not getattr(settings, name):
            raise UsageError(f"--{name.replace('_', '-')}: expected a path, found nothing")
    imported = import_policy(read_official(settings.policy), settings.heads, settings.policy)
    video_model = find_model(absolute(settings.video_model))
    perception = load_perception(video_model, "", settings.features, torch.device("cpu"), settings.model)
    found = (perception.extractor.num_frames, perception.extractor.num_channels)
    if found != (imported.num_frames, imported.num_features):
        raise UsageError(
            f"--video-model {settings.video_model}: expected features of {imported.num_frames} frames and "
            f"{imported.num_features} channels, as {settings.policy} reads, found {found[0]} and {found[1]}; name the "
            "model that the policy was trained with, or set --features.blocks"
        )
    config = PolicyConfig(
        cameras=settings.cameras,
        video_model=video_model,
        video_model_hash=perception.hash,
        text_encoder=settings.text_encoder,
        features=settings.features,
        num_features=imported.num_features,
        num_frames=imported.num_frames,
        video_former=imported.video_former,
        denoiser=imported.action_denoiser,
        sampler=settings.sampler,
        datasets=(settings.dataset,),
        trained_by=f"imported from {settings.policy}, commit {commit()}",
    )
    network = make_network(config)
    network.video_former.load_state_dict(imported.video_former_state)
    network.denoiser.load_state_dict(imported.action_denoiser_state)
    as_it_is = Normaliser(torch.zeros(config.denoiser.action_dim), torch.ones(config.denoiser.action_dim))
    check_writable(settings.output)
    record = {"from": settings.policy, "taken": imported.taken, "ignored": dict(imported.ignored)}
    write_bytes(join(settings.output, "import.json"), (json.dumps(record, indent=1) + "\n").encode())
    num_weights = sum(weights.numel() for weights in network.parameters())
    card = policy_card(config, num_weights, "The weights are those of the authors' checkpoint, brought into this form.")
    save_policy(settings.output, PolicyFolder(config, network, {settings.dataset: as_it_is}, {}), card)
    return imported
