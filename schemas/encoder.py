"""What the pipeline asks of a text encoder and of a latent codec, and how both name themselves in the manifest.

The models live elsewhere; a job hands the pipeline a factory (a picklable callable without arguments) that makes one
in each worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

TEXT_TOKENS = 20
"""Captions are padded or cut to this many CLIP tokens (arXiv 2412.14803, published code)."""

TEXT_WIDTH = 512
"""Width of CLIP ViT-B/32's text encoder."""

STAND_IN = "tiny"
"""Names a model with random weights and a fixed seed, wherever a hub id or a folder is expected."""

LATENT_SHAPE = (4, 32, 32)
"""Shape of the SVD VAE's latents of one 256x256 frame."""


def latent_shape(frame_size: int) -> tuple[int, int, int]:
    """Shape of the latents of a square frame of so many pixels.

    >>> latent_shape(256) == LATENT_SHAPE
    True
    """
    return (LATENT_SHAPE[0], frame_size // 8, frame_size // 8)


class TextEncoder(Protocol):
    """CLIP's text encoder, frozen.

    Attributes:
        model_id: Name and revision, as it stands in the manifest.
        is_stand_in: True for randomly initialised weights.
    """

    model_id: str
    is_stand_in: bool

    def encode(self, captions: Sequence[str]) -> np.ndarray:
        """Token sequences (`last_hidden_state`) float16 `[N, 20, 512]`."""
        ...


class LatentCodec(Protocol):
    """The SVD VAE's encoder, frozen.

    Attributes:
        model_id: Name and revision, as it stands in the manifest.
        is_stand_in: True for randomly initialised weights.
        scaling_factor: What the latents are multiplied with (0.18215 for SVD).
    """

    model_id: str
    is_stand_in: bool
    scaling_factor: float

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Scaled latents (the mode of the posterior) float16 `[N, 4, H/8, W/8]` of RGB frames uint8 `[N, H, W, 3]`."""
        ...


def same_model(a: str, b: str) -> bool:
    """Whether two ids name the same weights: by their revisions where both have one, else by the whole id.

    >>> same_model("runs/7/codec@0123456789ab", "/mnt/copy@0123456789ab"), same_model("codec@0123", "codec@4567")
    (True, False)
    >>> same_model("openai/clip", "openai/clip"), same_model("openai/clip", "openai/clip@0123")
    (True, False)
    """
    (_, at_a, revision_a), (_, at_b, revision_b) = a.rpartition("@"), b.rpartition("@")
    return revision_a == revision_b if at_a and at_b else a == b


TextEncoderFactory = Callable[[], TextEncoder]
LatentCodecFactory = Callable[[], LatentCodec]
