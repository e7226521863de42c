"""The published implementation's tensors: the same weights and inputs give the same outputs, within 1e-4."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vpp.diffusion.sigmas import exponential_sigmas, log_logistic_sigmas
from vpp.policy.action_denoiser import ActionContext, ActionDenoiser
from vpp.policy.import_official import import_policy, read_official
from vpp.policy.objective import action_loss, sample_actions
from vpp.policy.video_former import VideoFormer
from vpp.train.optimizer import OptimizerSettings, learning_rate

BESIDE = Path(__file__).resolve().parents[4] / "shared" / "parity"
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def recordings() -> Path:
    folder = Path(os.environ.get("VPP_PARITY_DIR", BESIDE))
    if not folder.is_dir():
        pytest.skip(f"no recordings of the published implementation: neither VPP_PARITY_DIR nor {BESIDE}")
    return folder


def recording(folder: Path, name: str) -> tuple[dict[str, Any], State]:
    return json.loads((folder / f"{name}.json").read_text()), load_file(folder / f"{name}.safetensors")


def published_networks(state: State, heads: int) -> tuple[VideoFormer, ActionDenoiser]:
    found = import_policy(state, heads)
    former = VideoFormer(found.video_former, found.num_features, found.num_frames).eval()
    denoiser = ActionDenoiser(found.action_denoiser).eval()
    former.load_state_dict(found.video_former_state)
    denoiser.load_state_dict(found.action_denoiser_state)
    return former, denoiser


def recorded_networks(folder: Path, former: str) -> tuple[VideoFormer, ActionDenoiser]:
    heads = json.loads((folder / f"{former}.json").read_text())["config"]["heads"]
    assert json.loads((folder / "action_denoiser.json").read_text())["config"]["n_heads"] == heads
    state = {f"Video_Former.{key}": value for key, value in load_file(folder / f"{former}.weights.safetensors").items()}
    others = load_file(folder / "action_denoiser.weights.safetensors")
    return published_networks(state | {f"model.{key}": value for key, value in others.items()}, heads)


@pytest.fixture(scope="module")
def denoiser(recordings: Path) -> ActionDenoiser:
    found = recorded_networks(recordings, "video_former_3d")[1]
    told = json.loads((recordings / "action_denoiser.json").read_text())
    sizes = told["config"]
    assert found.config.sigma_data == told["sigma_data"]
    assert (found.config.action_dim, found.config.num_actions) == (sizes["action_dim"], sizes["action_seq_len"])
    assert (found.config.encoder_layers, found.config.decoder_layers) == (sizes["n_enc_layers"], sizes["n_dec_layers"])
    assert found.config.attention_dropout == sizes["attn_pdrop"]
    assert (found.config.residual_dropout, found.config.mlp_dropout) == (sizes["resid_pdrop"], sizes["mlp_pdrop"])
    return found


def context_of(denoiser: ActionDenoiser, tensors: State) -> ActionContext:
    return denoiser.encode(tensors["state_tokens"], tensors["goal"][:, 0])


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert found.shape == expected.shape
    relative = float((found - expected).norm() / expected.norm())
    assert relative < tolerance, f"relative error {relative:.1e}, expected {tolerance:.1e}"


@pytest.mark.parametrize("kind", ["3d", "2d"])
@torch.no_grad()
def test_video_former(recordings: Path, kind: str) -> None:
    _, tensors = recording(recordings, f"video_former_{kind}")
    former, _ = recorded_networks(recordings, f"video_former_{kind}")
    assert former.config.kind == kind
    assert_close(former(tensors["features"]), tensors["tokens"])


@torch.no_grad()
def test_denoised_actions(recordings: Path, denoiser: ActionDenoiser) -> None:
    _, tensors = recording(recordings, "action_denoiser")
    found = denoiser(tensors["noised"], tensors["sigma"], context_of(denoiser, tensors))
    for one, expected in zip(found, tensors["denoised"], strict=True):
        assert_close(one, expected)


@torch.no_grad()
def test_training_loss(recordings: Path, denoiser: ActionDenoiser) -> None:
    _, tensors = recording(recordings, "action_denoiser")
    is_pad = torch.zeros(tensors["actions"].shape[:2], dtype=torch.bool)
    losses = action_loss(
        denoiser, context_of(denoiser, tensors), tensors["actions"], is_pad, tensors["noise"], tensors["sigma"]
    )
    assert losses.shape == tensors["sigma"].shape
    assert_close(losses.mean().reshape(1), tensors["loss"])


@pytest.mark.parametrize("sigma_min", [0.001, 1.0])
def test_sampler(recordings: Path, denoiser: ActionDenoiser, sigma_min: float) -> None:
    _, tensors = recording(recordings, "action_denoiser")
    schedule = tensors[f"sigmas_min{sigma_min}"]
    num_steps, sigma_max = len(schedule) - 1, float(schedule[0])
    assert_close(exponential_sigmas(num_steps, sigma_min, sigma_max), schedule)
    noise = tensors[f"x_T_min{sigma_min}"] / sigma_max
    with torch.no_grad():
        context = context_of(denoiser, tensors)
    found = sample_actions(denoiser, context, noise, num_steps, sigma_min, sigma_max)
    assert_close(found, tensors[f"actions_min{sigma_min}"])


def test_sigma_density(recordings: Path) -> None:
    told, tensors = recording(recordings, "sigma_density")
    assert told["loc"] == "ln 0.5"
    found = log_logistic_sigmas(tensors["u"], math.log(0.5), told["scale"], told["min_value"], told["max_value"])
    for one, expected in zip(found, tensors["sigma"], strict=True):
        assert float(one) == pytest.approx(float(expected), rel=1e-4)


def test_tri_stage_learning_rate(recordings: Path) -> None:
    told, tensors = recording(recordings, "lr_tri_stage")
    settings = OptimizerSettings(
        learning_rate=told["peak"],
        schedule="tri_stage",
        phase_ratios=tuple(told["phase_ratio"]),
        start_scale=told["init_scale"],
        final_scale=told["final_scale"],
    )
    for step, expected in enumerate(tensors["lr"].tolist()):
        assert learning_rate(settings, step, told["total_steps"]) == pytest.approx(expected, rel=1e-4)


def test_policy_end_to_end(recordings: Path) -> None:
    told, tensors = recording(recordings, "policy_end_to_end")
    heads = json.loads((recordings / "video_former_3d.json").read_text())["config"]["heads"]
    former, denoiser = published_networks(read_official(str(recordings / told["weights"])), heads)
    with torch.no_grad():
        context = denoiser.encode(former(tensors["features"]), tensors["goal"][:, 0])
    noise = tensors["x_T"] / told["sigma_max"]
    found = sample_actions(denoiser, context, noise, told["steps"], told["sigma_min"], told["sigma_max"])
    assert_close(found, tensors["actions"])
