"""A policy's folder of strangers: whatever `config.json` claims, no more is made than is stored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hostile import EFFORTS, json_mutants, mutants, survives
from safetensors.torch import save_file
from torch import nn

from schemas.errors import UsageError
from vpp.policy.action_denoiser import ActionDenoiserConfig
from vpp.policy.config import PolicyConfig
from vpp.policy.normalise import Normaliser
from vpp.policy.policy_folder import PolicyFolder, load_policy_folder, make_network, save_policy
from vpp.policy.video_former import VideoFormerConfig
from vpp.video.partial_weights import load_by_name

CONFIG = PolicyConfig(
    cameras=("a",),
    num_features=8,
    num_frames=2,
    video_former=VideoFormerConfig(width=8, depth=1, heads=2, head_width=4, tokens_per_frame=2),
    denoiser=ActionDenoiserConfig(
        action_dim=3, num_actions=2, token_width=8, width=8, heads=2, encoder_layers=1, decoder_layers=1, goal_width=4
    ),
    datasets=("d",),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    normaliser = Normaliser(torch.zeros(3), torch.ones(3))
    save_policy(str(tmp_path), PolicyFolder(CONFIG, make_network(CONFIG), {"d": normaliser}, {}), "# A card")
    return tmp_path


@EFFORTS
def test_a_configuration(folder: Path, effort: int) -> None:
    path = folder / "config.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        load_policy_folder(str(folder))

    survives(read, json_mutants(json.loads(path.read_bytes())), effort)


@EFFORTS
def test_weights(folder: Path, effort: int) -> None:
    path = folder / "model.safetensors"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        load_policy_folder(str(folder))

    survives(read, mutants(path.read_bytes()), effort)


@pytest.mark.parametrize(
    "changes",
    [
        {"denoiser": replace(CONFIG.denoiser, width=2**24)},
        {"denoiser": replace(CONFIG.denoiser, encoder_layers=10**9)},
        {"video_former": replace(CONFIG.video_former, depth=10**9)},
        {"num_features": 2**60},
    ],
)
def test_sizes_that_nobody_has_stored_take_no_memory(folder: Path, changes: dict) -> None:
    from runtime.settings import to_mapping

    (folder / "config.json").write_text(json.dumps(to_mapping(replace(CONFIG, **changes))))
    with pytest.raises(UsageError, match="policy"):
        load_policy_folder(str(folder))


@pytest.mark.parametrize(
    "index", [{"weight_map": {"weight": "../../x.safetensors"}}, {"weight_map": {"weight": "/x"}}, [], {}]
)
def test_an_index_of_weights_names_no_other_folder(tmp_path: Path, index: object) -> None:
    save_file({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}, tmp_path / "x.safetensors")
    model = tmp_path / "model/unet"
    model.mkdir(parents=True)
    (model / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with torch.device("meta"):
        layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="index of the weights"):
        load_by_name(layer, str(tmp_path / "model"), "unet")
