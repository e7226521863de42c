"""Which clips a video model trains on, whether they fit it, and what turns pixels into latents."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass

import numpy as np

from schemas.encoder import same_model
from schemas.errors import UsageError
from schemas.shard import NUM_FRAMES, VIDEO
from vpp.data.clip_batch import Representation
from vpp.data.clip_index import ClipIndex
from vpp.data.settings import DataSettings
from vpp.data.streams import training_order
from vpp.video.denoiser import DenoiserConfig
from vpp.video.svd import ModelDescription

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoData:
    """Clips that fit a model.

    Attributes:
        index: All clips.
        train: Rows that are trained on, ascending.
        held_out: Rows that judge the model.
        representation: What is read of a clip: stored latents, or frames that a codec encodes in training.
        text_encoder: Name of the encoder that made the captions' token sequences.
        latent_codec: Name of the codec that made the stored latents; empty for frames, and where the source brought
            latents of its own.
    """

    index: ClipIndex
    train: np.ndarray
    held_out: np.ndarray
    representation: Representation
    text_encoder: str
    latent_codec: str

    @property
    def fingerprint(self) -> str:
        """Changes with every clip that is added, taken away or held out."""
        digest = hashlib.sha256()
        for rows in (self.train, self.held_out):
            for first in range(0, len(rows), 100_000):
                digest.update("\n".join(self.index.clip_ids(rows[first : first + 100_000])).encode())
        return digest.hexdigest()[:16]


def open_video_data(
    url: str, settings: DataSettings, config: DenoiserConfig, has_codec: bool, model: ModelDescription | None
) -> VideoData:
    """Opens a dataset for training a video model.

    Args:
        url: The output of `jobs/preprocess.py`.
        settings: Selection and held-out share.
        config: The model's.
        has_codec: Whether a codec was named to encode frames in training. Otherwise latents are read where all clips
            have them, and the model's own codec encodes frames where they do not.
        model: What is known of the model that goes on training; None from scratch.

    Raises:
        UsageError: If there are no clips, they lack what is read (with an image condition, another camera), or come
            from other frozen models than the model.
    """
    index = ClipIndex.read(url, settings.selection, settings.retry_s)
    split = index.split_validation(settings.validation_fraction)
    if not len(split.train):
        raise UsageError(f"--data {url}: expected clips to train on, found {len(index)} clips, all of them held out")
    text_encoder = _only("text encoder", {models.text_encoder for models in index.models()}, url)
    if not text_encoder:
        raise UsageError(
            f"--data {url}: expected captions with token sequences, found clips without; run jobs/preprocess.py with "
            "--text-encoder"
        )
    want_frames = has_codec or not all(models.has_latents for models in index.models())
    if want_frames and not has_codec and model is None:
        raise UsageError(
            f"--data {url}: expected clips with latents, found clips without; preprocess them with --latents, or "
            "encode them in training with --codec NAME or --codec train"
        )
    representation: Representation = "frames" if want_frames else "latents"
    codecs = {models.latent_codec for models in index.models() if models.has_latents}
    latent_codec = "" if want_frames else _only("latent codec", codecs, url)
    if config.num_frames != NUM_FRAMES:
        raise UsageError(
            f"--data {url}: expected clips of {config.num_frames} frames as the model's, found {NUM_FRAMES}"
        )
    training_order(index, split.train, settings, seed=0, global_batch=1)  # a wrong mixture or camera is told now
    if config.image_condition:
        others = index.other_cameras(np.arange(len(index)), settings.retry_s)
        index.check_members(others, (VIDEO,))
    if model is not None:
        _check_fits("text encoder", text_encoder, model.text_encoder, url)
        if not want_frames:
            _check_fits("latent codec", latent_codec, model.latent_codec, url)
    return VideoData(index, split.train, split.validation, representation, text_encoder, latent_codec)


def _only(what: str, names: set[str], url: str) -> str:
    if len(names) > 1:
        found = " and ".join(sorted(repr(name) for name in names))
        raise UsageError(f"--data {url}: expected clips of one {what}, found {found}; select those of one")
    return next(iter(names), "")


def _check_fits(what: str, of_data: str, of_model: str, url: str) -> None:
    if not of_data or not of_model:
        _log.warning(
            "%s: data %r, model %r: one is not told, so it is not known whether they fit", what, of_data, of_model
        )
    elif not same_model(of_data, of_model):
        raise UsageError(
            f"--data {url}: expected clips of the model's {what} {of_model!r}, found clips of {of_data!r}; preprocess "
            "them again with the model's, or train another model"
        )
