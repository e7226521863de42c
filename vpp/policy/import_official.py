"""Reads the authors' stage 2 checkpoint (`dp-calvin`): a torch file `{"model": state dict}`.

All sizes but the number of heads follow from the shapes. `Video_Former.*` and `model.inner_model.*` are the trained
networks; the two frozen CLIP copies beside them are ignored, and so are embeddings that the published code has and does
not use.
"""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from typing import IO, Any

import torch
from torch import nn

from schemas import storage
from schemas.errors import DataError, UsageError
from schemas.torch_file import check_torch_file
from vpp.policy.action_denoiser import ActionDenoiser, ActionDenoiserConfig
from vpp.policy.compat import PUBLISHED
from vpp.policy.published_names import DENOISER, DENOISER_NAMES, FORMER, IGNORED, former_names, published_keys
from vpp.policy.video_former import VideoFormer, VideoFormerConfig

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class ImportedPolicy:
    """The authors' policy as ours.

    Attributes:
        video_former: Sizes of the Video Former.
        num_features: Channels of a feature token.
        num_frames: Frames of the features.
        action_denoiser: Sizes of the action denoiser, with the published faults switched on.
        video_former_state: State dict of our `VideoFormer`, float32.
        action_denoiser_state: State dict of our `ActionDenoiser`, float32.
        taken: Keys that were taken over, sorted.
        ignored: Keys that were not, sorted, each with the reason.
    """

    video_former: VideoFormerConfig
    num_features: int
    num_frames: int
    action_denoiser: ActionDenoiserConfig
    video_former_state: State
    action_denoiser_state: State
    taken: tuple[str, ...]
    ignored: tuple[tuple[str, str], ...]


def read_official(url: str) -> State:
    """Reads the tensors of such a file; nothing in it can run code.

    Args:
        url: Path or URL of the torch file.

    Raises:
        UsageError: If there is no such file, or it is not `{"model": state dict}`.
    """
    expected = f'{url}: expected the authors\' stage 2 checkpoint, a torch file {{"model": state dict}}'
    try:
        with storage.local_copy(url) as path, open(path, "rb") as file:
            content = _tensors(file, expected)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"{expected}, found no such file") from error
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        found = f"the keys {sorted(map(str, content))[:5]}" if isinstance(content, dict) else type(content).__name__
        raise UsageError(f"{expected}, found {found}")
    strange = [key for key, value in state.items() if not (isinstance(key, str) and isinstance(value, torch.Tensor))]
    if strange:
        raise UsageError(f"{expected} of tensors by name, found {strange[0]!r}: {type(state[strange[0]]).__name__}")
    shown = [key for key, tensor in state.items() if not _is_whole(tensor)]
    if shown:
        raise UsageError(f"{expected}, found {shown[0]!r} larger than what is stored of it")
    return state


def _is_whole(tensor: torch.Tensor) -> bool:
    """Whether every number is stored: otherwise a small file makes a network of any size."""
    return tensor.layout == torch.strided and tensor.nbytes <= tensor.untyped_storage().nbytes()


def _tensors(file: IO[bytes], expected: str) -> Any:
    try:
        check_torch_file(file, "it")
    except DataError as error:
        if error.reason == "unsafe_pickle":
            raise UsageError(
                f"{expected}, found one that will not unpickle as plain tensors: {error.detail}"
            ) from error
        raise UsageError(f"{expected}, found one that cannot be read ({error.detail}); download it again") from error
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UsageError(f"{expected}, found one that torch will not unpickle as plain tensors") from error
    except Exception as error:  # whatever a damaged file leads to; it lies here, so no connection can fail
        found = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(f"{expected}, found one that cannot be read ({found:.200}); download it again") from error


def import_policy(state: State, heads: int = 8, where: str = "checkpoint") -> ImportedPolicy:
    """Turns the authors' state dict into ours.

    Args:
        state: With the prefixes `Video_Former.` and `model.inner_model.`.
        heads: Of every attention, which no shape tells; 8 in the published models.
        where: Where the tensors come from, for messages.

    Raises:
        UsageError: If a key is missing or unknown, or a shape does not fit the others.
    """
    shapes = _Shapes(state, where)
    frames, tokens_per_frame, width = shapes.of(f"{FORMER}latents", 3)
    is_3d = any(key.startswith(f"{FORMER}layers.0.1.qkv.") for key in state)
    num_features = shapes.of(f"{FORMER}goal_emb.0.weight", 2)[1]
    denoiser_width, token_width = shapes.of(f"{DENOISER}tok_emb.weight", 2)
    num_positions = shapes.of(f"{DENOISER}pos_emb", 3)[1]  # goal, context tokens, actions
    num_actions = num_positions - 1 - frames * tokens_per_frame
    if num_actions < 1:
        raise UsageError(
            f"{where}: {DENOISER}pos_emb: expected more than 1 + {frames * tokens_per_frame} positions (goal, tokens, "
            f"actions), found {num_positions}"
        )
    inner = shapes.of(f"{FORMER}layers.0.0.to_q.weight", 2)[0]
    if heads < 1 or any(size % heads for size in (inner, width, denoiser_width)):
        raise UsageError(
            f"{where}: expected a number of heads that divides the widths {inner}, {width} and {denoiser_width}, found "
            f"{heads}"
        )
    former_config = VideoFormerConfig(
        kind="3d" if is_3d else "2d",
        width=width,
        depth=shapes.count(f"{FORMER}layers."),
        heads=heads,
        head_width=inner // heads,
        tokens_per_frame=tokens_per_frame,
    )
    denoiser_config = ActionDenoiserConfig(
        action_dim=shapes.of(f"{DENOISER}action_emb.weight", 2)[1],
        num_actions=num_actions,
        token_width=token_width,
        goal_width=shapes.of(f"{DENOISER}lang_emb.0.weight", 2)[1],
        width=denoiser_width,
        heads=heads,
        encoder_layers=shapes.count(f"{DENOISER}encoder.blocks."),
        decoder_layers=shapes.count(f"{DENOISER}decoder.blocks."),
        compat=PUBLISHED,
    )
    with torch.device("meta"):
        former = VideoFormer(former_config, num_features, frames)
        denoiser = ActionDenoiser(denoiser_config)
    former_keys = published_keys(former.state_dict(), FORMER, former_names(is_3d))
    denoiser_keys = published_keys(denoiser.state_dict(), DENOISER, DENOISER_NAMES)
    taken = {*former_keys.values(), *denoiser_keys.values()}
    ignored = _ignored(set(state) - taken, where)
    return ImportedPolicy(
        video_former=former_config,
        num_features=num_features,
        num_frames=frames,
        action_denoiser=denoiser_config,
        video_former_state=shapes.take(former, former_keys),
        action_denoiser_state=shapes.take(denoiser, denoiser_keys),
        taken=tuple(sorted(taken)),
        ignored=ignored,
    )


class _Shapes:
    """Tensors by their published names; what is missing or does not fit is the user's mistake."""

    def __init__(self, state: State, where: str) -> None:
        self.state, self.where = state, where

    def of(self, key: str, num_axes: int) -> tuple[int, ...]:
        tensor = self._get(key)
        if tensor.ndim != num_axes or not tensor.numel():
            raise UsageError(f"{self.where}: {key}: expected {num_axes} axes, found shape {list(tensor.shape)}")
        return tuple(tensor.shape)

    def count(self, prefix: str) -> int:
        """Layers below a prefix; gaps in their numbers show as missing keys."""
        numbers = (re.match(r"\d+", key[len(prefix) :]) for key in self.state if key.startswith(prefix))
        return max(1, len({number[0] for number in numbers if number}))

    def take(self, module: nn.Module, keys: dict[str, str]) -> State:
        taken = {}
        for name, expected in module.state_dict().items():
            tensor = self._get(keys[name])
            if tensor.shape != expected.shape:
                raise UsageError(
                    f"{self.where}: {keys[name]}: expected shape {list(expected.shape)}, as the other tensors tell, "
                    f"found {list(tensor.shape)}"
                )
            taken[name] = tensor.float()
        return taken

    def _get(self, key: str) -> torch.Tensor:
        if key not in self.state:
            raise UsageError(
                f"{self.where}: expected the key {key} of the authors' stage 2 checkpoint, found none among its "
                f"{len(self.state)} keys; download the whole file again"
            )
        return self.state[key]


def _ignored(keys: set[str], where: str) -> tuple[tuple[str, str], ...]:
    reasons = {key: reason for key in keys for start, reason in IGNORED if key.startswith(start)}
    unknown = sorted(keys - set(reasons))
    if unknown:
        raise UsageError(
            f"{where}: expected only keys of the authors' stage 2 checkpoint, found {len(unknown)} unknown: "
            f"{', '.join(unknown[:3])}; another version of their code may have written it"
        )
    return tuple(sorted(reasons.items()))
