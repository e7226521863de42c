"""A policy's folder: `config.json`, and `model.safetensors` with the trained weights and each dataset's normalisation.

The frozen models are named in the configuration, not copied. `config.json` is written last, so that a policy is
complete or absent. With its `type` and the two files of processors the folder is also a pretrained policy of LeRobot,
which `lerobot_policy_vpp` opens: what LeRobot does before and after a policy is only to move tensors, since ours
normalises by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from runtime.settings import from_mapping, to_mapping
from schemas.errors import UsageError
from schemas.hub_card import CARD
from schemas.plain_json import parse_json
from schemas.storage import exists, join, read_bytes, remove_file, write_bytes
from vpp.policy.config import PolicyConfig
from vpp.policy.network import PolicyNetwork
from vpp.policy.normalise import Normaliser
from vpp.video.model_folder import first_line

CONFIG, WEIGHTS = "config.json", "model.safetensors"
TYPE = "vpp"
"""Name of this kind of policy in LeRobot."""

_PROCESSORS: dict[str, list[dict[str, Any]]] = {
    "policy_preprocessor": [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}},
    ],
    "policy_postprocessor": [
        {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}},
    ],
}
"""Of LeRobot, by the name of the file that holds them; `lerobot-eval` puts its own device in."""

_RETRY_S = 300.0
_NETWORK, _ACTION, _PROPRIO = "network.", "normalise.action.", "normalise.proprio."


@dataclass(frozen=True)
class PolicyFolder:
    """What a folder holds.

    Attributes:
        config: What the weights mean.
        network: The trained half, with its weights, on the CPU and in float32.
        action_normalisers: By dataset.
        proprio_normalisers: By dataset; empty without proprioception.
    """

    config: PolicyConfig
    network: PolicyNetwork
    action_normalisers: Mapping[str, Normaliser]
    proprio_normalisers: Mapping[str, Normaliser]


def make_network(config: PolicyConfig) -> PolicyNetwork:
    """The network of a configuration with random weights."""
    return PolicyNetwork(
        config.video_former, config.denoiser, config.num_features, config.num_frames, config.num_tokens
    )


def save_policy(url: str, policy: PolicyFolder, card: str) -> None:
    """Writes a policy to a folder or URL; one that is there already is replaced.

    Args:
        url: The folder.
        policy: What is written.
        card: The model card, Markdown.
    """
    tensors = {_NETWORK + name: tensor for name, tensor in policy.network.state_dict().items()}
    for prefix, normalisers in (
        (_ACTION, policy.action_normalisers), (_PROPRIO, policy.proprio_normalisers),
    ):  # fmt: skip
        for dataset, normaliser in normalisers.items():
            tensors |= {f"{prefix}{dataset}.offset": normaliser.offset, f"{prefix}{dataset}.scale": normaliser.scale}
    if exists(join(url, CONFIG)):
        remove_file(join(url, CONFIG))
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(join(url, WEIGHTS), safetensors.torch.save(contiguous), _RETRY_S)
    for name, steps in _PROCESSORS.items():
        _write_json(join(url, f"{name}.json"), {"name": name, "steps": steps})
    write_bytes(join(url, CARD), card.encode(), _RETRY_S)
    _write_json(join(url, CONFIG), {"type": TYPE, **to_mapping(policy.config)})


def _write_json(url: str, content: dict[str, Any]) -> None:
    write_bytes(url, (json.dumps(content, indent=1) + "\n").encode(), _RETRY_S)


def load_policy_folder(url: str) -> PolicyFolder:
    """Reads what `save_policy` wrote.

    Raises:
        UsageError: If there is no complete policy, or its weights are not those of its configuration.
    """
    config = read_config(url)
    try:
        tensors = safetensors.torch.load(read_bytes(join(url, WEIGHTS)))
    except (FileNotFoundError, SafetensorError) as error:
        raise UsageError(f"policy {url}: expected {WEIGHTS}, found {type(error).__name__}; copy it again") from error
    weights = {name.removeprefix(_NETWORK): tensor for name, tensor in tensors.items() if name.startswith(_NETWORK)}
    expected = _shapes(config, len(weights), url)
    wrong = sorted(set(expected) ^ set(weights)) or [name for name in expected if weights[name].shape != expected[name]]
    if wrong:
        raise UsageError(
            f"policy {url}: expected in {WEIGHTS} the tensors that {CONFIG} describes, found a difference at {wrong[0]}"
        )
    network = make_network(config)
    network.load_state_dict(weights)
    actions = _normalisers(tensors, _ACTION, config.denoiser.action_dim, url)
    return PolicyFolder(config, network, actions, _normalisers(tensors, _PROPRIO, config.denoiser.proprio_dim, url))


def _shapes(config: PolicyConfig, num_weights: int, url: str) -> dict[str, torch.Size]:
    """Shapes of the weights that a configuration describes; no memory is taken for sizes that nobody has stored.

    Raises:
        UsageError: If there can be no such network.
    """
    num_layers = config.denoiser.encoder_layers + config.denoiser.decoder_layers
    num_layers += 0 if config.video_former.kind == "none" else config.video_former.depth
    if num_layers > num_weights:
        raise UsageError(f"policy {url}: expected the weights of {num_layers} layers, found {num_weights} tensors")
    try:
        with torch.device("meta"):
            return {name: tensor.shape for name, tensor in make_network(config).state_dict().items()}
    except (RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        raise UsageError(f"policy {url}: expected sizes of a network in {CONFIG}: {first_line(error)}") from error


def read_config(url: str) -> PolicyConfig:
    """Reads the configuration alone.

    Raises:
        UsageError: If there is none, or it is not one.
    """
    path = join(url, CONFIG)
    if not exists(path):
        raise UsageError(f"policy {url}: expected a folder of jobs/stage2.py (its policy/), found no {CONFIG} in it")
    try:
        values = parse_json(read_bytes(path))
    except ValueError as error:
        raise UsageError(f"{path}: expected JSON, found {error}") from error
    if isinstance(values, dict) and values.pop("type", TYPE) != TYPE:  # older folders have none
        raise UsageError(f"{path}: expected a policy of jobs/stage2.py, found one of another type of LeRobot's")
    return from_mapping(PolicyConfig, values, path)


def _normalisers(tensors: Mapping[str, torch.Tensor], prefix: str, width: int, url: str) -> dict[str, Normaliser]:
    datasets = sorted({name[len(prefix) :].rpartition(".")[0] for name in tensors if name.startswith(prefix)})
    found = {}
    for name in datasets:
        offset, scale = (tensors.get(f"{prefix}{name}.{part}") for part in ("offset", "scale"))
        for tensor in (offset, scale):
            if tensor is None or tensor.shape != (width,) or not tensor.isfinite().all():
                raise UsageError(f"policy {url}: expected {prefix}{name} with {width} finite offsets and scales")
        assert offset is not None
        assert scale is not None
        found[name] = Normaliser(offset, scale)
    return found
