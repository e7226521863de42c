"""The authors' checkpoint becomes ours, key by key, and a file that is not one is told so in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from schemas.errors import UsageError
from vpp.policy.action_denoiser import ActionDenoiser, ActionDenoiserConfig
from vpp.policy.compat import PUBLISHED
from vpp.policy.import_official import import_policy, read_official
from vpp.policy.published_names import DENOISER, DENOISER_NAMES, FORMER, former_names, published_keys
from vpp.policy.video_former import VideoFormer, VideoFormerConfig

FRAMES, CHANNELS, HEADS = 3, 5, 2
SIZES = {"width": 8, "depth": 2, "heads": HEADS, "head_width": 6, "tokens_per_frame": 2}
ACTIONS = ActionDenoiserConfig(
    action_dim=4, num_actions=6, token_width=8, goal_width=7, width=12, heads=HEADS, encoder_layers=1, decoder_layers=3,
    compat=PUBLISHED,
)  # fmt: skip

State = dict[str, torch.Tensor]


def published_state(kind: Any = "3d") -> tuple[VideoFormer, ActionDenoiser, State]:
    """Our networks, and a checkpoint of theirs in the authors' layout."""
    torch.manual_seed(0)
    former = VideoFormer(VideoFormerConfig(kind=kind, **SIZES), CHANNELS, FRAMES)
    denoiser = ActionDenoiser(ACTIONS)
    state = {}
    for module, prefix, names in (
        (former, FORMER, former_names(kind == "3d")),
        (denoiser, DENOISER, DENOISER_NAMES),
    ):
        weights = module.state_dict()
        state |= {key: weights[name] for name, key in published_keys(weights, prefix, names).items()}
    state[f"{DENOISER}pos_emb"] = torch.zeros(1, 1 + FRAMES * 2 + ACTIONS.num_actions, ACTIONS.width)
    state[f"{DENOISER}goal_emb.0.weight"] = torch.zeros(24, 7)
    state[f"{DENOISER}proprio_emb.2.bias"] = torch.zeros(12)
    state["language_goal.clip_rn50.positional_embedding"] = torch.zeros(77, 8)
    state["TVP_encoder.text_encoder.text_projection.weight"] = torch.zeros(8, 8)
    return former, denoiser, state


@pytest.mark.parametrize("kind", ["3d", "2d"])
def test_sizes_follow_from_the_shapes_and_weights_are_taken_over(kind: str) -> None:
    former, denoiser, state = published_state(kind)
    found = import_policy(state, HEADS)
    assert found.video_former == former.config
    assert (found.num_features, found.num_frames) == (CHANNELS, FRAMES)
    assert found.action_denoiser == ACTIONS
    for ours, imported in ((former, found.video_former_state), (denoiser, found.action_denoiser_state)):
        weights = ours.state_dict()
        assert weights.keys() == imported.keys()
        assert all(torch.equal(weights[name], imported[name]) for name in weights)


def test_every_key_is_taken_or_ignored_with_a_reason() -> None:
    _, _, state = published_state()
    found = import_policy(state, HEADS)
    ignored = [key for key, _ in found.ignored]
    assert sorted([*found.taken, *ignored]) == sorted(state)
    assert ignored == [
        "TVP_encoder.text_encoder.text_projection.weight",
        "language_goal.clip_rn50.positional_embedding",
        "model.inner_model.goal_emb.0.weight",
        "model.inner_model.pos_emb",
        "model.inner_model.proprio_emb.2.bias",
    ]
    assert all(reason for _, reason in found.ignored)


def test_the_keys_of_the_published_layout_are_all_known() -> None:
    beside = Path(__file__).resolve().parents[4] / "shared" / "parity"
    folder = Path(os.environ.get("VPP_PARITY_DIR", beside))
    if not folder.is_dir():
        pytest.skip(f"no recordings of the published implementation: neither VPP_PARITY_DIR nor {beside}")
    heads = json.loads((folder / "video_former_3d.json").read_text())["config"]["heads"]
    found = import_policy(read_official(str(folder / "dp_calvin_layout.pt")), heads)
    published = json.loads((folder / "dp_calvin_layout.keys.json").read_text())
    assert sorted([*found.taken, *(key for key, _ in found.ignored)]) == sorted(published)


def test_weights_in_half_precision_become_float32() -> None:
    _, _, state = published_state()
    found = import_policy({key: value.half() for key, value in state.items()}, HEADS)
    assert {tensor.dtype for tensor in found.action_denoiser_state.values()} == {torch.float32}


def assert_one_line(error: pytest.ExceptionInfo[UsageError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_any_missing_key_is_named() -> None:
    _, _, whole = published_state()
    for key in import_policy(whole, HEADS).taken:
        state = {name: value for name, value in whole.items() if name != key}
        with pytest.raises(UsageError) as error:
            import_policy(state, HEADS, "dp.pt")
        assert_one_line(error, "dp.pt", key)


@pytest.mark.parametrize(
    "key", ["model.inner_model.new.weight", "Video_Former.layers.0.3.weight", "optimizer", "TVP_encoder.unet.weight"]
)
def test_an_unknown_key_is_named(key: str) -> None:
    _, _, state = published_state()
    with pytest.raises(UsageError) as error:
        import_policy(state | {key: torch.zeros(1)}, HEADS, "dp.pt")
    assert_one_line(error, "dp.pt", "unknown", key)


@pytest.mark.parametrize(
    ("key", "shape", "parts"),
    [
        ("Video_Former.time_pos_emb", (4, 1, 8), ["expected shape [3, 1, 8]", "found [4, 1, 8]"]),
        ("Video_Former.latents", (6, 8), ["expected 3 axes", "[6, 8]"]),
        ("Video_Former.latents", (3, 0, 8), ["expected 3 axes", "[3, 0, 8]"]),
        ("model.inner_model.action_pred.bias", (5,), ["expected shape [4]", "found [5]"]),
        ("model.inner_model.pos_emb", (1, 7, 12), ["expected more than 1 + 6 positions", "found 7"]),
    ],
)
def test_shapes_that_do_not_fit_are_named(key: str, shape: tuple[int, ...], parts: list[str]) -> None:
    _, _, state = published_state()
    with pytest.raises(UsageError) as error:
        import_policy(state | {key: torch.zeros(shape)}, HEADS, "dp.pt")
    assert_one_line(error, "dp.pt", key, *parts)


@pytest.mark.parametrize("heads", [0, 5, 8])
def test_a_number_of_heads_that_does_not_fit_is_refused(heads: int) -> None:
    _, _, state = published_state()
    with pytest.raises(UsageError, match="heads that divides the widths 12, 8 and 12"):
        import_policy(state, heads)


def test_a_torch_file_is_read_back(tmp_path: Path) -> None:
    _, _, state = published_state()
    torch.save({"model": state}, tmp_path / "dp.pt")
    found = read_official(str(tmp_path / "dp.pt"))
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


class RunsCode:
    """Unpickling it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def write_not_a_checkpoint(case: str, path: Path) -> None:
    _, _, state = published_state()
    if case == "code":
        torch.save({"model": state | {"x": RunsCode(path.parent / "ran")}}, path)
    elif case == "state_dict_alone":
        torch.save(state, path)
    elif case == "list":
        torch.save([1, 2], path)
    elif case == "tensor_as_model":
        torch.save({"model": torch.zeros(2)}, path)
    elif case == "numbers":
        torch.save({"model": {"a": 1}}, path)
    elif case == "safetensors":
        save_file({"a": torch.zeros(2)}, path)
    elif case == "cut":
        torch.save({"model": state}, path)
        path.write_bytes(path.read_bytes()[:5000])
    elif case == "empty":
        path.write_bytes(b"")
    elif case == "folder":
        path.mkdir()


@pytest.mark.parametrize(
    ("case", "found"),
    [
        ("code", "will not unpickle"),
        ("state_dict_alone", "found the keys ['TVP_encoder"),
        ("list", "found list"),
        ("tensor_as_model", "found the keys ['model']"),
        ("numbers", "of tensors by name, found 'a': int"),
        ("safetensors", "found one"),
        ("cut", "cannot be read"),
        ("empty", "cannot be read"),
        ("folder", "found no such file"),
        ("absent", "found no such file"),
    ],
)
def test_a_file_that_is_no_such_checkpoint_is_told_so_and_runs_no_code(tmp_path: Path, case: str, found: str) -> None:
    path = tmp_path / "dp.pt"
    write_not_a_checkpoint(case, path)
    with pytest.raises(UsageError) as error:
        read_official(str(path))
    assert_one_line(error, str(path), "authors' stage 2 checkpoint", found)
    assert not (tmp_path / "ran").exists()
