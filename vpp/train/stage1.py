"""Stage 1: fine-tunes the text-guided video model on clips. Settings, and the job from data to a model folder.

<run>/run.json       resolved settings, commit, fingerprint of the data
<run>/codec/         the small VAE, where one was trained first
<run>/checkpoints/   what a training resumes from
<run>/steps/         every step and its samples
<run>/tensorboard/   curves and pictures
<run>/previews/      predicted beside true videos
<run>/model/         the averaged weights as a diffusers pipeline folder
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from diffusers import AutoencoderKLTemporalDecoder

from schemas.errors import UsageError
from schemas.settings import commit, to_mapping
from schemas.storage import check_writable, exists, join, read_bytes, write_bytes
from vpp.data.loader import ClipLoader
from vpp.data.settings import DataSettings
from vpp.data.streams import training_order
from vpp.train.checkpoint import read_latest_checkpoint
from vpp.train.engine import Outcome, TrainSettings, check_same, train
from vpp.train.optimizer import OptimizerSettings
from vpp.train.ray_train import WorkerSettings, run_on_workers
from vpp.train.snapshot import load_average
from vpp.train.video_data import VideoData, has_latents, open_video_data
from vpp.train.video_task import VideoTask
from vpp.train.video_validation import ValidationSettings, VideoValidation
from vpp.train.worker import Worker
from vpp.video.codec_training import CodecSettings, save_codec, train_codec
from vpp.video.denoiser import DenoiserConfig, VideoDenoiser
from vpp.video.latent_codec import codec_id
from vpp.video.lora import add_lora, merge_lora
from vpp.video.model_folder import INDEX
from vpp.video.objective import ObjectiveSettings
from vpp.video.plane_convolution import use_plane_convolutions
from vpp.video.svd import (
    ModelDescription,
    load_denoiser,
    load_vae,
    read_description,
    save_pipeline,
    unet_from_scratch,
)

_log = logging.getLogger(__name__)

PUBLISHED_BASE = "stabilityai/stable-video-diffusion-img2vid"


@dataclass(frozen=True)
class Stage1Settings:
    """Everything that a run follows from.

    Raises:
        ValueError: If a value is outside its range.
    """

    data: str = ""
    """Folder or URL that `jobs/preprocess.py` wrote."""
    output: str = ""
    """Folder or URL of the run; the same one again resumes."""
    preset: Literal["", "tiny", "small", "svd"] = ""
    """Size of a model from scratch; it also sets the defaults of `model`, `objective` and `train`. Empty fine-tunes
    `base`."""
    base: str = PUBLISHED_BASE
    """Folder, URL or hub id of the model that is fine-tuned; not used with a preset."""
    codec: str = ""
    """What encodes frames in training: a VAE's folder or hub id, or `train` for a small one that is trained first on
    the same clips. Empty reads stored latents, and where there are none, encodes with the base's own VAE."""
    lora_rank: int = 0
    """Rank of low-rank adapters, which are then trained instead of all weights; 0 trains all."""
    model: DenoiserConfig = field(default_factory=DenoiserConfig)
    """How the UNet is called; what the base's `vpp.json` says goes first."""
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    """The training distribution."""
    loading: DataSettings = field(default_factory=DataSettings)
    """Which clips, and how they are mixed."""
    train: TrainSettings = field(default_factory=TrainSettings)
    """Length, batch, checkpoints."""
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    """What a validation looks at."""
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    """How many processes."""
    small_codec: CodecSettings = field(default_factory=CodecSettings)
    """The small VAE of `--codec train`."""

    def __post_init__(self) -> None:
        if self.lora_rank < 0:
            raise ValueError(f"expected lora_rank >= 0, found {self.lora_rank}")
        if self.lora_rank and self.preset:
            raise ValueError("lora_rank adapts trained weights: expected a base, found a preset from scratch")


def preset_settings(settings: Stage1Settings) -> Stage1Settings:
    """The defaults that go with a preset."""
    if settings.preset not in ("tiny", "small"):
        return Stage1Settings(preset=settings.preset)
    return Stage1Settings(
        preset=settings.preset,
        model=DenoiserConfig(anchor="first_frame"),
        train=TrainSettings(
            steps=200 if settings.preset == "tiny" else 2000,
            batch_size=8,
            micro_batch_size=8,
            gradient_checkpointing=False,
            ema_decay=0.99,
            checkpoint_every=100,
            validate_every=100,
            optimizer=OptimizerSettings(learning_rate=5e-4, warmup_steps=20),
        ),
    )


def run_stage1(settings: Stage1Settings) -> Outcome:
    """Runs the job: checks everything, trains, and leaves the model in `<run>/model`.

    Raises:
        UsageError: Before training, if a setting is wrong or the data do not fit the model.
        TrainingFailed: If the workers failed; running again continues.
    """
    if not settings.output:
        raise UsageError("--output: expected a folder or URL to write to, found nothing")
    plan = _plan(settings)
    check_writable(settings.output)
    _write_record(settings, plan)
    if _is_exported(settings):
        return Outcome(settings.train.steps, is_finished=True)
    name = f"stage1-{hashlib.sha256(settings.output.encode()).hexdigest()[:8]}"
    if settings.codec == "train" and not exists(join(plan.vae, INDEX)):
        alone = replace(settings.workers, num_workers=1, min_workers=0)
        outcome = run_on_workers(partial(_train_codec, settings), alone, settings.small_codec.steps, f"{name}-codec")
        if not outcome.is_finished:
            return Outcome(0, is_finished=False)
    return run_on_workers(partial(_train, settings), settings.workers, settings.train.steps, name)


@dataclass(frozen=True)
class _Plan:
    """What settings and data come to.

    Attributes:
        data: The clips.
        base: What is known of the model that is fine-tuned; None from scratch.
        vae: Folder, URL or hub id of the VAE that encodes frames or shows predictions; empty for none.
        fixed: Values that stay the same for the whole run.
    """

    data: VideoData
    base: ModelDescription | None
    vae: str
    fixed: dict[str, Any]


def _plan(settings: Stage1Settings) -> _Plan:
    if not settings.data:
        raise UsageError("--data: expected the output of jobs/preprocess.py, found nothing")
    base = None if settings.preset else _describe_base(settings)
    want_frames = bool(settings.codec) or not has_latents(settings.data, settings.loading)
    if want_frames and settings.preset and not settings.codec:
        raise UsageError(
            f"--data {settings.data}: expected clips with latents, found clips without; preprocess them with "
            "--latents, or encode them in training with --codec NAME or --codec train"
        )
    config = base.denoiser if base else settings.model
    data = open_video_data(settings.data, settings.loading, config.num_frames, want_frames, base)
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
    }
    return _Plan(data, base, vae, fixed)


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


def _write_record(settings: Stage1Settings, plan: _Plan) -> None:
    url = join(settings.output, "run.json")
    if exists(url):
        check_same(plan.fixed, json.loads(read_bytes(url))["fixed"], settings.output)
    record = {"settings": to_mapping(settings), "fixed": plan.fixed, "commit": commit()}
    write_bytes(url, (json.dumps(record, indent=1) + "\n").encode())


# --- in the workers ------------------------------------------------------------------------------------


def _train_codec(settings: Stage1Settings, worker: Worker) -> Outcome:
    """Trains the small VAE on the clips of the run, and keeps it under the run."""
    data = _plan(settings).data
    order = training_order(data.index, data.train, settings.loading, settings.train.seed, global_batch=1)
    with ClipLoader(data.index, order, representation="frames", retry_s=settings.loading.retry_s) as loader:
        clips = (batch.frames[0].numpy() for batch in loader if batch.frames is not None)
        vae = train_codec(clips, settings.small_codec, worker.progress)
    save_codec(join(settings.output, "codec"), vae)
    return Outcome(settings.small_codec.steps, is_finished=True)


def _train(settings: Stage1Settings, worker: Worker) -> Outcome:
    """What each worker does."""
    plan = _plan(settings)
    vae = _load_vae(plan, worker)
    denoiser = _make_denoiser(settings, plan, vae)
    if settings.train.gradient_checkpointing:
        denoiser.unet.enable_gradient_checkpointing()
    if settings.lora_rank:
        add_lora(denoiser.unet, settings.lora_rank, alpha=settings.lora_rank)
    denoiser.to(worker.device)
    if worker.device.type == "cpu":
        use_plane_convolutions(denoiser.unet)
    validation = None
    if settings.train.validate_every and len(plan.data.held_out):
        validation = VideoValidation(plan.data, settings.validation, vae, worker, settings.output)
    task = VideoTask(
        denoiser, vae, plan.data, settings.loading, settings.objective, validation,
        seed=settings.train.seed, batch_size=settings.train.batch_size, worker=worker,
    )  # fmt: skip
    outcome = train(task, settings.train, worker, settings.output, plan.fixed)
    if worker.leads and outcome.is_finished:
        _export(settings, plan, vae)
    return outcome


def _load_vae(plan: _Plan, worker: Worker) -> AutoencoderKLTemporalDecoder | None:
    must_encode = plan.data.representation == "frames"
    try:
        return load_vae(plan.vae).requires_grad_(False).eval().to(worker.device) if plan.vae else None
    except UsageError as error:
        if must_encode:
            raise
        _log.warning("predictions are judged as latents and not shown: %s", error)
        return None


def _make_denoiser(settings: Stage1Settings, plan: _Plan, vae: AutoencoderKLTemporalDecoder | None) -> VideoDenoiser:
    if not settings.preset:
        return load_denoiser(settings.base, fallback=settings.model)[0]
    scaling = float(vae.config.scaling_factor) if vae is not None else settings.model.scaling_factor
    config = replace(settings.model, scaling_factor=scaling)
    return VideoDenoiser(unet_from_scratch(settings.preset, config.num_frames, settings.train.seed), config)


def _trained_by(settings: Stage1Settings) -> str:
    return f"{settings.train.steps} steps, commit {commit()}"


def _is_exported(settings: Stage1Settings) -> bool:
    written = read_description(join(settings.output, "model"))
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
    description = ModelDescription(denoiser.config, plan.data.text_encoder, codec, _trained_by(settings))
    save_pipeline(join(settings.output, "model"), unet, vae, description, "" if settings.preset else settings.base)
