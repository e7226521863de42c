"""Stage 1: fine-tunes the text-guided video model on clips, from data to a model's folder.

<run>/run.json       resolved settings, commit, fingerprint of the data
<run>/codec/         the small VAE, where one was trained first
<run>/checkpoints/   what a training resumes from
<run>/steps/         every step and its samples
<run>/tensorboard/   curves and pictures
<run>/previews/      predicted beside true videos
<run>/model/         the averaged weights as a diffusers pipeline folder
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder

from runtime.settings import commit, to_mapping
from schemas.encoder import same_model
from schemas.errors import UsageError
from schemas.storage import absolute, check_writable, exists, join
from vpp.data.frame_size import frame_size
from vpp.data.loader import ClipLoader
from vpp.data.streams import training_order
from vpp.train.checkpoint import read_latest_checkpoint
from vpp.train.engine import Outcome, check_same, train
from vpp.train.ray_train import run_on_workers
from vpp.train.run_record import write_run_record
from vpp.train.snapshot import load_average
from vpp.train.stage1_settings import Stage1Settings
from vpp.train.training_card import training_blocks
from vpp.train.video_data import VideoData, open_video_data
from vpp.train.video_task import VideoTask
from vpp.train.video_validation import VideoValidation
from vpp.train.worker import Worker
from vpp.video.card import video_model_card
from vpp.video.codec_training import save_codec, train_codec
from vpp.video.denoiser import VideoDenoiser
from vpp.video.image_encoder import (
    ClipImageEncoder,
    image_encoder_id,
    load_image_encoder,
)
from vpp.video.lora import add_lora, merge_lora
from vpp.video.model_folder import INDEX
from vpp.video.plane_convolution import use_plane_convolutions
from vpp.video.recompute import recompute_in_backward
from vpp.video.svd import ModelDescription, load_denoiser, read_description, save_pipeline, unet_from_scratch
from vpp.video.vae import codec_id, load_vae

_log = logging.getLogger(__name__)


def run_stage1(settings: Stage1Settings) -> Outcome:
    """Runs the job: checks everything, trains, and leaves the model in `<run>/model`.

    Raises:
        UsageError: Before training, if a setting is wrong or the data do not fit the model.
        TrainingFailed: If the workers failed; running again continues.
    """
    if not settings.output:
        raise UsageError("--output: expected a folder or URL to write to, found nothing")
    settings = _from_anywhere(settings)
    plan = _plan(settings)
    check_writable(settings.output)
    if settings.codec == "train" and not exists(join(plan.vae, INDEX)):
        alone = replace(settings.workers, num_workers=1, min_workers=0)
        steps = settings.small_codec.steps
        outcome = run_on_workers(partial(_train_codec, settings), alone, steps, "stage1-codec", settings.output)
        if not outcome.is_finished:
            return Outcome(0, is_finished=False)
    plan = _settled(settings, plan)
    write_run_record(settings.output, settings, plan.fixed)
    if _is_exported(settings):
        return Outcome(settings.train.steps, is_finished=True)
    work = partial(_train, settings, plan.vae, plan.fixed)
    return run_on_workers(work, settings.workers, settings.train.steps, "stage1", settings.output)


def _from_anywhere(settings: Stage1Settings) -> Stage1Settings:
    """Paths made absolute: workers run in another folder than the driver."""
    output = settings.output if "://" in settings.output else os.path.abspath(settings.output)
    codec = settings.codec if settings.codec == "train" else absolute(settings.codec)
    return replace(
        settings,
        data=absolute(settings.data),
        output=output,
        base=absolute(settings.base),
        codec=codec,
        image_encoder=absolute(settings.image_encoder),
    )


def train_here(settings: Stage1Settings) -> Outcome:
    """Trains in this process, on the CPU and without Ray: for tests, notebooks and debuggers.

    Raises:
        UsageError: As `run_stage1`.
    """
    plan = _settled(settings, _plan(settings))
    return _train(settings, plan.vae, plan.fixed, Worker())


@dataclass(frozen=True)
class _Plan:
    """What settings and data come to.

    Attributes:
        data: The clips.
        base: What is known of the model that is fine-tuned; None from scratch.
        vae: Folder, URL or hub id of the VAE that encodes frames or shows predictions; empty for none.
        image_encoder: Name and revision of what embeds another camera's picture; empty without an image condition.
        fixed: Values that stay the same for the whole run.
    """

    data: VideoData
    base: ModelDescription | None
    vae: str
    image_encoder: str
    fixed: dict[str, Any]


def _plan(settings: Stage1Settings) -> _Plan:
    if not settings.data:
        raise UsageError("--data: expected the output of jobs/preprocess.py, found nothing")
    base = None if settings.preset else _describe_base(settings)
    if base and settings.codec:
        _check_codec(settings, base.latent_codec)
    config = base.denoiser if base else settings.model
    data = open_video_data(settings.data, settings.loading, config, bool(settings.codec), base)
    image_encoder = image_encoder_id(settings.image_encoder) if config.image_condition else ""
    if base and image_encoder:
        _check_image_encoder(settings, image_encoder, base.image_encoder)
    vae = join(settings.output, "codec") if settings.codec == "train" else settings.codec
    if not vae:
        vae = _name_of_codec(data.latent_codec) if settings.preset else settings.base
    loading = to_mapping(settings.loading)
    fixed = {
        "data": data.fingerprint,
        "start": settings.preset or settings.base,
        "codec": settings.codec or data.latent_codec,
        "lora_rank": settings.lora_rank,
        "model": to_mapping(config),
        "objective": to_mapping(settings.objective),
        "order": {name: loading[name] for name in ("mixture", "cameras", "piece_clips", "shuffle_pieces")},
        "seed": settings.train.seed,
        "batch_size": settings.train.batch_size,
        "optimizer": settings.train.optimizer.kind,
    }
    if image_encoder:
        fixed["image_encoder"] = image_encoder
    return _Plan(data, base, vae, image_encoder, fixed)


def _settled(settings: Stage1Settings, plan: _Plan) -> _Plan:
    """Decides once for all workers which VAE there is, since what one of them cannot reach would set it apart."""
    try:
        vae = load_vae(plan.vae) if plan.vae else None
    except UsageError as error:
        if plan.data.representation == "frames":
            raise
        _log.warning("predictions are judged as latents and not shown: %s", error)
        vae = None
    scaling = float(vae.config.scaling_factor) if vae is not None else settings.model.scaling_factor
    fixed = plan.fixed | ({"scaling_factor": scaling} if settings.preset else {})
    return replace(plan, vae=plan.vae if vae is not None else "", fixed=fixed)


def _check_codec(settings: Stage1Settings, of_base: str) -> None:
    named = (
        "one that is trained anew" if settings.codec == "train" else codec_id(load_vae(settings.codec), settings.codec)
    )
    if of_base and not same_model(named, of_base):
        raise UsageError(
            f"--codec {settings.codec}: expected the model's latent codec {of_base!r}, found {named!r}; leave "
            "--codec out to use the base's own"
        )


def _check_image_encoder(settings: Stage1Settings, named: str, of_base: str) -> None:
    if not of_base:
        _log.warning("image encoder: base does not tell its own, so it is not known whether %r fits", named)
    elif not same_model(named, of_base):
        raise UsageError(
            f"--image-encoder {settings.image_encoder}: expected the model's image encoder {of_base!r}, found "
            f"{named!r}; name the one that the base was trained with"
        )


def _name_of_codec(latent_codec: str) -> str:
    """Where a codec that made stored latents may be found: a folder or hub id, or nothing for a stand-in."""
    name = latent_codec.rpartition("@")[0] or latent_codec
    return name if exists(name) or name.count("/") == 1 else ""


def _describe_base(settings: Stage1Settings) -> ModelDescription:
    described = read_description(settings.base)
    if described is None:  # a model of others: its own VAE is what it was trained with
        codec = codec_id(load_vae(settings.base), settings.base)
        return ModelDescription(denoiser=settings.model, latent_codec=codec)
    return described


# --- in the workers ------------------------------------------------------------------------------------


class _Stopped(Exception):
    """The codec's training was asked to stop."""


def _train_codec(settings: Stage1Settings, worker: Worker) -> Outcome:
    """Trains the small VAE on the clips of the run, and keeps it under the run."""
    data = _plan(settings).data
    order = training_order(data.index, data.train, settings.loading, settings.train.seed, global_batch=1)

    def report(step: int, losses: Mapping[str, float]) -> None:
        worker.progress(step, losses)
        if worker.signal() == "stop":
            raise _Stopped

    with ClipLoader(data.index, order, representation="frames", retry_s=settings.loading.retry_s) as loader:
        clips = (batch.frames[0].numpy() for batch in loader if batch.frames is not None)
        try:
            vae = train_codec(clips, settings.small_codec, report, worker.device)
        except _Stopped:
            return Outcome(0, is_finished=False)
    save_codec(join(settings.output, "codec"), vae)
    return Outcome(settings.small_codec.steps, is_finished=True)


def _train(settings: Stage1Settings, vae_name: str, fixed: dict[str, Any], worker: Worker) -> Outcome:
    """What each worker does; the driver has decided the VAE, and what stays the same."""
    plan = replace(_plan(settings), vae=vae_name)
    told = {name: value for name, value in fixed.items() if name != "scaling_factor"}
    check_same(json.loads(json.dumps(plan.fixed)), json.loads(json.dumps(told)), settings.output)
    vae = load_vae(vae_name).requires_grad_(False).eval().to(worker.device) if vae_name else None
    if vae is not None and worker.device.type == "cpu":
        use_plane_convolutions(vae)
        vae.encoder.to(memory_format=torch.channels_last)  # a third less time
    denoiser = _make_denoiser(settings, plan, vae)
    if settings.lora_rank:
        torch.manual_seed(settings.train.seed)  # the same adapters in every worker
        add_lora(denoiser.unet, settings.lora_rank, alpha=settings.lora_rank)
    denoiser.to(worker.device)
    image_encoder = _load_image_encoder(settings, plan, worker)
    if worker.device.type == "cpu":
        use_plane_convolutions(denoiser.unet)
    if settings.train.gradient_checkpointing:
        recompute_in_backward(denoiser.unet)
    validation = None
    if settings.train.validate_every and len(plan.data.held_out):
        validation = VideoValidation(plan.data, settings.validation, vae, image_encoder, worker, settings.output)
    task = VideoTask(
        denoiser, vae, image_encoder, plan.data, settings.loading, settings.objective, validation,
        seed=settings.train.seed, batch_size=settings.train.batch_size, worker=worker,
    )  # fmt: skip
    outcome = train(task, settings.train, worker, settings.output, fixed)
    if worker.leads and outcome.is_finished:
        _export(settings, plan, vae)
    return outcome


def _load_image_encoder(settings: Stage1Settings, plan: _Plan, worker: Worker) -> ClipImageEncoder | None:
    return load_image_encoder(settings.image_encoder, worker.device) if plan.image_encoder else None


def _make_denoiser(settings: Stage1Settings, plan: _Plan, vae: AutoencoderKLTemporalDecoder | None) -> VideoDenoiser:
    if not settings.preset:
        return load_denoiser(settings.base, fallback=settings.model)[0]
    scaling = float(vae.config.scaling_factor) if vae is not None else settings.model.scaling_factor
    config = replace(settings.model, scaling_factor=scaling)
    return VideoDenoiser(unet_from_scratch(settings.preset, config.num_frames, settings.train.seed), config)


def _trained_by(settings: Stage1Settings) -> str:
    return f"{settings.train.steps} steps, commit {commit()}"


def _is_exported(settings: Stage1Settings) -> bool:
    model = join(settings.output, "model")
    written = read_description(model) if exists(join(model, INDEX)) else None
    return written is not None and written.trained_by.startswith(f"{settings.train.steps} steps,")


def _export(settings: Stage1Settings, plan: _Plan, vae: AutoencoderKLTemporalDecoder | None) -> None:
    """Writes the averaged weights of the last checkpoint as a model of its own."""
    checkpoint = read_latest_checkpoint(settings.output, groups=["ema"])
    assert checkpoint is not None
    denoiser = _make_denoiser(settings, plan, vae)
    if settings.lora_rank:
        add_lora(denoiser.unet, settings.lora_rank, alpha=settings.lora_rank)
    load_average(checkpoint.tensors, denoiser)
    unet = merge_lora(denoiser.unet) if settings.lora_rank else denoiser.unet
    codec = plan.data.latent_codec or (codec_id(vae, plan.vae) if vae is not None else "")
    description = ModelDescription(
        denoiser=denoiser.config,
        text_encoder=plan.data.text_encoder,
        latent_codec=codec,
        frame_size=frame_size(plan.data.index, plan.data.representation, settings.loading.retry_s),
        image_encoder=plan.image_encoder,
        trained_by=_trained_by(settings),
    )
    base = "" if settings.preset else settings.base
    data, judged = plan.data, checkpoint.state.get("validation", {})
    told = training_blocks(data.index, data.train, data.held_out, "clips", settings.train, judged)
    card = video_model_card(description, base, sum(weights.numel() for weights in unet.parameters()), *told)
    save_pipeline(join(settings.output, "model"), unet, vae, description, base, card)
