"""From a batch of windows to what the policy's network reads: features, goal, normalised actions and proprioception."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from vpp.data.window_batch import WindowBatch
from vpp.policy.normalise import Normaliser
from vpp.policy.perception import Perception
from vpp.train.feature_cache import FeatureCache
from vpp.video.text_encoder import ClipTextEncoder


@dataclass(frozen=True)
class NetworkInputs:
    """b samples on the worker's device.

    Attributes:
        features: `[b, T, N, C]`.
        goal: `[b, 512]`.
        proprio: Normalised `[b, P]`, or None.
        actions: Normalised `[b, H, A]`.
        action_is_pad: Bool `[b, H]`.
    """

    features: torch.Tensor
    goal: torch.Tensor
    proprio: torch.Tensor | None
    actions: torch.Tensor
    action_is_pad: torch.Tensor


class PolicyInputs:
    """Makes them.

    Args:
        perception: The frozen models, on the worker's device.
        text_encoder: Embeds captions as goals, each once.
        action_normalisers: By dataset.
        proprio_normalisers: By dataset; empty without proprioception.
        cache: Keeps features; None computes them each time.
        device: The worker's.
    """

    def __init__(
        self,
        perception: Perception,
        text_encoder: ClipTextEncoder,
        action_normalisers: Mapping[str, Normaliser],
        proprio_normalisers: Mapping[str, Normaliser],
        cache: FeatureCache | None,
        device: torch.device,
    ) -> None:
        self._perception, self._text_encoder, self._cache, self._device = perception, text_encoder, cache, device
        self._goals: dict[str, torch.Tensor] = {}
        self._actions, self._proprio = action_normalisers, proprio_normalisers

    def make(self, batch: WindowBatch, places: Sequence[int]) -> NetworkInputs:
        """What the network reads of some windows of a batch."""
        datasets = [batch.datasets[place] for place in places]
        return NetworkInputs(
            features=self._features(batch, places),
            goal=torch.stack([self._goal(batch.captions[place]) for place in places]),
            proprio=None if batch.proprio is None else _normalised(batch.proprio[places], datasets, self._proprio),
            actions=_normalised(batch.actions[places], datasets, self._actions),
            action_is_pad=batch.action_is_pad[places],
        )

    def _goal(self, caption: str) -> torch.Tensor:
        if caption not in self._goals:
            self._goals[caption] = torch.as_tensor(self._text_encoder.encode_goals([caption])[0]).to(self._device)
        return self._goals[caption]

    def _features(self, batch: WindowBatch, places: Sequence[int]) -> torch.Tensor:
        if self._cache is None:
            return self._compute(batch, places)
        kept = self._cache.get(batch.rows[places], lambda missing: self._compute(batch, [places[i] for i in missing]))
        return kept.to(self._device)

    @torch.no_grad()
    def _compute(self, batch: WindowBatch, places: Sequence[int]) -> torch.Tensor:
        if batch.latents is not None:
            latents = batch.latents[places].float()
        else:
            assert batch.frames is not None
            latents = self._perception.latents(batch.frames[places])
        instruction = self._perception.extractor.instruct(batch.text[places].float())
        return self._perception.features(latents, instruction)


def _normalised(values: torch.Tensor, datasets: Sequence[str], normalisers: Mapping[str, Normaliser]) -> torch.Tensor:
    return torch.stack([normalisers[name].normalise(value) for name, value in zip(datasets, values, strict=True)])
