"""A policy's folder: `config.json`, and `model.safetensors` with the trained weights and each dataset's normalisation.

The frozen models are named in the configuration, not copied. `config.json` is written last, so that a policy is
complete or absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import safetensors.torch
import torch
from safetensors import SafetensorError

from schemas.errors import UsageError
from schemas.plain_json import parse_json
from schemas.settings import from_mapping, to_mapping
from schemas.storage import exists, join, read_bytes, remove_file, write_bytes
from vpp.policy.config import PolicyConfig
from vpp.policy.network import PolicyNetwork
from vpp.policy.normalise import Normaliser

CONFIG, WEIGHTS = "config.json", "model.safetensors"
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


def save_policy(url: str, policy: PolicyFolder) -> None:
    """Writes a policy to a folder or URL; one that is there already is replaced."""
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
    write_bytes(join(url, CONFIG), (json.dumps(to_mapping(policy.config), indent=1) + "\n").encode(), _RETRY_S)


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
    network = make_network(config)
    weights = {name.removeprefix(_NETWORK): tensor for name, tensor in tensors.items() if name.startswith(_NETWORK)}
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    wrong = sorted(set(expected) ^ set(weights)) or [name for name in expected if weights[name].shape != expected[name]]
    if wrong:
        raise UsageError(
            f"policy {url}: expected in {WEIGHTS} the tensors that {CONFIG} describes, found a difference at {wrong[0]}"
        )
    network.load_state_dict(weights)
    return PolicyFolder(config, network, _normalisers(tensors, _ACTION), _normalisers(tensors, _PROPRIO))


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
    return from_mapping(PolicyConfig, values, path)


def _normalisers(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, Normaliser]:
    datasets = sorted({name[len(prefix) :].rpartition(".")[0] for name in tensors if name.startswith(prefix)})
    return {name: Normaliser(tensors[f"{prefix}{name}.offset"], tensors[f"{prefix}{name}.scale"]) for name in datasets}
