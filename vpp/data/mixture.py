"""How often a clip of each dataset is drawn: weights by dataset, fixed or times the dataset's size.

Published mixtures: `vpp` (arXiv 2412.14803: fixed probabilities) and `oxe_magic_soup` (Octo, arXiv 2405.12213;
octo-models/octo, `octo/data/oxe/oxe_dataset_mixes.py`: weight times size, as its training sets `balance_weights`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from schemas.errors import UsageError

logger = logging.getLogger(__name__)

MixtureMode = Literal["fixed", "weight_x_size"]
_MODES: tuple[MixtureMode, ...] = ("fixed", "weight_x_size")

ALSO_CALLED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sthv2": ("something_something_v2", "ssv2"),
        "fractal20220817_data": ("rt1",),
        "bridge_dataset": ("bridge_orig", "bridge"),  # newer copies of the same robot's data first
    }
)
"""Other names of a preset's dataset; a preset takes the first one that the data have."""


@dataclass(frozen=True)
class Mixture:
    """How datasets are mixed.

    Attributes:
        weights: By dataset; empty for 1 each.
        mode: `fixed`: probabilities are the weights, normalised; `weight_x_size`: weight times number of clips.
        preset: Its name if it is a published one: datasets that are absent are then left out.
        cameras: Published weights of cameras, by dataset and camera.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    mode: MixtureMode = "weight_x_size"
    preset: str = ""
    cameras: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def probabilities(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Probability of each dataset that is drawn from, in the order of the names.

        Args:
            sizes: Number of clips of each dataset there is.

        Raises:
            UsageError: If a dataset that is named outside a preset is absent, or none is left.
        """
        present = {name: size for name, size in sizes.items() if size > 0}
        known = ", ".join(sorted(present)) or "none"
        if not self.weights:
            weights = dict.fromkeys(present, 1.0)
        elif self.preset:
            weights = {}
            for name, weight in self.weights.items():
                found = next((other for other in (name, *ALSO_CALLED.get(name, ())) if other in present), None)
                if found:
                    weights[found] = weight
        else:
            absent = sorted(set(self.weights) - set(present))
            if absent:
                raise UsageError(
                    f"mixture: expected datasets that have clips to train on, found {', '.join(absent)}; known: {known}"
                )
            weights = dict(self.weights)
        result = mixture_probabilities(weights, present, self.mode)
        if not result:
            raise UsageError(
                f"mixture {self.preset or 'of all datasets'}: expected at least one of its datasets among those that "
                f"have clips to train on, found {known}; it has: {', '.join(sorted(self.weights)) or 'all'}"
            )
        if self.preset:
            taken = set(result)
            left_out = [n for n in self.weights if not taken.intersection((n, *ALSO_CALLED.get(n, ())))]
            if left_out:
                logger.info("mixture %s: without %s, which the data do not have", self.preset, ", ".join(left_out))
        unused = sorted(set(present) - set(result))
        if unused:
            logger.info("mixture: no clip is drawn from %s", ", ".join(unused))
        return result


def mixture_probabilities(
    weights: Mapping[str, float], sizes: Mapping[str, int], mode: MixtureMode
) -> dict[str, float]:
    """Probabilities of the datasets that have a weight above 0 and clips, normalised, in the order of the names.

    Args:
        weights: By dataset.
        sizes: Number of clips by dataset.
        mode: Whether a weight is taken as it is or times the size.

    >>> mixture_probabilities({"a": 1.0, "b": 2.0, "c": 5.0}, {"a": 300, "b": 50}, "weight_x_size")
    {'a': 0.75, 'b': 0.25}
    >>> mixture_probabilities({"a": 3.0, "b": 1.0, "c": 5.0}, {"a": 300, "b": 50}, "fixed")
    {'a': 0.75, 'b': 0.25}
    """
    shares = {
        name: weights[name] * (sizes[name] if mode == "weight_x_size" else 1)
        for name in sorted(weights)
        if weights[name] > 0 and sizes.get(name, 0) > 0
    }
    total = math.fsum(shares.values())
    return {name: share / total for name, share in shares.items()}


PRESETS: Mapping[str, Mixture] = MappingProxyType(
    {
        "vpp": Mixture(
            preset="vpp",
            mode="fixed",
            weights={
                "sthv2": 0.30,
                "fractal20220817_data": 0.15,
                "bridge_dataset": 0.15,
                "bc_z": 0.08,
                "taco_play": 0.01,
                "jaco_play": 0.01,
                "calvin": 0.10,
                "metaworld": 0.05,
                "panda": 0.05,
                "xhand": 0.10,
            },
            cameras={"calvin": {"rgb_static": 0.75, "rgb_gripper": 0.25}},
        ),
        "oxe_magic_soup": Mixture(
            preset="oxe_magic_soup",
            mode="weight_x_size",
            weights={
                "fractal20220817_data": 0.54087122203,
                "kuka": 0.8341046294,
                "bridge_dataset": 1.0,
                "taco_play": 2.0,
                "jaco_play": 1.0,
                "berkeley_cable_routing": 1.0,
                "roboturk": 2.0,
                "nyu_door_opening_surprising_effectiveness": 1.0,
                "viola": 2.0,
                "berkeley_autolab_ur5": 2.0,
                "toto": 1.0,
                "language_table": 0.1,
                "stanford_hydra_dataset_converted_externally_to_rlds": 2.0,
                "austin_buds_dataset_converted_externally_to_rlds": 1.0,
                "nyu_franka_play_dataset_converted_externally_to_rlds": 3.0,
                "furniture_bench_dataset_converted_externally_to_rlds": 0.1,
                "ucsd_kitchen_dataset_converted_externally_to_rlds": 2.0,
                "austin_sailor_dataset_converted_externally_to_rlds": 1.0,
                "austin_sirius_dataset_converted_externally_to_rlds": 1.0,
                "bc_z": 0.2,
                "dlr_edan_shared_control_converted_externally_to_rlds": 1.0,
                "iamlab_cmu_pickup_insert_converted_externally_to_rlds": 1.0,
                "utaustin_mutex": 1.0,
                "berkeley_fanuc_manipulation": 2.0,
                "cmu_stretch": 1.0,
            },
        ),
    }
)
"""Published mixtures by name."""


def parse_mixture(text: str) -> Mixture:
    """Reads a mixture: a preset's name or `NAME=WEIGHT,...`, either with `:fixed` or `:weight_x_size` behind it.

    Weights are fixed probabilities where nothing else is said; an empty text draws from all clips alike.

    Raises:
        UsageError: If the text is none of these.

    >>> parse_mixture("bridge=3,metaworld=1:weight_x_size")
    Mixture(weights={'bridge': 3.0, 'metaworld': 1.0}, mode='weight_x_size', preset='', cameras={})
    >>> parse_mixture("vpp").weights["calvin"]
    0.1
    """
    if not text.strip():
        return Mixture()
    body, colon, mode = text.strip().partition(":")
    if colon and mode not in _MODES:
        raise UsageError(f"mixture: expected {' or '.join(_MODES)} behind the colon, found {mode!r}")
    chosen = next((known for known in _MODES if known == mode), None)
    if "=" not in body:
        if body not in PRESETS:
            raise UsageError(
                f"mixture: expected NAME=WEIGHT,... or one of {', '.join(PRESETS)}, found {body!r}; "
                "nothing draws from all clips alike"
            )
        preset = PRESETS[body]
        return Mixture(preset.weights, chosen or preset.mode, preset.preset, preset.cameras)
    return Mixture(parse_weights(body, "mixture"), chosen or "fixed")


def parse_cameras(text: str) -> dict[str, dict[str, float]]:
    """Reads weights of cameras, `DATASET:CAMERA=WEIGHT,...;DATASET:...`.

    Raises:
        UsageError: If the text is something else.

    >>> parse_cameras("calvin:rgb_static=0.75,rgb_gripper=0.25;taco_play:rgb_static=1")
    {'calvin': {'rgb_static': 0.75, 'rgb_gripper': 0.25}, 'taco_play': {'rgb_static': 1.0}}
    """
    result: dict[str, dict[str, float]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        dataset, colon, weights = part.partition(":")
        if not colon or not dataset or dataset in result:
            raise UsageError(f"cameras: expected DATASET:CAMERA=WEIGHT,... once for a dataset, found {part!r}")
        result[dataset] = parse_weights(weights, f"cameras: {dataset}")
    return result


def parse_weights(text: str, where: str) -> dict[str, float]:
    """Reads `NAME=WEIGHT,...`, weights at least 0 and not all 0.

    Raises:
        UsageError: If the text is something else; begins with `where`.

    >>> parse_weights("a=1, b=0.5", "here")
    {'a': 1.0, 'b': 0.5}
    """
    weights: dict[str, float] = {}
    for item in text.split(","):
        name, _, number = (part.strip() for part in item.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name or not 0 <= weight < math.inf or name in weights:
            raise UsageError(f"{where}: expected NAME=WEIGHT with weights of at least 0, each once, found {item!r}")
        weights[name] = weight
    if not any(weights.values()):
        raise UsageError(f"{where}: expected a weight above 0, found {text!r}")
    return weights
