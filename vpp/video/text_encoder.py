"""CLIP's text encoder as the published code calls it: 20 tokens, padded with the end token, padding masked inside CLIP.

Source: arXiv 2412.14803 and its public code (`last_hidden_state` of ViT-B/32, width 512).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizerFast

from schemas.encoder import TEXT_TOKENS, TEXT_WIDTH
from schemas.errors import UsageError

STAND_IN = "tiny"
_START_TOKEN, _END_TOKEN = 49406, 49407
_SEED = 0

Tokenize = Callable[[str], list[int]]
"""A caption to its BPE token ids, without start and end."""


class ClipTextEncoder:
    """Implements `schemas.encoder.TextEncoder`.

    Args:
        model: CLIP's text model.
        tokenize: Its tokenizer.
        model_id: Name and revision for the manifest.
        is_stand_in: True for random weights.
    """

    def __init__(self, model: CLIPTextModel, tokenize: Tokenize, model_id: str, is_stand_in: bool) -> None:
        self.model_id = model_id
        self.is_stand_in = is_stand_in
        self._tokenize = tokenize
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def encode(self, captions: Sequence[str]) -> np.ndarray:
        """Token sequences (`last_hidden_state`) float16 `[N, 20, 512]`; longer captions are cut."""
        tokens = torch.full((len(captions), TEXT_TOKENS), _END_TOKEN)
        mask = torch.zeros_like(tokens)
        for row, caption in enumerate(captions):
            ids = [_START_TOKEN, *self._tokenize(caption)[: TEXT_TOKENS - 2], _END_TOKEN]
            tokens[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        states = self._model(input_ids=tokens.to(self._device), attention_mask=mask.to(self._device)).last_hidden_state
        result: np.ndarray = states.to(torch.float16).cpu().numpy()
        return result


def load_text_encoder(name: str) -> ClipTextEncoder:
    """Loads CLIP's text encoder.

    Args:
        name: A Hugging Face hub id, a local folder in the same layout, or `tiny`: two random layers of the same
            width behind the real BPE vocabulary, with a fixed seed; a stand-in for machines without weights.

    Raises:
        UsageError: If there is no such model, or it is not 512 wide.
    """
    if name == STAND_IN:
        return ClipTextEncoder(_stand_in_model(), _stand_in_tokenizer(), "tiny (random CLIP, seed 0)", is_stand_in=True)
    try:
        tokenizer = CLIPTokenizerFast.from_pretrained(name)
        model = CLIPTextModel.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"--text-encoder {name}: expected a hub id, a local CLIP folder or {STAND_IN}: {reason}"
        ) from error
    if model.config.hidden_size != TEXT_WIDTH:
        raise UsageError(
            f"--text-encoder {name}: expected width {TEXT_WIDTH} (CLIP ViT-B/32), found {model.config.hidden_size}"
        )
    revision = getattr(model.config, "_commit_hash", None)

    def tokenize(caption: str) -> list[int]:
        ids: list[int] = tokenizer(caption, add_special_tokens=False)["input_ids"]
        return ids

    return ClipTextEncoder(model, tokenize, f"{name}@{revision[:12]}" if revision else name, is_stand_in=False)


def _stand_in_model() -> CLIPTextModel:
    config = CLIPTextConfig(
        hidden_size=TEXT_WIDTH, intermediate_size=TEXT_WIDTH, num_hidden_layers=2, num_attention_heads=8
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return CLIPTextModel(config)


def _stand_in_tokenizer() -> Tokenize:
    try:
        from instant_clip_tokenizer import Tokenizer
    except ImportError as error:
        raise UsageError(
            f"--text-encoder {STAND_IN}: needs the package instant-clip-tokenizer; install the extra `demo`"
        ) from error
    tokenizer = Tokenizer()

    def tokenize(caption: str) -> list[int]:
        return list(tokenizer.encode(caption))

    return tokenize
