"""The authors' files become a policy's folder that acts, with a list of what was taken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from video_model import write_video_model

from schemas.errors import UsageError
from vpp.policy.action_denoiser import ActionDenoiser, ActionDenoiserConfig
from vpp.policy.compat import PUBLISHED
from vpp.policy.import_job import ImportSettings, import_official
from vpp.policy.policy import VideoPredictionPolicy
from vpp.policy.policy_folder import load_policy_folder
from vpp.policy.published_names import DENOISER, DENOISER_NAMES, FORMER, former_names, published_keys
from vpp.policy.video_former import VideoFormer, VideoFormerConfig
from vpp.video.denoiser import DenoiserConfig

FRAMES, HEADS = 2, 2


def write_official(path: Path, num_features: int) -> dict[str, torch.Tensor]:
    """A checkpoint in the authors' layout with random weights."""
    torch.manual_seed(0)
    former = VideoFormer(
        VideoFormerConfig(width=8, depth=1, heads=HEADS, head_width=4, tokens_per_frame=2), num_features, FRAMES
    )
    denoiser = ActionDenoiser(
        ActionDenoiserConfig(
            num_actions=5, token_width=8, width=8, heads=HEADS, encoder_layers=1, decoder_layers=1, compat=PUBLISHED
        )
    )
    state = {f"{DENOISER}pos_emb": torch.zeros(1, 1 + FRAMES * 2 + 5, 8), "language_goal.clip_rn50.x": torch.zeros(1)}
    for module, prefix, names in ((former, FORMER, former_names(True)), (denoiser, DENOISER, DENOISER_NAMES)):
        weights = module.state_dict()
        state |= {key: weights[name] for name, key in published_keys(weights, prefix, names).items()}
    torch.save({"model": state}, path)
    return state


@pytest.fixture(scope="module")
def video_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("video")
    write_video_model(folder, FRAMES)
    return str(folder)


def settings(policy: Path, video_model: str, output: Path) -> ImportSettings:
    return ImportSettings(
        policy=str(policy), video_model=video_model, output=str(output), text_encoder="tiny", heads=HEADS,
        model=DenoiserConfig(num_frames=FRAMES),
    )  # fmt: skip


def test_an_imported_policy_acts_and_says_what_it_is_made_of(video_model: str, tmp_path: Path) -> None:
    state = write_official(tmp_path / "policy.pt", num_features=256)
    import_official(settings(tmp_path / "policy.pt", video_model, tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "import.json").read_text())
    assert {*record["taken"], *record["ignored"]} == set(state)
    assert set(record["ignored"]) == {f"{DENOISER}pos_emb", "language_goal.clip_rn50.x"}
    config = load_policy_folder(str(tmp_path / "out")).config
    assert config.denoiser.compat == PUBLISHED
    assert (config.features.sigma, config.features.fps, config.features.seed) == (700.0, 4.0, None)
    policy = VideoPredictionPolicy.load(str(tmp_path / "out"), device="cpu")
    image = np.zeros((256, 256, 3), np.uint8)
    seen = {"observation.images.rgb_static": image, "observation.images.rgb_gripper": image, "task": "open the drawer"}
    assert policy.predict_action_chunk(seen).shape == (1, 5, 7)


def test_a_video_model_that_does_not_fit_is_refused(video_model: str, tmp_path: Path) -> None:
    write_official(tmp_path / "policy.pt", num_features=2560)
    with pytest.raises(UsageError, match=r"expected features of 2 frames and 2560 channels, .* found 2 and 256"):
        import_official(settings(tmp_path / "policy.pt", video_model, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--video-model: expected a path"):
        import_official(ImportSettings(policy="dp.pt", output=str(tmp_path)))
