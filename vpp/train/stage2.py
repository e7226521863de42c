"""Stage 2: trains the policy on what the frozen video model foresees, from episodes to a policy's folder.

<run>/run.json       resolved settings, commit, fingerprint of the data
<run>/checkpoints/   what a training resumes from
<run>/steps/         every step and its samples
<run>/tensorboard/   curves
<run>/policy/        the averaged weights, with all that is needed to act
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from runtime.settings import commit, to_mapping
from schemas.encoder import same_model
from schemas.errors import UsageError
from schemas.storage import absolute, check_writable, exists, join
from vpp.data.frame_size import frame_size
from vpp.policy.card import policy_card
from vpp.policy.config import PolicyConfig
from vpp.policy.perception import Perception, load_perception
from vpp.policy.policy_folder import CONFIG, PolicyFolder, make_network, read_config, save_policy
from vpp.train.checkpoint import read_latest_checkpoint
from vpp.train.engine import Outcome, check_same, train
from vpp.train.feature_cache import FeatureCache
from vpp.train.policy_data import PolicyData, open_policy_data
from vpp.train.policy_inputs import PolicyInputs
from vpp.train.policy_task import PolicyTask
from vpp.train.policy_validation import PolicyValidation
from vpp.train.ray_train import run_on_workers
from vpp.train.run_record import write_run_record
from vpp.train.snapshot import load_average
from vpp.train.stage2_settings import Stage2Settings
from vpp.train.training_card import training_blocks
from vpp.train.worker import Worker
from vpp.video.model_folder import find_model, loadable_name
from vpp.video.text_encoder import load_text_encoder
from vpp.video.vae import codec_id

_log = logging.getLogger(__name__)


def run_stage2(settings: Stage2Settings) -> Outcome:
    """Runs the job: checks everything, trains, and leaves the policy in `<run>/policy`.

    Raises:
        UsageError: Before training, if a setting is wrong or data and video model do not fit.
        TrainingFailed: If the workers failed; running again continues.
    """
    if not settings.output:
        raise UsageError("--output: expected a folder or URL to write to, found nothing")
    settings = _from_anywhere(settings)
    plan = _plan(settings)
    check_writable(settings.output)
    write_run_record(settings.output, settings, plan.fixed)
    if _is_exported(settings):
        return Outcome(settings.train.steps, is_finished=True)
    work = partial(_train, settings, plan)
    return run_on_workers(work, settings.workers, settings.train.steps, "stage2", settings.output)


def train_here(settings: Stage2Settings) -> Outcome:
    """Trains in this process, on the CPU and without Ray: for tests, notebooks and debuggers.

    Raises:
        UsageError: As `run_stage2`.
    """
    return _train(settings, _plan(settings), Worker())


def _from_anywhere(settings: Stage2Settings) -> Stage2Settings:
    """Paths made absolute: workers run in another folder than the driver."""
    output = settings.output if "://" in settings.output else os.path.abspath(settings.output)
    return replace(
        settings,
        data=absolute(settings.data),
        output=output,
        video_model=absolute(settings.video_model),
        codec=absolute(settings.codec),
        text_encoder=absolute(settings.text_encoder),
        feature_folder=settings.feature_folder and os.path.abspath(settings.feature_folder),
    )


@dataclass(frozen=True)
class _Plan:
    """What settings, data and video model come to; decided by the driver for all workers.

    Attributes:
        config: Of the policy that comes out.
        fixed: Values that stay the same for the whole run.
    """

    config: PolicyConfig
    fixed: dict[str, Any]


def _plan(settings: Stage2Settings) -> _Plan:
    if not settings.data:
        raise UsageError("--data: expected the output of jobs/preprocess.py, found nothing")
    if not settings.video_model:
        raise UsageError("--video-model: expected a run of jobs/stage1.py or a model's folder, found nothing")
    data = open_policy_data(settings.data, settings.loading, settings.normalise_actions, settings.normalise_proprio)
    perception = _load_perception(settings, torch.device("cpu"))
    _check_fits(settings, data, perception)
    extractor = perception.extractor
    num_views = len(data.index.cameras)
    config = PolicyConfig(
        cameras=data.index.cameras,
        frame_size=perception.description.frame_size,
        video_model=find_model(settings.video_model),
        video_model_hash=perception.hash,
        codec=settings.codec,
        text_encoder=settings.text_encoder or loadable_name(data.text_encoder),
        features=settings.features,
        num_features=extractor.num_channels,
        num_frames=extractor.num_frames,
        num_tokens=num_views * extractor.num_tokens,
        video_former=settings.video_former,
        denoiser=replace(
            settings.denoiser,
            action_dim=data.index.action_dim,
            num_actions=settings.loading.num_actions,
            token_width=settings.video_former.width,
            proprio_dim=data.index.proprio_dim if settings.loading.proprio else 0,
        ),
        sampler=settings.sampler,
        datasets=tuple(sorted(data.action_normalisers)),
        trained_by=f"{settings.train.steps} steps, commit {commit()}",
    )
    network = make_network(config)
    num_weights = sum(parameter.numel() for parameter in network.parameters())
    _log.info(
        "policy of %.2f M weights; %d windows to train on, %d held out; %d views, features [%d, %d, %d] of %s",
        num_weights / 1e6, len(data.train), len(data.held_out), num_views, extractor.num_frames,
        num_views * extractor.num_tokens, extractor.num_channels, settings.features.encoder,
    )  # fmt: skip
    load_text_encoder(config.text_encoder)  # a missing one is told before workers start
    loading = to_mapping(settings.loading)
    reading = ("read_ahead", "num_threads", "retry_s")
    described = to_mapping(config)
    fixed = {
        "data": data.index.fingerprint,
        **{name: described[name] for name in described if name not in ("video_model", "trained_by", "sampler")},
        "order": {name: value for name, value in loading.items() if name not in reading},
        "normalise": [settings.normalise_actions, settings.normalise_proprio],
        "objective": to_mapping(settings.objective),
        "seed": settings.train.seed,
        "batch_size": settings.train.batch_size,
        "optimizer": settings.train.optimizer.kind,
    }
    return _Plan(config, fixed)


def _load_perception(settings: Stage2Settings, device: torch.device) -> Perception:
    dtype = torch.bfloat16 if settings.train.precision == "bf16" else torch.float32
    return load_perception(settings.video_model, settings.codec, settings.features, device, settings.model, dtype)


def _check_fits(settings: Stage2Settings, data: PolicyData, perception: Perception) -> None:
    """Captions and stored latents must come from the models that the video model was trained with."""
    description = perception.description
    found = frame_size(data.index, data.representation, settings.loading.retry_s)
    if found != description.frame_size:
        raise UsageError(
            f"--data {settings.data}: expected frames of {description.frame_size} pixels, which the video model was "
            f"trained on, found {found}; preprocess them with --video.frame-size {description.frame_size}"
        )
    pairs = [("text encoder", data.text_encoder, description.text_encoder)]
    if data.latent_codec:
        pairs.append(("latent codec", data.latent_codec, codec_id(perception.vae, settings.codec or "the model's VAE")))
    for what, of_data, of_model in pairs:
        if not of_data or not of_model:
            _log.warning("%s: data %r, video model %r: it is not known whether they fit", what, of_data, of_model)
        elif not same_model(of_data, of_model):
            raise UsageError(
                f"--data {settings.data}: expected episodes of the video model's {what} {of_model!r}, found those of "
                f"{of_data!r}; preprocess them again with the model's, or name another --video-model"
            )


def _is_exported(settings: Stage2Settings) -> bool:
    folder = join(settings.output, "policy")
    return exists(join(folder, CONFIG)) and read_config(folder).trained_by.startswith(f"{settings.train.steps} steps,")


# --- in the workers ------------------------------------------------------------------------------------


def _train(settings: Stage2Settings, plan: _Plan, worker: Worker) -> Outcome:
    """What each worker does."""
    data = open_policy_data(settings.data, settings.loading, settings.normalise_actions, settings.normalise_proprio)
    check_same({"data": data.index.fingerprint}, {"data": plan.fixed["data"]}, settings.output)
    perception = _load_perception(settings, worker.device)
    told = {"video_model_hash": plan.config.video_model_hash}
    check_same({"video_model_hash": perception.hash}, told, settings.output)
    torch.manual_seed(settings.train.seed)  # the same weights in every worker
    network = make_network(plan.config).to(worker.device).train()
    cache = _feature_cache(settings, plan, data) if settings.cache_features else None
    text_encoder = load_text_encoder(plan.config.text_encoder)
    inputs = PolicyInputs(
        perception, text_encoder, data.action_normalisers, data.proprio_normalisers, cache, worker.device
    )  # fmt: skip
    validation = None
    if settings.train.validate_every and len(data.held_out):
        validation = PolicyValidation(
            data, inputs, settings.validation, settings.objective, settings.sampler, worker, settings.loading.retry_s
        )
    task = PolicyTask(
        network, inputs, data, settings.loading, settings.objective, validation,
        seed=settings.train.seed, batch_size=settings.train.batch_size, worker=worker,
    )  # fmt: skip
    loop = settings.train
    if plan.config.denoiser.compat.lr_schedule_inert:
        loop = replace(loop, optimizer=replace(loop.optimizer, schedule="constant"))
    outcome = train(task, loop, worker, settings.output, plan.fixed)
    if worker.leads and outcome.is_finished:
        _export(settings, plan, data)
    if cache is not None and not settings.feature_folder:
        shutil.rmtree(_own_feature_folder(settings), ignore_errors=True)  # of another worker on this machine too
    return outcome


def _feature_cache(settings: Stage2Settings, plan: _Plan, data: PolicyData) -> FeatureCache:
    told = {name: plan.fixed[name] for name in ("data", "video_model_hash", "codec", "features", "cameras")}
    told |= {"precision": settings.train.precision}
    key = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]
    num_used = len(data.train) + min(settings.validation.num_windows, len(data.held_out))
    shape = (len(data.index), plan.config.num_frames, plan.config.num_tokens, plan.config.num_features)
    return FeatureCache(settings.feature_folder or _own_feature_folder(settings), key, shape, num_used)


def _own_feature_folder(settings: Stage2Settings) -> str:
    run = hashlib.sha256(settings.output.encode()).hexdigest()[:16]
    return os.path.join(tempfile.gettempdir(), f"vpp-features-{run}")


def _export(settings: Stage2Settings, plan: _Plan, data: PolicyData) -> None:
    """Writes the averaged weights of the last checkpoint as a policy."""
    checkpoint = read_latest_checkpoint(settings.output, groups=["ema"])
    assert checkpoint is not None
    network = make_network(plan.config)
    load_average(checkpoint.tensors, network)
    folder = PolicyFolder(plan.config, network, data.action_normalisers, data.proprio_normalisers)
    judged = checkpoint.state.get("validation", {})
    told = training_blocks(data.index, data.train, data.held_out, "windows", settings.train, judged)
    card = policy_card(plan.config, sum(weights.numel() for weights in network.parameters()), *told)
    save_policy(join(settings.output, "policy"), folder, card)
