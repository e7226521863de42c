"""CLIP's text encoder as the published code calls it: a token sequence for the video model, one vector for the policy.

Source: arXiv 2412.14803 and its public code (ViT-B/32, width 512). The sequence is `last_hidden_state` of 20 tokens,
padded with the end token, padding masked inside CLIP; the vector is CLIP's text embedding, pooled and projected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizerFast

from schemas.encoder import STAND_IN, TEXT_TOKENS, TEXT_WIDTH
from schemas.errors import UsageError

_START_TOKEN, _END_TOKEN = 49406, 49407
_SEED = 0

Tokenize = Callable[[str], list[int]]
"""A caption to its BPE token ids, without start and end."""


class ClipTextEncoder:
    """Implements `schemas.encoder.TextEncoder`.

    Args:
        model: CLIP's text model.
        projection: `[512, width]`, from the pooled state to CLIP's text embedding; None where the weights have none.
        tokenize: Its tokenizer.
        model_id: Name and revision for the manifest.
        is_stand_in: True for random weights.
    """

    def __init__(
        self,
        model: CLIPTextModel,
        projection: torch.Tensor | None,
        tokenize: Tokenize,
        model_id: str,
        is_stand_in: bool,
    ) -> None:
        self.model_id = model_id
        self.is_stand_in = is_stand_in
        self._tokenize = tokenize
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().requires_grad_(False).to(self._device)
        self._projection = None if projection is None else projection.detach().to(self._device)

    @torch.inference_mode()
    def encode(self, captions: Sequence[str]) -> np.ndarray:
        """Token sequences (`last_hidden_state`) float16 `[N, 20, 512]`; longer captions are cut."""
        tokens, mask = self._tokens(captions, TEXT_TOKENS)
        states = self._model(input_ids=tokens, attention_mask=mask).last_hidden_state
        result: np.ndarray = states.to(torch.float16).cpu().numpy()
        return result

    @torch.inference_mode()
    def encode_goals(self, captions: Sequence[str]) -> np.ndarray:
        """CLIP's text embeddings float32 `[N, 512]`: the end token's state, projected, not normalised.

        They read CLIP's whole context of 77 tokens, where `encode` cuts at 20; longer captions are cut.

        Raises:
            UsageError: If the weights have no `text_projection`, as those of a video model's own text encoder.
        """
        if self._projection is None:
            raise UsageError(
                f"text encoder {self.model_id}: expected text_projection among its weights for the policy's goals, "
                "found none; use a whole CLIP model such as openai/clip-vit-base-patch32"
            )
        tokens, mask = self._tokens(captions, self._model.config.max_position_embeddings)
        states = self._model(input_ids=tokens, attention_mask=mask).last_hidden_state
        pooled = states[torch.arange(len(captions), device=self._device), mask.sum(1) - 1]
        result: np.ndarray = (pooled @ self._projection.T).float().cpu().numpy()
        return result

    def _tokens(self, captions: Sequence[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids, padded with the end token, and what of them is no padding `[N, length]`."""
        tokens = torch.full((len(captions), length), _END_TOKEN)
        mask = torch.zeros_like(tokens)
        for row, caption in enumerate(captions):
            ids = [_START_TOKEN, *self._tokenize(caption)[: length - 2], _END_TOKEN]
            tokens[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        return tokens.to(self._device), mask.to(self._device)


def load_text_encoder(name: str) -> ClipTextEncoder:
    """Loads CLIP's text encoder.

    Args:
        name: A Hugging Face hub id, a local folder in the same layout, or `tiny`: two random layers of the same
            width behind the real BPE vocabulary, and a random projection, with a fixed seed; a stand-in for machines
            without weights.

    Raises:
        UsageError: If there is no such model, or it is not 512 wide.
    """
    if name == STAND_IN:
        model_id = "tiny (random CLIP, seed 0)"
        return ClipTextEncoder(*_stand_in_model(), _stand_in_tokenizer(), model_id, is_stand_in=True)
    try:
        tokenizer = CLIPTokenizerFast.from_pretrained(name)
        whole, report = CLIPTextModelWithProjection.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"--text-encoder {name}: expected a hub id, a local CLIP folder or {STAND_IN}: {reason}"
        ) from error
    model = whole.text_model
    has_projection = "text_projection.weight" not in report["missing_keys"]
    projection: torch.Tensor | None = whole.text_projection.weight if has_projection else None
    if model.config.hidden_size != TEXT_WIDTH:
        raise UsageError(
            f"--text-encoder {name}: expected width {TEXT_WIDTH} (CLIP ViT-B/32), found {model.config.hidden_size}"
        )
    if projection is not None and len(projection) != TEXT_WIDTH:
        raise UsageError(
            f"--text-encoder {name}: expected text_projection to width {TEXT_WIDTH} (CLIP ViT-B/32), found "
            f"{len(projection)}"
        )
    revision = getattr(whole.config, "_commit_hash", None)

    def tokenize(caption: str) -> list[int]:
        ids: list[int] = tokenizer(caption, add_special_tokens=False)["input_ids"]
        return ids

    model_id = f"{name}@{revision[:12]}" if revision else name
    return ClipTextEncoder(model, projection, tokenize, model_id, is_stand_in=False)


def _stand_in_model() -> tuple[CLIPTextModel, torch.Tensor]:
    config = CLIPTextConfig(
        hidden_size=TEXT_WIDTH, intermediate_size=TEXT_WIDTH, num_hidden_layers=2, num_attention_heads=8
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return CLIPTextModel(config), torch.randn(TEXT_WIDTH, TEXT_WIDTH) / TEXT_WIDTH**0.5


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
