"""Factories of the frozen models: picklable, and light until called, since importing torch takes seconds."""

from __future__ import annotations

from functools import partial

from schemas.encoder import LatentCodec, LatentCodecFactory, TextEncoder, TextEncoderFactory


def text_encoder_factory(name: str) -> TextEncoderFactory | None:
    """Makes CLIP's text encoder by hub id, local folder or `tiny`; None for `none`."""
    return None if name == "none" else partial(_text_encoder, name)


def latent_codec_factory(name: str) -> LatentCodecFactory | None:
    """Makes the SVD VAE's encoder by hub id, local folder or `tiny`; None for `none`."""
    return None if name == "none" else partial(_latent_codec, name)


def _text_encoder(name: str) -> TextEncoder:
    from vpp.video.text_encoder import load_text_encoder

    return load_text_encoder(name)


def _latent_codec(name: str) -> LatentCodec:
    from vpp.video.latent_codec import load_latent_codec

    return load_latent_codec(name)
