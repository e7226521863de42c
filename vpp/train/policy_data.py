"""Which windows a policy trains on, from which frozen models they come, and how their numbers are normalised."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from schemas.errors import UsageError
from vpp.data.action_statistics import Statistics, action_statistics, proprio_statistics
from vpp.data.clip_batch import Representation
from vpp.data.settings import WindowSettings
from vpp.data.streams import training_order
from vpp.data.window_index import WindowIndex
from vpp.policy.normalise import Kind, Normaliser, make_normaliser

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PolicyData:
    """Windows that a policy can be trained on.

    Attributes:
        index: All windows.
        representation: What is read of a view: its stored latents, or its frame, which the VAE encodes in training.
        text_encoder: Name of the encoder that made the captions' token sequences.
        latent_codec: Name of the codec that made the stored latents; empty for frames.
        action_normalisers: By dataset, from the training episodes.
        proprio_normalisers: Likewise; empty without proprioception.
        mean_action: By dataset, normalised `[A]`: what a policy that sees nothing would best do.
    """

    index: WindowIndex
    representation: Representation
    text_encoder: str
    latent_codec: str
    action_normalisers: dict[str, Normaliser]
    proprio_normalisers: dict[str, Normaliser]
    mean_action: dict[str, torch.Tensor]

    @property
    def train(self) -> np.ndarray:
        """Rows of the windows that are trained on."""
        return self.index.split.train

    @property
    def held_out(self) -> np.ndarray:
        """Rows of those that judge the policy."""
        return self.index.split.validation

    def mean_actions(self, datasets: Sequence[str]) -> torch.Tensor:
        """The mean normalised action of each sample's dataset `[b, A]`."""
        return torch.stack([self.mean_action[name] for name in datasets])


def open_policy_data(
    url: str, settings: WindowSettings, normalise_actions: Kind, normalise_proprio: Kind
) -> PolicyData:
    """Opens a dataset for training a policy.

    Args:
        url: The output of `jobs/preprocess.py`, with episodes.
        settings: Which windows.
        normalise_actions: How actions are normalised.
        normalise_proprio: How proprioception is.

    Raises:
        UsageError: If there are no episodes with actions, they differ in cameras or sizes, or come from several
            frozen models.
    """
    index = WindowIndex.read(url, settings)
    models = index.models()
    text_encoder = _only("text encoder", {of_some.text_encoder for of_some in models}, url)
    has_latents = all(of_some.has_latents for of_some in models)
    latent_codec = _only("latent codec", {of_some.latent_codec for of_some in models}, url) if has_latents else ""
    training_order(index, index.split.train, settings, seed=0, global_batch=1)  # a wrong mixture is told now
    actions = action_statistics(index)
    judged = {index.datasets[code] for code in np.unique(index.dataset_codes_of(index.split.validation)).tolist()}
    if not judged <= set(actions):
        raise UsageError(
            f"--data {url}: expected episodes to train on in every dataset, found only held-out ones in "
            f"{', '.join(sorted(judged - set(actions)))}; leave it out with --loading.mixture or set "
            "--loading.validation-fraction 0"
        )
    proprio = proprio_statistics(index) if settings.proprio else {}
    action_normalisers = _normalisers(normalise_actions, actions)
    return PolicyData(
        index,
        "latents" if has_latents else "frames",
        text_encoder,
        latent_codec,
        action_normalisers,
        _normalisers(normalise_proprio, proprio),
        {name: action_normalisers[name].normalise(torch.from_numpy(of.mean).float()) for name, of in actions.items()},
    )


def _normalisers(kind: Kind, statistics: dict[str, Statistics]) -> dict[str, Normaliser]:
    return {
        name: make_normaliser(kind, mean=of.mean, std=of.std, low=of.low, high=of.high)
        for name, of in statistics.items()
    }


def _only(what: str, names: set[str], url: str) -> str:
    if len(names) > 1:
        found = " and ".join(sorted(repr(name) for name in names))
        raise UsageError(f"--data {url}: expected episodes of one {what}, found {found}; select those of one")
    return next(iter(names))
