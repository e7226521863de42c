"""Names of the parameters in the authors' stage 2 checkpoint, and which of them are not taken over."""

from __future__ import annotations

import re
from collections.abc import Iterable

FORMER, DENOISER = "Video_Former.", "model.inner_model."

FORMER_NAMES = (
    (r"^queries$", "latents"),
    (r"^frame_embedding$", "time_pos_emb"),
    (r"^feature_mlp\.", "goal_emb."),
    (r"^final_norm\.", "norm."),
    (r"\.cross_attention\.feature_norm\.", ".0.norm_media."),
    (r"\.cross_attention\.query_norm\.", ".0.norm_latents."),
    (r"\.cross_attention\.query\.", ".0.to_q."),
    (r"\.cross_attention\.key\.", ".0.to_k."),
    (r"\.cross_attention\.value\.", ".0.to_v."),
    (r"\.cross_attention\.output\.", ".0.to_out."),
    (r"\.temporal_attention\.query_key_value\.", ".1.qkv."),
    (r"\.temporal_attention\.output\.", ".1.proj."),
)
"""Our names of the Video Former's parameters to the published ones; its MLP comes last in a layer."""

DENOISER_NAMES = (
    (r"^token_projection\.", "tok_emb."),
    (r"^goal_mlp\.", "lang_emb."),
    (r"^sigma_mlp\.0\.", "sigma_emb.1."),
    (r"^sigma_mlp\.2\.", "sigma_emb.3."),
    (r"^action_projection\.", "action_emb."),
    (r"^output\.", "action_pred."),
    (r"^(en|de)coder_norm\.", r"\1coder.ln."),
    (r"^(en|de)coder_layers\.", r"\1coder.blocks."),
    (r"\.cross_attention_norm\.", ".ln3."),
    (r"\.attention_norm\.", ".ln_1."),
    (r"\.mlp_norm\.", ".ln_2."),
    (r"\.cross_attention\.", ".cross_att."),
    (r"\.attention\.", ".attn."),
    (r"\.output\.", ".c_proj."),
    (r"\.mlp\.0\.", ".mlp.c_fc."),
    (r"\.mlp\.2\.", ".mlp.c_proj."),
    (r"\.modulation\.", ".adaLN_zero.modulation.1."),
)
"""Our names of the action denoiser's parameters to the published ones."""

IGNORED = (
    ("language_goal.", "frozen CLIP, which encodes goals; named by id instead"),
    ("TVP_encoder.text_encoder.", "frozen CLIP, which encodes captions; named by id instead"),
    (f"{DENOISER}goal_emb.", "embeds goal images; unused where language is the goal"),
    (f"{DENOISER}proprio_emb.", "embeds proprioception; unused in the published policy"),
    (f"{DENOISER}pos_emb", "positional embeddings that the published policy never adds"),
)
"""Beginnings of keys that are not taken over, and why."""


def published_keys(ours: Iterable[str], prefix: str, names: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The published key of each of our parameters.

    Args:
        ours: Names within our module.
        prefix: What stands before the module's names in the checkpoint.
        names: Patterns and what takes their place, one after another.

    >>> published_keys(["decoder_layers.0.cross_attention.output.weight"], DENOISER, DENOISER_NAMES)
    {'decoder_layers.0.cross_attention.output.weight': 'model.inner_model.decoder.blocks.0.cross_att.c_proj.weight'}
    """
    keys = {}
    for name in ours:
        published = name
        for pattern, replacement in names:
            published = re.sub(pattern, replacement, published)
        keys[name] = prefix + published
    return keys


def former_names(is_3d: bool) -> tuple[tuple[str, str], ...]:
    """Our names of the Video Former's parameters to the published ones, of a Video Former with or without time."""
    return (*FORMER_NAMES, (r"\.mlp\.", ".2." if is_3d else ".1."))
